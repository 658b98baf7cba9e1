"""The kinds of primitive layers: of each its shape and cost, and what becomes of its channels. Imports no TensorFlow.

What a kind is made of in Keras stands in `network/build.py`, and what it becomes elsewhere in the tables of `export/`; a test
demands an entry, or a refusal, for every kind in every table.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from kerasgreedy.errors import ShapeError
from kerasgreedy.graph.tree import Node, PadShortcut, Path_, Shape, betas, show
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
        rule: its shape and weights; None where the lowering makes several layers of what is written.
        channels: what becomes of its channels.
        takes_training: it does something else in training, and is told.
    """

    rule: Rule | None
    channels: Channels
    takes_training: bool = False


def kind_of(layer: Strict) -> Kind:
    """The kind of a primitive layer."""
    return KINDS[type(layer)]


def _activation(layer: L.Activation, shape: Shape, path: Path_) -> tuple[Shape, int]:
    threshold = layer.threshold
    return shape, 0 if threshold is None or threshold.learn == "fixed" else betas(threshold, shape)


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


def _kept(labels: Labels, node: Node, entering: list[int]) -> list[int]:
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


def _produced(labels: Labels, node: Node, entering: list[int]) -> list[int]:
    return labels.produced(node, entering)


KINDS: dict[type[Strict], Kind] = {
    L.Conv: Kind(None, _produced),
    L.Dense: Kind(None, _produced),
    L.MaxPool: Kind(_pool("max_pool"), _kept),
    L.AvgPool: Kind(_pool("avg_pool"), _kept),
    L.PoolTo: Kind(_pool_to, _kept),
    L.Downsample: Kind(_downsample, _down),
    L.Upsample: Kind(_upsample, _up),
    L.GlobalAvgPool: Kind(lambda layer, shape, path: ((as_map(shape, "global_avg_pool", path)[2],), 0), _kept),
    L.Flatten: Kind(lambda layer, shape, path: ((math.prod(shape),), 0), _flat),
    L.Dropout: Kind(lambda layer, shape, path: (shape, 0), _kept, takes_training=True),
    L.Activation: Kind(_activation, _kept),
    L.BatchNorm: Kind(lambda layer, shape, path: (shape, 2 * shape[-1]), _kept, takes_training=True),
    PadShortcut: Kind(None, _filled),
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
