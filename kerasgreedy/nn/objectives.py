"""Objectives: what a head's outputs lose on each example."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import tensorflow as tf


class Objective(ABC):
    """The loss of a head on each example.

    Attributes:
        words: what reports call it.
        curvature: the largest second derivative of the loss in the outputs that there can be; None where there is no bound.
        quadratic: it is that everywhere, in all directions.

    Args:
        settings: what the document says of it.
        label_smoothing: share e of the target that is spread over all c classes: (1 - e) * onehot + e / c.
    """

    words: ClassVar[str]
    curvature: ClassVar[float | None] = None
    quadratic: ClassVar[bool] = False

    def __init__(self, settings: Any = None, label_smoothing: float = 0.0):
        self.settings, self.label_smoothing = settings, label_smoothing

    @abstractmethod
    def __call__(self, outputs: tf.Tensor, labels: tf.Tensor, block: tf.Tensor) -> tf.Tensor:
        """Losses.

        Args:
            outputs: (b, c), of the head, in the precision that it computes in.
            labels: (b,) int32.
            block: (b, ...) what the head was given: the output of its block, for losses that look at it.

        Returns:
            (b,) float32.
        """

    def dual_terms(self, outputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor | None:
        """(b, 2): a and q, where -loss*(-t r) = t a - t^2 q / 2 for any t, r the negative gradient in the outputs.

        loss* is the convex conjugate of the loss of an example as a function of its outputs. None: it has another form.
        """
        return None

    def target(self, labels: tf.Tensor, classes: int) -> tf.Tensor:
        """(b, classes) float32, smoothed."""
        return (1 - self.label_smoothing) * tf.one_hot(labels, classes) + self.label_smoothing / classes


# Of the head of a name.
ObjectiveOf = Callable[[str], Objective]


class CrossEntropyLoss(Objective):
    """Cross entropy of the softmax of the outputs.

    The Hessian in the outputs is diag(p) - p p^T, whose largest eigenvalue is at most 1/2.
    """

    words = "cross entropy"
    curvature = 0.5

    def __call__(self, outputs: tf.Tensor, labels: tf.Tensor, block: tf.Tensor) -> tf.Tensor:
        logits = tf.cast(outputs, tf.float32)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        if self.label_smoothing:
            uniform = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
            loss = (1 - self.label_smoothing) * loss + self.label_smoothing * uniform
        return loss


class SquaredErrorLoss(Objective):
    """1/2 sum over classes of (f_c - y_c)^2, y the (smoothed) one-hot label."""

    words = "squared error"
    curvature = 1.0
    quadratic = True

    def __call__(self, outputs: tf.Tensor, labels: tf.Tensor, block: tf.Tensor) -> tf.Tensor:
        outputs = tf.cast(outputs, tf.float32)
        return 0.5 * tf.reduce_sum(tf.square(outputs - self.target(labels, outputs.shape[-1])), axis=-1)

    def dual_terms(self, outputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """<y, r> and |r|^2 with r = y - f: the conjugate of |f - y|^2 / 2 at u is <u, y> + |u|^2 / 2."""
        target = self.target(labels, outputs.shape[-1])
        residual = target - tf.cast(outputs, tf.float32)
        return tf.stack([tf.reduce_sum(target * residual, axis=-1), tf.reduce_sum(tf.square(residual), axis=-1)], axis=-1)
