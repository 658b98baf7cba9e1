"""How many filters go, and which: the weakest, by a share, a number, a budget or a limit on accuracy. Imports no TensorFlow."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from kerasgreedy.errors import PlanError
from kerasgreedy.graph.architecture import Architecture, architecture
from kerasgreedy.graph.coupling import Coupling, Group, Place
from kerasgreedy.graph.rewriting import without
from kerasgreedy.spec.model import ModelSpec
from kerasgreedy.spec.pruning_settings import Prune

# An accuracy limit is approached in steps of this share of the filters.
STEPS = 20


class AmountError(PlanError):
    """An amount that cannot be reached; `key` is the one of the recipe's section that asks for it."""

    def __init__(self, key: str, message: str, section: str = "prune"):
        super().__init__((section, key), message)


def selectable(coupling: Coupling, targets: Collection[str], touches: Collection[str], begun: bool = False) -> tuple[Group, ...]:
    """The groups that can lose items for the sake of some components.

    Args:
        targets: blocks and heads that shall lose filters; a group counts when one of its layers is there.
        touches: blocks and heads that may lose filters with them.
        begun: a round before may have taken all that a target could lose.

    Raises:
        AmountError: a target has layers, and no filter of it can be removed alone.
    """
    chosen = [
        group for group in coupling.groups if set(group.components) & set(targets) and set(group.components) <= set(touches)
    ]
    able = {item.label for group in chosen for item in group.items}
    chosen = [replace(group, held=_held(coupling, group, able)) for group in chosen]
    for target in () if begun else targets:
        tied = [group for group in coupling.groups if target in group.components]
        if tied and not any(target in group.components for group in chosen):
            others = sorted({name for group in tied for name in group.components} - {target})
            raise AmountError(
                "components",
                f"{target}: its filters are summed with those of {', '.join(others)} and cannot be removed alone; nearest: prune "
                "them together when all are trained (kerasgreedy prune, or a strategy with one phase)",
            )
    return tuple(chosen)


def _held(coupling: Coupling, group: Group, able: Collection[int]) -> int:
    """How many labels of a group's layers cannot go; of the layer with fewest."""
    return min(sum(label not in able for label in set(coupling.outputs[place])) for place in group.places)


