"""A bound from above of a head's curvature, and the proximal step in it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from kerasgreedy.solvers.convex_terms import Array, Point, Terms

# Inside a step: so many times shorter than its first one the last one is, and so many there are at most.
SHARE, MOST = 0.03, 400

# What a proximal map makes of all weights of a head, (weights of a class, classes), at a rate.
Proximal: TypeAlias = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


@dataclass(frozen=True)
class Metric:
    """M = U diag(values) U^T + rest I on the weights of each class alike, at least as large as the curvature H of the loss.

    Outputs are linear in a head's weights, class by class with the same features, so H is a curvature of the objective times
    the mean of features times features, for each class. |H - U diag(values) U^T| is at most `rest`.

    Args:
        directions: U (weights of a class, r), float32, orthonormal columns; r may be 0.
        values: (r,), falling.
        exact: the loss has curvature H everywhere; else that is a bound.
    """

    directions: NDArray[np.float32]
    values: Array
    rest: float
    exact: bool = True

    @property
    def largest(self) -> float:
        """No curvature is larger."""
        return self.rest + (float(self.values[0]) if len(self.values) else 0.0)

    def scaled(self, factor: float, exact: bool) -> "Metric":
        """That times a factor."""
        return Metric(self.directions, factor * self.values, factor * self.rest, exact)

    def off(self, moved: Array) -> float:
        """|(M - H') d| at most, for a mean H' of the loss's curvatures on a way d (weights of a class, classes).

        M - H = rest I - (H - U diag(values) U^T) is at most 2 rest. Of what is between 0 and M, all of M may be left.
        """
        if self.exact or not len(self.values):
            return 2 * self.rest * float(np.linalg.norm(moved))
        return math.sqrt(self.largest * max(float(np.sum(moved * self.times(moved, 0.0))), 0.0))

    def times(self, matrix: Array, more: float) -> Array:
        """(M + more I) times (weights of a class, classes)."""
        result = (self.rest + more) * matrix
        if len(self.values):
            along = self.values[:, None] * (self.directions.T @ matrix.astype(np.float32)).astype(float)
            result += self.directions @ along.astype(np.float32)
        return result


def part_of(point: Point, component: str) -> Point:
    """The variables of one head."""
    return {key: value for key, value in point.items() if key.startswith(f"{component}/")}


def pack(point: Point) -> Array:
    """All weights of a head as (weights of a class, classes): the last axis of each variable counts classes."""
    return np.concatenate([value.reshape(-1, value.shape[-1]) for value in point.values()])


def unpack(matrix: Array, like: Point) -> Point:
    """The other way round."""
    ends = np.cumsum([value.size // value.shape[-1] for value in like.values()])[:-1]
    parts = zip(like.items(), np.split(matrix, ends), strict=True)
    return {key: part.reshape(value.shape) for (key, value), part in parts}


class Steps:
    """Proximal steps of one head: argmin over x of <g, x - y> + (x - y)^T M (x - y) / 2 + what is not smooth.

    Without directions that is one proximal map. With them it is a small problem that needs no image, solved by accelerated
    proximal gradient steps to `SHARE` of its first step (on such metrics, diagonal plus low rank: Becker, Fadili and Ochs 2019).
    """

    def __init__(self, metric: Metric, terms: Terms):
        self.metric, self._terms = metric, terms
        self._u = tf.constant(metric.directions)
        self._w = tf.constant(metric.values[:, None], tf.float32)
        self._inner: tuple[float, Callable[..., tuple[tf.Tensor, tf.Tensor]]] | None = None

    def take(self, y: Point, gradient: Point) -> tuple[Point, float]:
        """x, rounded to float32, and a bound of the norm of a subgradient of the whole objective there.

        Args:
            gradient: of all that is smooth, at y.
        """
        if len(self.metric.values):
            found, left = self._solver(y)(*(tf.constant(pack(point)) for point in (y, gradient)))
            x, error = unpack(found.numpy(), y), float(left)
        else:
            length = self.metric.rest + self._terms.curvature
            x = {key: self._terms.proximal(key, value - gradient[key] / length, 1 / length) for key, value in y.items()}
            error = 0.0
        x = {key: value.astype(np.float32).astype(float) for key, value in x.items()}
        # With s from what is not smooth, g + (M + c) (x - y) + s is at most `error` at x, c the curvature of all smooth
        # penalties; grad(x) = g + (H' + c_k) (x - y), c_k of those on each variable: grad(x) + s is at most what they differ by.
        moved = {key: x[key] - y[key] for key in y}
        slack = [(self._terms.curvature - self._terms.curvature_of(key)) * np.linalg.norm(step) for key, step in moved.items()]
        return x, self.metric.off(pack(moved)) + math.hypot(*slack) + error

    def times(self, point: Point) -> Point:
        """M times weights."""
        return unpack(self.metric.times(pack(point), self._terms.curvature), point)

    def _solver(self, like: Point) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
        """Traced anew where the factor of the penalties is another."""
        if self._inner is None or self._inner[0] != self._terms.factor:
            self._inner = self._terms.factor, tf.function(self._accelerated(self._proximal(like)), autograph=False)
        return self._inner[1]

    def _proximal(self, like: Point) -> Proximal:
        shapes = {key: value.shape for key, value in like.items()}
        rows = [math.prod(shape[:-1]) for shape in shapes.values()]

        def proximal(matrix: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
            parts = zip(shapes.items(), tf.split(matrix, rows), strict=True)
            mapped = [(self._terms.mapped(key, tf.reshape(part, shape), rate), shape) for (key, shape), part in parts]
            return tf.concat([tf.reshape(part, [-1, shape[-1]]) for part, shape in mapped], axis=0)

        return proximal

    def _accelerated(self, proximal: Proximal) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
        # Iterates are float64: a step of 1 / largest of a float32 would be lost where there is little curvature.
        rest = tf.constant(self.metric.rest + self._terms.curvature, tf.float64)
        largest = tf.constant(self.metric.largest + self._terms.curvature, tf.float64)
        one = tf.constant(1.0, tf.float64)

        def solve(y: tf.Tensor, gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            def body(number: Any, x: Any, z: Any, t: Any, first: Any, last: Any) -> tuple[Any, ...]:
                moved = z - y
                along = self._w * tf.matmul(self._u, tf.cast(moved, tf.float32), transpose_a=True)
                slope = gradient + rest * moved + tf.cast(tf.matmul(self._u, along), tf.float64)
                new = proximal(z - slope / largest, 1 / largest)
                last = largest * tf.norm(z - new)
                again = tf.reduce_sum((z - new) * (new - x)) > 0
                larger = tf.where(again, one, (1 + tf.sqrt(1 + 4 * t * t)) / 2)
                ahead = tf.where(again, 0 * one, (t - 1) / larger)
                return number + 1, new, new + ahead * (new - x), larger, tf.where(number > 0, first, last), last

            def goes_on(number: Any, x: Any, z: Any, t: Any, first: Any, last: Any) -> tf.Tensor:
                return (number == 0) | ((number < MOST) & (last > SHARE * first))

            start = (tf.constant(0), y, y, one, 0 * one, 0 * one)
            _, x, _, _, _, last = tf.while_loop(goes_on, body, start)
            return x, 2 * last

        return solve
