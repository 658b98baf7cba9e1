"""Alternation between weights and support: masks are estimated, then held while the optimiser steps under them."""

import hashlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from kerasgreedy.data.distributed import unconverted
from kerasgreedy.data.memory import available_memory
from kerasgreedy.errors import InputError
from kerasgreedy.graph.supports import layout
from kerasgreedy.inputs.feature_store import FeatureStore
from kerasgreedy.inputs.features import prefix_digest, stored_rows
from kerasgreedy.nn.activations import PositiveHardThreshold
from kerasgreedy.plan.alternation_plan import AlternationPlan
from kerasgreedy.plan.caching import GIGABYTE, gigabytes
from kerasgreedy.runs.checkpoint import Arrays
from kerasgreedy.runs.devices import Devices
from kerasgreedy.runs.state import Extra
from kerasgreedy.solvers.alternation.betas import estimate_betas
from kerasgreedy.solvers.alternation.connections import used_connections
from kerasgreedy.solvers.alternation.masked_network import packed, support_file
from kerasgreedy.solvers.alternation.support import Estimated, Held, Shared, Support, drawn_places
from kerasgreedy.solvers.masks import Masks
from kerasgreedy.solvers.solver import Record, Solver, Task, Work, penalty_of
from kerasgreedy.solvers.step import Result, TrainStep, phase_logits


@dataclass(frozen=True)
class AlternationRecord(Record):
    """What alternation did in a phase.

    Attributes:
        refreshes: epochs at whose start masks were estimated.
        beta: `component/layer` -> what a unit was compared with, per example.
        pruned: share of the weights that is held at zero; None where nothing is pruned.
    """

    refreshes: list[int]
    beta: dict[str, float]
    pruned: float | None

    def as_dict(self) -> dict[str, Any]:
        return {"alternation": {key: value for key, value in vars(self).items() if value is not None}}


