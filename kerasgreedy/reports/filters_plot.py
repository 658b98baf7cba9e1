"""Picture of filters: each scaled by its own largest number, 0 is grey."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasgreedy.pictures import picture_path
from kerasgreedy.reports.figures import new_figure, write_figure

if TYPE_CHECKING:
    from numpy.typing import NDArray


def plot_filters(result: dict[str, Any], filters: "NDArray[np.float64]", target: str | Path, overwrite: bool = False) -> Path:
    """Draws filters into a PNG file; one that was made here is replaced.

    Args:
        result, filters: of `analysis.class_filters.class_filters_of`. Of three channels colours are shown, else the mean of all.
        overwrite: a file that was not made here too.

    Returns:
        the file.

    Raises:
        InputError: the target is a folder, or is there and was not made here.
        WorkdirError: it cannot be written.
    """
    place = picture_path(Path(target), overwrite)
    write_figure(place, lambda: _draw(result, filters), overwrite)
    return place


def _draw(result: dict[str, Any], filters: "NDArray[np.float64]") -> Any:
    columns = math.ceil(math.sqrt(len(filters)))
    rows = math.ceil(len(filters) / columns)
    figure = new_figure(6, 6 * rows / columns + 0.6)
    axes = figure.subplots()
    size = filters.shape[1]
    sheet = np.full((rows * (size + 1) + 1, columns * (size + 1) + 1, 3), 1.0)
    for number, one in enumerate(filters if filters.shape[-1] == 3 else filters.mean(-1, keepdims=True)):
        top, left = (place * (size + 1) + 1 for place in divmod(number, columns))
        sheet[top : top + size, left : left + size] = 0.5 + 0.5 * one / (np.abs(one).max() or 1.0)
    axes.imshow(sheet, interpolation="nearest")
    axes.set_axis_off()
    shown = f"{result['shown']} of {result['filters']:,} filters, {100 * result['norm_share']:.0f} % of the norms"
    axes.set_title(f"{result['spec']}, {result['head']}, class {result['class']}: {shown}", fontsize=9)
    return figure
