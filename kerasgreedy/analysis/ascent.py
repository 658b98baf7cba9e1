"""Images that a filter or a class answers to most: gradient ascent inside the box of pixels."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from kerasgreedy.analysis.attribution import layer_of, output_of
from kerasgreedy.errors import InputError
from kerasgreedy.network.outputs import logits_of, refuse_low_precision
from kerasgreedy.network.taps import noting, tapped

if TYPE_CHECKING:
    from numpy.typing import NDArray


# Images that climb together.
CHUNK = 16


def maximize(
    model: keras.Model,
    shape: Sequence[int],
    channels: Sequence[int],
    low: Any,
    high: Any,
    layer: keras.layers.Layer | str | None = None,
    steps: int = 100,
    rate: float = 0.05,
    jitter: int = 0,
    smoothing: float = 0.0,
    seed: int = 0,
) -> tuple["NDArray[np.float32]", "NDArray[np.float64]"]:
    """maximize K(X) subject to low <= X <= high, by projected gradient ascent (convex paper, eq. 4).

    K is the mean over places of one channel of a layer's output, or the logit of a class. Every step goes `rate` times the width
    of the box along the gradient, divided by its largest entry, and back into the box.

    Args:
        shape: (height, width, channels) of images.
        channels: the filters, or classes; one image each.
        low, high: the box, numbers or one for each channel of the images.
        layer: whose output is meant, or its name; None: the logits.
        jitter: images are shifted by up to so many pixels, by chance, before each step and back after it.
        smoothing: deviation in pixels of a Gaussian that every image is blurred with after each step; 0: not.
        seed: of the first images, which are noise about the middle of the box, and of jitter.

    Returns:
        the images (channels, height, width, channels of images), and K of each at the end.

    Raises:
        InputError: the layer has no such channel or is called several times, the score does not depend on the image, the box is
            none, or the blur is wider than the image.
    """
    refuse_low_precision(model)
    chosen = layer_of(model, layer) if isinstance(layer, str) else layer
    if not len(channels) or min(channels) < 0:
        raise InputError(f"channels: received {list(channels)}; allowed: one or more whole numbers, from 0")
    bottom, top = (np.broadcast_to(np.asarray(v, np.float32), shape).copy() for v in (low, high))
    if smoothing and round(3 * smoothing) > min(shape[:2]):
        most = min(shape[:2]) / 3
        raise InputError(f"smoothing: received {smoothing:g}; allowed: up to {most:.3g}, a third of the image's shorter side")
    span = top - bottom
    if not (span > 0).all():
        raise InputError(f"low and high: received {low} and {high}; allowed: low below high")
    rng = np.random.default_rng(seed)
    noise = rng.uniform(-0.05, 0.05, (len(channels), *shape)).astype(np.float32)
    shifts = rng.integers(-jitter, jitter + 1, (steps, 2)).tolist()
    call = tf.function(lambda images, of: _climb(model, chosen, images, of, max(channels)), autograph=False)
    images, heights = [], []
    for start in range(0, len(channels), CHUNK):
        of = tf.constant(list(channels)[start : start + CHUNK], tf.int32)
        x = tf.constant((bottom + top) / 2 + noise[start : start + CHUNK] * span)
        for shift in shifts:
            rolled = tf.roll(x, shift, (1, 2))
            _, slope = call(rolled, of)
            largest = tf.reduce_max(tf.abs(slope), axis=(1, 2, 3), keepdims=True)
            moved = rolled + rate * span * tf.math.divide_no_nan(slope, largest)
            x = tf.roll(moved, [-shift[0], -shift[1]], (1, 2))
            x = tf.clip_by_value(_blurred(x, smoothing) if smoothing else x, bottom, top)
        images.append(x.numpy())
        heights.append(np.asarray(call(x, of)[0], np.float64))
    return np.concatenate(images), np.concatenate(heights)


def _climb(
    model: keras.Model, layer: keras.layers.Layer | None, images: tf.Tensor, of: tf.Tensor, last: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """K of each image, and its gradient; `last` is the largest channel that is asked for."""
    seen: list[tf.Tensor] = []
    with tf.GradientTape() as tape:
        tape.watch(images)
        with tapped({layer: noting(seen)} if layer is not None else {}):
            outputs = model(images, training=False)
        values = logits_of(outputs) if layer is None else output_of(layer, seen)
        if len(values.shape) == 4:
            values = tf.reduce_mean(values, axis=(1, 2))
        if last >= values.shape[-1]:
            raise InputError(f"channel: received {last}; allowed: 0 to {values.shape[-1] - 1}")
        found = tf.gather(values, of, axis=1, batch_dims=1)
    slope = tape.gradient(found, images)
    if slope is None:
        raise InputError("the score does not depend on the image")
    return found, slope


def _blurred(x: tf.Tensor, deviation: float) -> tf.Tensor:
    """Each channel by itself, borders repeated."""
    reach = max(1, round(3 * deviation))
    places = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (places / deviation) ** 2)
    kernel = tf.constant((weights / weights.sum()).astype(np.float32))
    channels = x.shape[-1]
    for axis in (1, 2):
        shape = [1, 1, 1, 1]
        shape[axis - 1] = len(places)
        pads = [[0, 0]] * 4
        pads[axis] = [reach, reach]
        filters = tf.tile(tf.reshape(kernel, shape), [1, 1, channels, 1])
        x = tf.nn.depthwise_conv2d(tf.pad(x, pads, "SYMMETRIC"), filters, [1, 1, 1, 1], "VALID")
    return x
