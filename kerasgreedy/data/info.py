"""Facts of a data set, as they are known before its images are read."""

from collections.abc import Sequence
from dataclasses import dataclass

MOST_CLASSES = 1_000_000  # a label beyond it is a mistake, and as a number of classes it would fill the memory


@dataclass(frozen=True)
class DataInfo:
    """Facts of a data set.

    Attributes:
        dataset: as the recipe writes it.
        image_shape: (height, width, channels); None where images differ in size.
        class_names: in the order of the labels.
        train_examples, test_examples: images in the two splits, before any limit and without those that are skipped.
        fingerprint: of the file names of a folder, or of the contents of an npz file.
        origin: which copy a named set is read from, where there can be several: their images stand in different orders.
        skipped: files of a folder that cannot be read and are left out, as `train/cat/1.jpg`; None: it was not looked for them.
    """

    dataset: str
    image_shape: tuple[int | None, int | None, int]
    class_names: tuple[str, ...]
    train_examples: int
    test_examples: int
    fingerprint: str | None = None
    origin: str = ""
    skipped: tuple[str, ...] | None = None

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


def common_size(train: Sequence[int], test: Sequence[int]) -> tuple[int | None, int | None]:
    """Height and width of all images, from those of the two splits; None twice where they differ."""
    height, width = train
    return (height, width) if tuple(test) == (height, width) else (None, None)


def skipped_notice(skipped: tuple[str, ...], most: int = 3) -> str:
    """What people are told of files that are left out."""
    more = f" and {len(skipped) - most:,} more" if len(skipped) > most else ""
    return f"left out {len(skipped):,} unreadable image file(s): {', '.join(skipped[:most])}{more}"
