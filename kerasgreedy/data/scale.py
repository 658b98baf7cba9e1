"""Numbers to bytes: one scale for all images of a data set. Imports NumPy and no TensorFlow."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from kerasgreedy.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Scale: TypeAlias = Literal["auto", "unit", "bytes"]
# Resizing and the like overshoot 0..1 by so much at most; what does is cut off where the scale is told.
OVERSHOOT = 0.1
# No image in 0..1 reaches such values, however it was resized.
SURELY_BYTES = 16
_BLOCK = 4096
_CHOICE = "say which with data.scale=unit (0..1, times 255) or data.scale=bytes (0..255)"


@dataclass(frozen=True)
class _Range:
    """What the numbers of a split are like: from `low` to `high`, some of them `broken`, that is not whole."""

    name: str
    low: float
    high: float
    broken: bool

    @classmethod
    def of(cls, images: "NDArray[Any]", name: str) -> "_Range":
        low, high = float(images.min()), float(images.max())
        real = np.issubdtype(images.dtype, np.floating) and bool(np.isfinite([low, high]).all())
        broken = real and any((block % 1).any() for block in _blocks(images))
        return cls(name, low, high, broken)

    @property
    def words(self) -> str:
        return f"values from {self.low:g} to {self.high:g}"

    def reading(self) -> Scale:
        """What these numbers alone are taken for; `auto`: they may be either."""
        if self.low < 0:
            return "auto"
        if self.high > (SURELY_BYTES if self.broken else 1):
            return "bytes"
        return "unit" if self.broken and self.high <= 1 else "auto"


def to_bytes(
    train: "NDArray[Any]", test: "NDArray[Any]", scale: Scale, what: str
) -> "tuple[NDArray[np.uint8], NDArray[np.uint8]]":
    """The images of both splits as bytes, by one scale for all of them: as they are, or times 255.

    Args:
        train, test: (n, height, width, channels) numbers.
        scale: see the recipe's `data.scale`.
        what: names the data set in a message.

    Raises:
        DataError: a number that is not finite or out of range, or numbers that may be meant in two ways.
    """
    if scale != "unit" and train.dtype == test.dtype == np.uint8:
        return train, test
    parts = [(train, f"{what}: x_train"), (test, f"{what}: x_test")]
    ranges = [_Range.of(*part) for part in parts]
    for each in ranges:
        if not np.isfinite([each.low, each.high]).all():
            raise DataError(f"{each.name}: received {each.words}; allowed: finite numbers")
    if scale == "auto":
        scale = _common(ranges, [images.dtype == np.uint8 for images, _ in parts])
    low, high = (-OVERSHOOT, 1 + OVERSHOOT) if scale == "unit" else (0, 255)
    for each in ranges:
        if not low <= each.low <= each.high <= high:
            raise DataError(f"{each.name}: received {each.words}; allowed for data.scale={scale}: {low:g}..{high:g}")
    first, second = (_converted(images, scale) for images, _ in parts)
    return first, second


def _common(ranges: list[_Range], are_bytes: list[bool]) -> Scale:
    """The one scale that both splits are read by."""
    readings = ["bytes" if known else each.reading() for each, known in zip(ranges, are_bytes, strict=True)]
    for each, reading in zip(ranges, readings, strict=True):
        if each.high > 255 or each.low < -OVERSHOOT or (each.low < 0 and each.high > 1 + OVERSHOOT):
            raise DataError(f"{each.name}: received {each.words}; allowed: 0..1 or 0..255")
        if reading == "auto":
            raise DataError(f"{each.name}: received {each.words}, which may be meant as 0..1 or as 0..255; {_CHOICE}")
    if readings[0] != readings[1]:
        ours, theirs = (f"{each.name} has {each.words}" for each in ranges)
        raise DataError(f"{ours} and {theirs}, so one is in 0..1 and the other in 0..255; bring both to one, or {_CHOICE}")
    return "unit" if readings[0] == "unit" else "bytes"


def _converted(images: "NDArray[Any]", scale: Scale) -> "NDArray[np.uint8]":
    if scale == "bytes" and images.dtype == np.uint8:
        return images
    result = np.empty(images.shape, np.uint8)
    for block, place in zip(_blocks(images), _blocks(result), strict=True):
        place[...] = np.round(np.clip(block, 0, 1) * 255.0 if scale == "unit" else block)
    return result


def _blocks(images: "NDArray[Any]") -> "list[NDArray[Any]]":
    """Parts of the images, so that what is computed of them does not take the memory of all."""
    return [images[start : start + _BLOCK] for start in range(0, len(images), _BLOCK)]
