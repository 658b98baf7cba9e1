"""How fast an epoch goes, and its means so far."""

import time


class Speed:
    """Images a second of one epoch. The first step of a phase traces its graph and is left out."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._images, self._seconds = 0, 0.0
        self._before = self._looked = time.perf_counter()

    @property
    def seconds_since_look(self) -> float:
        """Since the figures were last fetched."""
        return time.perf_counter() - self._looked

    def look(self) -> None:
        """The figures were fetched from the device."""
        self._looked = time.perf_counter()

    def restart(self) -> None:
        """What was done since the last lap is not training."""
        self._before = time.perf_counter()

    def lap(self, counts: bool) -> float:
        """Seconds of the step that just ended."""
        now = time.perf_counter()
        seconds, self._before = now - self._before, now
        if counts:
            self._images, self._seconds = self._images + self._batch_size, self._seconds + seconds
        return seconds

    def figures(self) -> dict[str, float]:
        """For logs; empty before the first step that counts."""
        return {"images_per_second": self._images / self._seconds} if self._seconds else {}


def means(sums: list[float]) -> dict[str, float]:
    """Of [sum of losses, number right, examples]."""
    return {"loss": sums[0] / sums[2], "accuracy": sums[1] / sums[2]}
