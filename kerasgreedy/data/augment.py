"""Random changes of images, drawn for each example by its index, so that order, batch size and devices do not matter."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from kerasgreedy.data.rand_augment import grey, moved, rand_augment
from kerasgreedy.nn.mixed import Mixed
from kerasgreedy.spec.augmentation import Augment

if TYPE_CHECKING:
    from numpy.typing import NDArray


# Streams of random numbers that meet no other one.
_MORE, _RAND, _MIX = 77, 78, 79
# Where numbers of a kind begin among those of an example.
_ANGLE, _SCALE, _COLOUR, _SQUARE, _OPERATIONS = 5, 6, 7, 10, 12


@dataclass(frozen=True)
class Draws:
    """The random numbers of one view of a data set, for each example.

    Attributes:
        uniform: (examples, 5 or more) float32 in [0, 1): two for size and ratio, two for the place, one for the mirror; then,
            where they are needed, one each for angle, scale, brightness, contrast, saturation, and two for the square; two for
            each operation of `rand_augment`; last the share of the image itself in what `mixup` makes of it.
    """

    uniform: "NDArray[np.float32]"

    @classmethod
    def of(cls, size: int, seed: tuple[int, ...], augment: Augment) -> "Draws":
        """The draws of one view; the same seed gives the same draws of a kind, whatever others there are."""
        columns = [np.random.default_rng(seed).random((size, 5), dtype=np.float32)]
        if augment.draws_more:
            columns.append(np.random.default_rng((*seed, _MORE)).random((size, 7), dtype=np.float32))
        if augment.rand_augment:
            count = 2 * augment.rand_augment.operations
            columns.append(np.random.default_rng((*seed, _RAND)).random((size, count), dtype=np.float32))
        if augment.mixup:
            shares = np.random.default_rng((*seed, _MIX)).beta(augment.mixup, augment.mixup, (size, 1))
            columns.append(shares.astype(np.float32))
        return cls(np.concatenate(columns, axis=1))


def augment_batch(images: tf.Tensor, draws: tf.Tensor, augment: Augment) -> tf.Tensor:
    """Turns, scales, crops, mirrors and colours a batch, in this order, and at last what `rand_augment` draws.

    Args:
        images: (b, height, width, c) in 0..255, any type.
        draws: (b, 5 or more) numbers of these images, see `Draws`.

    Returns:
        Images of the same shape; of the same type where they are only cropped and mirrored, else float32 in 0..255.
    """
    if augment.rotate or augment.scale:
        images = _turned(tf.cast(images, tf.float32), draws, augment)
    images = _cropped(images, draws, augment)
    if augment.colour:
        images = _coloured(tf.cast(images, tf.float32), draws, augment.colour)
    if augment.rand_augment:
        drawn = draws[:, _OPERATIONS : _OPERATIONS + 2 * augment.rand_augment.operations]
        images = rand_augment(tf.cast(images, tf.float32), drawn, augment.rand_augment)
    return images


def mix(images: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor) -> tuple[tf.Tensor, Mixed]:
    """Mixes each image of a batch with the next one, the last with the first (Zhang et al. 2018, mixup).

    Args:
        images: (b, height, width, c), normalised.
        labels: (b,) int32.
        draws: (b, n) numbers of these images, of which the last is the share of the image itself.
    """
    share = draws[:, -1]
    mine = share[:, None, None, None]
    mixed = mine * images + (1 - mine) * tf.roll(images, -1, axis=0)
    return mixed, Mixed(labels, tf.roll(labels, -1, axis=0), share)


def cut_out(images: tf.Tensor, draws: tf.Tensor, side: int) -> tf.Tensor:
    """Sets a square of each image to 0, which is the mean colour after normalisation (DeVries and Taylor 2017).

    Its centre is a pixel of the image, so that parts of it may lie outside. An even side reaches one pixel further up and left.

    Args:
        images: (b, height, width, c), normalised.
        draws: (b, 12 or more) numbers of these images, see `Draws`.
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
    angle = (2 * draws[:, _ANGLE] - 1) * (augment.rotate * np.pi / 180)
    factor = 1 + (2 * draws[:, _SCALE] - 1) * augment.scale
    cosine, sine = tf.cos(angle) / factor, tf.sin(angle) / factor
    zero = tf.zeros_like(angle)
    return moved(images, [cosine, -sine, zero, sine, cosine, zero], "REFLECT")


def _coloured(images: tf.Tensor, draws: tf.Tensor, strength: float) -> tf.Tensor:
    """Brightness, then contrast, then saturation, each clipped to 0..255."""
    factors = 1 + (2 * draws[:, _COLOUR : _COLOUR + 3, None, None, None] - 1) * strength
    images = tf.clip_by_value(images * factors[:, 0], 0.0, 255.0)
    pole = tf.reduce_mean(grey(images), axis=(1, 2, 3), keepdims=True)
    images = tf.clip_by_value(pole + factors[:, 1] * (images - pole), 0.0, 255.0)
    pole = grey(images)
    return tf.clip_by_value(pole + factors[:, 2] * (images - pole), 0.0, 255.0)


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
