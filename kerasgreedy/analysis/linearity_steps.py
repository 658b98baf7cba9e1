"""The maps of a network with its supports held (support paper, eq. 12, 13), in NumPy float64.

Values are vectors: a map (height, width, channels) is flattened in this order. Every map is held as triples (row, column,
value), so that a convolution is its banded, strided Toeplitz matrix without the zeros.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]


class Step(ABC):
    """One map of the chain."""

    def support(self, z: Array) -> Array | None:
        """What is decided by the input and held afterwards: a mask (n, d) of bool, chosen places (n, d), or nothing."""
        return None

    @abstractmethod
    def apply(self, z: Array, support: Array | None) -> Array:
        """(n, d) -> (n, d'), affine in z where the support (of n examples, or one for all) is held."""

    def lift(self, u: Array, support: Array | None) -> Array:
        """Takes the transpose of U before this map, (products, d), to that after it; see `linearity`."""
        return self.apply(u, support)

    def reach(self, u: Array) -> Array:
        """As `lift` on what is zero or positive, with every support open: positive where anything can arrive."""
        return self.lift(u, None)


@dataclass(frozen=True)
class Weights(Step):
    """q = W z + S b: W[rows, columns] = free[entries] and zero elsewhere, S[r, spread[r]] = 1.

    Attributes:
        name: `block_1/conv_1`.
        free: the kernel as Keras stores it, flattened; of a dense layer this is vec(W), column after column.
        biases: one for each filter or unit, or None.
        rows, columns, entries: int (triples,); a row holds no entry twice.
    """

    name: str
    height: int
    width: int
    rows: Array
    columns: Array
    entries: Array
    free: Array
    biases: Array | None
    spread: Array

    def apply(self, z: Array, support: Array | None) -> Array:
        values = self.free[self.entries]
        q = np.stack([np.bincount(self.rows, values * row[self.columns], self.height) for row in z])
        return q if self.biases is None else q + self.biases[self.spread]

    def lift(self, u: Array, support: Array | None) -> Array:
        lifted = np.zeros((len(u), self.free.size, self.height))
        lifted[:, self.entries, self.rows] = u[:, self.columns]
        products = lifted.reshape(-1, self.height)
        if self.biases is None:
            return products
        return np.concatenate([products, np.arange(self.biases.size)[:, None] == self.spread], dtype=np.float64)

    def full(self) -> "Weights":
        """The same map with every entry of W free: free = vec(W), a bias for each value."""
        rows, columns = (index.ravel() for index in np.indices((self.height, self.width)))
        w = np.zeros((self.height, self.width))
        w[self.rows, self.columns] = self.free[self.entries]
        biases = None if self.biases is None else self.biases[self.spread]
        places = columns * self.height + rows
        return Weights(
            self.name, self.height, self.width, rows, columns, places, w.ravel(order="F"), biases, np.arange(self.height)
        )


@dataclass(frozen=True)
class Fixed(Step):
    """A linear map without weights: z'[r] = sum of values * z[columns] over the triples of row r."""

    rows: Array
    columns: Array
    values: Array

    def apply(self, z: Array, support: Array | None) -> Array:
        return np.add.reduceat(z[:, self.columns] * self.values, np.searchsorted(self.rows, np.unique(self.rows)), axis=1)


@dataclass(frozen=True)
class Scaled(Step):
    """Batch norm in inference mode, scale * z + shift. Its numbers are no weights of v: the shift is a column of U of its own."""

    scale: Array
    shift: Array

    def apply(self, z: Array, support: Array | None) -> Array:
        return z * self.scale + self.shift

    def lift(self, u: Array, support: Array | None) -> Array:
        return np.concatenate([u * self.scale, self.shift[None]])

    def reach(self, u: Array) -> Array:
        return np.concatenate([u, self.shift[None] != 0], dtype=np.float64)


@dataclass(frozen=True)
class Gate(Step):
    """M = diag(m), m = [q > threshold] (eq. 9, 12); the threshold is one number () or one for each value (d,)."""

    name: str
    threshold: Array

    def support(self, z: Array) -> Array:
        return z > self.threshold

    def apply(self, z: Array, support: Array | None) -> Array:
        return z if support is None else z * support


@dataclass(frozen=True)
class Switch(Step):
    """Max pooling: the place that gives the maximum of each window is the support; held, it is a selection.

    Attributes:
        windows: int (rows, places), -1 where a window leaves the map.
    """

    name: str
    windows: Array

    def support(self, z: Array) -> Array:
        values = np.where(self.windows < 0, -np.inf, z[:, self.windows])
        best = values.argmax(-1)[..., None]
        return np.take_along_axis(np.broadcast_to(self.windows, values.shape), best, -1)[..., 0]

    def apply(self, z: Array, support: Array | None) -> Array:
        assert support is not None
        return z[:, support[0]] if len(support) == 1 else np.take_along_axis(z, support, 1)

    def reach(self, u: Array) -> Array:
        return np.where(self.windows < 0, 0.0, u[:, self.windows]).sum(-1)
