"""Prepared TFDS copies: opened, and where that is allowed downloaded and prepared."""

import contextlib
import logging
import sys
from dataclasses import dataclass
from typing import Any

from kerasgreedy.data import catalog
from kerasgreedy.data.info import DataInfo
from kerasgreedy.data.named import NAMED, kind_of
from kerasgreedy.data.prepared import tfds_folders, tfds_root, tfds_test_split
from kerasgreedy.errors import DataError, did_you_mean
from kerasgreedy.spec.recipe import Data


@dataclass(frozen=True)
class Prepared:
    """What `data prepare` did.

    Attributes:
        info: facts of the data set, now that it is here.
        place: where it is.
        fetched: whether it had to be downloaded or prepared.
    """

    info: DataInfo
    place: str
    fetched: bool


def prepare_set(dataset: str, data_dir: str | None) -> Prepared:
    """Has a data set here: downloads and prepares it with TFDS unless that has been done.

    Raises:
        DataError: there is none of that name, it is read from files of the user's that are not there, or it cannot be had.
    """
    data = Data(dataset=dataset, data_dir=data_dir, download=True)
    kind, rest = kind_of(dataset)
    fetched = fetch(data) if dataset in NAMED or (kind == "tfds" and rest) else False
    info = catalog.describe(data.model_copy(update={"download": False}))
    if dataset in NAMED:
        place = catalog.here(dataset, data_dir)
    else:
        place = str(tfds_folders(rest, data_dir)[-1]) if kind == "tfds" else rest
    return Prepared(info, place, fetched)


def fetch(data: Data) -> bool:
    """Downloads and prepares what is not here, if `data.download` allows it.

    Returns:
        Whether anything was done.

    Raises:
        DataError: it cannot be had.
    """
    name = catalog.to_fetch(data) if data.download else None
    if name is None:
        return False
    import tensorflow_datasets as tfds

    for logger in ("absl", "urllib3"):  # forty warnings of retries; what counts of a failure stands in the error
        logging.getLogger(logger).setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # TFDS speaks of its progress
            tfds.builder(name, data_dir=str(tfds_root(data.data_dir))).download_and_prepare()
    except tfds.core.registered.DatasetNotFoundError:
        known = tfds.list_builders(with_community_datasets=False)
        raise DataError(f"{data.dataset}: TFDS has no data set '{name}'{did_you_mean(name, known)}") from None
    except Exception as error:  # TFDS raises many unrelated types when a download fails
        raise catalog.missing(data.dataset, data.data_dir, f" and it could not be prepared ({_short(error)})") from None
    return True


def open_copy(data: Data) -> tuple[Any, str]:
    """The TFDS builder of a prepared copy, and the name of its test split.

    Raises:
        DataError: there is no copy, or it has no test split.
    """
    fetch(data)
    name = catalog.tfds_name(data)
    copies = tfds_folders(str(name), data.data_dir)
    if not copies:
        raise catalog.missing(data.dataset, data.data_dir)
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(str(copies[-1]))
        return builder, tfds_test_split(str(name), list(builder.info.splits))
    except DataError:
        raise
    except Exception as error:  # damaged files of a copy raise whatever their reader raises
        raise DataError(
            f"{data.dataset}: the copy in {copies[-1]} cannot be opened ({_short(error)}); prepare it again"
        ) from None


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= 400 else text[:397] + '...'}"
