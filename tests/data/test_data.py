"""Splits and pipelines."""

import gzip
import struct

import numpy as np
import pytest
import tensorflow as tf
from data_files import make_folder
from PIL import Image

from kerasgreedy.data.arrays import ImageArrays
from kerasgreedy.data.augment import Draws, augment_batch, center_cut, random_resized_crop
from kerasgreedy.data.catalog import describe
from kerasgreedy.data.decode import read_idx
from kerasgreedy.data.folders import open_folder
from kerasgreedy.data.info import Known
from kerasgreedy.data.loaders import open_data, prepare_arrays
from kerasgreedy.data.pipeline import Pipeline
from kerasgreedy.data.splits import ArraySplit, FileSplit
from kerasgreedy.errors import DataError
from kerasgreedy.spec.augmentation import Augment
from kerasgreedy.spec.recipe import Data

RNG = np.random.default_rng(3)


def opened(data, size, channels):
    return open_data(data, describe(data), size, channels)


def arrays(count=50, side=6, channels=2):
    return ArraySplit(RNG.integers(0, 256, (count, side, side, channels)).astype(np.uint8), np.arange(count) % 5)


def pipeline(count=50, **settings):
    data = Data(**{"dataset": "digits", "validation": 0.2, **settings})
    return Pipeline(arrays(count), arrays(23), data, (6, 6), seed=1)


def test_digits_are_the_embedded_ones_with_a_fixed_stratified_test_split():
    train, test = opened(Data(dataset="digits"), (8, 8), 1)
    assert (train.size, test.size) == (1437, 360) and train.images.shape[1:] == (8, 8, 1)
    assert (train.images.min(), train.images.max()) == (0, 255)
    counts = np.bincount(test.labels)
    assert counts.min() >= 34 and counts.max() <= 38
    big, _ = opened(Data(dataset="digits"), (32, 32), 3)
    assert big.images.shape == (1437, 32, 32, 3)
    np.testing.assert_array_equal(big.images[..., 0], big.images[..., 2])


def test_pad_crop_and_flip_are_what_a_loop_over_images_gives():
    images = RNG.integers(1, 256, (40, 6, 8, 3)).astype(np.uint8)
    draws = Draws.of(40, (1, 2), Augment()).uniform
    got = augment_batch(tf.constant(images), tf.constant(draws), Augment(pad_crop=2, horizontal_flip=True)).numpy()
    tops, mirrored = set(), 0
    for image, draw, out in zip(images, draws, got, strict=True):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
        top, left = int(draw[2] * 5), int(draw[3] * 5)
        window = padded[top : top + 6, left : left + 8]
        np.testing.assert_array_equal(out, window[:, ::-1] if draw[4] < 0.5 else window)
        tops.add(top)
        mirrored += draw[4] < 0.5
    assert tops == {0, 1, 2, 3, 4} and 10 < mirrored < 30


def test_random_resized_crop_of_the_whole_image_is_a_resize():
    image = RNG.uniform(size=(9, 9, 1)).astype(np.float32)
    middle = np.log(4 / 3) / (2 * np.log(4 / 3))  # ratio 1
    whole = random_resized_crop(image, tf.constant([1.0, middle, 0.0, 0.0, 0.0], tf.float32), (9, 9))
    np.testing.assert_allclose(whole, image, atol=1e-6)
    part = random_resized_crop(image, tf.constant([0.0, middle, 0.999, 0.0, 0.0], tf.float32), (3, 3)).numpy()
    assert part.shape == (3, 3, 1)  # 8 % of 81 places: a 3x3 window at the lower left
    np.testing.assert_allclose(part, image[6:9, 0:3], atol=1e-6)


def test_center_cut_keeps_the_middle():
    image = np.zeros((8, 12, 1), np.float32)
    image[2:6, 4:8] = 1
    np.testing.assert_array_equal(center_cut(image, 8, (4, 4)), np.ones((4, 4, 1)))


def test_parts_do_not_overlap_and_follow_the_seed():
    one, two = pipeline(), pipeline()
    train, validation = set(one.parts["train"]), set(one.parts["validation"])
    assert len(validation) == 10 and not train & validation and train | validation == set(range(50))
    np.testing.assert_array_equal(one.parts["validation"], two.parts["validation"])
    limited = pipeline(train_examples=20, validation=4, test_examples=7)
    assert [len(limited.parts[p]) for p in ("train", "validation", "test")] == [16, 4, 7]


