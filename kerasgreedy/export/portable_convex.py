"""Layers of convex networks in stock Keras layers and operations; see `portable.Rebuild`."""

import math
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from kerasgreedy.export.portable import Rebuild
from kerasgreedy.graph.convex_rules import patch_counts
from kerasgreedy.graph.tree import Node
from kerasgreedy.nn.random_features import NORM_FLOOR
from kerasgreedy.spec.convex_layers import ClassSeparable, GatedConv, RandomFeatures, Standardize

# Parts of a layer whose kernels are not trained here, and are not in the file.
FIXED = ("_gates", "_patches", "_sum_patches", "_squares_patches")


def gated_conv(rebuild: Rebuild, layer: GatedConv, node: Node, x: Any) -> Any:
    """Convolutions, and a comparison with 0."""
    if layer.sums_patches:
        return _sums_of_patches(rebuild, layer, node, x)
    kernel, *gates = rebuild.weights(node)
    z = _convolution(rebuild, layer, node, "", kernel, x)
    if gates:
        return z * _step(_convolution(rebuild, layer, node, "_gates", gates[0], x))
    z = layers.ReLU(name=rebuild.name(node, "_relu"))(z)
    if not layer.class_separable:
        return z
    z = layers.GlobalAveragePooling2D(name=rebuild.name(node, "_mean"))(z)
    return (
        z
        if layer.over == "mean"
        else layers.Rescaling(math.prod(patch_counts(layer, node.input_shape)), name=rebuild.name(node, "_sum"))(z)
    )


def _sums_of_patches(rebuild: Rebuild, layer: GatedConv, node: Node, x: Any) -> Any:
    """Patches by a convolution with one-hot kernels, gates by another; their product sums over places."""
    gates, *signs = rebuild.weights(node)
    length, count = node.output_shape
    places = math.prod(patch_counts(layer, node.input_shape))
    one_hot = np.eye(length, dtype=np.float32).reshape(*gates.shape[:3], length)
    patches = _convolution(rebuild, layer, node, "_patches", one_hot, x)
    patches = layers.Reshape((places, length), name=rebuild.name(node, "_rows"))(patches)
    opened = _step(_convolution(rebuild, layer, node, "_gates", gates, x))
    opened = layers.Reshape((places, count), name=rebuild.name(node, "_open"))(opened)
    sums = layers.Dot(axes=(1, 1), name=rebuild.name(node))([patches, opened])
    if layer.over == "mean":
        sums = layers.Rescaling(1 / places, name=rebuild.name(node, "_mean"))(sums)
    return sums * signs[0] if signs else sums


def class_separable(rebuild: Rebuild, layer: ClassSeparable, node: Node, x: Any) -> Any:
    """A dense layer."""
    x = layers.Reshape((node.input_shape[0] * node.input_shape[1],), name=rebuild.name(node, "_flat"))(x)
    dense = layers.Dense(layer.class_separable, use_bias=False, name=rebuild.name(node))
    y = dense(x)
    dense.set_weights([rebuild.weights(node)[0].reshape(-1, layer.class_separable)])
    return y


def standardize(rebuild: Rebuild, layer: Standardize, node: Node, x: Any) -> Any:
    """Constants."""
    mean, factor = rebuild.weights(node)
    return (x - mean) * factor


def _convolution(rebuild: Rebuild, layer: GatedConv | RandomFeatures, node: Node, part: str, kernel: np.ndarray, x: Any) -> Any:
    convolution = keras.layers.Conv2D(
        kernel.shape[-1],
        layer.kernel_size,
        layer.stride,
        padding=str(layer.padding),
        use_bias=False,
        trainable=part not in FIXED,
        name=rebuild.name(node, part),
    )
    y = convolution(x)
    convolution.set_weights([kernel])
    return y


def _step(x: Any) -> Any:
    return ops.cast(x >= 0, "float32")


def random_features(rebuild: Rebuild, layer: RandomFeatures, node: Node, x: Any) -> Any:
    """Convolutions and constants."""
    kernel, offset, *points = rebuild.weights(node)
    y = _convolution(rebuild, layer, node, "_patches", kernel, x)
    if layer.normalize:
        ones = np.ones((layer.kernel_size, layer.kernel_size, node.input_shape[-1], 1), np.float32)
        one = _convolution(rebuild, layer, node, "_sum_patches", ones, x)
        two = _convolution(rebuild, layer, node, "_squares_patches", ones, ops.square(x))
        y = y / (ops.sqrt(ops.relu(two - ops.square(one) / ones.size)) + NORM_FLOOR)
    y = y + offset
    if layer.form == "fourier":
        return ops.cos(y) * (2 / layer.random_features) ** 0.5
    squares = ops.sum(ops.square(y), axis=-1, keepdims=True) + np.sum(np.square(points[0]), axis=0)
    distances = ops.relu(squares - 2 * ops.matmul(y, points[0]))
    return ops.matmul(ops.exp(-layer.gamma * distances), points[1])
