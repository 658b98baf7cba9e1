"""The filters that a head has found, for the next block to stand on."""

from typing import TYPE_CHECKING

import keras
import numpy as np

from kerasgreedy.network.build import Network
from kerasgreedy.nn.gated import GatedPatches, RectifiedMean
from kerasgreedy.nn.penalties import as_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Filters of this length and below have no direction.
TINY = 1e-30


def filters_of(network: Network, head: str) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """Filters (size, size, channels, n) of a head that ends in rows, gated patches or their twin, and the norm (n,) of each.

    Of rows: the left singular vectors of [A_1 ... A_C] (features, places * classes), and the singular values.

    Of fixed gates: v of each gate and class, gate by gate, and |v|. Of the twin: u, and |u| |w| with w the weights that the
    classes read it by, which no rescaling of u against w changes.
    """
    *_, first, last = network.component(head).layers
    if isinstance(first, keras.layers.Reshape):
        vectors, sizes, _ = np.linalg.svd(as_matrix(last.kernel).numpy().astype(np.float64), full_matrices=False)
        return vectors.reshape(1, 1, *vectors.shape), sizes
    weights = keras.ops.convert_to_numpy(last.kernel).astype(np.float64)
    if isinstance(first, GatedPatches):
        shape = (first.kernel_size, first.kernel_size, -1, weights.shape[1] * weights.shape[2])
        filters = weights.reshape(shape)
        return filters, norms_of(filters)
    assert isinstance(first, RectifiedMean)
    filters = keras.ops.convert_to_numpy(first.kernel).astype(np.float64)
    return filters, norms_of(filters) * np.linalg.norm(weights, axis=1)


def norms_of(filters: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """(n,) of filters (..., n)."""
    return np.sqrt(np.sum(np.square(filters), axis=tuple(range(filters.ndim - 1))))
