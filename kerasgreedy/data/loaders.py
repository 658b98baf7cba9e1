"""Opens a data set: from its name to its two splits, at the size that the network takes."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from kerasgreedy.data.arrays import ImageArrays, channels_last, check_classes, check_images
from kerasgreedy.data.augment import whole_image
from kerasgreedy.data.decode import read_idx, read_image
from kerasgreedy.data.fetch import open_copy
from kerasgreedy.data.folders import ImageFile, open_folder
from kerasgreedy.data.idx import idx_files
from kerasgreedy.data.info import DataInfo, Known
from kerasgreedy.data.named import kind_of
from kerasgreedy.data.npz import read_npz
from kerasgreedy.data.scale import to_bytes
from kerasgreedy.data.splits import ArraySplit, FileSplit, Split, TfdsSplit, to_channels
from kerasgreedy.errors import DataError
from kerasgreedy.spec.recipe import Data

IN_MEMORY_BYTES = 2 * 1024**3


def open_data(data: Data, info: DataInfo, size: tuple[int, int], channels: int) -> tuple[Split, Split]:
    """The training and the test split of a data set, resized to `size` unless the recipe cuts images at random.

    Args:
        data: the recipe's data section.
        info: facts of the data set; files that it names as skipped are left out.
        size: height and width of the network's input.
        channels: of the network's input; grey images are repeated, colour ones turned to luminance.

    Raises:
        DataError: missing or unreadable images.
    """
    kind, place = kind_of(data.dataset)
    if kind == "folder":
        return _checked(*_folder(place, data, info, size, channels), info)
    if kind == "tfds":
        return _checked(*_tfds(data, info, size, channels), info)
    if kind == "npz":
        arrays = read_npz(place, data.channel_axis)
    elif kind == "embedded":
        arrays = _digits()
    elif kind == "variant":
        arrays = _variant(data, info)
    else:
        arrays = _idx_or_copy(data.dataset, data)
    return prepare_arrays(arrays, data, info, size, channels)


def prepare_arrays(arrays: ImageArrays, data: Data, info: DataInfo, size: tuple[int, int], channels: int) -> tuple[Split, Split]:
    """Arrays, ready for the network's input.

    Raises:
        DataError: they are no images or no labels of the classes that `info` names, or their scale cannot be told.
    """
    given = [channels_last(check_images(images, info.dataset), data.channel_axis) for images, _ in (arrays.train, arrays.test)]
    images = to_bytes(given[0], given[1], data.scale, info.dataset)
    labels = arrays.train[1], arrays.test[1]
    splits = [ArraySplit(*part, info.classes, info.dataset) for part in zip(images, labels, strict=True)]
    train, test = (_fit(split, size, channels) for split in splits)
    return _checked(train, test, info)


def _checked(train: Split, test: Split, info: DataInfo) -> tuple[Split, Split]:
    """The splits of a data set of any kind; refuses classes without training images."""
    if train.labels_at_hand and test.labels_at_hand:
        check_classes(train.labels, test.labels, info.class_names, info.dataset)
    return train, test


def without_unreadable(data: Data, channels: int, known: Known | None = None) -> Known:
    """Decodes all files of a folder, for `data.corrupt: skip`; those that cannot be are to be left out.

    Args:
        data: the recipe's data section; its data set is a folder.
        channels: of the network's input.
        known: how the files are read.
    """
    known = known or Known()
    files = open_folder(kind_of(data.dataset)[1], data, known).files
    with ThreadPoolExecutor() as pool:
        good = pool.map(lambda file: is_readable(file.path, channels), files)
        return replace(known, skipped=tuple(file.name for file, whole in zip(files, good, strict=True) if not whole))


def is_readable(file: str, channels: int) -> bool:
    """Whether an image file can be decoded."""
    try:
        read_image(file, channels)
    except DataError:
        return False
    return True


def _digits() -> ImageArrays:
    """scikit-learn's digits, 8x8, 0..16; a fixed stratified fifth (360 of 1,797) is the test split."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = np.round(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    x_train, x_test, y_train, y_test = train_test_split(images, labels, test_size=360, random_state=0, stratify=labels)
    return ImageArrays((x_train, y_train), (x_test, y_test))


