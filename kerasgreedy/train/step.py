"""The step: mathematics of one batch, always under a tf.distribute.Strategy."""

from typing import Any, TypeAlias

import keras
import tensorflow as tf

from kerasgreedy.build import Network
from kerasgreedy.train.plan import Phase

Sums: TypeAlias = dict[str, Any]


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor, label_smoothing: float = 0.0) -> tf.Tensor:
    """Cross entropy of each example, float32.

    With smoothing e and c classes the target is (1 - e) * onehot + e / c.

    Args:
        logits: (b, c); labels: (b,) int32.
    """
    logits = tf.cast(logits, tf.float32)
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    if label_smoothing:
        uniform = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
        loss = (1 - label_smoothing) * loss + label_smoothing * uniform
    return loss


def phase_logits(network: Network, phase: Phase, images: tf.Tensor, training: bool = True) -> dict[str, tf.Tensor]:
    """Logits of the heads that the phase has a loss at; no other head is computed, no later block is run.

    Frozen components run in inference mode. Under `stop_gradient`, and out of frozen blocks, no gradient passes.

    Returns:
        head name -> (b, classes).
    """
    result = {}
    x = images
    for block, head in zip(network.blocks, network.heads, strict=True):
        trained = block.name in phase.trains
        x = block(x, training=training and trained)
        if head.name in phase.losses:
            inside = tf.stop_gradient(x) if not trained else x
            result[head.name] = head(inside, training=training and head.name in phase.trains)
        if len(result) == len(phase.losses):
            break
        if phase.stop_gradient or not trained:
            x = tf.stop_gradient(x)
    return result


class TrainStep:
    """One optimiser step of a phase on a global batch.

    Minimises the sum over the phase's heads of the mean cross entropy, plus weight_decay / 2 * |w|^2 over all that trains.

    Args:
        network: built under the strategy's scope.
        phase: what trains, where the losses stand, global batch size, weight decay, label smoothing.
        optimizer: built here, with exactly the variables of this phase.
    """

    def __init__(
        self,
        network: Network,
        phase: Phase,
        optimizer: keras.optimizers.Optimizer,
        strategy: tf.distribute.Strategy,
    ):
        self._network, self._phase, self._optimizer, self._strategy = network, phase, optimizer, strategy
        self._batch_size, self._smoothing = phase.training.batch_size, phase.training.label_smoothing
        self._decay = phase.training.optimizer.weight_decay / strategy.num_replicas_in_sync
        for name in network.names:
            network.component(name).trainable = name in phase.trains
        self.variables = [v for name in phase.trains for v in network.component(name).trainable_variables]
        with strategy.scope():
            optimizer.build(self.variables)
        self.warm = False  # the first call traces the graph; for those who time steps
        self._compiled = tf.function(self._global)

    def __call__(self, images: Any, labels: Any) -> Sums:
        """Runs the step; returns head -> (sum of losses, number right) over the global batch."""
        return self._compiled(images, labels)

    def _global(self, images: Any, labels: Any) -> Sums:
        sums = self._strategy.run(self._replica, args=(images, labels))
        return tf.nest.map_structure(lambda x: self._strategy.reduce(tf.distribute.ReduceOp.SUM, x, axis=None), sums)

    def _replica(self, images: tf.Tensor, labels: tf.Tensor) -> Sums:
        values = [variable.value for variable in self.variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            logits = phase_logits(self._network, self._phase, images)
            losses = {head: tf.reduce_sum(cross_entropy(z, labels, self._smoothing)) for head, z in logits.items()}
            objective = tf.add_n(list(losses.values())) / self._batch_size
        gradients = tape.gradient(objective, values)
        if self._decay:
            # The optimiser sums over replicas, so each contributes its share of the decay.
            gradients = [g + self._decay * tf.convert_to_tensor(v) for g, v in zip(gradients, values, strict=True)]
        self._optimizer.apply(gradients, self.variables)
        return {
            head: tf.stack([losses[head], tf.reduce_sum(tf.cast(tf.equal(_decide(z), labels), tf.float32))])
            for head, z in logits.items()
        }


def _decide(logits: tf.Tensor) -> tf.Tensor:
    return tf.argmax(logits, axis=-1, output_type=tf.int32)
