"""The loss on a path between two networks, as a picture."""

from typing import Any

import numpy as np

from kerasgreedy.reports.figures import PART_WORDS, new_figure, plain_numbers


def draw_path_loss(found: dict[str, Any]) -> Any:
    """Loss against the share of the way: the path with its beads, the straight line, the level."""
    figure = new_figure(6.4, 4.2)
    axes = figure.subplots()
    straight = np.array(found["straight"], float)
    axes.plot(np.linspace(0, 1, len(straight)), straight, "--", color="C1", label="straight line")
    ways, losses = [], []
    for piece, start, end in zip(found["losses"], found["places"], found["places"][1:], strict=False):
        ways += np.linspace(start, end, len(piece)).tolist()
        losses += piece
    words = "string of beads" if found["form"] == "string" else "curve"
    axes.plot(ways, np.array(losses, float), "-", color="C0", label=f"{words}, {PART_WORDS[found['part']]} images")
    if found["form"] == "string":
        beads = [found["losses"][0][0], *(piece[-1] for piece in found["losses"])]
        axes.plot(found["places"], np.array(beads, float), "o", color="C0", markersize=4)
    axes.plot(found["places"], np.array(found["test"], float), "s:", color="C2", markersize=3, label="on test images")
    axes.axhline(found["level"], color="0.4", linestyle=":", linewidth=1, label="level")
    finite = np.array([v for v in [*straight, *losses] if v is not None and np.isfinite(v)])
    if finite.size and finite.min() > 0 and finite.max() > 20 * finite.min():
        axes.set_yscale("log")
        plain_numbers(axes.yaxis)
    axes.set_xlabel(f"share of the way from {found['from']['name']} to {found['to']['name']}")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    images = f"{found['examples']:,} {PART_WORDS[found['part']]} images"
    figure.suptitle(f"{images}; batch norm: re-estimated at each point", fontsize=9)
    return figure
