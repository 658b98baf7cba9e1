"""Alternation between weights and support: masks are estimated, then held while the optimiser steps under them."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from kerasgreedy.graph.supports import layout
from kerasgreedy.nn.activations import PositiveHardThreshold
from kerasgreedy.plan.alternation_plan import AlternationPlan
from kerasgreedy.runs.checkpoint import Arrays
from kerasgreedy.runs.devices import Devices
from kerasgreedy.runs.state import Extra
from kerasgreedy.solvers.alternation.betas import estimate_betas
from kerasgreedy.solvers.alternation.connections import heavy_weights, used_connections
from kerasgreedy.solvers.alternation.held_masks import HeldMasks, RecordedMasks
from kerasgreedy.solvers.alternation.masked_network import packed, support_file
from kerasgreedy.solvers.alternation.support import Estimated, Held, Shared, Support, drawn_places
from kerasgreedy.solvers.masks import Masks
from kerasgreedy.solvers.solver import Record, Solver, Task, Work, penalty_of
from kerasgreedy.solvers.step import Result, TrainStep


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

    Plain and masked steps share the optimiser, and what is done beside it.
    """

    def __init__(self, task: Task):
        phase, network, optimizer, strategy, source = task.phase, task.network, task.optimizer, task.strategy, task.source
        weights = task.class_weights
        assert isinstance(phase.solver_plan, AlternationPlan)
        self.plan = phase.solver_plan
        self._phase, self._network, self._source = phase, network, source
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
        common = network, phase, optimizer, strategy, source.start
        self._masked = TrainStep(*common, kept, self._support, weights)
        self._plain = TrainStep(*common, class_weights=weights, beside=self._masked)
        if self._settings.estimate == "live_epoch":
            records = TrainStep(*common, support=self._estimates, class_weights=weights, beside=self._masked, records=True)
            self.held: HeldMasks = RecordedMasks(task, self._estimates, self._draws_of, records)
        else:
            self.held = HeldMasks(task, self._estimates, self._draws_of)
        self._refreshes: list[int] = []
        self._news: list[str] = []
        self._best: float | None = None
        self._waited = 0
        self.extras: Mapping[str, Extra] = {"alternation": self}
        for update in self._masked.updates:
            self.extras = {**self.extras, **update.extras}
        self.masked = self._recording = False

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
            if self._stored:
                self.held.refresh(epoch)
        self._recording = self._records(epoch)
        if self._stored:
            yield from self.held.fill(self._view(epoch), self._refreshes[-1], epoch, step)

    def news(self) -> list[str]:
        news, self._news = [*self._news, *self.held.news], []
        self.held.news.clear()
        return news

    def events(self, epoch: int) -> list[str]:
        return ["refresh"] if self._refreshes and self._refreshes[-1] == epoch else []

    def epoch(self, epoch: int, first_step: int, number: int) -> Iterator[Result]:
        if self._recording:
            assert isinstance(self.held, RecordedMasks)
            yield from self.held.steps(self._view(epoch), epoch, first_step, number)
        else:
            for place, batch in enumerate(self._devices.batches(self._batches(epoch, first_step)), start=number):
                yield self.step(batch, place)

    def step(self, batch: Sequence[Any], number: int) -> Result:
        """One step of the optimiser, under masks or, in the warm-up, without."""
        return (self._masked if self.masked else self._plain).result(batch, number)

    def _batches(self, epoch: int, first_step: int) -> tf.data.Dataset:
        if not (self.masked and self._stored):
            return self._source.training(epoch, first_step)
        return self.held.batches(self._view(epoch), epoch, first_step)

    def end(self, losses: float) -> None:
        if not self.masked or self._recording:
            return
        if self._best is None or losses < self._best * (1 - self._settings.min_decrease):
            self._best, self._waited = losses, 0
        else:
            self._waited += 1

    def counts(self, epochs: int, steps: int) -> bool:
        """Only with masks in force in the epoch before."""
        return epochs > self._settings.warm_up_epochs and not self._records(epochs - 1)

    def figures(self) -> dict[str, Any]:
        return {**penalty_of(self._masked.updates), **({"masks": True} if self.masked and not self._recording else {})}

    def files(self) -> dict[str, bytes]:
        """The weights that stored masks in force were estimated with."""
        return {support_file(self._phase.index): packed(self.held.weights)} if self.held.weights else {}

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
        return state | {f"weights/{name}/{key}": v for name, arrays in self.held.held().items() for key, v in arrays.items()}

    def load_arrays(self, arrays: Arrays) -> None:
        self._refreshes = [int(epoch) for epoch in arrays["refreshes"]]
        self._best = float(arrays["best"][0]) if len(arrays["best"]) else None
        self._waited = int(arrays["waited"])
        for key, beta in self._betas.items():
            beta.assign(arrays[f"beta/{key}"])
        held: dict[str, dict[str, Any]] = {}
        for key, value in arrays.items():
            if key.startswith("weights/"):
                _, name, rest = key.split("/", 2)
                held.setdefault(name, {})[rest] = value
        self.held.load(held)

    # Masks.

    @property
    def _stored(self) -> bool:
        return self._settings.mode == "instance"

    def _records(self, epoch: int) -> bool:
        """Whether masks are recorded in an epoch, so that none are held."""
        return self._settings.estimate == "live_epoch" and epoch in self._refreshes

    def _is_due(self, epoch: int) -> bool:
        if not self._refreshes:
            return True
        held = epoch - self._refreshes[-1] - self._records(self._refreshes[-1])
        if not self._stored or held <= 0:
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

    def _estimates(self, rows: tf.Tensor | None = None) -> Estimated:
        """What layers do while masks are estimated."""
        drawn = drawn_places(rows, self._draws_of.read_value()) if self._held_dropout and rows is not None else None
        return Estimated(self._units, self._settings, self._betas, drawn)

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
            supports = self._support if not self._stored else self._estimates
            views = range(self.plan.views) if self._source.augments and self.plan.views else [view]
            if self.plan.weight_beta is not None:
                used = heavy_weights(self._network, self._phase, self.plan.weight_beta)
            else:
                most, batches = self.plan.prunes == "filters", not self._stored
                used = yield from used_connections(self._network, self._phase, self._source, views, supports, batches, most)
            used = self._devices.from_chief(used)
            self._kept.hold(used)
            self._news.append(f"{100 * self._kept.sparsity():.1f} % of the weights are unused (by {self.plan.prunes}): pruned")
            name = "weight_beta" if self.plan.prunes == "weights" else "beta"
            self._news += [f"nothing of {key} is used: {name} may be too large" for key, mask in used.items() if not mask.any()]
