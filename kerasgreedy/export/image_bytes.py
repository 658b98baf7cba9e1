"""Encoded images to the network's input, inside a TensorFlow graph that leaves this package behind."""

from dataclasses import dataclass

import tensorflow as tf

from kerasgreedy.data.augment import center_cut, whole_image
from kerasgreedy.data.image_files import BMP, JPEG, PNG, decode_file, file_head, number, starts

# A file of a few kilobytes can declare an image of many gigabytes: it is refused before anything is decoded. So is a strip:
# resizing holds as many rows as the result has, at the width of the file.
MOST_PIXELS, MOST_SIDE = 2**26, 2**16


@dataclass(frozen=True)
class Preprocessing:
    """How training turned an image file into the network's input, but for its random changes.

    Attributes:
        size: height and width of the result.
        channels: 1 (luminance) or 3; the decoder converts.
        shorter: the shorter side is resized to it and the centre cut out; None: the whole image is resized.
        upright: JPEG pictures are turned as their EXIF data say.
    """

    size: tuple[int, int]
    channels: int
    shorter: int | None = None
    upright: bool = True

    def __call__(self, image_bytes: tf.Tensor) -> tf.Tensor:
        """Decodes and resizes a batch of files.

        Args:
            image_bytes: (n,) strings, each a JPEG, PNG or BMP file.

        Returns:
            (n, height, width, channels) float32 of 0..255; rounded to whole numbers, unless the centre is cut out.
        """
        shape = tf.TensorSpec((*self.size, self.channels), tf.float32)
        return tf.map_fn(self._one, image_bytes, fn_output_signature=shape)

    def _one(self, content: tf.Tensor) -> tf.Tensor:
        sides = declared_size(content)
        message = f"images must be JPEG, PNG or BMP files of at most {MOST_PIXELS} pixels and {MOST_SIDE} a side"
        with tf.control_dependencies(
            [tf.debugging.assert_positive(sides, message),
             tf.debugging.assert_less_equal(sides, tf.constant(MOST_SIDE, tf.int64), message),
             tf.debugging.assert_less_equal(tf.reduce_prod(sides), tf.constant(MOST_PIXELS, tf.int64), message)]
        ):  # fmt: skip
            content = tf.identity(content)
        image = decode_file(content, self.channels, self.upright)
        if self.shorter:
            return tf.ensure_shape(center_cut(image, self.shorter, self.size), (*self.size, self.channels))
        return whole_image(image, self.size)

    @property
    def words(self) -> str:
        """For people."""
        height, width = self.size
        colour = ("JPEG turned as its EXIF says, " if self.upright else "") + ("luminance" if self.channels == 1 else "RGB")
        if self.shorter:
            return f"{colour}, shorter side resized to {self.shorter} (antialiased), centre {height}x{width} cut out"
        return f"{colour}, resized to {height}x{width} (bilinear, antialiased), rounded"


def declared_size(content: tf.Tensor) -> tf.Tensor:
    """Height and width as the head of a file says, without decoding it; zeros for what is no JPEG, PNG or BMP.

    Args:
        content: () string.

    Returns:
        (2,) int64.
    """
    head = file_head(content)

    def png() -> tf.Tensor:
        return tf.stack([number(head, range(23, 19, -1)), number(head, range(19, 15, -1))])

    def bmp() -> tf.Tensor:
        height = number(head, range(22, 26))  # a negative one: rows from the top
        return tf.stack([tf.minimum(height, (1 << 32) - height), number(head, range(18, 22))])

    return tf.case(
        [(starts(head, JPEG), lambda: tf.io.extract_jpeg_shape(content, tf.int64)[:2]),
         (starts(head, PNG), png), (starts(head, BMP), bmp)],
        default=lambda: tf.zeros(2, tf.int64),
        exclusive=True,
    )  # fmt: skip
