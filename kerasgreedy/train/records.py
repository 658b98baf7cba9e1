"""What a run writes down while it trains: a line of metrics for each head, split and epoch."""

from collections.abc import Sequence
from typing import Any

from kerasgreedy.data.pipeline import Pipeline
from kerasgreedy.plan.stages import Phase, Stage, phases_of
from kerasgreedy.runs.metrics_log import MetricsLog
from kerasgreedy.runs.state import Position
from kerasgreedy.spec.objective_settings import CrossEntropy
from kerasgreedy.train.monitoring import Looks


class Records:
    """The lines of one phase.

    Args:
        log: where they are written.
        position: of the run.
        stages: of its plan.
        phase: that runs.
        pipeline: batches.
    """

    def __init__(self, log: MetricsLog, position: Position, stages: Sequence[Stage], phase: Phase, pipeline: Pipeline):
        self.log, self.position, self.phase = log, position, phase
        self.steps = pipeline.steps(phase.training.batch_size)
        done = ((other, position.kept[other.index]) for other in phases_of(stages[: phase.index]))
        self._before = sum(kept["epochs"] * pipeline.steps(other.training.batch_size) for other, kept in done)

    @property
    def step(self) -> int:
        """Steps of the phase that are done."""
        return self.position.epoch * self.steps + self.position.step

    def scores(self, split: str, scores: dict[str, Any], **more: Any) -> None:
        """Logs the figures of each head."""
        for head, values in scores.items():
            objective = self.phase.training.objective_of(head)
            named = {} if isinstance(objective, CrossEntropy) else {"objective": objective.name}
            self._write({**self._place(split), "head": head, **values, **more, **named})

    def looks(self, looks: Looks) -> None:
        """Logs what was seen in inference mode; the split `train_exact` is the training data."""
        for part, values in looks.items():
            self.scores("train_exact" if part == "train" else part, values)

    def event(self, event: str) -> None:
        """Logs what a solver noted at the start of an epoch, in the place of a split."""
        self._write(self._place(event))

    def _place(self, split: str) -> dict[str, Any]:
        return {"phase": self.phase.index, "phase_name": self.phase.name, "epoch": self.position.epoch, "split": split}

    def _write(self, record: dict[str, Any]) -> None:
        self.log.write(record, self._before + self.step)
