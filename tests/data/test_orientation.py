"""Pictures as cameras store them: eight ways of lying, and files whose EXIF data are wrong."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerasgreedy.data.decode import read_image
from kerasgreedy.data.image_files import jpeg_orientation
from kerasgreedy.data.image_kinds import image_size
from kerasgreedy.export.image_bytes import Preprocessing

# What has to be done to the stored picture, by NumPy: (transpose, then reverse rows, then reverse columns).
BY_HAND = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1),
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1], 8: lambda a: np.rot90(a),
}  # fmt: skip
# Large even squares of colour, so that JPEG keeps them apart: 3 rows of 2.
COLOURS = np.array([[[250, 10, 10], [10, 250, 10]], [[10, 10, 250], [250, 250, 10]], [[10, 250, 250], [120, 120, 120]]], np.uint8)
STORED = np.kron(COLOURS, np.ones((16, 16, 1), np.uint8))


def written(tag, kind, order=None):
    exif = Image.Exif()
    exif[0x010F] = "a maker"
    exif[0x0112] = tag
    if order:
        exif.endian = order
    file = io.BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95}
    Image.fromarray(STORED).save(file, kind, exif=exif.tobytes(), **options)
    return file.getvalue()


@pytest.mark.parametrize("tag", BY_HAND)
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "TIFF"])
def test_pictures_are_turned_upright(kind, tag, tmp_path):
    (tmp_path / "a").write_bytes(written(tag, kind))
    expected = BY_HAND[tag](STORED)
    for channels in (1, 3):
        received = read_image(str(tmp_path / "a"), channels)
        assert received.shape == (*expected.shape[:2], channels)
        assert image_size(str(tmp_path / "a"), upright=True) == expected.shape[:2]
        if channels == 3:
            assert np.abs(received.astype(int) - expected).mean() < 6  # what the encoder loses; another way up is 60 or more
    if kind != "TIFF":  # Pillow turns those itself
        assert read_image(str(tmp_path / "a"), 3, upright=False).shape == STORED.shape
        assert image_size(str(tmp_path / "a"), upright=False) == STORED.shape[:2]


@pytest.mark.parametrize("tag", BY_HAND)
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_graph_of_an_export_turns_them_too(tag, order, tmp_path):
    content = written(tag, "JPEG", order)
    assert content[30:32] == (b"II" if order == "<" else b"MM")
    (tmp_path / "a").write_bytes(content)
    assert jpeg_orientation(tf.constant(content)).numpy() == tag
    served = Preprocessing((24, 24), 3)(tf.constant([content, written(1, "JPEG")])).numpy()
    expected = tf.image.resize(read_image(str(tmp_path / "a"), 3), (24, 24), antialias=True).numpy().round()
    np.testing.assert_array_equal(served[0], expected)
    plain = Preprocessing((24, 24), 3, upright=False)(tf.constant([content])).numpy()
    np.testing.assert_array_equal(plain[0], served[1])


def test_damaged_exif_data_turn_nothing_and_lose_no_picture(tmp_path):
    content = written(6, "JPEG")
    at = content.index(b"Exif\0\0")
    generator = np.random.default_rng(0)
    for _ in range(20):  # any byte of the EXIF data may be wrong
        broken = bytearray(content)
        for place in generator.integers(at + 6, at + 48, size=3):
            broken[place] = generator.integers(256)
        (tmp_path / "a").write_bytes(broken)
        tag = int(jpeg_orientation(tf.constant(bytes(broken))).numpy())
        assert 1 <= tag <= 8
        shape = read_image(str(tmp_path / "a"), 3).shape
        assert shape in ((48, 32, 3), (32, 48, 3)) and shape[:2] == image_size(str(tmp_path / "a"), upright=True)
    for end in (2, 3, 4, at, at + 6, at + 10, at + 20):  # cut off anywhere
        assert jpeg_orientation(tf.constant(content[:end])).numpy() == 1


def test_other_tags_are_no_orientation():
    for tag in (0, 9, 300):
        assert jpeg_orientation(tf.constant(written(tag, "JPEG"))).numpy() == 1
