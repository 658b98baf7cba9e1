"""Runs a built component layer by layer, so that some layers can do something else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras

from kerasgreedy.graph.kinds import kind_of
from kerasgreedy.graph.tree import Node, fold

# Given `component/layer`, the Keras layer and its input: what stands for its output, or None for the layer's own.
Instead: TypeAlias = Callable[[str, keras.layers.Layer, Any], Any]


@dataclass(frozen=True)
class StartPoint:
    """Where a computation sets in.

    Attributes:
        block: so many blocks have been run already.
        layers: `head_1/gated_conv_1`: of the head on the last of these, the first layers, which have been run as well.
    """

    block: int = 0
    layers: tuple[str, ...] = ()

    def is_inside_head(self, depth: int) -> bool:
        """Whether it is behind the first layers of the head at a depth (1 is the first block)."""
        return bool(self.layers) and depth == self.block

    def passing(self, instead: Instead | None) -> Instead | None:
        """`instead`, where layers that have been run give what they get."""
        if not self.layers:
            return instead

        def other(key: str, layer: keras.layers.Layer, x: Any) -> Any:
            if key in self.layers:
                return x
            return instead(key, layer, x) if instead else None

        return other


IMAGES = StartPoint()


class Walk:
    """Calls a component's layers in the order in which `build` put them together."""

    def __init__(self, model: keras.Model, component: str, training: bool, instead: Instead):
        self._model, self._component, self._training, self._instead = model, component, training, instead

    def sequence(self, nodes: Sequence[Node], x: Any) -> Any:
        return fold(nodes, x, self._leaf, lambda node, parts: self._model.get_layer(node.name)(parts))

    def _leaf(self, node: Node, x: Any) -> Any:
        layer = self._model.get_layer(node.name)
        other = self._instead(f"{self._component}/{node.name}", layer, x)
        if other is not None:
            return other
        return layer(x, training=self._training) if kind_of(node.layer).takes_training else layer(x)
