"""Where a phase reads its input: images through the frozen prefix, or the prefix's output, kept."""

import functools
import hashlib
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import tensorflow as tf

from kerasgreedy.data.distributed import unconverted
from kerasgreedy.data.memory import available_memory
from kerasgreedy.data.parts import sharded_rows
from kerasgreedy.data.pipeline import Part, Pipeline, weighted
from kerasgreedy.data.splits import Change
from kerasgreedy.inputs.feature_store import FeatureStore, StoreFolder
from kerasgreedy.network.build import Network
from kerasgreedy.network.walk import IMAGES, StartPoint
from kerasgreedy.plan.caching import GIGABYTE, gigabytes
from kerasgreedy.plan.stages import Phase
from kerasgreedy.runs.devices import Devices
from kerasgreedy.spec.recipe import Cache

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A part of the data in one of its views; None: unaugmented.
Key: TypeAlias = tuple[Part, int | None]


class StaleFeatures(RuntimeError):
    """Features are asked for that other blocks than those of now have made: a fault of the program."""


def prefix_digest(network: Network, start: StartPoint) -> str:
    """A digest of all that what a computation starts from follows from: layers, weights and precision."""
    digest = hashlib.sha256(repr(network.architecture.input_shape).encode())
    for block in network.architecture.blocks[: start.block]:
        digest.update(f"{block.nodes} {network.precision(block.name)}".encode())
        for key, value in sorted(network.arrays(block.name).items()):
            digest.update(f"{key} {value.dtype} {value.shape}".encode() + value.tobytes())
    for key in start.layers:
        name = key.partition("/")[0]
        digest.update(f"{network.architecture.node(key)} {network.precision(name)}".encode())
        for variable, value in sorted(network.arrays(name).items()):
            if variable.startswith(f"{key}/"):
                digest.update(f"{variable} {value.dtype} {value.shape}".encode() + value.tobytes())
    return digest.hexdigest()


class PhaseInput(Protocol):
    """What a phase trains and is evaluated on.

    Attributes:
        start: what the batches hold.
        augments: whether training images are changed, so that they have views.
    """

    start: StartPoint
    augments: bool

    def __len__(self) -> int:
        """Training images."""

    def indexed(self, epoch: int, first_step: int, shards: int = 1) -> tf.data.Dataset:
        """Those of `training` as (row, x, label); a row is an example's place in the training part.

        Args:
            shards: see `Pipeline.indexed`.
        """

    def view(self, view: int | None, shards: int = 1) -> tf.data.Dataset:
        """Full batches (row, x, label) of the training part in a fixed order, in one of its views; fillers have row -1."""

    def training(self, epoch: int, first_step: int) -> tf.data.Dataset:
        """Batches (x, label) of one epoch, from a step on."""

    def evaluation(self, part: Part) -> tf.data.Dataset:
        """Full batches (x, label, weight) of a part, unaugmented; fillers have weight 0."""


class ImageInput:
    """Images; every batch goes through the frozen prefix."""

    start = IMAGES

    def __init__(self, phase: Phase, pipeline: Pipeline):
        self._phase, self._pipeline = phase, pipeline
        self.augments = pipeline.augments
        self._evaluations: dict[Part, tf.data.Dataset] = {}  # the same each time: what they are made by is traced once

    def __len__(self) -> int:
        return len(self._pipeline.parts["train"])

    def training(self, epoch: int, first_step: int) -> tf.data.Dataset:
        return self._pipeline.training(self._phase.index, epoch, self._phase.training.batch_size, first_step)

    def indexed(self, epoch: int, first_step: int, shards: int = 1) -> tf.data.Dataset:
        return self._pipeline.indexed(self._phase.index, epoch, self._phase.training.batch_size, first_step, shards)

    def view(self, view: int | None, shards: int = 1) -> tf.data.Dataset:
        return self._pipeline.view("train", view, self._phase.training.batch_size, shards=shards)

    def evaluation(self, part: Part) -> tf.data.Dataset:
        if part not in self._evaluations:
            self._evaluations[part] = self._pipeline.evaluation(part, self._phase.training.batch_size)
        return self._evaluations[part]


