"""Progress of long work: how much is done, and how much time the rest will take."""

import time
from collections.abc import Callable

from rich.console import Console

# Between two lines; on a terminal one line is written over.
LINE_SECONDS, TERMINAL_SECONDS = 10.0, 0.2
# Of a line on a terminal, which covers the one before.
WIDTH = 60


def duration(seconds: float) -> str:
    """75 -> `1:15`, 3700 -> `1:01:40`."""
    hours, rest = divmod(int(seconds + 0.5), 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"


class Countdown:
    """Tells how far some work is, and the time that is left, judged by the pieces since it began.

    Args:
        total: pieces of about the same length.
        tell: takes a line; where standard error is a terminal, the line is written over instead. None: nothing is said.
    """

    def __init__(self, what: str, total: int, tell: Callable[[str], None] | None):
        self._what, self._total, self._tell = what, total, tell
        self._done = self._timed = 0
        self._began = self._told = time.monotonic()
        self._console = Console(stderr=True, highlight=False, markup=False)
        self._over = self._console.is_terminal

    def known(self, pieces: int) -> None:
        """Pieces that an earlier process has done."""
        self._done += pieces

    def did(self, pieces: int = 1) -> None:
        """Pieces that are done now."""
        self._done += pieces
        self._timed += pieces
        now = time.monotonic()
        if self._tell is None:
            return
        if self._done < self._total and now - self._told < (TERMINAL_SECONDS if self._over else LINE_SECONDS):
            return
        self._told = now
        left = (now - self._began) / self._timed * (self._total - self._done)
        line = f"{self._what}: {self._done:,} of {self._total:,}" + (
            f", {duration(left)} left" if self._done < self._total else ""
        )
        if self._over:
            console = self._console
            console.print(f"{line:<{WIDTH}}", end="\n" if self._done >= self._total else "\r")
        else:
            self._tell(line)
