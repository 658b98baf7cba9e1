"""From a pattern of zeros to the rewritings that take it out of a network. Imports no TensorFlow and no NumPy."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from kerasgreedy.graph.architecture import Architecture, architecture
from kerasgreedy.graph.channel_walk import ChannelWalk
from kerasgreedy.graph.coupling import Coupling, Place, find_coupling, kept
from kerasgreedy.graph.restructuring import Cut, Edits, Part, map_holds, restructured
from kerasgreedy.graph.rewriting import without
from kerasgreedy.graph.rules import ZERO
from kerasgreedy.graph.thresholding import NOT_ZERO, Gone, Thresholded, makes_something, removable, sides
from kerasgreedy.graph.tree import Node, leaves, sequences
from kerasgreedy.kernel_groups import Groups, cut, group_count
from kerasgreedy.spec import layers as L
from kerasgreedy.spec.model import ModelSpec


@dataclass(frozen=True)
class Rewriting:
    """One rewriting of a network on its way to a smaller one; exactly one of `edits` and `removed`.

    Attributes:
        before, after: its spec.
        edits: see `graph.restructuring`.
        removed: labels of `coupling`.
    """

    before: ModelSpec
    after: ModelSpec
    edits: Edits | None = None
    coupling: Coupling | None = None
    removed: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Reduced:
    """A network without the bodies and the filters that are gone.

    Attributes:
        rewritings: that led to it.
        spec, arch: what it is.
        gone: of its layers; see `Thresholded`.
        origins: layer -> what it was called before; those that are missing are called the same.
    """

    rewritings: list[Rewriting]
    spec: ModelSpec
    arch: Architecture
    gone: Gone
    origins: dict[Place, Place]


def steps(
    spec: ModelSpec,
    found: Thresholded,
    groups: Groups,
    touches: Collection[str],
    split: Collection[Place] | None,
    zeros: Collection[Place] = (),
) -> list[Rewriting]:
    """The rewritings that take what is zero out of a network.

    Args:
        groups: what `gone` counts.
        split: layers, as they are called when bodies and filters are gone, whose kernels of different sides become branches; the
            others keep the largest side; None: all become branches.
        zeros: layers, under those names too, and none of those that become branches, that keep filters which are gone, as zeros,
            where others make their channels as well.
    """
    left = _reduced(spec, found, groups, touches)
    done, spec, gone = list(left.rewritings), left.spec, left.gone
    edits: dict[Place, Cut | None] = {}
    for component in left.arch.components.values():
        for sequence in sequences(component.nodes):
            for index, node in enumerate(sequence):
                place = (component.name, node.name)
                if component.name in touches and _does_nothing(node):
                    edits[place] = None
                elif place in gone:
                    branches = split is None or place in split
                    edit = _cut(node, sequence[:index], gone[place], groups, branches, place in zeros)
                    if edit is not None:
                        edits[place] = edit
    if edits:
        done.append(Rewriting(spec, restructured(spec, edits)[0], edits=edits))
    return done


def held(spec: ModelSpec, found: Thresholded, groups: Groups, touches: Collection[str]) -> dict[Place, int]:
    """Layers in which zeros stay, and how many filters each has then, all of their whole side.

    Convolutions in groups are not taken apart, and where margins of a map would differ no kernel is cropped.
    """
    left = _reduced(spec, found, groups, touches)
    result = {}
    for component in left.arch.components.values():
        for sequence in sequences(component.nodes):
            for index, node in enumerate(sequence):
                place = (component.name, node.name)
                gone = left.gone.get(place, [])
                if isinstance(node.layer, L.Conv) and any(gone) and not _can_be_cut(node, sequence[:index], gone, groups):
                    whole = group_count(node.layer.kernel_size, groups)
                    alive = [count for count in gone if node.layer.groups > 1 or count < whole]
                    result[left.origins.get(place, place)] = len(alive)
    return result


def silent(
    spec: ModelSpec, found: Thresholded, groups: Groups, touches: Collection[str]
) -> tuple[Coupling, frozenset[int]] | None:
    """The labels of channels that go, and the coupling that they are of: without the bodies that are gone, so that what reads a
    channel there only does not keep it. Layers have the names that they have in the whole network. None: no channel goes.
    """
    left = _reduced(spec, found, groups, touches)
    if not left.rewritings or left.rewritings[-1].coupling is None:
        return None
    coupling, removed = left.rewritings[-1].coupling, left.rewritings[-1].removed
    inputs, outputs = (
        {left.origins.get(place, place): labels for place, labels in places.items()}
        for places in (coupling.inputs, coupling.outputs)
    )
    return replace(coupling, inputs=inputs, outputs=outputs), removed


def _can_be_cut(node: Node, before: Sequence[Node], gone: Sequence[int], groups: Groups) -> bool:
    """Whether the kernels of a convolution can be cropped as far as zeros go, in one map."""
    layer = node.layer
    assert isinstance(layer, L.Conv)
    side = layer.kernel_size
    small = {count for count in gone if 0 < count < group_count(side, groups)}
    return layer.groups == 1 and all(map_holds(node, before, Part(*cut(side, count, groups), ())) for count in small)


def _reduced(spec: ModelSpec, found: Thresholded, groups: Groups, touches: Collection[str]) -> Reduced:
    done: list[Rewriting] = []
    gone: Gone = found.gone
    origins: dict[Place, Place] = {}
    if found.bodies:
        changed, sources = restructured(spec, dict.fromkeys(found.bodies))
        done.append(Rewriting(spec, changed, edits=dict.fromkeys(found.bodies)))
        origins = {
            (component, name): (component, source.name) for component, own in sources.items() for name, source in own.items()
        }
        gone = {place: gone[origin] for place, origin in origins.items() if origin in gone}
        spec = changed
    arch = architecture(spec)
    coupling = find_coupling(arch)
    side = sides(arch, gone)
    whole = {place: group_count(side[place], groups) for place in gone}
    removed = removable(coupling, gone, whole, touches) | _empty(arch, coupling, touches)
    if removed:
        done.append(Rewriting(spec, without(spec, coupling, removed), coupling=coupling, removed=removed))
        gone = {place: [gone[place][i] for i in kept(coupling.outputs[place], removed)] for place in gone}
        spec = done[-1].after
        arch = architecture(spec)
    return Reduced(done, spec, arch, gone, origins)


def _does_nothing(node: Node) -> bool:
    """Whether every channel is put where it is."""
    layer = node.layer
    return isinstance(layer, L.PlaceChannels) and layer.at == list(range(layer.place_channels))


class _Zeros(ChannelWalk):
    """Follows which channels are zero whatever the images: 1 where something makes them, else 0.

    Attributes:
        seen: labels of `coupling` that channels were met under.
        alive: those of them that are not zero somewhere, or belong to what is not touched.
    """

    def __init__(self, coupling: Coupling, touches: Collection[str]):
        self._coupling, self._touches = coupling, touches
        self.seen: set[int] = set()
        self.alive: set[int] = set()

    def produced(self, node: Node, entering: list[int]) -> list[int]:
        return [1] * node.output_shape[-1]

    def fresh(self, count: int) -> list[int]:
        return [1] * count

    def hold(self, labels: list[int]) -> list[int]:
        return labels

    def all_same(self, labels: Sequence[int]) -> int:
        return max(labels)

    def leaf(self, node: Node, entering: list[int]) -> list[int]:
        leaving, place = self._made(node, entering), self.place(node)
        for labels, own in ((self._coupling.inputs[place], entering), (self._coupling.outputs[place], leaving)):
            self.seen.update(labels)
            self.alive.update(label for label, flag in zip(labels, own, strict=True) if flag or place[0] not in self._touches)
        return leaving

    def _made(self, node: Node, entering: list[int]) -> list[int]:
        if isinstance(node.layer, L.PlaceChannels):
            leaving = [0] * node.layer.place_channels
            for flag, place in zip(entering, node.layer.at, strict=True):
                leaving[place] = flag
            return leaving
        if isinstance(node.layer, NOT_ZERO) or makes_something(node):
            return [1] * node.output_shape[-1]
        return [max(flag, 0) for flag in super().leaf(node, entering)]


def _empty(arch: Architecture, coupling: Coupling, touches: Collection[str]) -> frozenset[int]:
    """The labels of channels that are zero wherever they are: places that `place_channels` leaves, and nothing else fills."""
    zeros = _Zeros(coupling, touches)
    zeros.through(arch, [1] * arch.input_shape[-1])
    return frozenset(zeros.seen - zeros.alive - {ZERO})


def cuts(spec: ModelSpec, found: Thresholded, groups: Groups, touches: Collection[str]) -> dict[Place, tuple[Node, Cut]]:
    """The layers that change beyond the filters that go with their channels, under their names then, and what they become."""
    done = steps(spec, found, groups, touches, None)
    if not done or done[-1].edits is None:
        return {}
    nodes = {(c.name, n.name): n for c in architecture(done[-1].before).components.values() for n in leaves(c.nodes)}
    return {place: (nodes[place], cut) for place, cut in done[-1].edits.items() if cut is not None}


def _cut(node: Node, before: Sequence[Node], gone: Sequence[int], groups: Groups, split: bool, zeros: bool = False) -> Cut | None:
    """What stays of a layer some of whose filters are gone, or smaller; None: it stays as it is."""
    layer = node.layer
    if isinstance(layer, L.Conv) and layer.groups > 1:
        return None
    side = layer.kernel_size if isinstance(layer, L.Conv) else 1
    whole = group_count(side, groups)
    alive = [index for index, count in enumerate(gone) if count < whole]
    if not alive:
        return None
    if isinstance(layer, L.Conv) and not _can_be_cut(node, before, gone, groups):
        gone = [count if count == whole else 0 for count in gone]  # zeros stay
    sizes = sorted({gone[index] for index in alive}) if split else [min(gone[index] for index in alive)]
    stay = range(len(gone)) if zeros else alive
    parts = []
    for size in sizes:
        filters = tuple(index for index in stay if not split or gone[index] == size)
        parts.append(Part(*cut(side, size, groups), filters))
    found = Cut(tuple(parts), len(gone))
    nothing = len(parts) == 1 and not found.has_gaps and not sizes[0]
    return None if nothing else found
