"""Walks over all training images, and what they tell of a convex problem's curvature."""

import functools
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from kerasgreedy.errors import Diverged
from kerasgreedy.graph.tree import leaves
from kerasgreedy.runs.devices import Devices
from kerasgreedy.solvers.convex_terms import Array, Point
from kerasgreedy.solvers.metric import Metric, pack, part_of, unpack
from kerasgreedy.solvers.solver import Task, Work
from kerasgreedy.solvers.step import phase_logits

# The power iteration comes to a curvature from below; the more slowly, the more of the same size there are.
MARGIN, MARGIN_OF_REST = 1.02, 1.1
# Of float32 products.
ROUNDING = 1e-6
# Products that turn random directions into those of largest curvature.
TURNS = 3
# More directions than are asked for make those that are asked for better (Halko, Martinsson and Tropp 2011, section 4.2).
SPARE = 10


class Passes:
    """All of the training part, the same each time.

    Attributes:
        heads: component that trains -> head with the loss that it is for.

    Args:
        variables: `component/layer/name` -> trained variable.
    """

    def __init__(self, task: Task, variables: Mapping[str, Any]):
        self._task, self._variables = task, variables
        self._devices = Devices.of(task.strategy)
        self._size, self.images = task.phase.training.batch_size, len(task.source)
        self.heads = dict(zip(task.phase.trains, task.phase.losses, strict=True))

    @functools.cached_property
    def _in_order(self) -> tf.data.Dataset:
        """Traced once."""
        return self._task.source.view(None, self._devices.workers)

    def batches(self, first: int = 0) -> Any:
        """(rows, x, labels), from a batch on; fillers have row -1."""
        return self._devices.batches(self._in_order.skip(first) if first else self._in_order)

    def reduced(self, replica: Callable[..., Any]) -> Callable[..., Any]:
        """Of a batch: what a function of it gives, summed over the devices."""

        def of_all(*batch: Any) -> Any:
            found = self._devices.strategy.run(replica, args=batch)
            sum_of = functools.partial(self._devices.strategy.reduce, tf.distribute.ReduceOp.SUM, axis=None)
            return tf.nest.map_structure(sum_of, found)

        return tf.function(of_all, autograph=False)

    def mean(
        self, function: Callable[..., Sequence[tf.Tensor]], what: str, number: int, of: int
    ) -> Generator[Work, None, list[Array]]:
        """The mean over all images of what a function gives as a sum over those of a batch, added up in float64.

        Args:
            what, number, of: for those who watch: pass `number` of so many.
        """
        total: list[Array] = []
        for index, batch in enumerate(self.batches(), start=1):
            found = function(*batch)
            total = total or [np.zeros(value.shape) for value in found]
            for whole, value in zip(total, found, strict=True):
                whole += value.numpy()
            yield what, min((number - 1) * self.images + index * self._size, number * self.images), of * self.images
        return [value / self.images for value in total]

    def curvature(self, directions: int, iterations: int) -> Generator[Work, None, dict[str, Metric]]:
        """Head -> a bound of the mean of features times features, J^T J for outputs J v of weights v.

        Args:
            directions: of largest curvature, in each head; no more than a class has weights.
            iterations: passes that measure what is left beside them.
        """
        present = self.point()
        shapes = {name: part_of(present, name) for name in self.heads}
        sides = {name: pack(point).shape for name, point in shapes.items()}
        random = np.random.default_rng(0)
        found = {name: (np.zeros((side[0], 0), np.float32), np.zeros(0)) for name, side in sides.items()}
        if directions:
            found = yield from self._directions(directions, {name: side[0] for name, side in sides.items()}, random)
        largest: dict[str, float] = {}
        vectors = {name: random.normal(size=side) for name, side in sides.items()}
        squares = self.reduced(self._square)
        for number in range(1, iterations + 1):
            vectors = {name: vector / _lengths(vector) for name, vector in vectors.items()}
            self.assign({key: v for name in vectors for key, v in unpack(vectors[name], shapes[name]).items()})
            products = yield from self.mean(squares, "measuring the curvature", number, iterations)
            means = dict(zip(self._variables, products, strict=True))
            for name, vector in vectors.items():
                u, w = found[name]
                product = pack({key: means[key] for key in shapes[name]})
                vectors[name] = product - u @ (w[:, None] * (u.T @ vector)) if len(w) else product
                largest[name] = float(np.max(np.linalg.norm(vectors[name], axis=0)))
        _check_finite(largest)
        margin = MARGIN_OF_REST if directions else MARGIN
        # Where all that is left is rounding, no less than that.
        floors = {name: ROUNDING * float(w[0]) if len(w) else 0.0 for name, (_, w) in found.items()}
        return {name: Metric(*found[name], max(margin * value, floors[name])) for name, value in largest.items()}

    def _directions(
        self, count: int, sides: Mapping[str, int], random: np.random.Generator
    ) -> Generator[Work, None, dict[str, tuple[NDArray[np.float32], Array]]]:
        """Head -> (directions, their curvatures), by subspace iteration with a Rayleigh-Ritz step at its end."""
        wanted = {name: min(count, side) for name, side in sides.items()}
        blocks = {name: random.normal(size=(side, min(count + SPARE, side))) for name, side in sides.items()}
        for number in range(1, TURNS + 1):
            bases = {name: np.linalg.qr(block.astype(np.float32))[0] for name, block in blocks.items()}
            fixed = [tf.constant(bases[name]) for name in self.heads]
            product = self.reduced(functools.partial(self._product, fixed))
            products = yield from self.mean(product, "looking for directions of large curvature", number, TURNS)
            blocks = dict(zip(self.heads, products, strict=True))
            _check_finite({name: float(np.abs(block).max()) for name, block in blocks.items()})
        found = {}
        for name, basis in bases.items():
            small = basis.T.astype(float) @ blocks[name]
            values, turned = np.linalg.eigh((small + small.T) / 2)
            first = np.argsort(values)[::-1][: wanted[name]]
            found[name] = (basis @ turned[:, first].astype(np.float32), np.maximum(values[first], 0.0))
        return found

    def assign(self, point: Mapping[str, Array]) -> None:
        """Sets trained variables."""
        for key, value in point.items():
            self._variables[key].assign(value.astype(np.float32))

    def point(self) -> Point:
        """Their values."""
        return {key: variable.numpy().astype(np.float64) for key, variable in self._variables.items()}

    def _square(self, rows: tf.Tensor, x: tf.Tensor, labels: tf.Tensor) -> list[tf.Tensor]:
        """J^T J v for weights v, summed over the images: outputs are linear in v."""
        weights = tf.cast(rows >= 0, tf.float32)[:, None]
        values = [variable.value for variable in self._variables.values()]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            outputs = phase_logits(self._task.network, self._task.phase, x, self._task.source.start, training=False)
            total = tf.add_n([tf.reduce_sum(weights * tf.square(z)) / 2 for z in outputs.values()])
        return tape.gradient(total, values, unconnected_gradients="zero")

    def _product(self, bases: list[tf.Tensor], rows: tf.Tensor, x: tf.Tensor, labels: tf.Tensor) -> list[tf.Tensor]:
        """S^T S Q of each head, S its features (b, weights of a class) and Q a basis, summed over the images."""
        last = {
            f"{name}/{list(leaves(self._task.network.architecture.components[name].nodes))[-1].name}": name for name in self.heads
        }
        features: dict[str, tf.Tensor] = {}

        def note(key: str, layer: Any, given: tf.Tensor) -> None:
            if key in last:
                flat = tf.cast(tf.reshape(given, [tf.shape(given)[0], -1]), tf.float32)
                features[last[key]] = flat if layer.bias is None else tf.concat([flat, tf.ones_like(flat[:, :1])], axis=1)

        phase_logits(self._task.network, self._task.phase, x, self._task.source.start, instead=note, training=False)
        real = tf.cast(rows >= 0, tf.float32)[:, None]
        masked = {name: features[name] * real for name in self.heads}
        products = zip(masked.values(), bases, strict=True)
        return [tf.matmul(s, tf.matmul(s, basis), transpose_a=True) for s, basis in products]


def _check_finite(largest: Mapping[str, float]) -> None:
    for name, value in largest.items():
        if not math.isfinite(value):
            raise Diverged(
                f"training.solver: the features that {name} is linear in are not finite; the blocks before it overflow"
            )


def _lengths(matrix: Array) -> Array:
    """Of columns; 1 for a column of zeros."""
    lengths = np.linalg.norm(matrix, axis=0)
    return np.where(lengths > 0, lengths, 1.0)
