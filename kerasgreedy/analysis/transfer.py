"""`kerasgreedy transfer`: features of a run on another data set with few labels (greedy paper, section C.3, Table 8)."""

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from kerasgreedy.analysis.analysis import Analysis, Desk, Table
from kerasgreedy.analysis.separability import answers, cnn_head, features, few_shot, fit, per_class
from kerasgreedy.analysis.subject import Subject
from kerasgreedy.data.catalog import describe
from kerasgreedy.data.loaders import open_data
from kerasgreedy.data.pipeline import READ, read_rows
from kerasgreedy.errors import InputError, did_you_mean
from kerasgreedy.network.build import Network
from kerasgreedy.reports.countdown import Countdown
from kerasgreedy.reports.separability_plot import draw_transfer, splits_text, whole_words
from kerasgreedy.reports.tables import percent
from kerasgreedy.spec.analyses_of_layers import Transfer
from kerasgreedy.spec.recipe import Data

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Target:
    """The data set that features are tried on, at the size of a network.

    Attributes:
        asked: the rows that some division has, ascending.
        images: (asked rows, height, width, channels) uint8: what no division has is not read.
        labels: (n,), of all rows.
        classes: names.
        normalization: mean and deviation of the run's training images.
        splits: (rows that train, rows that test) of each division.
    """

    asked: "NDArray[np.int64]"
    images: "NDArray[np.uint8]"
    labels: "NDArray[np.int64]"
    classes: list[str]
    normalization: tuple["NDArray[np.float32]", "NDArray[np.float32]"]
    splits: list[tuple["NDArray[Any]", "NDArray[Any]"]]

    def prepared(self, rows: Any) -> "NDArray[np.float32]":
        """Some images as the network takes them."""
        mean, deviation = self.normalization
        return (self.images[np.searchsorted(self.asked, rows)].astype(np.float32) - mean) / deviation

    def chunks(self, rows: "NDArray[Any]") -> "Iterator[NDArray[np.float32]]":
        """`prepared`, of many rows, some at a time."""
        for i in range(0, len(rows), READ):
            yield self.prepared(rows[i : i + READ])

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of images and labels: what was measured on others is not taken for theirs."""
        digest = hashlib.sha256(str((self.images.shape, self.classes)).encode())
        for array in (self.images, self.labels):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def sides(self, x: "NDArray[Any]") -> "Iterator[tuple[Any, Any]]":
        """((features, labels) that train, likewise that test) of each division, of features (asked rows, d)."""
        for split in self.splits:
            train, test = ((x[np.searchsorted(self.asked, rows)], self.labels[rows]) for rows in split)
            yield train, test


class TransferAnalysis(Analysis[Transfer]):
    """Features at each depth, beside raw pixels, untrained weights, training from scratch, and tuning of the last blocks."""

    subjects: ClassVar[tuple[int, int | None]] = (1, None)

    def measure(self, subjects: Sequence[Subject], desk: Desk) -> dict[str, Any]:
        """[mean, deviation over splits] of accuracies."""
        settings = self.settings
        trained = ("scratch", "tuned") if settings.tuned_splits else ()
        each = 1 + sum(2 * subject.parts.depth + len(trained) * settings.tuned_splits for subject in subjects)
        countdown = desk.countdown("classifiers, by depth", each)
        shallow = min(subject.parts.depth for subject in subjects)
        if settings.tuned_splits and settings.tuned_blocks > shallow:
            raise InputError(
                f"--tuned-blocks: received {settings.tuned_blocks}; allowed: 1 to {shallow}, the blocks of the network"
            )
        targets = [self._target(subject) for subject in subjects]
        pixels = self._scores("pixels", desk, countdown, targets[0], _pixels, [0])[0]
        runs = []
        for number, (subject, target) in enumerate(zip(subjects, targets, strict=True)):
            network, depths = subject.parts.network, list(range(1, subject.parts.depth + 1))
            rows: list[dict[str, Any]] = [{"depth": depth} for depth in depths]
            for key, net in (("trained", network), ("untrained", Network(network.architecture, settings.seed))):
                found = self._scores(f"{number}/{key}", desk, countdown, target, partial(self._features, net, depths), depths)
                for row in rows:
                    row[key] = found[row["depth"]]
            entry: dict[str, Any] = {"name": subject.name, **subject.facts, "depths": rows}
            for key in trained:
                scores = []
                for i, split in enumerate(target.splits[: settings.tuned_splits]):
                    place = f"{target.digest}/{number}/{key}/{i}"
                    scores.append(desk.measured(place, countdown, partial(self._whole, subject, key, split, target)))
                entry[key] = _spread(scores)
            runs.append(entry)
        first = targets[0]
        about = {"classes": len(first.classes), "images": len(first.labels), "tested": len(first.splits[0][1])}
        chosen = {key: getattr(settings, key) for key in ("leave_out", "per_class", "splits", "tuned_blocks", "tuned_splits")}
        return {"dataset": settings.data, **about, **chosen, "pixels": pixels, "runs": runs}

    def tables(self, found: dict[str, Any]) -> list[Table]:
        """Table 8's form."""
        every = found["splits"]
        rows = [["raw pixels", "", _text(found["pixels"], every), ""]]
        for run in found["runs"]:
            rows += [
                [run["name"], f"layer {row['depth']}", *(_text(row[key], every) for key in ("trained", "untrained"))]
                for row in run["depths"]
            ]
            tuned = found["settings"]["tuned_splits"]
            whole = [key for key in ("scratch", "tuned") if key in run]
            rows += [[run["name"], whole_words(key, found), _text(run[key], tuned), ""] for key in whole]
        left_out = f" without {', '.join(found['leave_out'])}" if found["leave_out"] else ""
        title = (
            f"{found['dataset']}{left_out}, {found['classes']} classes: mean accuracy over classes in %, {found['per_class']} "
            f"images a class train, {found['tested']:,} test, {splits_text(found['splits'])}"
        )
        return [Table("transfer", ["network", "features", "accuracy", "with untrained weights"], rows, title)]

    def figures(self, found: dict[str, Any]) -> dict[str, Callable[[], Any]]:
        """Accuracy against depth."""
        return {"transfer": lambda: draw_transfer(found)}

    def _target(self, subject: Subject) -> Target:
        settings, parts = self.settings, subject.parts
        data = Data(dataset=settings.data, data_dir=settings.data_dir)
        info = describe(data)
        height, width, channels = parts.network.architecture.input_shape
        sources = open_data(data, info, (height, width), channels)
        every = np.concatenate([source.labels for source in sources]).astype(np.int64)
        rows, labels, classes = _without(settings.leave_out, every, info.class_names)
        splits = self._splits(labels, classes)
        asked = np.unique(np.concatenate([part for split in splits for part in split]))
        images, first = [], 0
        for source in sources:
            own = rows[asked] - first
            images.append(read_rows(source, own[(own >= 0) & (own < source.size)], (height, width), data.dataset))
            first += source.size
        fitted = np.asarray(parts.pipeline.mean, np.float32), np.asarray(parts.pipeline.deviation, np.float32)
        return Target(asked, np.concatenate(images), labels, classes, fitted, splits)

    def _splits(self, labels: "NDArray[Any]", classes: Sequence[str]) -> list[tuple["NDArray[Any]", "NDArray[Any]"]]:
        settings = self.settings
        counts = np.bincount(labels, minlength=len(classes))
        few = int(np.argmin(counts))
        if counts[few] <= settings.per_class:
            raise InputError(
                f"--per-class: received {settings.per_class}; allowed: fewer than {counts[few]}, the images that class "
                f"'{classes[few]}' of {settings.data} has, so that some are left to test"
            )
        found = []
        for number in range(settings.splits):
            order = np.random.default_rng((settings.seed, number)).permutation(len(labels))
            ranks = np.empty(len(labels), np.int64)
            for label in range(len(classes)):
                own = order[labels[order] == label]
                ranks[own] = np.arange(len(own))
            trains = order[ranks[order] < settings.per_class]
            tests = order[ranks[order] >= settings.per_class][: settings.test_examples]
            found.append((np.sort(trains), np.sort(tests)))
        return found

    def _features(self, network: Network, depths: list[int], target: Target) -> dict[int, "NDArray[Any]"]:
        parts = [features(network, depths, images, self.settings.pool) for images in target.chunks(target.asked)]
        return {depth: np.concatenate([part[depth] for part in parts]) for depth in depths}

    def _scores(
        self,
        place: str,
        desk: Desk,
        countdown: Countdown,
        target: Target,
        made: Callable[[Target], dict[int, "NDArray[Any]"]],
        depths: list[int],
    ) -> dict[int, list[Any]]:
        """Depth -> [mean, deviation, whether all converged]; features are made where something is missing."""
        flat = functools.cache(partial(made, target))
        found = {}
        for depth in depths:
            few = partial(self._few_shots, flat, depth, target)
            scores, converged = desk.measured(f"{target.digest}/{place}/{depth}", countdown, few)
            found[depth] = [*_spread(scores), converged]
        return found

    def _few_shots(self, flat: Callable[[], dict[int, "NDArray[Any]"]], depth: int, target: Target) -> list[Any]:
        """[accuracies of the divisions, whether all converged]."""
        sides = target.sides(flat()[depth])
        each = [few_shot(train, test, self.settings.components, self.settings.seed) for train, test in sides]
        return [[score["accuracy"] for score in each], all(score["converged"] for score in each)]

    def _whole(self, subject: Subject, key: str, split: Any, target: Target) -> float:
        """Accuracy of the network with a new linear head, trained from scratch or with its last blocks tuned."""
        settings, network, depth = self.settings, subject.parts.network, subject.parts.depth
        own = Network(network.architecture, settings.seed)
        first = 0
        if key == "tuned":
            first = max(0, depth - settings.tuned_blocks)
            for block in network.architecture.blocks[:depth]:
                own.load_arrays(block.name, network.arrays(block.name))
        x = images = keras.Input(own.blocks[first].input_shape[1:])
        for block in own.blocks[first:depth]:
            block.trainable = True
            x = block(x)
        model = keras.Model(images, cnn_head(x.shape[1:], len(target.classes), 0, 1, settings.seed)(x))

        def frozen(values: tf.Tensor) -> tf.Tensor:
            for block in own.blocks[:first]:
                values = block(values, training=False)
            return values

        trains, tests = split
        train = target.prepared(trains), target.labels[trains]
        fit(model, train, settings.epochs, settings.learning_rate, settings.seed, frozen)
        given = [answers(model, images, frozen) for images in target.chunks(tests)]
        return per_class(np.concatenate(given), target.labels[tests])


