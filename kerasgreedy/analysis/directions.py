"""Directions in the space of weights, along which losses are drawn. NumPy alone but for `Parameters`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasgreedy.network.parameters import Parameters

if TYPE_CHECKING:
    from numpy.typing import NDArray


def filter_normalized(parameters: Parameters, theta: "NDArray[Any]", seed: int, number: int) -> "NDArray[Any]":
    """A random direction (size,) whose filters have the norms of the weights' filters (Li et al. 2018, section 4).

    Biases and the weights of batch norm get zero. The draw depends on seed, number and the number of weights only.
    """
    draw = np.random.default_rng((seed, number)).standard_normal(parameters.size).astype(parameters.dtype)
    return parameters.scaled(draw, theta)


def principal(path: Sequence["NDArray[Any]"]) -> tuple["NDArray[Any]", "NDArray[Any]", list[float]]:
    """The plane through the last point of a path that holds most of it.

    Args:
        path: two points or more, each (size,).

    Returns:
        two orthonormal directions (2, size); the points' coordinates in them (points, 2), the last of which is (0, 0); and the
        shares of the squared distances from the last point that the two hold.
    """
    steps = np.stack([np.asarray(point, np.float64) - path[-1] for point in path])
    # The Gram matrix is small; its eigenvectors give the right singular vectors of the steps.
    squares, vectors = np.linalg.eigh(steps @ steps.T)
    order = np.argsort(squares)[::-1][:2]
    total = float(np.trace(steps @ steps.T)) or 1.0
    directions = np.zeros((2, steps.shape[1]))
    for place, index in enumerate(order):
        if squares[index] > 1e-12 * total:
            directions[place] = vectors[:, index] @ steps / np.sqrt(squares[index])
    return directions, steps @ directions.T, [max(float(squares[index]), 0.0) / total for index in order]
