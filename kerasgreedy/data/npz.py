"""npz files: four arrays in one file. Imports NumPy and no TensorFlow; nothing that is pickled is ever loaded."""

import contextlib
import hashlib
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasgreedy.data.arrays import ChannelAxis, ImageArrays, as_channels_last, check_classes, check_labels
from kerasgreedy.data.info import DataInfo, common_size
from kerasgreedy.data.memory import available_memory
from kerasgreedy.errors import DataError, did_you_mean
from kerasgreedy.files import open_regular, user_path
from kerasgreedy.spec.recipe import Data

if TYPE_CHECKING:
    from numpy.typing import NDArray

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
NAMES = "class_names"


def describe_npz(place: str, data: Data) -> DataInfo:
    """Facts of an npz file, from its labels and the headers of its images.

    Raises:
        DataError: an array is missing, or cannot be images, labels or names; or a class has no training image.
    """
    path, entries = _open(place)
    shapes = {}
    for split in ("train", "test"):
        given, what = _header(path, f"x_{split}")[0], f"{path}: x_{split}"
        shapes[split] = as_channels_last(_as_images(given, data.channel_axis, what), data.channel_axis, what)
    labels = {split: read_array(path, f"y_{split}") for split in ("train", "test")}
    names = _class_names(path, entries)
    known = None if names is None else len(names)
    train, test = (check_labels(labels[split], shape[0], known, f"{path}: y_{split}") for split, shape in shapes.items())
    found = names or tuple(map(str, range(max(int(train.max()), int(test.max())) + 1)))
    check_classes(train, test, found, str(path))
    if shapes["train"][3] != shapes["test"][3]:
        raise DataError(f"{path}: x_test has {shapes['test'][3]} channels and x_train has {shapes['train'][3]}")
    size = common_size(shapes["train"][1:3], shapes["test"][1:3])
    contents = "\n".join(f"{name} {entry.CRC} {entry.file_size}" for name, entry in sorted(entries.items()))
    stamp = hashlib.sha256(contents.encode()).hexdigest()
    shape = (*size, shapes["train"][3])
    return DataInfo(data.dataset, shape, found, len(train), len(test), fingerprint=stamp)


def read_npz(place: str, channel_axis: ChannelAxis = None) -> ImageArrays:
    """The arrays of an npz file; grey images without an axis of channels get one."""
    path, entries = _open(place)
    arrays = {name: read_array(path, name) for name in ARRAYS}
    for name in ("x_train", "x_test"):
        arrays[name] = arrays[name].reshape(_as_images(arrays[name].shape, channel_axis, f"{path}: {name}"))
    train, test = ((arrays[f"x_{split}"], arrays[f"y_{split}"]) for split in ("train", "test"))
    return ImageArrays(train, test, _class_names(path, entries))


def _open(place: str) -> tuple[Path, dict[str, zipfile.ZipInfo]]:
    """The file and its entries by array name; all four arrays are there."""
    path = user_path(place)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no ordinary file" if path.exists() else "no such file"
        raise DataError(f"npz:{place}: {what}; allowed: a file that numpy.savez wrote, with the arrays {', '.join(ARRAYS)}")
    entries = _entries(path)
    for name in ARRAYS:
        if name not in entries:
            others = [entry for entry in entries if entry not in (*ARRAYS, NAMES)]
            has = f"it holds {', '.join(list(entries)[:8]) or 'nothing'}"
            raise DataError(f"{path}: no array '{name}' ({has}); allowed: {', '.join(ARRAYS)}{did_you_mean(name, others)}")
    near = [entry for entry in entries if entry not in (*ARRAYS, NAMES) and did_you_mean(entry, [NAMES])]
    if near and NAMES not in entries:
        raise DataError(f"{path}: unknown array '{near[0]}'{did_you_mean(near[0], [NAMES])}")
    return path, entries


def array_names(path: Path) -> list[str]:
    """The arrays of an npz file."""
    return list(_entries(path))


def _entries(path: Path) -> dict[str, zipfile.ZipInfo]:
    try:
        with _archive(path) as archive:
            return {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
    except Exception as error:  # see `_header`
        raise DataError(f"{path}: damaged, or not an npz file ({error})") from None


def read_array(path: Path, name: str) -> "NDArray[Any]":
    """One array of an npz file.

    Raises:
        DataError: it is damaged, holds Python objects, or is larger than the memory that is free.
    """
    shape, dtype = _header(path, name)
    size, free = math.prod(shape) * dtype.itemsize, available_memory()
    if size > free:
        raise DataError(
            f"{path}: array '{name}' of {size / 1e9:,.1f} GB does not fit into the {free / 1e9:,.1f} GB that are free"
        )
    try:
        with open_regular(path) as file, np.load(file, allow_pickle=False) as archive:
            return np.asarray(archive[name])
    except Exception as error:  # see `_header`
        raise _damaged(path, name, error) from None


def _header(path: Path, name: str) -> tuple[tuple[int, ...], "np.dtype[Any]"]:
    """Shape and type of an array, without reading it."""
    try:
        with _archive(path) as archive, archive.open(f"{name}.npy") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
    except Exception as error:  # a header is parsed by `ast` and `tokenize`, which raise many unrelated types
        raise _damaged(path, name, error) from None
    if dtype.hasobject:
        raise DataError(f"{path}: array '{name}' holds pickled objects, which are never loaded; allowed: numbers")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise DataError(f"{path}: array '{name}' is damaged (its shape is {shape})")
    return shape, dtype


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        yield archive


def _damaged(path: Path, name: str, error: Exception) -> DataError:
    return DataError(f"{path}: array '{name}' is damaged ({str(error) or type(error).__name__})")


def _as_images(shape: tuple[int, ...], axis: ChannelAxis, what: str) -> tuple[int, int, int, int]:
    """(n, height, width) as (n, height, width, 1)."""
    if len(shape) == 3 and axis:
        raise DataError(f"{what}: received shape {shape}, which has no axis of channels; leave data.channel_axis out")
    full = (*shape, 1) if len(shape) == 3 else shape
    if len(full) != 4 or 0 in full:
        raise DataError(f"{what}: received shape {shape}; allowed: (n, height, width) or (n, height, width, channels), none 0")
    return full[0], full[1], full[2], full[3]


def _class_names(path: Path, entries: dict[str, zipfile.ZipInfo]) -> tuple[str, ...] | None:
    if NAMES not in entries:
        return None
    names = read_array(path, NAMES)
    if names.ndim != 1 or names.dtype.kind not in "US" or not names.size:
        raise DataError(f"{path}: {NAMES}: received {names.dtype} of shape {names.shape}; allowed: a list of texts")
    texts = tuple(name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in names.tolist())
    twice = sorted(name for name in set(texts) if texts.count(name) > 1)
    if twice:
        raise DataError(f"{path}: {NAMES}: '{twice[0]}' is there twice; allowed: a name for each class")
    return texts
