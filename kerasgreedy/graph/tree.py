"""A component as a tree of primitive layers, and the one way through it. Imports no TensorFlow."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

from kerasgreedy.spec.strict import Strict

Shape: TypeAlias = tuple[int, ...]
Path_: TypeAlias = tuple[str | int, ...]
T = TypeVar("T")


class PadShortcut(Strict):
    """Shortcut without weights: every n-th place, new channels are zero (He et al. 2016, option A)."""

    stride: int
    channels: int


class Pad(Strict):
    """Rows and columns more before and after a map: zeros, or the lowest number, which no maximum takes."""

    before: int
    after: int
    value: Literal["zero", "lowest"]


class Crop(Strict):
    """Rows and columns less before and after a map."""

    before: int
    after: int


@dataclass(frozen=True)
class Node:
    """A primitive layer at its place.

    Attributes:
        layer: what it is; options that defaults decide are filled in.
        name: unique in its component.
        input_shape, output_shape: without the batch axis: (height, width, channels), (units,), or of sums of gated patches
            (patch, gates).
        parameters: trained weights, children included; moving statistics do not count.
        multiply_adds: of one image, children included.
        children: body and shortcut of a residual, or the branches.
        path: of a layer that was written down: the keys that lead to it inside the model spec.
    """

    layer: Strict
    name: str
    input_shape: Shape
    output_shape: Shape
    parameters: int = 0
    multiply_adds: int = 0
    children: tuple[tuple["Node", ...], ...] = ()
    path: Path_ = ()


def fold(nodes: Sequence[Node], x: T, leaf: Callable[[Node, T], T], join: Callable[[Node, list[T]], T]) -> T:
    """Carries a value through layers that run one after the other.

    Args:
        x: what enters the first.
        leaf: what a layer without children makes of what enters it.
        join: what a layer makes of what its children give, each of which was given what enters the layer.
    """
    for node in nodes:
        x = join(node, [fold(child, x, leaf, join) for child in node.children]) if node.children else leaf(node, x)
    return x


def walk(nodes: Sequence[Node]) -> Iterator[Node]:
    """All layers, those with children before them."""
    for node in nodes:
        yield node
        for child in node.children:
            yield from walk(child)


def sequences(nodes: Sequence[Node]) -> Iterator[Sequence[Node]]:
    """All runs of layers that follow each other: the whole, and those of children."""
    yield nodes
    for node in walk(nodes):
        yield from node.children


def leaves(nodes: Sequence[Node]) -> Iterator[Node]:
    """The layers themselves, those inside residuals and branches included."""
    return (node for node in walk(nodes) if not node.children)


def show(shape: Shape) -> str:
    """(32, 32, 3) as 32x32x3."""
    return "x".join(map(str, shape))
