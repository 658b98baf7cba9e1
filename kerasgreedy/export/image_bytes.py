"""Encoded images to the network's input, inside a TensorFlow graph that leaves this package behind."""

from dataclasses import dataclass

import tensorflow as tf

from kerasgreedy.data.augment import center_cut

# A file of a few kilobytes can declare an image of many gigabytes: it is refused before anything is decoded.
MOST_PIXELS = 2**26
_HEAD = 32


@dataclass(frozen=True)
class Preprocessing:
    """How training turned an image file into the network's input, but for its random changes.

    Attributes:
        size: height and width of the result.
        channels: 1 (luminance) or 3; the decoder converts.
        shorter: the shorter side is resized to it and the centre cut out; None: the whole image is resized.
    """

    size: tuple[int, int]
    channels: int
    shorter: int | None = None

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
        pixels = declared_pixels(content)
        message = f"images must be JPEG, PNG or BMP files of at most {MOST_PIXELS} pixels"
        with tf.control_dependencies(
            [tf.debugging.assert_greater(pixels, tf.constant(0, tf.int64), message),
             tf.debugging.assert_less_equal(pixels, tf.constant(MOST_PIXELS, tf.int64), message)]
        ):  # fmt: skip
            content = tf.identity(content)
        image = tf.io.decode_image(content, channels=self.channels, expand_animations=False)
        image = tf.ensure_shape(image, (None, None, self.channels))
        if self.shorter:
            return tf.ensure_shape(center_cut(image, self.shorter, self.size), (*self.size, self.channels))
        resized = tf.image.resize(image, self.size, antialias=True)
        return tf.clip_by_value(tf.round(resized), 0.0, 255.0)

    @property
    def words(self) -> str:
        """For people."""
        height, width = self.size
        colour = "luminance" if self.channels == 1 else "RGB"
        if self.shorter:
            return f"{colour}, shorter side resized to {self.shorter} (antialiased), centre {height}x{width} cut out"
        return f"{colour}, resized to {height}x{width} (bilinear, antialiased), rounded"


def declared_pixels(content: tf.Tensor) -> tf.Tensor:
    """Height times width as the head of a file says, without decoding it; 0 for what is no JPEG, PNG or BMP.

    Args:
        content: () string.

    Returns:
        () int64.
    """
    raw = tf.io.decode_raw(tf.strings.substr(content, 0, _HEAD), tf.uint8)
    head = tf.cast(tf.pad(raw, [[0, _HEAD - tf.shape(raw)[0]]]), tf.int64)

    def number(places: range) -> tf.Tensor:
        return tf.add_n([head[place] * (1 << (8 * shift)) for shift, place in enumerate(places)])

    def starts(signature: bytes) -> tf.Tensor:
        return tf.reduce_all(head[: len(signature)] == tf.constant(list(signature), tf.int64))

    def png() -> tf.Tensor:
        return number(range(19, 15, -1)) * number(range(23, 19, -1))

    def bmp() -> tf.Tensor:
        height = number(range(22, 26))
        return number(range(18, 22)) * tf.minimum(height, (1 << 32) - height)  # rows from the top: a negative height

    def jpeg() -> tf.Tensor:
        return tf.reduce_prod(tf.io.extract_jpeg_shape(content, tf.int64)[:2])

    none = tf.constant(0, tf.int64)
    return tf.case(
        [(starts(b"\xff\xd8\xff"), jpeg), (starts(b"\x89PNG\r\n\x1a\n"), png), (starts(b"BM"), bmp)],
        default=lambda: none,
        exclusive=True,
    )
