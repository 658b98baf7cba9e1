"""Images that a caller brings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasgreedy.data.catalog import DataInfo
from kerasgreedy.errors import DataError


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

    def split(self, name: str) -> tuple[Any, Any]:
        """`train` or `test` as (images, labels); labels of shape (n, 1) become (n,).

        Raises:
            DataError: shapes or types that cannot be images and labels.
        """
        images, labels = (np.asarray(part) for part in getattr(self, name))
        if images.ndim != 4 or not len(images):
            raise DataError(f"{name} images: received shape {images.shape}; allowed: (n, height, width, channels)")
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
            message = f"received {labels.dtype} of shape {labels.shape}; allowed: {len(images)} whole numbers"
            raise DataError(f"{name} labels: {message}")
        return images, labels

    def info(self) -> DataInfo:
        """Facts of the arrays."""
        (images, labels), (test_images, test_labels) = self.split("train"), self.split("test")
        lowest, highest = (int(end(end(part.tolist()) for part in (labels, test_labels))) for end in (min, max))
        names = tuple(map(str, range(highest + 1) if self.class_names is None else self.class_names))
        if lowest < 0 or highest >= len(names):
            raise DataError(f"labels: received {lowest} to {highest}; allowed: 0 to {len(names) - 1}")
        if test_images.shape[-1] != images.shape[-1]:
            raise DataError(
                f"test images: received {test_images.shape[-1]} channels; the training images have {images.shape[-1]}"
            )
        height, width, channels = images.shape[1:]
        return DataInfo("arrays", (height, width, channels), names, len(images), len(test_images))
