"""The outermost place of the command line: every error becomes a line and an exit code, whatever the standard streams are."""

import io
import os
import sys
from collections.abc import Callable
from typing import Any

import typer

from kerasgreedy.errors import InputError, KerasgreedyError, printable, tell

# Of the command line itself; newer typers bring this class with them, older ones take click's.
_USAGE: Any = next(each for each in typer.BadParameter.__mro__ if each.__name__ == "ClickException")
# What TensorFlow raises is known by its name here: this module is loaded by commands that do without it.
_NO_MEMORY = ("failed to map segment", "Cannot allocate memory", "cannot allocate memory")  # of a library that is loaded
_MEMORY, _FULL = ("ResourceExhaustedError",), ("No space left on device", "Disk quota exceeded", "File too large")


class _Steady(io.TextIOBase):
    """Standard error that may be full, or gone: what cannot be said must not end what is being done."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return int(self._stream.write(text) or 0)
        except OSError:
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        return bool(self._stream.isatty())

    def fileno(self) -> int:
        return int(self._stream.fileno())

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return str(self._stream.encoding)


def open_streams() -> None:
    """Gives closed standard streams a place to go: the next file that is opened would become one of them, and be written into."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 (lives as long as the process)
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows ASCII only
    sys.stderr = _Steady(sys.stderr)


def run(command: Callable[[], Any], debug: bool) -> int:
    """Runs a command and says what went wrong, in one line.

    Args:
        debug: errors keep their traceback.

    Returns:
        the exit code, see `errors`.
    """
    try:
        code = command()
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        _give_up_output()
        return 0  # nobody reads on, as behind `| head`; what was to be done is done
    except SystemExit:
        # The library of the command line turns a closed pipe into this, and puts something in the place of standard output.
        if type(sys.stdout).__name__ != "PacifyFlushWrapper":
            raise
        return 0
    except typer.Exit as error:
        return int(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        tell("interrupted")
        return 130
    except Exception as error:
        if isinstance(error, _USAGE):
            error.message = printable(error.message)
            error.show()
            return int(error.exit_code)
        if debug:
            raise
        text, code = in_words(error)
        tell(text)
        if isinstance(error, OSError):
            _give_up_output()
        return code


def in_words(error: Exception) -> tuple[str, int]:
    """An error as a line for people, and its exit code."""
    if isinstance(error, KerasgreedyError):
        return f"error: {error}", error.exit_code
    kind, text = type(error).__name__, str(error)
    if isinstance(error, MemoryError) or kind in _MEMORY or any(words in text for words in _NO_MEMORY):
        return "error: out of memory; smaller batches, images or networks need less", InputError.exit_code
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else "standard output, or a file: "
        return f"error: {place}{error.strerror or error}", InputError.exit_code
    full = next((words for words in _FULL if words in text), None)
    if full:
        return f"error: {full}", InputError.exit_code
    if isinstance(error, UnicodeError):
        return f"error: a text or a name is not UTF-8 ({text})", InputError.exit_code
    return f"fault of the program: {kind}: {text}\n(--debug shows where)", KerasgreedyError.exit_code


def _give_up_output() -> None:
    """What is still to be written to standard output is dropped: Python would try again, and fail, at its end."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
