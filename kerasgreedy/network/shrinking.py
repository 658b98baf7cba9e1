"""A network without what a threshold makes zero: the zeros themselves, and the smaller network with the weights that stay."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from kerasgreedy.graph.chains import find_chains
from kerasgreedy.graph.coupling import Place
from kerasgreedy.graph.restructuring import Edits, Origin, restructured
from kerasgreedy.graph.shrink_steps import Rewriting, silent
from kerasgreedy.graph.thresholding import Gone, Thresholded, sides
from kerasgreedy.kernel_groups import Groups, group_count, levels
from kerasgreedy.network import surgery
from kerasgreedy.network.build import Network
from kerasgreedy.nn.structured import group_norms
from kerasgreedy.spec.model import ModelSpec
from kerasgreedy.spec.regularizers import On


def norms_of(network: Network, places: Collection[Place], settings: Any, on: On) -> dict[Place, list[list[float]]]:
    """Of each filter of some layers, the norms of its groups.

    Args:
        settings: `norm`, and `groups`, as of a regularizer.
        on: of the kernel, of the kernel times the scale of its batch norm, or of that scale.
    """
    found = {}
    for component, layer in places:
        arrays = network.arrays(component)
        values = arrays[f"{component}/{layer}/kernel"]
        if on != "kernel":
            norm = find_chains(network.architecture.components[component].nodes)[layer].batch_norm
            scale = arrays[f"{component}/{norm}/gamma"]
            values = values * scale if on == "scaled_kernel" else scale
        found[component, layer] = group_norms(values, settings).T.tolist()
    return found


def zeroed(network: Network, gone: Gone, groups: Groups) -> dict[str, dict[str, np.ndarray]]:
    """The weights of the thresholded network, see `graph.thresholding`: component -> its arrays, for those that change."""
    result = {}
    side = sides(network.architecture, gone)
    for component in dict.fromkeys(component for component, _ in gone):
        arrays, chains = network.arrays(component), find_chains(network.architecture.components[component].nodes)
        for layer in (layer for own, layer in gone if own == component):
            counts, size = np.array(gone[component, layer]), side[component, layer]
            key, norm = f"{component}/{layer}", chains[layer].batch_norm
            kernel = arrays[f"{key}/kernel"].copy()
            if kernel.ndim == 4:
                kernel[np.array(levels(size, groups))[:, :, None, None] <= np.broadcast_to(counts, kernel.shape)] = 0
            dead = counts == group_count(size, groups)
            kernel[..., dead] = 0
            arrays[f"{key}/kernel"] = kernel
            for name in (f"{key}/bias", f"{component}/{norm}/gamma", f"{component}/{norm}/beta"):
                if name in arrays:
                    arrays[name] = np.where(dead, 0, arrays[name])
        result[component] = arrays
    return result


def thresholded_arrays(
    network: Network, spec: ModelSpec, found: Thresholded, groups: Groups, touches: Collection[str]
) -> dict[str, dict[str, np.ndarray]]:
    """The same with all that reads a channel that is removed reading zeros, whatever stands between."""
    zeros, goes = zeroed(network, found.gone, groups), silent(spec, found, groups, touches)
    if goes is None:
        return zeros
    with network.holding(zeros):
        return {**zeros, **surgery.silence(network, *goes)}


def shrunk(network: Network, spec: ModelSpec, steps: Sequence[Rewriting]) -> tuple[Network, ModelSpec]:
    """A new network after some rewritings, or none, with the weights that stay.

    Args:
        network: thresholded, in float32, perhaps only as long as it is `holding` these weights: the result has its own. Call this
            under the strategy's scope.
    """
    if not steps:
        same = surgery.like(network, spec)
        for name in network.names:
            same.load_arrays(name, network.arrays(name))
        return same, spec
    for step in steps:
        if step.edits is not None:
            network = _restructured(network, step.before, step.edits)
        else:
            assert step.coupling is not None
            network, _ = surgery.remove_filters(network, step.before, step.coupling, step.removed)
        spec = step.after
    return network, spec


def _restructured(network: Network, spec: ModelSpec, edits: Edits) -> Network:
    changed, sources = restructured(spec, edits)
    result = surgery.like(network, changed)
    for component in result.architecture.components.values():
        old = network.arrays(component.name)
        arrays: dict[str, np.ndarray] = {}
        for name, source in sources[component.name].items():
            arrays.update(_moved(component.name, name, source, old))
        result.load_arrays(component.name, arrays)
    return result


def _moved(component: str, name: str, source: Origin, arrays: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
    """The arrays of a layer that come from another of the component before."""
    found = []
    prefix = f"{component}/{source.name}/"
    for key, array in arrays.items():
        if key.startswith(prefix):
            if source.part is not None and key.endswith("/kernel") and array.ndim == 4:
                window = slice(source.part.before, array.shape[0] - source.part.after)
                array = array[window, window]
            if source.filters is not None and array.ndim and array.dtype.kind == "f":
                array = array[..., list(source.filters)]
            found.append((f"{component}/{name}/{key.removeprefix(prefix)}", array))
    return found
