"""Errors that a user is meant to read.

Every error that the package raises on purpose derives from `KerasgreedyError` and carries the exit code of
the command line: 1 a fault of the program, 2 bad input, 3 stopped by a signal with a usable checkpoint,
4 training diverged with the last good state kept.
"""

import difflib
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class KerasgreedyError(Exception):
    """Base of all errors of this package."""

    exit_code = 1


class InputError(KerasgreedyError):
    """Something that the user gave cannot be used."""

    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One fault in a document.

    Attributes:
        where: `file:line:column`, or the override (`--set ...`) that carried the value.
        path: dotted path inside the document, empty for the whole document.
        message: what was received and what is allowed.
    """

    where: str
    path: str
    message: str

    def __str__(self) -> str:
        path = f" {self.path}:" if self.path else ""
        return f"{self.where}:{path} {self.message}"


class SpecError(InputError):
    """A model spec or a recipe cannot be used. Holds every problem found, in document order."""

    def __init__(self, problems: Sequence[Problem]):
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ShapeError(InputError):
    """A layer does not fit the shape that reaches it.

    Attributes:
        path: the keys that lead to the layer inside the model spec.
    """

    def __init__(self, message: str, path: tuple[str | int, ...] = ()):
        self.message = message
        self.path = path
        super().__init__(f"{dotted(path)}: {message}" if path else message)


class PlanError(InputError):
    """A plan cannot be made of a recipe.

    Attributes:
        path: the keys of the recipe that ask for what cannot be.
        message: what was received, and what can be done.
    """

    def __init__(self, path: tuple[str | int, ...], message: str):
        self.path, self.message = path, message
        super().__init__(f"{dotted(path)}: {message}")


class DataError(InputError):
    """A data set is missing, unreadable, or does not fit the recipe."""


class WorkdirError(InputError):
    """A run folder is missing, already in use, or incomplete."""


class CheckpointError(InputError):
    """A checkpoint is damaged, or belongs to another network."""


class Stopped(KerasgreedyError):
    """Training was asked to stop; a checkpoint was written."""

    exit_code = 3


class WorkerLost(KerasgreedyError):
    """Another worker is gone; the checkpoints before are whole."""

    exit_code = 3


class Diverged(KerasgreedyError):
    """The loss is no longer finite; the last good checkpoint was kept."""

    exit_code = 4


# Control characters (but for the end of a line), marks that turn the direction of writing round, invisible ones, and halves of
# a pair: what files and their names may hold, and a terminal would obey or hide.
_UNPRINTABLE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Text for a terminal or a picture: characters that would not show as themselves are spelled out; lines stay lines."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def tell(text: str) -> None:
    """A line for people on standard error. Nothing goes there by another way, but for progress."""
    print(printable(text), file=sys.stderr, flush=True)


def dotted(path: Iterable[str | int]) -> str:
    """`("blocks", 0, "conv")` as `blocks.0.conv`."""
    return ".".join(str(part) for part in path)


def did_you_mean(name: object, allowed: Iterable[object]) -> str:
    """`; did you mean 'x'?` for the nearest allowed name, or an empty string when none is near."""
    matches = difflib.get_close_matches(str(name), [str(item) for item in allowed], n=1, cutoff=0.6)
    return f"; did you mean '{matches[0]}'?" if matches else ""
