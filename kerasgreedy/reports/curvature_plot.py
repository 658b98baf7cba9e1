"""Curvature of losses as pictures."""

import math
from typing import Any

import numpy as np

from kerasgreedy.reports.figures import PART_WORDS, counted, legend_below, new_figure, short

COLUMNS = 3


def draw_eigenvalues(found: dict[str, Any]) -> Any:
    """Largest and smallest eigenvalue of each network.

    Bars: the larger of the standard deviation over the parts of the images and the error of the values. Hollow: not converged.
    """
    runs = found["runs"]
    figure = new_figure(6.4, 1.6 + 0.45 * len(runs))
    axes = figure.subplots()
    rows = np.arange(len(runs))
    late = [not all(part["converged"] for part in run["parts"]) for run in runs]
    for key, marker, colour in (("largest", "o", "C0"), ("smallest", "s", "C1")):
        for row, run in enumerate(runs):
            value, spread = run[key]
            error = max(spread, *(part[f"{key}_error"] for part in run["parts"]))
            style = {"fmt": marker, "color": colour, "capsize": 3, "markerfacecolor": "white" if late[row] else colour}
            axes.errorbar(value, row, xerr=error, label="" if row else key, **style)
    axes.set_yticks(rows, [short(run["name"]) for run in runs])
    axes.set_ylim(len(runs) - 0.5, -0.5)
    axes.axvline(0, color="0.5", linewidth=1)
    axes.set_xscale("symlog", linthresh=max(1e-6, 0.01 * max(abs(run["largest"][0]) for run in runs)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(axis="x", labelrotation=45)
    axes.set_xlabel("eigenvalue of the Hessian")
    axes.grid(alpha=0.3)
    legend_below(figure, axes)
    hollow = "; hollow: not converged" if any(late) else ""
    images = f"{counted(runs)} {PART_WORDS[found['part']]} images"
    figure.suptitle(f"{images}; batch norm as in inference{hollow}", fontsize=9)
    return figure


def draw_convexity(found: dict[str, Any]) -> Any:
    """|smallest| / largest eigenvalue on a plane: 0 (dark) is convex (Li et al. 2018, Figure 7)."""
    runs = [run for run in found["runs"] if "plane" in run]
    columns = min(COLUMNS, len(runs))
    rows = math.ceil(len(runs) / columns)
    figure = new_figure(max(5.2, 3.6 * columns + 0.8), 3.6 * rows + 0.7)
    panels = figure.subplots(rows, columns, squeeze=False)
    maps = []
    for run in runs:
        largest, smallest = (np.array(run["plane"][key], float) for key in ("largest", "smallest"))
        maps.append(np.abs(np.minimum(smallest, 0)) / np.maximum(np.abs(largest), 1e-30))
    clipped = any(np.nanmax(ratio) > 1 for ratio in maps)
    maps = [np.minimum(ratio, 1.0) for ratio in maps]
    top = max(float(np.nanmax(ratio)) for ratio in maps) or 1.0
    drawn = None
    for run, ratio, axes in zip(runs, maps, panels.flat, strict=False):
        axis = run["plane"]["axis"]
        drawn = axes.pcolormesh(axis, axis, ratio.T, vmin=0, vmax=top, cmap="viridis", shading="nearest")
        axes.plot(0, 0, "+", color="white", markersize=9, markeredgewidth=1.6)
        axes.set_title(f"{short(run['name'])}\n{_counts(run['plane'])}", fontsize=9)
        axes.set_xlim(axis[0], axis[-1])  # cells at the border reach half a step past what was measured
        axes.set_ylim(axis[0], axis[-1])
        axes.set_xlabel("first direction", fontsize=8)
        axes.set_ylabel("second direction", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.locator_params(nbins=5)
    for axes in panels.flat[len(runs) :]:
        axes.axis("off")
    figure.colorbar(drawn, ax=panels, shrink=0.85, label="|smallest| / largest eigenvalue" + (", at most 1" if clipped else ""))
    images = f"{counted(runs)} {PART_WORDS[found['part']]} images"
    figure.suptitle(f"{images}; batch norm as in inference\nfilter-normalised plane, seed {found['seed']}", fontsize=9)
    return figure


def _counts(plane: dict[str, Any]) -> str:
    points = len(plane["axis"]) ** 2
    late = points - plane["converged"] - plane["not_finite"]
    odd = ((late, "not converged"), (plane["not_finite"], "not finite"))
    more = "".join(f"; {count} {words}" for count, words in odd if count)
    return f"negative on {100 * plane['negative_share']:.0f} % of {points} points{more}"
