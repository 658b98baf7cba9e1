"""The one way of channels through a network. Imports no TensorFlow and no NumPy."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeAlias

from kerasgreedy.graph.architecture import Architecture, Component
from kerasgreedy.graph.kinds import kind_of
from kerasgreedy.graph.tree import Node, fold
from kerasgreedy.spec import layers as L

# A primitive layer of the network: (component, layer), as in `("block_1", "conv_1")`.
Place: TypeAlias = tuple[str, str]


class ChannelWalk(ABC):
    """Carries one label for each channel forward; what it means, a subclass says. Layers know it as `graph.rules.Labels`."""

    _component = ""

    def through(self, arch: Architecture, labels: list[int]) -> None:
        """Through all blocks and heads.

        Args:
            labels: of the channels of images.
        """
        for block, head in zip(arch.blocks, arch.heads, strict=True):
            labels = self._through(block, labels)
            self.logits(self._through(head, labels))

    def _through(self, component: Component, labels: list[int]) -> list[int]:
        self._component = component.name
        return fold(component.nodes, labels, self.leaf, self._join)

    def _join(self, node: Node, parts: list[list[int]]) -> list[int]:
        """Branches stand beside each other; the sides of a sum become one."""
        if isinstance(node.layer, L.Branches):
            return [label for part in parts for label in part]
        return [self.all_same(labels) for labels in zip(*parts, strict=True)]

    def place(self, node: Node) -> Place:
        """Of a layer of the component that is walked through."""
        return self._component, node.name

    def leaf(self, node: Node, entering: list[int]) -> list[int]:
        """What a layer makes of labels."""
        return kind_of(node.layer).channels(self, node, entering)

    def logits(self, labels: list[int]) -> None:
        """What a head ends with."""

    @abstractmethod
    def produced(self, node: Node, entering: list[int]) -> list[int]: ...

    @abstractmethod
    def fresh(self, count: int) -> list[int]: ...

    @abstractmethod
    def hold(self, labels: list[int]) -> list[int]: ...

    @abstractmethod
    def all_same(self, labels: Sequence[int]) -> int: ...
