"""Labels of images that are mixtures of two."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import tensorflow as tf


class Mixed(NamedTuple):
    """Labels of a batch of mixtures (Zhang et al. 2018, mixup).

    Attributes:
        first, second: (b,) int32, of both images.
        share: (b,) float32, of the first.
    """

    first: tf.Tensor
    second: tf.Tensor
    share: tf.Tensor


Labels: TypeAlias = tf.Tensor | Mixed


def by_label(figure: Callable[[tf.Tensor], tf.Tensor], labels: Labels) -> tf.Tensor:
    """(b,) what `figure` gives for labels (b,); of mixtures, the mean of both by their shares.

    For losses that are linear in the target, as cross entropy is, that is the loss for the mixed target; of the squared error the
    gradient in the outputs is the same.
    """
    if isinstance(labels, Mixed):
        return labels.share * figure(labels.first) + (1 - labels.share) * figure(labels.second)
    return figure(labels)
