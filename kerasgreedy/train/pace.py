"""How long training still takes, judged by the clock: steps, validation, checkpoints and tracing as they really were."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kerasgreedy.plan.stages import Phase

# Epochs that are looked back on: a machine with other work to do is not always as fast.
LAST = 3
# Multiply-adds a second that two cores do in convolutions. A phase that does fewer spends the rest of its steps on what costs the
# same whatever is computed, so that phases to come are not slower by as much as they have more multiply-adds.
FAST = 20e9


@dataclass
class _Seen:
    """Of a phase: seconds to the end of its first step; seconds and work of its last epochs."""

    start: float | None = None
    last: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=LAST))

    @property
    def pace(self) -> float | None:
        """Seconds for a unit of work; None before an epoch is over."""
        return sum(seconds for seconds, _ in self.last) / sum(work for _, work in self.last) if self.last else None


class Pace:
    """Judges the time left.

    Within a phase by its last epochs on the clock; before one is over by its steps. A phase to come has steps with as much
    beside their arithmetic as this one's, and a beginning (building, tracing) as the others had.

    Args:
        train_images: of one epoch.
        clock: seconds; for tests.
    """

    def __init__(self, train_images: int, clock: Callable[[], float] = time.monotonic):
        self._images, self._clock = train_images, clock
        self._phases: list[_Seen] = []
        self._began = self._lap = clock()
        self._step_seconds = self._step_work = 0.0
        self._counted = 0

    def phase(self) -> None:
        """A phase begins."""
        self._phases.append(_Seen())
        self._began = self._lap = self._clock()
        self._step_seconds = self._step_work = 0.0
        self._counted = 0

    def step(self, phase: Phase, seconds: float) -> None:
        """A step is done; `seconds` is how long it took."""
        seen = self._seen()
        if seen.start is None:  # it traced the graph
            seen.start = self._clock() - self._began
            self._lap = self._clock()
            return
        self._counted += 1
        self._step_seconds += seconds
        self._step_work += self._work(phase, 1)

    def epoch(self, phase: Phase) -> None:
        """An epoch is over."""
        seen = self._seen()
        now = self._clock()
        counted, self._counted = self._counted, 0  # without the first step of the phase
        if counted:
            seen.last.append((now - self._lap, self._work(phase, counted)))
        self._lap = now

    def left(self, phase: Phase, epoch: int, step: int, later: Sequence[Phase]) -> float | None:
        """Seconds until training is done; None before anything is known.

        Args:
            epoch, step: done in this phase.
            later: the phases that follow.
        """
        pace = self._pace()
        if pace is None:
            return None
        rest = self._work(phase, self.steps(phase) * (phase.epochs - epoch) - step)
        starts = [seen.start for seen in self._phases if seen.start is not None]
        beginning = sum(starts) / len(starts) if starts else 0.0
        coming = sum(self.steps(each) * each.epochs * self._step_to_come(phase, each, pace) for each in later)
        return rest * pace + coming + beginning * len(later)

    def steps(self, phase: Phase) -> int:
        """Of one epoch."""
        return self._images // phase.training.batch_size

    def _step_to_come(self, phase: Phase, later: Phase, pace: float) -> float:
        """Seconds of a step of a later phase: what a step of this one has beside its arithmetic, and its own arithmetic."""
        own, other = self._work(phase, 1), self._work(later, 1)
        rate = max(1 / pace, FAST) if pace > 0 else FAST
        return max(0.0, own * pace - own / rate) + other / rate

    def _pace(self) -> float | None:
        """Seconds for a unit of work."""
        own = self._seen().pace
        if own is not None:
            return own
        before = [seen.pace for seen in self._phases[:-1] if seen.pace is not None]
        if self._step_work:
            steps = self._step_seconds / self._step_work
            # What an epoch has beside its steps is known from other phases only.
            return max(steps, before[-1]) if before else steps
        return before[-1] if before else None

    def _seen(self) -> _Seen:
        if not self._phases:
            self._phases.append(_Seen())
        return self._phases[-1]

    @staticmethod
    def _work(phase: Phase, steps: float) -> float:
        return phase.training_multiply_adds * phase.training.batch_size * steps
