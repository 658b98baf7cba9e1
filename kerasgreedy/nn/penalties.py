"""Penalties on kernels: their value, a subgradient, and where there is one the proximal map."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, TypeAlias

import tensorflow as tf

# `component/layer` -> kernel, float32, output channels last.
Kernels: TypeAlias = Mapping[str, tf.Tensor]


class Penalty(ABC):
    """A function of some kernels that is added to the loss.

    Args:
        settings: what the document says of it; `weight` is in everything that is given here.
    """

    curvature: float | None = None  # bound of the second derivative, of a penalty that is smooth

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


class SquaredNorm(Penalty):
    """weight / 2 * sum of squares."""

    def __init__(self, settings: Any):
        super().__init__(settings)
        self.curvature = settings.weight

    def value(self, kernels: Kernels) -> tf.Tensor:
        return self.settings.weight / 2 * tf.add_n([tf.reduce_sum(tf.square(kernel)) for kernel in kernels.values()])


class AbsoluteSum(Penalty):
    """weight * sum of absolute values; at 0 the subgradient is 0."""

    def value(self, kernels: Kernels) -> tf.Tensor:
        return self.settings.weight * tf.add_n([tf.reduce_sum(tf.abs(kernel)) for kernel in kernels.values()])

    def proximal(self, kernel: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        """Soft threshold: sign(w) * max(|w| - rate * weight, 0)."""
        left = tf.abs(kernel) - rate * self.settings.weight
        return tf.where(left > 0, tf.sign(kernel) * left, tf.zeros_like(kernel))


class FilterNorms(Penalty):
    """weight * sum over filters of |kernel[..., filter]|_2; at 0 the subgradient is 0."""

    def value(self, kernels: Kernels) -> tf.Tensor:
        norms = [_norms(kernel) for kernel in kernels.values()]
        return self.settings.weight * tf.add_n([tf.reduce_sum(norm) for norm in norms])

    def gradients(self, kernels: Kernels) -> dict[str, tf.Tensor]:
        """weight * w / |w|."""
        return {key: self.settings.weight * tf.math.divide_no_nan(kernel, _norms(kernel)) for key, kernel in kernels.items()}

    def proximal(self, kernel: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        """w * max(1 - rate * weight / |w|, 0)."""
        left = 1 - tf.math.divide_no_nan(rate * self.settings.weight, _norms(kernel))
        return tf.where((left > 0) & (_norms(kernel) > 0), kernel * left, tf.zeros_like(kernel))


def _norms(kernel: tf.Tensor) -> tf.Tensor:
    """(1, ..., filters)."""
    return tf.sqrt(tf.reduce_sum(tf.square(kernel), axis=list(range(len(kernel.shape) - 1)), keepdims=True))
