"""Looking at a phase from outside its steps: what is evaluated, and which point of its path is the better one."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from kerasgreedy.data.pipeline import Part, Pipeline
from kerasgreedy.errors import Diverged
from kerasgreedy.inputs.features import PhaseInput
from kerasgreedy.network.build import Network
from kerasgreedy.network.evaluation import Evaluator, Scores, objectives_of
from kerasgreedy.nn.mixed import Labels, Mixed
from kerasgreedy.plan.stages import Phase
from kerasgreedy.spec.training import Training

# part -> head -> loss, accuracy, top5.
Looks = dict[Part, dict[str, dict[str, float]]]


def monitored_part(training: Training) -> Part:
    """What `best` and early stopping look at."""
    return "train" if training.monitor == "train_loss" else "validation"


def watched_parts(training: Training, pipeline: Pipeline) -> list[Part]:
    """The validation data, and what is monitored."""
    parts: list[Part] = ["validation"] if len(pipeline.parts["validation"]) else []
    return [*parts, "train"] if training.watches and monitored_part(training) == "train" else parts


class Watch:
    """Evaluates the heads that a phase has a loss at, in inference mode.

    Args:
        source: what the phase reads.
        parts: of the data, see `watched_parts`. Where there is none, one training batch is looked at, always the same, for
            numbers that are not finite only: a step shows those of the weights before it.
    """

    def __init__(self, phase: Phase, network: Network, strategy: tf.distribute.Strategy, source: PhaseInput, parts: list[Part]):
        self._phase, self._source, self._parts = phase, source, parts
        self._batch: tf.data.Dataset | None = None  # traced once
        names = [head.name for head in network.heads]
        depths = [names.index(head) + 1 for head in phase.losses]
        objectives = objectives_of(phase.training, phase.losses)
        self._evaluator = Evaluator(network, depths, strategy, start=source.start, objectives=objectives)

    def look(self, epoch: int, seen: Callable[[], None]) -> Looks:
        """Scores of every part and head.

        Args:
            epoch: that runs.
            seen: called after each batch; what it raises ends the evaluation.

        Raises:
            Diverged: a loss is not finite.
        """
        result: Looks = {}
        for part in self._parts:
            scores = self._scores(epoch, f"{part} data", self._source.evaluation(part), seen)
            result[part] = {
                head: {"loss": values["loss"], "accuracy": values["top1"], "top5": values["top5"]}
                for head, values in zip(self._phase.losses, scores.values(), strict=True)
            }
        if not self._parts:
            if self._batch is None:
                first = self._source.training(epoch, 0).take(1)
                self._batch = first.map(_plain)
            self._scores(epoch, "a training batch", self._batch, seen)
        return result

    def _scores(self, epoch: int, where: str, batches: tf.data.Dataset, seen: Callable[[], None]) -> dict[int, Scores]:
        try:
            return self._evaluator(batches, seen)[0]
        except Diverged as error:
            raise diverged(self._phase, epoch, f"{where}: {error}") from None

    def score(self, looks: Looks) -> tuple[float, float]:
        """Larger is better: of the monitored part and the deepest head; the other figure decides a tie."""
        training = self._phase.training
        deepest = list(looks[monitored_part(training)].values())[-1]
        if training.monitor == "validation_accuracy":
            return deepest["accuracy"], -deepest["loss"]
        return -deepest["loss"], deepest["accuracy"]


def _plain(x: tf.Tensor, labels: Labels) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """A training batch as one that is evaluated."""
    labels = labels.first if isinstance(labels, Mixed) else labels
    return x, labels, tf.ones_like(labels, tf.float32)


def diverged(phase: Phase, epoch: int, what: Any) -> Diverged:
    """The error for figures that are not finite; epochs are counted from 0."""
    return Diverged(
        f"training diverged in phase {phase.name}, epoch {epoch + 1}: {what}. "
        "The last good state is kept: train --resume with --set training.optimizer.learning_rate=... goes on from there with a "
        "smaller rate; a warm-up or clip_norm may help too"
    )
