"""Files to pixels."""

import gzip
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kerasgreedy.data.idx import idx_shape
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
        with Image.open(file) as image:
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
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path}: damaged idx file ({error})") from None
