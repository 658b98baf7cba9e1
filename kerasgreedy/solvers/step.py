"""The step: mathematics of one batch, always under a tf.distribute.Strategy."""

from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from kerasgreedy.network.build import Network
from kerasgreedy.network.evaluation import objectives_of
from kerasgreedy.network.walk import Instead
from kerasgreedy.plan.stages import Phase
from kerasgreedy.solvers.masks import Masks

Sums: TypeAlias = dict[str, Any]
Support: TypeAlias = Callable[..., Instead]


def phase_logits(
    network: Network,
    phase: Phase,
    x: tf.Tensor,
    first_block: int = 0,
    instead: Instead | None = None,
    training: bool = True,
    given: dict[str, tf.Tensor] | None = None,
) -> dict[str, tf.Tensor]:
    """Logits of the heads that the phase has a loss at; no other head is computed, no later block is run.

    Frozen components run in inference mode. Under `stop_gradient`, and out of frozen blocks, no gradient passes.

    Args:
        x: images, or with `first_block` = i the output of the first i blocks, all of them frozen.
        instead: what layers of the trained components do, where they do something else (see `Network.run`).
        training: False: trained components run in inference mode too.
        given: filled with what each of these heads is given.

    Returns:
        head name -> (b, classes).
    """
    result = {}

    def run(name: str, x: tf.Tensor) -> tf.Tensor:
        trained = name in phase.trains
        if instead and trained:
            return network.run(name, x, training, instead)
        return network.component(name)(x, training=trained and training)

    for block, head in list(zip(network.blocks, network.heads, strict=True))[first_block:]:
        trained = block.name in phase.trains
        x = run(block.name, x)
        if head.name in phase.losses:
            inside = tf.stop_gradient(x) if not trained else x
            if given is not None:
                given[head.name] = inside
            result[head.name] = run(head.name, inside)
        if len(result) == len(phase.losses):
            break
        if phase.stop_gradient or not trained:
            x = tf.stop_gradient(x)
    return result


