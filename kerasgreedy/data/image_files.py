"""Image files to pixels in a TensorFlow graph, with the numbers that Pillow gives."""

from collections.abc import Callable

import tensorflow as tf

from kerasgreedy.data.image_kinds import ORIENTATION

JPEG, PNG, BMP = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM"
_HEAD = 34
# EXIF data stand in the first segments of a JPEG file, each of at most 65,535 bytes.
_SEGMENTS = 4 * 2**16
_EXIF = b"Exif\0\0"


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


def decode_file(content: tf.Tensor, channels: int, upright: bool = True) -> tf.Tensor:
    """The pixels of a JPEG, PNG, BMP or (its first picture) GIF file.

    JPEG takes libjpeg's accurate transform, as Pillow does; TensorFlow's default is off by 1 of 255 on average. The palette of a
    bitmap is looked up; TensorFlow gives its indices as if they were grey.

    Args:
        content: () string.
        channels: 1 (luminance) or 3.
        upright: JPEG pictures are turned as their EXIF data say.

    Returns:
        (height, width, channels) uint8.

    Raises:
        tf.errors.InvalidArgumentError: when it runs, it is no such file, or a damaged one.
    """
    head = file_head(content)
    image = tf.case(
        [
            (starts(head, JPEG), lambda: _jpeg(content, channels, upright)),
            (starts(head, BMP), lambda: _bitmap(content, head, channels)),
        ],
        default=lambda: tf.io.decode_image(content, channels, expand_animations=False),
        exclusive=True,
    )
    return tf.ensure_shape(image, (None, None, channels))


def _jpeg(content: tf.Tensor, channels: int, upright: bool) -> tf.Tensor:
    image = tf.io.decode_jpeg(content, channels, dct_method="INTEGER_ACCURATE")
    if not upright:
        return image
    tag = jpeg_orientation(content)
    image = tf.cond(tag >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    for axis, tags in ((1, (2, 3, 6, 7)), (0, (3, 4, 7, 8))):
        reverses = tf.reduce_any(tag == tf.constant(tags, tf.int64))
        image = tf.cond(reverses, lambda axis=axis, image=image: tf.reverse(image, [axis]), lambda image=image: image)
    return image


def jpeg_orientation(content: tf.Tensor) -> tf.Tensor:
    """The orientation in the EXIF data of a JPEG file.

    Args:
        content: () string.

    Returns:
        () int64, 1 to 8; 1 where nothing is said.
    """
    raw = tf.cast(tf.io.decode_raw(tf.strings.substr(content, 0, _SEGMENTS), tf.uint8), tf.int64)
    size = tf.size(raw, tf.int64)

    def byte(place: tf.Tensor) -> tf.Tensor:
        """Zero behind the end."""
        inside = (place >= 0) & (place < size)
        return tf.where(inside, tf.gather(raw, tf.clip_by_value(place, 0, size - 1)), 0)

    def is_exif(place: tf.Tensor) -> tf.Tensor:
        name = byte(place + 4 + tf.range(len(_EXIF), dtype=tf.int64))
        return (byte(place + 1) == 0xE1) & tf.reduce_all(name == tf.constant(list(_EXIF), tf.int64))

    def goes_on(place: tf.Tensor) -> tf.Tensor:
        marker = byte(place + 1)  # 0xDA: the picture begins
        return (byte(place) == 0xFF) & (marker != 0xDA) & (place < size) & ~is_exif(place)

    def following(place: tf.Tensor) -> tf.Tensor:
        length = byte(place + 2) * 256 + byte(place + 3)
        return tf.where(byte(place + 1) == 0xFF, place + 1, place + 2 + tf.maximum(length, 2))

    (found,) = tf.while_loop(lambda place: goes_on(place), lambda place: (following(place),), [tf.constant(2, tf.int64)])
    return tf.where(is_exif(found), _orientation_in(byte, found + 4 + len(_EXIF)), 1)


def _orientation_in(byte: Callable[[tf.Tensor], tf.Tensor], start: tf.Tensor) -> tf.Tensor:
    """The tag of the first directory of EXIF data that begin at `start`; 1 where it is not there.

    Args:
        byte: places (n,) or () to bytes of them.
    """
    small_first = byte(start) == ord("I")

    def read(places: tf.Tensor, count: int) -> tf.Tensor:
        values = [byte(places + index) for index in range(count)]
        small = tf.add_n([value * (1 << (8 * index)) for index, value in enumerate(values)])
        large = tf.add_n([value * (1 << (8 * index)) for index, value in enumerate(reversed(values))])
        return tf.where(small_first, small, large)

    directory = start + read(start + 4, 4)
    entries = directory + 2 + 12 * tf.range(tf.minimum(read(directory, 2), 1000))
    holds = (read(entries, 2) == ORIENTATION) & (read(entries + 2, 2) == 3) & (read(entries + 4, 4) == 1)  # one short number
    value = tf.reduce_max(tf.where(holds, read(entries + 8, 2), 0))
    return tf.where((value >= 1) & (value <= 8), value, 1)


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
