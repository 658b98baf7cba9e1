"""Plots as PNG files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kerasgreedy.pictures import picture_path
from kerasgreedy.reports.figures import colours, legend_below, new_figure, plain_numbers, whole_numbers, write_figure
from kerasgreedy.reports.path_plot import draw_path, path_problems
from kerasgreedy.reports.pruning_table import draw_pruning, pruning_points
from kerasgreedy.reports.run_files import REFRESH, RunRecord, read_metrics
from kerasgreedy.reports.tables import loss_name, run_names
from kerasgreedy.reports.threshold_plot import draw_thresholds, sweeps_of


def plot_run(path: Path, results: dict[str, Any]) -> None:
    """Writes `plots/accuracy_by_depth.png` and `plots/loss.png`.

    Where filters were removed, `plots/pruning.png` too; where by a threshold, `plots/threshold.png`; where a regularisation path
    was followed, `plots/path.png`.
    """
    folder = path / "plots"
    metrics = read_metrics(path)
    title = f"{results['spec']}, {results['strategy']} on {shortened(results['dataset'])}"
    write_figure(folder / "accuracy_by_depth.png", lambda: _draw_depths([(path.name, results)]))
    write_figure(folder / "loss.png", lambda: _draw_losses(metrics, title))
    points = pruning_points(results["phases"])
    if points:
        write_figure(folder / "pruning.png", lambda: draw_pruning(points, title))
    thresholds = sweeps_of(path)
    if thresholds:
        write_figure(folder / "threshold.png", lambda: draw_thresholds(thresholds))
    problems = path_problems(results["phases"], metrics)
    if problems:
        write_figure(folder / "path.png", lambda: draw_path(problems))


def plot_comparison(runs: Sequence[RunRecord], target: Path, overwrite: bool = False) -> None:
    """Accuracy by depth of several runs in one picture.

    Args:
        overwrite: in the place of a file that was not made here too.

    Raises:
        InputError: the target is a folder, or is there and was not made here.
        WorkdirError: it cannot be written.
    """
    named = list(zip(run_names(runs), (run.results for run in runs), strict=True))
    write_figure(picture_path(target, overwrite), lambda: _draw_depths(named), overwrite)


def _draw_depths(runs: Sequence[tuple[str, dict[str, Any]]]) -> Any:
    figure = new_figure(7, 4.4)
    axes = figure.subplots()
    known: list[int] = []
    for colour, (name, results) in zip(colours(len(runs)), runs, strict=True):
        depths = [entry["depth"] for entry in results["depths"]]
        known += depths
        label = f"{results['spec']}, {results['strategy']}" if len(runs) == 1 else name
        axes.plot(depths, [100 * entry["top1"] for entry in results["depths"]], "o-", color=colour, label=label)
        if len(depths) > 1:
            vote = 100 * results["ensemble"]["top1"]
            axes.axhline(vote, color=colour, linestyle="--", linewidth=1, label=f"ensemble {vote:.2f} %")
    first = runs[0][1]
    of = {f"{results['dataset']}" for _, results in runs}
    title = f"{first['spec']}: accuracy by depth" if len(runs) == 1 else "Accuracy by depth"
    axes.set_title(f"{title}, {shortened(first['dataset'])}" if len(of) == 1 else title, fontsize=10)
    axes.set_xlabel("depth (blocks)")
    axes.set_ylabel("top-1 accuracy on test data, %")
    whole_numbers(axes, min(known), max(known))
    axes.grid(alpha=0.3)
    legend_below(figure, axes, 2 if len(runs) > 2 else 4)
    return figure


def shortened(dataset: str) -> str:
    """A data set without the folders that it lies in."""
    kind, colon, place = dataset.partition(":")
    return f"{kind}:{Path(place).name}" if colon else dataset


STYLES = {"train": ("-", "training"), "validation": ("--", "validation"), "train_exact": (":", "training data in inference mode")}


def _draw_losses(metrics: Sequence[dict[str, Any]], title: str) -> Any:
    """Loss and accuracy over all epochs; heads are told apart by colour, and phases by a line where one ends.

    A dotted line stands where masks were estimated.
    """
    figure = new_figure(9, 6.2)
    axes = figure.subplots(2, 1, sharex=True)
    starts: dict[int, int] = {}
    total = 0
    for phase in sorted({record["phase"] for record in metrics}):
        starts[phase] = total
        total += max(record["epoch"] for record in metrics if record["phase"] == phase)
    refreshes = [starts[record["phase"]] + record["epoch"] for record in metrics if record["split"] == REFRESH]
    series: dict[tuple[int, str, str], list[dict[str, Any]]] = {}
    for record in metrics:
        if record["split"] == REFRESH:
            continue
        series.setdefault((record["phase"], record["head"], record["split"]), []).append(record)
    heads = list(dict.fromkeys(head for _, head, _ in series))
    shades = dict(zip(heads, colours(len(heads)), strict=True))
    for head in heads:
        axes[0].plot([], [], "-", color=shades[head], label=head)
    for (phase, head, split), records in series.items():
        epochs = [starts[phase] + record["epoch"] for record in records]
        marker = "." if len(records) == 1 else None
        for axis, key, scale in ((axes[0], "loss", 1.0), (axes[1], "accuracy", 100.0)):
            values = [scale * r[key] for r in records]
            axis.plot(epochs, values, STYLES[split][0], marker=marker, color=shades[head])
    losses = [record for record in metrics if record["split"] != REFRESH]
    for axis, name in ((axes[0], loss_name(losses)), (axes[1], "accuracy, %")):
        for start in list(starts.values())[1:]:
            axis.axvline(start, color="0.8", linewidth=0.8, zorder=0)
        for index, epoch in enumerate(refreshes):
            label = "masks estimated" if index == 0 else None
            axis.axvline(epoch, color="0.5", linewidth=0.6, linestyle=":", zorder=0, label=label)
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
    if series:
        axes[0].set_yscale("log")
        plain_numbers(axes[0].yaxis)
        whole_numbers(axes[1], min(starts[r["phase"]] + r["epoch"] for r in losses), total)
    for split, (style, words) in STYLES.items():
        if any(split == other for _, _, other in series):
            axes[0].plot([], [], style, color="0.3", label=words)
    axes[0].set_title(title, fontsize=10)
    axes[1].set_xlabel("epoch")
    legend_below(figure, axes[0], 6)
    return figure
