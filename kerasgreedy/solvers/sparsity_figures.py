"""What structured penalties have come to, layer by layer, at the end of an epoch."""

from collections.abc import Mapping, Sequence
from typing import Any

from kerasgreedy.graph.penalised import entering, penalised
from kerasgreedy.graph.thresholding import sides
from kerasgreedy.kernel_groups import group_count, side_left
from kerasgreedy.network.build import Network
from kerasgreedy.network.correlation import mean_correlation
from kerasgreedy.network.shrinking import norms_of
from kerasgreedy.plan.stages import Phase
from kerasgreedy.spec.regularizers import Complexity, GroupLasso, NestedGroupLasso
from kerasgreedy.spec.threshold_settings import Measure


def sparsity_of(phase: Phase, network: Network) -> dict[str, Any]:
    """`sparsity`: of each convolution and dense layer with a penalty on its filters, by what is zero exactly.

    Returns:
        `component/layer` -> `kernels` that are not zero, `of` so many; `sides`, side -> how many of these; `norm`, the sum of the
        norms of whole kernels; `correlation`, see `mean_correlation`; `multiply_adds` by eq. (10) of the paper, of the channels
        that anything makes. Empty where no such penalty acts.
    """
    left: dict[str, list[int]] = {}
    norms: dict[str, float] = {}
    for settings in phase.training.regularizers:
        if isinstance(settings, GroupLasso | NestedGroupLasso | Complexity):
            groups = "kernel" if isinstance(settings, GroupLasso) else settings.groups
            measure = Measure(of=settings.of, groups=groups, norm=settings.norm, on=settings.acts_on)
            for key, (sides_left, norm) in _left(network, measure, phase.trains).items():
                # Of several penalties on a layer each knows zeros of its own.
                left[key] = list(map(min, left.get(key, sides_left), sides_left))
                norms[key] = norm
    return {"sparsity": _figures(network, left, norms)} if left else {}


def _left(network: Network, measure: Measure, among: Sequence[str]) -> dict[str, tuple[list[int], float]]:
    """Layer -> the side of each kernel, 0 where it is zero, and the sum of the norms of whole kernels."""
    keys = list(penalised(network.architecture, measure, among))
    places = {key: (key.split("/")[0], key.split("/")[1]) for key in keys}
    norms, side = norms_of(network, list(places.values()), measure, measure.on), sides(network.architecture, places.values())
    found = {}
    for key, place in places.items():
        count = group_count(side[place], measure.groups)
        gone = [sum(norm == 0 for norm in filter_) for filter_ in norms[place]]
        own = [0 if zero == count else side_left(side[place], zero, measure.groups) for zero in gone]
        found[key] = own, sum(filter_[-1] for filter_ in norms[place])
    return found


def _figures(network: Network, left: Mapping[str, Sequence[int]], norms: Mapping[str, float]) -> dict[str, Any]:
    result = {}
    for key, (area, split, made_by) in entering(network.architecture, list(left)).items():
        alive = [each for each in left[key] if each]
        kernel = network.arrays(key.partition("/")[0])[f"{key}/kernel"]
        channels = sum(not made or any(left[layer][index] for layer, index in made) for made in made_by)
        result[key] = {
            "kernels": len(alive),
            "of": len(left[key]),
            "sides": {str(each): alive.count(each) for each in sorted(set(alive))},
            "norm": norms[key],
            "correlation": mean_correlation(kernel),
            "multiply_adds": area * channels * sum(each**2 for each in alive) // split,
        }
    return result
