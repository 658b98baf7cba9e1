"""Picture of early exit: top-1 against the mean multiply-adds of an image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kerasgreedy.pictures import picture_path
from kerasgreedy.reports.costs import count
from kerasgreedy.reports.figures import new_figure, plain_numbers, write_figure

# Of the panel's width and height: labels of points nearer to a labelled one are left out.
NEAR = 0.055


def plot_anytime(result: dict[str, Any], target: str | Path, overwrite: bool = False) -> Path:
    """Draws the curve over thresholds, the fixed depths and the ensemble into a PNG file; one that was made here is replaced.

    Args:
        result: of `analysis.anytime.anytime_of`.
        overwrite: a file that was not made here too.

    Returns:
        the file.

    Raises:
        InputError: the target is a folder, or is there and was not made here.
        WorkdirError: it cannot be written.
    """
    place = picture_path(Path(target), overwrite)
    write_figure(place, lambda: _draw(result), overwrite)
    return place


def _draw(result: dict[str, Any]) -> Any:
    figure = new_figure(8, 5)
    axes = figure.subplots()
    points, depths, vote = result["points"], result["depths"], result["ensemble"]
    axes.plot(*_places(depths), "s:", color="C1", markersize=6, linewidth=1, label="always one depth, other heads not asked")
    axes.plot(*_places([vote]), "*", color="C2", markersize=12, label=f"ensemble of {vote['on']}, all heads asked")
    axes.plot(*_places(points), "o-", color="C0", markersize=4.5, label="early exit, by threshold")
    shares = [entry["multiply_adds_share"] for entry in (*points, *depths, vote)]
    if max(shares) > 20 * min(shares):
        axes.set_xscale("log")
        plain_numbers(axes.xaxis)
    axes.set_xlabel(
        f"mean multiply-adds of an image, % of depth {depths[-1]['depth']} alone ({count(depths[-1]['multiply_adds'])})"
    )
    axes.set_ylabel("top-1 accuracy, %")
    axes.margins(0.07, 0.12)
    axes.grid(alpha=0.3)
    axes.set_title(f"{result['spec']}: early exit on {result['examples']:,} {result['part']} images", fontsize=10)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    axes.autoscale_view()  # else done when drawn, and labels are placed by it
    # Accuracy mostly rises and then levels off: beside the curve there is room above to the left and below to the right.
    _label(axes, points, [shown(point["threshold"]) for point in points], {"xytext": (-3, 4), "ha": "right"}, "C0")
    _label(axes, depths, [f"depth {entry['depth']}" for entry in depths], {"xytext": (4, -12), "ha": "left"}, "C1")
    return figure


def _places(entries: Sequence[dict[str, Any]]) -> tuple[list[float], list[float]]:
    return [100 * entry["multiply_adds_share"] for entry in entries], [100 * entry["top1"] for entry in entries]


def _label(axes: Any, entries: Sequence[dict[str, Any]], names: Sequence[str], side: dict[str, Any], colour: str) -> None:
    """Names of points, the two ends first, and no two so near that they would run into each other."""
    to_panel = axes.transData + axes.transAxes.inverted()
    taken: list[tuple[float, float]] = []
    named = list(zip(*_places(entries), names, strict=True))
    for x, y, name in (named[-1], *named[:-1]):
        across, up = to_panel.transform((x, y))
        if all(max(abs(across - a), abs(up - b)) >= NEAR for a, b in taken):
            taken.append((across, up))
            place = {"xytext": (7, -3), "ha": "left"} if name == "never" else side
            axes.annotate(name, (x, y), textcoords="offset points", fontsize=8, color=colour, **place)


def shown(threshold: float | str) -> str:
    """`0.95`, `never`."""
    return threshold if isinstance(threshold, str) else f"{threshold:g}"
