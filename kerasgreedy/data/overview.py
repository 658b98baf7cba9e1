"""What a data set looks like to a network: counts, figures of the pixels, and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasgreedy.data.catalog import describe, inapplicable
from kerasgreedy.data.fetch import fetch
from kerasgreedy.data.folders import TEST_SHARE, is_divided
from kerasgreedy.data.info import DataInfo
from kerasgreedy.data.loaders import open_data, without_unreadable
from kerasgreedy.data.named import kind_of
from kerasgreedy.data.pipeline import Part, Pipeline
from kerasgreedy.data.splits import ArraySplit, PictureSplit, Split, TfdsSplit
from kerasgreedy.errors import DataError, InputError
from kerasgreedy.spec.load import check, find, own_overrides
from kerasgreedy.spec.overrides import parse_override
from kerasgreedy.spec.recipe import Data, Recipe
from kerasgreedy.spec.source import Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS, VIEWS, TESTED = 8, 7, 24
# Where images differ in size and the recipe names none: large enough to see what is on them.
USUAL_SIDE = 128
# What `data show` looks through when no recipe is given: nothing is augmented. The data set is put in afterwards.
PLAIN = "name: show\ndata: {dataset: digits}\ntraining: {epochs: 1}\n"


@dataclass(frozen=True)
class Overview:
    """A data set as a recipe's data section has it.

    Attributes:
        info: its facts.
        size: height and width that the images are brought to.
        train_counts, test_counts: (classes,) images of each class in the whole splits.
        mean, deviation: (channels,) over the training images at `size`, in 0..255 (of a fixed 10,000 where there are more).
        originals: (rows, height, width, channels) training images as evaluation sees them, one of each of the first classes.
        views: (rows, `VIEWS`, height, width, channels) the same images as training sees them, before normalisation.
        view_labels: (rows,).
        tested: (n, height, width, channels) test images, and `tested_labels` (n,).
    """

    info: DataInfo
    size: tuple[int, int]
    train_counts: "NDArray[np.int64]"
    test_counts: "NDArray[np.int64]"
    mean: "NDArray[np.float32]"
    deviation: "NDArray[np.float32]"
    originals: "NDArray[np.uint8]"
    views: "NDArray[np.uint8]"
    view_labels: "NDArray[np.int32]"
    tested: "NDArray[np.uint8]"
    tested_labels: "NDArray[np.int32]"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the pictures."""
        names, info = self.info.class_names, self.info
        counts = {"train": self.train_counts, "test": self.test_counts}
        return {
            "dataset": info.dataset,
            "image_shape": list(info.image_shape),
            "shown_size": list(self.size),
            "classes": info.classes,
            "splits": {
                split: {"images": int(found.sum()), "per_class": dict(zip(names, found.tolist(), strict=True))}
                for split, found in counts.items()
            },
            "mean": [round(float(value), 3) for value in self.mean],
            "deviation": [round(float(value), 3) for value in self.deviation],
            "origin": info.origin,
            "skipped": list(info.skipped or ()),
            "passed_over": info.passed_over.counts,
        }


def recipe_for(dataset: str, recipe: str | None, overrides: Sequence[str]) -> Recipe:
    """The recipe whose data section a data set is looked at through.

    Args:
        dataset: takes the place of the recipe's.
        recipe: a file or a shipped name; None: one that augments nothing.
        overrides: `key.key=value` texts.

    Raises:
        InputError: faults of the recipe, or an override of the data set itself.
    """
    for override in map(parse_override, overrides):
        keys = override.keys[override.keys[0] == "recipe" :]
        if keys[:2] in (("data",), ("data", "dataset")):
            raise InputError(f"{override.where}: the data set is the argument of this command; allowed: data.KEY=VALUE")
    source = Source.read(find(recipe, "recipe")) if recipe else Source(PLAIN, "data show")
    value = check(Recipe, source, own_overrides(overrides, "recipe")).value
    update: dict[str, Any] = {"dataset": dataset}
    kind, place = kind_of(dataset)
    if kind == "folder" and value.data.test is None and not is_divided(place):
        update["test"] = TEST_SHARE  # as `train --data` does
    return value.model_copy(update={"data": value.data.model_copy(update=update)})


