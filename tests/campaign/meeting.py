"""Two processes that come to the same moment together."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE = 20.0  # seconds; the other may have ended before it came here


@dataclass(frozen=True)
class Meeting:
    """Where, and what is waited for afterwards.

    Attributes:
        moment: a name of `MOMENTS`.
        place: a folder that both see.
        name: of this process.
        delay: seconds from the meeting on.
    """

    moment: str
    place: str
    name: str
    delay: float

    def wait(self) -> None:
        """Until both are here."""
        place = Path(self.place)
        (place / self.name).touch()
        ends = time.monotonic() + PATIENCE
        while len(list(place.iterdir())) < 2 and time.monotonic() < ends:
            time.sleep(0.0005)
        time.sleep(self.delay)


def install(meeting: Meeting) -> None:
    """Makes this process wait for the other when it comes to the moment, the first time."""
    MOMENTS[meeting.moment](meeting)


def _start(meeting: Meeting) -> None:
    meeting.wait()


def _before(owner: Callable[[], Any], name: str, prefix: str | None = None) -> Callable[[Meeting], None]:
    def place(meeting: Meeting) -> None:
        found = owner()
        original, met = getattr(found, name), []

        def wrapped(*arguments: Any, **more: Any) -> Any:
            if not met and more.get("prefix") == prefix:
                met.append(True)
                meeting.wait()
            return original(*arguments, **more)

        setattr(found, name, wrapped)

    return place


def _workdirs() -> Any:
    from kerasgreedy.runs.workdir import Workdir

    return Workdir


# At the start of the command; before the place of a run is looked at; made; held; when no other was seen that makes it.
MOMENTS: dict[str, Callable[[Meeting], None]] = {
    "start": _start,
    "looked at": _before(_workdirs, "free"),
    "made": _before(_workdirs, "create"),
    "held": _before(_workdirs, "writing"),
    "unseen": _before(lambda: tempfile, "mkdtemp", ".kerasgreedy-"),
}
