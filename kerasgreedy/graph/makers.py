"""Which filters make each channel that a layer is given. Imports no TensorFlow."""

from collections.abc import Collection, Sequence

from kerasgreedy.graph.architecture import Architecture
from kerasgreedy.graph.channel_walk import ChannelWalk
from kerasgreedy.graph.rules import ZERO
from kerasgreedy.graph.tree import Node

# (layer, filter), and what makes a channel that is there whatever these do.
Maker = tuple[str, int]
ALWAYS: Maker = ("", -1)


def makers(arch: Architecture, keys: Collection[str]) -> dict[str, tuple[tuple[Maker, ...], ...]]:
    """`component/layer` -> of each channel that enters a convolution or dense layer, the filters of some layers whose sum it is.

    Empty: it is there whatever they do, as the channels of images and of other layers are, and sums with these. Channels that
    are zero, as `place_channels` and shortcuts without weights leave them, are left out.

    Unlike labels (`graph.coupling`), which tell what is removed together, this looks back along the network only: a sum is made
    by both its sides, and not by what is added to it later.

    Args:
        keys: `component/layer`.
    """
    found = _Makers(keys)
    found.through(arch, found.always(arch.input_shape[-1]))
    return {key: found.of(entering) for key, entering in found.entering.items()}


class _Makers(ChannelWalk):
    """Labels that are numbers of sets of filters."""

    def __init__(self, keys: Collection[str]):
        self._keys = keys
        self._sets: list[frozenset[Maker]] = []
        self.entering: dict[str, list[int]] = {}

    def _new(self, makers_: frozenset[Maker]) -> int:
        self._sets.append(makers_)
        return len(self._sets) - 1

    def always(self, count: int) -> list[int]:
        return [self._new(frozenset({ALWAYS}))] * count

    def of(self, labels: Sequence[int]) -> tuple[tuple[Maker, ...], ...]:
        made = [self._sets[label] for label in labels if label != ZERO]
        return tuple(() if ALWAYS in own else tuple(sorted(own)) for own in made if own)

    def produced(self, node: Node, entering: list[int]) -> list[int]:
        key, count = "/".join(self.place(node)), node.output_shape[-1]
        self.entering[key] = entering
        return [self._new(frozenset({(key, i)})) for i in range(count)] if key in self._keys else self.always(count)

    def fresh(self, count: int) -> list[int]:
        """Places that nothing fills yet."""
        return [ZERO] * count

    def hold(self, labels: list[int]) -> list[int]:
        """Of layers whose filters are fixed, and never zero."""
        return self.always(len(labels))

    def all_same(self, labels: Sequence[int]) -> int:
        some = dict.fromkeys(label for label in labels if label != ZERO)
        return self._new(frozenset().union(*(self._sets[label] for label in some))) if some else ZERO
