"""The kinds of primitive layers: of each its shape and cost, and what becomes of its channels. Imports no TensorFlow.

What a kind is in Keras, a record names as text and is imported when a network is built. What the package's own kinds become
elsewhere stands in tables of `export/` and `analysis/`; a test demands an entry, or a refusal, for each in every table.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kerasgreedy.graph import convex_rules, rules
from kerasgreedy.graph.rules import Channels, Rule
from kerasgreedy.graph.tree import Crop, Node, Pad, PadShortcut, Shape
from kerasgreedy.spec import layers as L
from kerasgreedy.spec.convex_layers import ClassSeparable
from kerasgreedy.spec.strict import Strict


@dataclass(frozen=True)
class Kind:
    """A kind of primitive layer.

    Attributes:
        rule: its shape and trained weights; None where the lowering makes several layers of what is written.
        multiply_adds: of one image, of the layer and its shapes, for a kind with a rule.
        channels: what becomes of its channels.
        build: `package.module:function` of a `kerasgreedy.network.layer_builders.Builder`, the layer and its `Node`, that makes
            the Keras layer.
        filters: the key that says how many channels it makes, of a kind that has a `kernel` with one slice, on the last axis,
            for each of them; they can be removed. Empty: none.
        channels_each: how many channels of it the number under that key counts as one.
        kept: numbers that it keeps beside the trained ones, of a node.
        fit: as `build`, a function of a `network.fitting.Fitting` that sets what the layer knows of the training images, and
            nothing else trains, before the first phase that runs it. Empty: nothing.
        is_fitted: whether a layer of a kind with `fit` is.
        takes_training: it does something else in training, and is told.
        one_size: whether a layer of it keeps something for each place of a map, and so takes maps of one size.
        in_int8: whether a layer of it can be computed in whole numbers of 8 bits.
        portable: as `build`, of an `export.portable.Rebuild`, the layer, its node and a symbolic tensor: the layer's output by
            stock Keras layers. Empty: its Keras layer is stock itself, or stands in the package's own table.
        twin: the same of `export.tfmot.twin`, by layers of tf_keras. Empty: in its table, or `finish` refuses it.
    """

    rule: Rule | None
    channels: Channels
    build: str
    filters: str = ""
    channels_each: Callable[[Any], int] = lambda layer: 1
    multiply_adds: Callable[[Any, Shape, Shape], int] = lambda layer, entering, leaving: 0
    kept: Callable[[Node], int] = lambda node: 0
    fit: str = ""
    is_fitted: Callable[[Any], bool] = lambda layer: True
    takes_training: bool = False
    one_size: Callable[[Any], bool] = lambda layer: False
    in_int8: Callable[[Any], bool] = lambda layer: True
    portable: str = ""
    twin: str = ""


def kind_of(layer: Strict) -> Kind:
    """The kind of a primitive layer."""
    return KINDS[type(layer)]


def add_kind(name: str, document: type[Strict], kind: Kind) -> None:
    """Adds a kind of layer that can be written in a spec.

    Args:
        name: its key, a field of the document.
        document: its class: that key and its options.

    Raises:
        ValueError: the name is taken, or the document has no such field.
    """
    L.KINDS.add(name, document)
    KINDS[document] = kind


def has_kernel(node: Node) -> bool:
    """Whether a layer has a kernel, whose slices on the last axis are its filters."""
    return not node.children and bool(kind_of(node.layer).filters)


def numbers_kept(node: Node) -> int:
    """Float32 numbers beside the trained ones: moving statistics, thresholds that are not trained; of a leaf."""
    return kind_of(node.layer).kept(node)


def always(_: Any) -> bool:
    """Of every layer of a kind."""
    return True


_BUILDERS, _CONVEX = "kerasgreedy.network.layer_builders", "kerasgreedy.export.portable_convex"
KINDS: dict[type[Strict], Kind] = {
    L.Conv: Kind(None, rules.produced, f"{_BUILDERS}:conv", filters="conv"),
    L.GatedConv: Kind(
        convex_rules.gated_conv,
        convex_rules.in_pairs,
        f"{_BUILDERS}:gated_conv",
        filters="gated_conv",
        channels_each=lambda layer: 1 + layer.paired,
        multiply_adds=convex_rules.gated_cost,
        kept=convex_rules.gate_numbers,
        fit="kerasgreedy.network.gates:fit_gates",
        is_fitted=lambda layer: layer.is_fixed,
        in_int8=lambda layer: not layer.is_fixed,
        portable=f"{_CONVEX}:gated_conv",
    ),
    L.Dense: Kind(None, rules.produced, f"{_BUILDERS}:dense", filters="dense"),
    ClassSeparable: Kind(
        lambda layer, shape, path: ((layer.class_separable,), math.prod(shape) * layer.class_separable),
        rules.produced,
        f"{_BUILDERS}:class_separable",
        filters="class_separable",
        multiply_adds=lambda layer, entering, leaving: math.prod(entering) * leaving[0],
        portable=f"{_CONVEX}:class_separable",
    ),
    L.MaxPool: Kind(rules.pool("max_pool"), rules.passed, f"{_BUILDERS}:max_pool"),
    L.AvgPool: Kind(rules.pool("avg_pool"), rules.passed, f"{_BUILDERS}:avg_pool"),
    L.PoolTo: Kind(rules.pool_to, rules.passed, f"{_BUILDERS}:pool_to"),
    L.Downsample: Kind(rules.downsample, rules.to_depth, f"{_BUILDERS}:downsample"),
    L.Upsample: Kind(rules.upsample, rules.from_depth, f"{_BUILDERS}:upsample"),
    L.GlobalAvgPool: Kind(rules.global_avg_pool, rules.passed, f"{_BUILDERS}:global_avg_pool"),
    L.Flatten: Kind(lambda layer, shape, path: ((math.prod(shape),), 0), rules.flat, f"{_BUILDERS}:flatten", one_size=always),
    L.Dropout: Kind(lambda layer, shape, path: (shape, 0), rules.passed, f"{_BUILDERS}:dropout", takes_training=True),
    L.RandomCrop: Kind(rules.random_crop, rules.passed, f"{_BUILDERS}:random_crop", takes_training=True, one_size=always),
    L.PlaceChannels: Kind(rules.place_channels, rules.placed, f"{_BUILDERS}:place_channels"),
    L.Activation: Kind(rules.activation, rules.passed, f"{_BUILDERS}:activation_layer", kept=rules.threshold_numbers),
    L.BatchNorm: Kind(
        lambda layer, shape, path: (shape, 2 * shape[-1]),
        rules.passed,
        f"{_BUILDERS}:batch_norm",
        kept=lambda node: 2 * node.output_shape[-1],
        takes_training=True,
    ),
    L.Standardize: Kind(
        lambda layer, shape, path: (rules.as_map(shape, "standardize", path), 0),
        rules.passed,
        f"{_BUILDERS}:standardize",
        kept=convex_rules.statistic_numbers,
        one_size=lambda layer: layer.standardize == "places",
        fit="kerasgreedy.network.statistics:fit_standardize",
        portable=f"{_CONVEX}:standardize",
    ),
    L.RandomFeatures: Kind(
        convex_rules.random_features,
        convex_rules.held,
        f"{_BUILDERS}:random_features",
        multiply_adds=convex_rules.random_cost,
        kept=convex_rules.feature_numbers,
        fit="kerasgreedy.network.patch_statistics:fit_random_features",
        in_int8=lambda layer: False,
        portable=f"{_CONVEX}:random_features",
    ),
    L.Rows: Kind(convex_rules.rows, rules.passed, f"{_BUILDERS}:rows", one_size=always),
    Pad: Kind(None, rules.passed, f"{_BUILDERS}:pad"),
    Crop: Kind(None, rules.passed, f"{_BUILDERS}:crop"),
    PadShortcut: Kind(None, rules.filled, f"{_BUILDERS}:subsample"),
}
