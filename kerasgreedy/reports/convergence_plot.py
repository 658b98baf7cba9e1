"""Figure of runs' convergence: training loss and validation error against iterations (support, Fig. 1 and 3)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kerasgreedy.reports.convergence import RunGroup
from kerasgreedy.reports.figures import new_figure, plain_numbers, write_figure
from kerasgreedy.reports.training_curves import Curve, Series, mean_series, refreshes, series, value_at

LOSS_NAMES = {
    "train_exact": "training loss (training data in inference mode)",
    "train": "training loss (mean over each epoch)",
    "validation": "validation loss",
}
SOLID, DASHED = "-", (0, (4, 2))


def plot_convergence(groups: Sequence[RunGroup], result: dict[str, Any], target: Path, overwrite: bool = False) -> None:
    """Writes the figure as PNG.

    One colour a group: a run's own curve, or of several seeds their mean, thick, above the seeds, thin. Dashed: the training loss
    of epochs under masks, which is that of the masked network. Diamonds: masks were estimated. Rings: the last loss of the
    reference was reached.

    Args:
        result: of `comparison` for these groups.
        overwrite: in the place of a file that was not made here too.

    Raises:
        InputError: the file is there and was not made here.
        WorkdirError: it cannot be written.
    """
    write_figure(target, lambda: _draw(groups, result), overwrite)


def _draw(groups: Sequence[RunGroup], result: dict[str, Any]) -> Any:
    figure = new_figure(11, 4.6)
    losses, errors = figure.subplots(1, 2, sharex=True)
    choice = {"head": result["head"], "phase": result["phase"]}
    watched = any(len(series(course, "validation", **choice)) for group in groups for course in group.courses)
    error_split = "validation" if watched else result["split"]
    for index, group in enumerate(groups):
        colour = f"C{index % 10}"
        _draw_group(losses, group, result["split"], "losses", colour, choice)
        _draw_group(errors, group, error_split, "errors", colour, choice)
        if result["split"] == "train_exact":
            _draw_group(losses, group, "train", "losses", colour, choice, only_masked=True)
    _draw_targets(losses, result)
    losses.set_ylabel(LOSS_NAMES[result["split"]])
    errors.set_ylabel(f"{'validation' if watched else 'training'} error, %")
    for axes in (losses, errors):
        _logarithmic(axes, [value for line in axes.lines for value in line.get_ydata()])
        axes.set_xlabel("iterations" if result["phase"] is None else f"iterations of phase {result['phase']}")
        axes.grid(alpha=0.3, which="both")
    figure.legend(handles=_legend(groups, result), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _draw_group(
    axes: Any, group: RunGroup, split: str, what: Curve, colour: str, choice: dict[str, Any], only_masked: bool = False
) -> None:
    """Curves of a group's runs, their mean where there are several, and the points where masks were estimated."""
    curves = [series(course, split, **choice) for course in group.courses]
    several = len(curves) > 1
    for course, curve in zip(group.courses, curves, strict=True):
        _draw_curve(
            axes, curve, what, only_masked, color=colour, linewidth=0.7 if several else 1.6, alpha=0.5 if several else 1.0
        )
        if only_masked:
            continue
        points = [(x, y) for x in refreshes(course, choice["phase"]) if (y := value_at(curve, what, x)) is not None]
        if points:
            axes.plot(
                [x for x, _ in points], [_scaled(y, what) for _, y in points], "D", color=colour, markersize=3 if several else 5,
                markeredgecolor="white", markeredgewidth=0.5, zorder=3,
            )  # fmt: skip
    if several:
        _draw_curve(axes, mean_series(curves), what, only_masked, color=colour, linewidth=2.2)


def _draw_curve(axes: Any, curve: Series, what: Curve, only_masked: bool, **style: Any) -> None:
    """A line for each stretch of one phase whose epochs are all masked, or all not; it begins at the point before them."""
    values = [_scaled(value, what) for value in getattr(curve, what)]
    dash = [masked and what == "losses" for masked in curve.masked]
    start = 0
    for end in range(1, len(curve) + 1):
        same_phase = end < len(curve) and curve.phases[end] == curve.phases[start]
        if same_phase and (end == start + 1 or dash[end] == dash[end - 1]):
            continue
        masked = dash[end - 1]
        if masked or not only_masked:
            marker = "." if end - start == 1 else None
            axes.plot(
                curve.iterations[start:end], values[start:end], linestyle=DASHED if masked else SOLID, marker=marker, **style
            )
        start = end - 1 if same_phase else end


def _draw_targets(axes: Any, result: dict[str, Any]) -> None:
    """The reference's last losses, and where each run reached them."""
    place = next(index for index, group in enumerate(result["groups"]) if group["label"] == result["reference"])
    for run in result["groups"][place]["runs"]:
        axes.axhline(run["target_loss"], color=f"C{place % 10}", linestyle=":", linewidth=1, zorder=0)
    for index, group in enumerate(result["groups"]):
        for run in group["runs"]:
            if run["iterations_to_target"] is not None:
                where = ([run["iterations_to_target"]], [run["target_loss"]])
                axes.plot(*where, "o", markersize=7, markerfacecolor="none", markeredgecolor=f"C{index % 10}", zorder=4)


def _legend(groups: Sequence[RunGroup], result: dict[str, Any]) -> list[Any]:
    from matplotlib.lines import Line2D

    handles = []
    for index, group in enumerate(groups):
        count = len(group.courses)
        label = group.label if count == 1 else f"{group.label}: mean of {count} seeds"
        handles.append(Line2D([], [], color=f"C{index % 10}", linewidth=1.6 if count == 1 else 2.2, label=label))
    if any(refreshes(course, result["phase"]) for group in groups for course in group.courses):
        handles.append(Line2D([], [], marker="D", linestyle="", markersize=5, label="masks estimated", color="0.4"))
    if result["split"] != "validation" and any(
        any(series(course, "train", result["head"], result["phase"]).masked) for group in groups for course in group.courses
    ):
        handles.append(Line2D([], [], linestyle=DASHED, label="training loss under masks", color="0.4"))
    handles.append(Line2D([], [], linestyle=":", label=f"where {result['reference']} ends", color="0.4"))
    handles.append(Line2D([], [], marker="o", linestyle="", markersize=7, markerfacecolor="none", label="reached", color="0.4"))
    return handles


def _logarithmic(axes: Any, values: Sequence[float]) -> None:
    """A log scale with plain numbers, more of them where it spans few decades; linear below its smallest value if some are 0."""
    from matplotlib.ticker import FuncFormatter

    least = min((value for value in values if value > 0), default=None)
    if least is None:
        return
    if min(values) > 0:
        axes.set_yscale("log")
        plain_numbers(axes.yaxis)
    else:
        axes.set_yscale("symlog", linthresh=least)
        axes.set_ylim(0, 1.3 * max(values))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _scaled(value: float, what: Curve) -> float:
    return 100 * value if what == "errors" else value
