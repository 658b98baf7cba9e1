"""Files that users name or that a kill may cut short: paths, JSON, atomic writes."""

import contextlib
import errno
import fcntl
import json
import math
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from kerasgreedy.errors import Diverged, InputError, WorkdirError

# The largest of them name each class of a data set, or each file of it that was left out.
MAX_JSON_BYTES = 64_000_000
MAX_DIGITS = 300


def user_path(place: str | Path) -> Path:
    """A path as a user writes it, `~` and `~name` included.

    Raises:
        InputError: no file can have that name.
    """
    try:
        path = Path(place).expanduser()
        if "\0" in str(path):  # `exists` would only say no
            raise ValueError("embedded null byte")
        path.exists()
    except (RuntimeError, ValueError, OSError) as error:
        text = str(place)
        short = text if len(text) <= 80 else text[:77] + "..."
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{short}: not a usable path ({why})") from None
    return path


def open_regular(path: str | Path) -> BinaryIO:
    """A file, opened to be read: a pipe would be waited for without end, and a device may give anything.

    Raises:
        OSError: it cannot be opened, or is no ordinary file.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "no ordinary file", str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bytes(path: Path, most: int) -> bytes:
    """A whole file that has a bound to its size, so that one of another's making cannot fill the memory.

    Raises:
        OSError: it cannot be read, is no ordinary file, or is larger than `most` bytes.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"larger than {most:,} bytes")
    return content


def as_json(value: Any, indent: int | None = None) -> str:
    """Plain data as JSON, which has no words for what is not a finite number.

    Raises:
        Diverged: a figure is not finite; says which.
    """
    try:
        return json.dumps(value, indent=indent, allow_nan=False)
    except ValueError:
        place = _not_finite(value)
        if place is None:
            raise
        raise Diverged(f"{place} is not a finite number; nothing was written") from None


def _not_finite(value: Any, place: str = "") -> str | None:
    """The first figure in plain data that is not finite, as `depths.0.loss = nan`."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{place or 'a figure'} = {value}"
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return next((found for key, each in inside if (found := _not_finite(each, f"{place}.{key}".lstrip(".")))), None)


def parse_json(text: str | bytes) -> Any:
    """JSON whose numbers are finite, and the whole ones can be made floats.

    Raises:
        ValueError, RecursionError: it is none.
    """

    def no_number(word: str) -> Any:
        raise ValueError(f"{word} is no finite number")

    def real(digits: str) -> float:
        return value if math.isfinite(value := float(digits)) else no_number(digits[:40])

    def whole(digits: str) -> int:
        if len(digits) > MAX_DIGITS:
            raise ValueError(f"a number of {len(digits)} digits")
        return int(digits)

    return json.loads(text, parse_int=whole, parse_float=real, parse_constant=no_number)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        WorkdirError: it cannot be read, or is none.
    """
    try:
        content = parse_json(read_bytes(path, MAX_JSON_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise WorkdirError(f"{path}: damaged ({error})") from None
    if not isinstance(content, dict):
        raise WorkdirError(f"{path}: damaged (not a JSON object)")
    return content


def refuse_links(folder: Path) -> None:
    """Refuses a run folder that holds anything but files and folders: what is written or removed below a link is not its own.

    Raises:
        WorkdirError: a link, a pipe or a device is in it.
    """
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            with contextlib.suppress(FileNotFoundError):  # a run that is going on removes files
                mode = path.lstat().st_mode
                if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                    what = "a symbolic link" if stat.S_ISLNK(mode) else "no ordinary file"
                    raise WorkdirError(f"{path}: is {what}; allowed in a run folder: files and folders of its own")


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that at any moment either the old or the whole new one is there."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        _to_disk(path.parent)  # the new name too
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write to, which stands at `out` when all has been written, and nowhere if something fails.

    Raises:
        WorkdirError: `out` is there already, cannot be written, or is being written by another process.
    """
    beside = out.with_name(f".{out.name}.new")
    try:
        _refuse_existing(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        handle = _held(beside, out)
        done = False
        try:
            yield beside
            for path in [*beside.rglob("*"), beside]:
                _to_disk(path)
            _refuse_existing(out)
            beside.rename(out)
            done = True
            _to_disk(out.parent)
        finally:
            if not done:
                shutil.rmtree(beside, ignore_errors=True)
            os.close(handle)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise WorkdirError(f"{out}: {'the disk is full' if full else f'cannot be written ({error.strerror or error})'}") from None


def _held(beside: Path, out: Path) -> int:
    """Makes a folder, or empties one that a kill left, and locks it.

    Returns:
        its descriptor; closing it unlocks the folder.
    """
    while True:
        beside.mkdir(exist_ok=True)
        handle = os.open(beside, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Not one that its writer has renamed or removed meanwhile.
            if beside.exists() and os.path.samestat(os.fstat(handle), beside.lstat()):
                for path in beside.iterdir():
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
                return handle
        except BlockingIOError:
            os.close(handle)
            raise WorkdirError(f"{out}: another process is writing it; give another place") from None
        except OSError:
            os.close(handle)
            raise
        os.close(handle)


def _refuse_existing(out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise WorkdirError(f"{out}: already exists; give another place")


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def storage_error(place: Path, error: OSError) -> WorkdirError:
    """A readable error for a write into a run folder that failed."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    what = "the disk is full" if full else f"cannot be written ({error.strerror or error})"
    return WorkdirError(f"{place}: {what}; what was saved before is whole: make room, then train --resume")
