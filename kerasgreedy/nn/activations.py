"""Activations: positive hard thresholding, which separates weights from support, and those that must not be fused."""

from typing import Any

import keras
import tensorflow as tf

from kerasgreedy.nn.downsampling import PACKAGE

PER = ("layer", "channel")
LEARN = ("fixed", "warm_up", "surrogate")
# With oneDNN, TensorFlow's graph rewriting fuses convolution, batch norm and tanh, and then has no kernel for the three ("Fusion
# is not implemented: [FusedBatchNorm,Tanh]"). For relu, elu and leaky_relu it has one; all others are left alone.
NO_KERNEL = ("tanh",)


def activation(which: str, **kwargs: Any) -> keras.layers.Layer:
    """The layer of one of Keras's activations, or of `square`."""
    if which == "square":
        return Square(**kwargs)
    return (ApartActivation if which in NO_KERNEL else keras.layers.Activation)(which, **kwargs)


@keras.saving.register_keras_serializable(PACKAGE)
class ApartActivation(keras.layers.Activation):
    """`keras.layers.Activation` that is never fused with the layers before it, here or where a SavedModel is loaded."""

    def call(self, inputs: Any) -> Any:
        # Costs nothing, and unlike an identity the rewriting keeps it.
        return super().call(tf.ensure_shape(inputs, inputs.shape))


@keras.saving.register_keras_serializable(PACKAGE)
class Square(keras.layers.Layer):
    """q^2 (the quadratic networks of Zhang, Liang and Wainwright 2017)."""

    def call(self, inputs: Any) -> Any:
        """Any shape to the same one."""
        return keras.ops.square(inputs)


