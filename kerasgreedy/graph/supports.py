"""Which layers of a phase have a support, and where its bits lie. Imports no TensorFlow."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from kerasgreedy.graph.architecture import Component
from kerasgreedy.graph.tree import Node, Shape, leaves
from kerasgreedy.spec import layers as L

# Activations that only let values through or not, so that a mask can stand for them.
MASKED = ("relu", "positive_hard_threshold")
Layout: TypeAlias = dict[str, "Unit"]


@dataclass(frozen=True)
class Unit:
    """The support of one layer.

    Attributes:
        shape: of the layer's output, without the batch axis.
        offset: first byte of an example's row that belongs to it.
        planes: bits of each output: 1 for a mask; for a max-pool, as many as number the places of its window.
        rate: of a dropout, whose drawn pattern is held; None: no dropout.
    """

    shape: Shape
    offset: int
    planes: int = 1
    rate: float | None = None

    @property
    def is_mask(self) -> bool:
        """Whether it is the support of an activation."""
        return self.planes == 1 and self.rate is None

    @property
    def plane_bytes(self) -> int:
        """Bytes of one plane; each begins a new byte."""
        return math.ceil(math.prod(self.shape) / 8)

    @property
    def bytes(self) -> int:
        """Of one example."""
        return self.planes * self.plane_bytes


def is_masked(node: Node) -> bool:
    """Whether the layer is an activation that a mask can stand for."""
    return isinstance(node.layer, L.Activation) and node.layer.activation in MASKED


def pool_size(node: Node) -> int:
    """Side of the window of a max-pool; 0 for any other layer."""
    if isinstance(node.layer, L.MaxPool):
        return node.layer.max_pool
    if isinstance(node.layer, L.Downsample) and node.layer.downsample == "max":
        return node.layer.factor
    return 0


def drop_rate(node: Node) -> float:
    """Of a dropout; 0 for any other layer."""
    return float(node.layer.dropout) if isinstance(node.layer, L.Dropout) else 0.0


def layout(components: Sequence[Component], pools: bool, drops: bool = False) -> Layout:
    """`component/layer` -> its place, for every layer of some components that has a support.

    Args:
        pools: max-pools are held too.
        drops: patterns of dropout are.
    """
    result: Layout = {}
    offset = 0
    for component in components:
        for node in leaves(component.nodes):
            planes = 1 if is_masked(node) else math.ceil(math.log2(pool_size(node) ** 2)) if pools and pool_size(node) > 1 else 0
            rate = drop_rate(node) if drops else 0.0
            if planes or rate:
                unit = Unit(node.output_shape, offset, planes or 1, rate or None)
                result[f"{component.name}/{node.name}"] = unit
                offset += unit.bytes
    return result


def row_bytes(units: Layout) -> int:
    """Of one example: the sum over all layers."""
    return sum(unit.bytes for unit in units.values())
