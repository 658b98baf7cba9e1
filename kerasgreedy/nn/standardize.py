"""Centring and scaling by numbers that are measured once."""

from typing import Any

import keras

from kerasgreedy.nn.downsampling import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
class Standardization(keras.layers.Layer):
    """(x - mean) * factor; neither is trained. Before they are measured: x.

    Args:
        by: `channels`: mean and factor (channels,); `places`: mean (height, width, channels) and one factor.
    """

    def __init__(self, by: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.by = by

    def build(self, input_shape: Any) -> None:
        """Makes mean and factor, float32."""
        places = self.by == "places"
        shape = tuple(input_shape[1:]) if places else (input_shape[-1],)
        kept: dict[str, Any] = {"trainable": False, "dtype": "float32", "autocast": False}
        self.mean = self.add_weight(shape=shape, name="mean", initializer="zeros", **kept)
        self.factor = self.add_weight(shape=() if places else shape, name="factor", initializer="ones", **kept)

    def call(self, x: Any) -> Any:
        """(b, height, width, channels) to the same shape; computed in float32 at least."""
        exact = "float64" if x.dtype == "float64" else "float32"
        mean, factor = (keras.ops.cast(part, exact) for part in (self.mean, self.factor))
        return keras.ops.cast((keras.ops.cast(x, exact) - mean) * factor, x.dtype)

    def get_config(self) -> dict[str, Any]:
        """For Keras."""
        return {**super().get_config(), "by": self.by}
