"""Prepared copies of TFDS data sets: where they are and what their files say. Imports no TensorFlow."""

import os
import re
from pathlib import Path
from typing import Any

from kerasgreedy.data.info import MOST_CLASSES, DataInfo
from kerasgreedy.data.named import BY_TFDS
from kerasgreedy.errors import DataError, did_you_mean
from kerasgreedy.files import read_bytes, user_path
from kerasgreedy.strict_json import MAX_JSON_BYTES, parse_json

# What TFDS puts the names of a split's files together from.
_IN_PATHS = ("name", "filepathTemplate")


def tfds_root(data_dir: str | None) -> Path:
    """The folder below which TFDS keeps its copies."""
    return user_path(data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"))


def tfds_folders(name: str, data_dir: str | None) -> list[Path]:
    """Folders that hold a prepared copy of a TFDS data set, newest version last.

    Raises:
        DataError: no data set of TFDS can have that name.
    """
    if not re.fullmatch(r"[a-z0-9_]+(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)?", name):
        raise DataError(f"tfds:{name}: not a name of a TFDS data set; allowed: NAME or NAME/CONFIG")
    builder, _, config = name.partition("/")
    root = tfds_root(data_dir) / builder
    found = root.glob(f"{config}/*/dataset_info.json" if config else "**/dataset_info.json")
    whole = [path.parent for path in found if not path.parent.name.startswith("incomplete.")]  # a killed preparation
    return sorted(whole, key=lambda folder: ([int(number) for number in re.findall(r"\d+", folder.name)], folder))


def tfds_missing(name: str, data_dir: str | None, why: str = "") -> DataError:
    """The error for a set that is known by its TFDS name only and cannot be had."""
    hint = did_you_mean(name, BY_TFDS) if name not in BY_TFDS else ""
    return DataError(
        f"tfds:{name}: no prepared copy below {tfds_root(data_dir)}{hint or why + '.'} Set data.download=true (or use "
        "`kerasgreedy data prepare`) to fetch it, data.data_dir to where a copy is, or use another set (digits needs nothing)"
    )


def describe_copy(folder: Path, name: str, dataset: str) -> DataInfo:
    """Facts of a prepared copy, from its own files.

    Args:
        folder: of one version.
        name: in TFDS.
        dataset: as the recipe writes it.

    Raises:
        DataError: it is no image classification set with a training and a test split.
    """
    try:
        info, columns = (parse_json(read_bytes(folder / name, MAX_JSON_BYTES)) for name in ("dataset_info.json", "features.json"))
        _check_classes(columns)
        kept = info.get("fileFormat", "tfrecord")  # older copies do not say
        if kept != "tfrecord":
            raise ValueError(f"its files are in the format {kept!r}; allowed: tfrecord")
        _check_files(folder)
        for part in (info.get("name", ""), *(split[key] for split in info["splits"] for key in _IN_PATHS if key in split)):
            if not isinstance(part, str) or "/" in part:
                raise ValueError(f"{part!r} is part of a file's name; allowed: files of that folder")
        sizes = {split["name"]: sum(map(int, split["shardLengths"])) for split in info["splits"]}
        features = columns["featuresDict"]["features"]
        shape = _shape(features["image"])
        count = int(features["label"]["classLabel"]["numClasses"])
        if not 1 < count <= MOST_CLASSES:
            raise ValueError(f"{count} class(es); allowed: 2 to {MOST_CLASSES:,}")
        names_file = folder / "label.labels.txt"
        listed = read_bytes(names_file, MAX_JSON_BYTES).decode().split("\n") if names_file.exists() else map(str, range(count))
        names = tuple(listed)[:count]
        test = tfds_test_split(name, list(sizes))
        origin = f"TFDS copy {name.partition('/')[0]} {folder.name}"
        return DataInfo(dataset, shape, names, sizes["train"], sizes[test], origin=origin)
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise DataError(f"{dataset}: {folder} is not a prepared image classification set ({error!r})") from None


def _check_files(folder: Path) -> None:
    """TensorFlow would wait for a pipe without end.

    Raises:
        ValueError: something in a copy's folder is no ordinary file.
    """
    for path in folder.iterdir():
        if not (path.is_file() or (path.is_dir() and ".tfrecord" not in path.name)):
            raise ValueError(f"{path.name} is no ordinary file")


def _check_classes(columns: Any) -> None:
    """TFDS imports whatever module a copy names as the home of a feature's class, which would run that module.

    Raises:
        ValueError: one that is not TFDS's own.
    """
    if isinstance(columns, dict):
        for key, value in columns.items():
            # Of the formats that TFDS reads: those since 4.5, and the older one.
            named = key in ("pythonClassName", "python_class_name", "type") and isinstance(value, str) and "." in value
            if named and not re.fullmatch(r"tensorflow_datasets\.core\.features\.\w+\.\w+", value):
                raise ValueError(f"it names the class {value}; allowed: those of tensorflow_datasets.core.features")
            _check_classes(parse_json(value) if key == "json" and isinstance(value, str) else value)
    elif isinstance(columns, list):
        for value in columns:
            _check_classes(value)


def tfds_test_split(name: str, splits: list[str]) -> str:
    """The split that is reported on: the usual one of a known set, else test, else validation."""
    usual = BY_TFDS[name].test_split if name in BY_TFDS else "test"
    for split in (usual, "test", "validation"):
        if split in splits:
            return split
    raise DataError(f"tfds:{name}: has no test or validation split (it has {', '.join(splits) or 'none'})")


def _shape(feature: dict[str, Any]) -> tuple[int | None, int | None, int]:
    """Height, width (None: images differ) and channels, from the feature `image`.

    Raises:
        ValueError: its images have other axes, an unknown number of channels, or are no bytes.
    """
    about = feature["image"]
    kind = about.get("dtype", "uint8")
    if kind != "uint8":
        raise ValueError(f"its images are of type {kind}; allowed: uint8")
    sizes = [int(size) for size in about["shape"]["dimensions"]]
    if len(sizes) != 3:
        raise ValueError(f"its images have {len(sizes)} axes; allowed: height, width, channels")
    height, width, channels = (size if size > 0 else None for size in sizes)
    if channels is None:
        raise ValueError("its images are of an unknown number of channels; allowed: a number, such as 1 or 3")
    return height, width, channels
