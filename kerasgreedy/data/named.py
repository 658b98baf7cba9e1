"""The data sets that have a name, and their facts as their authors publish them. Imports no TensorFlow and no NumPy."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Home: TypeAlias = Literal["embedded", "idx", "tfds", "variant"]
ASK = "see its authors"
DIGITS = tuple("0123456789")
FASHION = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
# Where Debian's package dataset-fashion-mnist puts the idx files.
FASHION_DIR = "/usr/share/datasets/fashion-mnist"
VARIANT_TRAIN, VARIANT_TEST = 12_000, 50_000


@dataclass(frozen=True)
class NamedSet:
    """A data set that a recipe can name.

    Attributes:
        image_shape: (height, width, channels); None where images differ in size.
        classes: number of classes.
        train, test: images in the two splits.
        about: one line for people.
        home: how it is had. `embedded`: comes with scikit-learn; `idx`: four idx files, else a TFDS copy; `tfds`: a TFDS copy;
            `variant`: made from MNIST when it is opened.
        tfds: its name there, of MNIST for the variants; None: TFDS does not have it.
        test_split: the TFDS split that is reported on.
        idx_dir: where its idx files may lie without being asked for.
        class_names: in the order of the labels; empty where only the copy knows them.
        licence: as its authors state it.
    """

    image_shape: tuple[int | None, int | None, int]
    classes: int
    train: int
    test: int
    about: str
    home: Home
    tfds: str | None = None
    test_split: str = "test"
    idx_dir: str | None = None
    class_names: tuple[str, ...] = ()
    licence: str = ASK

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes; their numbers where the names are not known yet."""
        return self.class_names or tuple(map(str, range(self.classes)))


def _variant(about: str) -> NamedSet:
    return NamedSet(
        (28, 28, 1), 10, VARIANT_TRAIN, VARIANT_TEST, about, "variant", "mnist", class_names=DIGITS, licence="as mnist"
    )


NAMED: dict[str, NamedSet] = {
    "digits": NamedSet(
        (8, 8, 1), 10, 1437, 360, "handwritten digits, in scikit-learn", "embedded", class_names=DIGITS, licence="CC BY 4.0"
    ),
    "mnist": NamedSet(
        (28, 28, 1), 10, 60_000, 10_000, "handwritten digits", "idx", "mnist", class_names=DIGITS, licence="CC BY-SA 3.0"
    ),
    "fashion_mnist": NamedSet(
        (28, 28, 1),
        10,
        60_000,
        10_000,
        "clothes, made to replace MNIST",
        "idx",
        "fashion_mnist",
        idx_dir=FASHION_DIR,
        class_names=FASHION,
        licence="MIT",
    ),
    "cifar10": NamedSet((32, 32, 3), 10, 50_000, 10_000, "small photographs of animals and vehicles", "tfds", "cifar10"),
    "cifar100": NamedSet((32, 32, 3), 100, 50_000, 10_000, "small photographs, 100 classes", "tfds", "cifar100"),
    "svhn": NamedSet(
        (32, 32, 3), 10, 73_257, 26_032, "house numbers, cut to one digit", "tfds", "svhn_cropped", class_names=DIGITS
    ),
    "imagenet": NamedSet(
        (None, None, 3), 1000, 1_281_167, 50_000, "ILSVRC 2012 photographs", "tfds", "imagenet2012", test_split="validation"
    ),
    "caltech101": NamedSet((None, None, 3), 102, 3_059, 6_085, "photographs of objects", "tfds", "caltech101"),
    "mnist_basic": _variant("MNIST with few training images"),
    "mnist_rotated": _variant("digits turned by any angle"),
    "mnist_random_background": _variant("digits on noise"),
    "mnist_image_background": _variant("digits on patches of photographs"),
    "mnist_rotated_image_background": _variant("turned digits on patches of photographs"),
}
# Name in TFDS -> facts. The variants are made from `mnist` and are none of their own.
BY_TFDS: dict[str, NamedSet] = {entry.tfds: entry for entry in NAMED.values() if entry.tfds and entry.home != "variant"}
FORMS: dict[str, str] = {
    "folder:PATH": "PATH/train/<class>/*.jpg and PATH/test/<class>/*.jpg (also png, bmp, gif)",
    "npz:PATH": "a NumPy file with the arrays x_train, y_train, x_test, y_test",
    "tfds:NAME": "any image classification set of TensorFlow Datasets",
}


def kind_of(dataset: str) -> tuple[str, str]:
    """`folder:PATH` as ("folder", "PATH"), a name as (its home, the name)."""
    kind, colon, rest = dataset.partition(":")
    if not colon and dataset in NAMED:
        return NAMED[dataset].home, dataset
    return kind, rest