class Ranking:
    """Items in the order in which they go; a smaller removal is part of every larger one.

    Args:
        groups: see `selectable`.
        scores: group name -> score of every item, larger is more important; None: any order, for counting.
        across: `layer` or `global`, see `Prune.ranking`; globally, scores have to be comparable between groups.
        final: no round comes after this one. Up to then two channels stay for a convolution with groups: with one it would be
            depthwise, or have no groups, and other filters would go together than in the rounds before.
    """

    def __init__(
        self,
        coupling: Coupling,
        groups: Sequence[Group],
        scores: Mapping[str, Sequence[float]] | None,
        across: str = "layer",
        final: bool = True,
    ):
        self.groups, self._across, self._scores = groups, across, scores
        self._entering = [] if final else [set(coupling.inputs[place]) for place in coupling.grouped]
        self._left: Counter[Place] = Counter({place: len(labels) for place, labels in coupling.outputs.items()})
        ranked = [
            (float(scores[group.name][i]) if scores else float(-i), number, i)
            for number, group in enumerate(groups)
            for i in range(len(group.items))
        ]
        order = [(number, i) for _, number, i in sorted(ranked) if self._can_go(groups[number], i)]
        if across == "global":
            self._queues = [order]
            self._sizes = [sum(len(group.items) for group in groups)]
        else:
            self._queues = [[entry for entry in order if entry[0] == number] for number in range(len(groups))]
            self._sizes = [len(group.items) for group in groups]
        turns = [
            ((place + 0.5) / size, entry)
            for queue, size in zip(self._queues, self._sizes, strict=True)
            for place, entry in enumerate(queue)
        ]
        self._order = [entry for _, entry in sorted(turns, key=lambda turn: turn[0])]

    def _can_go(self, group: Group, item: int) -> bool:
        """Whether a filter is left in every layer without it; if so, it is taken as gone."""
        label = group.items[item].label
        loss = Counter(filter_.place for filter_ in group.items[item].filters)
        read = [labels for labels in self._entering if label in labels]
        if any(self._left[place] <= count for place, count in loss.items()) or any(len(labels) <= 2 for labels in read):
            return False
        self._left -= loss
        for labels in read:
            labels.discard(label)
        return True

    def share(self, gone: float, start: "Start | None" = None) -> frozenset[int]:
        """The labels of the weakest items: what goes until this share is gone, of each layer or of all together.

        Args:
            start: when nothing was gone; default: as it is. Of all together, groups count that have nothing left to lose.
        """
        begun = self._sizes
        if start is not None:
            begun = [sum(start.items.values())] if self._across == "global" else [start.begun(group) for group in self.groups]
        left = [max(1, _nearest((1 - gone) * size)) for size in begun]
        return self._labels([max(0, size - stay) for size, stay in zip(self._sizes, left, strict=True)])

    def zeros(self) -> frozenset[int]:
        """The labels of the items whose score is 0 and that can go."""
        assert self._scores is not None
        idle = [(number, i) for number, i in self._order if self._scores[self.groups[number].name][i] == 0]
        return frozenset(self.groups[number].items[i].label for number, i in idle)

    @property
    def most(self) -> int:
        """How many items can go."""
        return len(self._order)

    def first(self, count: int) -> frozenset[int]:
        """The labels of so many items that go first; `layer`: the layers take turns, so that each loses about the same share."""
        return frozenset(self.groups[number].items[i].label for number, i in self._order[:count])

    def number(self, keep: Callable[[Group], int]) -> frozenset[int]:
        """The labels of what goes when so many items of each group stay, those that cannot go among them.

        Raises:
            AmountError: fewer can go.
        """
        counts = []
        for group, queue in zip(self.groups, self._queues, strict=True):
            size = len(group.items) + group.held
            count = max(0, size - keep(group))
            if count > len(queue):
                least = size - len(queue)
                raise AmountError("keep", f"{least} of the {size} filters of {group.name} cannot go; allowed: {least} or more")
            counts.append(count)
        return self._labels(counts)

    def _labels(self, counts: Sequence[int]) -> frozenset[int]:
        return frozenset(
            self.groups[number].items[i].label
            for queue, count in zip(self._queues, counts, strict=True)
            for number, i in queue[:count]
        )


def deployed_cost(arch: Architecture, depth: int) -> int:
    """Multiply-adds of an image through the blocks up to a depth and the head there."""
    return sum(block.multiply_adds for block in arch.blocks[:depth]) + arch.heads[depth - 1].multiply_adds


def deployed_parameters(arch: Architecture, depth: int) -> int:
    """Parameters of the blocks up to a depth and the head there."""
    return sum(block.parameters for block in arch.blocks[:depth]) + arch.heads[depth - 1].parameters


@dataclass(frozen=True)
class Start:
    """What there was before the first round of a removal; rounds count from there, so that they add up to what was asked for.

    Attributes:
        items: group (its `key`) -> how many could be removed.
        multiply_adds: of the components that a budget counts.
    """

    items: Mapping[str, int]
    multiply_adds: int

    @classmethod
    def of(cls, arch: Architecture, groups: Sequence[Group], counted: Sequence[str]) -> "Start":
        """Of a network as it is."""
        return cls({group.key: len(group.items) for group in groups}, counted_cost(arch, counted))

    def begun(self, group: Group) -> int:
        """How many items of a group there were."""
        return self.items[group.key if group.key in self.items else group.name]  # runs of older versions wrote the name


def counted_cost(arch: Architecture, counted: Sequence[str]) -> int:
    """Multiply-adds of an image through some components."""
    return sum(arch.components[name].multiply_adds for name in counted)


