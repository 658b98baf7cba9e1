"""Structured sparsity: sums of norms of kernels, and of nested groups of their places."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from kerasgreedy.kernel_groups import Groups, group_places, levels
from kerasgreedy.nn.penalties import Kernels, Penalty, ratio

# Halvings of the interval in which the sum of norms after a squared penalty's proximal map lies.
HALVINGS = 60


class GroupNorms(Penalty):
    """weight * sum over filters j of s'_j = sum over groups n of norm(k_j(G_n)) (structured sparsity, eq. 13, 22).

    With `squared`: of one group a filter, weight * sum over layers of (sum_j s'_j)^2 (eq. 32); of nested ones, weight * sum over
    filters of s'_j^2 (eq. 33). A norm at 0 has the subgradient 0.

    Norms of a group k of g numbers: `l2` |k|; `normalized` |k| / sqrt(g) (eq. 25); `scaled` sqrt(g) |k| (eq. 29); `linf` the
    largest absolute value. (The equations print sums of |k_i| under the root; (26) holds for sums of squares.)
    """

    def __init__(self, settings: Any):
        super().__init__(settings)
        self._groups: Groups = getattr(settings, "groups", "kernel")
        self._norm, self._squared = settings.norm, settings.squared

    def value(self, kernels: Kernels) -> tf.Tensor:
        sums = [self.sums(kernel) for kernel in kernels.values()]
        if not self._squared:
            return self.settings.weight * tf.add_n([tf.reduce_sum(each) for each in sums])
        if self._groups == "kernel":
            return self.settings.weight * tf.add_n([tf.square(tf.reduce_sum(each)) for each in sums])
        return self.settings.weight * tf.add_n([tf.reduce_sum(tf.square(each)) for each in sums])

    def sums(self, kernel: tf.Tensor) -> tf.Tensor:
        """s' of each filter: (filters,)."""
        return tf.reduce_sum(self.norms(kernel), axis=0)

    def norms(self, kernel: tf.Tensor) -> tf.Tensor:
        """(groups, filters)."""
        flat, level = self._flat(kernel)
        if self._norm == "linf":
            rows = [tf.reduce_max(tf.abs(tf.boolean_mask(flat, level <= n)), axis=[0, 1]) for n in range(1, level.max() + 1)]
            return tf.stack(rows)
        squares = tf.cumsum(_by_level(flat, level), axis=0)
        return _root(squares) * self._factors(kernel, squares.dtype)

    def proximal(self, kernel: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        """One pass from the smallest group, the outermost, to the whole kernel (Jenatton et al. 2011); exact for nested groups.

        Of a square it is the map of 2 S * s' for the S = sum of s' after it, which halving finds.
        """
        step = tf.cast(rate, kernel.dtype) * self.settings.weight
        if not self._squared:
            return self._pass(kernel, step)
        total: Callable[[tf.Tensor], tf.Tensor] = tf.reduce_sum if self._groups == "kernel" else tf.identity

        def halve(low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            middle = (low + high) / 2
            short = total(self.sums(self._pass(kernel, 2 * step * middle))) < middle
            return tf.where(short, low, middle), tf.where(short, middle, high)

        most = total(self.sums(kernel))
        low, high = tf.while_loop(lambda *_: True, halve, (tf.zeros_like(most), most), maximum_iterations=HALVINGS)
        return self._pass(kernel, step * (low + high))

    def conjugate(self, kernel: tf.Tensor) -> tuple[float, float, float] | None:
        """0 while the largest dual norm of a filter is at most the weight."""
        if self._squared or self._groups != "kernel":
            return None
        flat, _ = self._flat(kernel)
        if self._norm == "linf":
            dual = tf.reduce_sum(tf.abs(flat), axis=[0, 1])
        else:
            dual = tf.sqrt(tf.reduce_sum(tf.square(flat), axis=[0, 1])) / self._factors(kernel, kernel.dtype)[0]
        return ratio(self.settings.weight, tf.reduce_max(dual)), 0.0, 0.0

    def _pass(self, kernel: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """The proximal map of step * s'; `step` is a scalar, or (filters,)."""
        flat, level = self._flat(kernel)
        if self._norm == "linf":
            for number in range(1, level.max() + 1):
                inside = (level <= number)[:, None, None]
                own = tf.where(inside, flat, tf.zeros_like(flat))
                shape = tf.shape(own)
                ball = _onto_l1_ball(tf.reshape(own, [-1, shape[-1]]), step)
                flat = tf.where(inside, own - tf.reshape(ball, shape), flat)
            return tf.reshape(flat, kernel.shape)
        own, factors = _by_level(flat, level), self._factors(kernel, kernel.dtype)
        inside, shrunk = tf.zeros_like(own[0]), []
        for number in range(level.max()):  # the norm of a group follows from what is left of the one inside it
            inside += own[number]
            norm = tf.sqrt(inside)
            left = tf.nn.relu(1 - tf.math.divide_no_nan(step * factors[number], norm))
            left = tf.where(norm > 0, left, tf.zeros_like(left))
            shrunk.append(left)
            inside *= tf.square(left)
        scale = tf.math.cumprod(tf.stack(shrunk), axis=0, reverse=True)  # a place is in every group from its first on
        return tf.reshape(flat * tf.gather(scale, level - 1)[:, None, :], kernel.shape)

    def _flat(self, kernel: tf.Tensor) -> tuple[tf.Tensor, np.ndarray]:
        """(places, channels, filters), and the first group that each place is in; of a head's filters behind gates, one place."""
        shape = kernel.shape
        if len(shape) != 4:
            inside = 1 if len(shape) == 1 else shape[0]
            return tf.reshape(kernel, [1, inside, -1]), np.ones(1, np.int64)
        level: np.ndarray = np.array(levels(shape[0], self._groups)).reshape(-1)
        return tf.reshape(kernel, [level.size, shape[2], shape[3]]), level

    def _factors(self, kernel: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
        """(groups, 1): of each group's l2 norm."""
        shape = kernel.shape
        inside = math.prod(shape[:-1]) if len(shape) != 3 else shape[0]
        places = group_places(shape[0], self._groups) if len(shape) == 4 else [1]
        sizes = np.array(places, float)[:, None] * inside / places[-1]
        power = {"l2": 0.0, "normalized": -0.5, "scaled": 0.5}[self._norm]
        return tf.constant(sizes**power, dtype)


@dataclass(frozen=True)
class Entering:
    """Where a layer stands.

    Attributes:
        places: height times width of the map that it gives.
        groups: that its input channels are split into.
        made_by: of each channel that enters, the filters (layer, index) whose sum it is; empty: it is counted as 1, as the
            images' channels are and those that nothing penalised makes.
    """

    places: int
    groups: int
    made_by: tuple[tuple[tuple[str, int], ...], ...]


class RelaxedCost(Penalty):
    """weight * sum over layers i and filters j of r_i c_i d'_{i-1} s'_ij^2 (structured sparsity, eq. 34).

    r_i c_i are the places of the map that layer i gives, d' the relaxed width of what enters: a channel counts as the l2 norm of
    the filters that make it. It couples layers and is not convex: there is a gradient, and no separable proximal map.

    Attributes:
        entering: of each kernel, before it is asked for a value.
    """

    def __init__(self, settings: Any):
        super().__init__(settings)
        self._size = GroupNorms(settings)
        self.entering: Mapping[str, Entering] = {}

    def value(self, kernels: Kernels) -> tf.Tensor:
        keys = list(kernels)
        starts = dict(zip(keys, np.cumsum([0, *(kernels[key].shape[-1] for key in keys)]), strict=False))
        squares = tf.concat([tf.reduce_sum(tf.square(k), axis=list(range(len(k.shape) - 1))) for k in kernels.values()], axis=0)
        total = []
        for key, kernel in kernels.items():
            where = self.entering[key]
            made = [(starts[layer] + i, channel) for channel, by in enumerate(where.made_by) for layer, i in by]
            width = tf.constant(float(sum(not by for by in where.made_by)), squares.dtype)
            if made:
                of, channel = (np.array(each) for each in zip(*made, strict=True))
                width += tf.reduce_sum(_root(tf.math.unsorted_segment_sum(tf.gather(squares, of), channel, len(where.made_by))))
            sizes = tf.reduce_sum(tf.square(self._size.sums(kernel)))
            total.append(where.places / where.groups * width * sizes)
        return self.settings.weight * tf.add_n(total)


def group_norms(kernel: np.ndarray, settings: Any) -> np.ndarray:
    """(groups, filters): the norms that a threshold is compared with, in float64."""
    norms: np.ndarray = GroupNorms(settings).norms(tf.constant(kernel, tf.float64)).numpy()
    return norms


def _by_level(flat: tf.Tensor, level: np.ndarray) -> tf.Tensor:
    """(groups, filters): sums of squares at the places whose first group it is."""
    return tf.math.unsorted_segment_sum(tf.reduce_sum(tf.square(flat), axis=1), tf.constant(level - 1), int(level.max()))


def _root(squares: tf.Tensor) -> tf.Tensor:
    """The square root, with the gradient 0 at 0."""
    some = squares > 0
    return tf.where(some, tf.sqrt(tf.where(some, squares, tf.ones_like(squares))), tf.zeros_like(squares))


def _onto_l1_ball(columns: tf.Tensor, radius: tf.Tensor) -> tf.Tensor:
    """The nearest point, column by column, whose absolute values sum up to the radius at most (Duchi et al. 2008)."""
    sizes = tf.abs(columns)
    falling = tf.sort(sizes, axis=0, direction="DESCENDING")
    count = tf.cast(tf.range(1, tf.shape(sizes)[0] + 1), sizes.dtype)[:, None]
    above = (tf.cumsum(falling, axis=0) - radius) / count
    last = tf.reduce_sum(tf.cast(falling > above, tf.int32), axis=0) - 1
    limit = tf.gather(tf.transpose(above), tf.maximum(last, 0), axis=1, batch_dims=1)
    inside = tf.reduce_sum(sizes, axis=0) <= radius
    return tf.where(inside, columns, tf.sign(columns) * tf.nn.relu(sizes - limit))