class FeatureInput:
    """The output of the frozen prefix, and of fixed layers at the start of the head on it, computed once for each view.

    Order, views and labels are those of `ImageInput`, so the same weights come out: bit for bit when the features are kept in the
    type that the prefix computes in. (A TFDS set too large for memory comes in the order of a shuffle buffer without the cache,
    in a random order of all examples with it.)

    Each worker of several computes and keeps its own share of the examples, and trains on these only; see `Pipeline.indexed`.

    Features belong to the blocks that made them: every store carries their digest, and nothing is read from one whose digest is
    not that of the blocks as they are.

    Args:
        phase: with a cache in its plan.
        network: in the precisions of the phase.
        folder: for a cache on disk; a file of it that is whole and was made from the same weights is used again.

    Raises:
        OSError, MemoryError: there is no room.
    """

    def __init__(self, phase: Phase, network: Network, pipeline: Pipeline, devices: Devices, folder: StoreFolder):
        self.start, self.cache = StartPoint(phase.prefix, phase.cache.front), phase.cache
        self._phase, self._network, self._pipeline, self._devices = phase, network, pipeline, devices
        self._folder = folder
        self.augments = pipeline.augments
        self._stores: dict[Key, FeatureStore] = {}
        self._forwards: dict[int, Callable[..., Any]] = {}
        self._evaluations: dict[Part, tf.data.Dataset] = {}  # the same each time: what they are made by is traced once

    @property
    def phase_index(self) -> int:
        """Of the phase that reads it."""
        return self._phase.index

    def fits_beside(self, phase: Phase, limits: Cache) -> bool:
        """Whether these features and those of a later phase stay within the limits together."""
        if self.cache.store != phase.cache.store:
            return True
        limit = limits.memory_gb if self.cache.store == "memory" else limits.disk_gb
        return self.cache.bytes + phase.cache.bytes <= limit * GIGABYTE

    def open(self, epochs: range, parts: list[Part]) -> None:
        """Makes room for all that these epochs and the evaluation of these parts will read."""
        shards = self._devices.workers
        if self.cache.store == "memory" and self.cache.bytes / shards > available_memory():
            raise MemoryError(f"{gigabytes(self.cache.bytes / shards)} of memory are not free")
        prefix, shape = prefix_digest(self._network, self.start), self._shape()
        keys: list[Key] = [("train", self._view(epoch)) for epoch in epochs]
        for key in dict.fromkeys([*keys, *((part, None) for part in parts)]):
            part, view = key
            file = self._folder.phase(self._phase.index) / f"{part}_{view}.bin" if self.cache.store == "disk" else None
            stamp = {"prefix": prefix, "pixels": self._pixels(), "part": part, "view": view}
            examples = len(self._pipeline.parts[part])
            self._stores[key] = FeatureStore(examples, shape, self.cache.dtype, file, stamp, shards)

    @property
    def faults(self) -> list[str]:
        """A line for each file of an earlier attempt that cannot be used again."""
        return [store.fault for store in self._stores.values() if store.fault]

    def fill(self, before: "FeatureInput | None") -> Iterator[tuple[int, int]]:
        """Computes what is not there yet; yields (images done, images in all) after each batch.

        Args:
            before: the features of an earlier phase, from which fewer blocks have to be run.
        """
        # A file that only some workers still have is computed on all: they walk through the batches together.
        absent = self._devices.agree(*(not store.filled for store in self._stores.values()))
        missing = {key: store for (key, store), flag in zip(self._stores.items(), absent, strict=True) if flag}
        total, done = sum(map(len, missing.values())), 0
        for key, store in missing.items():
            chained = before is not None and before.leads_to(self.start) and before.holds(key, self._network)
            first = before.start.block if before and chained else 0
            shards = self._devices.workers
            images = functools.partial(self._pipeline.view, *key, self._batch_size, shards=shards)
            batches = before._in_order(key) if before and chained else images()
            forward = self._forward(first)
            for batch in self._devices.batches(batches):
                outputs = forward(*batch)
                for rows, features, labels in zip(*map(self._devices.local, outputs), strict=True):
                    store.put(rows.numpy(), features.numpy(), labels.numpy())
                done = min(done + self._batch_size, total)
                yield done, total
            store.finish()

    def close(self) -> None:
        """Gives the features back now: whoever has read them may be there still, until the next garbage collection."""
        self._stores.clear()

    def holds(self, key: Key, network: Network) -> bool:
        """Whether there are features of a part and view that the first blocks of a network, as they are, have made."""
        return key in self._stores and self._stores[key].stamp["prefix"] == prefix_digest(network, self.start)

    def leads_to(self, start: StartPoint) -> bool:
        """Whether a computation that starts there can be gone on with from these features, with the same rounding."""
        return not self.start.layers and self.start.block + bool(start.layers) <= start.block

    def _store(self, key: Key) -> FeatureStore:
        """All features are read from what this gives.

        Raises:
            StaleFeatures: the blocks have changed since.
        """
        if not self.holds(key, self._network):
            raise StaleFeatures(f"phase {self._phase.name}: the features of {key} were made by other blocks")
        return self._stores[key]

    def __len__(self) -> int:
        return len(self._pipeline.parts["train"])

    def training(self, epoch: int, first_step: int) -> tf.data.Dataset:
        return self._epoch(epoch, first_step, lambda _, x, label: (x, label)).prefetch(1)

    def indexed(self, epoch: int, first_step: int, shards: int = 1) -> tf.data.Dataset:
        return self._epoch(epoch, first_step, lambda *batch: batch)

    def _epoch(self, epoch: int, first_step: int, last: Change) -> tf.data.Dataset:
        store = self._store(("train", self._view(epoch)))
        rows = self._pipeline.rows(self._phase.index, epoch, self._batch_size, self._devices.workers)
        return stored_batches(store, rows[first_step * self._batch_size :], self._batch_size, last)

    def view(self, view: int | None, shards: int = 1) -> tf.data.Dataset:
        return self._in_order(("train", view))

    def evaluation(self, part: Part) -> tf.data.Dataset:
        store = self._store((part, None))
        if part not in self._evaluations:
            self._evaluations[part] = self._all_of(store, weighted).prefetch(1)
        return self._evaluations[part]

    @property
    def _batch_size(self) -> int:
        return self._phase.training.batch_size

    def _view(self, epoch: int) -> int | None:
        return epoch % self.cache.views if self.augments else None

    def _in_order(self, key: Key) -> tf.data.Dataset:
        """Full batches (row, features, label); the last one is filled up with row -1."""
        return self._all_of(self._store(key), lambda *batch: batch)

    def _all_of(self, store: FeatureStore, last: Change) -> tf.data.Dataset:
        rows = sharded_rows(len(store), self._batch_size, self._devices.workers)
        return stored_batches(store, rows, self._batch_size, last)

    def _shape(self) -> tuple[int, ...]:
        """Of one example's features."""
        arch = self._network.architecture
        layers = self.start.layers
        return arch.node(layers[-1]).output_shape if layers else arch.blocks[self.start.block - 1].output_shape

    def _forward(self, first: int) -> Callable[..., Any]:
        """(rows, x, labels) -> (rows, output of the prefix as it is stored, labels), x being the input of block `first`.

        The output is rounded after each block, so that it does not matter where a computation started.
        """
        if first in self._forwards:  # one trace serves all views
            return self._forwards[first]
        dtype = tf.as_dtype(self.cache.dtype)
        network, start = self._network, self.start

        def replica(rows: tf.Tensor, x: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            x = tf.cast(network.begin(start, x, first, lambda x: tf.cast(x, dtype)), dtype)
            return rows, x if dtype == tf.float32 else tf.bitcast(x, tf.uint16), labels

        strategy = self._devices.strategy  # not `self`: a cycle would keep the features until the next garbage collection
        self._forwards[first] = tf.function(lambda *batch: strategy.run(replica, args=batch), autograph=False)
        return self._forwards[first]

    def _pixels(self) -> str:
        """Of what the images are normalised with."""
        return hashlib.sha256(b"".join(part.tobytes() for part in (self._pipeline.mean, self._pipeline.deviation))).hexdigest()


def stored_batches(store: FeatureStore, rows: "NDArray[np.int64]", batch_size: int, last: Change) -> tf.data.Dataset:
    """Full batches of what `last` makes of (row, features, label) of a store, in the order of `rows`; row -1 gives any."""
    labels, features, shards = tf.constant(store.labels), stored_rows(store), store.shards

    def read(index: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return last(index, features(index), tf.gather(labels, tf.maximum(index, 0) // shards))

    return tf.data.Dataset.from_tensor_slices(rows).batch(batch_size, drop_remainder=True).map(unconverted(read))


def stored_rows(store: FeatureStore) -> Callable[[tf.Tensor], tf.Tensor]:
    """Rows (b,) to their features (b, ...), for the map of a data set."""
    kept_in, dtype, shape = tf.as_dtype(store.item), tf.as_dtype(store.dtype), store.shape
    # TensorFlow keeps a Python function that a data set calls for as long as the process lives; the store must not stay with it.
    stored = weakref.ref(store)

    def take(index: "NDArray[np.int64]") -> "NDArray[Any]":
        kept = stored()
        assert kept is not None, "the batches outlived their store"
        return kept.take(index)

    def read(index: tf.Tensor) -> tf.Tensor:
        x = tf.ensure_shape(tf.numpy_function(take, [index], kept_in), (index.shape[0], *shape))
        return x if kept_in == dtype else tf.bitcast(x, dtype)

    return read
