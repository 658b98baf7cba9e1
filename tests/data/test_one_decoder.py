"""An image file has the same bytes in memory and streamed, whatever kind it is, or is refused by both in the same words."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from exports import picture
from PIL import Image

from kerasgreedy.data import loaders as opening
from kerasgreedy.data.catalog import describe
from kerasgreedy.data.decode import read_image
from kerasgreedy.data.info import Known
from kerasgreedy.data.loaders import open_data, without_unreadable
from kerasgreedy.data.pipeline import Pipeline
from kerasgreedy.data.splits import ArraySplit, FileSplit
from kerasgreedy.errors import DataError
from kerasgreedy.export.image_bytes import Preprocessing
from kerasgreedy.spec.augmentation import Augment
from kerasgreedy.spec.recipe import Data

SIDE = 13
COLOUR = Image.fromarray(picture(SIDE, SIDE, seed=4))
ALPHA = Image.fromarray(picture(SIDE, SIDE, 4, seed=5), "RGBA")
DEEP = Image.fromarray(np.random.default_rng(0).integers(0, 65536, (SIDE, SIDE)).astype(np.uint16))


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def bitmap_of_4_bits():
    """Pillow writes none: a palette of 16 greys, rows of SIDE half bytes from the bottom."""
    row = -(-SIDE // 8) * 4
    rows = np.random.default_rng(1).integers(0, 256, row * SIDE).astype(np.uint8).tobytes()
    palette = b"".join(bytes([shade * 17] * 3 + [0]) for shade in range(16))
    head = struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 4, 0, len(rows), 0, 0, 16, 0)
    start = 14 + len(head) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + head + palette + rows


def deep_colour():
    """A PNG of 16 bits a channel, which Pillow does not write."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    pixels = np.random.default_rng(2).integers(0, 65536, (SIDE, SIDE * 3)).astype(">u2")
    content = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))
    head = struct.pack(">IIBBBBB", SIDE, SIDE, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


PNG, JPEG = saved(COLOUR, "PNG"), saved(COLOUR, "JPEG")
MOVING = {"save_all": True, "append_images": [COLOUR.rotate(90).quantize(16)]}
GOOD = {
    "jpeg": JPEG, "grey jpeg": saved(COLOUR.convert("L"), "JPEG"), "cmyk jpeg": saved(COLOUR.convert("CMYK"), "JPEG"),
    "progressive jpeg": saved(COLOUR, "JPEG", progressive=True), "half chroma jpeg": saved(COLOUR, "JPEG", subsampling=2),
    "png": PNG, "grey png": saved(COLOUR.convert("L"), "PNG"), "png of 1 bit": saved(COLOUR.convert("1"), "PNG"),
    "png of 16 bits": saved(DEEP, "PNG"), "colour png of 16 bits": deep_colour(),
    "palette png": saved(COLOUR.quantize(17), "PNG"),
    "transparent palette png": saved(COLOUR.quantize(9), "PNG", transparency=0),
    "half transparent palette png": saved(COLOUR.quantize(9), "PNG", transparency=bytes(range(0, 180, 20))),
    "alpha png": saved(ALPHA, "PNG"), "grey alpha png": saved(ALPHA.convert("LA"), "PNG"), "png and more": PNG + b"more",
    "bmp of 1 bit": saved(COLOUR.convert("1"), "BMP"), "bmp of 4 bits": bitmap_of_4_bits(),
    "bmp of 8 bits": saved(COLOUR.quantize(200), "BMP"), "grey bmp": saved(COLOUR.convert("L"), "BMP"),
    "bmp of 24 bits": saved(COLOUR, "BMP"), "bmp of 32 bits": saved(ALPHA, "BMP"),
    "gif": saved(COLOUR.quantize(32), "GIF"), "transparent gif": saved(COLOUR.quantize(32), "GIF", transparency=3),
    "moving gif": saved(COLOUR.quantize(16), "GIF", **MOVING), "grey gif": saved(COLOUR.convert("L"), "GIF"),
    "webp": saved(COLOUR, "WEBP"),
    "alpha webp": saved(ALPHA, "WEBP", lossless=True), "moving webp": saved(COLOUR, "WEBP", **MOVING),
    "tiff": saved(COLOUR, "TIFF"),
    "packed tiff": saved(COLOUR, "TIFF", compression="tiff_lzw"), "alpha tiff": saved(ALPHA, "TIFF"),
    "tiff of 16 bits": saved(DEEP, "TIFF"), "cmyk tiff": saved(COLOUR.convert("CMYK"), "TIFF"),
    "tiff of 1 bit": saved(COLOUR.convert("1"), "TIFF"), "avif": saved(COLOUR, "AVIF"), "alpha avif": saved(ALPHA, "AVIF"),
}  # fmt: skip
BAD = {
    "pixmap": (saved(COLOUR, "PPM"), "no JPEG, PNG, BMP, GIF, WEBP, TIFF, AVIF file"),
    "cut webp": (saved(COLOUR, "WEBP")[:-60], "."), "cut tiff": (saved(COLOUR, "TIFF")[:-99], "."),
    "cut packed tiff": (saved(COLOUR, "TIFF", compression="tiff_lzw")[:-99], "."), "cut avif": (saved(COLOUR, "AVIF")[:-60], "."),
    "tiff of fractions": (saved(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "32 bits"),
    "nothing": (b"", "no JPEG"), "text": (b"hello", "no JPEG"),
    "png without its end": (PNG[:-12], "the file is cut off"), "png without its last byte": (PNG[:-5], "."),
    "png cut in the middle": (PNG[: len(PNG) // 2], "."), "png of wrong sums": (PNG.replace(b"IDAT", b"IDAT\1"), "."),
    "cut jpeg": (JPEG[:-60], "truncated"), "cut bmp": (saved(COLOUR, "BMP")[:-99], "truncated"),
    "cut gif": (saved(COLOUR.quantize(32), "GIF")[:-150], "."),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """Two classes of good images."""
    for index, place in enumerate(("train/a", "train/b", "test/a", "test/b")):
        (tmp_path / place).mkdir(parents=True)
        Image.fromarray(picture(SIDE, SIDE, seed=index)).save(tmp_path / place / "0.png")
    return tmp_path


def both_ways(folder, size, channels, monkeypatch):
    """The training images as they are held in memory, and as they come out of a stream; neither is normalised."""
    data = Data(dataset=f"folder:{folder}", validation=0, normalize="unit")
    found = []
    for most, kind in ((opening.IN_MEMORY_BYTES, ArraySplit), (0, FileSplit)):
        monkeypatch.setattr(opening, "IN_MEMORY_BYTES", most)
        splits = open_data(data, describe(data), size, channels)
        assert isinstance(splits[0], kind)
        (batch,) = Pipeline(*splits, data, size, seed=0).evaluation("train", splits[0].size)
        found.append(np.rint(batch[0].numpy() * 255))
    return found


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(SIDE, SIDE), (7, 5), (20, 29)], ids=str)
def test_in_memory_and_streamed_images_have_the_same_bytes(size, channels, folder, monkeypatch, recwarn):
    for index, content in enumerate(GOOD.values()):
        (folder / f"train/a/{index:02}.jpg").write_bytes(content)
    held, streamed = both_ways(folder, size, channels, monkeypatch)
    assert held.shape == (len(GOOD) + 2, *size, channels)
    np.testing.assert_array_equal(held, streamed)
    # An export gives the same for what `predict` hands it, the pixels as a PNG file.
    images = [read_image(str(folder / f"train/a/{index:02}.jpg"), channels) for index in range(len(GOOD))]
    served = Preprocessing(size, channels)(tf.constant([tf.io.encode_png(image).numpy() for image in images]))
    np.testing.assert_array_equal(served, held[1 : len(GOOD) + 1])
    assert not [str(warning.message) for warning in recwarn if "PIL" in warning.filename]


def test_pixels_are_those_that_were_saved(tmp_path):
    """Of kinds without loss; of what is transparent the colour that is stored, of 16 bits the upper eight."""
    plain = {
        "png": np.asarray(COLOUR), "alpha png": np.asarray(ALPHA)[..., :3], "bmp of 24 bits": np.asarray(COLOUR),
        "transparent gif": np.asarray(COLOUR.quantize(32).convert("RGB")),
        "moving gif": np.asarray(COLOUR.quantize(16).convert("RGB")),
        "png of 16 bits": np.repeat((np.asarray(DEEP) >> 8)[..., None], 3, axis=-1),
        "transparent palette png": np.asarray(COLOUR.quantize(9).convert("RGB")),
    }  # fmt: skip
    for name, wanted in plain.items():
        (tmp_path / "f.png").write_bytes(GOOD[name])
        np.testing.assert_array_equal(read_image(str(tmp_path / "f.png"), 3), wanted, err_msg=name)


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_read_is_refused_in_the_same_words(kind, folder, monkeypatch):
    content, why = BAD[kind]
    path = folder / "train/b/1.jpg"
    path.write_bytes(content)
    messages = []
    for most in (opening.IN_MEMORY_BYTES, 0):
        monkeypatch.setattr(opening, "IN_MEMORY_BYTES", most)
        data = Data(dataset=f"folder:{folder}", validation=0, normalize="unit")
        with pytest.raises(DataError, match=f"train/b/1.jpg: not a readable image .*{why}") as caught:
            splits = open_data(data, describe(data), (SIDE, SIDE), 3)
            pipeline = Pipeline(*splits, data, (SIDE, SIDE), seed=0)
            with pipeline.named_failures():
                list(pipeline.training(0, 0, 3))
        messages.append(str(caught.value))
        assert without_unreadable(data, 3).skipped == ("train/b/1.jpg",)
    assert messages[0] == messages[1]


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "loop"])
def test_what_is_no_file_is_refused_at_once(kind, folder):
    path = folder / "train/b/1.jpg"
    make = {
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "device": lambda: path.symlink_to("/dev/zero"),
        "loop": lambda: path.symlink_to(path),
    }
    make[kind]()
    data = Data(dataset=f"folder:{folder}")
    with pytest.raises(DataError, match="train/b/1.jpg: not a readable image .(no ordinary file|Is a directory|Too many levels)"):
        describe(data)
    skip = data.model_copy(update={"corrupt": "skip"})
    assert without_unreadable(skip, 3).skipped == ("train/b/1.jpg",)
    train, _ = open_data(skip, describe(skip, Known(("train/b/1.jpg",))), (SIDE, SIDE), 3)
    assert train.size == 2


def test_names_that_are_no_text_are_streamed(folder, monkeypatch):
    odd = os.fsdecode(b"train/b/caf\xe9 \xff.jpg")
    (folder / odd).write_bytes(JPEG)
    held, streamed = both_ways(folder, (SIDE, SIDE), 3, monkeypatch)
    np.testing.assert_array_equal(held, streamed)
    np.testing.assert_array_equal(held[2], read_image(str(folder / odd), 3))


def test_damaged_bytes_never_end_in_another_error(tmp_path):
    """A few hundred files with some bytes changed: an image, or one clear error."""
    rng = np.random.default_rng(7)
    path = tmp_path / "f.jpg"
    outcomes = {True: 0, False: 0}
    for content in GOOD.values():
        for _ in range(12):
            damaged = bytearray(content)
            for place in rng.integers(0, len(damaged), 4):
                damaged[place] = rng.integers(256)
            path.write_bytes(damaged[: rng.integers(20, len(damaged) + 1)])
            try:
                image = read_image(str(path), 3)
                assert image.dtype == np.uint8 and image.shape[-1] == 3
                outcomes[True] += 1
            except DataError as error:
                assert "f.jpg: not a readable image" in str(error)
                outcomes[False] += 1
    assert min(outcomes.values()) > 5


@pytest.mark.parametrize("crop", [False, True])
def test_streamed_batches_have_a_size_that_is_known(crop, folder, monkeypatch):
    """The filter gradient by rows (`nn.conv`) is taken only where the number of images is known beforehand."""
    monkeypatch.setattr(opening, "IN_MEMORY_BYTES", 0)
    data = Data(dataset=f"folder:{folder}", validation=0, augment=Augment(random_resized_crop=crop))
    pipeline = Pipeline(*open_data(data, describe(data), (8, 6), 3), data, (8, 6), seed=0)
    image, label = tf.TensorSpec((2, 8, 6, 3), tf.float32), tf.TensorSpec((2,), tf.int32)
    assert pipeline.training(0, 0, 2).element_spec == (image, label)
    row = tf.TensorSpec((2,), tf.int64)
    assert pipeline.indexed(0, 0, 2).element_spec == (row, image, label)
    for view in (pipeline.view("test", None, 2), pipeline.view("train", 0, 2), pipeline.view("train", 0, 2, shards=2)):
        assert view.element_spec == (row, image, label)
    assert pipeline.evaluation("test", 2).element_spec == (image, label, tf.TensorSpec((2,), tf.float32))
