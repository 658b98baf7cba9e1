"""Objectives: what a head's outputs lose on an example."""

import tensorflow as tf


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor, label_smoothing: float = 0.0) -> tf.Tensor:
    """Cross entropy of each example, float32.

    With smoothing e and c classes the target is (1 - e) * onehot + e / c.

    Args:
        logits: (b, c); labels: (b,) int32.
    """
    logits = tf.cast(logits, tf.float32)
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    if label_smoothing:
        uniform = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
        loss = (1 - label_smoothing) * loss + label_smoothing * uniform
    return loss
