"""RandAugment (Cubuk et al. 2019): each image goes through operations of its own."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from kerasgreedy.spec.augmentation import RandAugment

# At magnitude 10.
_DEGREES, _SHEAR, _SHIFT, _FACTOR, _BITS = 30.0, 0.3, 0.45, 0.9, 4
_GREY = (0.299, 0.587, 0.114)  # luminance of red, green and blue (ITU-R BT.601)
_FILL = 128.0
# Images (b, h, w, c) float32 in 0..255, the sign of each (b,), strength from 0 to 1 -> changed images.
_Operation = Callable[[tf.Tensor, tf.Tensor, float], tf.Tensor]


def rand_augment(images: tf.Tensor, draws: tf.Tensor, settings: RandAugment) -> tf.Tensor:
    """Sends every image through its operations.

    Args:
        images: (b, height, width, c) float32 in 0..255.
        draws: (b, 2 n) in [0, 1): which operation, and its direction, n times.

    Returns:
        The same shape, in 0..255.
    """
    shape, operations = images.shape, list(OPERATIONS.values())
    for number in range(settings.operations):
        chosen = tf.cast(tf.floor(draws[:, 2 * number] * len(operations)), tf.int32)
        sign = tf.where(draws[:, 2 * number + 1] < 0.5, -1.0, 1.0)
        # Each part holds the images of one operation, so that none runs through all.
        parts = tf.dynamic_partition(images, chosen, len(operations))
        signs = tf.dynamic_partition(sign, chosen, len(operations))
        places = tf.dynamic_partition(tf.range(tf.shape(images)[0]), chosen, len(operations))
        done = [
            operation(tf.ensure_shape(part, (None, *shape[1:])), each, settings.magnitude / 10)
            for operation, part, each in zip(operations, parts, signs, strict=True)
        ]
        images = tf.ensure_shape(tf.dynamic_stitch(places, done), shape)
    return images


def _identity(images: tf.Tensor, sign: tf.Tensor, strength: float) -> tf.Tensor:
    return images


def _autocontrast(images: tf.Tensor, sign: tf.Tensor, strength: float) -> tf.Tensor:
    """The darkest level of each channel to 0, the brightest to 255."""
    low, high = (reduce(images, axis=(1, 2), keepdims=True) for reduce in (tf.reduce_min, tf.reduce_max))
    return tf.where(high > low, (images - low) * tf.math.divide_no_nan(255.0, high - low), images)


def _equalize(images: tf.Tensor, sign: tf.Tensor, strength: float) -> tf.Tensor:
    """Levels of each channel as frequent as one another, by whole numbers as Pillow does it."""
    _, height, width, channels = images.shape
    levels = tf.reshape(tf.transpose(tf.cast(tf.round(images), tf.int32), (0, 3, 1, 2)), (-1, height * width))
    counts = tf.math.bincount(levels, minlength=256, maxlength=256, axis=-1)
    last = tf.reduce_max(tf.where(counts > 0, tf.range(256), 0), axis=1)
    step = (height * width - tf.gather(counts, last, axis=1, batch_dims=1)) // 255
    before = tf.cumsum(counts, axis=1, exclusive=True)
    safe = tf.maximum(step, 1)[:, None]
    table = tf.where(step[:, None] > 0, tf.minimum((before + safe // 2) // safe, 255), tf.range(256))
    flat = tf.gather(table, levels, axis=1, batch_dims=1)
    return tf.cast(tf.transpose(tf.reshape(flat, (-1, channels, height, width)), (0, 2, 3, 1)), tf.float32)


def _solarize(images: tf.Tensor, sign: tf.Tensor, strength: float) -> tf.Tensor:
    """Levels from a threshold on are inverted."""
    return tf.where(images >= 256 * (1 - strength), 255 - images, images)


def _posterize(images: tf.Tensor, sign: tf.Tensor, strength: float) -> tf.Tensor:
    """Only the highest bits of each level are left."""
    step = float(2 ** round(_BITS * strength))
    return tf.floor(images / step) * step


def _blend(pole: tf.Tensor, images: tf.Tensor, sign: tf.Tensor, strength: float) -> tf.Tensor:
    factor = (1 + sign * (_FACTOR * strength))[:, None, None, None]
    return tf.clip_by_value(pole + factor * (images - pole), 0.0, 255.0)


def grey(images: tf.Tensor) -> tf.Tensor:
    """Luminance (b, height, width, 1) of grey or red, green and blue images."""
    return images if images.shape[-1] == 1 else tf.reduce_sum(images * tf.constant(_GREY), axis=-1, keepdims=True)


def _colour(images: tf.Tensor, sign: tf.Tensor, strength: float) -> tf.Tensor:
    return _blend(grey(images), images, sign, strength)


def _contrast(images: tf.Tensor, sign: tf.Tensor, strength: float) -> tf.Tensor:
    return _blend(tf.reduce_mean(grey(images), axis=(1, 2, 3), keepdims=True), images, sign, strength)


def _brightness(images: tf.Tensor, sign: tf.Tensor, strength: float) -> tf.Tensor:
    return _blend(tf.zeros_like(images), images, sign, strength)


def _sharpness(images: tf.Tensor, sign: tf.Tensor, strength: float) -> tf.Tensor:
    """Away from, or towards, the mean of 3x3 pixels, the middle one five times; the rim stays."""
    _, height, width, _ = images.shape
    if min(height, width) < 3:
        return images
    # TensorFlow's depthwise convolution of no images has another shape.
    nine = [images[:, y : height - 2 + y, x : width - 2 + x] for y in range(3) for x in range(3)]
    smooth = tf.pad((tf.add_n(nine) + 4 * nine[4]) / 13, [[0, 0], [1, 1], [1, 1], [0, 0]])
    inside = np.zeros((height, width, 1), bool)
    inside[1:-1, 1:-1] = True
    return _blend(tf.where(inside, smooth, images), images, sign, strength)


def moved(images: tf.Tensor, rows: Sequence[tf.Tensor], fill_mode: str = "CONSTANT") -> tf.Tensor:
    """Bilinear, by an affine map about the centre from places in the result to places in the image.

    Args:
        rows: six of (b,): x' = r0 x + r1 y + r2, y' = r3 x + r4 y + r5, from the centre, in pixels.
        fill_mode: `CONSTANT`: grey outside; `REFLECT`.
    """
    _, height, width, _ = images.shape
    x, y, zero = (width - 1) / 2, (height - 1) / 2, tf.zeros_like(rows[0])
    a, b, c, d, e, f = rows
    whole = [a, b, c + x - a * x - b * y, d, e, f + y - d * x - e * y, zero, zero]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images, transforms=tf.stack(whole, axis=1), output_shape=(height, width), fill_value=_FILL,
        interpolation="BILINEAR", fill_mode=fill_mode,
    )  # fmt: skip


def _rotate(images: tf.Tensor, sign: tf.Tensor, strength: float) -> tf.Tensor:
    angle, zero = sign * (strength * _DEGREES * np.pi / 180), tf.zeros_like(sign)
    return moved(images, [tf.cos(angle), -tf.sin(angle), zero, tf.sin(angle), tf.cos(angle), zero])


def _shear_x(images: tf.Tensor, sign: tf.Tensor, strength: float) -> tf.Tensor:
    one, zero = tf.ones_like(sign), tf.zeros_like(sign)
    return moved(images, [one, sign * (_SHEAR * strength), zero, zero, one, zero])


def _shear_y(images: tf.Tensor, sign: tf.Tensor, strength: float) -> tf.Tensor:
    one, zero = tf.ones_like(sign), tf.zeros_like(sign)
    return moved(images, [one, zero, zero, sign * (_SHEAR * strength), one, zero])


def _translate_x(images: tf.Tensor, sign: tf.Tensor, strength: float) -> tf.Tensor:
    one, zero = tf.ones_like(sign), tf.zeros_like(sign)
    return moved(images, [one, zero, sign * (_SHIFT * strength * images.shape[2]), zero, one, zero])


def _translate_y(images: tf.Tensor, sign: tf.Tensor, strength: float) -> tf.Tensor:
    one, zero = tf.ones_like(sign), tf.zeros_like(sign)
    return moved(images, [one, zero, zero, zero, one, sign * (_SHIFT * strength * images.shape[1])])


OPERATIONS: dict[str, _Operation] = {
    "identity": _identity, "autocontrast": _autocontrast, "equalize": _equalize, "rotate": _rotate, "solarize": _solarize,
    "colour": _colour, "posterize": _posterize, "contrast": _contrast, "brightness": _brightness, "sharpness": _sharpness,
    "shear_x": _shear_x, "shear_y": _shear_y, "translate_x": _translate_x, "translate_y": _translate_y,
}  # fmt: skip