def _without(
    left_out: Sequence[str], labels: "NDArray[np.int64]", classes: Sequence[str]
) -> tuple["NDArray[np.int64]", "NDArray[np.int64]", list[str]]:
    """The rows that are left without some classes, their labels, numbered anew in the classes' order, and these."""
    odd = [name for name in left_out if name not in classes]
    if odd:
        raise InputError(f"--leave-out: received '{odd[0]}'; allowed: names of classes{did_you_mean(odd[0], classes)}")
    kept = [name for name in classes if name not in left_out]
    if len(kept) < 2:
        raise InputError(f"--leave-out: leaves {len(kept)} of {len(classes)} classes; allowed: two or more are left")
    numbers = np.array([kept.index(name) if name in kept else -1 for name in classes])[labels]
    rows = np.flatnonzero(numbers >= 0)
    return rows, numbers[rows], kept


def _pixels(target: Target) -> dict[int, "NDArray[Any]"]:
    images = target.prepared(target.asked)
    return {0: images.reshape(len(images), -1)}


def _spread(scores: Sequence[float]) -> list[float]:
    return [float(np.mean(scores)), float(np.std(scores))]


def _text(entry: Sequence[Any], splits: int) -> str:
    """Mean and deviation; of one split there is none."""
    late = "" if len(entry) < 3 or entry[2] else " (not converged)"
    return percent(entry[0]) + (f" ± {percent(entry[1])}" if splits > 1 else "") + late
