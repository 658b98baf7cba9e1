"""What a folder of images holds, looked at closely enough to choose how to train on it. Imports no TensorFlow."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from kerasgreedy.data.folders import TEST_SHARE, is_divided, open_folder
from kerasgreedy.data.image_kinds import IMAGE_FORMATS, image_size
from kerasgreedy.data.info import Known, PassedOver
from kerasgreedy.errors import DataError
from kerasgreedy.files import open_regular
from kerasgreedy.spec.recipe import Data

# Heads of so many files are read, spread over all of them.
_LOOKED_AT = 400


@dataclass(frozen=True)
class Survey:
    """A folder of images.

    Attributes:
        divided: it has test images of its own.
        train_counts: class -> training images.
        test_images: of the folder's own, or that `TEST_SHARE` would draw.
        height, width: median of the images looked at.
        smallest: the shortest side of them.
        same_size: all have the same size.
        grey: all have one channel.
        broken: files whose head cannot be read; the first of them.
        passed_over: what lies in it and is no image of it.
    """

    divided: bool
    train_counts: dict[str, int]
    test_images: int
    height: int
    width: int
    smallest: int
    same_size: bool
    grey: bool
    broken: tuple[int, str]
    passed_over: PassedOver

    @property
    def train_images(self) -> int:
        """Of all classes."""
        return sum(self.train_counts.values())


def survey(place: str) -> Survey:
    """Looks at a folder.

    Raises:
        DataError: no folder of class folders, or none of the images looked at can be read.
    """
    divided = is_divided(place)
    folder = open_folder(place, Data(dataset=f"folder:{place}", test=None if divided else TEST_SHARE), Known(), True)
    files = [file.path for file in folder.files]
    chosen = files[:: max(1, len(files) // _LOOKED_AT)]
    sizes, grey, broken = _heads(chosen)
    if not sizes:
        raise DataError(
            f"folder:{place}: none of {len(chosen):,} images that were looked at can be read; the first is {broken[0]}"
        )
    counts = Counter(folder.class_names[file.label] for file in folder.splits["train"])
    return Survey(
        divided,
        {name: counts[name] for name in folder.class_names},
        len(folder.splits["test"]),
        round(median(height for height, _ in sizes)),
        round(median(width for _, width in sizes)),
        min(min(size) for size in sizes),
        len(set(sizes)) == 1,
        grey,
        (len(broken), broken[0] if broken else ""),
        folder.passed_over,
    )


def _heads(files: Sequence[str]) -> tuple[list[tuple[int, int]], bool, list[str]]:
    """Sizes of images, whether all are grey, and the files that cannot be read."""
    from PIL import Image

    sizes, broken, grey = [], [], True
    for file in files:
        try:
            sizes.append(image_size(file, upright=True))
            with open_regular(file) as content, Image.open(content, formats=IMAGE_FORMATS) as image:
                grey = grey and image.mode in ("1", "L", "LA", "I;16", "I")
        except DataError:
            broken.append(file)
    return sizes, grey, broken
