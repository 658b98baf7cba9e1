"""The loss on a path between two networks, as a picture."""

from typing import Any

import numpy as np

from kerasgreedy.reports.figures import NORM_WORDS, PART_WORDS, new_figure, plain_numbers, short


def draw_path_loss(found: dict[str, Any]) -> Any:
    """Loss against the share of the way: the path with its beads, the straight line, the level."""
    figure = new_figure(6.4, 4.2)
    axes = figure.subplots()
    straight = np.array(found["straight"], float)
    ways, losses = _whole(found, "losses")
    words = "string of beads" if found["form"] == "string" else "curve"
    axes.plot(ways, np.array(losses, float), "-", color="C0", label=f"{words}, {PART_WORDS[found['part']]} images")
    if found["form"] == "string":
        beads = [found["losses"][0][0], *(piece[-1] for piece in found["losses"])]
        axes.plot(found["places"], np.array(beads, float), "o", color="C0", markersize=4)
    axes.plot(*_whole(found, "test"), "-.", color="C2", linewidth=1.2, label=f"{words}, test images")
    # On top: the path may be that line.
    axes.plot(np.linspace(0, 1, len(straight)), straight, "--", color="C1", label="straight line")
    axes.axhline(found["level"], color="0.4", linestyle=":", linewidth=1, label="level")
    measured = np.concatenate([straight, losses, _whole(found, "test")[1]])
    finite = measured[np.isfinite(measured)]
    if finite.size and finite.min() > 0 and finite.max() > 20 * finite.min():
        axes.set_yscale("log")
        plain_numbers(axes.yaxis)
    ends = f"{short(found['from']['name'], 40)} (0)\nto {short(found['to']['name'], 40)} (1)"
    axes.set_xlabel(f"share of the way from {ends}")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    images = f"{found['examples']:,} {PART_WORDS[found['part']]} images"
    figure.suptitle(f"{images}; {NORM_WORDS[found['statistics']]}", fontsize=9)
    return figure


def _whole(found: dict[str, Any], key: str) -> tuple[list[float], Any]:
    """Shares of the way and losses there, of all pieces."""
    ways: list[float] = []
    losses: list[Any] = []
    for piece, start, end in zip(found[key], found["places"], found["places"][1:], strict=False):
        ways += np.linspace(start, end, len(piece)).tolist()
        losses += piece
    return ways, np.array(losses, float)
