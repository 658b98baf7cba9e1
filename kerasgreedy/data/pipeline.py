"""Batches for training and evaluation: split, order, augmentation, normalisation."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import tensorflow as tf

from kerasgreedy.data.augment import Draws, augment_batch, center_cut, cut_out, mix, random_resized_crop, whole_image
from kerasgreedy.data.distributed import unconverted
from kerasgreedy.data.normalization import mean_and_deviation
from kerasgreedy.data.parts import divide_at_random, divide_by_class, sharded_rows
from kerasgreedy.data.splits import ArraySplit, Change, FileSplit, Split, TfdsSplit
from kerasgreedy.errors import DataError
from kerasgreedy.spec.recipe import Data

if TYPE_CHECKING:
    from numpy.typing import NDArray

Part: TypeAlias = Literal["train", "validation", "test"]
FIT_EXAMPLES = 10_000
READ = 256
# Streams of random numbers that must not meet.
_SPLIT, _ORDER, _DRAW, _LIMIT, _SOME = 1, 2, 3, 4, 5
# What decoding or opening a file raises.
UNREADABLE = (
    tf.errors.InvalidArgumentError,
    tf.errors.DataLossError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.FailedPreconditionError,
    tf.errors.UnknownError,
)
_PARALLEL: dict[str, Any] = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}


class Pipeline:
    """Turns the images of a data set into batches.

    Order and augmentation of an epoch depend on (seed, phase, epoch) only, so a position in training is a number and
    not an iterator to be saved.

    Args:
        train, test: the two splits.
        data: the recipe's data section.
        size: height and width that the network takes.
        seed: of split, order and augmentation.
        fitted: (mean, deviation) by channel to normalise with; default: fitted on the training part.
        by_class: draw the images that are used and those that validate class by class, where labels are at hand; runs of
            older versions drew them from all alike.

    Attributes:
        parts: part -> (n,) its examples, sorted.
        by_class: whether they were drawn so.
        notices: what people should know of how they were drawn.
    """

    def __init__(
        self,
        train: Split,
        test: Split,
        data: Data,
        size: tuple[int, int],
        seed: int,
        fitted: tuple[Sequence[float], Sequence[float]] | None = None,
        by_class: bool = True,
    ):
        self._train, self._test, self._data, self._size, self._seed = train, test, data, size, seed
        self._views: dict[tuple[Part, int, int | None], tf.data.Dataset] = {}
        self._evaluations: dict[tuple[Part, int, int | None], tf.data.Dataset] = {}
        self.by_class = by_class and train.labels_at_hand
        self.notices: tuple[str, ...] = ()
        used, held = self._divide(by_class)
        test_order = np.random.default_rng((seed, _LIMIT)).permutation(test.size)[: data.test_examples]
        self.parts: dict[Part, NDArray[np.int64]] = {
            "train": used,
            "validation": held,
            "test": np.sort(test_order),
        }
        self.mean, self.deviation = [np.asarray(part, np.float32) for part in fitted] if fitted else self._fit()

    def _divide(self, by_class: bool) -> tuple["NDArray[np.int64]", "NDArray[np.int64]"]:
        """The examples that are trained on, and those that validate."""
        train, data = self._train, self._data
        limit, count = data.divided(train.size)
        order = np.random.default_rng((self._seed, _SPLIT)).permutation(train.size)
        if not self.by_class:
            if by_class and (count or limit < train.size):
                self.notices = (
                    f"{data.dataset}: validation images are drawn from all alike, not class by class: to know the classes, all "
                    "of the copy would have to be read",
                )
            return divide_at_random(order, limit, count)
        used, held = divide_by_class(order, train.labels, limit, count)
        there, left = np.unique(train.labels), np.unique(train.labels[used])
        if len(left) < len(there):
            self.notices = (
                f"{data.dataset}: {len(there) - len(left):,} of {len(there):,} classes have no training image: only "
                f"{len(used):,} image(s) are left for training",
            )
        return used, held

    @property
    def train_counts(self) -> "NDArray[np.int64]":
        """Images of each class in the training part; reads all labels."""
        return np.bincount(self._train.labels[self.parts["train"]])

    @property
    def augments(self) -> bool:
        """Whether training images are changed."""
        return self._data.augment.changes

    def steps(self, batch_size: int) -> int:
        """Steps of one training epoch; a remainder smaller than a batch waits for another epoch's order."""
        return len(self.parts["train"]) // batch_size

    def training(self, phase: int, epoch: int, batch_size: int, first_step: int = 0) -> tf.data.Dataset:
        """Batches (image float32, label int32, or `Mixed` labels) of one training epoch, from `first_step` on."""
        return self._epoch(phase, epoch, batch_size, first_step, 1, lambda index, image, label: (image, label)).prefetch(2)

    def indexed(self, phase: int, epoch: int, batch_size: int, first_step: int = 0, shards: int = 1) -> tf.data.Dataset:
        """Those of `training`, as (row int64, image, label): a row is an example's place in the training part.

        Args:
            shards: the s-th of so many equal parts of every batch holds rows s, s + shards, s + 2 shards, ... only, so that a
                worker sees the same examples in all epochs. The order is then another one.
        """
        return self._epoch(phase, epoch, batch_size, first_step, shards, self._with_rows("train"))

    def _epoch(self, phase: int, epoch: int, batch_size: int, first_step: int, shards: int, last: Change) -> tf.data.Dataset:
        order, seed = self._order(phase, epoch, batch_size, shards)
        views = self._data.augment_views
        draws = self._draws((phase, epoch) if views is None else (epoch % views,))
        return self._images(self._train, order, draws, batch_size, True, last, first_step * batch_size, seed)

    def _with_rows(self, part: Part) -> Change:
        """(index in the split, ...) to (row of the part, ...)."""
        places = tf.constant(self.parts[part])
        return lambda index, *more: (tf.searchsorted(places, tf.cast(index, places.dtype), out_type=tf.int64), *more)

    def rows(self, phase: int, epoch: int, batch_size: int, shards: int = 1) -> "NDArray[np.int64]":
        """The order of `indexed` as rows of the training part, for what is stored by row."""
        return np.searchsorted(self.parts["train"], self._order(phase, epoch, batch_size, shards)[0])

    def view(self, part: Part, view: int | None, batch_size: int, most: int | None = None, shards: int = 1) -> tf.data.Dataset:
        """Full batches (row int64, image float32, label int32) of a part, in one of its views or (None) unaugmented.

        The row is an example's place in the part; the last batch is filled up with images of row -1.

        Args:
            most: only so many images, drawn by the seed.
            shards: see `indexed`.
        """
        if shards > 1:
            return self._sharded_view(part, view, batch_size, shards)
        if view is not None:
            return self._view(part, view, batch_size, most)
        known = part, batch_size, most
        if known not in self._views:  # the same each time: what they are made by is traced once
            self._views[known] = self._view(part, None, batch_size, most)
        return self._views[known]

    def _view(self, part: Part, view: int | None, batch_size: int, most: int | None) -> tf.data.Dataset:
        rows = self.parts[part]
        if most is not None:
            rows = np.sort(np.random.default_rng((self._seed, _SOME)).permutation(rows)[:most])
        source = self._test if part == "test" else self._train
        draws = None if view is None else self._draws((view,))
        with_rows = self._with_rows(part)

        def fill(index: tf.Tensor, image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            missing = [[0, batch_size - tf.shape(label)[0]]]
            rows, image, label = with_rows(index, image, label)
            image = tf.pad(image, [*missing, [0, 0], [0, 0], [0, 0]])
            shape = (batch_size, *self._size, image.shape[-1])
            rows, label = tf.pad(rows, missing, constant_values=-1), tf.pad(label, missing)
            return tf.ensure_shape(rows, batch_size), tf.ensure_shape(image, shape), tf.ensure_shape(label, batch_size)

        return self._images(source, rows, draws, batch_size, False, fill).prefetch(2)

    def _sharded_view(self, part: Part, view: int | None, batch_size: int, shards: int) -> tf.data.Dataset:
        """`view` in the order of `sharded_rows`; a place to be filled up holds the first image again, as row -1."""
        rows = sharded_rows(len(self.parts[part]), batch_size, shards)
        source = self._test if part == "test" else self._train
        draws = None if view is None else self._draws((view,))
        order = self.parts[part][np.maximum(rows, 0)]
        shape = (batch_size, *self._size)
        places = tf.data.Dataset.from_tensor_slices(rows.reshape(-1, batch_size))

        def number(rows: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            _, image, label = batch
            return rows, tf.ensure_shape(image, (*shape, image.shape[-1])), tf.ensure_shape(label, batch_size)

        images = self._images(source, order, draws, batch_size, True, lambda *batch: batch)
        return tf.data.Dataset.zip(places, images).map(unconverted(number), **_PARALLEL).prefetch(2)

    @property
    def orderly(self) -> bool:
        """Whether training images come in any order that is asked for, which shards need."""
        return not isinstance(self._train, TfdsSplit)

    def evaluation(self, part: Part, batch_size: int, most: int | None = None) -> tf.data.Dataset:
        """Batches (image float32, label int32, weight float32) of a part (or `most` images of it) in fixed order, unaugmented.

        Every batch is full: the last one is filled up with images of weight 0, so that each example counts once on any
        number of devices.
        """
        known = part, batch_size, most
        if known not in self._evaluations:
            batches = self.view(part, None, batch_size, most)
            self._evaluations[known] = batches.map(unconverted(weighted), **_PARALLEL)
        return self._evaluations[known]

    def named_failures(self) -> AbstractContextManager[None]:
        """Turns a failure to decode into an error that names the file."""
        return naming_failures((self._train, self._test), self._data.dataset)

    def _order(self, phase: int, epoch: int, batch_size: int = 1, shards: int = 1) -> tuple["NDArray[np.int64]", int]:
        """The training examples in the order of an epoch, and a seed for sources that cannot follow it."""
        rng = np.random.default_rng((self._seed, _ORDER, phase, epoch))
        examples = self.parts["train"]
        if shards == 1:
            return rng.permutation(examples), int(rng.integers(2**31))
        steps, share = len(examples) // batch_size, batch_size // shards
        own = [rng.permutation(examples[shard::shards])[: steps * share].reshape(steps, share) for shard in range(shards)]
        return np.concatenate(own, axis=1).ravel(), int(rng.integers(2**31))

    def _draws(self, place: tuple[int, ...]) -> tf.Tensor:
        """The random numbers of one view: of a (phase, epoch), or of a numbered (view,) for the whole run."""
        return tf.constant(Draws.of(self._train.size, (self._seed, _DRAW, *place), self._data.augment).uniform)

    def _images(
        self,
        source: Split,
        order: "NDArray[np.int64]",
        draws: tf.Tensor | None,
        batch_size: int,
        full: bool,
        last: Change,
        first: int = 0,
        seed: int | None = None,
    ) -> tf.data.Dataset:
        """Batches of what `last` makes of (index, image, label), at the network's size, changed by `draws` if there are any, and
        normalised.

        Args:
            order, first, seed: see `Split.batches`.
            full: all batches are full, so that their size is known before they are read.
        """
        augment = self._data.augment

        def prepare(index: tf.Tensor, image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, ...]:
            if draws is not None:
                drawn = tf.gather(draws, index)
                if augment.random_resized_crop and source.uniform:
                    image = tf.map_fn(
                        lambda pair: random_resized_crop(pair[0], pair[1], self._size),
                        (image, drawn),
                        fn_output_signature=tf.TensorSpec((*self._size, image.shape[-1]), tf.float32),
                    )
                image = self._normalize(augment_batch(image, drawn, augment))
                image = cut_out(image, drawn, augment.cutout) if augment.cutout else image
                return last(index, *(mix(image, label, drawn) if augment.mixup else (image, label)))
            return last(index, self._normalize(image), label)

        if isinstance(source, ArraySplit):
            return source.batches(order, batch_size, full, first, seed, prepare)
        cut = self._cut(source.batches(order, batch_size, full, first, seed), draws if augment.random_resized_crop else None)
        return cut.batch(batch_size, full).map(unconverted(prepare), **_PARALLEL)

    def _cut(self, examples: tf.data.Dataset, draws: tf.Tensor | None) -> tf.data.Dataset:
        shorter = self._data.test_resize

        def cut(index: tf.Tensor, image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            if draws is not None:
                image = random_resized_crop(image, draws[index], self._size)
            elif shorter:
                image = center_cut(image, shorter, self._size)
            else:
                image = whole_image(image, self._size)
            return index, image, label

        return examples.map(unconverted(cut), **_PARALLEL)

    def _normalize(self, image: tf.Tensor) -> tf.Tensor:
        return (tf.cast(image, tf.float32) - self.mean) / self.deviation

    def _fit(self) -> tuple["NDArray[np.float32]", "NDArray[np.float32]"]:
        """Mean and deviation by channel of training images (of a fixed 10,000 when there are more)."""
        order = self.parts["train"]
        if self._data.normalize == "unit":
            return np.zeros(1, np.float32), np.full(1, 255, np.float32)
        picked = np.sort(np.random.default_rng((self._seed, _LIMIT)).permutation(order)[:FIT_EXAMPLES])
        if isinstance(self._train, ArraySplit):
            return mean_and_deviation(part for part in np.array_split(self._train.images[picked], 16) if len(part))
        with self.named_failures():
            return mean_and_deviation(image.numpy() for _, image, _ in self._cut(self._train.batches(picked, 1, False), None))


@contextmanager
def naming_failures(splits: Sequence[Split], dataset: str) -> Iterator[None]:
    """Turns a failure to decode one of the images of `splits` into an error that names the file."""
    try:
        yield
    except UNREADABLE as error:
        for source in splits:
            if isinstance(source, FileSplit) and source.fault:
                raise source.fault from None
        if isinstance(error, tf.errors.DataLossError | tf.errors.NotFoundError):
            raise DataError(f"{dataset}: the images cannot be read ({type(error).__name__}, {error.op})") from None
        raise


def read_rows(split: Split, rows: "NDArray[np.int64]", size: tuple[int, int], dataset: str) -> "NDArray[np.uint8]":
    """Some images of a split, unaugmented, at the network's size: (rows, height, width, channels).

    Args:
        rows: their indices, ascending.

    Raises:
        DataError: one of them cannot be read.
    """
    batches = split.batches(rows, READ, False)
    if not split.uniform:
        resized = unconverted(lambda index, image, label: (index, tf.cast(whole_image(image, size), tf.uint8), label))
        batches = batches.map(resized, **_PARALLEL).batch(READ)
    images = np.empty((len(rows), *size, batches.element_spec[1].shape[-1]), np.uint8)
    with naming_failures([split], dataset):
        for index, some, _ in batches.as_numpy_iterator():
            images[np.searchsorted(rows, index)] = some
    return images


def weighted(row: tf.Tensor, image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """A batch of a view as one that is evaluated: fillers have weight 0."""
    return image, label, tf.cast(row >= 0, tf.float32)
