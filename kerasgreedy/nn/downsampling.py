"""Resampling layers: invertible downsampling and its inverse, padding for maxima, the weightless shortcut."""

from typing import Any

import keras
from keras import ops

PACKAGE = "kerasgreedy"


@keras.saving.register_keras_serializable(PACKAGE)
class InvertibleDownsampling(keras.layers.Layer):
    """Space-to-depth: every factor x factor patch becomes one place with factor^2 times the channels.

    Nothing is lost (Dinh et al. 2017; greedy, section 3.1). Channel p * C + c of the output is channel c of place p of
    the patch, p counting along rows.

    Args:
        factor: height and width are divided by this.

    Input: (batch, height, width, channels); output: (batch, height / factor, width / factor, channels * factor^2).
    """

    def __init__(self, factor: int = 2, **kwargs: Any):
        super().__init__(**kwargs)
        self.factor = factor

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        batch, height, width, channels = input_shape
        return (batch, height // self.factor, width // self.factor, channels * self.factor**2)

    def call(self, x: Any) -> Any:
        f = self.factor
        _, height, width, channels = x.shape
        if height % f or width % f:
            raise ValueError(f"{self.name}: height and width must be divisible by {f}, received {height}x{width}")
        x = ops.reshape(x, (-1, height // f, f, width // f, f, channels))
        return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, height // f, width // f, f * f * channels))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable(PACKAGE)
class InvertibleUpsampling(keras.layers.Layer):
    """Depth-to-space: the inverse of `InvertibleDownsampling`, bit for bit.

    Args:
        factor: height and width are multiplied by this.

    Input: (batch, height, width, channels); output: (batch, height * factor, width * factor, channels / factor^2).
    """

    def __init__(self, factor: int = 2, **kwargs: Any):
        super().__init__(**kwargs)
        self.factor = factor

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        batch, height, width, channels = input_shape
        return (batch, height * self.factor, width * self.factor, channels // self.factor**2)

    def call(self, x: Any) -> Any:
        f = self.factor
        _, height, width, channels = x.shape
        if channels % (f * f):
            raise ValueError(f"{self.name}: channels must be divisible by {f * f}, received {channels}")
        x = ops.reshape(x, (-1, height, width, f, f, channels // (f * f)))
        return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, height * f, width * f, channels // (f * f)))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable(PACKAGE)
class Subsample(keras.layers.Layer):
    """Shortcut without weights: every n-th place, new channels zero (He et al. 2016, option A).

    Args:
        stride: step between the places that are kept.
        channels: of the output; the new ones follow the old ones.

    Input: (batch, height, width, c); output: (batch, ceil(height / stride), ceil(width / stride), channels).
    """

    def __init__(self, stride: int, channels: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.stride = stride
        self.channels = channels

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        batch, height, width, _ = input_shape
        return (batch, -(-height // self.stride), -(-width // self.stride), self.channels)

    def call(self, x: Any) -> Any:
        x = x[:, :: self.stride, :: self.stride]
        return ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.channels - x.shape[-1])))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "stride": self.stride, "channels": self.channels}


@keras.saving.register_keras_serializable(PACKAGE)
class PadLowest(keras.layers.Layer):
    """Surrounds a map with the lowest number of its type, which no maximum picks."""

    def __init__(self, padding: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.padding = padding

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        batch, height, width, channels = input_shape
        return (batch, height + 2 * self.padding, width + 2 * self.padding, channels)

    def call(self, x: Any) -> Any:
        p = self.padding
        lowest = -6.5e4 if keras.backend.standardize_dtype(x.dtype) == "float16" else -3.0e38
        return ops.pad(x, ((0, 0), (p, p), (p, p), (0, 0)), constant_values=lowest)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "padding": self.padding}
