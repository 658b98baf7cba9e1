"""Mean and deviation by channel that images are normalised with. Imports NumPy and no TensorFlow."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def mean_and_deviation(images: Iterable["NDArray"]) -> tuple["NDArray[np.float32]", "NDArray[np.float32]"]:
    """Mean and deviation by channel of images (..., height, width, channels), given a few at a time.

    A channel that is nearly constant is divided by 1.

    Returns:
        (channels,) each, in the range of the images.
    """
    total = squares = np.float64(0)
    count = 0
    for part in images:
        pixels = part.astype(np.float64)
        axes = tuple(range(part.ndim - 1))
        total, squares, count = total + pixels.sum(axes), squares + np.square(pixels).sum(axes), count + pixels[..., 0].size
    mean = total / count
    deviation = np.maximum(np.sqrt(np.maximum(squares / count - mean**2, 1e-6)), 1.0)
    return np.asarray(mean, np.float32), np.asarray(deviation, np.float32)
