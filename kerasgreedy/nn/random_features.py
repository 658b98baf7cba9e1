"""Features of patches whose products approximate a Gaussian kernel."""

from typing import Any

import keras
import tensorflow as tf

from kerasgreedy.nn.downsampling import PACKAGE
from kerasgreedy.nn.gated import Patchwise

# Added to the norm that a patch is divided by (Zhang, Liang and Wainwright 2017, their experiments).
NORM_FLOOR = 0.1


@keras.saving.register_keras_serializable(PACKAGE)
class RandomFeatureMap(Patchwise):
    """Features z(x) of patches x with <z(x), z(y)> near exp(-gamma |x - y|^2); nothing is trained.

    Fourier (Rahimi and Recht 2007): z = sqrt(2 / m) cos(K^T p / s + b), with p the raw patch and s its norm after centring plus
    0.1. Centring, whitening and the random directions are all linear, and are one matrix K = `kernel`.

    Nystrom (Williams and Seeger 2001): y = K^T p / s + b is the whitened patch itself, z = k(y) M with k_i =
    exp(-gamma |y - l_i|^2), l_i = `points` and M = `mixing` the inverse root of the points' own kernel matrix.

    `network.patch_statistics.fit_random_features` sets them. As built: Fourier features of centred patches that are not whitened.

    Args:
        filters: m.
        gamma: of the kernel.
        form: `fourier` or `nystrom`.
        normalize: whether s is the norm of the centred patch + 0.1, or 1.
        seed: of what is drawn.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        gamma: float = 1.0,
        form: str = "fourier",
        normalize: bool = True,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(filters, kernel_size, **kwargs)
        self.gamma, self.form, self.normalize, self.seed = gamma, form, normalize, seed

    def build(self, input_shape: Any) -> None:
        """Makes what is fitted."""
        size, channels = self.kernel_size, input_shape[-1]
        length = size * size * channels
        wide = self.filters if self.form == "fourier" else length
        draw = keras.initializers.RandomNormal(stddev=(2 * self.gamma / channels) ** 0.5, seed=self.seed)
        kept: dict[str, Any] = {"trainable": False, "dtype": "float32", "autocast": False}
        self.kernel = self.fixed = self.add_weight(shape=(size, size, channels, wide), name="kernel", initializer=draw, **kept)
        turn = keras.initializers.RandomUniform(0, 6.283185307179586, seed=self.seed + 1)
        self.offset = self.add_weight(shape=(wide,), name="offset", initializer=turn, **kept)
        if self.form == "nystrom":
            self.points = self.add_weight(shape=(length, self.filters), name="points", initializer=draw, **kept)
            eye = keras.initializers.Identity()
            self.mixing = self.add_weight(shape=(self.filters, self.filters), name="mixing", initializer=eye, **kept)

    def call(self, x: Any) -> Any:
        """(b, height, width, channels) -> (b, height', width', filters); computed in float32 at least.

        In 16 bits the norm of a patch, a difference of sums, would be off by more than what is added to it.
        """
        exact = tf.float64 if x.dtype == tf.float64 else tf.float32
        return tf.cast(self._features(tf.cast(x, exact)), x.dtype)

    def _features(self, x: tf.Tensor) -> tf.Tensor:
        projected = self._convolved(x, self.kernel)
        if self.normalize:
            projected /= self._norms(x) + NORM_FLOOR
        projected += tf.cast(self.offset, x.dtype)
        if self.form == "fourier":
            return tf.cos(projected) * (2 / self.filters) ** 0.5
        points, mixing = (tf.cast(part, x.dtype) for part in (self.points, self.mixing))
        squares = tf.reduce_sum(tf.square(projected), -1, keepdims=True) + tf.reduce_sum(tf.square(points), 0)
        distances = tf.nn.relu(squares - 2 * tf.tensordot(projected, points, 1))
        return tf.tensordot(tf.exp(-self.gamma * distances), mixing, 1)

    def _norms(self, x: tf.Tensor) -> tf.Tensor:
        """(b, height', width', 1): of centred patches."""
        length = self.kernel_size**2 * x.shape[-1]
        ones = tf.ones((self.kernel_size, self.kernel_size, 1, 1), x.dtype)
        sums = [self._convolved(tf.reduce_sum(part, -1, keepdims=True), ones) for part in (x, tf.square(x))]
        return tf.sqrt(tf.nn.relu(sums[1] - tf.square(sums[0]) / length))

    def get_config(self) -> dict[str, Any]:
        """For Keras."""
        own = {key: getattr(self, key) for key in ("gamma", "form", "normalize", "seed")}
        return {**super().get_config(), **own}
