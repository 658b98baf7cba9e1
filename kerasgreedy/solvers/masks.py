"""Masks of a sparse phase: which weights of each kernel are held at zero."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from kerasgreedy.network.build import Network
from kerasgreedy.nn.gated import trained_kernel
from kerasgreedy.runs.checkpoint import Arrays
from kerasgreedy.solvers.updates import Update
from kerasgreedy.spec.sparsity import ConstantSparsity, PolynomialDecay

if TYPE_CHECKING:
    from numpy.typing import NDArray


def smallest_masked(kernel: "NDArray[np.float32]", kept: "NDArray[np.bool_]", sparsity: float) -> "NDArray[np.bool_]":
    """The mask that prunes round(sparsity * size) weights of a kernel, those of the smallest magnitude.

    Weights that are pruned already come first, so that none comes back; among equals the first in the kernel's order is pruned
    first. One weight at least is kept, and no fewer are pruned than before.

    Args:
        kernel: any shape.
        kept: True where a weight was kept so far.

    Returns:
        the shape of the kernel, True where a weight is kept.
    """
    count = max(min(round(sparsity * kernel.size), kernel.size - 1), int(np.sum(~kept)))
    if not count:
        return np.ones(kernel.shape, bool)
    magnitude = np.where(kept, np.abs(kernel), -1).ravel()
    limit = np.partition(magnitude, count - 1)[count - 1]
    pruned = magnitude < limit
    ties = np.flatnonzero(magnitude == limit)
    pruned[ties[: count - np.count_nonzero(pruned)]] = True
    return ~pruned.reshape(kernel.shape)


class Masks(Update):
    """Masks over the kernels of convolutions and dense layers, chosen by magnitude within each kernel.

    Biases and batch norm are never masked. Masks are variables on every device; weights under them are zero after
    they are chosen and after every step.

    Args:
        network: built under the strategy's scope, in the precision of the phase.
        components: names of those whose kernels are masked.
        schedule: of sparsity over the steps of the phase; None: masks are given, see `hold`.
    """

    def __init__(
        self,
        network: Network,
        components: tuple[str, ...],
        schedule: ConstantSparsity | PolynomialDecay | None,
        strategy: tf.distribute.Strategy,
    ):
        self._schedule, self._strategy = schedule, strategy
        self.extras = {"masks": self}
        self._kernels: dict[str, keras.Variable] = {
            f"{name}/{layer.name}/kernel": kernel
            for name in components
            for layer in network.component(name).layers
            if (kernel := trained_kernel(layer)) is not None
        }
        with strategy.scope():
            self._kept = {key: tf.Variable(np.ones(kernel.shape, bool), trainable=False) for key, kernel in self._kernels.items()}

    def before(self, number: int) -> None:
        """Chooses the masks anew where the schedule is active at this step."""
        if self._schedule is None or number > self._schedule.last_change:
            return  # pruned weights are the smallest: the same sparsity once more would choose the same masks
        active, sparsity = self._schedule(number)
        if active:
            values = {key: keras.ops.convert_to_numpy(kernel) for key, kernel in self._kernels.items()}
            self.hold({key: smallest_masked(value, self._kept[key].numpy(), sparsity) for key, value in values.items()})

    def hold(self, kept: "Mapping[str, NDArray[np.bool_]]") -> None:
        """Holds the weights of each kernel at zero where `kept` is False."""
        for key, kernel in self._kernels.items():
            self._kept[key].assign(kept[key])
            kernel.assign(np.where(kept[key], keras.ops.convert_to_numpy(kernel), np.float32(0)))

    def sparsity(self) -> float:
        """Share of all weights of the kernels that is held at zero."""
        kept = [mask.numpy() for mask in self._kept.values()]
        return 1 - sum(int(mask.sum()) for mask in kept) / sum(mask.size for mask in kept)

    def on_variables(self, rate: tf.Tensor) -> None:
        """Sets the masked weights to zero, whatever momentum or decay made of them."""
        for key, kernel in self._kernels.items():
            self._strategy.extended.update(kernel.value, _zero, args=(self._kept[key],))

    def arrays(self) -> Arrays:
        """Kernel -> uint8, 1 where a weight is kept."""
        return {key: kept.numpy().astype(np.uint8) for key, kept in self._kept.items()}

    def load_arrays(self, arrays: Arrays) -> None:
        """Sets the masks to what `arrays` gave."""
        for key, kept in self._kept.items():
            kept.assign(arrays[key].astype(bool))


def _zero(kernel: Any, kept: Any) -> Any:
    # Not a product: that of a negative weight with zero is -0.
    return kernel.assign(tf.where(kept, kernel, tf.zeros_like(kernel)))
