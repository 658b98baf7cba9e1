"""What lies in a folder of class folders, and what of it is passed over. Imports no TensorFlow."""

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from kerasgreedy.data.image_kinds import FIRST_ENDINGS, IMAGE_ENDINGS
from kerasgreedy.data.info import Known, PassedOver
from kerasgreedy.errors import DataError

# What file managers leave everywhere; nobody takes them for images.
_CLUTTER = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r"})
OTHER_ENDING, NESTED, HIDDEN, DANGLING, BESIDE = (
    "of no image ending", "in folders within class folders", "hidden", "links that lead nowhere", "beside the class folders",
)  # fmt: skip


class FolderWalk:
    """Looks through a folder and, where it is `counting`, counts what it passes over.

    Attributes:
        place: the folder as the recipe writes it, and `root` where it is.
        skipped: names of images that are left out.
    """

    def __init__(self, place: str, root: Path, known: Known, counting: bool = False):
        self.place, self.root = place, root
        self._counting = counting
        self.skipped = frozenset(known.skipped or ())
        self._endings = IMAGE_ENDINGS if known.upright else FIRST_ENDINGS
        self._lost: dict[str, dict[str, int]] = {}  # why -> name -> files
        self._listed: dict[str, list[os.DirEntry[str]]] = {}

    def is_folder(self, name: str) -> bool:
        """Whether it has a folder of that name."""
        return (self.root / name).is_dir()

    def holds_classes(self, name: str) -> bool:
        """Whether a folder of that name has folders in it, and is not a class of that name."""
        return self.is_folder(name) and any(_visible_folder(entry) for entry in os.scandir(self.root / name))

    def contents(self, base: str = "") -> str:
        """The first of what a folder holds, for people."""
        return ", ".join(sorted(entry.name for entry in os.scandir(self.root / base))[:6]) or "nothing"

    def classes(self, base: str) -> tuple[str, ...]:
        """The class folders below `base`, sorted by name."""
        names = []
        for entry in self._entries(base):
            if _visible_folder(entry):
                names.append(entry.name)
            else:
                self._lose(entry, f"{base}/{entry.name}" if base else entry.name, BESIDE)
        return tuple(names)

    def images(self, base: str, name: str, keep_skipped: bool = False) -> list[tuple[str, str]]:
        """The image files of a class, sorted by name: name and path of each.

        Args:
            keep_skipped: with those that are left out.
        """
        below = f"{base}/{name}" if base else name
        found = []
        for entry in self._entries(below):
            if not self._is_image(entry.name):
                self._lose(entry, f"{below}/{entry.name}", OTHER_ENDING)
            elif keep_skipped or f"{below}/{entry.name}" not in self.skipped:
                found.append((entry.name, entry.path))
        return found

    def pass_over_beside(self, used: Collection[str]) -> None:
        """Counts what lies beside the folders that are used."""
        for entry in self._entries(""):
            if entry.name not in used:
                self._lose(entry, entry.name, BESIDE)

    def passed_over(self) -> PassedOver:
        """What has been passed over so far."""
        counts = {why: sum(names.values()) for why, names in self._lost.items()}
        names = [name for found in self._lost.values() for name in found]
        return PassedOver(counts, min(names, default=""))

    def _entries(self, below: str) -> "Sequence[os.DirEntry[str]]":
        if below not in self._listed:
            try:
                self._listed[below] = sorted(os.scandir(self.root / below), key=lambda entry: entry.name)
            except OSError as error:
                raise DataError(f"folder:{self.place}: {self.root / below} cannot be read ({error.strerror})") from None
        return self._listed[below]

    def _is_image(self, name: str) -> bool:
        return name.lower().endswith(self._endings) and not name.startswith(".")

    def _lose(self, entry: "os.DirEntry[str]", name: str, why: str) -> None:
        """Counts an entry that is not read: a folder by the images in it, a file of a file manager not at all."""
        if not self._counting:
            return
        count = 1
        hidden = entry.name.startswith(".")
        if _is_folder(entry):
            count, why = sum(1 for _ in self._images_below(entry.path)), HIDDEN if hidden else why if why == BESIDE else NESTED
        elif hidden or entry.name.lower() in _CLUTTER:
            count, why = int(entry.name.lower().endswith(self._endings) and not entry.name.startswith("._")), HIDDEN
        elif entry.is_symlink() and not Path(entry.path).exists():
            why = DANGLING
        if count:
            self._lost.setdefault(why, {})[name] = count

    def _images_below(self, folder: str) -> Iterator[str]:
        for _, _, files in os.walk(folder):
            yield from (file for file in files if self._is_image(file))


def images_below(folder: Path) -> tuple[list[Path], PassedOver]:
    """All image files below a folder, however deep, sorted; and what is passed over."""
    found: list[Path] = []
    counts: dict[str, int] = {}
    names: list[str] = []
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        image, hidden = path.name.lower().endswith(IMAGE_ENDINGS), any(part.startswith(".") for part in inner.parts)
        if path.is_dir() or path.name.lower() in _CLUTTER or path.name.startswith("._") or (hidden and not image):
            continue
        dangling = path.is_symlink() and not path.exists()
        why = HIDDEN if hidden else DANGLING if dangling else "" if image else OTHER_ENDING
        if not why:
            found.append(path)
        else:
            counts[why] = counts.get(why, 0) + 1
            names.append(str(inner))
    return found, PassedOver(counts, min(names, default=""))


def _visible_folder(entry: "os.DirEntry[str]") -> bool:
    return _is_folder(entry) and not entry.name.startswith(".")


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
