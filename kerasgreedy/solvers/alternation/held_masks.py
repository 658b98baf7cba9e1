"""Masks that are stored for each example and held: estimated in a pass of their own, or recorded while an epoch trains."""

import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from kerasgreedy.data.distributed import unconverted
from kerasgreedy.data.memory import available_memory
from kerasgreedy.errors import InputError
from kerasgreedy.inputs.feature_store import FeatureStore
from kerasgreedy.inputs.features import prefix_digest, stored_rows
from kerasgreedy.network.walk import StartPoint
from kerasgreedy.plan.alternation_plan import AlternationPlan
from kerasgreedy.plan.caching import GIGABYTE, gigabytes
from kerasgreedy.runs.checkpoint import Arrays
from kerasgreedy.runs.devices import Devices
from kerasgreedy.runs.state import slots
from kerasgreedy.solvers.alternation.support import Estimated
from kerasgreedy.solvers.schedules import learning_rates
from kerasgreedy.solvers.solver import Task, Work
from kerasgreedy.solvers.step import Result, TrainStep, phase_logits

if TYPE_CHECKING:
    from numpy.typing import NDArray

Steps: TypeAlias = Generator[Work, None, None]
Estimates: TypeAlias = Callable[[tf.Tensor], Estimated]


class HeldMasks:
    """Masks by the weights of the last refresh, for each example of each view.

    They are a function of these weights and of the images. A checkpoint therefore holds the weights, and the masks are computed
    from them again, bit for bit, whenever they are needed and not there. They lie in the task's folder, if on disk.

    Args:
        estimates: gives what layers do while the masks of some rows are estimated.
        draws_of: what patterns of dropout are drawn for: seed, phase, refresh, view.

    Attributes:
        weights: component -> its arrays at the last refresh.
        news: lines for people.
    """

    def __init__(self, task: Task, estimates: Estimates, draws_of: tf.Variable):
        assert isinstance(task.phase.solver_plan, AlternationPlan)
        self.plan = task.phase.solver_plan
        self.weights: Mapping[str, Arrays] = {}
        self.news: list[str] = []
        self._phase, self._network, self._source, self._folder = task.phase, task.network, task.source, task.folder
        self._devices = Devices.of(task.strategy)
        self._estimates, self._draws_of = estimates, draws_of
        self._stores: dict[int | None, FeatureStore] = {}
        self._estimating = tf.function(self._estimate, autograph=False)

    def refresh(self, epoch: int) -> None:
        """From this epoch on masks are those of the weights of now."""
        self._stores = {}
        self.weights = {name: self._network.arrays(name) for name in self._phase.trains}

    def fill(self, view: int | None, refreshed: int, epoch: int, step: int) -> Steps:
        """Gets the masks of a view ready for an epoch, from a step on, if they are not there yet.

        Args:
            refreshed: the epoch of the last refresh.
        """
        if view in self._stores:
            return
        store = self._open(view, refreshed)
        if self._devices.agree(not store.filled)[0]:  # several workers walk through the batches together
            yield from self._fill_store(store, view)
        self._stores[view] = store

    def batches(self, view: int | None, epoch: int, first_step: int) -> tf.data.Dataset:
        """Batches (x, label, bits of the masks) of an epoch."""
        bits = stored_rows(self._stores[view])
        indexed = self._source.indexed(epoch, first_step, self._devices.workers)
        return indexed.map(unconverted(lambda row, x, label: (x, label, bits(row)))).prefetch(2)

    def held(self) -> Mapping[str, Arrays]:
        """What a checkpoint holds: group -> arrays."""
        return self.weights

    def load(self, held: Mapping[str, Arrays]) -> None:
        """Takes what `held` gave."""
        self.weights = {name: held[name] for name in self._phase.trains if name in held}

    def _open(self, view: int | None, refreshed: int) -> FeatureStore:
        """The store of a view, filled or not; patterns of dropout are drawn for it from here on."""
        # Anew for each refresh and view, and the same when they are estimated again after a stop.
        self._draws_of.assign([self._network.seed & 0x7FFFFFFF, self._phase.index, refreshed, -1 if view is None else view])
        file = self._folder.phase(self._phase.index) / f"masks_{view}.bin" if self._on_disk() else None
        stamp = {"weights": self._stamp(refreshed), "view": view}
        return FeatureStore(self.plan.images, (self.plan.row_bytes,), "uint8", file, stamp, self._devices.workers)

    def _fill_store(self, store: FeatureStore, view: int | None) -> Steps:
        with self._network.holding(self.weights):
            yield from self._pass(store, view, np.zeros(self.plan.images, bool))
        store.finish()

    def _pass(self, store: FeatureStore, view: int | None, there: "NDArray[np.bool_]") -> Steps:
        """Estimates the masks of all images but of those that are there."""
        done, alone = 0, self._devices.workers == 1
        for batch in self._devices.batches(self._source.view(view, self._devices.workers)):
            rows = [rows.numpy() for rows in self._devices.local(batch[0])]
            wanted = [(of >= 0) & ~there[of] for of in rows]
            if any(map(np.any, wanted)) or not alone:
                _, bits, labels = self._estimating(*batch)
                local = map(self._devices.local, (bits, labels))
                for of, want, some_bits, some_labels in zip(rows, wanted, *local, strict=True):
                    store.put(np.where(want, of, -1), some_bits.numpy(), some_labels.numpy())
            done = min(done + self._phase.training.batch_size, self.plan.images)
            yield "estimating masks", done, self.plan.images

    def _on_disk(self) -> bool:
        """As planned; `auto` also when memory that was free at the start is not any more."""
        size = self.plan.row_bytes * self.plan.images / self._devices.workers
        settings = self.plan.settings
        if self.plan.store == "disk" or size <= available_memory():
            return self.plan.store == "disk"
        if settings.store == "auto" and self.plan.bytes <= settings.disk_gb * GIGABYTE:
            return True
        raise InputError(f"masks of {gigabytes(size)} do not fit into free memory; set training.solver.store=disk")

    def _estimate(self, *batch: Any) -> Any:
        def replica(rows: tf.Tensor, x: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            support = self._estimates(rows)
            phase_logits(self._network, self._phase, x, self._source.start, support, training=False)
            return rows, support.bits(), labels

        return self._devices.strategy.run(replica, args=batch)

    def _stamp(self, refreshed: int) -> str:
        """Of what masks on disk follow from."""
        settings = self.plan.settings
        digest = hashlib.sha256(settings.model_dump_json().encode())
        digest.update(prefix_digest(self._network, StartPoint(self._phase.prefix)).encode())
        if settings.dropout == "held":
            digest.update(f"{self._network.seed} {refreshed}".encode())
        for _, arrays in sorted(self.held().items()):
            for key, value in sorted(arrays.items()):
                digest.update(key.encode() + value.tobytes())
        return digest.hexdigest()


class RecordedMasks(HeldMasks):
    """Masks of the steps of one epoch: each image's as it was when it was trained on, by the weights of that step.

    The epoch's steps run under the masks that they make, which with a ReLU and beta 0 are steps of plain descent. A remainder
    smaller than a batch, which an epoch leaves out, is estimated with the weights of its end. Where recorded masks are needed and
    not there any more, the epoch is trained again, from all that it began with, and what stands now is put back. Where settings
    of then are not those of now, it cannot be: masks are estimated with the weights that the epoch began with.

    Args:
        step: of the optimiser, which records; given (x, label, row).
    """

    def __init__(self, task: Task, estimates: Estimates, draws_of: tf.Variable, step: TrainStep):
        super().__init__(task, estimates, draws_of)
        self._step, self._optimizer = step, task.optimizer
        self._rest: Mapping[str, Arrays] = {}
        self._there = np.zeros(self.plan.images, bool)

    def refresh(self, epoch: int) -> None:
        super().refresh(epoch)
        self._rest = {"optimizer": self._present_slots(), "settings": {"digest": self._digest(epoch)}}

    def fill(self, view: int | None, refreshed: int, epoch: int, step: int) -> Steps:
        now = epoch == refreshed
        if view not in self._stores:
            store = self._open(view, refreshed)
            self._there[:] = False
            if self._devices.agree(not store.filled)[0]:
                yield from self._again(store, refreshed, step if now else None, view)
            self._stores[view] = store
        elif not now and self._devices.agree(not self._stores[view].filled)[0]:
            yield from self._complete(self._stores[view], view)  # these are the weights that the epoch ended with

    def steps(self, view: int | None, epoch: int, first_step: int, number: int) -> Iterator[Result]:
        """Trains the epoch that records, from a step on."""
        store = self._stores[view]
        indexed = self._source.indexed(epoch, first_step, self._devices.workers)
        batches = indexed.map(unconverted(lambda row, x, label: (x, label, row))).prefetch(2)
        for batch in self._devices.batches(batches):
            result = self._step.result(batch, number)
            self._put(store, batch, result)
            yield result
            number += 1

    def held(self) -> Mapping[str, Arrays]:
        return {**self.weights, **self._rest}

    def load(self, held: Mapping[str, Arrays]) -> None:
        super().load(held)
        self._rest = {group: arrays for group, arrays in held.items() if group not in self.weights}

    def _again(self, store: FeatureStore, refreshed: int, steps: int | None, view: int | None) -> Steps:
        """Trains the recorded epoch again, up to a step; None: all of it."""
        if steps == 0:
            return
        if not np.array_equal(self._rest["settings"]["digest"], self._digest(refreshed)):
            self.news.append(
                "settings have changed since masks were recorded: those that are lost are estimated in a pass instead"
            )
            if steps is None:
                yield from self._fill_store(store, view)
            return
        with self._network.holding(self.weights):
            present = self._present_slots()
            self._take_slots(self._rest["optimizer"])
            self._stores[view] = store
            try:
                for done, _ in enumerate(self.steps(view, refreshed, 0, refreshed * self._steps), start=1):
                    yield "recording masks again", done * self._phase.training.batch_size, self.plan.images
                    if done == steps:
                        break
                if steps is None:
                    yield from self._complete(store, view)
            finally:
                self._take_slots(present)
                del self._stores[view]

    def _complete(self, store: FeatureStore, view: int | None) -> Steps:
        if self._devices.workers > 1 or not self._there.all():
            yield from self._pass(store, view, self._there)
        store.finish()

    def _put(self, store: FeatureStore, batch: Sequence[Any], result: Result) -> None:
        for rows, labels, bits in zip(*map(self._devices.local, (batch[2], batch[1], result.recorded)), strict=True):
            places = rows.numpy()
            store.put(places, bits.numpy(), labels.numpy())
            self._there[places] = True

    def _present_slots(self) -> Arrays:
        return {key: keras.ops.convert_to_numpy(variable) for key, variable in slots(self._optimizer).items()}

    def _take_slots(self, optimizer: Arrays) -> None:
        for key, variable in slots(self._optimizer).items():
            variable.assign(optimizer[key])

    @property
    def _steps(self) -> int:
        """Of an epoch."""
        return self.plan.images // self._phase.training.batch_size

    def _digest(self, epoch: int) -> "NDArray[np.uint8]":
        """Of the settings that the steps of an epoch follow from: its learning rates, and all but what plans the phase."""
        training = self._phase.training
        rates = learning_rates(training.optimizer.learning_rate, training.schedule, self._phase.epochs, self._steps)
        own = training.model_dump_json(exclude={"epochs", "schedule", "keep", "monitor", "early_stopping"})
        digest = hashlib.sha256(own.encode() + rates[epoch * self._steps : (epoch + 1) * self._steps].tobytes())
        return np.frombuffer(digest.digest(), np.uint8)
