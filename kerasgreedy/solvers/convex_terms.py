"""The penalties of a convex problem as a full-batch solver needs them: slopes, proximal maps, values, conjugates."""

import math
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from kerasgreedy.errors import InputError
from kerasgreedy.nn.penalties import Penalty
from kerasgreedy.solvers.solver import Task
from kerasgreedy.solvers.updates import Setting, penalties_of

Array: TypeAlias = NDArray[np.float64]
Point: TypeAlias = dict[str, Array]


class Terms:
    """What is minimised beside the loss, as a function of variables by name (`component/layer/kernel`).

    Attributes:
        factor: of all of it, and of the size of sets that variables stay in; a regularisation path changes it.
    """

    def __init__(self, task: Task, variables: Iterable[str], factor: float):
        self._decay = task.phase.training.optimizer.coupled_decay
        self._variables = list(variables)
        self._penalties: list[tuple[Penalty, dict[str, str]]] = []
        for penalty, kernels in penalties_of(Setting(task.network, task.phase, task.optimizer, task.strategy)):
            if not penalty.is_proximal and penalty.curvature is None:
                name = penalty.settings.name
                raise InputError(f"training.regularizers: {name} has neither a proximal map nor a curvature for fista")
            self._penalties.append((penalty, {key: f"{key}/kernel" for key in kernels}))
        self.factor = factor

    @property
    def factor(self) -> float:
        return self._factor

    @factor.setter
    def factor(self, value: float) -> None:
        self._factor = value
        for penalty, _ in self._penalties:
            penalty.scale = value

    def of(self, key: str) -> list[Penalty]:
        """The penalties of a variable."""
        return [penalty for penalty, kernels in self._penalties if key in kernels.values()]

    @property
    def curvature(self) -> float:
        """Of the smooth part, at most."""
        return self.factor * (self._decay + sum(penalty.curvature or 0.0 for penalty, _ in self._penalties))

    def curvature_of(self, key: str) -> float:
        """Of the smooth part in one variable."""
        return self.factor * (self._decay + sum(penalty.curvature or 0.0 for penalty in self.of(key)))

    def slope(self, key: str, value: Array) -> Array:
        """Gradient of the smooth part in one variable."""
        return self.curvature_of(key) * value

    def proximal(self, key: str, value: Array, rate: float) -> Array:
        """The proximal map of the rest in one variable."""
        return self.mapped(key, tf.constant(value), tf.constant(rate, tf.float64)).numpy()

    def mapped(self, key: str, value: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        """`proximal` in TensorFlow; a graph has the factor of when it was traced."""
        for penalty in self.of(key):
            if penalty.is_proximal:
                value = penalty.proximal(value, self.factor * rate)
        return value

    def inside(self, key: str, value: Array) -> Array:
        """The nearest point of the sets that a variable has to stay in."""
        for penalty in self.of(key):
            if penalty.is_constraint:
                value = penalty.proximal(tf.constant(value), tf.constant(0.0, tf.float64)).numpy()
        return value

    def decay(self, point: Mapping[str, Array]) -> float:
        """Weight decay's part of the objective."""
        return self.factor * self._decay / 2 * sum(float(np.sum(np.square(value))) for value in point.values())

    def value(self, point: Mapping[str, Array], factor: float | None = None) -> float | None:
        """The sum of the penalties times the factor of now, or another; weight decay apart. None: there are none."""
        values = [
            float(penalty.value({key: tf.constant(point[name]) for key, name in kernels.items()}))
            for penalty, kernels in self._penalties
        ]
        return (self.factor if factor is None else factor) * sum(values) if values else None

    def dual(self, slopes: Mapping[str, Array], along: float, length: float) -> float | None:
        """The dual value of the best multiple of the residual, a lower bound of the objective's minimum.

        The dual of mean loss(A v) + penalty(v) at t r is t * along - t^2 * length / 2 - penalty*(t A^T r), r being the negative
        gradient of the loss in the outputs and A^T r the negative of that in the variables. penalty* of a sum of norms is 0
        while t times the largest dual norm is at most their weight; that of weight / 2 |v|^2 is t^2 |A^T r|^2 / (2 weight), and
        that of the nuclear ball t * radius * the largest singular value.

        Args:
            slopes: the gradient of the mean loss in each variable.

        Returns:
            None where a variable has no penalty, or several: then the conjugate is not known here.
        """
        most, smooth = math.inf, 0.0
        along = float(along)
        for key, slope in slopes.items():
            bounds = [penalty.conjugate(tf.constant(slope)) for penalty in self.of(key)]
            if self._decay:
                bounds.append((math.inf, float(np.sum(np.square(slope))) / self._decay, 0.0))
            if len(bounds) != 1 or bounds[0] is None:
                return None
            reach, curvature, support = bounds[0]
            most, smooth = min(most, self.factor * reach), smooth + curvature / self.factor
            along -= support
        best = max(0.0, min(along / (length + smooth), most)) if length + smooth else 0.0
        return max(0.0, best * along - best**2 * (length + smooth) / 2)

    def filters(self, point: Mapping[str, Array]) -> dict[str, list[int]]:
        """`component/layer` -> [filters that are not zero, filters], of kernels with a penalty that makes zeros."""
        found = {}
        for penalty, kernels in self._penalties:
            if penalty.is_proximal:
                for key, name in kernels.items():
                    kernel = point[name]
                    used = np.any(kernel != 0, axis=(0, 1, 2) if kernel.ndim == 4 else 0)
                    found[key] = [int(used.sum()), int(used.size)]
        return found
