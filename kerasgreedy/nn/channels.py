"""Channels moved to other places."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from kerasgreedy.nn.downsampling import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
class ChannelPlacement(keras.layers.Layer):
    """Channel i of what enters becomes channel at[i]; the others are zero.

    Args:
        channels: of the output.
        at: distinct, below `channels`.
    """

    def __init__(self, channels: int, at: Sequence[int], **kwargs: Any):
        super().__init__(**kwargs)
        self.channels, self.at = channels, list(at)

    def call(self, x: Any) -> Any:
        """(..., len(at)) to (..., channels), of the same type."""
        entering = len(self.at)
        if self.at == list(range(entering)):
            return tf.pad(x, [[0, 0]] * (len(x.shape) - 1) + [[0, self.channels - entering]])
        source = [entering] * self.channels  # a channel of zeros
        for index, place in enumerate(self.at):
            source[place] = index
        if entering < self.channels:
            x = tf.pad(x, [[0, 0]] * (len(x.shape) - 1) + [[0, 1]])
        return tf.gather(x, source, axis=-1)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """Of a batch of maps or vectors."""
        return (*input_shape[:-1], self.channels)

    def get_config(self) -> dict[str, Any]:
        """For Keras."""
        return {**super().get_config(), "channels": self.channels, "at": self.at}
