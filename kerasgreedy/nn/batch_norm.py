"""Batch normalisation over TensorFlow's fused kernel."""

from typing import Any

import keras
import tensorflow as tf

from kerasgreedy.nn.downsampling import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization`, computed by one kernel where one does it.

    Keras composes it from elementwise operations, which costs 7-36 % of a training step on a CPU. Arguments, variables,
    results and moving statistics are those of Keras (the variance is the mean of squares over n, not n - 1). Maps (batch,
    height, width, channels) take the kernel; vectors, masks and training with `synchronized=True` take Keras's own way. The
    input may be float32, bfloat16 or float16; statistics, scale and offset are float32 always.

    On several devices without `synchronized`, each normalises by its own batch, and the moving statistics of all go by the mean
    of theirs: they stay the same everywhere, whichever device is asked. (Keras lets them drift apart.)

    Args:
        unbiased: the moving variance follows that of batches over n - 1, as PyTorch's does; they are normalised by that over n.
    """

    def __init__(self, *args: Any, unbiased: bool = False, **others: Any):
        super().__init__(*args, **others)
        self.unbiased = unbiased

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {**config, "unbiased": True} if self.unbiased else config

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        training = bool(training) and self.trainable
        if training and not self.synchronized and len(inputs.shape) == 2 and replicas() > 1:
            return self.call(inputs[:, None, None], True, mask)[:, 0, 0]
        if not self._has_kernel(inputs, mask, training):
            return self._by_keras(inputs, training, mask)
        ones, zeros = tf.ones_like(self.moving_mean), tf.zeros_like(self.moving_mean)
        result = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma if self.scale else ones,
            offset=self.beta if self.center else zeros,
            mean=tf.zeros([0]) if training else self.moving_mean,
            variance=tf.zeros([0]) if training else self.moving_variance,
            epsilon=self.epsilon,
            is_training=training,
        )
        if training:
            variance = result.batch_variance if self.unbiased else self._uncorrected(result.batch_variance, inputs)
            self._move_towards(result.batch_mean, variance)
        return result.y

    def _by_keras(self, inputs: Any, training: bool, mask: Any) -> Any:
        before = tf.identity(self.moving_variance.value) if training and self.unbiased else None
        result = super().call(inputs, training=training, mask=mask)
        if before is not None:
            n = tf.cast(tf.size(inputs) // tf.shape(inputs)[self.axis], tf.float32)
            n *= replicas() if self.synchronized else 1  # all have as many
            # What it moved by, (1 - momentum) v, is to be larger by v / (n - 1).
            self.moving_variance.assign_add((self.moving_variance - before * self.momentum) / (n - 1))
        return result

    def _has_kernel(self, inputs: Any, mask: Any, training: bool) -> bool:
        channels_last = self.axis in (-1, 3)
        alone = not (training and (self.synchronized or self.renorm))
        return keras.backend.backend() == "tensorflow" and len(inputs.shape) == 4 and channels_last and mask is None and alone

    @staticmethod
    def _uncorrected(variance: Any, inputs: Any) -> Any:
        """The kernel's variance is divided by n - 1; Keras divides by n."""
        n = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), tf.float32)
        return variance * ((n - 1) / n)

    def _move_towards(self, mean: Any, variance: Any) -> None:
        if replicas() > 1:
            average = tf.distribute.ReduceOp.MEAN
            mean, variance = tf.distribute.get_replica_context().all_reduce(average, [mean, variance])
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + value * (1.0 - self.momentum))


def replicas() -> int:
    """How many devices run this call together."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync
