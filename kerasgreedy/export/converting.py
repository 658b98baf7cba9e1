"""One head of a network, or the vote, as a graph that the converters to TFLite and ONNX take whole.

It is the model of `portable.py`, but for what a converter does badly or not at all:

- Space-to-depth and its inverse are TensorFlow's, which have the same order of channels and an operation in both formats.
- A map is flattened to a shape that is known, so that TFLite sees static shapes at any batch size.
- Constants are part of the graph; Keras's Normalization captures them.
- A convolution in groups is TensorFlow's operation; Keras compiles it with XLA, which ONNX has nothing for.
- An adaptive mean whose windows differ is a mean of each window; Keras takes means of means, which int8 rounds twice.
- `gelu` is written with erf; TensorFlow's takes erfc, which ONNX has not.
"""

import math
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from kerasgreedy.errors import InputError
from kerasgreedy.export.portable import Rebuild, vote
from kerasgreedy.graph.rules import adaptive_windows
from kerasgreedy.graph.tree import Node
from kerasgreedy.network.build import Network
from kerasgreedy.spec import layers as L

if TYPE_CHECKING:
    from numpy.typing import NDArray

ENSEMBLE = "ensemble"


def convertible(network: Network, depth: int | str) -> Any:
    """A `tf.Module` whose `logits` is a `tf.function` with an input signature.

    Args:
        depth: of a trained head, or `ensemble`.

    Returns:
        `module.logits(images)` takes raw images (batch, height, width, channels) float32 of 0..255 and gives {"logits": (batch,
        classes) float32}.

    Raises:
        InputError: the network has no such depth.
    """
    wanted = _wanted(network, depth)
    images, heads = _ForConverters(network).heads(wanted)
    outputs = list(heads.values())
    model = keras.Model(images, vote(outputs, wanted, network.facts.ensemble_on) if depth == ENSEMBLE else outputs[0])

    @tf.function(input_signature=[tf.TensorSpec((None, *network.architecture.input_shape), tf.float32, name="images")])
    def logits(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"logits": model(images, training=False)}

    module = tf.Module()
    module.logits = logits
    # Of a variable that the module does not hold the TFLite converter makes one without a value, and says nothing.
    module.weights = [variable.value for variable in model.variables]
    return module


def network_logits(network: Network, depth: int | str, images: "NDArray") -> "NDArray[np.float32]":
    """Logits (n, classes) of the network itself, for raw images (n, height, width, channels) of 0..255."""
    outputs = network.model(_wanted(network, depth))(images, training=False)
    return np.asarray(outputs[ENSEMBLE if depth == ENSEMBLE else f"depth_{depth}"])


def _wanted(network: Network, depth: int | str) -> list[int]:
    if depth == ENSEMBLE:
        return network.facts.depths
    if depth not in network.facts.depths:
        depths = ", ".join(map(str, network.facts.depths))
        raise InputError(f"depth: received {depth!r}; allowed: a trained depth ({depths}), or '{ENSEMBLE}'")
    return [int(depth)]


class _ForConverters(Rebuild):
    """`Rebuild` with TensorFlow's operations where Keras's do not convert."""

    def normalized(self, images: Any) -> Any:
        if not self._network.facts.normalization:
            return images
        mean, deviation = (np.asarray(part, np.float32) for part in self._network.facts.normalization)
        return layers.Lambda(lambda x: (x - mean) / deviation, name="normalize")(images)

    def _native(self, node: Node, function: Any, x: Any) -> Any:
        return layers.Lambda(function, name=self.name(node))(x)

    def grouped(self, layer: L.Conv, node: Node, x: Any) -> Any:
        if layer.groups == 1:
            return self.as_it_is(layer, node, x)
        kernel, *bias = self._model.get_layer(node.name).get_weights()

        def convolve(x: tf.Tensor) -> tf.Tensor:
            y = tf.nn.conv2d(x, kernel, layer.stride, str(layer.padding).upper())
            return y + bias[0] if bias else y

        return self._native(node, convolve, x)

    def gelu(self, layer: L.Activation, node: Node, x: Any) -> Any:
        if layer.activation != "gelu":
            return self.activation(layer, node, x)
        return self._native(node, lambda x: 0.5 * x * (1.0 + tf.math.erf(x * math.sqrt(0.5))), x)

    def space_to_depth(self, layer: L.Downsample, node: Node, x: Any) -> Any:
        if layer.downsample != "invertible":
            return self.copied(node.name, x)
        return self._native(node, lambda x: tf.nn.space_to_depth(x, layer.factor), x)

    def depth_to_space(self, layer: L.Upsample, node: Node, x: Any) -> Any:
        return self._native(node, lambda x: tf.nn.depth_to_space(x, layer.factor), x)

    def flatten(self, _: L.Flatten, node: Node, x: Any) -> Any:
        return self._native(node, lambda x: tf.reshape(x, [-1, *node.output_shape]), x)

    def pool_to(self, layer: L.PoolTo, node: Node, x: Any) -> Any:
        (height, width, _), (rows, columns, _) = node.input_shape, node.output_shape
        if height % rows == 0 and width % columns == 0:
            return self.copied(node.name, x)

        def pool(x: tf.Tensor) -> tf.Tensor:
            strips = []
            for top, below in adaptive_windows(height, rows):
                cells = [x[:, top:below, left:right] for left, right in adaptive_windows(width, columns)]
                strips.append(tf.concat([tf.reduce_mean(cell, [1, 2], keepdims=True) for cell in cells], 2))
            return tf.concat(strips, 1)

        return self._native(node, pool, x)

    kinds = {
        **Rebuild.kinds,
        L.Conv: grouped,
        L.Activation: gelu,
        L.Downsample: space_to_depth,
        L.Upsample: depth_to_space,
        L.Flatten: flatten,
        L.PoolTo: pool_to,
    }
