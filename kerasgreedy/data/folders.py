"""Folders of class folders: their files and what is known of them. Imports no TensorFlow."""

import hashlib
import os
from collections.abc import Collection
from pathlib import Path

from kerasgreedy.data.info import DataInfo
from kerasgreedy.errors import DataError, did_you_mean
from kerasgreedy.files import user_path
from kerasgreedy.spec.recipe import Data

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
# Whatever a file is called, nothing else is read: Pillow would hand a PostScript file to Ghostscript, which runs it.
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "GIF")


def describe_folder(place: str, data: Data, skipped: Collection[str] | None) -> DataInfo:
    """Facts of a folder; the size is that of the first image of each class, where they agree.

    Args:
        skipped: files that are left out, see `DataInfo`.

    Raises:
        DataError: see `folder_files`; or the first image of a class cannot be read and `data.corrupt` is not `skip`.
    """
    files, class_names = folder_files(place, skipped or ())
    by_class: dict[int, list[str]] = {label: [] for label in range(len(class_names))}
    for file, label in files["train"]:
        by_class[label].append(file)
    sizes = {_first_size(of_class, skip=data.corrupt == "skip" and skipped is None) for of_class in by_class.values()}
    height, width = sizes.pop() if len(sizes) == 1 else (None, None)
    names = "\n".join(relative(file, place) for split in files.values() for file, _ in split)
    return DataInfo(
        data.dataset,
        (height, width, 3),
        class_names,
        len(files["train"]),
        len(files["test"]),
        fingerprint=hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest(),
        skipped=None if skipped is None else tuple(skipped),
    )


def folder_files(place: str, skipped: Collection[str] = ()) -> tuple[dict[str, list[tuple[str, int]]], tuple[str, ...]]:
    """The images below `place/train/<class>/` and `place/test/<class>/`, with labels.

    Args:
        skipped: files that are left out, as `train/cat/1.jpg`.

    Returns:
        split -> (file, label) sorted by class and name, and the class names.

    Raises:
        DataError: a folder is missing or holds no image, or the splits differ in their classes.
    """
    root = user_path(place)
    if not root.is_dir():
        raise DataError(f"folder:{place}: no such folder; allowed: a folder with train/<class>/ and test/<class>/ inside")
    left_out = frozenset(skipped)
    image = "readable image" if left_out else "image"
    splits: dict[str, list[tuple[str, int]]] = {}
    class_names: tuple[str, ...] = ()
    for split in ("train", "test"):
        names = _class_folders(root, split, place)
        if split == "train":
            class_names = names
            if len(names) < 2:
                raise DataError(f"folder:{place}: {root / split} holds {len(names)} class folder(s); allowed: 2 or more")
        elif set(names) - set(class_names):
            extra = sorted(set(names) - set(class_names))[0]
            raise DataError(f"folder:{place}: class '{extra}' is in test but not in train{did_you_mean(extra, class_names)}")
        splits[split] = [
            (file.path, class_names.index(name))
            for name in names
            for file in sorted(os.scandir(root / split / name), key=lambda entry: entry.name)
            if _is_image(file.name) and f"{split}/{name}/{file.name}" not in left_out
        ]
        if not splits[split]:
            raise DataError(f"folder:{place}: no {image} in {root / split}/<class>/; allowed: {', '.join(IMAGE_ENDINGS)}")
    empty = set(range(len(class_names))) - {label for _, label in splits["train"]}
    if empty:
        raise DataError(f"folder:{place}: class '{class_names[min(empty)]}' has no {image.replace('image', 'training image')}")
    return splits, class_names


def relative(file: str, place: str) -> str:
    """A file of a folder as `train/cat/1.jpg`."""
    return Path(file).relative_to(user_path(place)).as_posix()


def _class_folders(root: Path, split: str, place: str) -> tuple[str, ...]:
    base = root / split
    if not base.is_dir():
        has = ", ".join(sorted(path.name for path in root.iterdir())[:6]) or "nothing"
        raise DataError(f"folder:{place}: no folder '{split}' inside (it holds {has}); allowed: {split}/<class>/*.jpg")
    return tuple(sorted(entry.name for entry in os.scandir(base) if entry.is_dir() and not entry.name.startswith(".")))


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_ENDINGS) and not name.startswith(".")


def _first_size(files: list[str], skip: bool) -> tuple[int, int]:
    """Height and width of the first file, or with `skip` of the first one that has any."""
    for file in files:
        try:
            return _size(file)
        except DataError:
            if not skip:
                raise
    raise DataError(f"{Path(files[0]).parent}: none of its {len(files)} images can be read")


def _size(file: str) -> tuple[int, int]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file, formats=IMAGE_FORMATS) as image:
            return image.height, image.width
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{file}: not a readable image ({error})") from None
