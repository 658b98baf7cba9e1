"""Where images come from: arrays in memory, files, or a TFDS data set."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from kerasgreedy.data import catalog
from kerasgreedy.data.decode import read_idx, read_image
from kerasgreedy.errors import DataError
from kerasgreedy.spec.recipe import Data

if TYPE_CHECKING:
    from numpy.typing import NDArray

IN_MEMORY_BYTES = 2 * 1024**3


class Source(ABC):
    """One split of a data set. Examples are known by their index from 0 to `size` - 1."""

    size: int

    uniform: bool = True

    @abstractmethod
    def batches(
        self, order: "NDArray[np.int64]", batch_size: int, drop_remainder: bool, first: int = 0, seed: int | None = None
    ) -> tf.data.Dataset:
        """Batches of (index [b], image uint8, label [b]) over the examples named in `order`.

        Images are stacked [b, h, w, c] where `uniform` is true, and one example at a time (no batch axis) where not.

        Args:
            order: indices of the wanted examples.
            first: so many examples at the start are left out.
            seed: a source that cannot follow an order shuffles by it; None keeps the source's own order.
        """


class ArraySource(Source):
    """Images that are held in memory.

    Args:
        images: (n, height, width, channels) uint8, or float in 0..1 or 0..255.
        labels: (n,) whole numbers from 0.
    """

    def __init__(self, images: Any, labels: Any):
        self.images = _as_bytes(np.asarray(images))
        self.labels = np.asarray(labels)
        if self.images.ndim != 4:
            raise DataError(f"images: received an array of shape {self.images.shape}; allowed: (n, height, width, channels)")
        if self.labels.shape != (len(self.images),) or not np.issubdtype(self.labels.dtype, np.integer):
            raise DataError(
                f"labels: received {self.labels.dtype} of shape {self.labels.shape}; allowed: {len(self.images)} whole numbers"
            )
        if self.labels.size and self.labels.min() < 0:
            raise DataError(f"labels: received {self.labels.min()}; allowed: 0 and above")
        self.labels = self.labels.astype(np.int32)
        self.size = len(self.images)

    @functools.cached_property
    def _tensors(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Made once, in the host's memory: every epoch reads the same copy."""
        with tf.device("CPU:0"):
            return tf.constant(self.images), tf.constant(self.labels)

    def batches(
        self, order: "NDArray[np.int64]", batch_size: int, drop_remainder: bool, first: int = 0, seed: int | None = None
    ) -> tf.data.Dataset:
        images, labels = self._tensors
        indices = tf.data.Dataset.from_tensor_slices(order[first:]).batch(batch_size, drop_remainder=drop_remainder)
        return indices.map(
            lambda index: (index, tf.gather(images, index), tf.gather(labels, index)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )


class FileSource(Source):
    """Image files that are decoded anew each time, at their own size."""

    uniform = False

    def __init__(self, files: Sequence[tuple[str, int]], channels: int):
        self.files = [file for file, _ in files]
        self.labels = np.array([label for _, label in files], np.int32)
        self.channels = channels
        self.size = len(files)

    def batches(
        self, order: "NDArray[np.int64]", batch_size: int, drop_remainder: bool, first: int = 0, seed: int | None = None
    ) -> tf.data.Dataset:
        count = len(order) // batch_size * batch_size if drop_remainder else len(order)
        with tf.device("CPU:0"):
            files, labels = tf.constant(self.files), tf.constant(self.labels)

        def read(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            image = tf.io.decode_image(tf.io.read_file(files[index]), channels=self.channels, expand_animations=False)
            return index, tf.ensure_shape(image, [None, None, self.channels]), labels[index]

        indices = tf.data.Dataset.from_tensor_slices(order[first:count])
        return indices.map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def first_unreadable(self) -> DataError | None:
        """Looks for the file that stopped a run; slow, used only after a failure."""
        for file in self.files:
            try:
                tf.io.decode_image(tf.io.read_file(file), channels=self.channels, expand_animations=False)
            except tf.errors.OpError as error:
                return DataError(f"{file}: not a readable image ({str(error.message).partition('[Op')[0].strip()})")
        return None


class TfdsSource(Source):
    """A TFDS split too large for memory. Order is shuffled within a buffer by the seed."""

    uniform = False
    BUFFER = 10_000

    def __init__(self, builder: Any, split: str, channels: int):
        self._builder = builder
        self._split = split
        self.channels = channels
        self.size = int(builder.info.splits[split].num_examples)

    def batches(
        self, order: "NDArray[np.int64]", batch_size: int, drop_remainder: bool, first: int = 0, seed: int | None = None
    ) -> tf.data.Dataset:
        member = np.zeros(self.size, bool)
        member[order] = True
        mask = tf.constant(member)
        import tensorflow_datasets as tfds

        # Images stay encoded until they are known to be wanted, which also keeps the shuffle buffer small.
        image = self._builder.info.features["image"]
        encoded = {"image": tfds.decode.SkipDecoding()}
        data = self._builder.as_dataset(split=self._split, shuffle_files=False, decoders=encoded).enumerate()
        data = data.filter(lambda index, _: mask[index])
        if seed is not None:
            data = data.shuffle(self.BUFFER, seed=seed)
        if drop_remainder:
            data = data.take(len(order) // batch_size * batch_size)
        return data.skip(first).map(
            lambda i, x: (i, _channels(image.decode_example(x["image"]), self.channels), tf.cast(x["label"], tf.int32)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )


def open_data(data: Data, size: tuple[int, int], channels: int) -> tuple[Source, Source]:
    """The training and the test split of a data set, resized to `size` unless the recipe cuts images at random.

    Args:
        data: the recipe's data section.
        size: height and width of the network's input.
        channels: of the network's input; grey images are repeated, colour ones turned to luminance.

    Raises:
        DataError: missing or unreadable images.
    """
    kind, _, rest = data.dataset.partition(":")
    if kind == "digits":
        return _resized(_digits(), size, channels)
    if kind == "fashion_mnist":
        return _resized(_fashion(data), size, channels)
    if kind == "folder":
        return _folder(rest, data, size, channels)
    return _tfds(rest, data, size, channels)


def prepare_arrays(train: Any, test: Any, size: tuple[int, int], channels: int) -> tuple[Source, Source]:
    """Arrays of a caller, ready for the network's input."""
    return _resized((ArraySource(*train), ArraySource(*test)), size, channels)


def _digits() -> tuple[ArraySource, ArraySource]:
    """scikit-learn's digits, 8x8, 0..16; a fixed stratified fifth (360 of 1,797) is the test split."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = np.round(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    x_train, x_test, y_train, y_test = train_test_split(images, labels, test_size=360, random_state=0, stratify=labels)
    return ArraySource(x_train, y_train), ArraySource(x_test, y_test)


def _fashion(data: Data) -> tuple[ArraySource, ArraySource]:
    files = catalog.fashion_files(data)
    arrays = {key: read_idx(path) for key, path in files.items()}
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise DataError(f"{files[f'{split}_images']}: {images.shape} images do not go with {labels.shape} labels")
    return tuple(ArraySource(arrays[f"{s}_images"][..., None], arrays[f"{s}_labels"]) for s in ("train", "test"))  # type: ignore[return-value]


def _folder(place: str, data: Data, size: tuple[int, int], channels: int) -> tuple[Source, Source]:
    splits, _ = catalog.folder_files(place)
    in_memory = not data.augment.random_resized_crop and data.test_resize is None
    if in_memory and sum(map(len, splits.values())) * size[0] * size[1] * channels <= IN_MEMORY_BYTES:
        return _decode_all(splits["train"], size, channels), _decode_all(splits["test"], size, channels)
    return FileSource(splits["train"], channels), FileSource(splits["test"], channels)


def _decode_all(files: Sequence[tuple[str, int]], size: tuple[int, int], channels: int) -> ArraySource:
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(lambda item: read_image(item[0], channels, size), files, chunksize=256))
    return ArraySource(np.stack(images), np.array([label for _, label in files]))


def _tfds(name: str, data: Data, size: tuple[int, int], channels: int) -> tuple[Source, Source]:
    import tensorflow_datasets as tfds

    try:
        folders = catalog.tfds_folders(name, data)
        builder = tfds.builder_from_directory(str(folders[-1])) if folders else tfds.builder(name, data_dir=data.data_dir)
        if not folders:
            builder.download_and_prepare()
        test = catalog.tfds_test_split(name, list(builder.info.splits))
    except DataError:
        raise
    except Exception as error:  # TFDS raises many unrelated types when a download fails
        raise catalog.tfds_missing(name, data, f" and it could not be prepared ({type(error).__name__}: {error})") from None
    try:
        return _open_tfds(builder, test, data, size, channels)
    except (tf.errors.OpError, OSError) as error:
        what = type(error).__name__
        raise DataError(
            f"tfds:{name}: the prepared copy in {builder.data_dir} cannot be read ({what}); prepare it again"
        ) from None


def _open_tfds(builder: Any, test: str, data: Data, size: tuple[int, int], channels: int) -> tuple[Source, Source]:
    import tensorflow_datasets as tfds

    shape = builder.info.features["image"].shape
    examples = sum(int(builder.info.splits[split].num_examples) for split in ("train", test))
    cut = data.augment.random_resized_crop or data.test_resize is not None
    if None not in shape and examples * int(np.prod(shape)) <= IN_MEMORY_BYTES and not cut:
        arrays = [tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1)) for split in ("train", test)]
        return _resized(tuple(ArraySource(a["image"], a["label"]) for a in arrays), size, channels)  # type: ignore[arg-type]
    return TfdsSource(builder, "train", channels), TfdsSource(builder, test, channels)


def _resized(sources: tuple[ArraySource, ArraySource], size: tuple[int, int], channels: int) -> tuple[Source, Source]:
    train, test = (_fit(source, size, channels) for source in sources)
    return train, test


def _fit(source: ArraySource, size: tuple[int, int], channels: int) -> ArraySource:
    images = source.images
    if images.shape[1:3] != size:
        parts = [tf.image.resize(images[i : i + 1024], size, antialias=True).numpy() for i in range(0, len(images), 1024)]
        images = np.round(np.concatenate(parts)).clip(0, 255).astype(np.uint8)
    return ArraySource(_channels(tf.constant(images), channels).numpy(), source.labels)


def _channels(images: tf.Tensor, channels: int) -> tf.Tensor:
    given = images.shape[-1]
    if given == channels:
        return images
    if (given, channels) == (1, 3):
        return tf.image.grayscale_to_rgb(images)
    if (given, channels) == (3, 1):
        return tf.image.rgb_to_grayscale(images)
    raise DataError(f"images have {given} channels and the network takes {channels}; 1 and 3 convert into each other, no others")


def _as_bytes(images: "NDArray[Any]") -> "NDArray[np.uint8]":
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.number) or not images.size:
        raise DataError(f"images: received {images.dtype} of shape {images.shape}; allowed: uint8, or numbers in 0..1 or 0..255")
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 255):
        raise DataError(f"images: received values from {low:g} to {high:g}; allowed: 0..1 or 0..255")
    return np.round(images * (255 if high <= 1 else 1)).astype(np.uint8)
