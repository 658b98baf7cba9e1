"""Takes filters out: a really smaller network with the weights that stay, or the same network with silent channels."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from kerasgreedy.graph.architecture import Component, architecture
from kerasgreedy.graph.coupling import Coupling, kept
from kerasgreedy.graph.kinds import has_kernel
from kerasgreedy.graph.rewriting import resized, without
from kerasgreedy.graph.tree import Node, leaves, walk
from kerasgreedy.network.build import Network
from kerasgreedy.spec import layers as L
from kerasgreedy.spec.convex_layers import ClassSeparable
from kerasgreedy.spec.model import Head, ModelSpec

# Weights whose axis before the last is the channels that enter.
READERS = ("kernel", "gates")


def remove_filters(network: Network, spec: ModelSpec, coupling: Coupling, removed: Collection[int]) -> tuple[Network, ModelSpec]:
    """The network without the filters under some labels: blocks, their batch norms, heads and all that reads them shrink.

    Its outputs are those of the network with these channels silent (`silence`) wherever a layer with weights reads them, up to
    rounding. (A positive hard threshold other than 0 jumps there: a value within rounding of it may be passed in one of the two.)

    Args:
        network: in float32; call this under the strategy's scope.
        spec: of the network, with `input_shape` and `classes`.
        removed: labels of `coupling`, at least one item left in every layer.

    Returns:
        the smaller network, in float32, and its spec.
    """
    arch = network.architecture
    smaller = without(spec, coupling, removed)
    result = like(network, smaller)
    for component in arch.components.values():
        result.load_arrays(component.name, _sliced(component, network.arrays(component.name), coupling, removed))
    return result, smaller


def replace_head(network: Network, spec: ModelSpec, name: str, head: Head) -> tuple[Network, ModelSpec]:
    """The network with another, fresh head in the place of the one of that name; all other weights stay.

    Args:
        network: in float32; call this under the strategy's scope.
    """
    changed = resized(spec, {}, {name: head})
    result = like(network, changed)
    for other in network.names:
        if other != name:
            result.load_arrays(other, network.arrays(other))
    return result, changed


def silence(network: Network, coupling: Coupling, removed: Collection[int]) -> dict[str, dict[str, np.ndarray]]:
    """The weights of the network with the channels under some labels silent: what reads them has zeros for them.

    Args:
        coupling: of the network, or of a part of it.

    Returns:
        component -> its arrays, for those that change; `Network.load_arrays` takes them.
    """
    result = {}
    for component in network.architecture.components.values():
        arrays = network.arrays(component.name)
        changed = False
        for node in walk(component.nodes):
            place = (component.name, node.name)
            if place not in coupling.inputs:
                continue
            for key in (f"{component.name}/{node.name}/{name}" for name in READERS) if has_kernel(node) else ():
                if key not in arrays:
                    continue
                rows = _silent_rows(node, coupling.inputs[place], removed, arrays[key])
                if rows is not None:
                    arrays[key], changed = rows, True
            gone = _patch_rows(component, node, coupling, removed, gone=True)
            if gone:
                key = f"{component.name}/{node.name}/kernel"
                arrays[key] = arrays[key].copy()
                arrays[key][gone], changed = 0, True
        if changed:
            result[component.name] = arrays
    return result


@contextmanager
def silenced(network: Network, coupling: Coupling, removed: Collection[int]) -> Iterator[None]:
    """Within it the channels under some labels are silent; afterwards the weights are what they were, bit for bit."""
    with network.holding(silence(network, coupling, removed)):
        yield


def _silent_rows(node: Node, entering: tuple[int, ...], removed: Collection[int], kernel: np.ndarray) -> np.ndarray | None:
    silent = [position for position, label in enumerate(entering) if label in removed]
    if not silent:
        return None
    kernel = kernel.copy()
    groups = node.layer.groups if isinstance(node.layer, L.Conv) else 1
    wide, out = len(entering) // groups, kernel.shape[-1] // groups
    for position in silent:
        group, row = divmod(position, wide)
        kernel[..., row, group * out : (group + 1) * out] = 0
    return kernel


def like(network: Network, spec: ModelSpec) -> Network:
    """A network of a spec with the facts of another, its weights fresh."""
    result = Network(architecture(spec), network.seed, network.synchronized)
    result.facts = network.facts
    return result


def _sliced(
    component: Component, arrays: Mapping[str, np.ndarray], coupling: Coupling, removed: Collection[int]
) -> dict[str, np.ndarray]:
    """The arrays of a component without what is removed; those of layers without channels (random state) stay whole."""
    result = dict(arrays)
    for node in leaves(component.nodes):
        place = (component.name, node.name)
        entering, leaving = coupling.inputs[place], coupling.outputs[place]
        for key, array in arrays.items():
            if not key.startswith(f"{component.name}/{node.name}/"):
                continue
            shrinks = any(label in removed for label in leaving)
            if shrinks and array.ndim and array.dtype.kind == "f":  # neither a threshold of the whole layer nor random state
                array = array[..., kept(leaving, removed)]
            if key.rpartition("/")[2] in READERS:
                array = array[..., _kept_rows(node, entering, removed), :]
                if isinstance(node.layer, ClassSeparable):
                    array = array[_patch_rows(component, node, coupling, removed)]
            result[key] = array
    return result


def _patch_rows(component: Component, node: Node, coupling: Coupling, removed: Collection[int], gone: bool = False) -> list[int]:
    """Of a class-separable layer, the places of a patch whose channels stay, or go; the last axis of a patch is channels."""
    if not isinstance(node.layer, ClassSeparable):
        return []
    before = component.nodes[component.nodes.index(node) - 1]
    if not isinstance(before.layer, L.GatedConv):
        return [] if gone else list(range(node.input_shape[0]))  # rows are places
    entering = coupling.inputs[component.name, before.name]
    channels = entering * (node.input_shape[0] // len(entering))
    return [place for place, label in enumerate(channels) if (label in removed) == gone]


def _kept_rows(node: Node, entering: tuple[int, ...], removed: Collection[int]) -> list[int]:
    """The rows of a kernel that stay. A grouped kernel has the rows of one group, which go out of every group alike."""
    groups = node.layer.groups if isinstance(node.layer, L.Conv) else 1
    wide = len(entering) // groups
    return [0] if groups > 1 and wide == 1 else kept(entering[:wide], removed)