class TrainStep:
    """One optimiser step of a phase on a global batch.

    Minimises the sum over the phase's heads of the mean loss by their objectives, plus weight_decay / 2 * |w|^2 over
    all that trains.
    With `accumulation` = n the batch goes through in n parts, one after the other, and their gradients are summed before the
    one update: the peak of memory is that of a part. Batch norm then sees a part at a time.

    Args:
        network: built under the strategy's scope, in the precision of the phase.
        phase: what trains, where the losses stand, by which objectives, global batch size, weight decay, label smoothing.
        optimizer: built here, with exactly the variables of this phase.
        first_block: blocks before it are left out; the step is fed their output (see `phase_logits`).
        masks: weights that are zero again after each update, whatever momentum or decay make of them.
        support: given what a batch holds behind the labels, what the layers of the trained components do instead.
    """

    def __init__(
        self,
        network: Network,
        phase: Phase,
        optimizer: keras.optimizers.Optimizer,
        strategy: tf.distribute.Strategy,
        first_block: int = 0,
        masks: Masks | None = None,
        support: Support | None = None,
    ):
        self._masks, self._support = masks, support
        self._network, self._phase, self._optimizer, self._strategy = network, phase, optimizer, strategy
        self._first_block, self._parts = first_block, phase.training.accumulation
        self._batch_size = phase.training.batch_size
        self._objectives = objectives_of(phase.training, phase.losses, smoothed=True)
        self._clip_norm = phase.training.clip_norm
        self._decay = phase.training.optimizer.weight_decay / strategy.num_replicas_in_sync
        for name in network.names:
            network.component(name).trainable = name in phase.trains
        self.variables = [v for name in phase.trains for v in network.component(name).trainable_variables]
        with strategy.scope():
            optimizer.build(self.variables)
        self.warm = False  # the first call traces the graph; for those who time steps
        self._compiled = tf.function(self._global)

    def __call__(self, x: Any, labels: Any, *more: Any) -> Sums:
        """Runs the step; returns head -> (sum of losses, number right) over the global batch."""
        return self._compiled(x, labels, *more)

    def _global(self, *batch: Any) -> Sums:
        sums = self._strategy.run(self._replica, args=batch)
        if self._masks:
            self._masks.apply()
        return tf.nest.map_structure(lambda x: self._strategy.reduce(tf.distribute.ReduceOp.SUM, x, axis=None), sums)

    def _replica(self, *batch: tf.Tensor) -> Sums:
        gradients, sums = self._gradients(*batch) if self._parts == 1 else self._accumulated(*batch)
        if self._decay:
            # The optimiser sums over replicas, so each contributes its share of the decay. A scaled loss scales it too.
            decay = self._optimizer.scale_loss(self._decay)
            gradients = [g + decay * tf.convert_to_tensor(v.value) for g, v in zip(gradients, self.variables, strict=True)]
        if self._clip_norm:
            gradients = self._clipped(gradients)
        scaled = isinstance(self._optimizer, keras.optimizers.LossScaleOptimizer)
        if scaled and self._strategy.num_replicas_in_sync > 1:
            gradients = self._agreed(gradients)
        self._optimizer.apply(gradients, self.variables)
        return sums

    def _gradients(self, x: tf.Tensor, labels: tf.Tensor, *more: tf.Tensor) -> tuple[list[tf.Tensor], Sums]:
        values = [variable.value for variable in self.variables]
        instead = self._support(*more) if self._support else None
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            blocks: dict[str, tf.Tensor] = {}
            logits = phase_logits(self._network, self._phase, x, self._first_block, instead, given=blocks)
            losses = {head: tf.reduce_sum(self._objectives[head](z, labels, blocks[head])) for head, z in logits.items()}
            objective = self._optimizer.scale_loss(tf.add_n(list(losses.values())) / self._batch_size)
        right = {head: tf.reduce_sum(tf.cast(tf.equal(_decide(z), labels), tf.float32)) for head, z in logits.items()}
        # Unconnected: thresholds, while masks stand for them.
        gradients = tape.gradient(objective, values, unconnected_gradients="zero")
        return gradients, {head: tf.stack([losses[head], right[head]]) for head in logits}

    def _accumulated(self, *batch: tf.Tensor) -> tuple[list[tf.Tensor], Sums]:
        """Part after part: those that may run at the same time would save no memory."""
        size = tf.shape(batch[1])[0] // self._parts
        if self._strategy.num_replicas_in_sync > 1:
            return self._unrolled(batch, size)

        def add(part: tf.Tensor, gradients: list[tf.Tensor], sums: Sums) -> tuple[tf.Tensor, list[tf.Tensor], Sums]:
            rows = slice(part * size, (part + 1) * size)
            more = self._gradients(*(values[rows] for values in batch))
            return part + 1, *tf.nest.map_structure(tf.add, (gradients, sums), more)

        zeros = [tf.zeros(v.shape, v.dtype) for v in self.variables]
        start = (tf.constant(0), zeros, {head: tf.zeros(2) for head in self._phase.losses})
        _, gradients, sums = tf.while_loop(lambda part, *_: part < self._parts, add, start, parallel_iterations=1)
        return gradients, sums

    def _unrolled(self, batch: tuple[tf.Tensor, ...], size: tf.Tensor) -> tuple[list[tf.Tensor], Sums]:
        """The same without a loop: synchronised batch norm cannot reach the other replicas from inside one."""
        total = self._gradients(*(values[:size] for values in batch))
        for part in range(1, self._parts):
            with tf.control_dependencies(tf.nest.flatten(total)):
                rows = slice(part * size, (part + 1) * size)
                part_of = (tf.identity(values[rows]) for values in batch)
                total = tf.nest.map_structure(tf.add, total, self._gradients(*part_of))
        return total

    def _clipped(self, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        """The gradient of the global batch, clipped; one share of it for each replica, since the optimiser adds them up.

        A loss that is scaled scales the norm as well. A norm that is not finite makes every gradient NaN.
        """
        replicas = self._strategy.num_replicas_in_sync
        if replicas > 1:
            gradients = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        clipped, _ = tf.clip_by_global_norm(gradients, self._optimizer.scale_loss(tf.constant(self._clip_norm, tf.float32)))
        return [gradient / replicas for gradient in clipped] if replicas > 1 else clipped

    def _agreed(self, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        """Not finite on one replica: on none. Keras's loss scaling looks at its own replica's gradients only."""
        odd = tf.add_n([tf.reduce_sum(tf.cast(~tf.math.is_finite(g), tf.float32)) for g in gradients])
        anywhere = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, odd)
        return [tf.where(anywhere > 0, tf.fill(tf.shape(g), float("nan")), g) for g in gradients]


def _decide(logits: tf.Tensor) -> tf.Tensor:
    return tf.argmax(logits, axis=-1, output_type=tf.int32)
