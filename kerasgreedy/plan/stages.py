"""What a plan is made of: stages, that is phases that train and actions between them. Plain data; imports no TensorFlow."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from kerasgreedy.plan.caching import CachePlan
from kerasgreedy.spec.sparsity import ConstantSparsity, PolynomialDecay
from kerasgreedy.spec.training import Training


class SolverPlan:
    """What a solver will do in a phase, decided beforehand; of plain descent there is nothing to say.

    Attributes:
        takes_rows: it keeps something for each training image, under the image's number.
        reads_alone: what it reads cannot be shared by several workers.
        keeps_files: it may leave files in the run folder's cache.
        ends_warm_up: thresholds that a warm-up trains are fixed by it.
    """

    takes_rows: bool = False
    reads_alone: bool = False
    keeps_files: bool = False
    ends_warm_up: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Keys of the phase in `plan.json`."""
        return {}

    def __str__(self) -> str:
        """For people; empty where there is nothing to say."""
        return ""


class Stage(ABC):
    """A phase or an action. What the methods say here holds of an action that says nothing else.

    Attributes:
        index: in the plan, from 0.
        name: for people and for logs.
        trains: components whose weights move.
        frozen: components that it runs but does not change.
        losses: heads that have a loss.
        solver_plan: what the solver will do.
        changes_network: the network has other layers afterwards.
    """

    index: int
    name: str
    trains: tuple[str, ...]
    frozen: tuple[str, ...]
    losses: tuple[str, ...]
    solver_plan: SolverPlan
    changes_network: ClassVar[bool] = False

    @property
    def epochs(self) -> int:
        return 0

    @property
    def judged(self) -> tuple[str, ...]:
        """Heads, trained before, whose loss decides what it does."""
        return ()

    @property
    def resets(self) -> tuple[str, ...]:
        """Heads that are fresh afterwards."""
        return ()

    @abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON: the stage in `plan.json`."""

    @abstractmethod
    def cells(self) -> list[str | int]:
        """Its row in the table of the plan: what trains, is frozen, has a loss; parameters, multiply-adds of an image forward
        and of its step (numbers); epochs, input, start.
        """

    def notes(self) -> list[str]:
        """Lines below that table."""
        return []

    def total_multiply_adds(self, images: int) -> int:
        """Of the whole stage on so many training images, evaluation left out; of an action too few to count."""
        return 0


@dataclass(frozen=True)
class Phase(Stage):
    """One stage of training.

    Attributes:
        losses: heads that have a loss; the phase minimises the sum of their losses.
        stop_gradient: no gradient passes from one block to the one before.
        training: epochs, optimiser, schedule, what is kept.
        block: index of the block that a greedy phase trains; None where a phase trains several.
        prefix: leading blocks that are frozen, up to the first with a loss at its head.
        cache: how the prefix's output reaches the phase.
        sparsity: kernels of what trains are pruned by this schedule over the phase's steps; None: they are dense.
        precision, prefix_precision: what trained and frozen components compute in.
        init: `fresh`; `trained`: with the weights of the phase before; or `identity`: block and head start from the previous
            ones (greedy, Prop. 3.1).
        init_reason: why `identity` was asked for and cannot be done here, else empty.
        parameters: number of weights that move.
        multiply_adds: of one image, forward, through all that the phase runs.
        prefix_multiply_adds: of them, those of the prefix.
        training_multiply_adds: of one image's step: forward, and twice as much again for what trains. A cached prefix does not
            count: it is run once for each view.
    """

    index: int
    name: str
    trains: tuple[str, ...]
    frozen: tuple[str, ...]
    losses: tuple[str, ...]
    stop_gradient: bool
    training: Training
    parameters: int
    multiply_adds: int
    prefix_multiply_adds: int
    training_multiply_adds: int
    init: str = "fresh"
    init_reason: str = ""
    block: int | None = None
    solver_plan: SolverPlan = field(default_factory=SolverPlan)
    prefix: int = 0
    cache: CachePlan = field(default_factory=CachePlan)
    sparsity: ConstantSparsity | PolynomialDecay | None = None
    precision: str = "float32"
    prefix_precision: str = "float32"

    @property
    def epochs(self) -> int:
        """Passes over the training data."""
        return self.training.epochs

    @property
    def solver(self) -> str:
        """How the phase's problem is solved."""
        return self.training.solver.name

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
        del plain["solver_plan"]
        cache = {"cache": self.cache.store} | {f"cache_{key}": value for key, value in vars(self.cache).items() if key != "store"}
        sparsity = self.sparsity.model_dump(mode="json") if self.sparsity else None
        training = self.training.model_dump(mode="json")
        more = {"training": training, "sparsity": sparsity, "alternation": None, **self.solver_plan.as_dict()}
        return {**plain, **cache, "action": "train", "epochs": self.epochs, "solver": self.solver, **more}

    def cells(self) -> list[str | int]:
        start = self.init if not self.init_reason else f"fresh ({self.init_reason})"
        costs = f"{self.parameters:,}", self.multiply_adds, self.training_multiply_adds
        names = (shortened(part) for part in (self.trains, self.frozen, self.losses))
        return [*names, *costs, str(self.epochs), str(self.cache), start]

    def notes(self) -> list[str]:
        lines, number = [], self.index + 1
        if str(self.solver_plan):
            lines.append(f"solver of phase {number}: {self.solver}, {self.solver_plan}")
        if self.sparsity:
            lines.append(f"sparsity of each kernel in phase {number}, by training steps: {self.sparsity}")
        if self.frozen:
            what = "cached" if self.cache.used else "run for each batch"
            parts = " and ".join(["frozen blocks", *self.cache.front])
            lines.append(f"{parts} of phase {number} are {what}: {self.cache.reason}")
        return lines

    def total_multiply_adds(self, images: int) -> int:
        return images * (
            self.epochs * self.training_multiply_adds + self.cache.views * self.prefix_multiply_adds * self.cache.used
        )


def phases_of(stages: Iterable[Stage]) -> list[Phase]:
    """Those that train."""
    return [stage for stage in stages if isinstance(stage, Phase)]


def shortened(names: Sequence[str], most: int = 3) -> str:
    """`block_1 ... block_8, head_8`: runs of one kind are shortened."""
    if not names:
        return "-"
    groups: list[list[str]] = []
    for name in names:
        stem = name.rpartition("_")[0]
        if groups and stem and groups[-1][0].rpartition("_")[0] == stem:
            groups[-1].append(name)
        else:
            groups.append([name])
    return ", ".join(", ".join(g) if len(g) < most else f"{g[0]} ... {g[-1]}" for g in groups)
