"""Shapes, costs and channels of layers, kind by kind. Imports no TensorFlow."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

from kerasgreedy.errors import ShapeError
from kerasgreedy.graph.tree import Node, Path_, Shape, show
from kerasgreedy.spec import layers as L
from kerasgreedy.spec.block_defaults import Padding, Threshold

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


def as_map(shape: Shape, kind: str, path: Path_) -> Shape:
    """Refuses a vector where a layer needs a map."""
    if len(shape) != 3:
        raise ShapeError(f"'{kind}' needs a map (height, width, channels), got a vector of {shape[0]}", path)
    return shape


def margins(padding: Padding | L.Margins) -> tuple[int, int]:
    """Rows and columns before and after a map; none where a name says how it is padded."""
    if isinstance(padding, str):
        return 0, 0
    return (padding, padding) if isinstance(padding, int) else (padding[0], padding[1])


def same_margins(size: int, window: int, stride: int) -> tuple[int, int]:
    """What `same` pads a side with: as TensorFlow, the odd place stands behind."""
    around = max((math.ceil(size / stride) - 1) * stride + window - size, 0)
    return around // 2, around - around // 2


def window_count(size: int, window: int, stride: int, padding: Padding | L.Margins, what: str, path: Path_) -> int:
    """How many windows fit a side."""
    if padding == "same":
        return math.ceil(size / stride)
    around = sum(margins(padding))
    if size + around < window:
        padded = f" and padding {padding}" if around else ""
        raise ShapeError(f"{what} does not fit a side of {size}{padded}", path)
    if size + sum(min(margin, 0) for margin in margins(padding)) < 1:
        raise ShapeError(f"padding {padding} cuts off all of a side of {size}", path)
    return (size + around - window) // stride + 1


def adaptive_windows(size: int, parts: int) -> Iterator[tuple[int, int]]:
    """First place and the one after the last of each window of an adaptive mean: floor(i s / n) to ceil((i + 1) s / n)."""
    for part in range(parts):
        yield part * size // parts, -(-(part + 1) * size // parts)


def _betas(threshold: Threshold, shape: Shape) -> int:
    """How many thresholds an activation has."""
    return 1 if threshold.per == "layer" else shape[-1]


def threshold_numbers(node: Node) -> int:
    """Thresholds that are not trained, and whether they have been hardened."""
    threshold, shape = node.layer.threshold, node.output_shape  # type: ignore[attr-defined]
    if threshold is None or threshold.learn == "surrogate":
        return 0
    return _betas(threshold, shape) + (threshold.learn == "warm_up")  # and whether it has been hardened


def activation(layer: L.Activation, shape: Shape, path: Path_) -> tuple[Shape, int]:
    """Shape and thresholds that are trained."""
    threshold = layer.threshold
    return shape, 0 if threshold is None or threshold.learn == "fixed" else _betas(threshold, shape)


def pool(size_key: str) -> Callable[[Any, Shape, Path_], tuple[Shape, int]]:
    """The rule of a pool whose size stands under a key."""

    def rule(layer: Any, shape: Shape, path: Path_) -> tuple[Shape, int]:
        height, width, channels = as_map(shape, size_key, path)
        size = getattr(layer, size_key)
        if isinstance(layer.padding, int) and 2 * layer.padding > size:
            raise ShapeError(f"padding {layer.padding} is over half the window of {size}", path)
        what, stride = f"a {size}x{size} window", layer.stride or size
        out_h, out_w = (window_count(side, size, stride, layer.padding, what, path) for side in (height, width))
        return (out_h, out_w, channels), 0

    return rule


def pool_to(layer: Any, shape: Shape, path: Path_) -> tuple[Shape, int]:
    """An adaptive mean."""
    height, width, channels = as_map(shape, "pool_to", path)
    return (min(height, layer.pool_to), min(width, layer.pool_to), channels), 0


def random_crop(layer: Any, shape: Shape, path: Path_) -> tuple[Shape, int]:
    """A window."""
    height, width, channels = as_map(shape, "random_crop", path)
    return (max(1, round(layer.random_crop * height)), max(1, round(layer.random_crop * width)), channels), 0


def global_avg_pool(layer: Any, shape: Shape, path: Path_) -> tuple[Shape, int]:
    """A vector of means."""
    return (as_map(shape, "global_avg_pool", path)[2],), 0


def downsample(layer: Any, shape: Shape, path: Path_) -> tuple[Shape, int]:
    """Space-to-depth, or a pool."""
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


def upsample(layer: Any, shape: Shape, path: Path_) -> tuple[Shape, int]:
    """Depth-to-space."""
    height, width, channels = as_map(shape, "upsample", path)
    factor = layer.factor
    if channels % factor**2:
        raise ShapeError(f"the inverse of downsampling by {factor} needs channels divisible by {factor**2}, got {channels}", path)
    return (height * factor, width * factor, channels // factor**2), 0


def passed(labels: Labels, node: Node, entering: list[int]) -> list[int]:
    """Channels that leave as they enter."""
    return entering


def to_depth(labels: Labels, node: Node, entering: list[int]) -> list[int]:
    """Space-to-depth repeats channels."""
    layer: Any = node.layer
    return entering * layer.factor**2 if layer.downsample == "invertible" else entering


def from_depth(labels: Labels, node: Node, entering: list[int]) -> list[int]:
    """Depth-to-space makes channels one."""
    size = node.output_shape[-1]
    return [labels.all_same(entering[start::size]) for start in range(size)]


def flat(labels: Labels, node: Node, entering: list[int]) -> list[int]:
    """Flatten repeats channels for every place."""
    return entering * math.prod(node.input_shape[:-1])


def placed(labels: Labels, node: Node, entering: list[int]) -> list[int]:
    """Channels at places of their own; at the others whatever they are summed with."""
    layer: Any = node.layer
    leaving = labels.fresh(layer.place_channels)
    for label, place in zip(entering, layer.at, strict=True):
        leaving[place] = label
    return leaving


def place_channels(layer: Any, shape: Shape, path: Path_) -> tuple[Shape, int]:
    """A wider map or vector."""
    if len(layer.at) != shape[-1]:
        raise ShapeError(f"'at' names {len(layer.at)} places for {shape[-1]} channels", path)
    return (*shape[:-1], layer.place_channels), 0


def filled(labels: Labels, node: Node, entering: list[int]) -> list[int]:
    """A shortcut adds channels of zeros."""
    return entering + [ZERO] * (node.output_shape[-1] - len(entering))


def produced(labels: Labels, node: Node, entering: list[int]) -> list[int]:
    """Channels that the layer's filters make."""
    return labels.produced(node, entering)
