"""Pictures that are written: where they may stand, and matplotlib under its own settings."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kerasgreedy.errors import InputError, WorkdirError
from kerasgreedy.files import open_regular, user_path, write_atomically, writing_fault

# In every picture that is written here: those are replaced without asking.
MADE_BY = {"Software": "kerasgreedy"}


def picture_path(target: Path, overwrite: bool = False) -> Path:
    """The file that a user named for a picture.

    Args:
        overwrite: it may be a file that was not made here.

    Raises:
        InputError: it is a folder, its ending is that of another format, or it is there and was not made here.
    """
    target = user_path(target)
    if target.is_dir() or not target.name:
        raise InputError(f"{target}: is a folder; allowed: a PNG file")
    if target.suffix.lower() not in ("", ".png"):
        raise InputError(f"{target}: pictures are PNG files; allowed: a name that ends in .png")
    if not overwrite:
        refuse_foreign(target, _is_our_picture)
    return target


def write_picture(target: Path, content: bytes, overwrite: bool = False) -> None:
    """Writes a PNG file; at any moment the old or the whole new one is there.

    Raises:
        InputError: see `picture_path`.
        WorkdirError: it cannot be written.
    """
    target = picture_path(target, overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, content)
    except OSError as error:
        raise WorkdirError(f"{target}: {writing_fault(error) or f'cannot be written ({error})'}") from None


def refuse_foreign(target: Path, ours: Callable[[Path], bool]) -> None:
    """Refuses a file that is there and was not made by this package.

    Args:
        ours: whether a file was.

    Raises:
        InputError: says how to have it replaced.
    """
    if target.is_symlink() or (target.exists() and not ours(target)):
        raise InputError(f"{target}: already exists, and was not made by kerasgreedy; give another name, or --overwrite")


def begins_with(words: str, within: int) -> Callable[[Path], bool]:
    """Whether a file has these words among its first bytes, by which files that were made here are known."""

    def ours(path: Path) -> bool:
        try:
            with open_regular(path) as file:
                return words.encode() in file.read(within)
        except OSError:
            return False

    return ours


def _is_our_picture(path: Path) -> bool:
    """Whether it says so, or lies in the `plots` of a run folder."""
    if path.parent.name == "plots" and (path.parent.parent / "run.json").is_file():
        return True
    from PIL import Image

    try:
        with open_regular(path) as file, Image.open(file, formats=["PNG"]) as image:
            return all(image.info.get(key) == value for key, value in MADE_BY.items())
    except Exception:  # a file that is no picture fails in many ways
        return False


def matplotlib() -> Any:
    """The library. It reads `matplotlibrc` from the current folder when it is imported: not that one.

    Raises:
        InputError: it cannot be imported.
    """
    exists = os.path.exists

    def elsewhere(path: Any) -> bool:
        return path != "matplotlibrc" and exists(path)

    os.path.exists = elsewhere
    try:
        import matplotlib
    except Exception as error:  # settings of the user's own that it cannot read
        raise InputError(f"pictures need matplotlib, which does not load ({error}); look at its settings") from None
    finally:
        os.path.exists = exists
    return matplotlib


@contextmanager
def plain_matplotlib() -> Iterator[None]:
    """Matplotlib's own settings, whatever the caller's are; `$` in a name is no mathematics."""
    library = matplotlib()
    settings = {key: value for key, value in library.rcParamsDefault.copy().items() if key != "backend"}
    with library.rc_context(settings | {"text.parse_math": False}):
        yield
