"""Extreme eigenvalues and trace of a symmetric matrix that is known by its products with vectors only. NumPy alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Product: TypeAlias = Callable[["NDArray[Any]"], "NDArray[Any]"]


@dataclass(frozen=True)
class Extremes:
    """Ends of a spectrum.

    Attributes:
        largest, smallest: eigenvalues; each lies within its error of a true one.
        largest_error, smallest_error: norms of the residual H u - lambda u.
        steps: products that were taken.
        converged: both errors are within the tolerance.
        vectors: (size, 2) unit vectors of the two.
    """

    largest: float
    smallest: float
    largest_error: float
    smallest_error: float
    steps: int
    converged: bool
    vectors: "NDArray[Any]"


def lanczos(product: Product, size: int, steps: int, seed: int, tolerance: float = 1e-3, dtype: Any = np.float64) -> Extremes:
    """Largest and smallest eigenvalue by Lanczos' method with full reorthogonalisation.

    Without it rounding brings eigenvalues that were found before again and again (Golub and Van Loan, 10.3); each new vector is
    made orthogonal to all before it, twice.

    Args:
        product: v (size,) to H v.
        size: of H.
        steps: at most so many products, and as many vectors in memory.
        seed: of the first vector.
        tolerance: an end has converged where its error is at most this share of the largest |eigenvalue|.
        dtype: of the vectors.
    """
    basis = np.zeros((min(steps, size), size), dtype)
    vector = np.random.default_rng(seed).standard_normal(size)
    basis[0] = vector / np.linalg.norm(vector)
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        count = len(diagonal)
        # In the type of the basis: else NumPy would convert all of it at every step.
        image = np.asarray(product(basis[count]), dtype)
        diagonal.append(float(np.dot(image.astype(np.float64), basis[count].astype(np.float64))))
        known = basis[: count + 1]
        for _ in range(2):
            image = image - known.T @ (known @ image)
        norm = float(np.linalg.norm(image))
        values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
        scale = float(np.abs(values).max())
        errors = norm * np.abs(vectors[-1, [-1, 0]])
        whole = norm <= 10 * np.finfo(dtype).eps * scale  # an invariant space: these are eigenvalues
        done = whole or bool((errors <= tolerance * scale).all())
        if done or count + 1 == len(basis):
            return Extremes(
                float(values[-1]), float(values[0]), float(errors[0]), float(errors[1]), count + 1, done,
                known.T @ vectors[:, [-1, 0]],
            )  # fmt: skip
        beside.append(norm)
        basis[count + 1] = image / norm


def hutchinson(product: Product, size: int, samples: int, seed: int) -> tuple[float, float]:
    """The trace as the mean of z^T H z over random signs z, and the standard error of that mean (Hutchinson 1990)."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(samples):
        signs = rng.integers(0, 2, size) * 2.0 - 1.0
        found.append(float(signs @ np.asarray(product(signs), np.float64)))
    spread = float(np.std(found, ddof=1) / np.sqrt(samples)) if samples > 1 else float("nan")
    return float(np.mean(found)), spread
