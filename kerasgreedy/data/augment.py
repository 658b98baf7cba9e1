"""Random changes of images, drawn for each example by its index, so that order, batch size and devices do not matter."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from kerasgreedy.spec.recipe import Augment

if TYPE_CHECKING:
    from numpy.typing import NDArray


# A stream of random numbers that meets no other one.
_MORE = 77
# Luminance of red, green and blue (ITU-R BT.601).
_GREY = (0.299, 0.587, 0.114)
# Where numbers of a kind begin among those of an example.
_ANGLE, _SCALE, _COLOUR, _SQUARE = 5, 6, 7, 10


@dataclass(frozen=True)
class Draws:
    """The random numbers of one view of a data set: five in [0, 1) for each example, or twelve.

    Attributes:
        uniform: (examples, 5 or 12) float32: two for size and ratio, two for the place, one for the mirror; then one each for
            angle, scale, brightness, contrast, saturation, and two for the square.
    """

    uniform: "NDArray[np.float32]"

    @classmethod
    def of(cls, size: int, seed: tuple[int, ...], more: bool = False) -> "Draws":
        """The draws of one view; the same seed gives the same draws, and the first five are the same with `more` and without."""
        first = np.random.default_rng(seed).random((size, 5), dtype=np.float32)
        if not more:
            return cls(first)
        return cls(np.concatenate([first, np.random.default_rng((*seed, _MORE)).random((size, 7), dtype=np.float32)], axis=1))


def augment_batch(images: tf.Tensor, draws: tf.Tensor, augment: Augment) -> tf.Tensor:
    """Turns, scales, crops, mirrors and colours a batch, in this order.

    Args:
        images: (b, height, width, c) in 0..255, any type.
        draws: (b, 5 or 12) uniform numbers of these images.

    Returns:
        Images of the same shape; of the same type where they are only cropped and mirrored, else float32 in 0..255.
    """
    if augment.rotate or augment.scale:
        images = _turned(tf.cast(images, tf.float32), draws, augment)
    images = _cropped(images, draws, augment)
    return _coloured(tf.cast(images, tf.float32), draws, augment.colour) if augment.colour else images


def cut_out(images: tf.Tensor, draws: tf.Tensor, side: int) -> tf.Tensor:
    """Sets a square of each image to 0, which is the mean colour after normalisation (DeVries and Taylor 2017).

    Its centre is a pixel of the image, so that parts of it may lie outside. An even side reaches one pixel further up and left.

    Args:
        images: (b, height, width, c), normalised.
        draws: (b, 12) uniform numbers of these images.
    """
    inside = []
    for axis, number in ((1, _SQUARE), (2, _SQUARE + 1)):
        size = images.shape[axis]
        first = tf.cast(tf.floor(draws[:, number] * size), tf.int32)[:, None] - side // 2
        places = tf.range(size)[None]
        inside.append((places >= first) & (places < first + side))
    square = inside[0][:, :, None] & inside[1][:, None, :]
    return tf.where(square[..., None], tf.zeros_like(images), images)


def _turned(images: tf.Tensor, draws: tf.Tensor, augment: Augment) -> tf.Tensor:
    """Rotates and magnifies about the centre, bilinear."""
    height, width = images.shape[1], images.shape[2]
    angle = (2 * draws[:, _ANGLE] - 1) * (augment.rotate * np.pi / 180)
    factor = 1 + (2 * draws[:, _SCALE] - 1) * augment.scale
    cosine, sine = tf.cos(angle) / factor, tf.sin(angle) / factor
    x, y = (width - 1) / 2, (height - 1) / 2
    zero = tf.zeros_like(angle)
    # From a place in the result to one in the image.
    rows = [cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y, zero, zero]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images, transforms=tf.stack(rows, axis=1), output_shape=(height, width), fill_value=0.0,
        interpolation="BILINEAR", fill_mode="REFLECT",
    )  # fmt: skip


def _coloured(images: tf.Tensor, draws: tf.Tensor, strength: float) -> tf.Tensor:
    """Brightness, then contrast, then saturation, each clipped to 0..255."""
    factors = 1 + (2 * draws[:, _COLOUR : _COLOUR + 3, None, None, None] - 1) * strength
    images = tf.clip_by_value(images * factors[:, 0], 0.0, 255.0)
    pole = tf.reduce_mean(_grey(images), axis=(1, 2, 3), keepdims=True)
    images = tf.clip_by_value(pole + factors[:, 1] * (images - pole), 0.0, 255.0)
    grey = _grey(images)
    return tf.clip_by_value(grey + factors[:, 2] * (images - grey), 0.0, 255.0)


def _grey(images: tf.Tensor) -> tf.Tensor:
    """(b, height, width, 1)."""
    return images if images.shape[-1] == 1 else tf.reduce_sum(images * tf.constant(_GREY), axis=-1, keepdims=True)


def _cropped(images: tf.Tensor, draws: tf.Tensor, augment: Augment) -> tf.Tensor:
    """Crops after padding, and mirrors."""
    pad = augment.pad_crop
    if not pad and not augment.horizontal_flip:
        return images
    height, width = images.shape[1], images.shape[2]
    columns = tf.range(width)[None, :]
    if augment.horizontal_flip:
        columns = tf.where(draws[:, 4:5] < 0.5, width - 1 - columns, columns)
    if pad:
        offsets = tf.cast(tf.floor(draws[:, 2:4] * (2 * pad + 1)), tf.int32)
        images = tf.pad(images, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
        images = tf.gather(images, offsets[:, :1] + tf.range(height)[None, :], axis=1, batch_dims=1)
        columns += offsets[:, 1:]
    columns = tf.broadcast_to(columns, [tf.shape(images)[0], width])
    return tf.gather(images, columns, axis=2, batch_dims=1)


def random_resized_crop(image: tf.Tensor, draws: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Cuts 8-100 % of the area at a ratio of 3:4 to 4:3, clipped to the image, and resizes it.

    Args:
        image: (height, width, c) of any size.
        draws: (5,) uniform numbers.
        size: height and width of the result.

    Returns:
        float32 in the image's range.
    """
    height, width = tf.cast(tf.shape(image)[0], tf.float32), tf.cast(tf.shape(image)[1], tf.float32)
    area = height * width * (0.08 + 0.92 * draws[0])
    ratio = tf.exp(np.log(3 / 4) + draws[1] * (np.log(4 / 3) - np.log(3 / 4)))
    cut_w = tf.clip_by_value(tf.round(tf.sqrt(area * ratio)), 1.0, width)
    cut_h = tf.clip_by_value(tf.round(tf.sqrt(area / ratio)), 1.0, height)
    top, left = tf.floor(draws[2] * (height - cut_h + 1)), tf.floor(draws[3] * (width - cut_w + 1))
    box = tf.cast(tf.stack([top, left, cut_h, cut_w]), tf.int32)
    cut = tf.image.crop_to_bounding_box(image, box[0], box[1], box[2], box[3])
    return tf.image.resize(cut, size, antialias=True)


def whole_image(images: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Images resized to `size`, antialiased and rounded: the same numbers in memory, streamed and in an export.

    Args:
        images: (height, width, c) or (b, height, width, c) in 0..255, of any type.

    Returns:
        float32 of whole numbers in 0..255.
    """
    resized = tf.image.resize(images, size, antialias=True)
    return tf.clip_by_value(tf.round(tf.cast(resized, tf.float32)), 0.0, 255.0)


def center_cut(image: tf.Tensor, shorter: int, size: tuple[int, int]) -> tf.Tensor:
    """Resizes the shorter side to `shorter` and cuts `size` out of the centre (padding where it is smaller); float32.

    In one step: of a narrow strip the whole resized image could be thousands of times as large as the strip.
    """
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    scaled = tf.maximum(tf.round(sides * (shorter / tf.reduce_min(sides))), 1.0)
    spare = scaled - tf.constant(size, tf.float32)
    before = tf.where(spare > 0, tf.floor(spare / 2), -tf.floor(-spare / 2))
    return tf.raw_ops.ScaleAndTranslate(
        images=image[None], size=size, scale=scaled / sides, translation=-before, kernel_type="triangle", antialias=True
    )[0]
