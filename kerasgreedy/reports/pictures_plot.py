"""Sheets of small pictures, and what is taken for what."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasgreedy.reports.figures import new_figure

if TYPE_CHECKING:
    from numpy.typing import NDArray


def draw_sheet(pictures: "NDArray[Any]", labels: Sequence[str], title: str) -> Any:
    """Pictures (n, height, width, 1 or 3) of numbers from 0 to 1, in rows, each under its label."""
    columns = min(8, math.ceil(math.sqrt(len(pictures))))
    rows = math.ceil(len(pictures) / columns)
    lines = max(label.count("\n") + 1 for label in labels)
    figure = new_figure(max(4.0, 1.15 * columns), (1.05 + 0.14 * lines) * rows + 0.5)
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    for axes, picture, label in zip(panels.flat, pictures, labels, strict=False):
        grey = {"cmap": "gray", "vmin": 0, "vmax": 1} if picture.shape[-1] == 1 else {}
        axes.imshow(picture[..., 0] if picture.shape[-1] == 1 else picture, interpolation="nearest", **grey)
        axes.set_title(label, fontsize=7, pad=2)
        axes.set_axis_on()
        axes.set_xticks([])
        axes.set_yticks([])
    figure.suptitle(title, fontsize=8, wrap=True)
    return figure


def draw_confusion(found: dict[str, Any]) -> Any:
    """Shares of each label's images by answer; numbers are counts where there is room."""
    counts = np.array(found["confusion"])
    names = found["classes"]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(12.0, 2.2 + 0.42 * len(names))
    figure = new_figure(side + 0.8, side)
    axes = figure.subplots()
    drawn = axes.imshow(shares, cmap="viridis", vmin=0, vmax=1)
    if len(names) <= 24:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        for (i, j), count in np.ndenumerate(counts):
            if count:
                axes.text(
                    j, i, str(count), ha="center", va="center", fontsize=7, color="black" if shares[i, j] > 0.5 else "white"
                )
    axes.set_xlabel("answer")
    axes.set_ylabel("label")
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="share of the label's images")
    words = f"{100 * found['accuracy']:.2f} % of {found['examples']:,} {found['part']} images are right"
    figure.suptitle(f"{found['name']}: {words}", fontsize=9)
    return figure
