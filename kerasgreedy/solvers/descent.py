"""Plain descent: the optimiser's steps, with kernels held at zero where the phase prunes them."""

from collections.abc import Iterator
from typing import Any

from kerasgreedy.runs.devices import Devices
from kerasgreedy.solvers.masks import Masks
from kerasgreedy.solvers.solver import Solver, Task, penalty_of
from kerasgreedy.solvers.step import Result, TrainStep


class DescentSolver(Solver):
    """See `Solver`."""

    def __init__(self, task: Task):
        phase, network, strategy = task.phase, task.network, task.strategy
        masks = [Masks(network, phase.trains, phase.sparsity, strategy)] if phase.sparsity else []
        self._source, self._devices, self._sparsity = task.source, Devices.of(strategy), phase.sparsity
        self.step = TrainStep(network, phase, task.optimizer, strategy, task.source.first_block, masks)
        self.extras = {name: extra for update in self.step.updates for name, extra in update.extras.items()}

    def epoch(self, epoch: int, first_step: int, number: int) -> Iterator[Result]:
        for batch in self.batches(epoch, first_step):
            yield self.step.result(batch, number)
            number += 1

    def batches(self, epoch: int, first_step: int) -> Iterator[Any]:
        """Batches (x, labels) of an epoch from a step on, shared out to the devices."""
        return iter(self._devices.batches(self._source.training(epoch, first_step)))

    def counts(self, epochs: int, steps: int) -> bool:
        """Only with the final sparsity in force."""
        return self._sparsity is None or steps > self._sparsity.last_change

    def figures(self) -> dict[str, Any]:
        return penalty_of(self.step.updates)
