"""Figures: made without touching the caller's matplotlib, written atomically as PNG."""

from pathlib import Path
from typing import Any

from kerasgreedy.errors import InputError, WorkdirError
from kerasgreedy.files import user_path


def picture_path(target: Path) -> Path:
    """The file that a user named for a picture.

    Raises:
        InputError: it is a folder, or its ending is that of another format.
    """
    target = user_path(target)
    if target.is_dir() or not target.name:
        raise InputError(f"{target}: is a folder; allowed: a PNG file")
    if target.suffix.lower() not in ("", ".png"):
        raise InputError(f"{target}: pictures are PNG files; allowed: a name that ends in .png")
    return target


def new_figure(width: float, height: float) -> Any:
    """An empty figure of that size in inches."""
    # The object interface leaves the caller's matplotlib backend and open figures alone.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=130, layout="constrained")


def write_figure(target: Path, figure: Any) -> None:
    """Writes a figure as PNG; at any moment the old or the whole new file is there.

    Raises:
        WorkdirError: it cannot be written.
    """
    beside = target.with_name(f".{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(beside, format="png")
        beside.replace(target)
    except OSError as error:
        raise WorkdirError(f"{target}: cannot be written ({error.strerror or error})") from None
