"""The kinds of primitive layers: of each its shape and cost, and what becomes of its channels. Imports no TensorFlow.

What a kind is in Keras, a record names as text and is imported when a network is built. What the package's own kinds become
elsewhere stands in tables of `export/` and `analysis/`; a test demands an entry, or a refusal, for each in every table.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from kerasgreedy.errors import ShapeError
from kerasgreedy.graph.tree import Node, Pad, PadShortcut, Path_, Shape, show
from kerasgreedy.spec import layers as L
from kerasgreedy.spec.convex_layers import ClassSeparable
from kerasgreedy.spec.layers import Padding
from kerasgreedy.spec.strict import Strict

# (layer, input shape, keys that lead to it) -> output shape, trained weights.
Rule: TypeAlias = Callable[[Any, Shape, Path_], tuple[Shape, int]]
# Of a channel that a shortcut without weights fills with zeros.
ZERO = -1


class Labels(Protocol):
    """Labels of channels: those under one label can only be removed together."""

    def produced(self, node: Node, entering: list[int]) -> list[int]:
        """Fresh ones, of a layer whose filters make them from all that enters."""

    def fresh(self, count: int) -> list[int]:
        """Labels that nothing else has."""

    def hold(self, labels: list[int]) -> list[int]:
        """Keeps channels from ever being removed, and gives their labels."""

    def all_same(self, labels: Sequence[int]) -> int:
        """Makes some labels one, and gives it."""


# What becomes of the labels of the channels that enter.
Channels: TypeAlias = Callable[[Labels, Node, list[int]], list[int]]


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


def _betas(threshold: L.Threshold, shape: Shape) -> int:
    """How many thresholds an activation has."""
    return 1 if threshold.per == "layer" else shape[-1]


def _kept_by_activation(node: Node) -> int:
    threshold, shape = node.layer.threshold, node.output_shape  # type: ignore[attr-defined]
    if threshold is None or threshold.learn == "surrogate":
        return 0
    return _betas(threshold, shape) + (threshold.learn == "warm_up")  # and whether it has been hardened


def _activation(layer: L.Activation, shape: Shape, path: Path_) -> tuple[Shape, int]:
    threshold = layer.threshold
    return shape, 0 if threshold is None or threshold.learn == "fixed" else _betas(threshold, shape)


def _pool(size_key: str) -> Callable[[Any, Shape, Path_], tuple[Shape, int]]:
    def rule(layer: Any, shape: Shape, path: Path_) -> tuple[Shape, int]:
        height, width, channels = as_map(shape, size_key, path)
        size = getattr(layer, size_key)
        if isinstance(layer.padding, int) and 2 * layer.padding > size:
            raise ShapeError(f"padding {layer.padding} is over half the window of {size}", path)
        what, stride = f"a {size}x{size} window", layer.stride or size
        out_h, out_w = (window_count(side, size, stride, layer.padding, what, path) for side in (height, width))
        return (out_h, out_w, channels), 0

    return rule


def _pool_to(layer: Any, shape: Shape, path: Path_) -> tuple[Shape, int]:
    height, width, channels = as_map(shape, "pool_to", path)
    return (min(height, layer.pool_to), min(width, layer.pool_to), channels), 0


def _global_avg_pool(layer: Any, shape: Shape, path: Path_) -> tuple[Shape, int]:
    return (as_map(shape, "global_avg_pool", path)[2],), 0


def _downsample(layer: Any, shape: Shape, path: Path_) -> tuple[Shape, int]:
    height, width, channels = as_map(shape, "downsample", path)
    factor = layer.factor
    if layer.downsample != "invertible":
        if min(height, width) < factor:
            raise ShapeError(
                f"{layer.downsample} downsampling by {factor} needs at least {factor}x{factor}, got {show(shape)}", path
            )
        return (height // factor, width // factor, channels), 0
    if height % factor or width % factor:
        message = f"invertible downsampling by {factor} needs height and width divisible by {factor}, got {show(shape)}"
        raise ShapeError(message, path)
    return (height // factor, width // factor, channels * factor**2), 0


def _upsample(layer: Any, shape: Shape, path: Path_) -> tuple[Shape, int]:
    height, width, channels = as_map(shape, "upsample", path)
    factor = layer.factor
    if channels % factor**2:
        raise ShapeError(f"the inverse of downsampling by {factor} needs channels divisible by {factor**2}, got {channels}", path)
    return (height * factor, width * factor, channels // factor**2), 0


def _gated_conv(layer: L.GatedConv, shape: Shape, path: Path_) -> tuple[Shape, int]:
    height, width, channels = as_map(shape, "gated_conv", path)
    what = f"a {layer.kernel_size}x{layer.kernel_size} patch"
    out_h, out_w = (window_count(side, layer.kernel_size, layer.stride, layer.padding, what, path) for side in (height, width))
    patch, gates = layer.kernel_size**2 * channels, layer.gated_conv
    if layer.sums_patches:
        return (patch, gates * (1 + layer.paired)), 0
    return (gates,) if layer.class_separable else (out_h, out_w, gates), patch * gates


def _gated_cost(layer: L.GatedConv, entering: Shape, leaving: Shape) -> int:
    """Gates, and patches behind them."""
    patches = math.prod(
        window_count(side, layer.kernel_size, layer.stride, layer.padding, "a patch", ()) for side in entering[:2]
    )
    filters = leaving[-1] * (1 + layer.is_fixed)
    return patches * layer.kernel_size**2 * entering[-1] * filters


def _gate_numbers(node: Node) -> int:
    """Fixed gates, and of pairs the sign of each."""
    layer: Any = node.layer
    if not layer.is_fixed:
        return 0
    return node.output_shape[-1] * (layer.kernel_size**2 * node.input_shape[-1] + layer.paired)


def passed(labels: Labels, node: Node, entering: list[int]) -> list[int]:
    """Channels that leave as they enter."""
    return entering


def _down(labels: Labels, node: Node, entering: list[int]) -> list[int]:
    layer: Any = node.layer
    return entering * layer.factor**2 if layer.downsample == "invertible" else entering


def _up(labels: Labels, node: Node, entering: list[int]) -> list[int]:
    size = node.output_shape[-1]
    return [labels.all_same(entering[start::size]) for start in range(size)]


def _flat(labels: Labels, node: Node, entering: list[int]) -> list[int]:
    return entering * math.prod(node.input_shape[:-1])


def _filled(labels: Labels, node: Node, entering: list[int]) -> list[int]:
    return entering + [ZERO] * (node.output_shape[-1] - len(entering))


def produced(labels: Labels, node: Node, entering: list[int]) -> list[int]:
    """Channels that the layer's filters make."""
    return labels.produced(node, entering)


