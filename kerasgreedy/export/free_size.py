"""A network at images of other sizes than the one it was trained at."""

from typing import Any

import keras
import tensorflow as tf

from kerasgreedy.errors import InputError, ShapeError
from kerasgreedy.graph.architecture import Component, architecture
from kerasgreedy.graph.kinds import kind_of
from kerasgreedy.graph.tree import Node, fold, leaves
from kerasgreedy.network.build import Network
from kerasgreedy.spec import layers as L
from kerasgreedy.spec.model import ModelSpec

MOST_PIXELS = 2**22


class FreeSize:
    """What layers do whose work is fixed to one size when they are built; an `Instead` of `Network.run`.

    Convolutions, pools, batch norm and means over all places take any size. `pool_to` takes the same windows as at the trained
    size, in proportion; invertible downsampling takes sizes that it divides. A layer over a flattened map takes one size only.

    Args:
        spec: of the network, with `input_shape` and `classes`.
        network: the network.

    Raises:
        InputError: a layer is in the way; says which.
    """

    def __init__(self, spec: ModelSpec, network: Network):
        self._network = network
        arch = network.architecture
        last = max(network.facts.depths)
        used = [*arch.blocks[:last], *(arch.heads[depth - 1] for depth in network.facts.depths)]
        self._nodes: dict[str, Node] = {}
        for component in used:
            _refuse_fixed(component)
            self._nodes |= {f"{component.name}/{node.name}": node for node in leaves(component.nodes)}
        self.smallest = _smallest_side(spec, arch.input_shape)

    def __call__(self, name: str, layer: keras.layers.Layer, x: Any) -> Any:
        """The output of a layer that needs another way, None for all others."""
        kind = self._nodes[name].layer
        if isinstance(kind, L.PoolTo):
            rows, columns, _ = self._nodes[name].output_shape
            return adaptive_mean(x, rows, columns)
        if isinstance(kind, L.Downsample) and kind.downsample == "invertible":
            return tf.nn.space_to_depth(x, kind.factor)
        if isinstance(kind, L.Upsample):
            return tf.nn.depth_to_space(x, kind.factor)
        return None

    def checks(self, images: tf.Tensor) -> list[tf.Operation]:
        """Asserts that images (n, height, width, channels) have a size that the network can take."""
        sides = tf.shape(images)[1:3]
        return [
            tf.debugging.assert_greater_equal(
                sides, self.smallest, f"images must have at least {self.smallest} rows and columns"
            ),
            tf.debugging.assert_less_equal(
                tf.reduce_prod(tf.cast(sides, tf.int64)),
                tf.constant(MOST_PIXELS, tf.int64),
                f"images must have at most {MOST_PIXELS} pixels",
            ),
        ]


def adaptive_mean(x: tf.Tensor, rows: int, columns: int) -> tf.Tensor:
    """Means over rows x columns windows that cover a map of any size; they overlap where its sides are not multiples.

    Window i of n along a side of s reaches from floor(i s / n) to ceil((i + 1) s / n).

    Args:
        x: (n, height, width, channels).

    Returns:
        (n, rows, columns, channels).
    """

    def window(side: tf.Tensor, parts: int, index: int) -> tuple[tf.Tensor, tf.Tensor]:
        return index * side // parts, -(-(index + 1) * side // parts)

    height, width = tf.shape(x)[1], tf.shape(x)[2]
    strips = []
    for row in range(rows):
        top, below = window(height, rows, row)
        cells = []
        for column in range(columns):
            left, right = window(width, columns, column)
            cells.append(tf.reduce_mean(x[:, top:below, left:right], [1, 2]))
        strips.append(tf.stack(cells, 1))
    result = tf.stack(strips, 1)
    return tf.ensure_shape(result, (None, rows, columns, x.shape[-1]))


def _refuse_fixed(component: Component) -> None:
    """A dense layer over a map that was flattened has a weight for each place, and so on."""
    fixed = _first_fixed(component.nodes)
    if fixed is not None:
        raise InputError(
            f"--free-size: layer {fixed.name} of {component.name} keeps something for each place of a map of "
            f"{'x'.join(map(str, fixed.input_shape))}, which has one size; a head with pool_to, global_avg_pool, class_maps or "
            "gated_conv takes any. Export without it"
        )


def _first_fixed(nodes: tuple[Node, ...]) -> Node | None:
    """The first layer that takes one size only of a map whose size follows that of the image."""
    found: list[Node] = []

    def leaf(node: Node, sized: bool) -> bool:  # whether the map has one size for images of any size
        if kind_of(node.layer).one_size(node.layer) and not sized and len(node.input_shape) == 3:
            found.append(node)
        return sized or isinstance(node.layer, L.PoolTo)

    fold(nodes, False, leaf, lambda node, parts: all(parts))
    return found[0] if found else None


def _smallest_side(spec: ModelSpec, shape: tuple[int, ...]) -> int:
    """The smallest square image whose maps all keep a place, and windows of `pool_to` one each."""
    for side in range(1, min(shape[:2])):
        try:
            architecture(spec, (side, side, shape[2]))
        except ShapeError:
            continue
        return side
    return min(shape[:2])
