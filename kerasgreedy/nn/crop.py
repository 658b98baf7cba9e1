"""Windows cut out of maps."""

from typing import Any

import keras
import tensorflow as tf

from kerasgreedy.nn.batch_norm import replicas
from kerasgreedy.nn.downsampling import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
class RandomCropping(keras.layers.Layer):
    """A window of each map: at a random place in training, its own for each example and device; in the middle otherwise.

    Args:
        height, width: of the window.
        seed: of the draws; their state is saved, so that a run that goes on draws what it would have drawn.
    """

    def __init__(self, height: int, width: int, seed: int | None = None, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)  # what is cut out alone is then worth another type
        self.height, self.width, self.seed = height, width, seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, x: Any, training: bool = False) -> Any:
        """(b, rows, columns, channels) to (b, height, width, channels), of the same type."""
        spare = (x.shape[1] - self.height, x.shape[2] - self.width)
        if not training or spare == (0, 0):
            top, left = spare[0] // 2, spare[1] // 2
            return x[:, top : top + self.height, left : left + self.width]
        seed = tf.cast(self.seed_generator.next(), tf.int32)
        if replicas() > 1:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            seed = tf.random.experimental.stateless_fold_in(seed, replica)
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        count, (height, width, channels) = tf.shape(x)[0], x.shape[1:]
        first = [
            tf.random.stateless_uniform((count, 1), own, minval=0, maxval=more + 1, dtype=tf.int32)
            for own, more in zip(seeds, spare, strict=True)
        ]
        rows, columns = first[0] + tf.range(self.height), first[1] + tf.range(self.width)
        places = tf.reshape(rows[:, :, None] * width + columns[:, None], [count, -1])  # one copy instead of one for each axis
        cut = tf.gather(tf.reshape(x, [count, height * width, channels]), places, axis=1, batch_dims=1)
        return tf.reshape(cut, [count, self.height, self.width, channels])

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """Of a batch of maps."""
        return (input_shape[0], self.height, self.width, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """For Keras."""
        return {**super().get_config(), "height": self.height, "width": self.width, "seed": self.seed}
