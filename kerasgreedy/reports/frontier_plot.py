"""A frontier of architectures as pictures, from the contents of `frontier.json`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasgreedy.kernel_groups import Groups, group_count, levels
from kerasgreedy.reports.costs import count
from kerasgreedy.reports.figures import legend_below, new_figure, write_figure

GROUPS: tuple[Groups, ...] = ("half_rings", "rings")
# Layers and kernels in one picture.
ROWS, COLUMNS = 8, 16


def envelope(nets: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The nets that no other beats in both multiply-adds and accuracy, rising; by validation data, where all have it."""
    key = "validation" if all(net["validation"] is not None for net in nets) else "top1"
    best: list[dict[str, Any]] = []
    for net in sorted(nets, key=lambda net: (net["multiply_adds"], -net[key])):
        if not best or net[key] > best[-1][key]:
            best.append(net)
    return best


def plot_frontier(folder: Path, table: dict[str, Any]) -> None:
    """Writes `frontier.png`, `widths.png`, `sides.png`, `correlations.png`, `groups.png` (structured sparsity, Fig. 1 to 5)."""
    nets = table["nets"]
    write_figure(folder / "frontier.png", lambda: draw_frontier(nets, table["plain"]))
    first = [net for net in nets if net["seed"] == nets[0]["seed"]]
    write_figure(folder / "widths.png", lambda: draw_widths(first))
    write_figure(folder / "sides.png", lambda: draw_sides(first))
    write_figure(folder / "correlations.png", lambda: draw_correlations(nets))
    write_figure(folder / "groups.png", lambda: draw_groups(5))


