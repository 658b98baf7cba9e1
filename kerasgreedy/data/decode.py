"""Files to pixels."""

import gzip
import math
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kerasgreedy.data.folders import IMAGE_FORMATS
from kerasgreedy.data.idx import idx_shape
from kerasgreedy.data.memory import available_memory
from kerasgreedy.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def read_image(file: str, channels: int, size: tuple[int, int] | None) -> "NDArray[np.uint8]":
    """One image file as (height, width, channels) uint8.

    Raises:
        DataError: naming the file.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file, formats=IMAGE_FORMATS) as image:
            picture: Image.Image = image
            if image.mode.startswith("I"):  # 16 bits; `convert` alone would cut them off at 255
                picture = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
            picture = picture.convert("L" if channels == 1 else "RGB")
            if size is not None and picture.size != (size[1], size[0]):
                picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
            return np.asarray(picture).reshape(picture.height, picture.width, channels)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{file}: not a readable image ({error})") from None


def read_idx(path: Path) -> "NDArray[np.uint8]":
    """An idx file of bytes, as MNIST and Fashion-MNIST use."""
    shape = idx_shape(path)
    size, free = 4 + 4 * len(shape) + math.prod(shape), available_memory()
    if size > free:
        raise DataError(f"{path}: its {size / 1e9:,.1f} GB do not fit into the {free / 1e9:,.1f} GB of memory that are free")
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            content = file.read(size + 1)  # no more than it says it holds, however much a few bytes unpack to
        return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path}: damaged idx file ({error})") from None
