"""What is known of a data set before its images are read. Imports no TensorFlow: `plan` and `validate` use it."""

import gzip
import hashlib
import json
import os
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from kerasgreedy.errors import DataError, did_you_mean
from kerasgreedy.files import user_path
from kerasgreedy.spec.recipe import Data

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
FASHION_DIR = "/usr/share/datasets/fashion-mnist"
FASHION_CLASSES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
# name: (image shape, classes, training images, test images, name of the split that tests)
TFDS_KNOWN: dict[str, tuple[tuple[int | None, int | None, int], int, int, int, str]] = {
    "mnist": ((28, 28, 1), 10, 60_000, 10_000, "test"),
    "fashion_mnist": ((28, 28, 1), 10, 60_000, 10_000, "test"),
    "cifar10": ((32, 32, 3), 10, 50_000, 10_000, "test"),
    "cifar100": ((32, 32, 3), 100, 50_000, 10_000, "test"),
    "svhn_cropped": ((32, 32, 3), 10, 73_257, 26_032, "test"),
    "imagenet2012": ((None, None, 3), 1000, 1_281_167, 50_000, "validation"),
    "caltech101": ((None, None, 3), 102, 3_059, 6_085, "test"),
}


@dataclass(frozen=True)
class DataInfo:
    """Facts of a data set.

    Attributes:
        dataset: as the recipe writes it.
        image_shape: (height, width, channels); None where images differ in size.
        class_names: in the order of the labels.
        train_examples, test_examples: images in the two splits, before any limit.
        fingerprint: of the file names of a folder.
    """

    dataset: str
    image_shape: tuple[int | None, int | None, int]
    class_names: tuple[str, ...]
    train_examples: int
    test_examples: int
    fingerprint: str | None = None

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


def describe(data: Data) -> DataInfo:
    """Looks a data set up without reading its images.

    Raises:
        DataError: unknown name, missing folder or files, or no prepared copy whose facts could be read.
    """
    kind, _, rest = data.dataset.partition(":")
    if kind == "digits" and not rest:
        return DataInfo("digits", (8, 8, 1), tuple("0123456789"), 1437, 360)
    if kind == "fashion_mnist" and not rest:
        idx = fashion_files(data)
        train, test = (idx_shape(idx[f"{split}_images"])[0] for split in ("train", "test"))
        return DataInfo("fashion_mnist", (28, 28, 1), FASHION_CLASSES, train, test)
    if kind == "folder" and rest:
        files, class_names = folder_files(rest)
        firsts = {label: file for file, label in reversed(files["train"])}
        sizes = {_size(file) for file in firsts.values()}
        height, width = sizes.pop() if len(sizes) == 1 else (None, None)
        names = "\n".join(f"{Path(file).relative_to(user_path(rest))}" for split in files.values() for file, _ in split)
        stamp = hashlib.sha256(names.encode()).hexdigest()
        counts = len(files["train"]), len(files["test"])
        return DataInfo(data.dataset, (height, width, 3), class_names, *counts, fingerprint=stamp)
    if kind == "tfds" and rest:
        return _describe_tfds(rest, data)
    allowed = ["digits", "fashion_mnist", "folder:PATH", "tfds:NAME"]
    hint = f"; did you mean 'tfds:{data.dataset}'?" if data.dataset in TFDS_KNOWN else did_you_mean(data.dataset, allowed)
    if kind in ("folder", "tfds"):
        hint = f"; write {kind}:{'PATH' if kind == 'folder' else 'NAME'}"
    raise DataError(f"received '{data.dataset}'; allowed: {', '.join(allowed)}{hint}")


def fashion_files(data: Data) -> dict[str, Path]:
    """The four idx files of Fashion-MNIST (with or without .gz), from `data_dir` or Debian's place.

    Raises:
        DataError: naming the first file that is missing.
    """
    folder = user_path(data.data_dir or FASHION_DIR)
    found = {}
    for key, stem in (
        ("train_images", "train-images-idx3-ubyte"),
        ("train_labels", "train-labels-idx1-ubyte"),
        ("test_images", "t10k-images-idx3-ubyte"),
        ("test_labels", "t10k-labels-idx1-ubyte"),
    ):
        choices = [path for path in (folder / f"{stem}.gz", folder / stem) if path.is_file()]
        if not choices:
            raise DataError(
                f"fashion_mnist: {folder / stem} (or .gz) not found; put the four idx files there, name their folder with "
                "data.data_dir, or install Debian's package dataset-fashion-mnist"
            )
        found[key] = choices[0]
    return found


