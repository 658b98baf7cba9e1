"""Maps of what answers rest on, as pictures."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasgreedy.reports.figures import new_figure

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Images in one figure.
MOST = 12


def draw_maps(found: dict[str, Any], pixels: "NDArray[Any]", maps: Mapping[str, "NDArray[Any]"]) -> Any:
    """A row for each image: itself, and its map by each method over it."""
    count = min(len(pixels), MOST)
    columns = 1 + len(maps)
    figure = new_figure(1.9 * columns, 1.9 * count + 0.6)
    panels = figure.subplots(count, columns, squeeze=False)
    for row, (image, about) in enumerate(zip(pixels[:count], found["images"], strict=False)):
        grey = {"cmap": "gray", "vmin": 0, "vmax": 1} if image.shape[-1] == 1 else {}
        shown = image[..., 0] if image.shape[-1] == 1 else image
        panels[row, 0].imshow(shown, **grey)
        label = f", is {about['label']}" if about["label"] not in (None, about["class"]) else ""
        panels[row, 0].set_title(f"{about['class']} {100 * about['probability']:.0f} %{label}", fontsize=8)
        for axes, (name, values) in zip(panels[row, 1:], maps.items(), strict=True):
            axes.imshow(image.mean(-1), cmap="gray", vmin=0, vmax=1)
            high = float(np.abs(values[row]).max()) or 1.0
            axes.imshow(np.clip(values[row] / high, 0, 1), cmap="viridis", alpha=0.65, vmin=0, vmax=1)
            if row == 0:
                axes.set_title(name, fontsize=8)
    for axes in panels.flat:
        axes.set_axis_off()
    more = f" (first {count} of {len(pixels)} images)" if len(pixels) > count else ""
    words = "each map from 0 (dark) to its largest (yellow): sizes of integrated gradients; falls of the logit, no rises"
    figure.suptitle(f"{found['name']}, head {found['depth']}, Grad-CAM at block {found['block']}{more}", fontsize=9)
    figure.supxlabel(words, fontsize=7)
    return figure


def draw_removal(found: dict[str, Any], words: Mapping[str, str]) -> Any:
    """Mean probability of the class against the share of pixels that went, and that came."""
    figure = new_figure(8.0, 3.8)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, kind, label in zip(panels, ("deletion", "insertion"), ("removed", "shown"), strict=True):
        for index, (method, checks) in enumerate(found["methods"].items()):
            values = checks[f"{kind}_curve"]
            style = {"color": "0.4", "linestyle": "--"} if method == "random" else {"color": f"C{index}"}
            axes.plot(np.linspace(0, 100, len(values)), values, label=words[method], **style)
        axes.set_title(f"{kind} ({'low' if kind == 'deletion' else 'high'} is good)", fontsize=9)
        axes.set_xlabel(f"most important pixels {label}, %")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("probability of the class")
    panels[0].set_ylim(0, 1)
    panels[1].legend(fontsize=8)
    figure.suptitle(f"{found['name']}: mean of {len(found['images'])} images", fontsize=9)
    return figure
