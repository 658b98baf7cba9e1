"""What is done to a network between phases. Plain data; imports no TensorFlow."""

from abc import abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from kerasgreedy.graph.architecture import Architecture
from kerasgreedy.plan.amounts import Start
from kerasgreedy.plan.stages import SolverPlan, Stage
from kerasgreedy.spec.model import Head
from kerasgreedy.spec.pruning_settings import Prune


@dataclass(frozen=True)
class Action(Stage):
    """Something that is done to the network between phases, at one go. Nothing trains.

    Attributes:
        kind: in `plan.json` and in the entries of finished stages.
        home: `package.module:function` that does it, see `train.performing`; imported when it is done.
        looks: what it does while it goes through images, for people.
    """

    index: int
    name: str

    trains: ClassVar[tuple[str, ...]] = ()  # type: ignore[misc]
    frozen: ClassVar[tuple[str, ...]] = ()  # type: ignore[misc]
    losses: ClassVar[tuple[str, ...]] = ()  # type: ignore[misc]
    solver_plan: ClassVar[SolverPlan] = SolverPlan()  # type: ignore[misc]
    kind: ClassVar[str]
    home: ClassVar[str]
    changes_network: ClassVar[bool] = True
    looks: ClassVar[str] = "measuring importance"

    @property
    @abstractmethod
    def what(self) -> str:
        """For people."""

    def cells(self) -> list[str | int]:
        return [self.name, *["-"] * 7, self.what]

    def plain(self, **more: Any) -> dict[str, Any]:
        """What `as_dict` gives of every action, and more."""
        empty = {"trains": [], "frozen": [], "losses": [], "epochs": 0, "solver": None, "cache": "none"}
        return {"index": self.index, "name": self.name, "action": self.kind, "what": self.what, **empty, **more}


@dataclass(frozen=True)
class ActionEntry:
    """What is remembered of an action that is done.

    Attributes:
        phase: its name.
        action: its kind.
        depth: of the deepest head with a loss; sizes are those of the blocks up to it, and that head.
        parameters, multiply_adds: before and after.
    """

    phase: str
    action: str
    depth: int
    parameters: tuple[int, int]
    multiply_adds: tuple[int, int]

    def as_dict(self) -> dict[str, Any]:
        """Its entry among those of the finished stages."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {**plain, "epochs": 0, "best": None, "keep": "last"}


@dataclass(frozen=True)
class PruneEntry(ActionEntry):
    """What is remembered of a removal.

    Attributes:
        importance: by which filters were ranked.
        start: what there was before the first round.
        targets: components that shall lose filters.
        filters: layer -> (filters before, after).
        validation: scores before and after; None without validation data.
    """

    importance: str
    start: Start | None
    targets: list[str]
    filters: dict[str, list[int]]
    validation: dict[str, Any] | None


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
    home: ClassVar[str] = "kerasgreedy.train.performing:prune"

    @property
    def judged(self) -> tuple[str, ...]:
        return self.heads

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
        return self.plain(**lists, settings=self.settings.model_dump(mode="json", exclude_none=True), planned=planned)


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
    home: ClassVar[str] = "kerasgreedy.train.performing:replace_head"

    @property
    def resets(self) -> tuple[str, ...]:
        return (self.replaces,)

    @property
    def what(self) -> str:
        return f"{self.replaces} by a fresh one"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return self.plain(replaces=self.replaces, head=self.head.model_dump(mode="json", exclude_none=True))