def _random_features(layer: L.RandomFeatures, shape: Shape, path: Path_) -> tuple[Shape, int]:
    height, width, _ = as_map(shape, "random_features", path)
    what = f"a {layer.kernel_size}x{layer.kernel_size} patch"
    out_h, out_w = (window_count(side, layer.kernel_size, layer.stride, layer.padding, what, path) for side in (height, width))
    return (out_h, out_w, layer.random_features), 0


def _random_cost(layer: L.RandomFeatures, entering: Shape, leaving: Shape) -> int:
    """The products of patches with what was drawn; Nystrom's features are whitened first and mixed afterwards."""
    length, features = layer.kernel_size**2 * entering[-1], leaving[-1]
    more = length**2 + features**2 if layer.form == "nystrom" else 0
    return leaving[0] * leaving[1] * (length * features + more)


def _kept_features(node: Node) -> int:
    layer: Any = node.layer
    length, features = layer.kernel_size**2 * node.input_shape[-1], node.output_shape[-1]
    if layer.form == "fourier":
        return length * features + features
    return length**2 + length + length * features + features**2


def _held(labels: Labels, node: Node, entering: list[int]) -> list[int]:
    """What enters and what leaves can both not be removed: a patch's norm is of all its channels."""
    labels.hold(entering)
    return labels.hold(labels.fresh(node.output_shape[-1]))


def _rows(layer: L.Rows, shape: Shape, path: Path_) -> tuple[Shape, int]:
    height, width, channels = as_map(shape, "rows", path)
    return (height * width, channels), 0


def _kept_statistics(node: Node) -> int:
    """A mean and a factor for each channel; or a mean for each number of the map, and one factor."""
    layer: Any = node.layer
    return 2 * node.output_shape[-1] if layer.standardize == "channels" else math.prod(node.output_shape) + 1


def _in_pairs(labels: Labels, node: Node, entering: list[int]) -> list[int]:
    """Both channels of a pair go together."""
    layer, out = node.layer, labels.produced(node, entering)
    if isinstance(layer, L.GatedConv) and layer.paired:
        half = len(out) // 2
        for one, two in zip(out[:half], out[half:], strict=True):
            labels.all_same([one, two])
    return out


