"""Which place of its window a max-pool takes, so that it can be held like a mask.

Places are read from the pool's own index of its maxima, and a held one is one gather: nine maps of a 3x3 window, cut out and
chosen from, would cost ten times as much. A gather's gradient adds up in the order of the pool's outputs, as the pool's own does.
"""

import keras
import numpy as np
import tensorflow as tf


def largest(layer: keras.layers.MaxPooling2D, x: tf.Tensor) -> tf.Tensor:
    """The place of the maximum, the first of several.

    Args:
        x: (b, height, width, c).

    Returns:
        (b, rows, columns, c) int32, of the pool's output size: places are numbered row by row through the window.
    """
    first_row, first_column = _firsts(layer, x.shape)
    _, index = tf.nn.max_pool_with_argmax(x, layer.pool_size, layer.strides, layer.padding.upper())
    spot = tf.cast(index, tf.int32) // x.shape[3]
    row, column = spot // x.shape[2] - first_row, spot % x.shape[2] - first_column
    return row * layer.pool_size[1] + column


def taken(layer: keras.layers.MaxPooling2D, places: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """What stands at given places.

    Args:
        places: as `largest` gives them, of each example or (1, rows, columns, c) of all.
        x: (b, height, width, c).

    Returns:
        (b, rows, columns, c).
    """
    _, height, width, depth = x.shape
    first_row, first_column = _firsts(layer, x.shape)
    start = (first_row * width + first_column) * depth + np.arange(depth, dtype=np.int32)
    steps = [(row * width + column) * depth for row in range(layer.pool_size[0]) for column in range(layer.pool_size[1])]
    size = height * width * depth
    # Numbers that are not finite can leave a place in the padding; the step is to show them, not to fail.
    index = tf.clip_by_value(start + tf.gather(tf.constant(steps), places), 0, size - 1)
    shape = (tf.shape(x)[0], *places.shape[1:])
    flat = tf.reshape(tf.broadcast_to(index, shape), (shape[0], -1))
    return tf.reshape(tf.gather(tf.reshape(x, (-1, size)), flat, batch_dims=1), shape)


def _firsts(layer: keras.layers.MaxPooling2D, shape: tf.TensorShape) -> tuple[np.ndarray, np.ndarray]:
    """Row (rows, 1, 1) and column (columns, 1) of each window's first place in x; below 0 in the padding."""
    result = []
    for size, window, stride in zip(shape[1:3], layer.pool_size, layer.strides, strict=True):
        count, before = (size - window) // stride + 1, 0
        if layer.padding == "same":
            count = -(-size // stride)
            before = max((count - 1) * stride + window - size, 0) // 2
        result.append(np.arange(count, dtype=np.int32) * stride - before)
    return result[0][:, None, None], result[1][:, None]
