"""Images that are held in memory, and the checks that they are images with labels. Imports NumPy and no TensorFlow."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from kerasgreedy.data.info import MOST_CLASSES, DataInfo, common_size
from kerasgreedy.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

ChannelAxis: TypeAlias = Literal["first", "last"] | None
# So many channels have pictures; an axis that is longer than the most of them may be height or width.
PICTURE_CHANNELS = (1, 3, 4)


def check_images(images: Any, what: str) -> "NDArray[Any]":
    """The images as an array.

    Args:
        what: names them in a message.

    Raises:
        DataError: they are not (n, height, width, channels) numbers, n above 0.
    """
    images = np.asarray(images)
    if images.ndim != 4 or 0 in images.shape:
        raise DataError(f"{what}: received shape {images.shape}; allowed: (n, height, width, channels), none 0")
    if not np.issubdtype(images.dtype, np.number) or np.issubdtype(images.dtype, np.complexfloating):
        raise DataError(f"{what}: received {images.dtype}; allowed: uint8, or numbers in 0..1 or 0..255")
    return images


def as_channels_last(shape: Sequence[int], axis: ChannelAxis, what: str) -> tuple[int, int, int, int]:
    """The shape of images when their channels come last.

    Args:
        shape: (n, height, width, channels) or, as `axis` says, (n, channels, height, width).
        what: names them in a message.

    Raises:
        DataError: `axis` does not say which, and it could be either.
    """
    count, one, two, three = shape
    most = max(PICTURE_CHANNELS)
    if axis is None and one in PICTURE_CHANNELS and two > most and three > most:
        raise DataError(
            f"{what}: received shape {tuple(shape)}, which may be {one} channels of {two}x{three} or {three} channels of "
            f"{one}x{two}; say which with data.channel_axis=first or data.channel_axis=last"
        )
    return (count, two, three, one) if axis == "first" else (count, one, two, three)


def channels_last(images: "NDArray[Any]", axis: ChannelAxis) -> "NDArray[Any]":
    """(n, height, width, channels) images of such, or of (n, channels, height, width) where `axis` is `first`."""
    return np.ascontiguousarray(np.moveaxis(images, 1, -1)) if axis == "first" else images


def check_labels(labels: Any, count: int, classes: int | None, what: str) -> "NDArray[np.int32]":
    """The labels as (count,) int32; (count, 1) is taken too.

    Args:
        count: number of images that they belong to.
        classes: number of classes; None: not known yet.
        what: names them in a message.

    Raises:
        DataError: another shape or type, or a label that is no class.
    """
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{what}: received {labels.dtype} of shape {labels.shape}; allowed: {count} whole numbers")
    highest = (MOST_CLASSES if classes is None else classes) - 1
    for found in (int(labels.min(initial=0)), int(labels.max(initial=0))):
        if not 0 <= found <= highest:
            hint = "; they start at 1: subtract 1" if labels.min() == 1 and found == highest + 1 else ""
            raise DataError(f"{what}: a label is {found}; allowed: 0 to {highest}{hint}")
    return labels.astype(np.int32)


def check_classes(train: "NDArray[np.int32]", test: "NDArray[np.int32]", names: Sequence[str], what: str) -> None:
    """The rules of classes, for data sets of every kind.

    Args:
        train, test: the labels of the two splits, each below the number of classes.
        names: of the classes.
        what: names the data set in a message.

    Raises:
        DataError: there are fewer than two classes, or one has no training image.
    """
    if len(names) < 2:
        raise DataError(f"{what}: the labels are of {len(names)} class; allowed: 2 or more")
    trained, tested = (np.bincount(labels, minlength=len(names)) for labels in (train, test))
    empty = np.flatnonzero(trained == 0)
    if not len(empty):
        return
    label = int(empty[0])
    if len(empty) == 1 and label == 0 and not tested[0]:
        raise DataError(f"{what}: the labels start at 1, so class '{names[0]}' (label 0) has no image; subtract 1 from them")
    where = "is in test but not in train" if tested[label] else "has no training image"
    raise DataError(f"{what}: class '{names[label]}' (label {label}) {where}; allowed: a training image of each class")


@dataclass(frozen=True)
class ImageArrays:
    """Images of a caller's own.

    Attributes:
        train, test: (images, labels): (n, height, width, channels) uint8, or numbers in 0..1 or 0..255 (see the recipe's
            `data.scale` and `data.channel_axis`); (n,) integers.
        class_names: default: the numbers of the classes.
    """

    train: tuple[Any, Any]
    test: tuple[Any, Any]
    class_names: Sequence[str] | None = None

    def info(self, channel_axis: ChannelAxis = None) -> DataInfo:
        """Facts of the arrays.

        Args:
            channel_axis: see the recipe's `data`.

        Raises:
            DataError: shapes or types that cannot be images and labels, or classes without training images.
        """
        classes = None if self.class_names is None else len(self.class_names)
        parts, shapes = {}, {}
        for name, (images, labels) in (("train", self.train), ("test", self.test)):
            checked = check_images(images, f"{name} images")
            parts[name] = checked, check_labels(labels, len(checked), classes, f"{name} labels")
            shapes[name] = as_channels_last(checked.shape, channel_axis, f"{name} images")
        highest = max(int(labels.max()) for _, labels in parts.values())
        names = tuple(map(str, range(highest + 1) if self.class_names is None else self.class_names))
        check_classes(parts["train"][1], parts["test"][1], names, "arrays")
        train, test = shapes["train"], shapes["test"]
        if test[3] != train[3]:
            raise DataError(f"test images: received {test[3]} channels; the training images have {train[3]}")
        stamp = 0
        for array in (part for pair in parts.values() for part in pair):
            stamp = zlib.crc32(np.ascontiguousarray(array).data.cast("B"), stamp)
        size = common_size(train[1:3], test[1:3])
        return DataInfo("arrays", (*size, train[3]), names, train[0], test[0], f"{stamp:08x}")
