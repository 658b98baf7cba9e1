"""The data sets that have a name, and whether they are here. Imports no TensorFlow and no NumPy."""

from typing import Any

from kerasgreedy.data.catalog import here
from kerasgreedy.data.named import NAMED
from kerasgreedy.errors import DataError


def list_sets(data_dir: str | None = None) -> list[dict[str, Any]]:
    """One entry for each named set.

    Args:
        data_dir: where idx files and TFDS copies are looked for; None: in the usual places.

    Returns:
        `name`, `image_shape` (None where images differ in size), `classes`, `train`, `test` (images), `here` (a place, or None),
        `home` (see `NamedSet`), `licence`, `about`.
    """
    return [
        {
            "name": name,
            "image_shape": list(entry.image_shape),
            "classes": entry.classes,
            "train": entry.train,
            "test": entry.test,
            "here": _place(name, data_dir),
            "home": entry.home,
            "licence": entry.licence,
            "about": entry.about,
        }
        for name, entry in NAMED.items()
    ]


def _place(name: str, data_dir: str | None) -> str | None:
    try:
        return here(name, data_dir) or None
    except DataError:  # half of the idx files: `data show` says what is missing, a list goes on
        return None
