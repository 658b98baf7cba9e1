"""Plain descent: the optimiser's steps, kernels held at zero where the phase prunes them; and the mean of the last points."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from kerasgreedy.runs.checkpoint import Arrays
from kerasgreedy.runs.devices import Devices
from kerasgreedy.solvers.masks import Masks
from kerasgreedy.solvers.solver import Solver, Task, penalty_of
from kerasgreedy.solvers.sparsity_figures import sparsity_of
from kerasgreedy.solvers.step import Result, TrainStep
from kerasgreedy.spec.solver_settings import Averaged


class DescentSolver(Solver):
    """See `Solver`."""

    def __init__(self, task: Task):
        phase, network, strategy = task.phase, task.network, task.strategy
        masks = [Masks(network, phase.trains, phase.sparsity, strategy)] if phase.sparsity else []
        self._phase, self._network = phase, network
        self._source, self._devices, self._sparsity = task.source, Devices.of(strategy), phase.sparsity
        self._steps = len(task.source) // phase.training.batch_size
        self.step = TrainStep(
            network, phase, task.optimizer, strategy, task.source.start, masks, class_weights=task.class_weights
        )
        self.extras = {name: extra for update in self.step.updates for name, extra in update.extras.items()}

    def epoch(self, epoch: int, first_step: int, number: int) -> Iterator[Result]:
        for place, batch in enumerate(self.batches(epoch, first_step), start=first_step + 1):
            result = self.step.result(batch, number)
            number += 1
            if place == self._steps:
                for update in self.step.updates:
                    update.finish()
            self.done(number)
            yield result

    def done(self, number: int) -> None:
        """So many steps of the phase are done."""

    def batches(self, epoch: int, first_step: int) -> Iterator[Any]:
        """Batches (x, labels) of an epoch from a step on, shared out to the devices."""
        return iter(self._devices.batches(self._source.training(epoch, first_step)))

    def counts(self, epochs: int, steps: int) -> bool:
        """Only with the final sparsity in force."""
        return self._sparsity is None or steps > self._sparsity.last_change

    def figures(self) -> dict[str, Any]:
        return {**penalty_of(self.step.updates), **sparsity_of(self._phase, self._network)}


class AveragedSolver(DescentSolver):
    """Descent whose last point is the mean of those of its last steps (Polyak and Juditsky 1992), added up in float64.

    Of convex sets that points are projected onto, the mean is a member too.
    """

    def __init__(self, task: Task):
        super().__init__(task)
        settings, epochs = task.phase.training.solver, task.phase.training.epochs
        assert isinstance(settings, Averaged)
        self._every, self._last = settings.every, epochs * self._steps
        self._first = max(0, self._last - settings.steps)
        self._sums = {f"{place:04d}": np.zeros(variable.shape) for place, variable in enumerate(self.step.variables)}
        self._count = 0
        self.extras = {**self.extras, "average": self}

    def done(self, number: int) -> None:
        """Adds a point, and after the last step puts the mean in its place."""
        if number > self._first and number % self._every == 0:
            self._count += 1
            for total, variable in zip(self._sums.values(), self.step.variables, strict=True):
                total += keras.ops.convert_to_numpy(variable)
        if number == self._last and self._count:
            for total, variable in zip(self._sums.values(), self.step.variables, strict=True):
                variable.assign((total / self._count).astype(np.float32))

    def arrays(self) -> Arrays:
        """Sums and how many points are in them."""
        return {**self._sums, "count": np.array(self._count), "first": np.array(self._first)}

    def load_arrays(self, arrays: Arrays) -> None:
        """Sets them."""
        if int(arrays["first"]) != self._first:
            return  # the phase has another length now, and other points are its last
        self._count = int(arrays["count"])
        self._sums = {key: np.array(arrays[key], np.float64) for key in self._sums}
