"""Folders of class folders: their files and what is known of them. Imports no TensorFlow."""

import hashlib
import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kerasgreedy.data.info import DataInfo
from kerasgreedy.errors import DataError, did_you_mean
from kerasgreedy.files import open_regular, user_path
from kerasgreedy.spec.recipe import Data

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
# Whatever a file is called, nothing else is read: Pillow would hand a PostScript file to Ghostscript, which runs it.
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "GIF")
# Heads of files are read by so many threads, so many files at a time: what takes time is a slow disk, or one far away.
_THREADS, _AT_ONCE = 8, 128


def describe_folder(place: str, data: Data, skipped: Collection[str] | None) -> DataInfo:
    """Facts of a folder; its images have a size if all of them have the same, as the head of each file says.

    Args:
        skipped: files that are left out, see `DataInfo`.

    Raises:
        DataError: see `folder_files`; or a file cannot be read and `data.corrupt` is not `skip`.
    """
    files, class_names = folder_files(place, skipped or ())
    listed = [file for split in files.values() for file, _ in split]
    height, width = _size_of_all(listed, skip=data.corrupt == "skip" and skipped is None)
    names = "\n".join(map(relative, listed))
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
        labels = {name: label for label, name in enumerate(class_names)}
        splits[split] = [
            (file.path, labels[name])
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


def relative(file: str) -> str:
    """A file of a folder as `train/cat/1.jpg`."""
    return "/".join(file.rsplit("/", 3)[-3:])


def _class_folders(root: Path, split: str, place: str) -> tuple[str, ...]:
    base = root / split
    if not base.is_dir():
        has = ", ".join(sorted(path.name for path in root.iterdir())[:6]) or "nothing"
        raise DataError(f"folder:{place}: no folder '{split}' inside (it holds {has}); allowed: {split}/<class>/*.jpg")
    return tuple(sorted(entry.name for entry in os.scandir(base) if entry.is_dir() and not entry.name.startswith(".")))


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_ENDINGS) and not name.startswith(".")


def _size_of_all(files: list[str], skip: bool) -> tuple[int, int] | tuple[None, None]:
    """Height and width of all the images, None twice where they differ; looks no further than the first that differs.

    Args:
        skip: files that cannot be read are passed over.
    """
    parts = [files[start : start + _AT_ONCE] for start in range(0, len(files), _AT_ONCE)]
    found: set[tuple[int, int]] = set()
    with ThreadPoolExecutor(_THREADS) as pool:
        # A few parts ahead and no more: where sizes differ, that shows early.
        for group in [parts[start : start + _THREADS] for start in range(0, len(parts), _THREADS)]:
            for sizes in pool.map(lambda part: _sizes(part, skip), group):
                found |= sizes
            if len(found) > 1:
                return None, None
    if not found:
        raise DataError(f"{Path(files[0]).parents[2]}: none of its {len(files):,} images can be read")
    return found.pop()


def _sizes(files: list[str], skip: bool) -> set[tuple[int, int]]:
    """The sizes of some files, up to the second one."""
    found: set[tuple[int, int]] = set()
    for file in files:
        try:
            found.add(_size(file))
        except DataError:
            if not skip:
                raise
        if len(found) > 1:
            break
    return found


def _size(file: str) -> tuple[int, int]:
    from PIL import Image

    try:
        with open_regular(file) as content, Image.open(content, formats=IMAGE_FORMATS) as image:
            return image.height, image.width
    except MemoryError:
        raise
    except Exception as error:  # damaged files raise whatever their reader raises
        raise unreadable_image(file, error) from None


def unreadable_image(file: str, error: Exception) -> DataError:
    """What is said of a file that cannot be decoded."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return DataError(f"{file}: not a readable image (no {', '.join(IMAGE_FORMATS)} file)")
    why = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return DataError(f"{file}: not a readable image ({why})")