class AlternationSolver(Solver):
    """See `Solver`. Epochs of plain descent, then of steps under masks.

    Stored masks are a function of the weights at their refresh and of the images. A checkpoint therefore holds those weights, and
    the masks are computed from them again, bit for bit, whenever they are needed and not there.

    Plain and masked steps share the optimiser. Masks lie in the task's folder, if on disk.
    """

    def __init__(self, task: Task):
        phase, network, optimizer, strategy, source = task.phase, task.network, task.optimizer, task.strategy, task.source
        weights = task.class_weights
        assert isinstance(phase.solver_plan, AlternationPlan)
        self.plan = phase.solver_plan
        self._phase, self._network, self._source, self._folder = phase, network, source, task.folder
        self._devices = Devices.of(strategy)
        self._settings = self.plan.settings
        parts = [network.architecture.components[name] for name in phase.trains]
        self._held_dropout = self._settings.dropout == "held"
        self._units = layout(parts, self._settings.hold_pools, self._held_dropout)
        with strategy.scope():
            fixed = 0.0 if isinstance(self.plan.beta, str) else self.plan.beta
            self._betas = {key: tf.Variable(fixed, trainable=False) for key, u in self._units.items() if u.is_mask}
            # What patterns of dropout are drawn for: seed, phase, refresh, view.
            self._draws_of = tf.Variable([0, 0, 0, 0], trainable=False, dtype=tf.int32)
        self._kept = Masks(network, phase.trains, None, strategy) if self.plan.prunes else None
        kept = [self._kept] if self._kept else []
        self._plain = TrainStep(network, phase, optimizer, strategy, source.first_block, class_weights=weights)
        self._masked = TrainStep(network, phase, optimizer, strategy, source.first_block, kept, self._support, weights)
        self._stores: dict[int | None, FeatureStore] = {}
        self._estimating = tf.function(self._estimate, autograph=False)
        self.held_weights: Mapping[str, Arrays] = {}
        self._refreshes: list[int] = []
        self._news: list[str] = []
        self._best: float | None = None
        self._waited = 0
        self.extras: Mapping[str, Extra] = {"alternation": self}
        for update in self._masked.updates:
            self.extras = {**self.extras, **update.extras}
        self.masked = False

    # What the loop asks for.

    def prepare(self, epoch: int, step: int) -> Generator[Work, None, None]:
        self.masked = epoch >= self._settings.warm_up_epochs
        if not self.masked:
            return
        if self._is_due(epoch) and step == 0:
            if not self._refreshes:
                yield from self._first_masks(self._view(epoch))
            self._refreshes.append(epoch)
            self._best, self._waited = None, 0
            self._stores = {}
            if self._stored:
                self.held_weights = {name: self._network.arrays(name) for name in self._phase.trains}
        if self._stored:
            yield from self._fill(self._view(epoch))

    def news(self) -> list[str]:
        news, self._news = self._news, []
        return news

    def events(self, epoch: int) -> list[str]:
        return ["refresh"] if self._refreshes and self._refreshes[-1] == epoch else []

    def epoch(self, epoch: int, first_step: int, number: int) -> Iterator[Result]:
        for batch in self._devices.batches(self._batches(epoch, first_step)):
            yield self.step(batch, number)
            number += 1

    def step(self, batch: Sequence[Any], number: int) -> Result:
        """One step of the optimiser, under masks or, in the warm-up, without."""
        return (self._masked if self.masked else self._plain).result(batch, number)

    def _batches(self, epoch: int, first_step: int) -> tf.data.Dataset:
        if not (self.masked and self._stored):
            return self._source.training(epoch, first_step)
        bits = stored_rows(self._stores[self._view(epoch)])
        indexed = self._source.indexed(epoch, first_step, self._devices.workers)
        return indexed.map(unconverted(lambda row, x, label: (x, label, bits(row)))).prefetch(2)

    def end(self, losses: float) -> None:
        if not self.masked:
            return
        if self._best is None or losses < self._best * (1 - self._settings.min_decrease):
            self._best, self._waited = losses, 0
        else:
            self._waited += 1

    def counts(self, epochs: int, steps: int) -> bool:
        """Only with masks in force."""
        return epochs > self._settings.warm_up_epochs

    def figures(self) -> dict[str, Any]:
        return {**penalty_of(self._masked.updates), **({"masks": True} if self.masked else {})}

    def files(self) -> dict[str, bytes]:
        """The weights that stored masks in force were estimated with."""
        return {support_file(self._phase.index): packed(self.held_weights)} if self.held_weights else {}

    def record(self) -> AlternationRecord:
        betas = {key: float(beta.numpy()) for key, beta in self._betas.items()}
        return AlternationRecord(self._refreshes, betas, self._kept.sparsity() if self._kept else None)

    # What a checkpoint holds.

    def arrays(self) -> Arrays:
        state = {
            "refreshes": np.array(self._refreshes, np.int64),
            "best": np.array([] if self._best is None else [self._best], np.float64),
            "waited": np.array(self._waited),
        }
        state |= {f"beta/{key}": beta.numpy() for key, beta in self._betas.items()}
        return state | {f"weights/{name}/{key}": v for name, arrays in self.held_weights.items() for key, v in arrays.items()}

    def load_arrays(self, arrays: Arrays) -> None:
        self._refreshes = [int(epoch) for epoch in arrays["refreshes"]]
        self._best = float(arrays["best"][0]) if len(arrays["best"]) else None
        self._waited = int(arrays["waited"])
        for key, beta in self._betas.items():
            beta.assign(arrays[f"beta/{key}"])
        for name in self._phase.trains:
            prefix = f"weights/{name}/"
            found = {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
            self.held_weights = {**self.held_weights, **({name: found} if found else {})}

    # Masks.

    @property
    def _stored(self) -> bool:
        return self._settings.mode == "instance"

    def _is_due(self, epoch: int) -> bool:
        if not self._refreshes:
            return True
        held = epoch - self._refreshes[-1]
        if not self._stored or not held:
            return False
        if self._settings.refresh != "plateau":
            return held >= self._settings.refresh
        return self._waited >= self._settings.patience or held >= self._settings.hold_at_most

    def _view(self, epoch: int) -> int | None:
        """The epoch's view; some view where every epoch draws a new one, which a batch's masks allow."""
        if not self._source.augments:
            return None
        return epoch % self.plan.views if self.plan.views else 0

    def _support(self, *bits: tf.Tensor) -> Support:
        if bits:
            return Held(self._units, self._settings, bits[0])
        training = self._phase.training
        return Shared(self._units, self._settings, self._betas, training.batch_size // training.accumulation)

    def _first_masks(self, view: int | None) -> Iterator[Work]:
        """The warm-up is over: thresholds are fixed, and connections that nothing uses are pruned."""
        for name in self._phase.trains:
            for layer in self._network.component(name).layers:
                if isinstance(layer, PositiveHardThreshold):
                    layer.harden()
        if self.plan.beta == "warm_up":
            found = yield from estimate_betas(self._network, self._phase, self._units, self._settings, self._source, view)
            # Every worker has looked at the same images; rounding must not tell them apart.
            found = self._devices.from_chief({key: np.float32(value) for key, value in found.items()})
            for key, value in found.items():
                self._betas[key].assign(value)
        if self._kept:
            supports = self._support if not self._stored else lambda: Estimated(self._units, self._settings, self._betas)
            views = range(self.plan.views) if self._source.augments and self.plan.views else [view]
            used = yield from used_connections(self._network, self._phase, self._source, views, supports, not self._stored)
            used = self._devices.from_chief(used)
            self._kept.hold(used)
            self._news.append(f"{100 * self._kept.sparsity():.1f} % of the weights lie on no active path: pruned")
            self._news += [f"nothing of {key} is used: beta may be too large" for key, mask in used.items() if not mask.any()]

    def _fill(self, view: int | None) -> Iterator[Work]:
        """Estimates the masks of a view with the weights of the last refresh, if they are not there yet."""
        if view in self._stores:
            return
        file = None
        if self._on_disk():
            file = self._folder.phase(self._phase.index) / f"masks_{view}.bin"
        stamp = {"weights": self._stamp(), "view": view}
        shape = (self.plan.row_bytes,)
        store = FeatureStore(self.plan.images, shape, "uint8", file, stamp, self._devices.workers)
        if self._devices.agree(not store.filled)[0]:  # several workers walk through the batches together
            present = {name: self._network.arrays(name) for name in self.held_weights}
            self._take(self.held_weights)
            # Anew for each refresh and view, and the same when they are estimated again after a stop.
            place = self._phase.index, self._refreshes[-1], -1 if view is None else view
            self._draws_of.assign([self._network.seed & 0x7FFFFFFF, *place])
            try:
                yield from self._fill_store(store, view)
            finally:
                self._take(present)
        self._stores[view] = store

    def _fill_store(self, store: FeatureStore, view: int | None) -> Iterator[Work]:
        done = 0
        for batch in self._devices.batches(self._source.view(view, self._devices.workers)):
            outputs = self._estimating(*batch)
            for rows, bits, labels in zip(*map(self._devices.local, outputs), strict=True):
                store.put(rows.numpy(), bits.numpy(), labels.numpy())
            done = min(done + self._phase.training.batch_size, self.plan.images)
            yield "estimating masks", done, self.plan.images
        store.finish()

    def _on_disk(self) -> bool:
        """As planned; `auto` also when memory that was free at the start is not any more."""
        size = self.plan.row_bytes * self.plan.images / self._devices.workers
        if self.plan.store == "disk" or size <= available_memory():
            return self.plan.store == "disk"
        if self._settings.store == "auto" and self.plan.bytes <= self._settings.disk_gb * GIGABYTE:
            return True
        raise InputError(f"masks of {gigabytes(size)} do not fit into free memory; set training.solver.store=disk")

    def _take(self, weights: Mapping[str, Arrays]) -> None:
        for name, arrays in weights.items():
            self._network.load_arrays(name, arrays)

    def _estimate(self, *batch: Any) -> Any:
        def replica(rows: tf.Tensor, x: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            drawn = drawn_places(rows, self._draws_of.read_value()) if self._held_dropout else None
            support = Estimated(self._units, self._settings, self._betas, drawn)
            phase_logits(self._network, self._phase, x, self._source.first_block, support, training=False)
            return rows, support.bits(), labels

        return self._devices.strategy.run(replica, args=batch)

    def _stamp(self) -> str:
        """Of what masks on disk follow from."""
        digest = hashlib.sha256(self._settings.model_dump_json().encode())
        digest.update(prefix_digest(self._network, self._phase.prefix).encode())
        if self._held_dropout:
            digest.update(f"{self._network.seed} {self._refreshes[-1]}".encode())
        for name in sorted(self.held_weights):
            for key, value in sorted(self.held_weights[name].items()):
                digest.update(key.encode() + value.tobytes())
        return digest.hexdigest()
