"""A run folder in use: held against a second process, and faults of disk and memory said so that people can act."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kerasgreedy.errors import KerasgreedyError, WorkdirError
from kerasgreedy.files import no_room, storage_error, sweep


@contextmanager
def held(folder: Path, does: str = "is training in") -> Iterator[None]:
    """Holds a run folder, so that no second process trains in it, and removes what killed writes left.

    Args:
        does: what another process would be doing to the folder, for the message.

    Raises:
        WorkdirError: another process holds it.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise storage_error(folder, error) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _in_use(folder, does) from None
        except OSError:  # a file system of another machine, which locks files only
            os.close(handle)
            handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise _in_use(folder, does) from None
        for place in (".", "pruning", "support", "plots"):  # that of others goes with their next
            sweep(folder / place)
        yield
    finally:
        os.close(handle)


def _in_use(folder: Path, does: str) -> WorkdirError:
    return WorkdirError(f"{folder}: another process {does} this folder")


@contextmanager
def readable_faults(folder: Path) -> Iterator[None]:
    """Turns a full disk or exhausted memory, wherever it shows, into an error that says what to do."""
    try:
        yield
    except MemoryError:
        raise _out_of_memory(folder) from None
    except KerasgreedyError:
        raise
    except Exception as error:
        if no_room(error) or getattr(error, "errno", None) == errno.EROFS:
            raise storage_error(folder, error) from None
        # TensorFlow's allocator; named by class so that this module stays free of TensorFlow.
        if type(error).__name__ == "ResourceExhaustedError":
            raise _out_of_memory(folder) from None
        raise


@contextmanager
def out_of_memory_said(folder: Path) -> Iterator[None]:
    """Turns exhausted memory while a network is looked into into an error that says what to do."""
    try:
        yield
    except Exception as error:
        if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
            raise WorkdirError(f"out of memory; what was measured before is whole in {folder}. Fewer images need less") from None
        raise


def _out_of_memory(folder: Path) -> WorkdirError:
    return WorkdirError(
        f"out of memory; what was saved before is whole in {folder}. A smaller training.batch_size, data.image_size or narrower "
        "blocks need less"
    )
