"""Losses on lines and planes in the space of weights, as pictures: several networks on one scale."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kerasgreedy.reports.figures import NORM_WORDS, PART_WORDS, counted, legend_below, new_figure, plain_numbers, short
from kerasgreedy.reports.tables import percent

COLUMNS = 3
LEVELS = 14
# Where the largest loss is so many times the smallest, heights are drawn by their logarithm.
WIDE = 20.0
STYLES = ("-", "--")


def caption(found: dict[str, Any], part: str | None = None) -> str:
    """What was looked at, in a line."""
    parts = [part] if part else found["parts"]
    counts = {each: counted([run[each] for run in found["runs"]]) for each in parts}
    images = " and ".join(f"{count} {PART_WORDS[each]} images" for each, count in counts.items())
    seed = "" if found["along"] in ("between", "path") else f"; seed {found['seed']}"
    return f"{images}; {NORM_WORDS[found['statistics']]}{seed}"


def draw_lines(found: dict[str, Any]) -> Any:
    """Loss above, accuracy below, against the place on the line; full: the first part of the data, dashed: the second."""
    figure = new_figure(6.4, 6.2)
    above, below = figure.subplots(2, 1, sharex=True)
    every = []
    for index, run in enumerate(found["runs"]):
        for part, style in zip(found["parts"], STYLES, strict=False):
            losses, right = (np.array(run[part][key], float) for key in ("losses", "accuracies"))
            words = f"{_name(run, found)}, {part}" if len(found["parts"]) > 1 else _name(run, found)
            above.plot(run["axes"][0], losses, style, color=f"C{index % 10}", label=words)
            below.plot(run["axes"][0], 100 * right, style, color=f"C{index % 10}")
            every.append(losses)
    if _is_wide(every):
        above.set_yscale("log")
        plain_numbers(above.yaxis)
    for axes in (above, below):
        axes.grid(alpha=0.3)
        for place in (0.0, 1.0) if found["along"] == "between" else (0.0,):
            axes.axvline(place, color="0.5", linestyle=":", linewidth=1)
    above.set_ylabel("loss")
    below.set_ylabel("accuracy, %")
    below.set_ylim(0, 100)
    ends = f"0: {short(found['runs'][0]['name'], 40)}\n1: {short(found['runs'][0].get('to', ''), 40)}"
    below.set_xlabel(ends if found["along"] == "between" else "along a filter-normalised direction")
    legend_below(figure, above, 1 if found["along"] == "between" else 2)
    figure.suptitle(caption(found), fontsize=9)
    return figure


def draw_planes(found: dict[str, Any]) -> Any:
    """Contours of each network, all by the same levels; a cross is the network, a white line the training path."""
    part, runs = found["parts"][0], found["runs"]
    surfaces = [np.array(run[part]["losses"], float) for run in runs]
    columns = min(COLUMNS, len(runs))
    rows = math.ceil(len(runs) / columns)
    figure = new_figure(max(5.2, 3.6 * columns + 0.8), 3.7 * rows + 0.7)
    panels = figure.subplots(rows, columns, squeeze=False)
    levels, norm = _levels(surfaces)
    drawn = None
    for run, losses, axes in zip(runs, surfaces, panels.flat, strict=False):
        horizontal, vertical = run["axes"]
        shown = np.ma.masked_invalid(losses.T)  # the first direction is drawn from left to right
        drawn = axes.contourf(horizontal, vertical, shown, levels=levels, norm=norm, cmap="viridis", extend="both")
        axes.contour(horizontal, vertical, shown, levels=levels, colors="white", linewidths=0.4, alpha=0.6)
        if "path" in run:
            places = np.array(run["path"])
            axes.plot(places[:, 1], places[:, 2], "o-", color="white", markersize=3, linewidth=1.2)
            shares = run["variance"]
            axes.set_xlabel(f"first direction, {percent(shares[0])} % of the path")
            axes.set_ylabel(f"second, {percent(shares[1]) if len(shares) > 1 else '0'} %")
        else:
            axes.set_xlabel("first direction", fontsize=8)
            axes.set_ylabel("second direction", fontsize=8)
        axes.plot(0, 0, "+", color="black", markersize=9, markeredgewidth=1.6)
        axes.set_title(_name(run, found), fontsize=9)
        axes.tick_params(labelsize=8)
        axes.locator_params(nbins=5)
        axes.set_box_aspect(1)
    for axes in panels.flat[len(runs) :]:
        axes.axis("off")
    bar = figure.colorbar(drawn, ax=panels, shrink=0.85, label="loss")
    bar.set_ticks(levels[::3])
    bar.set_ticklabels([f"{level:.3g}" for level in levels[::3]])
    figure.suptitle(caption(found, part), fontsize=9)
    return figure


def draw_surfaces(found: dict[str, Any]) -> Any:
    """The same as heights, on one scale."""
    part, runs = found["parts"][0], found["runs"]
    surfaces = [np.array(run[part]["losses"], float) for run in runs]
    columns = min(COLUMNS, len(runs))
    rows = math.ceil(len(runs) / columns)
    figure = new_figure(max(5.2, 4.2 * columns), 4.0 * rows + 0.5)
    wide = _is_wide(surfaces)
    heights = [np.log10(np.maximum(losses, 1e-12)) if wide else losses for losses in surfaces]
    finite = np.concatenate([height[np.isfinite(height)] for height in heights])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    for index, (run, height) in enumerate(zip(runs, heights, strict=True)):
        axes = figure.add_subplot(rows, columns, index + 1, projection="3d")
        across, up = np.meshgrid(*run["axes"], indexing="ij")
        axes.plot_surface(across, up, height, cmap="viridis", vmin=low, vmax=high, rcount=60, ccount=60, linewidth=0)
        axes.set_xlabel("first direction", fontsize=8)
        axes.set_ylabel("second", fontsize=8)
        axes.set_zlim(low, high if high > low else low + 1)
        axes.set_zlabel("log10 of the loss" if wide else "loss", fontsize=8)
        axes.set_title(_name(run, found), fontsize=9)
        axes.tick_params(labelsize=7)
        axes.locator_params(axis="x", nbins=5)
        axes.locator_params(axis="y", nbins=5)
        axes.set_box_aspect(None, zoom=0.82)  # room for the label of the heights
    figure.suptitle(caption(found, part), fontsize=9)
    return figure


def _name(run: dict[str, Any], found: dict[str, Any]) -> str:
    name = f"{short(run['name'], 24)} to {short(run['to'], 24)}" if "to" in run else short(run["name"])
    return f"{name}\ntest error {percent(run['test_error'])} %" if "test_error" in run and len(run["axes"]) == 2 else name


def _is_wide(surfaces: Sequence[Any]) -> bool:
    finite = np.concatenate([losses[np.isfinite(losses)] for losses in surfaces])
    return bool(finite.size and finite.min() > 0 and finite.max() > WIDE * finite.min())


def _levels(surfaces: Sequence[Any]) -> tuple[Any, Any]:
    """Levels between the extremes of all, and how colours follow them."""
    from matplotlib.colors import LogNorm, Normalize

    finite = np.concatenate([losses[np.isfinite(losses)] for losses in surfaces])
    if not finite.size:
        return np.linspace(0, 1, LEVELS), Normalize(0, 1)
    low, high = float(finite.min()), float(finite.max())
    if not high > low:
        high = low + max(abs(low), 1.0) * 1e-6
    if _is_wide(surfaces):
        return np.geomspace(low, high, LEVELS), LogNorm(low, high)
    return np.linspace(low, high, LEVELS), Normalize(low, high)