def idx_shape(path: Path) -> tuple[int, ...]:
    """The sizes in the header of an idx file of bytes: magic 0, 0, 8, rank, then the sizes, big-endian.

    Raises:
        DataError: it is none.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:3] != b"\0\0\x08":
                raise DataError(f"{path}: not an idx file of bytes (it starts with {magic.hex()})")
            return struct.unpack(f">{magic[3]}I", file.read(4 * magic[3]))
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise DataError(f"{path}: damaged idx file ({error})") from None


def folder_files(place: str) -> tuple[dict[str, list[tuple[str, int]]], tuple[str, ...]]:
    """The images below `place/train/<class>/` and `place/test/<class>/`, with labels.

    Returns:
        split -> (file, label) sorted by class and name, and the class names.

    Raises:
        DataError: a folder is missing or holds no image, or the splits differ in their classes.
    """
    root = user_path(place)
    if not root.is_dir():
        raise DataError(f"folder:{place}: no such folder; allowed: a folder with train/<class>/ and test/<class>/ inside")
    splits: dict[str, list[tuple[str, int]]] = {}
    class_names: tuple[str, ...] = ()
    for split in ("train", "test"):
        base = root / split
        if not base.is_dir():
            has = ", ".join(sorted(path.name for path in root.iterdir())[:6]) or "nothing"
            raise DataError(f"folder:{place}: no folder '{split}' inside (it holds {has}); allowed: {split}/<class>/*.jpg")
        names = tuple(sorted(entry.name for entry in os.scandir(base) if entry.is_dir() and not entry.name.startswith(".")))
        if split == "train":
            class_names = names
            if len(names) < 2:
                raise DataError(f"folder:{place}: {base} holds {len(names)} class folder(s); allowed: 2 or more")
        elif set(names) - set(class_names):
            extra = sorted(set(names) - set(class_names))[0]
            raise DataError(f"folder:{place}: class '{extra}' is in test but not in train{did_you_mean(extra, class_names)}")
        splits[split] = [
            (file.path, class_names.index(name))
            for name in names
            for file in sorted(os.scandir(base / name), key=lambda entry: entry.name)
            if file.name.lower().endswith(IMAGE_ENDINGS) and not file.name.startswith(".")
        ]
        if not splits[split]:
            raise DataError(f"folder:{place}: no image in {base}/<class>/; allowed: {', '.join(IMAGE_ENDINGS)}")
    counts = [sum(label == index for _, label in splits["train"]) for index in range(len(class_names))]
    if 0 in counts:
        raise DataError(f"folder:{place}: class '{class_names[counts.index(0)]}' has no training image")
    return splits, class_names


def tfds_folders(name: str, data: Data) -> list[Path]:
    """Folders that hold a prepared copy of a TFDS data set, newest version last."""
    if not re.fullmatch(r"[a-z0-9_]+(/[A-Za-z0-9_.-]+)?", name):
        raise DataError(f"tfds:{name}: not a name of a TFDS data set; allowed: NAME or NAME/CONFIG")
    builder, _, config = name.partition("/")
    root = user_path(data.data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")) / builder
    return sorted(path.parent for path in root.glob(f"{config}/*/dataset_info.json" if config else "**/dataset_info.json"))


def tfds_missing(name: str, data: Data, why: str = "") -> DataError:
    """The error for a TFDS data set that cannot be had."""
    place = data.data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    hint = did_you_mean(name, TFDS_KNOWN) if name not in TFDS_KNOWN else ""
    return DataError(
        f"tfds:{name}: no prepared copy below {place}{hint or why + '.'} Set data.download=true to fetch it, "
        "data.data_dir to where a copy is, or use another data set (digits needs nothing)"
    )


def _describe_tfds(name: str, data: Data) -> DataInfo:
    prepared = tfds_folders(name, data)
    if not prepared and not data.download:
        raise tfds_missing(name, data)
    known = TFDS_KNOWN.get(name)
    if not prepared:
        if known is None:
            message = "its facts are known only once it is prepared"
            raise DataError(f"tfds:{name}: {message}; prepare it with tfds build, then set data.data_dir")
        shape, classes, train, test, _ = known
        return DataInfo(data.dataset, shape, tuple(str(i) for i in range(classes)), train, test)
    folder = prepared[-1]
    try:
        info = json.loads((folder / "dataset_info.json").read_text())
        sizes = {split["name"]: sum(map(int, split["shardLengths"])) for split in info["splits"]}
        features = json.loads((folder / "features.json").read_text())["featuresDict"]["features"]
        shape = _tfds_shape(features["image"])
        names_file = folder / "label.labels.txt"
        count = int(features["label"]["classLabel"]["numClasses"])
        names = tuple(names_file.read_text().split("\n")[:count]) if names_file.is_file() else tuple(map(str, range(count)))
        test_split = tfds_test_split(name, list(sizes))
        return DataInfo(data.dataset, shape, names, sizes["train"], sizes[test_split])
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise DataError(f"tfds:{name}: {folder} is not a prepared image classification set ({error!r})") from None


def tfds_test_split(name: str, splits: list[str]) -> str:
    """The split that is reported on: the usual one of a known set, else test, else validation."""
    for split in (TFDS_KNOWN[name][4] if name in TFDS_KNOWN else "test", "test", "validation"):
        if split in splits:
            return split
    raise DataError(f"tfds:{name}: has no test or validation split (it has {', '.join(splits)})")


def _tfds_shape(feature: dict[str, dict[str, dict[str, list[str]]]]) -> tuple[int | None, int | None, int]:
    sizes = [int(size) for size in feature["image"]["shape"]["dimensions"]]
    return (sizes[0] if sizes[0] > 0 else None, sizes[1] if sizes[1] > 0 else None, sizes[2] if sizes[2] > 0 else 3)


def _size(file: str) -> tuple[int, int]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            return image.height, image.width
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise DataError(f"{file}: not a readable image ({error})") from None
