"""Statistics of the training images, as layers keep them; added up in float64."""

from typing import Any

import numpy as np

from kerasgreedy.network.fitting import Fitting


def fit_standardize(fitting: Fitting) -> dict[str, Any]:
    """Sets mean and factor of a `standardize` layer.

    Deviations are taken in a second pass, about the mean: a difference of squares would lose digits. What never varies is
    centred only.

    Returns:
        constant: how many numbers never vary, of a channel or place.
    """
    layer = fitting.layer
    axes = (0,) if layer.by == "places" else (0, 1, 2)
    total, count = np.zeros(tuple(layer.mean.shape)), 0
    for x in fitting.inputs():
        values = x.numpy().astype(np.float64)
        total += values.sum(axes)
        count += values.size // total.size
    mean = total / count
    squares = np.zeros_like(total)
    for x in fitting.inputs():
        squares += np.square(x.numpy().astype(np.float64) - mean).sum(axes)
    variance = squares / count
    layer.mean.assign(mean.astype(np.float32))
    scale = variance if layer.by == "channels" else np.mean(variance)
    layer.factor.assign(np.where(scale > 0, 1 / np.sqrt(np.where(scale > 0, scale, 1.0)), 1.0).astype(np.float32))
    return {"constant": int(np.sum(variance == 0))}
