"""A sweep as a picture, from the contents of `sweep.json`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kerasgreedy.reports.figures import colours, legend_below, new_figure, plain_numbers, write_figure

PARTS = {"train": ("train_accuracy", "train_loss", ":"), "validation": ("validation_top1", "validation_loss", "--"),
         "test": ("top1", "loss", "-")}  # fmt: skip
# Numbers whose ratio is larger than this stand on a logarithmic axis.
WIDE = 20


def plot_sweep(target: Path, table: dict[str, Any]) -> None:
    """Writes accuracy and loss against the first setting: a colour for each combination of the others."""
    write_figure(target, lambda: draw_sweep(table))


def draw_sweep(table: dict[str, Any]) -> Any:
    """Means over seeds as lines, of training (last epoch), validation and test data; each test figure as a dot."""
    first, *others = table["keys"].values()
    points = [point for point in table["points"] if point["seeds"]]
    ticks = list(dict.fromkeys(_text(point["values"][first]) for point in table["points"]))
    numeric = all(_is_number(point["values"][first]) for point in table["points"])
    groups: dict[str, list[dict[str, Any]]] = {}
    for point in points:
        groups.setdefault(", ".join(f"{key} {_text(point['values'][key])}" for key in others), []).append(point)

    figure = new_figure(9.5, 4.6)
    panels = figure.subplots(1, 2)
    for axes, column, scale in zip(panels, (0, 1), (100, 1), strict=True):
        for colour, (name, own) in zip(colours(len(groups)), groups.items(), strict=True):
            places = [point["values"][first] if numeric else ticks.index(_text(point["values"][first])) for point in own]
            for part, keys in PARTS.items():
                heights = [scale * point[keys[column]][0] if point[keys[column]] else float("nan") for point in own]
                axes.plot(places, heights, keys[2], color=colour, label=f"{name} {part}".strip(), marker=".", markersize=3)
            for place, point in zip(places, own, strict=True):
                runs = [run for run in table["runs"] if run["values"] == point["values"]]
                axes.plot(
                    [place] * len(runs), [scale * run[PARTS["test"][column]] for run in runs], "o", color=colour, markersize=4
                )
        if table["best"] is not None:
            best = table["points"][table["best"]]["values"][first]
            axes.axvline(best if numeric else ticks.index(_text(best)), color="0.75", zorder=0, linewidth=4, alpha=0.5)
        _scale(axes, [point["values"][first] for point in points] if numeric else ticks, numeric)
        axes.set_xlabel(first)
        axes.set_ylabel(("accuracy, %", "loss")[column])
        axes.grid(alpha=0.3)
    marked = "" if table["best"] is None else "; grey: best on validation data"
    figure.suptitle(f"{Path(table['spec']).stem}: means over seeds, dots are tests of each{marked}", fontsize=10)
    legend_below(figure, panels[0], 3 if len(groups) > 1 else 4)
    return figure


def _scale(axes: Any, values: Sequence[Any], numeric: bool) -> None:
    if not numeric:
        axes.set_xticks(range(len(values)), [text[:20] for text in values])
        axes.set_xlim(-0.5, len(values) - 0.5)
        return
    positive = sorted(value for value in values if value > 0)
    if min(values) < 0 or not positive or positive[-1] <= WIDE * positive[0]:
        return
    if len(positive) < len(values):
        axes.set_xscale("symlog", linthresh=positive[0])
    else:
        axes.set_xscale("log")
        plain_numbers(axes.xaxis)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    return f"{value:g}" if _is_number(value) else str(value)
