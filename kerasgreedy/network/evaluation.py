"""Loss, top-1 and top-5 of heads and of their ensemble, every example counted once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kerasgreedy.data.distributed import distributed
from kerasgreedy.errors import Diverged
from kerasgreedy.network.build import Network
from kerasgreedy.network.walk import IMAGES, Instead, StartPoint
from kerasgreedy.nn.ensemble import Ensemble
from kerasgreedy.nn.objectives import Objective
from kerasgreedy.spec.objective_settings import OBJECTIVES
from kerasgreedy.spec.training import Training

Scores = dict[str, float]


def objectives_of(training: Training, heads: Iterable[str], smoothed: bool = False) -> dict[str, Objective]:
    """The objectives of some heads in a phase that is trained so; evaluation smooths no labels."""
    smoothing = training.label_smoothing if smoothed else 0.0
    settings = {head: training.objective_of(head) for head in heads}
    return {head: OBJECTIVES.load(chosen.name)(chosen, smoothing) for head, chosen in settings.items()}


class Evaluator:
    """Evaluates chosen depths of a network in one pass.

    The loss of the ensemble is by the objective of the deepest of them.

    Args:
        depths: of the heads (1 is the first block).
        ensemble_on: `logits` or `probabilities` to score their vote too; None for the heads alone.
        start: what the batches hold.
        instead: given a batch and its weights, what layers do instead of their own work (see `Network.run`).
        objectives: by head, that the losses are by; None: the network's own.
    """

    def __init__(
        self,
        network: Network,
        depths: Sequence[int],
        strategy: tf.distribute.Strategy,
        ensemble_on: str | None = None,
        start: StartPoint = IMAGES,
        instead: Callable[[tf.Tensor, tf.Tensor], Instead] | None = None,
        objectives: Mapping[str, Objective] | None = None,
    ):
        self.depths = list(depths)
        self._network, self._strategy, self._start, self._instead = network, strategy, start, instead
        self._ensemble = Ensemble(self.depths, ensemble_on) if ensemble_on else None
        heads = [network.architecture.heads[depth - 1].name for depth in self.depths]
        self._objectives = [objectives[head] if objectives else network.objective(head) for head in heads]
        self._step = tf.function(self._global, autograph=False)

    def __call__(
        self, batches: tf.data.Dataset, seen: Callable[[], None] | None = None
    ) -> tuple[dict[int, Scores], Scores | None, int]:
        """Runs over batches of (image, label, weight).

        Args:
            seen: called after each batch; what it raises ends the evaluation.

        Returns:
            depth -> {top1, top5, loss}, the same of the ensemble (None where not asked for), and the number of examples.

        Raises:
            Diverged: a loss is not finite.
        """
        total: Any = None
        for images, labels, weights in distributed(self._strategy, batches):
            sums = self._step(images, labels, weights).numpy().astype(np.float64)
            total = sums if total is None else total + sums
            if seen:
                seen()
        if total is None:
            raise ValueError("evaluation on no examples")
        for name, row in zip([*(f"depth {depth}" for depth in self.depths), "the ensemble"], total, strict=False):
            if not np.isfinite(row).all():
                raise Diverged(f"the loss of {name} is {row[0] / row[3]}")
        scores = [{"top1": row[1] / row[3], "top5": row[2] / row[3], "loss": row[0] / row[3]} for row in total.tolist()]
        return dict(zip(self.depths, scores, strict=False)), scores[-1] if self._ensemble else None, round(total[0, 3])

    def _global(self, images: Any, labels: Any, weights: Any) -> tf.Tensor:
        sums = self._strategy.run(self._replica, args=(images, labels, weights))
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)

    def _replica(self, images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        instead = self._instead(images, weights) if self._instead else None
        blocks: list[tf.Tensor] = []
        logits = self._network.logits(images, self.depths, self._start, instead, blocks)
        objectives = self._objectives
        if self._ensemble:
            logits, blocks = [*logits, self._ensemble(logits)], [*blocks, blocks[-1]]
            objectives = [*objectives, objectives[-1]]
        each = zip(logits, blocks, objectives, strict=True)
        return tf.stack([_sums(z, labels, weights, by(z, labels, x)) for z, x, by in each])


def _sums(logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, loss: tf.Tensor) -> tf.Tensor:
    """[sum of losses, right at first, right among five, examples], weighted."""
    logits = tf.cast(logits, tf.float32)
    first = tf.cast(tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), labels), tf.float32)
    five = tf.cast(tf.math.in_top_k(labels, logits, min(5, logits.shape[-1])), tf.float32)
    # A weight of zero must silence an infinite loss too.
    loss = tf.where(weights > 0, loss, 0.0)
    return tf.stack([tf.reduce_sum(weights * value) for value in (loss, first, five, tf.ones_like(loss))])
