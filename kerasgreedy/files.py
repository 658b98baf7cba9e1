"""Files that users name or that a kill may cut short: paths, atomic writes."""

import contextlib
import csv
import errno
import fcntl
import io
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from kerasgreedy.errors import InputError, KerasgreedyError, WorkdirError

# Names of what is written beside its place begin with it, and nothing else of that name is touched without the mark inside.
OWN = ".kerasgreedy-"
_MARK, MAX_NAME = b"scratch folder of kerasgreedy for ", 8192
_OLD_TEMPORARY = re.compile(r".*\.\d+\.tmp")
_PLAIN = re.compile(r"[\w./ ,@%+=~-]*", re.ASCII)
_WRITING_FAULTS = (
    ((errno.ENOSPC, errno.EDQUOT), ("No space left on device", "Disk quota exceeded"), "the disk is full"),
    ((errno.EFBIG,), ("File too large",), "a file may not grow that large (ulimit -f)"),
)


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


@contextlib.contextmanager
def replacing(path: Path, ending: str = "") -> Iterator[Path]:
    """A file to write to, which stands at `path` when all has been written; until then, and if something fails, the old one does.

    Its name is unique: `.kerasgreedy-<random>.tmp` and the ending, in the same folder. What a kill leaves of it, `sweep` removes.
    """
    beside = path.with_name(f"{OWN}{secrets.token_hex(8)}.tmp{ending}")
    try:
        yield beside
        _to_disk(beside)
        os.replace(beside, path)
        _to_disk(path.parent)  # the new name too
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that at any moment either the old or the whole new one is there."""
    with replacing(path) as beside, open(beside, "wb") as file:
        file.write(content)


def write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Writes rows as a CSV file, atomically. Names of files and classes need not be text."""
    content = io.StringIO()
    csv.writer(content, lineterminator="\n").writerows(rows)
    write_atomically(path, content.getvalue().encode(errors="surrogateescape"))


def sweep(folder: Path) -> None:
    """Removes the files that killed writes left in a folder that is this package's own, older versions' too; folders stay."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            ours = path.name.startswith(OWN) and ".tmp" in path.name
            if (ours or _OLD_TEMPORARY.fullmatch(path.name)) and not path.is_dir():
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """An empty folder for what shall stand at `beside`: whoever asked renames it; what has not been renamed is removed.

    It lies in a folder of a unique name, `.kerasgreedy-<random>`, which is locked as long as it is in use. Those that a kill
    left there are removed, and nothing else is. Folders above that had to be made go again where nothing came to stand in them.

    Raises:
        WorkdirError: another process has such a folder for the same place.
        OSError: none can be made.
    """
    name = os.fsencode(beside.name)
    made = [folder for folder in beside.parents if not folder.exists()]
    beside.parent.mkdir(parents=True, exist_ok=True)
    for place in beside.parent.glob(f"{OWN}*/"):
        _remove_abandoned(place, name, beside)
    try:
        place = Path(tempfile.mkdtemp(prefix=OWN, dir=beside.parent))
        try:
            with open(place / "marker.tmp", "wb") as marker:
                with contextlib.suppress(OSError):  # a file system without locks: nobody else can take it then
                    fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
                marker.write(_MARK + name)
                marker.flush()
                (place / "marker.tmp").rename(place / "marker")  # not before it is locked
                (place / "new").mkdir()
                yield place / "new"
        finally:
            shutil.rmtree(place, ignore_errors=True)
    finally:
        with contextlib.suppress(OSError):  # not empty
            for folder in made:
                folder.rmdir()


def _remove_abandoned(place: Path, name: bytes, beside: Path) -> None:
    """Removes a scratch folder whose writer is gone; refuses to go on beside one that writes to the same place."""
    with contextlib.suppress(OSError), open_regular(place / "marker") as marker:
        if not place.is_symlink() and (mark := marker.read(MAX_NAME)).startswith(_MARK):
            try:
                fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if mark == _MARK + name:
                    raise WorkdirError(f"{beside}: another process is writing it; give another place") from None
                return
            shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write to, which stands at `out` when all has been written, and nowhere if something fails.

    Raises:
        WorkdirError: `out` is there already, cannot be written, or is being written by another process.
    """
    try:
        _refuse_existing(out)
        with scratch_folder(out) as new:
            yield new
            for path in [*new.rglob("*"), new]:
                _to_disk(path)
            _refuse_existing(out)
            try:
                new.rename(out)
            except OSError:
                _refuse_existing(out)  # one that another process has put there since
                raise
            _to_disk(out.parent)
    except KerasgreedyError:
        raise
    except Exception as error:
        if isinstance(error, OSError) or writing_fault(error):
            raise WorkdirError(f"{out}: {writing_fault(error) or f'cannot be written ({error})'}") from None
        raise


def _refuse_existing(out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise WorkdirError(f"{out}: already exists; give another place")


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def plain_path(folder: Path) -> Iterator[Path]:
    """A path to the same folder for TensorFlow, which takes `[ ] * ? { } \\` in a path for patterns and knows UTF-8 only."""
    if _PLAIN.fullmatch(os.fspath(folder)):
        yield folder
        return
    with contextlib.ExitStack() as stack:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, handle)
        place = Path(f"/proc/self/fd/{handle}")
        if not place.exists():  # not Linux
            place = Path(stack.enter_context(tempfile.TemporaryDirectory()), "folder")
            place.symlink_to(folder.absolute(), target_is_directory=True)
        yield place


def check_temporary() -> None:
    """Refuses a folder for temporary files that TensorFlow cannot name: it compiles what it traces from there.

    Raises:
        InputError: it is not UTF-8, or there is none.
    """
    try:
        tempfile.gettempdir().encode()
    except (UnicodeError, OSError) as error:
        raise InputError(f"TMPDIR: no usable folder for temporary files ({error})") from None


@contextlib.contextmanager
def plain_temporary() -> Iterator[None]:
    """Temporary folders and files are made below a plain path: TensorFlow saves and loads there, and compiles what it traces."""
    before = tempfile.tempdir
    with plain_path(Path(tempfile.gettempdir())) as place:
        tempfile.tempdir = str(place)
        try:
            yield
        finally:
            tempfile.tempdir = before


def no_room(error: BaseException) -> str | None:
    """Whether the disk, a quota or a limit kept a file from growing: in words for people, or None.

    Errors of TensorFlow and HDF5, which carry no number of the system's, are known by its words.
    """
    number, text = getattr(error, "errno", None), str(error)
    for numbers, words, said in _WRITING_FAULTS:
        if number in numbers or any(word in text for word in words):
            return said
    return None


def writing_fault(error: BaseException) -> str | None:
    """What kept a file from being written, in words for people; None where it was something else."""
    strange = f"cannot be written ({error.strerror})" if isinstance(error, OSError) and error.strerror else None
    return no_room(error) or strange


def storage_error(place: Path, error: Exception) -> WorkdirError:
    """A readable error for a write into a run folder that failed."""
    what = writing_fault(error) or f"cannot be written ({error})"
    return WorkdirError(f"{place}: {what}; what was saved before is whole: make room, then train --resume")