def overview(recipe: Recipe) -> Overview:
    """Opens the data set of a recipe and looks at it.

    Raises:
        DataError: it is not here, cannot be read, or the data section asks for what it cannot do.
    """
    data = recipe.data
    fetch(data)
    info = describe(data)
    unfit = inapplicable(data, info.dataset)
    if unfit:
        raise DataError(f"data.{unfit[0]}: {unfit[1]}")
    wanted = [data.image_size] * 2 if isinstance(data.image_size, int) else data.image_size
    height, width = wanted or info.image_shape[:2]
    size, channels = (height or USUAL_SIDE, width or USUAL_SIDE), info.image_shape[2]
    if data.corrupt == "skip":
        info = describe(data, without_unreadable(data, channels))
    train, test = open_data(data, info, size, channels)
    # Figures of the pixels are wanted however the recipe normalises, and of all training images.
    whole = data.model_copy(update={"normalize": "per_channel", "validation": 0, "train_examples": None, "test_examples": None})
    pipeline = Pipeline(train, test, whole, size, recipe.seed)
    with pipeline.named_failures():
        rows = _spread(train, ROWS)
        tests = _spread(test, TESTED)
        return Overview(
            info,
            size,
            np.bincount(train.labels, minlength=info.classes),
            np.bincount(test.labels, minlength=info.classes),
            pipeline.mean,
            pipeline.deviation,
            _pictures(pipeline, "train", rows),
            np.stack([_views(pipeline, whole, size, _copies(train, index), recipe.seed + index) for index in rows]),
            train.labels[rows],
            _pictures(pipeline, "test", tests),
            test.labels[tests],
        )


def _spread(split: Split, count: int) -> "NDArray[np.int64]":
    """Indices of at most `count` examples, as many of each class as can be, of classes from first to last; by class."""
    # A streamed TFDS split is shuffled already, and is read only as far as the last wanted example.
    by_chance = np.arange(split.size) if isinstance(split, TfdsSplit) else np.random.default_rng(0).permutation(split.size)
    labels = split.labels[by_chance]
    present = np.unique(labels)
    chosen = present[np.linspace(0, len(present) - 1, min(count, len(present))).round().astype(int)]
    queues = [by_chance[labels == label] for label in chosen]
    taken = [queue[turn] for turn in range(count) for queue in queues if turn < len(queue)]
    return np.array(sorted(taken[:count], key=lambda index: (split.labels[index], index)), np.int64)


def _pictures(pipeline: Pipeline, part: Part, indices: "NDArray[np.int64]") -> "NDArray[np.uint8]":
    """Images as evaluation sees them, in the order of `indices`."""
    ascending = np.sort(indices)
    pipeline.parts[part] = ascending  # batches come in ascending order
    (batch,) = [image for image, _, _ in pipeline.evaluation(part, len(indices))]
    return _shades(pipeline, batch.numpy())[np.searchsorted(ascending, indices)]


def _views(pipeline: Pipeline, data: Data, size: tuple[int, int], copies: Split, seed: int) -> "NDArray[np.uint8]":
    """One image as training sees it, as often as there are copies of it; the seed decides how it is changed."""
    alone = Pipeline(copies, copies, data, size, seed, (pipeline.mean.tolist(), pipeline.deviation.tolist()))
    (batch,) = [image for image, *_ in alone.training(0, 0, copies.size)]
    return _shades(alone, batch.numpy())


def _shades(pipeline: Pipeline, batch: "NDArray[np.float32]") -> "NDArray[np.uint8]":
    """What normalisation was made of."""
    return np.round(batch * pipeline.deviation + pipeline.mean).clip(0, 255).astype(np.uint8)


def _copies(split: Split, index: int) -> Split:
    """One example, `VIEWS` times."""
    label = np.full(VIEWS, split.labels[index])
    if isinstance(split, ArraySplit):
        return ArraySplit(np.repeat(split.images[index : index + 1], VIEWS, axis=0), label)
    (image,) = [image.numpy() for _, image, _ in split.batches(np.array([index]), 1, drop_remainder=True)]
    return PictureSplit([image] * VIEWS, label)
