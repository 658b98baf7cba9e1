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

    def info(self) -> DataInfo:
        """Facts of the arrays."""
        images, labels = np.asarray(self.train[0]), np.asarray(self.train[1])
        if images.ndim != 4 or not len(labels):
            raise DataError(f"train images: received shape {images.shape}; allowed: (n, height, width, channels)")
        highest = int(max(np.max(labels), np.max(self.test[1])))
        lowest = int(min(np.min(labels), np.min(self.test[1])))
        names = tuple(self.class_names or map(str, range(highest + 1)))
        if lowest < 0 or highest >= len(names):
            raise DataError(f"labels: received {lowest} to {highest}; allowed: 0 to {len(names) - 1}")
        height, width, channels = images.shape[1:]
        return DataInfo("arrays", (height, width, channels), names, len(images), len(self.test[0]))
