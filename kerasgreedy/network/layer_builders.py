"""What each kind of layer is in Keras. The records of `graph/kinds.py` name these functions; plug-ins bring theirs."""

import zlib
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from kerasgreedy.graph import tree
from kerasgreedy.graph.architecture import Architecture, Component
from kerasgreedy.graph.kinds import kind_of
from kerasgreedy.graph.tree import Node, fold
from kerasgreedy.nn.activations import PositiveHardThreshold, activation
from kerasgreedy.nn.batch_norm import FusedBatchNormalization
from kerasgreedy.nn.channels import ChannelPlacement
from kerasgreedy.nn.conv import RowGradientConv2D
from kerasgreedy.nn.crop import RandomCropping
from kerasgreedy.nn.downsampling import InvertibleDownsampling, InvertibleUpsampling, PadLowest, Subsample
from kerasgreedy.nn.dropout import ReplicaDropout
from kerasgreedy.nn.gated import GatedConv2D, GatedPatches, RectifiedMean, SeparableScores
from kerasgreedy.nn.random_features import RandomFeatureMap
from kerasgreedy.nn.standardize import Standardization
from kerasgreedy.spec import layers as L
from kerasgreedy.spec.convex_layers import ClassSeparable
from kerasgreedy.spec.doors import imported

FLOAT32 = "float32"


class Builder:
    """Turns primitive layers into Keras layers, for one component.

    Attributes:
        defaults: `block_defaults` of the spec.
        synchronized: whether batch norm takes the statistics of the global batch.
    """

    def __init__(self, component: Component, arch: Architecture, seed: int, precision: str, synchronized: bool):
        self.defaults = arch.defaults
        self.synchronized = synchronized
        self._component, self._seed, self._precision = component.name, seed, precision
        self._logits = component.classifier if component in arch.heads else ()

    def sequence(self, nodes: Sequence[Node], x: Any) -> Any:
        """The output of layers that run one after the other, as a symbolic tensor."""
        return fold(nodes, x, self._leaf, self._join)

    def _join(self, node: Node, parts: list[Any]) -> Any:
        join = keras.layers.Concatenate if isinstance(node.layer, L.Branches) else keras.layers.Add
        return self._typed(join(name=node.name), node)(parts)

    def _leaf(self, node: Node, x: Any) -> Any:
        return self._typed(imported(kind_of(node.layer).build)(self, node.layer, node), node)(x)

    def _typed(self, layer: keras.layers.Layer, node: Node) -> keras.layers.Layer:
        """The layer in the component's precision; what makes the logits computes in float32."""
        layer.dtype_policy = FLOAT32 if any(node is last for last in self._logits) else self._precision
        return layer

    def kernel(self, node: Node) -> keras.initializers.Initializer:
        """An initializer whose draw depends on the seed and the layer's place only.

        A dense layer without activation is a classifier: it starts small, so that the first loss is near log(classes).
        """
        if self.defaults.initializer == "pytorch":
            # Within sqrt(3 scale / fan_in).
            return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=self.seed_of(node))
        linear = (isinstance(node.layer, L.Dense) and node.layer.activation == "linear") or isinstance(node.layer, ClassSeparable)
        name = "glorot_uniform" if linear else self.defaults.initializer
        return keras.initializers.get({"class_name": name, "config": {"seed": self.seed_of(node)}})

    def bias(self, node: Node, inputs: int) -> keras.initializers.Initializer:
        """That of a bias whose unit has so many inputs."""
        if self.defaults.initializer != "pytorch":
            return keras.initializers.Zeros()
        return keras.initializers.RandomUniform(-(inputs**-0.5), inputs**-0.5, seed=self.seed_of(node) ^ 1)

    def seed_of(self, node: Node) -> int:
        """Of the layer's own random numbers."""
        return zlib.crc32(f"{self._seed}/{self._component}/{node.name}".encode()) & 0x7FFFFFFF


