"""Runs a built component layer by layer, so that some layers can do something else."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras

from kerasgreedy.graph.kinds import kind_of
from kerasgreedy.graph.tree import Node, fold

# Given `component/layer`, the Keras layer and its input: what stands for its output, or None for the layer's own.
Instead: TypeAlias = Callable[[str, keras.layers.Layer, Any], Any]


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
