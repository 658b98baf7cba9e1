"""Image files to pixels in a TensorFlow graph, with the numbers that Pillow gives."""

import tensorflow as tf

JPEG, PNG, BMP = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM"
_HEAD = 34


def file_head(content: tf.Tensor) -> tf.Tensor:
    """The first bytes of a file (() string) as (34,) int64, zeros after its end."""
    raw = tf.io.decode_raw(tf.strings.substr(content, 0, _HEAD), tf.uint8)
    return tf.cast(tf.pad(raw, [[0, _HEAD - tf.shape(raw)[0]]]), tf.int64)


def starts(head: tf.Tensor, signature: bytes) -> tf.Tensor:
    """Whether a file begins so; () bool."""
    return tf.reduce_all(head[: len(signature)] == tf.constant(list(signature), tf.int64))


def number(head: tf.Tensor, places: range) -> tf.Tensor:
    """The whole number in these bytes, the lowest first; () int64."""
    return tf.add_n([head[place] * (1 << (8 * shift)) for shift, place in enumerate(places)])


def decode_file(content: tf.Tensor, channels: int) -> tf.Tensor:
    """The pixels of a JPEG, PNG, BMP or (its first picture) GIF file.

    JPEG takes libjpeg's accurate transform, as Pillow does; TensorFlow's default is off by 1 of 255 on average. The palette of a
    bitmap is looked up; TensorFlow gives its indices as if they were grey.

    Args:
        content: () string.
        channels: 1 (luminance) or 3.

    Returns:
        (height, width, channels) uint8.

    Raises:
        tf.errors.InvalidArgumentError: when it runs, it is no such file, or a damaged one.
    """
    head = file_head(content)
    image = tf.case(
        [
            (starts(head, JPEG), lambda: tf.io.decode_jpeg(content, channels, dct_method="INTEGER_ACCURATE")),
            (starts(head, BMP), lambda: _bitmap(content, head, channels)),
        ],
        default=lambda: tf.io.decode_image(content, channels, expand_animations=False),
        exclusive=True,
    )
    return tf.ensure_shape(image, (None, None, channels))


def _bitmap(content: tf.Tensor, head: tf.Tensor, channels: int) -> tf.Tensor:
    bits, compression = number(head, range(28, 30)), number(head, range(30, 34))
    pixels, table = number(head, range(10, 14)), 14 + number(head, range(14, 18))
    plain = (table >= 14 + 40) & (compression == 0) & ((bits == 8) | (bits == 24) | (bits == 32))
    # Where a palette does not end in front of the pixels, TensorFlow's message would quote the file, which is no text.
    whole = (table <= pixels) & (pixels <= tf.cast(tf.strings.length(content), tf.int64))
    with tf.control_dependencies(
        [tf.debugging.Assert(plain, ["BMP files must have 8, 24 or 32 bits a pixel, uncompressed"]),
         tf.debugging.Assert(whole, ["BMP file: its parts are not in their places"])]
    ):  # fmt: skip
        content = tf.identity(content)
    image = tf.ensure_shape(tf.io.decode_bmp(content), (None, None, None))

    def coloured() -> tf.Tensor:
        raw = tf.io.decode_raw(tf.strings.substr(content, table, tf.minimum(pixels - table, 1024)), tf.uint8)
        colours = tf.reshape(tf.pad(raw, [[0, 1024 - tf.shape(raw)[0]]]), (256, 4))[:, 2::-1]  # blue, green, red, 0 of each
        return tf.gather(colours, tf.cast(image[..., 0], tf.int32))

    image = tf.ensure_shape(tf.cond(bits == 8, coloured, lambda: image[..., :3]), (None, None, 3))
    return image if channels == 3 else tf.image.rgb_to_grayscale(image)
