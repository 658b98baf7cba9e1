"""A sweep as a picture, from the contents of `sweep.json`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kerasgreedy.reports.figures import colours, legend_below, new_figure, plain_numbers, write_figure
from kerasgreedy.strict_json import as_json, is_number, value_text

PARTS = {"train": ("train_accuracy", "train_loss", ":"), "validation": ("validation_top1", "validation_loss", "--"),
         "test": ("top1", "loss", "-")}  # fmt: skip
# Numbers whose ratio is larger than this stand on a logarithmic axis.
WIDE = 20
FEW, MOST_NAMED = 3, 9


def plot_sweep(target: Path, table: dict[str, Any]) -> None:
    """Writes accuracy and loss against the first setting with several values: a colour for each combination of the others."""
    write_figure(target, lambda: draw_sweep(table))


def draw_sweep(table: dict[str, Any]) -> Any:
    """Means over seeds as lines, of training (last epoch), validation and test data; each test figure as a dot."""
    names = list(table["keys"].values())
    many = (name for name in names if len({as_json(point["values"][name]) for point in table["points"]}) > 1)
    first = next(many, names[0])  # along the axis
    others = [name for name in names if name != first]
    points = [point for point in table["points"] if point["seeds"]]
    ticks = list(dict.fromkeys(value_text(point["values"][first]) for point in table["points"]))
    numeric = all(is_number(point["values"][first]) for point in table["points"])
    groups: dict[str, list[dict[str, Any]]] = {}
    for point in points:
        groups.setdefault(", ".join(f"{key} {value_text(point['values'][key])}" for key in others), []).append(point)

    # Of many groups every so many are named: colours are along a scale then.
    named = list(groups)[:: 1 + (len(groups) - 1) // MOST_NAMED]
    shown = tuple(PARTS) if len(groups) <= FEW else ("test",)
    labels = {(name, part): f"{name[:40]} {part}".strip() for name in named for part in shown}
    figure = new_figure(9.5, 4.6)
    panels = figure.subplots(1, 2)
    for axes, column, scale in zip(panels, (0, 1), (100, 1), strict=True):
        for colour, (name, own) in zip(colours(len(groups)), groups.items(), strict=True):
            places = [point["values"][first] if numeric else ticks.index(value_text(point["values"][first])) for point in own]
            for part, keys in PARTS.items():
                heights = [scale * point[keys[column]][0] if point[keys[column]] else float("nan") for point in own]
                axes.plot(places, heights, keys[2], color=colour, label=labels.get((name, part)), marker=".", markersize=3)
            for place, point in zip(places, own, strict=True):
                runs = [run for run in table["runs"] if as_json(run["values"]) == as_json(point["values"])]
                axes.plot(
                    [place] * len(runs), [scale * run[PARTS["test"][column]] for run in runs], "o", color=colour, markersize=4
                )
        if table["best"] is not None:
            best = table["points"][table["best"]]["values"][first]
            axes.axvline(best if numeric else ticks.index(value_text(best)), color="0.75", zorder=0, linewidth=4, alpha=0.5)
        _scale(axes, [point["values"][first] for point in points] if numeric else ticks, numeric)
        axes.set_xlabel(first)
        axes.set_ylabel(("accuracy, %", "loss")[column])
        axes.grid(alpha=0.3)
    marked = "" if table["best"] is None else "; grey: best on validation data"
    parts = "" if len(groups) <= FEW else "; dashed validation, dotted training"
    figure.suptitle(f"{Path(table['spec']).stem}: means over seeds, dots are tests of each{parts}{marked}", fontsize=10)
    legend_below(figure, panels[0], 3 if len(groups) > 1 else 4)
    return figure


def _scale(axes: Any, values: Sequence[Any], numeric: bool) -> None:
    if not numeric:
        many = len(values) > 5
        labels = [f"{text[:17]}..." if len(text) > 20 else text for text in values]
        axes.set_xticks(range(len(values)), labels, rotation=60 if many else 0, fontsize=6 if len(values) > 20 else 8)
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
