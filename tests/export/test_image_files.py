"""Image files as an export decodes and resizes them, beside Pillow."""

import io

import numpy as np
import pytest
import tensorflow as tf
from exports import picture
from PIL import Image

from kerasgreedy.data.augment import center_cut
from kerasgreedy.data.decode import read_image
from kerasgreedy.data.image_files import decode_file
from kerasgreedy.export.image_bytes import Preprocessing, declared_size

SIZES = [(1, 1), (7, 300), (255, 256), (513, 2)]


def bmp(image):
    """A 24-bit bitmap, rows from the bottom."""
    height, width, _ = image.shape
    rows = b"".join(row[:, ::-1].tobytes().ljust(-(-3 * width // 4) * 4, b"\0") for row in image[::-1])
    number = lambda value, size=4: value.to_bytes(size, "little", signed=True)  # noqa: E731
    head = number(40) + number(width) + number(height) + number(1, 2) + number(24, 2) + bytes(24)
    return b"BM" + number(54 + len(rows)) + bytes(4) + number(54) + head + rows


@pytest.mark.parametrize("size", SIZES)
def test_declared_size(size):
    image = picture(*size)
    for content in (tf.io.encode_png(image).numpy(), tf.io.encode_jpeg(image).numpy(), bmp(image)):
        assert tuple(declared_size(tf.constant(content)).numpy()) == size
    assert tuple(declared_size(tf.constant(b"no image")).numpy()) == (0, 0)


def test_a_bitmap_with_rows_from_the_top():
    content = bytearray(bmp(picture(5, 4)))
    content[22:26] = (-5).to_bytes(4, "little", signed=True)
    assert tuple(declared_size(tf.constant(bytes(content))).numpy()) == (5, 4)


@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp"])
def test_files_are_resized_as_in_training(kind):
    images = [picture(9, 13, seed=1), picture(40, 30, seed=2)]
    encode = {"png": lambda i: tf.io.encode_png(i).numpy(), "jpeg": lambda i: tf.io.encode_jpeg(i).numpy(), "bmp": bmp}[kind]
    files = [encode(image) for image in images]
    received = Preprocessing((8, 8), 3)(tf.constant(files)).numpy()
    for file, own in zip(files, received, strict=True):
        decoded = np.asarray(Image.open(io.BytesIO(file)))
        expected = np.clip(np.rint(tf.image.resize(decoded, (8, 8), antialias=True).numpy()), 0, 255)
        np.testing.assert_array_equal(own, expected)
    if kind != "jpeg":
        np.testing.assert_array_equal(Image.open(io.BytesIO(files[0])), images[0])


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


COLOUR = Image.fromarray(picture(16, 16, seed=4))
ALPHA = Image.fromarray(picture(16, 16, 4, seed=5), "RGBA")
TURNED = Image.Exif()
TURNED[0x0112] = 6
VARIANTS = {
    "palette": saved(COLOUR.quantize(17), "PNG"), "alpha": saved(ALPHA, "PNG"),
    "grey and alpha": saved(ALPHA.convert("LA"), "PNG"),
    "1 bit": saved(COLOUR.convert("1"), "PNG"), "transparent": saved(COLOUR.quantize(9), "PNG", transparency=0),
    "16 bits": saved(Image.fromarray(np.arange(0, 65536, 256, np.uint16).reshape(16, 16) + 77), "PNG"),
    "jpeg": saved(COLOUR, "JPEG"), "progressive": saved(COLOUR, "JPEG", progressive=True),
    "grey": saved(COLOUR.convert("L"), "JPEG"),    "cmyk": saved(COLOUR.convert("CMYK"), "JPEG"),
    "turned": saved(COLOUR, "JPEG", exif=TURNED),
    "bitmap": saved(COLOUR, "BMP"), "bitmap and alpha": saved(ALPHA, "BMP"), "grey bitmap": saved(COLOUR.convert("L"), "BMP"),
    "palette of a bitmap": saved(COLOUR.quantize(200), "BMP"),
}  # fmt: skip


@pytest.mark.parametrize("kind", VARIANTS)
def test_files_are_decoded_as_folders_in_memory_are(kind, tmp_path):
    """What Pillow reads for training: exactly in colour; luminance within rounding, and where chroma has fewer pixels."""
    (tmp_path / "file").write_bytes(VARIANTS[kind])
    for channels in (1, 3):
        if kind == "cmyk" and channels == 1:
            with pytest.raises(tf.errors.InvalidArgumentError):
                decode_file(tf.constant(VARIANTS[kind]), channels)
            continue
        received = decode_file(tf.constant(VARIANTS[kind]), channels).numpy().astype(int)
        expected = read_image(str(tmp_path / "file"), channels).astype(int)
        difference = np.abs(received - expected)
        if channels == 3 or "grey" in kind:
            assert difference.max() == 0
        else:
            assert difference.mean() < 0.6 and (difference.max() <= 1 or kind in ("jpeg", "progressive", "turned"))


@pytest.mark.parametrize(("place", "value"), [(28, 16), (28, 4), (30, 1), (14, 12)], ids=["16 bits", "4 bits", "packed", "core"])
def test_other_bitmaps_are_refused(place, value):
    content = bytearray(bmp(picture(8, 8)))
    content[place] = value
    with pytest.raises(tf.errors.InvalidArgumentError, match="8, 24 or 32 bits a pixel, uncompressed"):
        Preprocessing((8, 8), 3)(tf.constant([bytes(content)]))


def test_the_centre_is_cut_where_training_did():
    """A 20x40 image, shorter side to 10, centre 8x8: rows 1..9 and columns 6..14 of the 10x20 one."""
    image = picture(20, 40)
    received = Preprocessing((8, 8), 3, shorter=10)(tf.constant([tf.io.encode_png(image).numpy()])).numpy()[0]
    resized = tf.image.resize(image, (10, 20), antialias=True).numpy()
    np.testing.assert_allclose(received, resized[1:9, 6:14], atol=1e-4)


@pytest.mark.parametrize(("sides", "shorter", "size"), [((37, 90), 21, (16, 16)), ((90, 37), 50, (9, 33)), ((7, 9), 5, (8, 8))])
def test_the_cut_is_that_of_the_resized_image(sides, shorter, size):
    """Rows and columns of the whole resized image around its middle; zeros where it is smaller."""
    image = tf.constant(picture(*sides))
    scaled = [max(1, round(side * shorter / min(sides))) for side in sides]
    resized = tf.image.resize(image, scaled, antialias=True)
    expected = tf.image.resize_with_crop_or_pad(resized, *size)
    np.testing.assert_allclose(center_cut(image, shorter, size), expected, atol=1e-2)


def test_a_strip_does_not_fill_the_memory():
    """Whole, a file of 100 bytes would be 1,000 x 20,000,000 pixels when its shorter side is 1,000."""
    strip = tf.io.encode_png(np.full((1, 20_000, 3), 7, np.uint8)).numpy()
    received = Preprocessing((8, 8), 3, shorter=1000)(tf.constant([strip])).numpy()
    np.testing.assert_allclose(received, 7, atol=1e-4)


@pytest.mark.parametrize("place", [13, 17], ids=["pixels", "palette"])
def test_bitmaps_whose_parts_lie_beyond_their_end(place):
    content = bytearray(VARIANTS["palette of a bitmap"])
    content[place] = 0x7F
    with pytest.raises(tf.errors.InvalidArgumentError, match="its parts are not in their places"):
        decode_file(tf.constant(bytes(content)), 3)
