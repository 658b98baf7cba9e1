"""How near kernels are to identities, layer by layer, as a picture."""

from typing import Any

from kerasgreedy.reports.figures import MARKERS, legend_below, new_figure, short, whole_numbers


def draw_identities(found: dict[str, Any]) -> Any:
    """Mean identity share of each convolution against its place in the network; dotted: random kernels of the same shapes."""
    figure = new_figure(6.4, 4.2)
    axes = figure.subplots()
    longest = 1
    for index, run in enumerate(found["runs"]):
        places = [place for place, layer in enumerate(run["layers"], start=1) if layer["share"] is not None]
        longest = max(longest, len(run["layers"]))
        colour = f"C{index % 10}"
        shares = [run["layers"][place - 1]["share"] for place in places]
        axes.plot(places, shares, color=colour, marker=MARKERS[index % len(MARKERS)], markersize=4, label=short(run["name"]))
        axes.plot(places, [run["layers"][place - 1]["random"] for place in places], color=colour, linestyle=":")
    axes.plot([], [], color="0.4", linestyle=":", label="random kernels of the same shape")
    axes.set_xlabel("convolution, from the images on")
    axes.set_ylabel("identity share")
    axes.set_ylim(0, 1)
    whole_numbers(axes, 1, longest)
    axes.grid(alpha=0.3)
    legend_below(figure, axes, 3)
    figure.suptitle("1: each kernel passes one channel on as it is (eq. 24); mean over kernels that are not zero", fontsize=9)
    return figure