def choose(
    spec: ModelSpec,
    coupling: Coupling,
    ranking: Ranking,
    settings: Prune,
    counted: Sequence[str],
    after: float = 1.0,
    start: Start | None = None,
    accuracy: Callable[[frozenset[int]], float] | None = None,
) -> frozenset[int]:
    """The labels of the filters that go in one round; none where the amount is reached already.

    Args:
        spec: of the network as it is, with `input_shape` and `classes`.
        counted: the components whose multiply-adds a budget counts.
        after: the share of the whole way that is done after this round.
        start: before the first round; default: as it is.
        accuracy: of the network with some labels silent; needed for `accuracy_drop`.

    Raises:
        AmountError: it cannot be done; says what can.
    """
    start = start or Start.of(architecture(spec), ranking.groups, counted)
    share = settings.share_kept
    if share is not None:
        return ranking.share((1 - share) * after, start)
    if settings.keep is not None:
        return _to_number(coupling, ranking, int(settings.keep), after, start)
    if settings.multiply_adds is not None:
        return _to_budget(spec, coupling, ranking, settings.multiply_adds, after, start, counted)
    if settings.zeros:
        return ranking.zeros()
    assert accuracy is not None and settings.accuracy_drop is not None
    removed: frozenset[int] = frozenset()
    whole = accuracy(removed)
    for step in range(1, STEPS):
        trial = ranking.share(step / STEPS)
        if accuracy(trial) < whole - settings.accuracy_drop:
            break
        removed = trial
    return removed


def _to_number(coupling: Coupling, ranking: Ranking, keep: int, after: float, start: Start) -> frozenset[int]:
    sizes = {group.name: (start.begun(group) + group.held) * _filters(coupling, group) for group in ranking.groups}

    def target(group: Group) -> int:
        each, size = _filters(coupling, group), sizes[group.name]
        return math.ceil(_nearest(size - max(0, size - keep) * after) / each)

    return ranking.number(target)


def _filters(coupling: Coupling, group: Group) -> int:
    """How many filters of one layer go with each item: several in a convolution with groups."""
    return min(len(coupling.outputs[place]) // len(set(coupling.outputs[place])) for place in group.places)


def _to_budget(
    spec: ModelSpec, coupling: Coupling, ranking: Ranking, budget: float, after: float, start: Start, counted: Sequence[str]
) -> frozenset[int]:
    def cost(removed: frozenset[int]) -> int:
        return counted_cost(architecture(without(spec, coupling, removed)), counted)

    begun = start.multiply_adds
    end = budget if isinstance(budget, int) else begun * budget
    least = cost(ranking.first(ranking.most))
    if end < least:
        nearest = f"nearest: {least:,} multiply-adds, {math.ceil(1000 * least / begun) / 1000:g} of {begun:,}"
        what = ", ".join(counted) if len(counted) < 3 else f"{counted[0]} ... {counted[-1]}"
        message = (
            f"received {budget:,}; one filter at least stays in every layer, and the rest stays as it is; {nearest} in {what}"
        )
        raise AmountError("multiply_adds", message)
    limit = begun - after * (begun - end)
    low, high = 0, ranking.most  # the smallest removal within the limit
    while low < high:
        middle = (low + high) // 2
        if cost(ranking.first(middle)) <= limit:
            high = middle
        else:
            low = middle + 1
    return ranking.first(low)


def why_nothing(settings: Prune, coupling: Coupling, groups: Sequence[Group], start: Start) -> AmountError:
    """The error for an amount that removes no filter at all."""
    if isinstance(settings.keep, int):
        most = max((len(group.items) + group.held) * _filters(coupling, group) for group in groups)
        message = f"received {settings.keep}; no layer that is pruned has more than {most} filters; allowed: 1 to {most - 1}"
        return AmountError("keep", message)
    if settings.multiply_adds is not None:
        message = f"received {settings.multiply_adds:,}; there are {start.multiply_adds:,} already; allowed: fewer"
        return AmountError("multiply_adds", message)
    key = "keep" if settings.keep is not None else "schedule"
    return AmountError(key, f"a share of {settings.share_kept:g} to keep is every filter of the layers that are pruned")


def _nearest(value: float) -> int:
    """The nearest whole number, a half upwards; errors of rounding in `value` do not count."""
    return math.floor(round(value, 9) + 0.5)
