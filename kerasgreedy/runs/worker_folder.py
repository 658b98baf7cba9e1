"""Folders of workers that are not the chief: temporary, and removed even when their worker was killed."""

import fcntl
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX, _LOCK = "kerasgreedy-worker-", ".lock"
# A lock that is younger may not be held yet.
_YOUNG_SECONDS = 60.0


@contextmanager
def worker_folder() -> Iterator[Path]:
    """A folder of this process alone, under TMPDIR; those that killed processes left there are removed first."""
    _remove_abandoned()
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as place, open(Path(place) / _LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Path(place)


def _remove_abandoned() -> None:
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        try:
            if time.time() - lock.stat().st_mtime < _YOUNG_SECONDS:
                continue
            with open(lock, "a") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
        except OSError:  # held, or another user's
            continue