def draw_frontier(nets: Sequence[dict[str, Any]], plain: Sequence[dict[str, Any]]) -> Any:
    """Accuracy on test data against multiply-adds: each net, the best ones by validation data, those without penalty."""
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = new_figure(7, 4.8)
    axes = figure.subplots()
    for seed in sorted({net["seed"] for net in nets}):
        own = [net for net in nets if net["seed"] == seed]
        axes.plot([n["multiply_adds"] for n in own], [100 * n["top1"] for n in own], "o", label=f"thresholded, seed {seed}")
        for net in own:
            place = (net["multiply_adds"], 100 * net["top1"])
            axes.annotate(f"{net['alpha']:g}", place, textcoords="offset points", xytext=(4, -9), fontsize=6)
    best = envelope(nets)
    axes.plot([n["multiply_adds"] for n in best], [100 * n["top1"] for n in best], "-", color="0.6", zorder=0, label="envelope")
    if plain:
        figures = [n["multiply_adds"] for n in plain], [100 * n["top1"] for n in plain]
        axes.plot(*figures, "s", color="k", mfc="none", label="trained plainly")
        for net, *spot in zip(plain, *figures, strict=True):
            axes.annotate(net["name"], spot, textcoords="offset points", xytext=(-5, -3), fontsize=6, ha="right")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: count(int(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel("multiply-adds of an image (small numbers: alpha)")
    axes.set_ylabel("top-1 accuracy on test data, %")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    return figure


def draw_widths(nets: Sequence[dict[str, Any]]) -> Any:
    """Kernels that stay, layer by layer: the height of each band is a layer's width, one band an alpha (Fig. 1)."""
    figure = new_figure(9, 4.5)
    axes = figure.subplots()
    layers = list(nets[0]["filters"])
    places = range(len(layers))
    whole = [nets[0]["filters"][layer][0] for layer in layers]
    for sign in (1, -1):
        axes.plot(places, [sign * width / 2 for width in whole], "k--", linewidth=1, label="there were" if sign > 0 else None)
    for index, net in enumerate(nets):
        left = [net["filters"].get(layer, [0, 0])[1] / 2 for layer in layers]
        shade = str(0.85 - 0.75 * index / max(1, len(nets) - 1))
        axes.fill_between(places, left, [-value for value in left], color=shade, label=f"alpha {net['alpha']:g}", step=None)
    axes.set_xticks(list(places), layers, rotation=60, ha="right", fontsize=7)
    axes.set_ylabel("kernels (height of the band)")
    legend_below(figure, axes, 5)
    return figure


def draw_sides(nets: Sequence[dict[str, Any]]) -> Any:
    """Kernels of each side, layer by layer, one line an alpha (Fig. 3)."""
    sides = sorted({int(side) for net in nets for own in net["sides"].values() for side in own}, reverse=True) or [1]
    layers = list(nets[0]["filters"])
    figure = new_figure(9, 1.2 + 1.7 * len(sides))
    rows = figure.subplots(len(sides), 1, sharex=True, squeeze=False)[:, 0]
    for axes, side in zip(rows, sides, strict=True):
        for index, net in enumerate(nets):
            heights = [net["sides"].get(layer, {}).get(str(side), 0) for layer in layers]
            shade = str(0.8 - 0.75 * index / max(1, len(nets) - 1))
            axes.plot(
                range(len(layers)), heights, ".-", color=shade, label=f"alpha {net['alpha']:g}" if side == sides[0] else None
            )
        axes.set_ylabel(f"of {side}x{side}", fontsize=8)
        axes.grid(alpha=0.3)
    legend_below(figure, rows[0], 5)
    rows[-1].set_xticks(range(len(layers)), layers, rotation=60, ha="right", fontsize=7)
    return figure


def draw_correlations(nets: Sequence[dict[str, Any]]) -> Any:
    """Mean |correlation| of pairs of kernels, over all layers, along the training of each sequence of alphas."""
    figure = new_figure(7, 4)
    axes = figure.subplots()
    for seed in sorted({net["seed"] for net in nets}):
        own = [net for net in nets if net["seed"] == seed]
        heights = [value for net in own for value in net["correlations"]]
        axes.plot(range(1, len(heights) + 1), np.array(heights, float), ".-", label=f"seed {seed}")
        ends = np.cumsum([len(net["correlations"]) for net in own])
        for net, end in zip(own, ends, strict=True) if seed == nets[0]["seed"] else ():
            axes.axvline(end + 0.5, color="0.8", linewidth=0.8, zorder=0)
            place = (end + 0.5, 1.0)
            text = f"{net['alpha']:g} "
            axes.annotate(text, place, xycoords=axes.get_xaxis_transform(), rotation=90, fontsize=7, ha="right", va="top")
    axes.set_xlabel("epoch of the sequence (grey: where an alpha ends)")
    axes.set_ylabel("mean |correlation| of pairs of kernels")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def draw_kernels(kernels: Mapping[str, np.ndarray], title: str) -> Any:
    """Kernels of some layers, mean over input channels: a row for each layer, the strongest first; what is zero is grey.

    Args:
        kernels: layer -> (side, side, channels, filters).
    """
    import matplotlib

    colours = matplotlib.colormaps["PuOr"].with_extremes(bad="0.55")
    chosen = list(kernels)[:: -(-len(kernels) // ROWS)]
    columns = min(COLUMNS, max(kernels[layer].shape[-1] for layer in chosen))
    figure = new_figure(1.6 + 0.5 * columns, 0.8 + 0.62 * len(chosen))
    rows = figure.subplots(len(chosen), columns, squeeze=False)
    for row, layer in zip(rows, chosen, strict=True):
        kernel = kernels[layer].astype(np.float64)
        norms = np.sqrt(np.square(kernel).sum((0, 1, 2)))
        for axes, index in zip(row, np.argsort(-norms, kind="stable"), strict=False):
            zero = np.abs(kernel[..., index]).max(-1) == 0
            shown = np.ma.masked_array(kernel[..., index].mean(-1), zero)
            most = float(np.abs(shown).max()) if not zero.all() else 1.0
            axes.imshow(shown, cmap=colours, vmin=-most or -1.0, vmax=most or 1.0)
        for axes in row:
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_color("0.8")
        for axes in row[len(norms) :]:
            axes.axis("off")
        words = f"{layer}\n{np.count_nonzero(norms)} of {len(norms)}"
        row[0].set_ylabel(words, fontsize=7, rotation=0, ha="right", va="center")
    figure.suptitle(title, fontsize=9)
    return figure


def draw_groups(side: int) -> Any:
    """The nested groups of a kernel's places: half-rings above, rings below (Fig. 2)."""
    most = group_count(side, "half_rings")
    figure = new_figure(1.5 * most, 3.4)
    axes = figure.subplots(2, most)
    for row, groups in zip(axes, GROUPS, strict=True):
        table = levels(side, groups)
        for number, axis in enumerate(row, start=1):
            axis.set_xticks([])
            axis.set_yticks([])
            if number > group_count(side, groups):
                axis.axis("off")
                continue
            inside = [[0.45 if level <= number else 1.0 for level in line] for line in table]
            axis.imshow(inside, cmap="gray", vmin=0, vmax=1)
            for edge in range(side + 1):
                axis.axhline(edge - 0.5, color="0.7", linewidth=0.6)
                axis.axvline(edge - 0.5, color="0.7", linewidth=0.6)
            axis.set_title(f"G{number}: {sum(level <= number for line in table for level in line)}", fontsize=8)
        row[0].set_ylabel(groups.replace("_", "-"), fontsize=8)
    return figure
