"""Separability and transfer against depth, as pictures."""

from typing import Any

import numpy as np

from kerasgreedy.reports.figures import MARKERS, counted, legend_below, new_figure, short

WORDS = {"linear": "linear classifier", "cnn1": "CNN, one convolution", "cnn2": "CNN, two convolutions"}


def draw_separability(found: dict[str, Any]) -> Any:
    """Test accuracy against depth, a panel for each classifier; runs that differ in seed alone are one line with their range."""
    kinds = found["kinds"]
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in found["runs"]:
        groups.setdefault(f"{run['group']} {len(run['depths'])}", []).append(run)
    figure = new_figure(max(5.6, 4.2 * len(kinds)), 4.4)
    panels = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        for index, runs in enumerate(groups.values()):
            values = 100 * np.array([[row[kind]["test"] for row in run["depths"]] for run in runs])
            depths = range(values.shape[1])
            style = {"marker": MARKERS[index % len(MARKERS)], "color": f"C{index % 10}", "markersize": 4}
            more = "" if len(runs) == 1 else " and another seed" if len(runs) == 2 else f" and {len(runs) - 1} more seeds"
            words = short(runs[0]["name"]) + more
            axes.plot(depths, values.mean(0), label=words, **style)
            if len(runs) > 1:
                axes.fill_between(depths, values.min(0), values.max(0), color=f"C{index % 10}", alpha=0.2, linewidth=0)
        axes.set_title(WORDS[kind], fontsize=9)
        axes.set_xlabel("depth (0: the images)")
        axes.locator_params(axis="x", integer=True)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("test accuracy, %")
    legend_below(figure, panels[-1])
    train, test = (counted(found["runs"], part) for part in ("train", "test"))
    figure.suptitle(f"fitted on {train} training images, measured on {test} test images", fontsize=9)
    return figure


def draw_transfer(found: dict[str, Any]) -> Any:
    """Mean accuracy over classes against depth with its deviation over splits; lines: what needs no features of the run."""
    figure = new_figure(6.4, 4.4)
    axes = figure.subplots()
    for index, run in enumerate(found["runs"]):
        depths = [row["depth"] for row in run["depths"]]
        style = {"marker": MARKERS[index % len(MARKERS)], "markersize": 4, "capsize": 3, "color": f"C{index % 10}"}
        for key, line in (("trained", "-"), ("untrained", ":")):
            means, spreads = zip(*(row[key][:2] for row in run["depths"]), strict=True)
            words = short(run["name"]) if key == "trained" else f"{short(run['name'])}, untrained weights"
            axes.errorbar(depths, 100 * np.array(means), 100 * np.array(spreads), linestyle=line, label=words, **style)
        for key, line in (("scratch", "--"), ("tuned", "-.")):
            if key in run:
                words = whole_words(key, found)
                axes.axhline(100 * run[key][0], linestyle=line, color=f"C{index % 10}", label=f"{short(run['name'])}, {words}")
    axes.axhline(100 * found["pixels"][0], color="0.4", linewidth=1, label="raw pixels")
    axes.set_xlabel("depth")
    axes.set_ylabel("mean accuracy over classes, %")
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
    legend_below(figure, axes, 2)
    words = f"{found['dataset']}: {found['per_class']} images a class train, {splits_text(found['splits'])}"
    figure.suptitle(words, fontsize=9)
    return figure


def whole_words(key: str, found: dict[str, Any]) -> str:
    """What a network is called that was trained as a whole on the other data; with its number of divisions, if it is another."""
    count = found["tuned_blocks"]
    words = "trained from scratch" if key == "scratch" else "last block tuned" if count == 1 else f"last {count} blocks tuned"
    tuned = found["settings"]["tuned_splits"]
    return words if tuned == found["splits"] else f"{words} ({splits_text(tuned)})"


def splits_text(count: int) -> str:
    """`1 split`, `10 splits`."""
    return f"{count} split{'s' if count > 1 else ''}"
