"""What the loop asks of the way in which a phase's problem is solved."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from kerasgreedy.inputs.feature_store import StoreFolder
from kerasgreedy.inputs.features import PhaseInput
from kerasgreedy.network.build import Network
from kerasgreedy.plan.stages import Phase
from kerasgreedy.runs.state import Extra
from kerasgreedy.solvers.step import Result
from kerasgreedy.solvers.updates import Update

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What is being done, images done, images in all.
Work: TypeAlias = tuple[str, int, int]


@dataclass(frozen=True)
class Task:
    """What a solver solves, and with what.

    Attributes:
        phase: of the plan.
        network: in the precision of the phase.
        optimizer: of the phase.
        source: what the phase reads.
        folder: for what is too large for memory.
        class_weights: (classes,) factors of the losses of training images; None: all 1.
    """

    phase: Phase
    network: Network
    optimizer: keras.optimizers.Optimizer
    strategy: tf.distribute.Strategy
    source: PhaseInput
    folder: StoreFolder
    class_weights: "NDArray[np.float32] | None" = None


@dataclass(frozen=True)
class Verdict:
    """Why a phase need not go on.

    Attributes:
        reason: for people.
        figure: what was measured, such as a duality gap.
        limit: that it had to come under.
    """

    reason: str
    figure: float
    limit: float


@dataclass(frozen=True)
class Record:
    """What is remembered of a solver in the entry of its phase; subclasses add fields that JSON can hold."""

    def as_dict(self) -> dict[str, Any]:
        """Keys of the entry."""
        return asdict(self)


class Solver(ABC):
    """Owns the epochs of a phase: reads their batches, decides when weights move, and says when it is done.

    Attributes:
        extras: name -> state that it keeps besides weights and optimiser; checkpoints hold it.
    """

    extras: Mapping[str, Extra] = {}

    @abstractmethod
    def __init__(self, task: Task) -> None: ...

    def prepare(self, epoch: int, step: int) -> Generator[Work, None, None]:
        """Gets ready for an epoch, from a step on; may be closed before it is done, and then begins anew."""
        yield from ()

    @abstractmethod
    def epoch(self, epoch: int, first_step: int, number: int) -> Iterator[Result]:
        """Trains an epoch from a step on; gives a result for each of its batches, which the loop counts as a step.

        After each result the state is whole: a checkpoint may be written, and training go on from it.

        Args:
            number: of the first step, counted from 0 in the phase.
        """

    def end(self, losses: float) -> None:
        """An epoch is done, and this was its mean training loss, summed over heads."""

    def verdict(self) -> Verdict | None:
        """Why the phase may end here, before its last epoch; None: it goes on. Follows from weights and extras alone."""
        return None

    def counts(self, epochs: int, steps: int) -> bool:
        """Whether the point after so many epochs, and steps, may be the best one of the phase."""
        return True

    def news(self) -> list[str]:
        """Lines for people about what has happened since they were last asked for."""
        return []

    def events(self, epoch: int) -> list[str]:
        """What the log notes at the start of an epoch, such as `refresh`: masks were estimated."""
        return []

    def figures(self) -> dict[str, Any]:
        """What the log says of the epoch that is done, beside losses: `penalty`, `masks`."""
        return {}

    def files(self) -> dict[str, bytes]:
        """Path below the run folder -> contents, to be kept beside the point that the phase keeps."""
        return {}

    def record(self) -> Record:
        """What is to be remembered of it when the phase is done."""
        return Record()


def penalty_of(updates: list[Update]) -> dict[str, float]:
    """The sum of the penalties with the weights of now, if there are any."""
    values = [value for update in updates if (value := update.value()) is not None]
    return {"penalty": sum(values)} if values else {}
