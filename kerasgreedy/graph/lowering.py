"""Spec layers -> primitive layers, each with its shapes and costs. Pure Python: `plan` and `summary` count with it.

A `conv` with options becomes downsampling, padding, convolution, batch norm, activation, in this order (greedy, eq. 1:
x_{j+1} = relu(W P x_j)). A head becomes ordinary layers too, so that one builder serves both.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from kerasgreedy.errors import ShapeError
from kerasgreedy.graph.kinds import kind_of
from kerasgreedy.graph.rules import as_map, margins, window_count
from kerasgreedy.graph.tree import Crop, Node, Pad, PadShortcut, Path_, Shape, show
from kerasgreedy.spec import layers as L
from kerasgreedy.spec.block_defaults import BlockDefaults
from kerasgreedy.spec.convex_layers import ClassSeparable
from kerasgreedy.spec.strict import Strict


class Lowering:
    """Lowers the layers of one component (a block or a head), naming them as it goes."""

    def __init__(self, defaults: BlockDefaults):
        self.defaults = defaults
        self._names: Counter[str] = Counter()

    def sequence(self, layers: Sequence[Strict], shape: Shape, path: Path_) -> tuple[Node, ...]:
        """Lowers layers that run one after the other, starting at `shape`."""
        nodes: list[Node] = []
        for index, layer in enumerate(layers):
            for node in self._lower(layer, nodes[-1].output_shape if nodes else shape, (*path, index)):
                nodes.append(node)
        return tuple(nodes)

    def _lower(self, layer: Strict, shape: Shape, path: Path_) -> list[Node]:
        several = {
            L.Conv: self._conv,
            L.Dense: self._dense,
            L.GatedConv: self._on_patches,
            L.RandomFeatures: self._on_patches,
            L.MaxPool: self._max_pool,
            L.Residual: self._residual,
            L.Branches: self._branches,
        }
        method: Any = several.get(type(layer))
        return method(layer, shape, path) if method else [self._simple(layer, shape, path)]

    def _node(self, layer: Strict, kind: str, shape: Shape, out: Shape, **costs: Any) -> Node:
        self._names[kind] += 1
        return Node(layer, f"{kind}_{self._names[kind]}", shape, out, **costs)

    def _padded(self, node: Node, value: Literal["zero", "lowest"]) -> list[Node]:
        """A layer whose document says by how many places the map is padded, after the layer that does it."""
        padding = node.layer.padding  # type: ignore[attr-defined]
        if isinstance(padding, str):
            return [node]
        layer = node.layer.model_copy(update={"padding": "valid"})
        before, after = margins(padding)
        if not before and not after:
            return [replace(node, layer=layer)]
        crop = Crop(before=max(-before, 0), after=max(-after, 0))
        pad = Pad(before=max(before, 0), after=max(after, 0), value=value)
        nodes: list[Node] = []
        shape = node.input_shape
        for edge, name, more in ((crop, "crop", min(before, 0) + min(after, 0)), (pad, "pad", max(before, 0) + max(after, 0))):
            if more:
                around = (shape[0] + more, shape[1] + more, shape[2])
                nodes.append(Node(edge, f"{node.name}_{name}", shape, around))
                shape = around
        return [*nodes, replace(node, layer=layer, input_shape=shape)]

    def _max_pool(self, layer: L.MaxPool, shape: Shape, path: Path_) -> list[Node]:
        return self._padded(self._simple(layer, shape, path), "lowest")

    def _on_patches(self, layer: L.GatedConv | L.RandomFeatures, shape: Shape, path: Path_) -> list[Node]:
        return self._padded(self._simple(layer, shape, path), "zero")

    def _chain(self, nodes: list[Node], batch_norm: bool, activation: str) -> list[Node]:
        if batch_norm:
            nodes.append(self._simple(L.BatchNorm(batch_norm=True), nodes[-1].output_shape, ()))
        if activation != "linear":
            nodes.append(self._simple(L.Activation(activation=activation), nodes[-1].output_shape, ()))  # type: ignore[arg-type]
        return nodes

    def _conv(self, layer: L.Conv, shape: Shape, path: Path_) -> list[Node]:
        height, width, channels = as_map(shape, "conv", path)
        nodes: list[Node] = []
        stride = layer.stride
        if layer.downsample == "stride":
            stride *= 2
        elif layer.downsample is not None:
            nodes.append(self._simple(L.Downsample(downsample=layer.downsample), shape, path))
            height, width, channels = nodes[0].output_shape
        for what, size in (("input channels", channels), ("filters", layer.conv)):
            if size % layer.groups:
                raise ShapeError(f"{what} must divide into {layer.groups} groups, got {size}", path)
        out_h, out_w = (
            window_count(
                size, layer.kernel_size, stride, layer.padding, f"a {layer.kernel_size}x{layer.kernel_size} kernel", path
            )
            for size in (height, width)
        )
        batch_norm = self.defaults.batch_norm if layer.batch_norm is None else layer.batch_norm
        bias = not batch_norm if layer.use_bias is None else layer.use_bias
        weights = layer.kernel_size**2 * (channels // layer.groups) * layer.conv
        resolved = layer.model_copy(update={"downsample": None, "stride": stride, "use_bias": bias})
        costs = {"parameters": weights + bias * layer.conv, "multiply_adds": weights * out_h * out_w}
        node = self._node(resolved, "conv", (height, width, channels), (out_h, out_w, layer.conv), path=path, **costs)
        nodes += self._padded(node, "zero")
        return self._chain(nodes, batch_norm, layer.activation or self.defaults.activation)

    def _dense(self, layer: L.Dense, shape: Shape, path: Path_) -> list[Node]:
        if len(shape) != 1:
            raise ShapeError(f"'dense' needs a vector, got a map of {show(shape)}; write {{flatten: true}} before it", path)
        bias = not layer.batch_norm if layer.use_bias is None else layer.use_bias
        weights = shape[0] * layer.dense
        resolved = layer.model_copy(update={"use_bias": bias})
        costs = {"parameters": weights + bias * layer.dense, "multiply_adds": weights}
        node = self._node(resolved, "dense", shape, (layer.dense,), path=path, **costs)
        return self._chain([node], layer.batch_norm, layer.activation or self.defaults.activation)

    def _residual(self, layer: L.Residual, shape: Shape, path: Path_) -> list[Node]:
        body = self.sequence(layer.residual, shape, (*path, "residual"))
        out = body[-1].output_shape
        shortcut = self._shortcut(layer, shape, out, path)
        got = shortcut[-1].output_shape if shortcut else shape
        if got != out:
            hint = "; use shortcut: projection, or pad" if layer.shortcut == "identity" else ""
            raise ShapeError(f"the body gives {show(out)} and the shortcut {show(got)}: they cannot be summed{hint}", path)
        children = (body, shortcut)
        node = self._node(layer, "residual", shape, out, children=children, path=path, **_sums(children))
        return self._chain([node], False, layer.activation or self.defaults.activation)

    def _shortcut(self, layer: L.Residual, shape: Shape, out: Shape, path: Path_) -> tuple[Node, ...]:
        if isinstance(layer.shortcut, list):
            return self.sequence(layer.shortcut, shape, (*path, "shortcut"))
        if layer.shortcut == "identity" or shape == out:
            return ()
        height, width, _ = as_map(shape, layer.shortcut, path)
        out_h, out_w, channels = as_map(out, layer.shortcut, path)
        stride = math.ceil(height / out_h)
        if (math.ceil(height / stride), math.ceil(width / stride)) != (out_h, out_w):
            raise ShapeError(f"no stride takes {show(shape)} to {show(out)}; give the shortcut as layers", path)
        if layer.shortcut == "projection":
            project = L.Conv(conv=channels, kernel_size=1, stride=stride, activation="linear")
            return self.sequence([project], shape, (*path, "shortcut"))
        if channels < shape[2]:
            raise ShapeError(f"'pad' cannot take {shape[2]} channels to {channels}; use shortcut: projection", path)
        return (self._node(PadShortcut(stride=stride, channels=channels), "subsample", shape, out),)

    def _branches(self, layer: L.Branches, shape: Shape, path: Path_) -> list[Node]:
        children = tuple(self.sequence(branch, shape, (*path, "branches", index)) for index, branch in enumerate(layer.branches))
        outs = [branch[-1].output_shape if branch else shape for branch in children]
        for index, out in enumerate(outs):
            if out[:-1] != outs[0][:-1]:
                message = f"branch {index} gives {show(out)} and branch 0 {show(outs[0])}: heights and widths must agree"
                raise ShapeError(message, (*path, "branches", index))
        total = (*outs[0][:-1], sum(out[-1] for out in outs))
        return [self._node(layer, "branches", shape, total, children=children, **_sums(children))]

    def _simple(self, layer: Strict, shape: Shape, path: Path_) -> Node:
        if isinstance(layer, L.Activation) and layer.activation == L.HARD_THRESHOLD:
            layer = layer.model_copy(update={"threshold": self._threshold(layer.threshold)})
        kind, name = kind_of(layer), "class_separable" if isinstance(layer, ClassSeparable) else L.KINDS.name_of(layer)
        assert kind.rule is not None, f"{name} is lowered by a method of its own"
        out, parameters = kind.rule(layer, shape, path)
        costs = {"parameters": parameters, "multiply_adds": kind.multiply_adds(layer, shape, out)}
        return self._node(layer, name, shape, out, path=path, **costs)

    def _threshold(self, own: L.Threshold | None) -> L.Threshold:
        """`own` over the defaults."""
        given = {key: getattr(own, key) for key in own.model_fields_set} if own else {}
        merged = self.defaults.threshold.model_copy(update=given)
        return merged if merged.learn == "surrogate" else merged.model_copy(update={"width": None})


def _sums(children: Sequence[Sequence[Node]]) -> dict[str, int]:
    return {
        "parameters": sum(node.parameters for child in children for node in child),
        "multiply_adds": sum(node.multiply_adds for child in children for node in child),
    }
