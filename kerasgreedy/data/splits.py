"""The two splits of a data set as TensorFlow reads them: arrays in memory, files, or a TFDS copy."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import tensorflow as tf

from kerasgreedy.data.arrays import check_images, check_labels
from kerasgreedy.data.decode import read_image
from kerasgreedy.data.distributed import unconverted
from kerasgreedy.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


# What is done to a batch (index, image, label).
Change: TypeAlias = Callable[..., tuple[tf.Tensor, ...]]


class Split(ABC):
    """One split of a data set. Examples are known by their index from 0 to `size` - 1.

    Attributes:
        size: number of examples.
        labels: (size,) int32.
        uniform: whether all images have the network's size.
        labels_at_hand: whether `labels` can be had without reading very much.
    """

    size: int
    labels: "NDArray[np.int32]"
    uniform: bool = True
    labels_at_hand: bool = True

    @abstractmethod
    def batches(
        self, order: "NDArray[np.int64]", batch_size: int, drop_remainder: bool, first: int = 0, seed: int | None = None
    ) -> tf.data.Dataset:
        """Batches of (index [b], image uint8, label [b]) over the examples named in `order`.

        Images are stacked [b, h, w, c] where `uniform` is true, and one example at a time (no batch axis) where not.

        Args:
            order: indices of the wanted examples.
            first: so many examples at the start are left out.
            seed: a split that cannot follow an order shuffles by it; None keeps the split's own order.
        """


class ArraySplit(Split):
    """Images that are held in memory.

    Args:
        images: (n, height, width, channels) uint8.
        labels: (n,) whole numbers from 0.
        classes: number of classes; None: not known.
        what: names the images in a message.

    Raises:
        DataError: they are no images or no labels of these classes.
    """

    def __init__(self, images: Any, labels: Any, classes: int | None = None, what: str = "images"):
        self.images = check_images(images, what)
        if self.images.dtype != np.uint8:
            raise DataError(f"{what}: received {self.images.dtype}; allowed: uint8")
        self.labels = check_labels(labels, len(self.images), classes, what)
        self.size = len(self.images)

    @functools.cached_property
    def _tensors(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Made once, in the host's memory: every epoch reads the same copy."""
        with tf.device("CPU:0"):
            return tf.constant(self.images), tf.constant(self.labels)

    def batches(
        self,
        order: "NDArray[np.int64]",
        batch_size: int,
        drop_remainder: bool,
        first: int = 0,
        seed: int | None = None,
        then: Change | None = None,
    ) -> tf.data.Dataset:
        """See `Split`.

        Args:
            then: done to each batch, in the same call of TensorFlow's.
        """
        images, labels = self._tensors

        def read(index: tf.Tensor) -> tuple[tf.Tensor, ...]:
            batch = index, tf.gather(images, index), tf.gather(labels, index)
            return then(*batch) if then else batch

        indices = tf.data.Dataset.from_tensor_slices(order[first:]).batch(batch_size, drop_remainder=drop_remainder)
        return indices.map(unconverted(read), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


class FileSplit(Split):
    """Image files that are decoded anew each time, at their own size.

    Args:
        files: path and label of each.
        channels: 1 or 3.
        upright: see `read_image`.

    Attributes:
        fault: of a file that could not be decoded, which ended the batches.
    """

    uniform = False

    def __init__(self, files: Sequence[tuple[str, int]], channels: int, upright: bool = True):
        self.upright = upright
        self.fault: DataError | None = None
        self.files = [file for file, _ in files]
        self.labels = np.array([label for _, label in files], np.int32)
        self.channels = channels
        self.size = len(files)

    def batches(
        self, order: "NDArray[np.int64]", batch_size: int, drop_remainder: bool, first: int = 0, seed: int | None = None
    ) -> tf.data.Dataset:
        count = len(order) // batch_size * batch_size if drop_remainder else len(order)
        with tf.device("CPU:0"):
            labels = tf.constant(self.labels)

        def read(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            image = tf.numpy_function(self._decode, [index], tf.uint8, stateful=False)
            return index, tf.ensure_shape(image, (None, None, self.channels)), labels[index]

        indices = tf.data.Dataset.from_tensor_slices(order[first:count])
        return indices.map(unconverted(read), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def _decode(self, index: "NDArray[np.int64]") -> "NDArray[np.uint8]":
        try:
            return read_image(self.files[int(index)], self.channels, self.upright)
        except DataError as error:
            self.fault = self.fault or error
            raise


class PictureSplit(Split):
    """A few images in memory, each at its own size.

    Args:
        images: (height, width, channels) uint8.
        labels: one for each.
    """

    uniform = False

    def __init__(self, images: Sequence["NDArray[np.uint8]"], labels: "NDArray[np.int32]"):
        self.images, self.labels = images, labels
        self.size = len(images)

    def batches(
        self, order: "NDArray[np.int64]", batch_size: int, drop_remainder: bool, first: int = 0, seed: int | None = None
    ) -> tf.data.Dataset:
        count = len(order) // batch_size * batch_size if drop_remainder else len(order)
        shape = (None, None, self.images[0].shape[-1])
        signature = tuple(tf.TensorSpec(*spec) for spec in (((), tf.int64), (shape, tf.uint8), ((), tf.int32)))
        wanted = order[first:count]
        return tf.data.Dataset.from_generator(
            lambda: ((index, self.images[index], self.labels[index]) for index in wanted), output_signature=signature
        )


class TfdsSplit(Split):
    """A TFDS split too large for memory. Order is shuffled within a buffer by the seed.

    Args:
        classes: number of classes.
    """

    uniform = False
    BUFFER = 10_000
    # Reading the labels of more bytes than these would take minutes each time that a run is opened.
    MOST_BYTES = 20_000_000_000

    def __init__(self, builder: Any, split: str, channels: int, classes: int):
        self._builder = builder
        self._split = split
        self.channels, self.classes = channels, classes
        self.size = int(builder.info.splits[split].num_examples)
        self.labels_at_hand = sum(Path(file).stat().st_size for file in builder.info.splits[split].filepaths) <= self.MOST_BYTES

    @functools.cached_property
    def labels(self) -> "NDArray[np.int32]":  # type: ignore[override]
        """Reads the whole split, without decoding an image."""
        import tensorflow_datasets as tfds

        encoded = {"image": tfds.decode.SkipDecoding()}
        data = self._builder.as_dataset(split=self._split, shuffle_files=False, decoders=encoded)
        batches = data.map(lambda example: example["label"]).batch(4096)
        labels = np.concatenate([batch.numpy() for batch in batches])
        return check_labels(labels, self.size, self.classes, f"{self._builder.name}, split {self._split}")

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
            lambda i, x: (i, to_channels(image.decode_example(x["image"]), self.channels), tf.cast(x["label"], tf.int32)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )


def to_channels(images: tf.Tensor, channels: int) -> tf.Tensor:
    """Images of `channels` channels: grey ones are repeated, colour ones turned to luminance.

    Raises:
        DataError: any other conversion.
    """
    given = images.shape[-1]
    if given == channels:
        return images
    if (given, channels) == (1, 3):
        return tf.image.grayscale_to_rgb(images)
    if (given, channels) == (3, 1):
        return tf.image.rgb_to_grayscale(images)
    raise DataError(f"images have {given} channels and the network takes {channels}; 1 and 3 convert into each other, no others")