def _variant(data: Data, info: DataInfo) -> ImageArrays:
    from kerasgreedy.data.variants import make_variant

    mnist = _idx_or_copy("mnist", data)
    images, labels = (np.concatenate([mnist.train[i], mnist.test[i]]) for i in (0, 1))
    train, test = make_variant(info.dataset, images[..., 0], labels, info.train_examples, info.test_examples)
    return ImageArrays(train, test)


def _idx_or_copy(name: str, data: Data) -> ImageArrays:
    """MNIST or Fashion-MNIST, at their own size."""
    files = idx_files(name, data.data_dir)
    if files is None:
        return _copy_arrays(data, *open_copy(data))
    arrays = {key: read_idx(path) for key, path in files.items()}
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise DataError(f"{files[f'{split}_images']}: {images.shape} images do not go with {labels.shape} labels")
    train, test = ((arrays[f"{split}_images"][..., None], arrays[f"{split}_labels"]) for split in ("train", "test"))
    return ImageArrays(train, test)


def _folder(place: str, data: Data, info: DataInfo, size: tuple[int, int], channels: int) -> tuple[Split, Split]:
    splits = open_folder(place, data, info.known).splits
    if _fits_memory(splits, data, size, channels):
        train, test = (_decode_all(files, info, size, channels) for files in splits.values())
        return train, test
    streamed = [FileSplit([(file.path, file.label) for file in files], channels, info.known.upright) for files in splits.values()]
    return streamed[0], streamed[1]


def _fits_memory(splits: dict[str, list[ImageFile]], data: Data, size: tuple[int, int], channels: int) -> bool:
    """Whether a folder is decoded once and held; what is cut at random needs files at their own size."""
    if data.augment.random_resized_crop or data.test_resize is not None:
        return False
    return sum(map(len, splits.values())) * size[0] * size[1] * channels <= IN_MEMORY_BYTES


def _decode_all(files: Sequence[ImageFile], info: DataInfo, size: tuple[int, int], channels: int) -> ArraySplit:
    images = np.empty((len(files), *size, channels), np.uint8)

    def decode(index: int) -> None:
        image = read_image(files[index].path, channels, info.known.upright)
        images[index] = image if image.shape[:2] == size else resize(image)

    spec = tf.TensorSpec((None, None, channels), tf.uint8)
    resize = tf.function(lambda image: whole_image(image, size), input_signature=[spec])
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(decode, range(len(files))):
            pass
    return ArraySplit(images, np.array([file.label for file in files]), info.classes, info.dataset)


def _tfds(data: Data, info: DataInfo, size: tuple[int, int], channels: int) -> tuple[Split, Split]:
    builder, test = open_copy(data)
    shape = builder.info.features["image"].shape
    examples = sum(int(builder.info.splits[split].num_examples) for split in ("train", test))
    cut = data.augment.random_resized_crop or data.test_resize is not None
    if None not in shape and examples * int(np.prod(shape)) <= IN_MEMORY_BYTES and not cut:
        return prepare_arrays(_copy_arrays(data, builder, test), data, info, size, channels)
    return TfdsSplit(builder, "train", channels, info.classes), TfdsSplit(builder, test, channels, info.classes)


def _copy_arrays(data: Data, builder: Any, test: str) -> ImageArrays:
    """A prepared copy whose images have one size, read whole."""
    import tensorflow_datasets as tfds

    try:
        arrays = [tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1)) for split in ("train", test)]
    except (tf.errors.OpError, OSError) as error:
        what = type(error).__name__
        raise DataError(
            f"{data.dataset}: the prepared copy in {builder.data_dir} cannot be read ({what}); prepare it again"
        ) from None
    train, held_out = ((part["image"], part["label"]) for part in arrays)
    return ImageArrays(train, held_out)


def _fit(split: ArraySplit, size: tuple[int, int], channels: int) -> ArraySplit:
    images = split.images
    if images.shape[1:3] != size:
        parts = [whole_image(images[i : i + 1024], size).numpy().astype(np.uint8) for i in range(0, len(images), 1024)]
        images = np.concatenate(parts)
    if images is split.images and images.shape[-1] == channels:
        return split
    return ArraySplit(to_channels(tf.constant(images), channels).numpy(), split.labels)
