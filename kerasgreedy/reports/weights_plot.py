"""Norms of weights over training and their histograms, as pictures."""

from typing import Any

import numpy as np

from kerasgreedy.reports.figures import legend_below, new_figure, short


def draw_weights(found: dict[str, Any]) -> Any:
    """Left: the norm of what trains, by epoch; right: the share of weights by size, on a logarithmic axis."""
    figure = new_figure(9.0, 4.0)
    left, right = figure.subplots(1, 2)
    edges = np.array(found["edges"])
    width = edges[1] - edges[0]
    for index, run in enumerate(found["runs"]):
        style = {"color": f"C{index % 10}", "linestyle": ("-", "--", ":", "-.")[index % 4]}
        # Phases train different weights: the line is broken between them.
        places: list[float] = []
        norms: list[float] = []
        for place, entry in enumerate(run["norms"], start=1):
            if norms and entry["phase"] != run["norms"][place - 2]["phase"]:
                places.append(place - 0.5)
                norms.append(np.nan)
            places.append(place)
            norms.append(entry["norm"])
        left.plot(places, norms, label=short(run["name"]), **style)
        density = np.array(run["histogram"]) / (run["weights"] * width)
        right.stairs(np.where(density > 0, density, np.nan), edges, **style)
    left.set_xlabel("epoch, of all phases one after the other")
    left.set_ylabel("norm of the trained weights")
    left.locator_params(axis="x", integer=True)
    legend_below(figure, left)
    right.set_yscale("log")
    right.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    right.set_xlabel("weight")
    right.set_ylabel("density")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.suptitle(
        "left: all weights that the phase trains; right: kernels of convolutions and dense layers at the end", fontsize=9
    )
    return figure
