"""What kernels of a run look like to each other."""

from pathlib import Path

import numpy as np

from kerasgreedy.graph.kinds import has_kernel
from kerasgreedy.graph.tree import leaves
from kerasgreedy.train.entry_points import load_network


def kernel_correlations(run: str | Path) -> dict[str, float]:
    """`component/layer` -> mean over pairs of kernels of |correlation|, of the blocks of a finished run.

    Kernels of zeros are left out. Layers with fewer than two kernels that are not zero have none.
    """
    network = load_network(run)
    found = {}
    for block in network.architecture.blocks:
        arrays = network.arrays(block.name)
        for node in leaves(block.nodes):
            key = f"{block.name}/{node.name}"
            if has_kernel(node) and f"{key}/kernel" in arrays:
                value = mean_correlation(arrays[f"{key}/kernel"])
                if value is not None:
                    found[key] = value
    return found


def mean_correlation(kernel: np.ndarray) -> float | None:
    """Mean over pairs of filters (last axis) of |correlation| of their weights."""
    flat = kernel.reshape(-1, kernel.shape[-1]).astype(np.float64)
    flat = flat[:, np.abs(flat).max(axis=0) > 0]
    flat = flat - flat.mean(axis=0)
    norms = np.sqrt(np.square(flat).sum(axis=0))
    flat = flat[:, norms > 0] / norms[norms > 0]
    count = flat.shape[1]
    if count < 2:
        return None
    return float((np.abs(flat.T @ flat).sum() - count) / (count * (count - 1)))