def conv(builder: Builder, layer: L.Conv, node: Node) -> keras.layers.Layer:
    """A convolution without what goes before and after it."""
    return RowGradientConv2D(
        layer.conv,
        layer.kernel_size,
        strides=layer.stride,
        padding=layer.padding,
        groups=layer.groups,
        use_bias=bool(layer.use_bias),
        kernel_initializer=builder.kernel(node),
        bias_initializer=builder.bias(node, layer.kernel_size**2 * node.input_shape[-1] // layer.groups),
        name=node.name,
    )


def gated_conv(builder: Builder, layer: L.GatedConv, node: Node) -> keras.layers.Layer:
    """Gates, and filters behind them or sums of patches."""
    shared: dict[str, Any] = {
        "kernel_size": layer.kernel_size,
        "strides": layer.stride,
        "padding": layer.padding,
        "name": node.name,
    }
    filters = node.output_shape[-1]
    if layer.sums_patches:
        gates = keras.initializers.RandomNormal(stddev=1.0, seed=builder.seed_of(node))
        return GatedPatches(filters, over=layer.over, paired=layer.paired, kernel_initializer=gates, **shared)
    if layer.class_separable:
        return RectifiedMean(filters, over=layer.over, kernel_initializer=builder.kernel(node), **shared)
    return GatedConv2D(
        filters, own=not layer.is_fixed, seed=builder.seed_of(node), kernel_initializer=builder.kernel(node), **shared
    )


def class_separable(builder: Builder, layer: ClassSeparable, node: Node) -> keras.layers.Layer:
    """A filter for each gate and class."""
    start = keras.initializers.Zeros() if layer.start == "zero" else builder.kernel(node)
    return SeparableScores(layer.class_separable, kernel_initializer=start, name=node.name)


def random_features(builder: Builder, layer: L.RandomFeatures, node: Node) -> keras.layers.Layer:
    """Features of patches, which are fitted."""
    return RandomFeatureMap(
        layer.random_features,
        layer.kernel_size,
        strides=layer.stride,
        padding=str(layer.padding),
        gamma=layer.gamma,
        form=layer.form,
        normalize=layer.normalize,
        seed=builder.seed_of(node),
        name=node.name,
    )


def rows(_: Builder, layer: L.Rows, node: Node) -> keras.layers.Layer:
    """A row for each place."""
    return keras.layers.Reshape(node.output_shape, name=node.name)


def standardize(_: Builder, layer: L.Standardize, node: Node) -> keras.layers.Layer:
    """Means and deviations, which are fitted."""
    return Standardization(layer.standardize, name=node.name)


def dense(builder: Builder, layer: L.Dense, node: Node) -> keras.layers.Layer:
    """A dense layer without what follows it."""
    starts = {"kernel_initializer": builder.kernel(node), "bias_initializer": builder.bias(node, node.input_shape[-1])}
    return keras.layers.Dense(layer.dense, use_bias=bool(layer.use_bias), name=node.name, **starts)


def batch_norm(builder: Builder, layer: L.BatchNorm, node: Node) -> keras.layers.Layer:
    """Fused batch norm."""
    return FusedBatchNormalization(
        momentum=builder.defaults.batch_norm_momentum,
        epsilon=builder.defaults.batch_norm_epsilon,
        unbiased=builder.defaults.batch_norm_variance == "unbiased",
        synchronized=builder.synchronized and tf.distribute.get_strategy().num_replicas_in_sync > 1,
        name=node.name,
    )


def activation_layer(_: Builder, layer: L.Activation, node: Node) -> keras.layers.Layer:
    """An activation, with its thresholds if it has some."""
    if layer.threshold is None:
        return activation(layer.activation, name=node.name)
    return PositiveHardThreshold(**layer.threshold.model_dump(exclude_none=True), name=node.name)


def dropout(builder: Builder, layer: L.Dropout, node: Node) -> keras.layers.Layer:
    """Dropout with other masks on each device."""
    return ReplicaDropout(layer.dropout, seed=builder.seed_of(node), name=node.name)


def random_crop(builder: Builder, layer: L.RandomCrop, node: Node) -> keras.layers.Layer:
    """A window, with other places on each device."""
    height, width = node.output_shape[:2]
    return RandomCropping(height, width, seed=builder.seed_of(node), name=node.name)


def downsample(_: Builder, layer: L.Downsample, node: Node) -> keras.layers.Layer:
    """Space-to-depth, or pooling."""
    if layer.downsample == "invertible":
        return InvertibleDownsampling(layer.factor, name=node.name)
    pool = keras.layers.MaxPooling2D if layer.downsample == "max" else keras.layers.AveragePooling2D
    return pool(layer.factor, name=node.name)


def upsample(_: Builder, layer: L.Upsample, node: Node) -> keras.layers.Layer:
    """Depth-to-space."""
    return InvertibleUpsampling(layer.factor, name=node.name)


def max_pool(_: Builder, layer: L.MaxPool, node: Node) -> keras.layers.Layer:
    """Maximum over windows."""
    return keras.layers.MaxPooling2D(layer.max_pool, layer.stride, padding=layer.padding, name=node.name)


def avg_pool(_: Builder, layer: L.AvgPool, node: Node) -> keras.layers.Layer:
    """Mean over windows."""
    return keras.layers.AveragePooling2D(layer.avg_pool, layer.stride, padding=layer.padding, name=node.name)


def pool_to(_: Builder, layer: L.PoolTo, node: Node) -> keras.layers.Layer:
    """Mean over windows that cover the map, all of one size where the sides divide."""
    height, width = node.input_shape[:2]
    rows, columns = node.output_shape[:2]
    if height % rows == 0 and width % columns == 0:
        return keras.layers.AveragePooling2D((height // rows, width // columns), name=node.name)
    return keras.layers.AdaptiveAveragePooling2D((rows, columns), name=node.name)


def global_avg_pool(_: Builder, layer: L.GlobalAvgPool, node: Node) -> keras.layers.Layer:
    """Mean over all places."""
    return keras.layers.GlobalAveragePooling2D(name=node.name)


def flatten(_: Builder, layer: L.Flatten, node: Node) -> keras.layers.Layer:
    """Map to vector."""
    return keras.layers.Flatten(name=node.name)


def pad(_: Builder, layer: tree.Pad, node: Node) -> keras.layers.Layer:
    """Zeros, or the lowest number, around a map."""
    if layer.value == "zero":
        return keras.layers.ZeroPadding2D(((layer.before, layer.after),) * 2, name=node.name)
    return PadLowest(layer.before, name=node.name)


def crop(_: Builder, layer: tree.Crop, node: Node) -> keras.layers.Layer:
    """A map without its edges."""
    return keras.layers.Cropping2D(((layer.before, layer.after),) * 2, name=node.name)


def place_channels(_: Builder, layer: L.PlaceChannels, node: Node) -> keras.layers.Layer:
    """Channels at places of a wider map."""
    return ChannelPlacement(layer.place_channels, layer.at, name=node.name)


def subsample(_: Builder, layer: tree.PadShortcut, node: Node) -> keras.layers.Layer:
    """Shortcut without weights."""
    return Subsample(layer.stride, layer.channels, name=node.name)
