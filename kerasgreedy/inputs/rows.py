"""Rows of numbers, all of one shape, in memory or in a file; read and written in any order. Needs no TensorFlow."""

import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PIECE = 1 << 26
# A disk reads several places at a time faster than one after the other.
_AT_A_TIME = 8
_READERS = ThreadPoolExecutor(_AT_A_TIME, "features")


class RowTable(ABC):
    """A table of `count` rows."""

    @abstractmethod
    def put(self, places: "NDArray[np.int64]", values: "NDArray[Any]") -> None:
        """Writes rows."""

    @abstractmethod
    def take(self, places: "NDArray[np.int64]", out: "NDArray[Any]") -> None:
        """Reads rows into `out`, which is contiguous; places that there are not give the nearest."""


class MemoryRows(RowTable):
    """See `RowTable`."""

    def __init__(self, count: int, shape: tuple[int, ...], item: "np.dtype[Any]"):
        self._array = np.empty((count, *shape), item)

    def put(self, places: "NDArray[np.int64]", values: "NDArray[Any]") -> None:
        self._array[places] = values

    def take(self, places: "NDArray[np.int64]", out: "NDArray[Any]") -> None:
        np.take(self._array, places, axis=0, out=out, mode="clip")  # `raise` would buffer the output


class FileRows(RowTable):
    """See `RowTable`.

    There is no map of the file: around each page that it misses the system reads ahead, in a random order for nothing, and what
    is mapped counts as memory of the process.

    Args:
        path: of a file that is there and long enough, or is to be made.
        fresh: it is made; its folder too. A file of that name is given up, not written over: a snapshot of the folder may share
            it by a hard link.

    Raises:
        OSError: the disk is full, or the file cannot be opened.
    """

    def __init__(self, path: Path, fresh: bool, count: int, shape: tuple[int, ...], item: "np.dtype[Any]"):
        self._path, self._count = path, count
        self._row_bytes = int(np.prod(shape)) * item.itemsize
        if fresh:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
        self._file = open(path, "xb+" if fresh else "rb+", buffering=0)  # noqa: SIM115 (open as long as the rows are there)
        if fresh and hasattr(os, "posix_fallocate"):  # a full disk shows now; not on macOS
            os.posix_fallocate(self._file.fileno(), 0, max(count * self._row_bytes, 1))
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)

    def put(self, places: "NDArray[np.int64]", values: "NDArray[Any]") -> None:
        values = np.ascontiguousarray(values)
        for first, last in _runs(places):
            left, begin = _bytes_of(values[first:last]), int(places[first]) * self._row_bytes
            while left:
                count = os.pwrite(self._file.fileno(), left, begin)
                left, begin = left[count:], begin + count

    def take(self, places: "NDArray[np.int64]", out: "NDArray[Any]") -> None:
        places = np.clip(places, 0, self._count - 1)
        # Rows that follow each other are read at one go.
        runs = [(int(places[first]) * self._row_bytes, _bytes_of(out[first:last])) for first, last in _runs(places)]
        list(_READERS.map(self._read, (runs[first::_AT_A_TIME] for first in range(_AT_A_TIME))))

    def pieces(self) -> Iterator[bytearray]:
        """All that the rows are, in order."""
        whole = self._count * self._row_bytes
        for begin in range(0, whole, _PIECE):
            piece = bytearray(min(_PIECE, whole - begin))
            self._read([(begin, memoryview(piece))])
            yield piece

    def finish(self) -> None:
        """What was written is on the disk."""
        os.fsync(self._file.fileno())

    def _read(self, runs: list[tuple[int, memoryview]]) -> None:
        for begin, left in runs:
            while left:
                count = os.preadv(self._file.fileno(), [left], begin)
                if not count:
                    raise OSError(f"{self._path} is shorter than it was")
                left, begin = left[count:], begin + count


def _runs(places: "NDArray[np.int64]") -> list[tuple[int, int]]:
    """First and last + 1 of each stretch in which each place is the one after that before."""
    starts = [0, *(np.flatnonzero(np.diff(places) != 1) + 1).tolist(), len(places)]
    return [(first, last) for first, last in itertools.pairwise(starts) if first < last]


def _bytes_of(values: "NDArray[Any]") -> memoryview:
    return memoryview(values.reshape(-1).view(np.uint8).data)
