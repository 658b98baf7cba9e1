"""A convolution whose filter gradient is computed faster on a CPU."""

from typing import Any

import keras
import tensorflow as tf

from kerasgreedy.nn.downsampling import PACKAGE

# Below these the operations around the sum cost more than they save. Measured on 2 cores with avx512_bf16, TensorFlow 2.21.
LEAST_BATCH, SMALL_MAP = 64, 256
LEAST_CHANNELS, LEAST_CHANNELS_LARGE_MAP = 64, 256


@keras.saving.register_keras_serializable(PACKAGE)
class RowGradientConv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` with the same results and, in bfloat16 on a CPU, another way to the filter gradient.

    TensorFlow's kernel for it runs at half to a third of the speed of a forward convolution in bfloat16, worst on small maps.
    But dW[r, s, c, f] = sum over h of sum over (w, n) of x[n, h + r, w + s, c] dy[n, h, w, f] is, for each row h of the map, a
    forward convolution of x with dy in which examples and channels have changed places; `filter_gradient` adds them up in
    float32. Together with the input gradient that is 1.0 to 2 times as fast, the more the smaller the map
    (`docs/performance.md`).

    Taken for trained `same` convolutions with an odd kernel, stride 1 and one group; all else goes Keras's own way.
    """

    def call(self, inputs: Any) -> Any:
        if not self._by_rows(inputs):
            return super().call(inputs)
        weights = [self.kernel, self.bias] if self.use_bias else [self.kernel]
        return self.activation(_convolve(inputs, *map(tf.convert_to_tensor, weights)))

    def _by_rows(self, inputs: Any) -> bool:
        plain = self.padding == "same" and self.groups == 1 and {*self.strides, *self.dilation_rate} == {1}
        odd = all(size % 2 for size in self.kernel_size) and self.data_format == "channels_last"
        if not (plain and odd and self.trainable and keras.backend.backend() == "tensorflow"):
            return False
        batch, height, width, channels = inputs.shape
        if None in (batch, height, width) or inputs.dtype != tf.bfloat16 or tf.config.list_physical_devices("GPU"):
            return False
        least = LEAST_CHANNELS if height * width <= SMALL_MAP else LEAST_CHANNELS_LARGE_MAP
        return batch >= LEAST_BATCH and min(channels, self.filters) >= least


@tf.custom_gradient
def _convolve(x: tf.Tensor, kernel: tf.Tensor, *bias: tf.Tensor) -> Any:
    """A `same` convolution of stride 1, and the bias if there is one."""

    def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, ...]:
        dx = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.shape(x), filter=kernel, out_backprop=dy, strides=[1, 1, 1, 1], padding="SAME"
        )
        dw = tf.cast(filter_gradient(x, dy, tuple(kernel.shape[:2])), kernel.dtype)
        return (dx, dw, *(_sum_by_channel(dy) for _ in bias))

    y = tf.nn.conv2d(x, kernel, 1, "SAME")
    return (tf.nn.bias_add(y, *bias) if bias else y), gradient


def _sum_by_channel(dy: tf.Tensor) -> tf.Tensor:
    """The gradient of a bias, as a product: a plain sum would add in bfloat16, where 256 + 1 is 256."""
    flat = tf.reshape(dy, [-1, dy.shape[-1]])
    return tf.linalg.matmul(tf.ones([1, tf.shape(flat)[0]], dy.dtype), flat)[0]


def filter_gradient(x: tf.Tensor, dy: tf.Tensor, kernel_size: tuple[int, int]) -> tf.Tensor:
    """The gradient of a `same` convolution of stride 1 with respect to its kernel.

    Args:
        x: (n, height, width, c) its input.
        dy: (n, height, width, f) the gradient of its output.
        kernel_size: height and width, odd.

    Returns:
        (kernel height, kernel width, c, f) float32.
    """
    tall, wide = kernel_size
    turned = tf.pad(tf.transpose(x, [1, 2, 3, 0]), [[tall // 2] * 2, [wide // 2] * 2, [0, 0], [0, 0]])
    rows = tf.transpose(dy, [1, 2, 0, 3])[:, :, None]
    # Row h: the kernel's rows are the batch, the map's width and the channels the image, the examples the channels.
    parts = [tf.nn.conv2d(turned[h : h + tall], rows[h], 1, "VALID") for h in range(x.shape[1])]
    return tf.add_n([tf.cast(part, tf.float32) for part in parts])
