"""Shapes, costs and channels of the layers of convex networks. Imports no TensorFlow."""

import math
from typing import Any

from kerasgreedy.graph.rules import Labels, as_map, window_count
from kerasgreedy.graph.tree import Node, Path_, Shape
from kerasgreedy.spec import layers as L


def patch_counts(layer: L.GatedConv | L.RandomFeatures, shape: Shape, path: Path_ = ()) -> tuple[int, int]:
    """How many patches a map has, from top to bottom and from left to right."""
    what = f"a {layer.kernel_size}x{layer.kernel_size} patch"
    rows, columns = (window_count(side, layer.kernel_size, layer.stride, layer.padding, what, path) for side in shape[:2])
    return rows, columns


def gated_conv(layer: L.GatedConv, shape: Shape, path: Path_) -> tuple[Shape, int]:
    """Shape and trained weights of a `gated_conv`."""
    shape = as_map(shape, "gated_conv", path)
    out_h, out_w = patch_counts(layer, shape, path)
    patch, gates = layer.kernel_size**2 * shape[2], layer.gated_conv
    if layer.sums_patches:
        return (patch, gates * (1 + layer.paired)), 0
    return (gates,) if layer.class_separable else (out_h, out_w, gates), patch * gates


def gated_cost(layer: L.GatedConv, entering: Shape, leaving: Shape) -> int:
    """Gates, and patches behind them."""
    patches = math.prod(patch_counts(layer, entering))
    filters = leaving[-1] * (1 + layer.is_fixed)
    return patches * layer.kernel_size**2 * entering[-1] * filters


def gate_numbers(node: Node) -> int:
    """Fixed gates, and of pairs the sign of each."""
    layer: Any = node.layer
    if not layer.is_fixed:
        return 0
    return node.output_shape[-1] * (layer.kernel_size**2 * node.input_shape[-1] + layer.paired)


def in_pairs(labels: Labels, node: Node, entering: list[int]) -> list[int]:
    """Both channels of a pair go together."""
    layer, out = node.layer, labels.produced(node, entering)
    if isinstance(layer, L.GatedConv) and layer.paired:
        half = len(out) // 2
        for one, two in zip(out[:half], out[half:], strict=True):
            labels.all_same([one, two])
    return out


def random_features(layer: L.RandomFeatures, shape: Shape, path: Path_) -> tuple[Shape, int]:
    """Shape of `random_features`; nothing is trained."""
    out_h, out_w = patch_counts(layer, as_map(shape, "random_features", path), path)
    return (out_h, out_w, layer.random_features), 0


def random_cost(layer: L.RandomFeatures, entering: Shape, leaving: Shape) -> int:
    """The products of patches with what was drawn; Nystrom's features are whitened first and mixed afterwards."""
    length, features = layer.kernel_size**2 * entering[-1], leaving[-1]
    more = length**2 + features**2 if layer.form == "nystrom" else 0
    return leaving[0] * leaving[1] * (length * features + more)


def feature_numbers(node: Node) -> int:
    """What `random_features` keep."""
    layer: Any = node.layer
    length, features = layer.kernel_size**2 * node.input_shape[-1], node.output_shape[-1]
    if layer.form == "fourier":
        return length * features + features
    return length**2 + length + length * features + features**2


def held(labels: Labels, node: Node, entering: list[int]) -> list[int]:
    """What enters and what leaves can both not be removed: a patch's norm is of all its channels."""
    labels.hold(entering)
    return labels.hold(labels.fresh(node.output_shape[-1]))


def rows(layer: L.Rows, shape: Shape, path: Path_) -> tuple[Shape, int]:
    """A row for each place."""
    height, width, channels = as_map(shape, "rows", path)
    return (height * width, channels), 0


def statistic_numbers(node: Node) -> int:
    """A mean and a factor for each channel; or a mean for each number of the map, and one factor."""
    layer: Any = node.layer
    return 2 * node.output_shape[-1] if layer.standardize == "channels" else math.prod(node.output_shape) + 1
