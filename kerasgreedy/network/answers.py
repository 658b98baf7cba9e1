"""What a network answers, image by image: what is taken for what, and the surest mistakes."""

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from kerasgreedy.network.build import Network

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Mistake:
    """An image that is taken for something else.

    Attributes:
        image: (height, width, channels), normalised.
        place: of the image in its part, from 0.
        label, answer: classes.
        probability: of the answer.
    """

    image: "NDArray[np.float32]"
    place: int
    label: int
    answer: int
    probability: float


@dataclass(frozen=True)
class Answers:
    """Of one head.

    Attributes:
        confusion: (classes, classes) images by label and answer.
        mistakes: the surest first.
    """

    confusion: "NDArray[np.int64]"
    mistakes: tuple[Mistake, ...]

    @property
    def wrong(self) -> int:
        """Images that are answered wrongly."""
        return int(self.confusion.sum() - np.trace(self.confusion))


def count_answers(labels: "NDArray[Any]", given: "NDArray[Any]", classes: int) -> "NDArray[np.int64]":
    """(classes, classes): how many images of each label (row) get each answer (column)."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, given), 1)
    return counts


def surest_mistakes(sure: "NDArray[Any]", labels: "NDArray[Any]", count: int) -> "NDArray[np.int64]":
    """The images whose wrong answer has the highest probability.

    Args:
        sure: (images, classes) probabilities.

    Returns:
        (at most `count`,), the surest first.
    """
    given = sure.argmax(1)
    wrong = np.flatnonzero(given != labels)
    return wrong[np.argsort(-sure[wrong, given[wrong]], kind="stable")][:count]


def answers_of(network: Network, depth: int, batches: tf.data.Dataset, mistakes: int = 24) -> Answers:
    """Asks the head at a depth, in one pass, on one device.

    Args:
        batches: of (image, label, weight); those of weight 0 do not count.
        mistakes: how many are kept; no more images than these are held.
    """
    classes = network.architecture.heads[depth - 1].output_shape[-1]

    @tf.function(autograph=False)
    def probabilities(images: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(tf.cast(network.logits(images, [depth])[0], tf.float64))

    confusion = np.zeros((classes, classes), np.int64)
    kept: list[tuple[float, int, Mistake]] = []
    seen = 0
    for images, labels, weights in batches:
        real = weights.numpy() > 0
        sure, known = probabilities(images).numpy()[real], labels.numpy()[real]
        given = sure.argmax(1)
        confusion += count_answers(known, given, classes)
        pictures = images.numpy()[real]
        for index in surest_mistakes(sure, known, mistakes):
            probability = float(sure[index, given[index]])
            mistake = Mistake(pictures[index], seen + int(index), int(known[index]), int(given[index]), probability)
            heapq.heappush(kept, (probability, -mistake.place, mistake))  # of equal ones the first stays
            if len(kept) > mistakes:
                heapq.heappop(kept)
        seen += len(known)
    return Answers(confusion, tuple(mistake for _, _, mistake in sorted(kept, key=lambda entry: entry[:2], reverse=True)))
