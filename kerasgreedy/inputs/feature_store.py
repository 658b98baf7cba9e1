"""Rows of features in memory or in a file, and whether a file that was left behind can be trusted. Needs no TensorFlow."""

import json
import math
import shutil
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasgreedy.files import read_bytes, write_atomically
from kerasgreedy.inputs.rows import FileRows, MemoryRows, RowTable
from kerasgreedy.strict_json import parse_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALIGNMENT = 64


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
        self._table: RowTable = self._reopened() if file and self._seal.exists() else self._fresh()

    def __len__(self) -> int:
        """Rows of all shards."""
        return self._rows

    def put(self, rows: "NDArray[np.int64]", features: "NDArray[Any]", labels: "NDArray[np.int32]") -> None:
        """Stores a batch; rows below 0 are fillers and are left out."""
        real = rows >= 0
        places = rows[real] // self.shards
        self._table.put(places, features[real])
        self.labels[places] = labels[real]

    def take(self, rows: "NDArray[np.int64]") -> "NDArray[Any]":
        """The features of some rows, at an address that TensorFlow takes without another copy."""
        size = len(rows) * int(np.prod(self.shape)) * self.item.itemsize
        buffer = np.empty(size + ALIGNMENT, np.uint8)
        start = -buffer.ctypes.data % ALIGNMENT
        out = buffer[start : start + size].view(self.item).reshape(len(rows), *self.shape)
        self._table.take(rows // self.shards, out)
        return out

    def finish(self) -> None:
        """All rows are there. A file gets its seal: what it was made from, the labels and a checksum."""
        self.filled = True
        if isinstance(self._table, FileRows):
            self._table.finish()
            seal = {**self.stamp, "labels": self.labels.tolist(), "crc32": self._checksum(self._table, self.labels)}
            write_atomically(self._seal, json.dumps(seal).encode())

    @property
    def _seal(self) -> Path:
        assert self._file is not None
        return self._file.with_suffix(".json")

    def _fresh(self) -> RowTable:
        kind = (len(self.labels), self.shape, self.item)
        return FileRows(self._file, True, *kind) if self._file else MemoryRows(*kind)

    def _reopened(self) -> RowTable:
        """The file of an earlier process, if it is whole and was made from the same; else a fresh one."""
        assert self._file is not None
        try:
            seal = parse_json(read_bytes(self._seal, 16 * len(self) + 100_000))
            labels = np.array(seal.pop("labels"), np.int32)
            checksum = seal.pop("crc32")
            if seal == self.stamp and labels.shape == self.labels.shape:
                table = FileRows(self._file, False, len(self.labels), self.shape, self.item)
                if self._checksum(table, labels) != checksum:
                    raise ValueError("its checksum differs")
                self.labels, self.filled = labels, True
                return table
            self.fault = f"a cache file of other weights, images or workers: {self._file}"
        # Whatever a damaged seal holds.
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            self.fault = f"a damaged cache file: {self._file}: damaged ({error})"
        self._seal.unlink(missing_ok=True)
        return self._fresh()

    @staticmethod
    def _checksum(table: FileRows, labels: "NDArray[np.int32]") -> int:
        value = zlib.crc32(labels.tobytes())
        for piece in table.pieces():
            value = zlib.crc32(piece, value)
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
