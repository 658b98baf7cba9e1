"""Curvature of losses as pictures."""

import math
from typing import Any

import numpy as np

from kerasgreedy.reports.figures import PART_WORDS, new_figure

COLUMNS = 3


def draw_eigenvalues(found: dict[str, Any]) -> Any:
    """Largest and smallest eigenvalue of each network; bars: standard deviation over the parts of the images."""
    runs = found["runs"]
    figure = new_figure(6.4, 1.6 + 0.45 * len(runs))
    axes = figure.subplots()
    rows = np.arange(len(runs))
    for key, marker, colour in (("largest", "o", "C0"), ("smallest", "s", "C1")):
        values, spread = zip(*(run[key] for run in runs), strict=True)
        axes.errorbar(values, rows, xerr=spread, fmt=marker, color=colour, capsize=3, label=key)
    axes.set_yticks(rows, [run["name"] for run in runs])
    axes.set_ylim(len(runs) - 0.5, -0.5)
    axes.axvline(0, color="0.5", linewidth=1)
    axes.set_xscale("symlog", linthresh=max(1e-6, 0.01 * max(abs(run["largest"][0]) for run in runs)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("eigenvalue of the Hessian")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
    figure.suptitle(f"{runs[0]['examples']:,} {PART_WORDS[found['part']]} images; batch norm as in inference", fontsize=9)
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
        maps.append(np.minimum(np.abs(np.minimum(smallest, 0)) / np.maximum(np.abs(largest), 1e-30), 1.0))
    top = max(float(np.nanmax(ratio)) for ratio in maps) or 1.0
    drawn = None
    for run, ratio, axes in zip(runs, maps, panels.flat, strict=False):
        axis = run["plane"]["axis"]
        drawn = axes.pcolormesh(axis, axis, ratio.T, vmin=0, vmax=top, cmap="viridis", shading="nearest")
        axes.plot(0, 0, "+", color="white", markersize=9, markeredgewidth=1.6)
        axes.set_title(f"{run['name']}\nnegative on {100 * run['plane']['negative_share']:.0f} % of the points", fontsize=9)
        axes.tick_params(labelsize=8)
    for axes in panels.flat[len(runs) :]:
        axes.axis("off")
    figure.colorbar(drawn, ax=panels, shrink=0.85, label="|smallest| / largest eigenvalue")
    figure.suptitle(
        f"{runs[0]['examples']:,} {PART_WORDS[found['part']]} images; filter-normalised plane, seed {found['seed']}", fontsize=9
    )
    return figure
