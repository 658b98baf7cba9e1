"""SIGTERM and Ctrl-C ask training to stop at the next step; a second Ctrl-C stops at once."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from kerasgreedy.errors import Stopped

if TYPE_CHECKING:
    from kerasgreedy.train.devices import Devices


class StopRequest:
    """While entered, notes the first SIGTERM or SIGINT instead of dying of it.

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

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name


class Asked:
    """Whether training was asked to stop, on this worker or another; all workers have to ask at the same place."""

    def __init__(self, stop: StopRequest, devices: "Devices"):
        self._stop, self._devices = stop, devices

    def __call__(self) -> bool:
        return self._devices.agree(self._stop.name is not None)[0]

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