def test_normalisation_is_fitted_on_training_images_only():
    p = pipeline()
    images = p._train.images[p.parts["train"]].astype(np.float64)
    np.testing.assert_allclose(p.mean, images.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(p.deviation, images.std((0, 1, 2)), rtol=1e-5)
    batch = np.concatenate([x for x, _ in p.training(0, 0, 10)])
    np.testing.assert_allclose(batch.mean((0, 1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(batch.std((0, 1, 2)), 1, atol=1e-3)


def test_order_depends_on_seed_phase_and_epoch_and_can_start_anywhere():
    p = pipeline(augment=Augment(pad_crop=1, horizontal_flip=True))

    def epoch(*where, first_step=0):
        return [(x.numpy(), y.numpy()) for x, y in p.training(*where, 8, first_step)]

    whole = epoch(1, 2)
    assert len(whole) == p.steps(8) == 5
    for (x, y), (x2, y2) in zip(whole[3:], epoch(1, 2, first_step=3), strict=True):
        np.testing.assert_array_equal(x, x2)
        np.testing.assert_array_equal(y, y2)
    assert not np.array_equal(whole[0][0], epoch(1, 3)[0][0])
    assert not np.array_equal(whole[0][0], epoch(0, 2)[0][0])


def test_evaluation_counts_every_example_once_in_full_batches():
    p = pipeline()
    batches = list(p.evaluation("test", 10))
    assert [x.shape[0] for x, _, _ in batches] == [10, 10, 10]
    assert sum(float(tf.reduce_sum(w)) for _, _, w in batches) == 23
    labels = np.concatenate([y.numpy()[w.numpy() > 0] for _, y, w in batches])
    np.testing.assert_array_equal(labels, p._test.labels)


def write_idx(path, array):
    content = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def test_fashion_mnist_from_idx_files(tmp_path):
    images, labels = RNG.integers(0, 256, (11, 28, 28)).astype(np.uint8), (np.arange(11) % 10).astype(np.uint8)
    for stem, ending in (("train", ".gz"), ("t10k", "")):
        write_idx(tmp_path / f"{stem}-images-idx3-ubyte{ending}", images)
        write_idx(tmp_path / f"{stem}-labels-idx1-ubyte{ending}", labels)
    train, test = opened(Data(dataset="fashion_mnist", data_dir=str(tmp_path)), (28, 28), 1)
    np.testing.assert_array_equal(train.images[..., 0], images)
    np.testing.assert_array_equal(test.labels, labels)
    np.testing.assert_array_equal(read_idx(tmp_path / "train-images-idx3-ubyte.gz"), images)


def test_folder_of_class_folders(tmp_path):
    make_folder(tmp_path)
    info = describe(Data(dataset=f"folder:{tmp_path}"))
    assert (info.image_shape, info.class_names, info.train_examples, info.test_examples) == ((6, 6, 3), ("cat", "dog"), 8, 4)
    train, _ = opened(Data(dataset=f"folder:{tmp_path}"), (6, 6), 3)
    assert isinstance(train, ArraySplit) and list(train.labels) == [0] * 4 + [1] * 4
    np.testing.assert_array_equal(train.images[5], np.asarray(Image.open(tmp_path / "train/dog/1.png")))


def test_files_of_any_size_are_streamed_where_they_are_cut_at_random(tmp_path):
    make_folder(tmp_path, sizes=((9, 12), (20, 10)))
    data = Data(
        dataset=f"folder:{tmp_path}", test_resize=8, validation=0, augment=Augment(random_resized_crop=True, horizontal_flip=True)
    )
    sources = opened(data, (6, 6), 3)
    assert all(isinstance(source, FileSplit) for source in sources)
    p = Pipeline(*sources, data, (6, 6), seed=0)
    one, two = ([x.numpy() for x, _ in p.training(0, 0, 4)] for _ in range(2))
    assert [x.shape for x in one] == [(4, 6, 6, 3)] * 2
    np.testing.assert_array_equal(one, two)
    ((image, label, weight),) = list(p.evaluation("test", 5))
    assert image.shape == (5, 6, 6, 3) and list(label.numpy()) == [0, 0, 1, 1, 0] and list(weight.numpy()) == [1, 1, 1, 1, 0]


def test_a_file_that_breaks_a_stream_is_named(tmp_path):
    make_folder(tmp_path)
    data = Data(dataset=f"folder:{tmp_path}", validation=0, augment=Augment(random_resized_crop=True))
    sources = opened(data, (6, 6), 3)
    p = Pipeline(*sources, data, (6, 6), seed=0)
    (tmp_path / "train/dog/2.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="train/dog/2.png: not a readable image"), p.named_failures():
        list(p.training(0, 0, 8))


def test_an_error_that_no_file_is_to_blame_for_is_not_looked_for_in_all_of_them(tmp_path, monkeypatch):
    """A lost worker, or memory that ran out: no file is decoded to find one that could be to blame."""
    make_folder(tmp_path)
    data = Data(dataset=f"folder:{tmp_path}", validation=0, augment=Augment(random_resized_crop=True))
    p = Pipeline(*opened(data, (6, 6), 3), data, (6, 6), seed=0)
    monkeypatch.setattr("kerasgreedy.data.splits.read_image", lambda *_: pytest.fail("looked at a file"))
    for error in (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.ResourceExhaustedError):
        with pytest.raises(error), p.named_failures():
            raise error(None, None, "gone")


def test_labels_follow_the_training_classes(tmp_path):
    make_folder(tmp_path)
    for name in ("cat", "dog"):
        (tmp_path / "test" / name / "note.txt").write_text("not an image")
    folder = open_folder(str(tmp_path), Data(dataset="folder"), Known())
    files, names = folder.splits, folder.class_names
    assert names == ("cat", "dog") and [file.label for file in files["test"]] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((3, 4, 4)), np.zeros(3, int), "allowed: \\(n, height, width, channels\\)"),
        (np.zeros((3, 4, 4, 1), np.uint8), np.zeros(2, int), "allowed: 3 whole numbers"),
        (np.zeros((3, 4, 4, 1), np.uint8), np.zeros(3), "received float64"),
        (np.zeros((3, 4, 4, 1), np.float32), np.zeros(3, int), "received float32; allowed: uint8"),
    ],
)
def test_arrays_that_cannot_be_images_are_refused(images, labels, message):
    with pytest.raises(DataError, match=message):
        ArraySplit(images, labels)


def test_sixteen_bit_grey_keeps_its_shades(tmp_path):
    make_folder(tmp_path)
    Image.fromarray((np.arange(36, dtype=np.uint16) * 1800).reshape(6, 6)).save(tmp_path / "train/cat/0.png")
    train, _ = opened(Data(dataset=f"folder:{tmp_path}"), (6, 6), 1)
    np.testing.assert_array_equal(train.images[0].ravel(), np.arange(36) * 1800 // 256)


def test_images_of_several_sizes_are_said_to_be(tmp_path):
    make_folder(tmp_path)
    Image.new("RGB", (9, 9)).save(tmp_path / "train/dog/0.png")
    assert describe(Data(dataset=f"folder:{tmp_path}")).image_shape == (None, None, 3)


def test_hidden_files_and_folders_are_no_data(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "train/.cache").mkdir()
    (tmp_path / "train/cat/._0.png").write_bytes(b"x")
    folder = open_folder(str(tmp_path), Data(dataset="folder"), Known())
    files, names = folder.splits, folder.class_names
    assert names == ("cat", "dog") and len(files["train"]) == 8


def test_four_channels_do_not_become_three(tmp_path):
    images, labels = np.zeros((4, 6, 6, 4), np.uint8), np.arange(4)
    with pytest.raises(DataError, match="images have 4 channels and the network takes 3"):
        arrays = ImageArrays((images, labels), (images, labels))
        prepare_arrays(arrays, Data(dataset="own"), arrays.info(), (6, 6), 3)


def test_every_epoch_reads_the_same_copy_of_the_images():
    source = arrays()
    assert source._tensors[0] is source._tensors[0]
    for _ in range(2):
        source.batches(np.arange(10), 5, True)
    assert "_tensors" in vars(source)