@keras.saving.register_keras_serializable(PACKAGE)
class PositiveHardThreshold(keras.layers.Layer):
    """eta*(q; beta) = q where q > beta, else 0.

    Huang, Kong and Lucey, "CNNs are Globally Optimal Given Multi-Layer Support", eq. 9. It passes q, and not q - beta as a ReLU
    with a bias does (eq. 7), so that given its support 1[q > beta] it is linear. dy/dq is the support. A negative beta lets the
    q between it and 0 pass too. Where q is not a number, neither is the result.

    `learn` says where beta comes from:

    - `fixed`: beta stays what it is.
    - `surrogate`: beta is trained. The gradient with respect to it is zero almost everywhere, so backwards, and only there, the
      step 1[q > beta] counts as s((q - beta) / width), s the logistic sigmoid: dy/dbeta = -q s'((q - beta) / width) / width.
    - `warm_up` (section 4.1): up to `harden` the layer is eq. 7, max(q - bias, 0), with a trained `bias`. `harden` makes it eq. 9
      with beta = bias. From then on `bias` is not read and its gradient is zero.

    Thresholds are float32; q is compared with them as rounded to its own dtype. Their gradients are summed in float32.

    Attributes:
        beta: float32, the threshold of eq. 9, shape () or (channels,); trained with `surrogate` only.
        bias: of `warm_up`, else None: float32 of beta's shape, trained.
        hard: of `warm_up`, else None: float32 of shape (), 0 up to `harden`, then 1.

    Args:
        beta: its first, or fixed, value; `bias` starts there too.
        per: `layer`: one number; `channel`: one for each channel, or unit of a vector.
        learn: see above.
        width: > 0, of the surrogate, in units of q.

    Input and output: (batch, ..., channels) float32, bfloat16 or float16.
    """

    def __init__(self, beta: float = 0.0, per: str = "layer", learn: str = "fixed", width: float = 0.1, **kwargs: Any):
        super().__init__(**kwargs)
        for name, received, allowed in (("per", per, PER), ("learn", learn, LEARN)):
            if received not in allowed:
                raise ValueError(f"{name}: received {received!r}; allowed: {', '.join(map(repr, allowed))}")
        if not width > 0:
            raise ValueError(f"width: received {width!r}; allowed: a number above 0")
        self._start = float(beta)
        self.per, self.learn, self.width = per, learn, float(width)
        self.bias: keras.Variable | None = None
        self.hard: keras.Variable | None = None

    def build(self, input_shape: tuple[Any, ...]) -> None:
        shape = () if self.per == "layer" else (input_shape[-1],)
        start = keras.initializers.Constant(self._start)
        # Not cast to 16 bits by Keras: a bias that learns by small steps would stand still.
        kept: dict[str, Any] = {"dtype": "float32", "autocast": False}
        self.beta = self.add_weight(name="beta", shape=shape, initializer=start, trainable=self.learn == "surrogate", **kept)
        if self.learn == "warm_up":
            self.bias = self.add_weight(name="bias", shape=shape, initializer=start, **kept)
            self.hard = self.add_weight(name="hard", shape=(), initializer="zeros", trainable=False, **kept)

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        return input_shape

    def call(self, q: Any) -> Any:
        if self.learn == "surrogate":
            return _surrogate(q, self.threshold(), self.width)
        passed = q if self.bias is None else _minus(q, self.shift())
        return _where_above(q, self.threshold(), passed)

    def threshold(self) -> tf.Tensor:
        """The threshold in force, float32 of beta's shape: `bias` up to `harden`, else `beta`."""
        if self.bias is None:
            return tf.convert_to_tensor(self.beta)
        return tf.where(tf.convert_to_tensor(self.hard) > 0, tf.convert_to_tensor(self.beta), tf.convert_to_tensor(self.bias))

    def shift(self) -> tf.Tensor:
        """What is subtracted from the q that pass, float32 of beta's shape: `bias` up to `harden`, else 0."""
        if self.bias is None:
            return tf.zeros_like(tf.convert_to_tensor(self.beta))
        bias = tf.convert_to_tensor(self.bias)
        return tf.where(tf.convert_to_tensor(self.hard) > 0, tf.zeros_like(bias), bias)

    def supported(self, q: Any) -> tf.Tensor:
        """The support 1[q > threshold in force]: bool, the shape of q."""
        q = tf.convert_to_tensor(q)
        return q > tf.cast(self.threshold(), q.dtype)

    def harden(self) -> None:
        """Ends `warm_up`: eq. 9 with beta = bias from now on, and so the support that there was.

        Without effect when that was done before, and where `learn` is something else. To be called eagerly on a built layer,
        under the strategy's scope.
        """
        if self.bias is None or self.hard is None or keras.ops.convert_to_numpy(self.hard) > 0:
            return
        self.beta.assign(keras.ops.convert_to_numpy(self.bias))
        self.hard.assign(1.0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta": self._start, "per": self.per, "learn": self.learn, "width": self.width}


def _where_above(q: tf.Tensor, threshold: tf.Tensor, passed: tf.Tensor) -> tf.Tensor:
    """`passed` where q > threshold, else 0."""
    # Asked this way round, what is not a number passes and is found; a product with the support would give -0 and inf * 0.
    return tf.where(q <= tf.cast(threshold, q.dtype), tf.zeros_like(q), passed)


def _surrogate(q: tf.Tensor, beta: tf.Tensor, width: float) -> tf.Tensor:
    @tf.custom_gradient
    def passed(q: tf.Tensor, beta: tf.Tensor) -> Any:
        def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            wide = tf.cast(q, tf.float32)
            s = tf.sigmoid((wide - beta) / width)
            # An infinite q is where the slope is zero, and the product with it has to be zero too.
            slope = tf.math.multiply_no_nan(tf.cast(dy, tf.float32) * wide / width, s * (1 - s))
            return _where_above(q, beta, dy), -_sum_to(beta, slope)

        return _where_above(q, beta, q), gradient

    return passed(q, beta)


@tf.custom_gradient
def _minus(q: tf.Tensor, shift: tf.Tensor) -> Any:
    """q - shift in the dtype of q; the gradient of the float32 shift is summed in float32, not in 16 bits."""
    return q - tf.cast(shift, q.dtype), lambda dy: (dy, -_sum_to(shift, tf.cast(dy, tf.float32)))


def _sum_to(like: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Sums values (..., channels) to the shape of `like`: () or (channels,)."""
    return tf.reduce_sum(values, axis=list(range(len(values.shape) - len(like.shape))))
