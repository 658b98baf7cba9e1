"""The idx files of MNIST and Fashion-MNIST: where they are and what their headers say. Imports no TensorFlow."""

import contextlib
import gzip
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from kerasgreedy.data.named import NAMED
from kerasgreedy.errors import DataError
from kerasgreedy.files import open_regular, user_path

STEMS = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}


def idx_folder(name: str, data_dir: str | None) -> Path | None:
    """Where the idx files of a named set would lie; None: nowhere."""
    place = data_dir or NAMED[name].idx_dir
    return user_path(place) if place else None


def idx_files(name: str, data_dir: str | None) -> dict[str, Path] | None:
    """The four files of a named set (each with or without .gz), or None where there is none of them.

    Raises:
        DataError: naming the first that is missing beside others.
    """
    folder = idx_folder(name, data_dir)
    if folder is None:
        return None
    found = {key: _first(folder / f"{stem}.gz", folder / stem) for key, stem in STEMS.items()}
    files = {key: path for key, path in found.items() if path is not None}
    if files and len(files) < len(STEMS):
        missing = next(stem for key, stem in STEMS.items() if key not in files)
        raise DataError(f"{name}: {folder / missing} (or .gz) not found; allowed: all four idx files in one folder")
    return files or None


def idx_shape(path: Path) -> tuple[int, ...]:
    """The sizes in the header of an idx file of bytes: magic 0, 0, 8, rank, then the sizes, big-endian.

    Raises:
        DataError: it is none.
    """
    try:
        with open_idx(path) as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:3] != b"\0\0\x08":
                raise DataError(f"{path}: not an idx file of bytes (it starts with {magic.hex()})")
            return struct.unpack(f">{magic[3]}I", file.read(4 * magic[3]))
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise DataError(f"{path}: damaged idx file ({error})") from None


@contextlib.contextmanager
def open_idx(path: Path) -> Iterator[BinaryIO | gzip.GzipFile]:
    """Such a file to be read, unpacked where its name ends in .gz."""
    with open_regular(path) as file:
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield unpacked
        else:
            yield file


def _first(*paths: Path) -> Path | None:
    return next((path for path in paths if path.exists()), None)
