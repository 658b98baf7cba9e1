"""A contact sheet: training images as the network sees them, and test images, in one PNG file."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from kerasgreedy.data.named import kind_of
from kerasgreedy.data.overview import Overview
from kerasgreedy.errors import InputError, printable
from kerasgreedy.files import user_path
from kerasgreedy.pictures import MADE_BY, matplotlib, picture_path, write_picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS = 8
CELL = 96  # images are enlarged to about this many pixels
MARGIN, GAP, LINE, NAMES = 14, 4, 16, 130
INK, PAPER, FAINT = (20, 20, 20), (255, 255, 255), (110, 110, 110)


def sheet_path(dataset: str, output: Path | None, overwrite: bool = False) -> Path:
    """Where the sheet will be written; default `<dataset>.png` in the current folder.

    Args:
        overwrite: it may be a file that was not made here.

    Raises:
        InputError: it is no PNG file, or is there and was not made here.
    """
    kind, place = kind_of(dataset)
    stem = Path(place).stem if kind == "npz" else Path(place).resolve().name if kind == "folder" else place.replace("/", "_")
    path = user_path(output) if output else Path(f"{stem or 'dataset'}.png")
    if path.is_dir() or path.suffix.lower() != ".png":
        raise InputError(f"--output: received {path}; allowed: a PNG file, such as {stem or 'dataset'}.png")
    return picture_path(path, overwrite)


def write_sheet(seen: Overview, path: Path, overwrite: bool = False) -> None:
    """Draws the contact sheet into a file.

    Raises:
        InputError: it is there and was not made here.
        WorkdirError: it cannot be written.
    """
    content, about = io.BytesIO(), PngInfo()
    for key, value in MADE_BY.items():
        about.add_text(key, value)
    draw_sheet(seen).save(content, "PNG", pnginfo=about)
    write_picture(path, content.getvalue(), overwrite)


def draw_sheet(seen: Overview) -> Image.Image:
    """Above: a row for each training image, first unchanged, then its views. Below: test images with their classes."""
    names = seen.info.class_names
    height, width = _cell(seen.size)
    rows, tests = len(seen.originals), -(-len(seen.tested) // COLUMNS)
    top_part = MARGIN + 2 * LINE + 10 + rows * (height + GAP)
    sheet = Image.new(
        "RGB",
        (2 * MARGIN + NAMES + COLUMNS * (width + GAP) + 2 * GAP, top_part + 2 * MARGIN + LINE + tests * (height + GAP + LINE)),
        PAPER,
    )
    pen = ImageDraw.Draw(sheet)
    left = MARGIN + NAMES
    size = "x".join(map(str, (*seen.size, seen.originals.shape[-1])))
    _write(pen, (MARGIN, MARGIN), f"{seen.info.dataset}: training images at {size}", INK, sheet.width - 2 * MARGIN, 13)
    _write(pen, (left, MARGIN + LINE + 5), "unchanged", FAINT, width)
    _write(pen, (left + width + 3 * GAP, MARGIN + LINE + 5), "as training sees it, before normalisation", FAINT, 7 * width)
    for row, (original, views, label) in enumerate(zip(seen.originals, seen.views, seen.view_labels, strict=True)):
        top = MARGIN + 2 * LINE + 8 + row * (height + GAP)
        _write(pen, (MARGIN, top + height // 2 - 7), names[label], INK, NAMES - 8)
        for column, image in enumerate((original, *views)):
            sheet.paste(_picture(image, (height, width)), (left + column * (width + GAP) + (2 * GAP if column else 0), top))
    _write(pen, (MARGIN, top_part + MARGIN), "test images", INK, NAMES - 8, 13)
    for index, (image, label) in enumerate(zip(seen.tested, seen.tested_labels, strict=True)):
        row, column = divmod(index, COLUMNS)
        place = left + column * (width + GAP), top_part + MARGIN + row * (height + GAP + LINE)
        sheet.paste(_picture(image, (height, width)), place)
        _write(pen, (place[0], place[1] + height), names[label], INK, width)
    return sheet


def _cell(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width on the sheet: small images are enlarged by a whole number, so that pixels stay squares."""
    longest = max(size)
    scale = float(max(1, round(CELL / longest))) if longest <= 1.5 * CELL else 1.5 * CELL / longest
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _picture(image: "NDArray[np.uint8]", cell: tuple[int, int]) -> Image.Image:
    if image.shape[-1] != 3:  # grey, or channels that are no colours: their mean
        image = np.repeat(image.mean(-1, keepdims=True).round().astype(np.uint8), 3, axis=-1)
    how = Image.Resampling.NEAREST if cell[0] >= image.shape[0] else Image.Resampling.LANCZOS
    return Image.fromarray(image).resize((cell[1], cell[0]), how)


def _write(
    pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str, colour: tuple[int, int, int], room: int, points: int = 11
) -> None:
    """A line of text, cut with an ellipsis where it is wider than `room` pixels."""
    font = _font(points)
    text = printable(" ".join(text.split()))
    if font.getlength(text) > room:
        while text and font.getlength(text + "…") > room:
            text = text[:-1]
        text += "…"
    pen.text(place, text, colour, font)


def _font(points: int) -> ImageFont.FreeTypeFont:
    """Matplotlib's own font: it is there on every machine and knows more letters than Pillow's."""
    return ImageFont.truetype(str(Path(matplotlib().get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), points)
