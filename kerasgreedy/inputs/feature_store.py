"""Rows of features in memory or in a file, and whether a file that was left behind can be trusted. Needs no TensorFlow."""

import functools
import itertools
import json
import math
import os
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasgreedy.files import read_bytes, write_atomically
from kerasgreedy.strict_json import parse_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALIGNMENT = 64
_CHUNK = 1 << 26
# A disk reads several places at a time faster than one after the other.
_AT_A_TIME = 8
_READERS = ThreadPoolExecutor(_AT_A_TIME, "features")


class FeatureStore:
    """A table of features, one row an example, with the examples' labels.

    Half types are kept as uint16, bit for bit: NumPy has no bfloat16.

    Args:
        rows: number of examples.
        shape: of one example's features.
        dtype: `float32`, `bfloat16`, `float16`, or `uint8` for bits.
        file: where the rows are kept; None: in memory.
        stamp: what the features are made from; a file that was made from something else is not used again.
        shards: of so many workers, each holds the rows of one remainder: row r lies at r // shards, and only what is put is
            there.

    Attributes:
        stamp: as given, and the size and type of the table.
        fault: why a file that an earlier process finished is not used again, or None.
    """

    def __init__(self, rows: int, shape: tuple[int, ...], dtype: str, file: Path | None, stamp: dict[str, Any], shards: int = 1):
        self.shape, self.dtype, self.shards = shape, dtype, shards
        self.item = np.dtype(dtype if dtype in ("float32", "uint8") else np.uint16)
        self._rows = rows
        self.labels = np.zeros(math.ceil(rows / shards), np.int32)
        self.filled = False
        self.fault: str | None = None
        shared = {"shards": shards} if shards > 1 else {}
        self._file, self.stamp = file, {**stamp, "rows": rows, "shape": list(shape), "dtype": dtype, **shared}
        self.array: NDArray[Any] = self._reopened() if file and self._seal.exists() else self._fresh()

    def __len__(self) -> int:
        """Rows of all shards."""
        return self._rows

    def put(self, rows: "NDArray[np.int64]", features: "NDArray[Any]", labels: "NDArray[np.int32]") -> None:
        """Stores a batch; rows below 0 are fillers and are left out."""
        real = rows >= 0
        places = rows[real] // self.shards
        self.array[places], self.labels[places] = features[real], labels[real]

    def take(self, rows: "NDArray[np.int64]") -> "NDArray[Any]":
        """The features of some rows, at an address that TensorFlow takes without another copy."""
        size = len(rows) * int(np.prod(self.shape)) * self.item.itemsize
        buffer = np.empty(size + ALIGNMENT, np.uint8)
        start = -buffer.ctypes.data % ALIGNMENT
        out = buffer[start : start + size].view(self.item).reshape(len(rows), *self.shape)
        places = np.clip(rows // self.shards, 0, len(self.labels) - 1)
        if self._file is None:
            return np.take(self.array, places, axis=0, out=out, mode="clip")  # `raise` would buffer the output
        # Not through the map: each page that it misses would be read ahead of, which in a random order is read for nothing.
        self._reader  # noqa: B018 (opened by one thread)
        starts = [0, *(np.flatnonzero(np.diff(places) != 1) + 1)]  # rows that follow each other are read at one go
        runs = [(places[a], out[a:b]) for a, b in itertools.pairwise([*starts, len(places)]) if a < b]
        list(_READERS.map(self._read, (runs[first::_AT_A_TIME] for first in range(_AT_A_TIME))))
        return out

    def _read(self, runs: "list[tuple[int, NDArray[Any]]]") -> None:
        """Rows from a place on, into (n, ...), of each run."""
        for place, out in runs:
            wanted = memoryview(out.reshape(-1).view(np.uint8).data)
            begin = int(place) * (wanted.nbytes // max(len(out), 1))
            while wanted:
                count = os.preadv(self._reader.fileno(), [wanted], begin)
                if not count:
                    raise OSError(f"{self._file} is shorter than it was")
                wanted, begin = wanted[count:], begin + count

    @functools.cached_property
    def _reader(self) -> FileIO:
        assert self._file is not None
        reader = open(self._file, "rb", buffering=0)  # noqa: SIM115 (closed with the store)
        os.posix_fadvise(reader.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        return reader

    def finish(self) -> None:
        """All rows are there. A file gets its seal: what it was made from, the labels and a checksum."""
        self.filled = True
        if self._file and isinstance(self.array, np.memmap):
            self.array.flush()
            seal = {**self.stamp, "labels": self.labels.tolist(), "crc32": self._checksum(self.labels)}
            write_atomically(self._seal, json.dumps(seal).encode())

    @property
    def _seal(self) -> Path:
        assert self._file is not None
        return self._file.with_suffix(".json")

    def _fresh(self) -> "NDArray[Any]":
        shape = (len(self.labels), *self.shape)
        if self._file is None:
            return np.empty(shape, self.item)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.unlink(missing_ok=True)  # never written over: a snapshot of the folder may share it by a hard link
        with open(self._file, "xb") as file:
            # A full disk shows here, as an error; a write through the map of a file with holes would kill the process.
            os.posix_fallocate(file.fileno(), 0, max(int(np.prod(shape)) * self.item.itemsize, 1))
        return np.memmap(self._file, self.item, "r+", shape=shape)

    def _reopened(self) -> "NDArray[Any]":
        """The file of an earlier process, if it is whole and was made from the same; else a fresh one."""
        assert self._file is not None
        try:
            seal = parse_json(read_bytes(self._seal, 16 * len(self) + 100_000))
            labels = np.array(seal.pop("labels"), np.int32)
            checksum = seal.pop("crc32")
            if seal == self.stamp and labels.shape == self.labels.shape:
                self.array = np.memmap(self._file, self.item, "r+", shape=(len(self.labels), *self.shape))
                if self._checksum(labels) != checksum:
                    raise ValueError("its checksum differs")
                self.labels, self.filled = labels, True
                return self.array
            self.fault = f"a cache file of other weights, images or workers: {self._file}"
        # Whatever a damaged seal holds.
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            self.fault = f"a damaged cache file: {self._file}: damaged ({error})"
        self._seal.unlink(missing_ok=True)
        return self._fresh()

    def _checksum(self, labels: "NDArray[np.int32]") -> int:
        content = self.array.reshape(-1).view(np.uint8)
        value = zlib.crc32(labels.tobytes())
        for start in range(0, content.size, _CHUNK):
            value = zlib.crc32(content[start : start + _CHUNK].data, value)
        return value


class StoreFolder:
    """The folder of a run that holds cached features, `cache/`: only the running phase's are in it.

    Args:
        path: need not exist.
    """

    def __init__(self, path: Path):
        self.path = path

    def phase(self, index: int) -> Path:
        """Where the features of a phase lie."""
        return self.path / f"phase_{index + 1}"

    def keep_only(self, *phases: int) -> None:
        """Removes what other phases left."""
        kept = {self.phase(index) for index in phases}
        if self.path.is_dir():
            for folder in self.path.iterdir():
                if folder not in kept:
                    shutil.rmtree(folder, ignore_errors=True)
            if not kept:
                shutil.rmtree(self.path, ignore_errors=True)
