"""SIGTERM and Ctrl-C ask training to stop at the next step; a second Ctrl-C stops at once."""

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from kerasgreedy.errors import Stopped

if TYPE_CHECKING:
    from kerasgreedy.runs.devices import Devices


# Several workers ask each other after so many steps, or where a step takes longer than that, after each.
AGREE_STEPS = 10
SLOW_SECONDS = 0.2


class StopRequest:
    """While entered, notes the first SIGTERM or SIGINT instead of dying of it; one inside another passes on what it noted.

    Attributes:
        name: of the signal that came, or None.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
            outer = getattr(handler, "__self__", None)
            if isinstance(outer, StopRequest):
                outer.name = outer.name or self.name

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name


class Asked:
    """Whether training was asked to stop, on this worker or another; all workers have to ask at the same place."""

    def __init__(self, stop: StopRequest, devices: "Devices"):
        self._stop, self._devices = stop, devices
        self._every, self._steps, self._since = 1, 0, time.monotonic()

    def __call__(self) -> bool:
        return self._devices.agree(self._stop.name is not None)[0]

    def and_save(self, due: bool) -> tuple[bool, bool]:
        """Whether to stop, and whether to save; `due` says on the chief that it is time to."""
        stop, save = self._devices.agree(self._stop.name is not None, due)
        return stop, save

    def is_time(self, step: int) -> bool:
        """Whether workers ask each other after this step of the epoch, which makes them wait for each other."""
        self._steps += 1
        return self._devices.workers == 1 or step % self._every == 0

    def after_step(self, due: bool) -> tuple[bool, bool]:
        """As `and_save`, and settles when to ask next."""
        if self._devices.workers == 1:
            return self.and_save(due)
        slow = self._devices.chief and time.monotonic() - self._since > SLOW_SECONDS * self._steps
        stop, save, slow = self._devices.agree(self._stop.name is not None, due, slow)
        self._every, self._steps, self._since = 1 if slow else AGREE_STEPS, 0, time.monotonic()
        return stop, save

    @property
    def signal(self) -> str:
        """Its name, for people."""
        return self._stop.name or "a signal to another worker"

    def ends(self, where: str) -> Callable[[], None]:
        """A function that raises `Stopped` where that is so: "stopped by SIGTERM" and `where`."""

        def ends() -> None:
            if self():
                raise Stopped(f"stopped by {self.signal} {where}")

        return ends
