"""Penalties on kernels: their value, a subgradient, and where there is one the proximal map."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, TypeAlias

import tensorflow as tf

# `component/layer` -> kernel, float32: (height, width, channels, filters), (inputs, units), or (patch, gates, classes) of a
# class-separable head, which has a filter for each gate and class.
Kernels: TypeAlias = Mapping[str, tf.Tensor]


class Penalty(ABC):
    """A function of some kernels that is added to the loss.

    Args:
        settings: what the document says of it; `weight` is in everything that is given here.
    """

    is_constraint = False  # it is 0 in a set, and infinite elsewhere
    every = 1  # the proximal map is taken after so many steps
    curvature: float | None = None  # bound of the second derivative, of a penalty that is smooth
    scale = 1.0  # of a constraint: the set is so many times as large, as a regularisation path asks for

    def __init__(self, settings: Any):
        self.settings = settings

    @abstractmethod
    def value(self, kernels: Kernels) -> tf.Tensor:
        """Scalar float32."""

    def gradients(self, kernels: Kernels) -> dict[str, tf.Tensor]:
        """A subgradient in each kernel: by default what differentiating the value gives."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(list(kernels.values()))
            value = self.value(kernels)
        return dict(zip(kernels, tape.gradient(value, list(kernels.values()), unconnected_gradients="zero"), strict=True))

    @property
    def is_proximal(self) -> bool:
        """Whether it acts by its proximal map after each step, and not by its subgradient."""
        return getattr(self.settings, "form", "subgradient") == "proximal"

    def proximal(self, kernel: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        """argmin over u of |u - kernel|^2 / 2 + rate * value(u), for a penalty that is a sum over kernels."""
        raise NotImplementedError(f"{type(self).__name__} has no proximal map")

    def conjugate(self, kernel: tf.Tensor) -> tuple[float, float, float] | None:
        """The convex conjugate at t times a kernel: (m, c, a): a t + c t^2 / 2 for 0 <= t <= m, infinite beyond.

        None: not known. Duality gaps are made of it.
        """
        return None


class SquaredNorm(Penalty):
    """weight / 2 * sum of squares."""

    def __init__(self, settings: Any):
        super().__init__(settings)
        self.curvature = settings.weight

    def value(self, kernels: Kernels) -> tf.Tensor:
        return self.settings.weight / 2 * tf.add_n([tf.reduce_sum(tf.square(kernel)) for kernel in kernels.values()])

    def conjugate(self, kernel: tf.Tensor) -> tuple[float, float, float]:
        """|kernel|^2 / (2 weight)."""
        return math.inf, float(tf.reduce_sum(tf.square(kernel))) / self.settings.weight, 0.0


class AbsoluteSum(Penalty):
    """weight * sum of absolute values; at 0 the subgradient is 0."""

    def value(self, kernels: Kernels) -> tf.Tensor:
        return self.settings.weight * tf.add_n([tf.reduce_sum(tf.abs(kernel)) for kernel in kernels.values()])

    def proximal(self, kernel: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        """Soft threshold: sign(w) * max(|w| - rate * weight, 0)."""
        left = tf.abs(kernel) - rate * self.settings.weight
        return tf.where(left > 0, tf.sign(kernel) * left, tf.zeros_like(kernel))

    def conjugate(self, kernel: tf.Tensor) -> tuple[float, float, float]:
        """0 while the largest entry is at most the weight."""
        return ratio(self.settings.weight, tf.reduce_max(tf.abs(kernel))), 0.0, 0.0


class SidePenalty(Penalty):
    """weight * mean over images and patches of max(0, -(2 D - 1) X v), summed over filters; D = 1[X g >= 0]."""

    def value(self, kernels: Kernels) -> tf.Tensor:
        """Of no kernel alone: see `of_patches`."""
        raise NotImplementedError("gate_hinge is of batches")

    def of_patches(self, patches: tf.Tensor, gates: tf.Tensor, filters: tf.Tensor) -> tf.Tensor:
        """The sum over images.

        Args:
            patches: (b, K, h).
            gates: (h, P).
            filters: (h, P, n), n of them behind each gate.
        """
        count, length = patches.shape[1:]
        flat = tf.reshape(patches, [-1, length])
        sides = 2 * tf.cast(tf.matmul(flat, gates) >= 0, flat.dtype) - 1
        given = tf.reshape(tf.matmul(flat, tf.reshape(filters, [length, -1])), [-1, *filters.shape[1:]])
        broken = tf.nn.relu(-sides[:, :, None] * given)
        return self.settings.weight * tf.reduce_sum(tf.cast(broken, tf.float32)) / count


class InNuclearBall(Penalty):
    """0 where singular values sum up to `radius` at most, infinite elsewhere; its proximal map projects."""

    is_constraint = True

    def __init__(self, settings: Any):
        super().__init__(settings)
        self.every = settings.every

    def value(self, kernels: Kernels) -> tf.Tensor:
        """0: what is projected is inside."""
        return tf.zeros([])

    def proximal(self, kernel: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        """The nearest matrix of the ball, whatever the rate.

        With M = U S V^T it is U P(S) V^T, P the projection of the singular values onto the l1 ball (Duchi et al. 2008). U and S^2
        are taken from the smaller of M M^T and M^T M, in float64. What is inside by its Frobenius norm, of which the sum of n
        singular values is sqrt(n) times as much at most, is not decomposed.
        """
        matrix, radius = tf.cast(as_matrix(kernel), tf.float64), self.scale * self.settings.radius
        at_most = math.sqrt(min(matrix.shape)) * tf.norm(matrix)
        return tf.cond(at_most <= radius, lambda: kernel, lambda: self._decomposed(kernel, matrix, radius))

    def _decomposed(self, kernel: tf.Tensor, matrix: tf.Tensor, radius: float) -> tf.Tensor:
        wide = matrix.shape[0] <= matrix.shape[1]
        small = tf.matmul(matrix, matrix, transpose_a=not wide, transpose_b=wide)
        squares, vectors = tf.linalg.eigh(small)
        sizes = tf.sqrt(tf.nn.relu(squares))

        def nearest() -> tf.Tensor:
            scale = tf.math.divide_no_nan(_onto_simplex(sizes, radius), sizes)
            turned = tf.matmul(vectors * scale, vectors, transpose_b=True)
            found = tf.matmul(turned, matrix) if wide else tf.matmul(matrix, turned)
            return _from_matrix(tf.cast(found, kernel.dtype), kernel)

        return tf.cond(tf.reduce_sum(sizes) <= radius, lambda: kernel, nearest)

    def conjugate(self, kernel: tf.Tensor) -> tuple[float, float, float]:
        """radius times the largest singular value."""
        largest = tf.linalg.svd(tf.cast(as_matrix(kernel), tf.float64), compute_uv=False)[0]
        return math.inf, 0.0, self.scale * self.settings.radius * float(largest)


def as_matrix(kernel: Any) -> Any:
    """(inputs, filters); of (places, features, classes): (features, places * classes), left singular vectors are filters."""
    if len(kernel.shape) == 3:
        return tf.reshape(tf.transpose(kernel, [1, 0, 2]), [kernel.shape[1], -1])
    return tf.reshape(kernel, [-1, kernel.shape[-1]])


def _from_matrix(matrix: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    if len(kernel.shape) == 3:
        places, features, classes = kernel.shape
        return tf.transpose(tf.reshape(matrix, [features, places, classes]), [1, 0, 2])
    return tf.reshape(matrix, kernel.shape)


def _onto_simplex(sizes: tf.Tensor, radius: float) -> tf.Tensor:
    """max(s - t, 0) with the t >= 0 for which they sum up to the radius; s itself where the sum is smaller."""
    falling = tf.sort(sizes, direction="DESCENDING")
    above = tf.cumsum(falling) - radius
    count = tf.cast(tf.range(1, sizes.shape[0] + 1), sizes.dtype)
    last = tf.reduce_sum(tf.cast(falling * count > above, tf.int32)) - 1
    threshold = tf.nn.relu(above[last] / count[last])
    return tf.nn.relu(sizes - threshold)


def ratio(weight: float, largest: tf.Tensor) -> float:
    """By how much a dual norm may grow until it is the weight."""
    return weight / float(largest) if float(largest) else math.inf
