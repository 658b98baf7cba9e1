"""Figures: drawn without touching the caller's matplotlib, with texts that show as what they are."""

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kerasgreedy.errors import printable
from kerasgreedy.pictures import MADE_BY, plain_matplotlib, write_picture

# Of points of runs, in turn.
MARKERS = "osD^v<>pP*"
# What captions call a part of the data, and what stands for statistics of batch norm.
PART_WORDS = {"train": "training", "validation": "validation", "test": "test"}
NORM_WORDS = {
    "moving": "batch norm: moving averages of training",
    "reestimated": "batch norm: re-estimated at each point",
    "none": "no batch norm",
}


def new_figure(width: float, height: float) -> Any:
    """An empty figure of that size in inches; for use in what `write_figure` calls."""
    # The object interface leaves the caller's matplotlib backend and open figures alone.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=130, layout="constrained")


def write_figure(target: Path, draw: Callable[[], Any], overwrite: bool = False) -> None:
    """Draws a figure and writes it as PNG; at any moment the old or the whole new file is there.

    Args:
        draw: gives the figure.
        overwrite: in the place of a file that was not made here too.

    Raises:
        InputError, WorkdirError: see `pictures.write_picture`.
    """
    with plain_matplotlib(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that its font has not: they show as boxes
        figure = draw()
        _show_texts(figure)
        content = io.BytesIO()
        figure.savefig(content, format="png", metadata=MADE_BY)
    write_picture(target, content.getvalue(), overwrite)


def _show_texts(figure: Any) -> None:
    """Spells out what would not show as itself, in every text of a figure; numbers at ticks are matplotlib's own."""
    from matplotlib.axis import Axis
    from matplotlib.text import Text
    from matplotlib.ticker import FixedFormatter

    for text in figure.findobj(Text):
        text.set_text(printable(text.get_text()))
    for axis in figure.findobj(Axis):
        names = axis.get_major_formatter()
        if isinstance(names, FixedFormatter):
            names.seq = [printable(name) for name in names.seq]


def counted(runs: Sequence[Mapping[str, Any]], key: str = "examples") -> str:
    """How many images runs were looked at with: `1,000`, or `90 to 1,000` where they differ."""
    counts = sorted({int(run[key]) for run in runs})
    return f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"


def short(name: str, most: int = 32) -> str:
    """A name for a legend or an axis: of a longer one both ends."""
    half = (most - 3) // 2
    return name if len(name) <= most else f"{name[:half]}...{name[-half:]}"


def whole_numbers(axis: Any, low: float, high: float) -> None:
    """Ticks of a horizontal axis at whole numbers only, with room on both sides, even if there is but one."""
    axis.set_xlim(low - 0.04 * (high - low) - 0.2, high + 0.04 * (high - low) + 0.2)
    axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def legend_below(figure: Any, axes: Any, columns: int = 4) -> None:
    """A legend below a figure, where it covers nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(handles)), fontsize=8, frameon=False)


def colours(count: int) -> list[Any]:
    """So many colours that are told apart; beyond ten, along a scale from the first to the last."""
    import matplotlib

    if count <= 10:
        return [f"C{index}" for index in range(count)]
    return [matplotlib.colormaps["viridis"](0.95 * index / (count - 1)) for index in range(count)]


def plain_numbers(axis: Any) -> None:
    """Labels a logarithmic axis `0.02` instead of `2e-02`, at the ticks that matplotlib labels."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    axis.set_major_formatter(Plain())
    axis.set_minor_formatter(Plain(minor_thresholds=(2, 0.6)))
