"""Convolutions behind gates that are fixed (Ergen and Pilanci 2021; Chang and Lee), and their non-convex twin.

A patch X_k is the vector of the numbers under a kernel, in the order (row, column, channel); h is its length, K their number.
"""

from typing import Any

import keras
import tensorflow as tf

from kerasgreedy.nn.downsampling import PACKAGE


class Patchwise(keras.layers.Layer):
    """What layers on patches have in common.

    Args:
        filters: of the kernel (kernel_size, kernel_size, channels, filters).
        padding: `same` or `valid`.
    """

    bias = None

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        strides: int = 1,
        padding: str = "valid",
        kernel_initializer: Any = "he_normal",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.filters, self.kernel_size, self.strides, self.padding = filters, kernel_size, strides, padding
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def _weight(self, shape: Any, name: str, initializer: Any, trainable: bool = True) -> keras.Variable:
        kernel = (self.kernel_size, self.kernel_size, shape[-1], self.filters)
        return self.add_weight(shape=kernel, name=name, initializer=initializer, trainable=trainable)

    def _convolved(self, x: Any, kernel: Any) -> tf.Tensor:
        """(b, height, width, filters): X_k times each filter."""
        return tf.nn.conv2d(x, tf.cast(kernel, x.dtype), self.strides, self.padding.upper())

    def patches(self, x: Any) -> tf.Tensor:
        """(b, K, h)."""
        size, step = [1, self.kernel_size, self.kernel_size, 1], [1, self.strides, self.strides, 1]
        found = tf.image.extract_patches(x, size, step, [1, 1, 1, 1], self.padding.upper())
        count = None if None in found.shape[1:3] else found.shape[1] * found.shape[2]
        sides = tf.shape(found)
        return tf.reshape(found, [sides[0], sides[1] * sides[2] if count is None else count, found.shape[3]])

    def get_config(self) -> dict[str, Any]:
        """For Keras."""
        own = {key: getattr(self, key) for key in ("filters", "kernel_size", "strides", "padding")}
        initializer = keras.initializers.serialize(self.kernel_initializer)
        return {**super().get_config(), **own, "kernel_initializer": initializer}


def trained_kernel(layer: keras.layers.Layer) -> keras.Variable | None:
    """The kernel of a layer that has one, unless it is fixed for good; whether the layer is frozen for now has no part in it."""
    kernel = getattr(layer, "kernel", None)
    return None if kernel is getattr(layer, "fixed", None) else kernel


@keras.saving.register_keras_serializable(PACKAGE)
class GatedConv2D(Patchwise):
    """1[X g_i >= 0] (X v_i) for each patch X and filter i.

    Args:
        own: g is v: relu(X v_i).
        seed: of the gates.
    """

    def __init__(self, filters: int, kernel_size: int, own: bool = False, seed: int = 0, **kwargs: Any):
        super().__init__(filters, kernel_size, **kwargs)
        self.own, self.seed = own, seed

    def build(self, input_shape: Any) -> None:
        """Makes v, trained, and g, which is not."""
        self.kernel = self._weight(input_shape, "kernel", self.kernel_initializer)
        if not self.own:
            normal = keras.initializers.RandomNormal(stddev=1.0, seed=self.seed)
            self.gates = self.fixed = self._weight(input_shape, "gates", normal, trainable=False)

    def call(self, x: Any) -> Any:
        """(b, height, width, channels) -> (b, height', width', filters)."""
        z = self._convolved(x, self.kernel)
        if self.own:
            return tf.nn.relu(z)
        return tf.where(self._convolved(x, self.gates) >= 0, z, tf.zeros_like(z))

    def get_config(self) -> dict[str, Any]:
        """For Keras."""
        return {**super().get_config(), "own": self.own, "seed": self.seed}


@keras.saving.register_keras_serializable(PACKAGE)
class RectifiedMean(Patchwise):
    """The mean over patches, or the sum, of relu(X_k v_i)."""

    def __init__(self, filters: int, kernel_size: int, over: str = "mean", **kwargs: Any):
        super().__init__(filters, kernel_size, **kwargs)
        self.over = over

    def build(self, input_shape: Any) -> None:
        """Makes v."""
        self.kernel = self._weight(input_shape, "kernel", self.kernel_initializer)

    def call(self, x: Any) -> Any:
        """(b, height, width, channels) -> (b, filters)."""
        total = tf.reduce_mean if self.over == "mean" else tf.reduce_sum
        return total(tf.nn.relu(self._convolved(x, self.kernel)), axis=[1, 2])

    def get_config(self) -> dict[str, Any]:
        """For Keras."""
        return {**super().get_config(), "over": self.over}