_BUILDERS, _CONVEX = "kerasgreedy.network.layer_builders", "kerasgreedy.export.portable_convex"
KINDS: dict[type[Strict], Kind] = {
    L.Conv: Kind(None, produced, f"{_BUILDERS}:conv", filters="conv"),
    L.GatedConv: Kind(
        _gated_conv,
        _in_pairs,
        f"{_BUILDERS}:gated_conv",
        filters="gated_conv",
        channels_each=lambda layer: 1 + layer.paired,
        multiply_adds=_gated_cost,
        kept=_gate_numbers,
        fit="kerasgreedy.network.gates:fit_gates",
        is_fitted=lambda layer: layer.is_fixed,
        in_int8=lambda layer: not layer.is_fixed,
        portable=f"{_CONVEX}:gated_conv",
    ),
    L.Dense: Kind(None, produced, f"{_BUILDERS}:dense", filters="dense"),
    ClassSeparable: Kind(
        lambda layer, shape, path: ((layer.class_separable,), math.prod(shape) * layer.class_separable),
        produced,
        f"{_BUILDERS}:class_separable",
        filters="class_separable",
        multiply_adds=lambda layer, entering, leaving: math.prod(entering) * leaving[0],
        portable=f"{_CONVEX}:class_separable",
    ),
    L.MaxPool: Kind(_pool("max_pool"), passed, f"{_BUILDERS}:max_pool"),
    L.AvgPool: Kind(_pool("avg_pool"), passed, f"{_BUILDERS}:avg_pool"),
    L.PoolTo: Kind(_pool_to, passed, f"{_BUILDERS}:pool_to"),
    L.Downsample: Kind(_downsample, _down, f"{_BUILDERS}:downsample"),
    L.Upsample: Kind(_upsample, _up, f"{_BUILDERS}:upsample"),
    L.GlobalAvgPool: Kind(_global_avg_pool, passed, f"{_BUILDERS}:global_avg_pool"),
    L.Flatten: Kind(lambda layer, shape, path: ((math.prod(shape),), 0), _flat, f"{_BUILDERS}:flatten"),
    L.Dropout: Kind(lambda layer, shape, path: (shape, 0), passed, f"{_BUILDERS}:dropout", takes_training=True),
    L.Activation: Kind(_activation, passed, f"{_BUILDERS}:activation_layer", kept=_kept_by_activation),
    L.BatchNorm: Kind(
        lambda layer, shape, path: (shape, 2 * shape[-1]),
        passed,
        f"{_BUILDERS}:batch_norm",
        kept=lambda node: 2 * node.output_shape[-1],
        takes_training=True,
    ),
    L.Standardize: Kind(
        lambda layer, shape, path: (as_map(shape, "standardize", path), 0),
        passed,
        f"{_BUILDERS}:standardize",
        kept=_kept_statistics,
        fit="kerasgreedy.network.statistics:fit_standardize",
        portable=f"{_CONVEX}:standardize",
    ),
    L.RandomFeatures: Kind(
        _random_features,
        _held,
        f"{_BUILDERS}:random_features",
        multiply_adds=_random_cost,
        kept=_kept_features,
        fit="kerasgreedy.network.patch_statistics:fit_random_features",
        in_int8=lambda layer: False,
        portable=f"{_CONVEX}:random_features",
    ),
    L.Rows: Kind(_rows, passed, f"{_BUILDERS}:rows"),
    Pad: Kind(None, passed, f"{_BUILDERS}:pad"),
    PadShortcut: Kind(None, _filled, f"{_BUILDERS}:subsample"),
}


def adaptive_windows(size: int, parts: int) -> Iterator[tuple[int, int]]:
    """First place and the one after the last of each window of an adaptive mean: floor(i s / n) to ceil((i + 1) s / n)."""
    for part in range(parts):
        yield part * size // parts, -(-(part + 1) * size // parts)


def as_map(shape: Shape, kind: str, path: Path_) -> Shape:
    """Refuses a vector where a layer needs a map."""
    if len(shape) != 3:
        raise ShapeError(f"'{kind}' needs a map (height, width, channels), got a vector of {shape[0]}", path)
    return shape


def window_count(size: int, window: int, stride: int, padding: Padding, what: str, path: Path_) -> int:
    """How many windows fit a side."""
    if padding == "same":
        return math.ceil(size / stride)
    around = 0 if padding == "valid" else 2 * int(padding)
    if size + around < window:
        padded = f" and padding {around // 2}" if around else ""
        raise ShapeError(f"{what} does not fit a side of {size}{padded}", path)
    return (size + around - window) // stride + 1
