"""What thresholds would leave, as a picture: accuracy, kernels and multiply-adds against tau, from the files of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerasgreedy.errors import InputError
from kerasgreedy.reports.figures import new_figure, plain_numbers
from kerasgreedy.strict_json import read_json

FOLDER = "thresholds"


def sweeps_of(workdir: Path) -> dict[str, dict[str, Any]]:
    """Action -> `tau` that was taken and `sweep`, of those whose file is there."""
    found = {}
    for path in sorted((workdir / FOLDER).glob("*.json")):
        try:
            found[path.stem] = read_json(path)
        except InputError:
            continue
    return found


def draw_thresholds(actions: Mapping[str, Mapping[str, Any]]) -> Any:
    """Validation accuracy of the thresholded network above; shares of kernels and multiply-adds below; a line at tau."""
    figure = new_figure(7, 6)
    axes = figure.subplots(2, 1, sharex=True)
    for index, (name, found) in enumerate(actions.items()):
        rows = [row for row in found["sweep"] if row["tau"] > 0]
        taus = [row["tau"] for row in rows]
        colour = f"C{index % 10}"
        label = name.removeprefix("threshold_") if len(actions) > 1 else None
        looked = [row for row in rows if row["accuracy"] is not None]
        axes[0].plot([row["tau"] for row in looked], [100 * row["accuracy"] for row in looked], "o-", color=colour, label=label)
        for key, style, words in (("kernels", "s--", "kernels"), ("multiply_adds", "^-", "multiply-adds")):
            whole = max((row[key] for row in rows), default=1) or 1
            axes[1].plot(taus, [100 * row[key] / whole for row in rows], style, color=colour, label=words if not index else None)
        for axis in axes:
            if found["tau"] > 0:
                axis.axvline(found["tau"], color=colour, linestyle=":", linewidth=1)
    axes[0].set_ylabel("validation accuracy, %")
    axes[0].set_title("before fine-tuning", fontsize=9)
    axes[1].set_ylabel("% that stay")
    axes[1].set_xlabel("tau (dotted: taken)")
    axes[1].set_xscale("log")
    plain_numbers(axes[1].xaxis)
    for axis in axes:
        axis.grid(alpha=0.3)
    if len(actions) > 1:
        axes[0].legend(fontsize=8)
    axes[1].legend(fontsize=8)
    return figure
