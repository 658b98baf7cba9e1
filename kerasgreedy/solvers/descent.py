"""Plain descent: the optimiser's steps, with kernels held at zero where the phase prunes them."""

from collections.abc import Generator, Mapping
from typing import Any, Protocol, TypeAlias

import keras
import tensorflow as tf

from kerasgreedy.inputs.features import PhaseInput
from kerasgreedy.network.build import Network
from kerasgreedy.plan.stages import Phase
from kerasgreedy.runs.checkpoint import Arrays
from kerasgreedy.runs.state import Extra
from kerasgreedy.solvers.masks import Masks
from kerasgreedy.solvers.step import Sums, TrainStep

# What is being done, images done, images in all.
Work: TypeAlias = tuple[str, int, int]


class Solver(Protocol):
    """What the loop asks of the way in which a phase's problem is solved.

    Attributes:
        extras: what it keeps besides weights and optimiser.
        warm: a step has run since the graph last changed; for those who time steps.
        masked: the running epoch's steps are those of a masked network.
        held_weights: component -> its weights as they were when stored masks were last estimated.
    """

    extras: Mapping[str, Extra]
    warm: bool
    masked: bool
    held_weights: Mapping[str, Arrays]

    def begin(self, epoch: int, step: int) -> Generator[Work, None, None]:
        """Gets ready for an epoch, from a step on; may be closed before it is done, and then begins anew."""

    def news(self) -> list[str]:
        """Lines for people about what `begin` found."""

    def refreshed(self, epoch: int) -> bool:
        """Whether masks were estimated at the start of this epoch."""

    def batches(self, epoch: int, first_step: int) -> tf.data.Dataset:
        """What `step` takes, from a step of an epoch on."""

    def step(self, batch: tuple[Any, ...], number: int) -> Sums:
        """One update; `number` counts the phase's steps from 0."""

    def end(self, losses: float) -> None:
        """An epoch is done, and this was its mean training loss, summed over heads."""

    def entry(self) -> dict[str, Any]:
        """What is to be remembered of it when the phase is done."""


class Descent:
    """See `Solver`.

    Args:
        network: in the precision of the phase.
        optimizer: of the phase.
    """

    masked = False
    held_weights: Mapping[str, Arrays] = {}

    def __init__(
        self,
        phase: Phase,
        network: Network,
        optimizer: keras.optimizers.Optimizer,
        strategy: tf.distribute.Strategy,
        source: PhaseInput,
    ):
        self._masks = Masks(network, phase.trains, phase.sparsity, strategy) if phase.sparsity else None
        self._source = source
        self._step = TrainStep(network, phase, optimizer, strategy, source.first_block, self._masks)
        self.extras: Mapping[str, Extra] = {"masks": self._masks} if self._masks else {}
        self.warm = False

    def begin(self, epoch: int, step: int) -> Generator[Work, None, None]:
        yield from ()

    def news(self) -> list[str]:
        return []

    def refreshed(self, epoch: int) -> bool:
        return False

    def batches(self, epoch: int, first_step: int) -> tf.data.Dataset:
        return self._source.training(epoch, first_step)

    def step(self, batch: tuple[Any, ...], number: int) -> Sums:
        if self._masks:
            self._masks.refresh(number)
        sums = self._step(*batch)
        self.warm = True
        return sums

    def end(self, losses: float) -> None:
        pass

    def entry(self) -> dict[str, Any]:
        return {}
