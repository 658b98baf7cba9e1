"""Facts of a data set, as they are known before its images are read."""

from collections.abc import Sequence
from dataclasses import dataclass, field

MOST_CLASSES = 1_000_000  # a label beyond it is a mistake, and as a number of classes it would fill the memory


# How image files are read: 1, as they are stored, of the endings that versions before knew; 2, upright, of all endings.
READING = 2


@dataclass(frozen=True)
class Known:
    """What is known of a folder before it is looked through: of an existing run, what it began with.

    Attributes:
        skipped: files that cannot be read and are left out; None: it was not looked for them.
        reading: see `READING`.
    """

    skipped: tuple[str, ...] | None = None
    reading: int = READING

    @property
    def upright(self) -> bool:
        """Whether images are turned as their EXIF data say, and files of all endings are images."""
        return self.reading >= 2


@dataclass(frozen=True)
class PassedOver:
    """What lies in a folder of images and is not read.

    Attributes:
        counts: why -> files.
        first: the first of them by name.
    """

    counts: dict[str, int] = field(default_factory=dict)
    first: str = ""

    @property
    def count(self) -> int:
        """Files in all."""
        return sum(self.counts.values())

    @property
    def words(self) -> str:
        """For people."""
        each = ", ".join(f"{count:,} {why}" for why, count in self.counts.items())
        return f"passed over {self.count:,} file(s): {each}; the first is {self.first}"


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
        reading: how the files of a folder are read, see `READING`.
        test_files: the images of a folder that `data.test` drew for testing; None: the folder itself says which they are.
        passed_over: what lies in a folder and is not read; no fact of the data set.
    """

    dataset: str
    image_shape: tuple[int | None, int | None, int]
    class_names: tuple[str, ...]
    train_examples: int
    test_examples: int
    fingerprint: str | None = None
    origin: str = ""
    skipped: tuple[str, ...] | None = None
    reading: int = READING
    test_files: tuple[str, ...] | None = None
    passed_over: PassedOver = field(default_factory=PassedOver, compare=False)

    @property
    def known(self) -> Known:
        """As what its files are looked up again."""
        return Known(self.skipped, self.reading)

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
