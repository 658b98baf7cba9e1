"""What a network answers, image by image: what is taken for what, and the surest mistakes."""

import heapq
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from kerasgreedy.network.build import Network

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Answer:
    """To one image.

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
        images, right: (classes,) of each label.
        wrong: (label, answer) -> images, of those that were seen.
        mistakes: some of the wrong ones, the surest first.
        first: those to the first images.
    """

    images: "NDArray[np.int64]"
    right: "NDArray[np.int64]"
    wrong: Counter[tuple[int, int]]
    mistakes: tuple[Answer, ...]
    first: tuple[Answer, ...]

    @property
    def confusion(self) -> "NDArray[np.int64]":
        """(classes, classes) images by label and answer; of very many classes this is large."""
        counts = np.diag(self.right)
        for (label, answer), images in self.wrong.items():
            counts[label, answer] = images
        return counts


@dataclass(frozen=True)
class _Batch:
    """Images, their labels, answers and probabilities of these, and how many images came before."""

    images: "NDArray[np.float32]"
    labels: "NDArray[Any]"
    given: "NDArray[Any]"
    sure: "NDArray[Any]"
    before: int

    def answer(self, index: int) -> Answer:
        facts = int(self.labels[index]), int(self.given[index]), float(self.sure[index])
        return Answer(self.images[index], self.before + index, *facts)


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


def answers_of(
    network: Network,
    depth: int,
    batches: tf.data.Dataset,
    mistakes: int = 24,
    first: int = 0,
) -> Answers:
    """Asks the head at a depth, in one pass, on one device. Not as a graph: tracing one takes longer than most test data.

    Args:
        batches: of (image, label, weight); those of weight 0 do not count.
        mistakes, first: how many are kept; no more images than these are held.
    """
    classes = network.architecture.heads[depth - 1].output_shape[-1]
    images_of, right, wrong = np.zeros(classes, np.int64), np.zeros(classes, np.int64), Counter[tuple[int, int]]()
    kept: list[tuple[float, int, Answer]] = []
    began: list[Answer] = []
    place = 0
    for images, labels, weights in batches:
        real = weights.numpy() > 0
        logits = tf.cast(network.logits(images, [depth])[0], tf.float64)
        sure, known, pictures = tf.nn.softmax(logits).numpy()[real], labels.numpy()[real], images.numpy()[real]
        given = sure.argmax(1)
        images_of += np.bincount(known, minlength=classes)
        right += np.bincount(known[given == known], minlength=classes)
        wrong.update((int(label), int(answer)) for label, answer in zip(known, given, strict=True) if label != answer)

        batch = _Batch(pictures, known, given, sure.max(1), place)
        for index in surest_mistakes(sure, known, mistakes):
            found = batch.answer(int(index))
            heapq.heappush(kept, (found.probability, -found.place, found))  # of equal ones the first stays
            if len(kept) > mistakes:
                heapq.heappop(kept)
        began += [batch.answer(index) for index in range(min(first - len(began), len(known)))]
        place += len(known)
    ranked = sorted(kept, key=lambda entry: entry[:2], reverse=True)
    return Answers(images_of, right, wrong, tuple(found for _, _, found in ranked), tuple(began))
