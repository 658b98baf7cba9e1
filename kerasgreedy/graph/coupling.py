"""Coupled groups: which filters can only be removed together. Imports no TensorFlow and no NumPy.

Every channel of every tensor carries a label. A convolution or dense layer gives fresh labels to what it puts out; what other
layers do to channels (space-to-depth repeats them, flatten repeats them for every place, concatenation joins them) is done to
the labels, and a sum makes the labels of its two sides the same. Filters whose outputs end up under one label are one item;
items of the same layers are one group.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from kerasgreedy.graph.architecture import Architecture
from kerasgreedy.graph.channel_walk import ChannelWalk, Place
from kerasgreedy.graph.rules import ZERO
from kerasgreedy.graph.tree import Node
from kerasgreedy.spec import layers as L


@dataclass(frozen=True)
class Filter:
    """Output channel `index` of the convolution or dense layer at `place`."""

    place: Place
    index: int


@dataclass(frozen=True)
class Item:
    """Filters that can only be removed together, and the label that their channels carry everywhere."""

    label: int
    filters: tuple[Filter, ...]


@dataclass(frozen=True)
class Group:
    """Items that are filters of the same layers, and are therefore ranked against each other.

    Attributes:
        name: its first layer, `block_1/conv_1`.
        places: these layers, in network order.
        items: what can be removed.
        held: labels of these layers that cannot, because they are summed with the network's input, or with what is frozen.
    """

    name: str
    places: tuple[Place, ...]
    items: tuple[Item, ...]
    held: int = 0

    @property
    def key(self) -> str:
        """Names the group however many of its items, or of other groups, are gone."""
        return "+".join("/".join(place) for place in self.places)

    @property
    def components(self) -> tuple[str, ...]:
        """Blocks and heads that lose filters when the group does."""
        return tuple(dict.fromkeys(component for component, _ in self.places))


@dataclass(frozen=True)
class Coupling:
    """The channels of a network.

    Attributes:
        groups: in network order.
        inputs, outputs: place -> the label of every channel that enters, or leaves, that layer.
        grouped: convolutions whose channels are split into groups.
    """

    groups: tuple[Group, ...]
    inputs: dict[Place, tuple[int, ...]]
    outputs: dict[Place, tuple[int, ...]]
    grouped: tuple[Place, ...] = ()

    def group(self, name: str) -> Group:
        """The group of that name."""
        return next(group for group in self.groups if group.name == name)

    def labels(self, removed: dict[str, Sequence[int]]) -> frozenset[int]:
        """The labels of removed items, given as group name -> positions in its `items`."""
        return frozenset(self.group(name).items[i].label for name, positions in removed.items() for i in positions)


def kept(labels: Sequence[int], removed: Collection[int]) -> list[int]:
    """Positions of the channels that stay."""
    return [position for position, label in enumerate(labels) if label not in removed]


def find_coupling(arch: Architecture) -> Coupling:
    """Works out which filters of a network go together."""
    tracer = _Tracer()
    labels = tracer.fresh(arch.input_shape[-1])
    tracer.fixed.update(labels)
    tracer.through(arch, labels)
    return tracer.result()


class _Tracer(ChannelWalk):
    """Labels in a union-find forest."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self.fixed: set[int] = set()
        self._inputs: dict[Place, list[int]] = {}
        self._outputs: dict[Place, list[int]] = {}
        self._producers: list[Place] = []
        self._with_groups: list[Place] = []

    def fresh(self, count: int) -> list[int]:
        start = len(self._parents)
        self._parents.extend(range(start, start + count))
        return list(range(start, start + count))

    def hold(self, labels: list[int]) -> list[int]:
        self.fixed.update(label for label in labels if label != ZERO)
        return labels

    def logits(self, labels: list[int]) -> None:
        self.fixed.update(labels)

    def _root(self, label: int) -> int:
        while label >= 0 and self._parents[label] != label:
            self._parents[label] = self._parents[self._parents[label]]
            label = self._parents[label]
        return label

    def _same(self, one: int, two: int) -> int:
        """Makes two labels one; zeros join anything."""
        if one == ZERO or two == ZERO:
            return max(one, two)
        first, second = sorted((self._root(one), self._root(two)))
        self._parents[second] = first
        return first

    def leaf(self, node: Node, entering: list[int]) -> list[int]:
        place = self.place(node)
        self._inputs[place] = entering
        self._outputs[place] = super().leaf(node, entering)
        return self._outputs[place]

    def produced(self, node: Node, entering: list[int]) -> list[int]:
        place = self.place(node)
        self._producers.append(place)
        out = self.fresh(node.output_shape[-1])
        if isinstance(node.layer, L.Conv) and node.layer.groups > 1:
            self._with_groups.append(place)
            self._grouped(node.layer.groups, entering, out)
        return out

    def _grouped(self, groups: int, entering: list[int], leaving: list[int]) -> None:
        """A depthwise group goes as a whole with its one input; else the same place goes out of every group."""
        wide, out = len(entering) // groups, len(leaving) // groups
        if wide == 1:
            for group, label in enumerate(entering):
                self.all_same([label, *leaving[group * out : (group + 1) * out]])
            return
        for labels, size in ((entering, wide), (leaving, out)):
            for start in range(size):
                self.all_same(labels[start::size])

    def all_same(self, labels: Sequence[int]) -> int:
        first = labels[0]
        for label in labels[1:]:
            first = self._same(first, label)
        return first

    def result(self) -> Coupling:
        inputs = {place: tuple(map(self._root, labels)) for place, labels in self._inputs.items()}
        outputs = {place: tuple(map(self._root, labels)) for place, labels in self._outputs.items()}
        filters: dict[int, list[Filter]] = defaultdict(list)
        for place in self._producers:
            for index, label in enumerate(outputs[place]):
                filters[label].append(Filter(place, index))
        fixed = {self._root(label) for label in self.fixed}
        groups: dict[str, Group] = {}
        for places in self._sharing(outputs):
            for name, group in self._split(places, outputs, filters, fixed).items():
                groups[name] = group
        return Coupling(tuple(groups.values()), inputs, outputs, tuple(self._with_groups))

    def _split(
        self, places: list[Place], outputs: dict[Place, tuple[int, ...]], filters: dict[int, list[Filter]], fixed: set[int]
    ) -> dict[str, Group]:
        """Groups of layers that share labels: labels of the same layers are one group.

        A weightless shortcut to more channels ties the first ones to more layers than the rest.
        """
        alike: dict[tuple[Place, ...], list[int]] = defaultdict(list)
        for label in dict.fromkeys(label for place in places for label in outputs[place]):
            alike[tuple(filter_.place for filter_ in filters[label])].append(label)
        found: dict[str, Group] = {}
        for signature, labels in alike.items():
            items = tuple(Item(label, tuple(filters[label])) for label in labels if label not in fixed)
            own = tuple(dict.fromkeys(signature))
            name = "/".join(own[0])
            name = name if name not in found else f"{name}#{len(found) + 1}"
            if items:
                found[name] = Group(name, own, items, len(labels) - len(items))
        return found

    def _sharing(self, outputs: dict[Place, tuple[int, ...]]) -> list[list[Place]]:
        """Producers that have a label in common, directly or through others."""
        sets: list[tuple[list[Place], set[int]]] = []
        for place in self._producers:
            own: tuple[list[Place], set[int]] = ([place], set(outputs[place]))
            apart = []
            for other in sets:
                if other[1] & own[1]:
                    own = (other[0] + own[0], other[1] | own[1])
                else:
                    apart.append(other)
            sets = [*apart, own]
        order = {place: index for index, place in enumerate(self._producers)}
        return sorted((sorted(places, key=order.__getitem__) for places, _ in sets), key=lambda places: order[places[0]])
