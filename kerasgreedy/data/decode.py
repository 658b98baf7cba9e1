"""Files to pixels."""

import math
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from kerasgreedy.data.idx import idx_shape, open_idx
from kerasgreedy.data.image_kinds import IMAGE_FORMATS, turns, unreadable_image
from kerasgreedy.data.memory import available_memory
from kerasgreedy.errors import DataError
from kerasgreedy.files import open_regular

if TYPE_CHECKING:
    from numpy.typing import NDArray


def read_image(file: str, channels: int, upright: bool = True) -> "NDArray[np.uint8]":
    """The one decoder of training and of `predict`: an image file as (height, width, channels) uint8.

    Of an animation it is the first picture; what is transparent has the colour that is stored for it.

    Args:
        channels: 1 (luminance) or 3.
        upright: turned as its EXIF data say, as cameras store pictures.

    Raises:
        DataError: naming the file.
    """
    from PIL import Image

    try:
        with open_regular(file) as content, Image.open(content, formats=IMAGE_FORMATS) as image:
            if image.format == "PNG":
                _check_end(content)
            way = turns(image) if upright else None
            image.load()
            image.info.pop("transparency", None)  # Pillow would warn that it is passed over
            picture: Image.Image = image
            if image.mode == "F" or (image.format == "TIFF" and image.mode == "I"):
                raise OSError("its pixels are of 32 bits; allowed: 8 or 16 a channel")
            if image.mode.startswith("I"):  # 16 bits; `convert` alone would cut them off at 255
                picture = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
            mode = "L" if channels == 1 else "RGB"
            if picture.mode != mode:
                picture = picture.convert(mode)
            if way is not None:
                picture = picture.transpose(way)
            return np.asarray(picture).reshape(picture.height, picture.width, channels)
    except MemoryError:
        raise
    except Exception as error:  # damaged files raise whatever their reader raises
        raise unreadable_image(file, error) from None


def _check_end(file: BinaryIO) -> None:
    """Refuses a PNG file whose last chunk is missing, which Pillow does not. The position in the file stays as it is.

    Raises:
        OSError: it is cut off.
    """
    before = file.tell()
    file.seek(8)
    while len(head := file.read(8)) == 8:
        if head[4:] == b"IEND":
            file.seek(before)
            return
        file.seek(int.from_bytes(head[:4]) + 4, os.SEEK_CUR)
    raise OSError("the file is cut off")


def read_idx(path: Path) -> "NDArray[np.uint8]":
    """An idx file of bytes, as MNIST and Fashion-MNIST use."""
    shape = idx_shape(path)
    size, free = 4 + 4 * len(shape) + math.prod(shape), available_memory()
    if size > free:
        raise DataError(f"{path}: its {size / 1e9:,.1f} GB do not fit into the {free / 1e9:,.1f} GB of memory that are free")
    try:
        with open_idx(path) as file:
            content = file.read(size + 1)  # no more than it says it holds, however much a few bytes unpack to
        return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path}: damaged idx file ({error})") from None
