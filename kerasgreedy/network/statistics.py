"""Statistics of the training images, as layers keep them; added up in float64."""

from typing import Any

import numpy as np

from kerasgreedy.network.fitting import Fitting


def fit_standardize(fitting: Fitting) -> dict[str, Any]:
    """Sets mean and factor of a `standardize` layer.

    In one pass: squares are about the mean of their batch, and batches are joined by their means (Chan, Golub and LeVeque 1983,
    eq. 2.1), which loses no digits as a difference of squares would. What never varies is centred only.

    Returns:
        constant: how many numbers never vary, of a channel or place.
    """
    layer = fitting.layer
    axes = (0,) if layer.by == "places" else (0, 1, 2)
    mean, count = np.zeros(tuple(layer.mean.shape)), 0
    squares = np.zeros_like(mean)  # of distances from the mean, summed
    for x in fitting.inputs():
        values = x.numpy().astype(np.float64)
        own, more = values.mean(axes), values.size // mean.size
        squares += np.square(values - own).sum(axes) + np.square(own - mean) * (count * more / (count + more))
        mean += (own - mean) * (more / (count + more))
        count += more
    variance = squares / count
    layer.mean.assign(mean.astype(np.float32))
    scale = variance if layer.by == "channels" else np.mean(variance)
    layer.factor.assign(np.where(scale > 0, 1 / np.sqrt(np.where(scale > 0, scale, 1.0)), 1.0).astype(np.float32))
    return {"constant": int(np.sum(variance == 0))}
