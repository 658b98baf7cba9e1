"""What a plan is made of: phases that train, and actions between them. Plain data; imports no TensorFlow."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

from kerasgreedy.graph.architecture import Architecture
from kerasgreedy.plan.alternation_plan import AlternationPlan
from kerasgreedy.plan.amounts import Start
from kerasgreedy.plan.caching import CachePlan
from kerasgreedy.spec.model import Head
from kerasgreedy.spec.pruning_settings import Prune
from kerasgreedy.spec.sparsity import ConstantSparsity, PolynomialDecay
from kerasgreedy.spec.training import Training


@dataclass(frozen=True)
class Phase:
    """One stage of training.

    Attributes:
        index: from 0.
        name: for people and for logs.
        trains: components whose weights move.
        frozen: components that the phase runs but does not change.
        losses: heads that have a loss; the phase minimises the sum of their losses.
        stop_gradient: no gradient passes from one block to the one before.
        training: epochs, optimiser, schedule, what is kept.
        block: index of the block that a greedy phase trains; None where a phase trains several.
        alternation: what the masks of solver `alternation` are.
        prefix: blocks before the first that trains or has a loss at its head; all of them are frozen.
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
    alternation: AlternationPlan | None = None
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
        cache = {"cache": self.cache.store} | {f"cache_{key}": value for key, value in vars(self.cache).items() if key != "store"}
        sparsity = self.sparsity.model_dump(mode="json") if self.sparsity else None
        training = self.training.model_dump(mode="json")
        more = {"training": training, "sparsity": sparsity, "alternation": self.alternation and self.alternation.as_dict()}
        return {**plain, **cache, "action": "train", "epochs": self.epochs, "solver": self.solver, **more}

    def total_multiply_adds(self, images: int) -> int:
        """Of the whole phase on so many training images, evaluation left out."""
        return images * (
            self.epochs * self.training_multiply_adds + self.cache.views * self.prefix_multiply_adds * self.cache.used
        )


@dataclass(frozen=True)
class Action(ABC):
    """Something that is done to the network between phases, at one go. Nothing trains."""

    index: int
    name: str

    kind: ClassVar[str]
    trains: ClassVar[tuple[str, ...]] = ()
    frozen: ClassVar[tuple[str, ...]] = ()
    losses: ClassVar[tuple[str, ...]] = ()
    epochs: ClassVar[int] = 0
    training_multiply_adds: ClassVar[int] = 0

    @property
    @abstractmethod
    def what(self) -> str:
        """For people."""

    def total_multiply_adds(self, images: int) -> int:
        """Too few to count."""
        return 0

    def _plain(self, **more: Any) -> dict[str, Any]:
        empty = {"trains": [], "frozen": [], "losses": [], "epochs": 0, "solver": None, "cache": "none"}
        return {"index": self.index, "name": self.name, "action": self.kind, "what": self.what, **empty, **more}


@dataclass(frozen=True)
class PruneAction(Action):
    """Removes filters.

    Attributes:
        targets: blocks and heads that shall lose filters.
        touches: blocks and heads that may lose filters with them: none that is frozen for good.
        heads: the sum of their losses is what importance is about.
        counted: components whose multiply-adds a budget counts: greedy, those that lose filters; else all that is run.
        settings: how much, and which.
        progress: the share of the way that is done before and after this round.
        start: what there was before the first round; None: it is the first.
        planned: layer -> (filters before, after), where that is known beforehand.
    """

    targets: tuple[str, ...]
    touches: tuple[str, ...]
    heads: tuple[str, ...]
    counted: tuple[str, ...]
    settings: Prune
    progress: tuple[float, float] = (0.0, 1.0)
    start: Start | None = None
    planned: tuple[tuple[str, int, int], ...] | None = None

    kind: ClassVar[str] = "prune"

    @property
    def begun(self) -> bool:
        """Whether rounds of the same removal come before this one."""
        return self.progress[0] > 0

    @property
    def final(self) -> bool:
        """Whether no round of the same removal comes after this one."""
        return self.progress[1] >= 1

    def depth(self, arch: Architecture) -> int:
        """Of the deepest head with a loss."""
        return max(depth for depth, head in enumerate(arch.heads, start=1) if head.name in self.heads)

    @property
    def what(self) -> str:
        by = f"by {self.settings.importance}"
        if self.planned is None:
            return f"filters {by}; how many, importance decides"
        changed = [f"{name} {before} -> {after}" for name, before, after in self.planned if after < before]
        more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
        return f"filters {by}: {', '.join(changed[:4]) or 'none in this round'}{more}"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        planned = None if self.planned is None else {name: [before, after] for name, before, after in self.planned}
        lists = {"targets": list(self.targets), "heads": list(self.heads), "progress": list(self.progress)}
        return self._plain(**lists, settings=self.settings.model_dump(mode="json", exclude_none=True), planned=planned)


@dataclass(frozen=True)
class HeadAction(Action):
    """Puts another, fresh head in the place of the last one.

    Attributes:
        replaces: name of the head.
        head: what comes in its place.
    """

    replaces: str
    head: Head

    kind: ClassVar[str] = "replace_head"

    @property
    def what(self) -> str:
        return f"{self.replaces} by a fresh one"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return self._plain(replaces=self.replaces, head=self.head.model_dump(mode="json", exclude_none=True))


Stage: TypeAlias = Phase | PruneAction | HeadAction
