"""The door of analyses: settings, measure, table, figure. And what a long measurement has at hand."""

import io
import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np
import tensorflow as tf

from kerasgreedy.analysis.replay import Replay, Through, at_once
from kerasgreedy.analysis.subject import Subject
from kerasgreedy.errors import WorkdirError
from kerasgreedy.files import write_atomically
from kerasgreedy.reports.countdown import Countdown
from kerasgreedy.spec.analysis_settings import AnalysisSettings
from kerasgreedy.strict_json import as_json, parse_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

S = TypeVar("S", bound=AnalysisSettings)


# Of what is measured now, see `Desk.replayed`; gone when all is measured.
SERIES = "unfinished.bin"


@dataclass(frozen=True)
class Table:
    """Rows of text, for people and as CSV."""

    name: str
    header: list[str]
    rows: list[list[str]]
    title: str = ""


class Ledger:
    """What a measurement has found so far, a line for each key; what is there is not measured again.

    A line that a kill tore is dropped. Without a path, it is kept in memory.

    Args:
        first: called once before the first new result is stored.
    """

    def __init__(self, path: Path | None = None, first: Callable[[], None] | None = None):
        self._path, self._first = path, first
        self._known: dict[str, Any] = {}
        if path is None:
            return
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        try:
            self._known = dict(parse_json(line) for line in whole.splitlines())
        except (ValueError, TypeError, RecursionError) as error:
            raise WorkdirError(f"{path}: damaged ({error}); --overwrite begins anew") from None
        if whole != content:
            write_atomically(path, whole)

    def begin(self) -> None:
        """Says that something is about to be stored."""
        if self._first is not None:
            self._first()
            self._first = None

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Any:
        return self._known[key]

    def put(self, found: dict[str, Any]) -> None:
        """Adds some results; plain data."""
        self.begin()
        text = "".join(as_json([key, value]) + "\n" for key, value in found.items())
        if self._path is not None:
            with open(self._path, "ab") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
        self._known.update(found)


@dataclass(frozen=True)
class Desk:
    """What a measurement works with.

    Attributes:
        ledger: results that outlive a kill.
        strategy: devices.
        folder: for arrays that belong to the results (directions); None where nothing is stored.
        tell: takes a line of progress; None: nobody listens.
        makes: told of each file that is about to be written, by its name.
    """

    ledger: Ledger
    strategy: tf.distribute.Strategy
    folder: Path | None = None
    tell: Callable[[str], None] | None = None
    makes: Callable[[str], Any] = lambda name: None

    def say(self, line: str) -> None:
        """A line of progress."""
        if self.tell is not None:
            self.tell(line)

    def keep(self, name: str, arrays: "Mapping[str, NDArray[Any]]") -> None:
        """Stores arrays beside the results, as `<name>.npz`."""
        if self.folder is not None:
            self.ledger.begin()
            self.makes(f"{name}.npz")
            write_arrays(self.folder, name, arrays)

    def stored(self, name: str) -> "dict[str, NDArray[Any]] | None":
        """What `keep` stored, if the ledger has an entry of that name, which says that it is of these results."""
        return read_arrays(self.folder, name) if self.folder is not None and name in self.ledger else None

    def replayed(self, key: str, size: int, dtype: Any) -> Through:
        """For one piece of work that is a long series of vectors (size,): takes each of them through the kills."""
        if self.folder is None:
            return at_once

        def first() -> None:
            self.ledger.begin()
            self.makes(SERIES)

        return Replay(self.folder / SERIES, key, size, dtype, first)

    def measured(self, key: str, countdown: Countdown, measure: Callable[[], Any]) -> Any:
        """One piece of work: what the ledger has under the key, or what is measured now and goes there; plain data."""
        known = key in self.ledger
        if not known:
            self.ledger.put({key: measure()})
        (countdown.known if known else countdown.did)(1)
        return self.ledger[key]

    def countdown(self, what: str, total: int) -> Countdown:
        """Progress of `total` equal pieces of work."""
        return Countdown(what, total, self.tell)


def write_arrays(folder: Path, name: str, arrays: "Mapping[str, NDArray[Any]]") -> None:
    """`<name>.npz`; at any moment the old or the whole new file is there."""
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    write_atomically(folder / f"{name}.npz", content.getvalue())


def read_arrays(folder: Path, name: str) -> "dict[str, NDArray[Any]] | None":
    """What `write_arrays` wrote; None where there is no such file.

    Raises:
        WorkdirError: the file is damaged.
    """
    file = folder / f"{name}.npz"
    if not file.is_file():
        return None
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, KeyError) as error:
        raise WorkdirError(f"{file}: damaged ({error}); --overwrite begins anew") from None


class Analysis(ABC, Generic[S]):
    """A question to trained networks.

    Attributes:
        subjects: how many networks it takes, at least and (None: any number) at most.
    """

    subjects: ClassVar[tuple[int, int | None]] = (1, 1)

    def __init__(self, settings: S):
        self.settings = settings

    @abstractmethod
    def measure(self, subjects: Sequence[Subject], desk: Desk) -> dict[str, Any]:
        """The figures, as plain data that JSON can hold."""

    @abstractmethod
    def tables(self, found: dict[str, Any]) -> list[Table]:
        """What of the figures people read in the terminal."""

    @abstractmethod
    def figures(self, found: dict[str, Any]) -> dict[str, Callable[[], Any]]:
        """File name without ending -> function that draws a matplotlib figure."""
