"""What a threshold leaves of a network: filters, sides of kernels, residual bodies. Imports no TensorFlow and no NumPy.

The THRESHOLDED network has zeros in all groups of places whose norm is at most tau (structured sparsity, eq. 15 and 23), and
where the whole kernel is gone the channel is zero: bias, scale and shift of its batch norm too. A residual body in which a whole
layer is gone is gone as a whole. A layer that would be empty keeps its strongest filter.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from kerasgreedy.graph.architecture import Architecture, Component
from kerasgreedy.graph.chains import find_chains
from kerasgreedy.graph.coupling import Coupling, Filter, Place, find_coupling
from kerasgreedy.graph.kinds import has_kernel
from kerasgreedy.graph.tree import Node, leaves, walk
from kerasgreedy.kernel_groups import gone_of
from kerasgreedy.spec import layers as L

# (component, layer) -> of each filter, the norms of its groups from the smallest to the whole kernel.
Norms: TypeAlias = Mapping[Place, Sequence[Sequence[float]]]
# (component, layer) -> of each filter, how many of its groups are zero.
Gone: TypeAlias = Mapping[Place, Sequence[int]]
# What makes no zero of a zero, beside layers with weights.
NOT_ZERO = (L.BatchNorm, L.Standardize, L.GatedConv, L.RandomFeatures, L.Rows)


@dataclass(frozen=True)
class Thresholded:
    """The pattern of zeros.

    Attributes:
        gone: see `Gone`; of bodies that are gone, everything.
        bodies: the residuals that have none any more.
        emptied: layers that would have lost their last filter, and keep one.
    """

    gone: Gone
    bodies: tuple[Place, ...]
    emptied: tuple[Place, ...]


def sides(arch: Architecture, among: Collection[Place]) -> dict[Place, int]:
    """The side of the kernels of some layers; 1 of dense ones."""
    found = {}
    for component in arch.components.values():
        for node in leaves(component.nodes):
            if (component.name, node.name) in among:
                found[component.name, node.name] = node.layer.kernel_size if isinstance(node.layer, L.Conv) else 1
    return found


def pattern(arch: Architecture, norms: Norms, tau: float, touches: Collection[str], round_to: int = 1) -> Thresholded:
    """What is zero at a threshold.

    Args:
        norms: of the layers that may lose something.
        touches: components that may lose filters.
        round_to: filters that can be removed stay in multiples of this many.
    """
    gone = {place: [gone_of(filter_, tau) for filter_ in filters] for place, filters in norms.items()}
    whole = {place: len(filters[0]) for place, filters in norms.items()}
    bodies = _bodies(arch, gone, whole)
    inside = {
        (component.name, leaf.name)
        for component, node in _residuals(arch)
        if (component.name, node.name) in bodies
        for leaf in walk(node.children[0])
    }
    for place in inside & gone.keys():
        gone[place] = [whole[place]] * len(gone[place])
    emptied = [place for place in norms if place not in inside and all(count == whole[place] for count in gone[place])]
    for place in emptied:
        _revive(norms, gone, place, max(range(len(norms[place])), key=lambda index: norms[place][index][-1]), tau)
    if round_to > 1:
        _round(find_coupling(arch), norms, gone, whole, inside, touches, round_to, tau)
    return Thresholded(gone, bodies, tuple(emptied))


def removable(coupling: Coupling, gone: Gone, whole: Mapping[Place, int], touches: Collection[str]) -> frozenset[int]:
    """The labels of items all of whose filters are gone."""
    labels = set()
    for group in coupling.groups:
        if set(group.components) <= set(touches):
            for item in group.items:
                filters = item.filters
                if all(each.place in gone and gone[each.place][each.index] == whole[each.place] for each in filters):
                    labels.add(item.label)
    return frozenset(labels)


def _residuals(arch: Architecture) -> list[tuple[Component, Node]]:
    """All residuals, the outer ones first."""
    found = []
    for component in arch.components.values():
        found += [(component, node) for node in walk(component.nodes) if isinstance(node.layer, L.Residual)]
    return found


def _bodies(arch: Architecture, gone: Gone, whole: Mapping[Place, int]) -> tuple[Place, ...]:
    """Residuals whose body has a layer that is gone as a whole, and whose body is zero then."""
    found: list[Place] = []
    inside: set[Place] = set()
    for component, node in _residuals(arch):
        place, body = (component.name, node.name), node.children[0]
        own = [leaf for leaf in body if has_kernel(leaf)]
        places = [(component.name, leaf.name) for leaf in own]
        dead = any(each in gone and all(count == whole[each] for count in gone[each]) for each in places)
        if place in inside or not dead or places[-1] not in gone or not _zero_behind(component, body, own[-1].name, gone):
            continue
        found.append(place)
        inside |= {(component.name, each.name) for each in walk(body)}
    return tuple(found)


def _zero_behind(component: Component, body: Sequence[Node], name: str, gone: Gone) -> bool:
    """Whether the body is zero where what the layer's batch norm gives is."""
    index = next(index for index, node in enumerate(body) if node.name == name)
    chain = find_chains(body)[name]
    rest = [node for node in body[index + 1 :] if node.name != chain.batch_norm]
    kept_layer = any(has_kernel(leaf) and (component.name, leaf.name) not in gone for leaf in leaves(rest))
    return not kept_layer and not any(isinstance(leaf.layer, NOT_ZERO) or makes_something(leaf) for leaf in leaves(rest))


def makes_something(node: Node) -> bool:
    """Whether a layer is an activation that does not give 0 for 0."""
    layer = node.layer
    if not isinstance(layer, L.Activation):
        return False
    return layer.activation == "sigmoid" or (layer.threshold is not None and layer.threshold.learn == "warm_up")


def _revive(norms: Norms, gone: dict[Place, list[int]], place: Place, index: int, tau: float) -> None:
    """Takes a filter back: what is left of it without the last group, which is the whole kernel."""
    gone[place][index] = gone_of(norms[place][index][:-1], tau)


def _round(
    coupling: Coupling,
    norms: Norms,
    gone: dict[Place, list[int]],
    whole: Mapping[Place, int],
    inside: Collection[Place],
    touches: Collection[str],
    round_to: int,
    tau: float,
) -> None:
    """Takes the strongest back of what would go, until each group, and each layer, has a multiple left, or all of it."""
    labels = removable(coupling, gone, whole, touches)
    for group in coupling.groups:
        out = [item for item in group.items if item.label in labels]
        back = {item.label: [each for each in item.filters if each.place not in inside] for item in out}
        out = [item for item in out if back[item.label]]
        if out:
            total = len(group.items) + group.held
            left = total - sum(item.label in labels for item in group.items)
            ranked = sorted(out, key=lambda item: -_strength(back[item.label], norms))
            for item in ranked[: min(-(-left // round_to) * round_to, total) - left]:
                for filter_ in back[item.label]:
                    _revive(norms, gone, filter_.place, filter_.index, tau)
    labels = removable(coupling, gone, whole, touches)
    for place, counts in gone.items():  # filters that go alone, of channels that stay
        stay = [i for i, label in enumerate(coupling.outputs[place]) if label not in labels]
        out_here = [i for i in stay if counts[i] == whole[place]]
        if place not in inside and out_here:
            left = len(stay) - len(out_here)
            wanted = min(-(-left // round_to) * round_to, len(stay))
            for index in sorted(out_here, key=lambda i: -norms[place][i][-1])[: wanted - left]:
                _revive(norms, gone, place, index, tau)


def _strength(filters: Sequence[Filter], norms: Norms) -> float:
    return max(norms[each.place][each.index][-1] for each in filters)
