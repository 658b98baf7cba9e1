"""Which image files are read, which way up they are, and what is said of those that cannot be. Imports no TensorFlow."""

import warnings
from typing import TYPE_CHECKING

from kerasgreedy.errors import DataError
from kerasgreedy.files import open_regular

if TYPE_CHECKING:
    from PIL import Image

# What runs of versions before looked for; their data sets stay what they were.
FIRST_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
IMAGE_ENDINGS = (*FIRST_ENDINGS, ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".avif")
# Whatever a file is called, nothing else is read: Pillow would hand a PostScript file to Ghostscript, which runs it.
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "AVIF")
# Of damaged EXIF data Pillow warns entry by entry, and never says of which file.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")
ORIENTATION = 0x0112  # the tag of EXIF
# Pillow turns pictures of TIFF itself. In PNG the tag may come behind the pixels, where a look at the head does not find it.
_TURNED_FORMATS = ("JPEG", "MPO", "WEBP", "AVIF")


def turns(image: "Image.Image") -> "Image.Transpose | None":
    """How an opened image has to be turned or mirrored to be upright, as the orientation in its EXIF data says.

    Returns:
        for `Image.transpose`; None: it is upright, or says nothing that can be read.
    """
    from PIL import Image

    if image.format not in _TURNED_FORMATS or not image.info.get("exif"):
        return None
    try:
        exif = Image.Exif()
        exif.load(image.info["exif"])
        orientation = exif.get(ORIENTATION)
    except Exception:  # damaged EXIF data raise whatever their reader raises; the picture may be whole
        return None
    ways = Image.Transpose
    by_tag = {
        2: ways.FLIP_LEFT_RIGHT, 3: ways.ROTATE_180, 4: ways.FLIP_TOP_BOTTOM, 5: ways.TRANSPOSE,
        6: ways.ROTATE_270, 7: ways.TRANSVERSE, 8: ways.ROTATE_90,
    }  # fmt: skip
    return by_tag.get(orientation) if isinstance(orientation, int) else None


def image_size(file: str, upright: bool) -> tuple[int, int]:
    """Height and width of an image, from the head of its file.

    Args:
        upright: after it has been turned as its EXIF data say.

    Raises:
        DataError: it cannot be read.
    """
    from PIL import Image

    ways = Image.Transpose
    try:
        with open_regular(file) as content, Image.open(content, formats=IMAGE_FORMATS) as image:
            lies = upright and turns(image) in (ways.TRANSPOSE, ways.ROTATE_270, ways.TRANSVERSE, ways.ROTATE_90)
            return (image.width, image.height) if lies else (image.height, image.width)
    except MemoryError:
        raise
    except Exception as error:  # damaged files raise whatever their reader raises
        raise unreadable_image(file, error) from None


def unreadable_image(file: str, error: Exception) -> DataError:
    """What is said of a file that cannot be decoded."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return DataError(f"{file}: not a readable image (no {', '.join(IMAGE_FORMATS)} file)")
    why = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return DataError(f"{file}: not a readable image ({why})")
