"""How alike the kernels of a layer are."""

import numpy as np


def mean_correlation(kernel: np.ndarray) -> float | None:
    """Mean over pairs of filters (last axis) of |correlation| of their weights.

    Filters of zeros, and constant ones, are left out; with fewer than two others there is none.
    """
    flat = kernel.reshape(-1, kernel.shape[-1]).astype(np.float64)
    flat = flat - flat.mean(axis=0)
    norms = np.sqrt(np.square(flat).sum(axis=0))
    flat = flat[:, norms > 0] / norms[norms > 0]
    count = flat.shape[1]
    if count < 2:
        return None
    return float((np.abs(flat.T @ flat).sum() - count) / (count * (count - 1)))
