"""Folders of class folders: their files and what is known of them. Imports no TensorFlow."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from kerasgreedy.data.folder_walk import FolderWalk
from kerasgreedy.data.image_kinds import IMAGE_ENDINGS, image_size
from kerasgreedy.data.info import DataInfo, Known, PassedOver
from kerasgreedy.errors import DataError, did_you_mean
from kerasgreedy.files import user_path
from kerasgreedy.spec.recipe import Data

# Heads of files are read by so many threads, so many files at a time: what takes time is a slow disk, or one far away.
_THREADS, _AT_ONCE = 8, 128
# Of each class, for testing, where somebody names a folder without test images and says no more.
TEST_SHARE = 0.2


@dataclass(frozen=True)
class ImageFile:
    """An image of a folder.

    Attributes:
        path: of the file.
        label: number of its class.
        name: below the folder, as `train/cat/1.jpg`, or `cat/1.jpg` where the folder is not divided.
    """

    path: str
    label: int
    name: str


@dataclass(frozen=True)
class Folder:
    """The images of a folder.

    Attributes:
        splits: `train` and `test`, each sorted by class and name.
        class_names: in the order of the labels.
        drawn: whether the test images were drawn as `data.test` says.
        passed_over: what lies in it and is no image of it.
    """

    splits: dict[str, list[ImageFile]]
    class_names: tuple[str, ...]
    drawn: bool
    passed_over: PassedOver

    @property
    def files(self) -> list[ImageFile]:
        """Of both splits."""
        return [file for split in self.splits.values() for file in split]


def describe_folder(place: str, data: Data, known: Known) -> DataInfo:
    """Facts of a folder; its images have a size if all of them have the same, as the head of each file says.

    Raises:
        DataError: see `open_folder`; or a file cannot be read and `data.corrupt` is not `skip`.
    """
    folder = open_folder(place, data, known, counting=True)
    skip = data.corrupt == "skip" and known.skipped is None
    height, width = _size_of_all([file.path for file in folder.files], place, skip, known.upright)
    names = "\n".join(file.name for file in folder.files)
    return DataInfo(
        data.dataset,
        (height, width, 3),
        folder.class_names,
        len(folder.splits["train"]),
        len(folder.splits["test"]),
        fingerprint=hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest(),
        skipped=known.skipped,
        reading=known.reading,
        test_files=tuple(file.name for file in folder.splits["test"]) if folder.drawn else None,
        passed_over=folder.passed_over,
    )


def open_folder(place: str, data: Data, known: Known, counting: bool = False) -> Folder:
    """The images of a folder, with labels.

    They lie in `train/<class>/` and `test/<class>/`; or in `<class>/` or `train/<class>/` alone, and `data.test` says which share
    of each class is for testing.

    Args:
        counting: what is passed over, which takes a look into all folders.

    Raises:
        DataError: a folder is missing or holds no image, the splits differ in their classes, or it is not said which images test.
    """
    root = user_path(place)
    if not root.is_dir():
        raise DataError(
            f"folder:{place}: no such folder; allowed: a folder of class folders, or of train/<class>/ and test/<class>/"
        )
    walk = FolderWalk(place, root, known, counting)
    divided = walk.holds_classes("train") or walk.holds_classes("test")
    if walk.holds_classes("test"):
        if data.test is not None:
            raise DataError(f"folder:{place}: it has test images of its own, in {root / 'test'}; leave data.test out")
        return _as_divided(walk)
    base = "train" if divided else ""
    names = walk.classes(base)
    if data.test is None:
        raise DataError(_undivided(walk, base, names))
    return _as_drawn(walk, base, names, data.test, data.test_seed)


def is_divided(place: str) -> bool:
    """Whether a folder says itself which images are for testing."""
    root = user_path(place)
    return root.is_dir() and FolderWalk(place, root, Known()).holds_classes("test")


def whole_folder(place: str, data: Data, known: Known) -> Folder:
    """A folder of images to measure on: the test images where there are such, else all images are test images.

    Raises:
        DataError: see `open_folder`.
    """
    root = user_path(place)
    if root.is_dir():
        walk = FolderWalk(place, root, known, counting=True)
        if not (walk.holds_classes("train") or walk.holds_classes("test")):
            names = walk.classes("")
            files = [
                ImageFile(path, names.index(name), f"{name}/{file}") for name in names for file, path in walk.images("", name)
            ]
            if not files:
                raise DataError(f"folder:{place}: no image in {root}/<class>/ (it holds {walk.contents()})")
            return Folder({"train": [], "test": files}, names, False, walk.passed_over())
        if not walk.holds_classes("train"):
            return whole_folder(f"{place}/test", data, known)
    return open_folder(place, data, known, counting=True)


def _as_divided(walk: FolderWalk) -> Folder:
    """With folders `train` and `test`."""
    if not walk.is_folder("train"):
        raise DataError(
            f"folder:{walk.place}: no folder 'train' inside (it holds {walk.contents()}); allowed: train/<class>/*.jpg"
        )
    walk.pass_over_beside(("train", "test"))
    class_names = walk.classes("train")
    _check_classes(walk, "train", class_names)
    extra = sorted(set(walk.classes("test")) - set(class_names))
    if extra:
        hint = did_you_mean(extra[0], class_names)
        raise DataError(f"folder:{walk.place}: class '{extra[0]}' is in test but not in train{hint}")
    splits = {
        split: [
            ImageFile(path, class_names.index(name), f"{split}/{name}/{file}")
            for name in walk.classes(split)
            for file, path in walk.images(split, name)
        ]
        for split in ("train", "test")
    }
    return _checked(walk, splits, class_names, "train", drawn=False)


def _as_drawn(walk: FolderWalk, base: str, class_names: tuple[str, ...], share: float, seed: int) -> Folder:
    """Of a folder of class folders: of each class its share is for testing, at least one image and never all.

    Which ones follows from the names and the seed, image by image: where images come or go, few of the others change sides.
    """
    _check_classes(walk, base, class_names)
    if base:
        walk.pass_over_beside((base,))
    splits: dict[str, list[ImageFile]] = {"train": [], "test": []}
    for label, name in enumerate(class_names):
        files = walk.images(base, name, keep_skipped=True)
        ranked = sorted(files, key=lambda file: _rank(f"{seed}/{name}/{file[0]}"))
        tested = {file for file, _ in ranked[: max(min(max(round(share * len(files)), 1), len(files) - 1), 0)]}
        for file, path in files:
            named = f"{base}/{name}/{file}" if base else f"{name}/{file}"
            if named not in walk.skipped:
                splits["test" if file in tested else "train"].append(ImageFile(path, label, named))
    return _checked(walk, splits, class_names, base, drawn=True)


def _rank(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


def _checked(
    walk: FolderWalk, splits: dict[str, list[ImageFile]], class_names: tuple[str, ...], base: str, drawn: bool
) -> Folder:
    image = "readable image" if walk.skipped else "image"
    lost = walk.passed_over()
    beside = f". {lost.words[0].upper()}{lost.words[1:]}" if lost.count else ""
    for split, files in splits.items():
        if not files:
            where = walk.root / (base if drawn else split)
            use = " to test on" if drawn and split == "test" else ""
            raise DataError(
                f"folder:{walk.place}: no {image}{use} in {where}/<class>/; allowed: {', '.join(IMAGE_ENDINGS)}{beside}"
            )
    empty = set(range(len(class_names))) - {file.label for file in splits["train"]}
    if empty:
        what = image.replace("image", "training image")
        raise DataError(f"folder:{walk.place}: class '{class_names[min(empty)]}' has no {what}{beside}")
    return Folder(splits, class_names, drawn, lost)


def _check_classes(walk: FolderWalk, base: str, names: Sequence[str]) -> None:
    if len(names) < 2:
        held = f" (it holds {walk.contents(base)})" if not names else ""
        raise DataError(f"folder:{walk.place}: {walk.root / base} holds {len(names)} class folder(s){held}; allowed: 2 or more")


def _undivided(walk: FolderWalk, base: str, names: Sequence[str]) -> str:
    """What to do about a folder that does not say what its test images are."""
    lacks = "'test' with a folder for each class" if base else "'train' and no folder 'test'"
    held = f"folder:{walk.place}: no folder {lacks} inside (it holds {walk.contents()})"
    other = next((name for name in ("val", "valid", "validation", "eval") if walk.is_folder(name)), None)
    if other:
        return (
            f"{held}; test images belong into test/<class>/: rename '{other}', or draw a fifth of train with --set data.test=0.2"
        )
    if len(names) < 2:
        return f"{held}; allowed: a folder for each class, or train/<class>/*.jpg and test/<class>/*.jpg"
    listed = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    where = " in train" if base else ""
    return f"{held}; to keep a fifth of each of the {len(names)} classes{where} ({listed}) for testing: --set data.test=0.2"


def _size_of_all(files: list[str], place: str, skip: bool, upright: bool) -> tuple[int, int] | tuple[None, None]:
    """Height and width of all the images, None twice where they differ; looks no further than the first that differs.

    Args:
        skip: files that cannot be read are passed over.
    """
    parts = [files[start : start + _AT_ONCE] for start in range(0, len(files), _AT_ONCE)]
    found: set[tuple[int, int]] = set()
    with ThreadPoolExecutor(_THREADS) as pool:
        # A few parts ahead and no more: where sizes differ, that shows early.
        for group in [parts[start : start + _THREADS] for start in range(0, len(parts), _THREADS)]:
            for sizes in pool.map(lambda part: _sizes(part, skip, upright), group):
                found |= sizes
            if len(found) > 1:
                return None, None
    if not found:
        raise DataError(f"{user_path(place)}: none of its {len(files):,} images can be read")
    return found.pop()


def _sizes(files: list[str], skip: bool, upright: bool) -> set[tuple[int, int]]:
    """The sizes of some files, up to the second one."""
    found: set[tuple[int, int]] = set()
    for file in files:
        try:
            found.add(image_size(file, upright))
        except DataError:
            if not skip:
                raise
        if len(found) > 1:
            break
    return found
