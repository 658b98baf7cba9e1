"""Small pictures for pages. Imports no TensorFlow."""

import io
from typing import Any

THUMBNAIL = 96


def thumbnail(shades: Any, side: int = THUMBNAIL) -> bytes:
    """A picture (height, width, 1 or 3) uint8 as a small JPEG file; small ones are not enlarged."""
    from PIL import Image

    image = Image.fromarray(shades[..., 0] if shades.shape[-1] == 1 else shades)
    image.thumbnail((side, side))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=80)
    return content.getvalue()
