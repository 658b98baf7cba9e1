"""Dropout whose masks differ between devices."""

from typing import Any

import keras
import tensorflow as tf

from kerasgreedy.nn.batch_norm import replicas
from kerasgreedy.nn.downsampling import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
class ReplicaDropout(keras.layers.Dropout):
    """`keras.layers.Dropout`; on several devices each draws a mask of its own.

    Keras's state of random numbers is the same on all of them, so every device's share of a batch would get the same mask.
    On one device the masks are those of Keras. The state that is saved is too: a run that goes on draws what it would have drawn.
    """

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training or self.rate in (0, 1) or replicas() == 1:
            return super().call(inputs, training=training)
        state = tf.cast(self.seed_generator.next(), tf.int32)
        seed = tf.random.experimental.stateless_fold_in(state, tf.distribute.get_replica_context().replica_id_in_sync_group)
        return tf.nn.experimental.stateless_dropout(inputs, rate=self.rate, seed=seed)
