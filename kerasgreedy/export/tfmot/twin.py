"""The network of a run again in tf_keras (Keras 2), the only Keras that TensorFlow Model Optimization works on.

Both networks lower from the same `Architecture`; the twin holds one model of all blocks up to a depth and that depth's head.
What TFMOT knows no layer for is written with layers that it knows:

- Space-to-depth and its inverse: Reshape, Permute, Reshape, with the channel order of `nn/downsampling.py`.
- The weightless `pad` shortcut: a maximum over 1x1 windows takes every n-th place; new channels are zero rows of the map while
  the channels stand in front.
- An adaptive mean whose windows differ: crops, a mean of each, concatenated.
- A positive hard threshold, for `cluster` only: a Lambda with the thresholds as constants.
- Where kernels are quantised, batch norm that does not follow a convolution: a 1x1 depthwise convolution with its scale and
  offset. (TFMOT takes it after a dense layer too, but TFLite leaves that layer in float32.)
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import numpy as np
import tensorflow as tf

from kerasgreedy.errors import InputError
from kerasgreedy.export.checking import check_finite
from kerasgreedy.graph import tree
from kerasgreedy.graph.kinds import kind_of
from kerasgreedy.graph.rules import adaptive_windows
from kerasgreedy.graph.tree import Node, fold
from kerasgreedy.network.build import Network
from kerasgreedy.spec import layers as L
from kerasgreedy.spec.doors import imported
from kerasgreedy.spec.strict import Strict

# A tensor, and the layer that gave it, where that stands in the same component.
Entering: TypeAlias = tuple[Any, Strict | None]
Method: TypeAlias = Literal["quantize", "cluster"]
TOLERANCE = 1e-5
# Activations that have the same formula under another name in tf_keras.
_NAMES = {"silu": "swish"}


def make_twin(network: Network, depth: int, method: Method, seed: int = 0) -> Any:
    """Builds the twin of a network at a depth, copies the weights, and compares the two on random images.

    Args:
        depth: of the head; blocks above it are left out.
        method: what TFMOT shall do with it: `quantize` knows fewer layers than `cluster`.
        seed: of dropout and of the images that are compared.

    Returns:
        `tf_keras.Model`: normalised images (batch, height, width, channels) float32 to logits (batch, classes) float32. Its
        layer `block_1.conv_1` is `conv_1` of component `block_1`.

    Raises:
        InputError: TFMOT cannot do that to a layer (says which, why, and what to do instead), or see `check_twin`.
    """
    import tf_keras

    arch = network.architecture
    builder = TwinBuilder(tf_keras.layers, network, method, seed)
    images = tf_keras.Input(arch.input_shape, name="input")
    x = images
    for component in (*arch.blocks[:depth], arch.heads[depth - 1]):
        builder.enter(component.name)
        x = builder.sequence(component.nodes, x)
    model = tf_keras.Model(images, x, name="twin")
    for load in builder.loads:
        load()
    check_twin(model, network, depth, seed)
    return model


def check_twin(model: Any, network: Network, depth: int, seed: int) -> None:
    """Refuses a twin whose logits on random images are not those of the network.

    Raises:
        Diverged: they are not finite.
        InputError: they differ by more than 1e-5 times the largest logit (or 1, if that is larger).
    """
    images = np.random.default_rng(seed).standard_normal((4, *network.architecture.input_shape), np.float32)
    expected = np.asarray(network.logits(images, [depth])[0])
    received = np.asarray(model(images, training=False))
    check_finite("what the network gives", expected, received)
    difference, scale = np.abs(received - expected).max(), max(1.0, np.abs(expected).max())
    if not difference <= TOLERANCE * scale:
        raise InputError(
            f"the tf_keras twin gives other logits than the network (they differ by {difference:.1e} at a size of {scale:.1e}); "
            "nothing was written"
        )


def copy_back(model: Any, network: Network, depth: int) -> None:
    """Copies the weights of a twin made for `cluster`, moving statistics included, into the network."""
    arch = network.architecture
    for component in (*arch.blocks[:depth], arch.heads[depth - 1]):
        arrays = network.arrays(component.name)
        for layer in model.layers:
            owner, _, node = layer.name.rpartition(".")
            if owner == component.name and layer.trainable_weights:
                arrays |= {f"{owner}/{node}/{_plain(variable.name)}": variable.numpy() for variable in layer.weights}
        network.load_arrays(component.name, arrays)


def _plain(name: str) -> str:
    """`block_1.conv_1/kernel:0` -> `kernel`."""
    return name.rsplit("/", 1)[-1].split(":")[0]


class TwinBuilder:
    """Turns primitive layers into tf_keras layers; `loads` copy the weights once the model stands.

    Attributes:
        layers: `tf_keras.layers`.
    """

    def __init__(self, layers: Any, network: Network, method: Method, seed: int):
        self.loads: list[Callable[[], None]] = []
        self.layers, self._network, self._seed = layers, network, seed
        self._quantize = method == "quantize"
        self._component = ""
        self._variables: dict[str, Any] = {}
        # The layer before the one that is built, in the same sequence.
        self._before: Strict | None = None

    def enter(self, component: str) -> None:
        """Goes on with the layers of this block or head."""
        self._component = component
        self._variables = self._network.variables(component)

    def sequence(self, nodes: Sequence[Node], x: Any) -> Any:
        start: Entering = x, None
        return fold(nodes, start, self._leaf, self._join)[0]

    def _join(self, node: Node, parts: list[Entering]) -> Entering:
        join = self.layers.Concatenate if isinstance(node.layer, L.Branches) else self.layers.Add
        return join(name=self.name(node))([x for x, _ in parts]), node.layer

    def _leaf(self, node: Node, entering: Entering) -> Entering:
        x, self._before = entering
        place = kind_of(node.layer).twin
        method = imported(place) if place else _LAYERS.get(type(node.layer), TwinBuilder.unknown)
        return method(self, node.layer, node, x), node.layer

    def unknown(self, layer: Strict, node: Node, x: Any) -> Any:
        why = f"its kind '{L.KINDS.name_of(layer)}' does not say what it is in tf_keras"
        raise self._refuse(node, why, "see 'twin' in docs/extending.md, or export without finish")

    def name(self, node: Node, part: str = "") -> str:
        """What its layer, or one of several, is called."""
        return f"{self._component}.{node.name}{part}"

    def _refuse(self, node: Node, why: str, instead: str) -> InputError:
        return InputError(f"{self._component}, layer {node.name}: {why}; {instead}")

    def weights(self, node: Node, *names: str) -> list[np.ndarray]:
        """Of the layer in the network, by name."""
        return [np.asarray(self._variables[f"{self._component}/{node.name}/{name}"]) for name in names]

    def add(self, layer: Any, x: Any, weights: Sequence[np.ndarray]) -> Any:
        """The output of a layer that gets these weights."""
        self.loads.append(lambda: layer.set_weights(weights))
        return layer(x)

    def conv(self, layer: L.Conv, node: Node, x: Any) -> Any:
        names = ["kernel", "bias"] if layer.use_bias else ["kernel"]
        kernel, *bias = self.weights(node, *names)
        options: dict[str, Any] = {
            "strides": layer.stride,
            "padding": layer.padding,
            "use_bias": bool(layer.use_bias),
            "name": self.name(node),
        }
        channels = node.input_shape[-1]
        if layer.groups == channels > 1 and self._quantize:
            multiplier = layer.conv // channels
            depthwise = self.layers.DepthwiseConv2D(layer.kernel_size, depth_multiplier=multiplier, **options)
            return self.add(depthwise, x, [kernel.reshape(*kernel.shape[:2], channels, multiplier), *bias])
        return self.add(self.layers.Conv2D(layer.conv, layer.kernel_size, groups=layer.groups, **options), x, [kernel, *bias])

    def dense(self, layer: L.Dense, node: Node, x: Any) -> Any:
        dense = self.layers.Dense(layer.dense, use_bias=bool(layer.use_bias), name=self.name(node))
        return self.add(dense, x, self.weights(node, "kernel", *["bias"] * bool(layer.use_bias)))

    def batch_norm(self, layer: L.BatchNorm, node: Node, x: Any) -> Any:
        weights = self.weights(node, "gamma", "beta", "moving_mean", "moving_variance")
        defaults = self._network.architecture.defaults
        if not self._quantize or isinstance(self._before, L.Conv):
            momentum, epsilon = defaults.batch_norm_momentum, defaults.batch_norm_epsilon
            normalize = self.layers.BatchNormalization(momentum=momentum, epsilon=epsilon, name=self.name(node))
            return self.add(normalize, x, weights)
        gamma, beta, mean, variance = weights
        scale = gamma / np.sqrt(variance + defaults.batch_norm_epsilon)
        affine = self.layers.DepthwiseConv2D(1, name=self.name(node))
        arrays = [scale.reshape(1, 1, -1, 1), beta - mean * scale]
        if len(node.input_shape) == 3:
            return self.add(affine, x, arrays)
        x = self.layers.Reshape((1, 1, *node.input_shape), name=self.name(node, "_as_map"))(x)
        return self.layers.Reshape(node.input_shape, name=self.name(node, "_as_vector"))(self.add(affine, x, arrays))

    def activation(self, layer: L.Activation, node: Node, x: Any) -> Any:
        if layer.activation in ("elu", "square") and self._quantize:
            instead = "cluster works with it, or train with one of relu, leaky_relu, gelu, silu, tanh, sigmoid"
            raise self._refuse(node, f"TFMOT cannot quantise the activation '{layer.activation}'", instead)
        if layer.activation == "square":
            return self.layers.Multiply(name=self.name(node))([x, x])
        if layer.activation == L.HARD_THRESHOLD:
            return self._hard_threshold(node, x)
        if layer.activation == "leaky_relu":
            return self.layers.LeakyReLU(0.2, name=self.name(node))(x)  # the slope that Keras 3 takes
        name = _NAMES.get(layer.activation, layer.activation)
        return self.layers.Activation(name, name=self.name(node))(x)

    def _hard_threshold(self, node: Node, x: Any) -> Any:
        layer = self._network.component(self._component).get_layer(node.name)
        threshold, shift = np.asarray(layer.threshold()), np.asarray(layer.shift())
        if not threshold.any() and not shift.any():
            return self.layers.Activation("relu", name=self.name(node))(x)
        if self._quantize:
            instead = "cluster works with it, or train with beta: 0 fixed, or relu"
            raise self._refuse(node, f"TFMOT cannot quantise {L.HARD_THRESHOLD} with another beta than 0", instead)
        return self.layers.Lambda(lambda q: tf.where(q <= threshold, 0.0, q - shift), name=self.name(node))(x)

    def downsample(self, layer: L.Downsample, node: Node, x: Any) -> Any:
        if layer.downsample != "invertible":
            pool = self.layers.MaxPooling2D if layer.downsample == "max" else self.layers.AveragePooling2D
            return pool(layer.factor, name=self.name(node))(x)
        f, (height, width, _) = layer.factor, node.output_shape
        # A patch's row of f places is already adjacent to the channels: only its f rows have to move there.
        return self._rearrange(node, x, (height, f, width, f * node.input_shape[-1]), (1, 3, 2, 4))

    def upsample(self, layer: L.Upsample, node: Node, x: Any) -> Any:
        f, (height, width, _) = layer.factor, node.input_shape
        return self._rearrange(node, x, (height, width, f, f * node.output_shape[-1]), (1, 3, 2, 4))

    def _rearrange(self, node: Node, x: Any, split: tuple[int, ...], order: tuple[int, ...]) -> Any:
        x = self.layers.Reshape(split, name=self.name(node, "_split"))(x)
        x = self.layers.Permute(order, name=self.name(node, "_permute"))(x)
        return self.layers.Reshape(node.output_shape, name=self.name(node))(x)

    def subsample(self, layer: tree.PadShortcut, node: Node, x: Any) -> Any:
        if layer.stride > 1:
            x = self.layers.MaxPooling2D(1, layer.stride, padding="same", name=self.name(node, "_places"))(x)
        new = layer.channels - node.input_shape[-1]
        if not new:
            return x
        x = self.layers.Permute((3, 1, 2), name=self.name(node, "_channels_first"))(x)
        x = self.layers.ZeroPadding2D(((0, new), (0, 0)), name=self.name(node, "_pad"))(x)
        return self.layers.Permute((2, 3, 1), name=self.name(node))(x)

    def pool_to(self, layer: L.PoolTo, node: Node, x: Any) -> Any:
        (height, width, _), (rows, columns, _) = node.input_shape, node.output_shape
        if height % rows == 0 and width % columns == 0:
            return self.layers.AveragePooling2D((height // rows, width // columns), name=self.name(node))(x)
        strips = []
        for i, (top, below) in enumerate(adaptive_windows(height, rows)):
            cells = []
            for j, (left, right) in enumerate(adaptive_windows(width, columns)):
                crop = ((top, height - below), (left, width - right))
                cell = self.layers.Cropping2D(crop, name=self.name(node, f"_crop_{i}_{j}"))(x)
                cells.append(self.layers.AveragePooling2D((below - top, right - left), name=self.name(node, f"_{i}_{j}"))(cell))
            strips.append(self._joined(cells, 2, self.name(node, f"_row_{i}")))
        return self._joined(strips, 1, self.name(node))

    def _joined(self, parts: list[Any], axis: int, name: str) -> Any:
        return self.layers.Concatenate(axis, name=name)(parts) if len(parts) > 1 else parts[0]

    def pad(self, layer: tree.Pad, node: Node, x: Any) -> Any:
        if layer.value == "lowest" and not (isinstance(self._before, L.Activation) and self._before.activation == "relu"):
            why = (
                f"max_pool with padding {layer.before} surrounds the map with the lowest number, which tf_keras has no layer for"
            )
            pool = replace(node, name=node.name.removesuffix("_pad"))
            raise self._refuse(pool, why, "write padding: same, or put the pool directly after a relu, where zeros do the same")
        return self.layers.ZeroPadding2D(((layer.before, layer.after),) * 2, name=self.name(node))(x)

    def crop(self, layer: tree.Crop, node: Node, x: Any) -> Any:
        return self.layers.Cropping2D(((layer.before, layer.after),) * 2, name=self.name(node))(x)

    def max_pool(self, layer: L.MaxPool, node: Node, x: Any) -> Any:
        return self.layers.MaxPooling2D(layer.max_pool, layer.stride, padding=layer.padding, name=self.name(node))(x)

    def avg_pool(self, layer: L.AvgPool, node: Node, x: Any) -> Any:
        return self.layers.AveragePooling2D(layer.avg_pool, layer.stride, padding=layer.padding, name=self.name(node))(x)

    def dropout(self, layer: L.Dropout, node: Node, x: Any) -> Any:
        seed = zlib.crc32(f"{self._seed}/{self.name(node)}".encode()) & 0x7FFFFFFF
        return self.layers.Dropout(layer.dropout, seed=seed, name=self.name(node))(x)

    def flatten(self, layer: L.Flatten, node: Node, x: Any) -> Any:
        return self.layers.Flatten(name=self.name(node))(x)

    def global_avg_pool(self, layer: L.GlobalAvgPool, node: Node, x: Any) -> Any:
        return self.layers.GlobalAveragePooling2D(name=self.name(node))(x)


_LAYERS: dict[type, Callable[[TwinBuilder, Any, Node, Any], Any]] = {
    L.Conv: TwinBuilder.conv,
    L.Dense: TwinBuilder.dense,
    L.BatchNorm: TwinBuilder.batch_norm,
    L.Activation: TwinBuilder.activation,
    L.Downsample: TwinBuilder.downsample,
    L.Upsample: TwinBuilder.upsample,
    tree.Pad: TwinBuilder.pad,
    tree.Crop: TwinBuilder.crop,
    tree.PadShortcut: TwinBuilder.subsample,
    L.PoolTo: TwinBuilder.pool_to,
    L.MaxPool: TwinBuilder.max_pool,
    L.AvgPool: TwinBuilder.avg_pool,
    L.GlobalAvgPool: TwinBuilder.global_avg_pool,
    L.Flatten: TwinBuilder.flatten,
    L.Dropout: TwinBuilder.dropout,
}
