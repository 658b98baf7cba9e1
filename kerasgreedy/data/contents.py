"""What the files of a data set hold, so that a run goes on with the same images. Imports no TensorFlow and no NumPy.

A file whose size, times and inode are those of the beginning is trusted: whoever rewrites one, or puts another in its place,
changes its time of change, which cannot be set. Where any of them differs its digest decides: a copied or touched file is fine.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kerasgreedy.data.catalog import tfds_name
from kerasgreedy.data.folders import open_folder
from kerasgreedy.data.idx import idx_files
from kerasgreedy.data.info import Known
from kerasgreedy.data.named import kind_of
from kerasgreedy.data.prepared import tfds_folders
from kerasgreedy.errors import DataError, tell
from kerasgreedy.files import open_regular, user_path
from kerasgreedy.spec.recipe import Data

# A file up to this size is hashed as a whole; of a larger one so many blocks, spread evenly.
WHOLE_BYTES = 64 * 2**20
BLOCKS, BLOCK_BYTES = 64, 16 * 2**10
# Size, time of modification, time of change (both in ns), inode, digest.
Stamp = list[Any]
_THREADS, _AT_ONCE = 8, 64
_QUIET_SECONDS, _TELL_SECONDS = 3.0, 30.0


def data_files(data: Data, known: Known | None = None) -> dict[str, str]:
    """The files that a data set is read from.

    Args:
        known: of a folder that a run has begun with.

    Returns:
        name (within the folder of the data set) -> path; empty where the images come with a package.

    Raises:
        DataError: some of them are missing.
    """
    kind, place = kind_of(data.dataset)
    if kind == "folder":
        return {file.name: file.path for file in open_folder(place, data, known or Known()).files}
    if kind == "npz":
        path = user_path(place)
        return {path.name: str(path)}
    if kind in ("idx", "variant"):
        files = idx_files("mnist" if kind == "variant" else data.dataset, data.data_dir)
        if files:
            return {path.name: str(path) for path in files.values()}
    name = tfds_name(data)
    copies = tfds_folders(name, data.data_dir) if name else []
    if not copies:
        return {}
    return {path.relative_to(copies[-1]).as_posix(): str(path) for path in copies[-1].rglob("*") if not path.is_dir()}


def stamped(files: Mapping[str, str]) -> dict[str, Stamp]:
    """What is to be remembered of files: `data_files.json`.

    Raises:
        DataError: one cannot be read.
    """
    return dict(zip(files, _each(_stamp, list(files.values()), "noting the contents of"), strict=True))


def check_contents(files: Mapping[str, str], stamps: Mapping[str, Stamp], everything: bool = False) -> None:
    """Compares files with what is remembered of them.

    Args:
        files: as they are now.
        stamps: as they were.
        everything: hash all of them, not only those that look changed.

    Raises:
        DataError: files were added or removed, or one holds something else, or cannot be read.
    """
    odd = next(iter(sorted(files.keys() ^ stamps.keys())), None)
    if odd is not None:
        raise DataError(f"files were added, removed or renamed (the first is {odd})")
    suspects = list(files) if everything else [name for name in files if _facts(files[name]) != stamps[name][:4]]
    digests = _each(_digest, [files[name] for name in suspects], "checking the contents of")
    for name, digest in zip(suspects, digests, strict=True):
        if digest != stamps[name][4]:
            raise DataError(f"{files[name]}: its contents changed since the run began")


def _facts(file: str) -> list[int]:
    with _readable(file):
        facts = Path(file).stat()
    return [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino]


def _stamp(file: str) -> Stamp:
    return [*_facts(file), _digest(file)]


def _digest(file: str) -> str:
    """SHA-256 of a file, see `WHOLE_BYTES`; the size of a larger one goes into it too."""
    found = hashlib.sha256()
    with _readable(file), open_regular(file) as content:
        size = os.fstat(content.fileno()).st_size
        if size <= WHOLE_BYTES:
            while block := content.read(2**20):
                found.update(block)
            return found.hexdigest()
        found.update(str(size).encode())
        for index in range(BLOCKS):
            content.seek((size - BLOCK_BYTES) * index // (BLOCKS - 1))
            found.update(content.read(BLOCK_BYTES))
    return found.hexdigest()


@contextlib.contextmanager
def _readable(file: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from None


def _each(work: Callable[[str], Any], files: Sequence[str], what: str) -> list[Any]:
    """Something done with each file, in threads; says so where it takes long."""
    parts = [files[start : start + _AT_ONCE] for start in range(0, len(files), _AT_ONCE)]
    results: list[Any] = []
    due = time.monotonic() + _QUIET_SECONDS
    with ThreadPoolExecutor(_THREADS) as pool:
        for done in pool.map(lambda part: [work(file) for file in part], parts):
            results += done
            if time.monotonic() >= due and len(results) < len(files):
                tell(f"{what} the data set's files: {len(results):,} of {len(files):,}")
                due = time.monotonic() + _TELL_SECONDS
    return results
