"""Images that are held in memory, and the one check that they are images with labels."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasgreedy.data.info import MOST_CLASSES, DataInfo
from kerasgreedy.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
            raise DataError(f"{what}: a label is {found}; allowed: 0 to {highest}")
    return labels.astype(np.int32)


def to_bytes(images: "NDArray[Any]", what: str) -> "NDArray[np.uint8]":
    """Images as bytes: numbers of at most 1 are multiplied by 255.

    Raises:
        DataError: numbers outside 0..255.
    """
    if images.dtype == np.uint8:
        return images
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 255):
        raise DataError(f"{what}: received values from {low:g} to {high:g}; allowed: 0..1 or 0..255")
    return np.round(images * (255 if high <= 1 else 1)).astype(np.uint8)


@dataclass(frozen=True)
class ImageArrays:
    """Images of a caller's own.

    Attributes:
        train, test: (images, labels): (n, height, width, channels) uint8, or numbers in 0..1 or 0..255; (n,) integers.
        class_names: default: the numbers of the classes.
    """

    train: tuple[Any, Any]
    test: tuple[Any, Any]
    class_names: Sequence[str] | None = None

    def info(self) -> DataInfo:
        """Facts of the arrays.

        Raises:
            DataError: shapes or types that cannot be images and labels.
        """
        classes = None if self.class_names is None else len(self.class_names)
        parts = {}
        for name, (images, labels) in (("train", self.train), ("test", self.test)):
            checked = check_images(images, f"{name} images")
            parts[name] = checked, check_labels(labels, len(checked), classes, f"{name} labels")
        highest = max(int(labels.max()) for _, labels in parts.values())
        names = tuple(map(str, range(highest + 1) if self.class_names is None else self.class_names))
        train, test = parts["train"][0], parts["test"][0]
        if test.shape[-1] != train.shape[-1]:
            raise DataError(f"test images: received {test.shape[-1]} channels; the training images have {train.shape[-1]}")
        height, width, channels = train.shape[1:]
        stamp = 0
        for array in (part for pair in parts.values() for part in pair):
            stamp = zlib.crc32(np.ascontiguousarray(array).data.cast("B"), stamp)
        return DataInfo("arrays", (height, width, channels), names, len(train), len(test), f"{stamp:08x}")