@keras.saving.register_keras_serializable(PACKAGE)
class GatedPatches(Patchwise):
    """s_i = mean over patches, or sum, of 1[X_k g_i >= 0] X_k: what every class's filters behind gate i are applied to.

    Summed first, ten classes cost a tenth of as many filters: K h P multiply-adds for the gates and as many for the sums, and
    h P for each class. No gradient passes through the gates.

    Args:
        over: `mean` or `sum`.
        paired: the second half of the gates has the sign -1.
    """

    def __init__(self, filters: int, kernel_size: int, over: str = "mean", paired: bool = False, **kwargs: Any):
        super().__init__(filters, kernel_size, **kwargs)
        self.over, self.paired = over, paired

    def build(self, input_shape: Any) -> None:
        """Makes the gates, and their signs if they are paired."""
        self.kernel = self.fixed = self._weight(input_shape, "kernel", self._start, trainable=False)
        if self.paired:
            half = keras.ops.ones(self.filters // 2)
            start = lambda shape, dtype=None: keras.ops.cast(keras.ops.concatenate([half, -half]), dtype)  # noqa: E731
            self.signs = self.add_weight(shape=(self.filters,), name="signs", initializer=start, trainable=False)

    def _start(self, shape: Any, dtype: Any = None) -> Any:
        if not self.paired:
            return self.kernel_initializer(shape, dtype)
        half = self.kernel_initializer((*shape[:-1], shape[-1] // 2), dtype)
        return keras.ops.concatenate([half, half], axis=-1)

    def call(self, x: Any) -> Any:
        """(b, height, width, channels) -> (b, h, filters)."""
        patches = self.patches(x)
        length, count = patches.shape[2], tf.shape(patches)[1]
        gates = tf.cast(tf.reshape(self.kernel, [length, self.filters]), x.dtype)
        products = tf.matmul(tf.reshape(tf.stop_gradient(patches), [-1, length]), gates)
        open_ = tf.cast(tf.reshape(products, [-1, count, self.filters]) >= 0, x.dtype)
        scaled = patches / tf.cast(count, x.dtype) if self.over == "mean" else patches
        sums = tf.matmul(scaled, open_, transpose_a=True)
        return sums * tf.cast(self.signs, x.dtype) if self.paired else sums

    def get_config(self) -> dict[str, Any]:
        """For Keras."""
        return {**super().get_config(), "over": self.over, "paired": self.paired}


@keras.saving.register_keras_serializable(PACKAGE)
class SeparableScores(keras.layers.Layer):
    """f_c = sum over i of <s_i, v_ic>, without bias: kernel (h, gates, classes)."""

    bias = None
    filter_axes = (1, 2)  # of the kernel: those that count filters

    def __init__(self, classes: int, kernel_initializer: Any = "zeros", **kwargs: Any):
        super().__init__(**kwargs)
        self.classes, self.kernel_initializer = classes, keras.initializers.get(kernel_initializer)

    def build(self, input_shape: Any) -> None:
        """Makes v."""
        self.kernel = self.add_weight(shape=(*input_shape[1:], self.classes), name="kernel", initializer=self.kernel_initializer)

    def call(self, s: Any) -> Any:
        """(b, h, gates) -> (b, classes)."""
        numbers = s.shape[1] * s.shape[2]
        kernel = tf.reshape(tf.cast(self.kernel, s.dtype), [numbers, self.classes])
        # Turned twice: the gradient is then a product of a few rows with s, which takes a quarter of that of s turned with them.
        return tf.matmul(tf.reshape(s, [-1, numbers]), tf.transpose(kernel), transpose_b=True)

    def get_config(self) -> dict[str, Any]:
        """For Keras."""
        initializer = keras.initializers.serialize(self.kernel_initializer)
        return {**super().get_config(), "classes": self.classes, "kernel_initializer": initializer}
