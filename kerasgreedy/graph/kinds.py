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

    def all_same(self, labels: Sequence[int]) -> int:
        """Makes some labels one, and gives it."""


# What becomes of the labels of the channels that enter.
Channels: TypeAlias = Callable[[Labels, Node, list[int]], list[int]]


@dataclass(frozen=True)
class Kind:
    """A kind of primitive layer.

    Attributes:
        rule: its shape and trained weights; None where the lowering makes several layers of what is written.
        channels: what becomes of its channels.
        build: `package.module:function` of a `kerasgreedy.network.layer_builders.Builder`, the layer and its `Node`, that makes
            the Keras layer.
        filters: the key that says how many channels it makes, of a kind that has a `kernel` with one slice, on the last axis,
            for each of them; they can be removed. Empty: none.
        kept: numbers that it keeps beside the trained ones, of the layer and its output's shape.
        takes_training: it does something else in training, and is told.
        portable: as `build`, of an `export.portable.Rebuild`, the layer, its node and a symbolic tensor: the layer's output by
            stock Keras layers. Empty: its Keras layer is stock itself, or stands in the package's own table.
        twin: the same of `export.tfmot.twin`, by layers of tf_keras. Empty: in its table, or `finish` refuses it.
    """

    rule: Rule | None
    channels: Channels
    build: str
    filters: str = ""
    kept: Callable[[Any, Shape], int] = lambda layer, shape: 0
    takes_training: bool = False
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
    return kind_of(node.layer).kept(node.layer, node.output_shape)


def _betas(threshold: L.Threshold, shape: Shape) -> int:
    """How many thresholds an activation has."""
    return 1 if threshold.per == "layer" else shape[-1]


def _kept_by_activation(layer: L.Activation, shape: Shape) -> int:
    threshold = layer.threshold
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


_BUILDERS = "kerasgreedy.network.layer_builders"
KINDS: dict[type[Strict], Kind] = {
    L.Conv: Kind(None, produced, f"{_BUILDERS}:conv", filters="conv"),
    L.Dense: Kind(None, produced, f"{_BUILDERS}:dense", filters="dense"),
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
        kept=lambda layer, shape: 2 * shape[-1],
        takes_training=True,
    ),
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
