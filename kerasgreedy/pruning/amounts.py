"""How many filters go, and which: the weakest, by a share, a number, a budget or a limit on accuracy. Imports no TensorFlow."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from kerasgreedy.errors import InputError
from kerasgreedy.pruning.groups import Coupling, Group, Place
from kerasgreedy.pruning.rewriting import without
from kerasgreedy.spec.architecture import Architecture, architecture
from kerasgreedy.spec.model import ModelSpec
from kerasgreedy.spec.pruning import Prune

# An accuracy limit is approached in steps of this share of the filters.
STEPS = 20


class AmountError(InputError):
    """An amount that cannot be reached.

    Attributes:
        key: of the recipe's section `prune` that asks for it.
    """

    def __init__(self, key: str, message: str):
        self.key, self.message = key, message
        super().__init__(f"prune.{key}: {message}")


def selectable(coupling: Coupling, targets: Collection[str], touches: Collection[str]) -> tuple[Group, ...]:
    """The groups with the items that can be removed for the sake of some components.

    Args:
        targets: blocks and heads that shall lose filters; an item counts when one of its filters is there.
        touches: blocks and heads that may lose filters with them.

    Raises:
        AmountError: a target has layers, and no filter of it can be removed alone.
    """
    chosen = []
    for group in coupling.groups:
        items = tuple(
            item
            for item in group.items
            if any(f.place[0] in targets for f in item.filters) and all(f.place[0] in touches for f in item.filters)
        )
        if items:
            chosen.append(replace(group, items=items, held=group.held + len(group.items) - len(items)))
    for target in targets:
        tied = [group for group in coupling.groups if target in group.components]
        if tied and not any(target in (f.place[0] for f in item.filters) for group in chosen for item in group.items):
            others = sorted({name for group in tied for name in group.components} - {target})
            raise AmountError(
                "components",
                f"{target}: its filters are summed with those of {', '.join(others)} and cannot be removed alone; nearest: prune "
                "them together when all are trained (kerasgreedy prune, or a strategy with one phase)",
            )
    return tuple(chosen)


class Ranking:
    """Items in the order in which they go; a smaller removal is part of every larger one.

    Args:
        groups: see `selectable`.
        scores: group name -> score of every item, larger is more important; None: any order, for counting.
        across: `layer` or `global`, see `Prune.ranking`; globally, scores have to be comparable between groups.
    """

    def __init__(
        self, coupling: Coupling, groups: Sequence[Group], scores: Mapping[str, Sequence[float]] | None, across: str = "layer"
    ):
        self.groups = groups
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

    def _can_go(self, group: Group, item: int) -> bool:
        """Whether a filter is left in every layer without it; if so, it is taken as gone."""
        loss = Counter(filter_.place for filter_ in group.items[item].filters)
        if any(self._left[place] <= count for place, count in loss.items()):
            return False
        self._left -= loss
        return True

    @property
    def most(self) -> int:
        """How many items can go."""
        return sum(map(len, self._queues))

    def share(self, gone: float) -> frozenset[int]:
        """The labels of the weakest items: this share of them, of each layer or of all together."""
        counts = [size - max(1, int((1 - gone) * size + 0.5)) for size in self._sizes]
        return self._labels(counts)

    def number(self, keep: Callable[[Group], int]) -> frozenset[int]:
        """The labels of what goes when so many filters of each group stay; those that cannot go stay too.

        Raises:
            AmountError: fewer can go.
        """
        counts = []
        for group, queue in zip(self.groups, self._queues, strict=True):
            size = len(group.items) + group.held
            count = max(0, size - keep(group))
            if count > len(queue):
                nearest = f"nearest: {size - len(queue)}"
                raise AmountError(
                    "keep", f"received {keep(group)}; only {len(queue)} of {size} filters of {group.name} can go; {nearest}"
                )
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


def choose(
    spec: ModelSpec,
    coupling: Coupling,
    ranking: Ranking,
    settings: Prune,
    progress: tuple[float, float] = (0.0, 1.0),
    depth: int | None = None,
    accuracy: Callable[[frozenset[int]], float] | None = None,
) -> frozenset[int]:
    """The labels of the filters that go in one round.

    Args:
        spec: of the network as it is, with `input_shape` and `classes`.
        progress: the share of the whole way that is done before this round and after it.
        depth: of the head that `multiply_adds` counts up to; default: the last.
        accuracy: of the network with some labels silent; needed for `accuracy_drop`.

    Raises:
        AmountError: it cannot be done; says what can.
    """
    before, after = progress
    share = settings.share_kept
    if share is not None:
        chosen = ranking.share(1 - (1 - (1 - share) * after) / (1 - (1 - share) * before))
        if not chosen and (before, after) == (0, 1):
            raise AmountError(
                _key_of(settings), f"received {share:g} to keep; no layer that is pruned is large enough to lose a filter"
            )
        return chosen
    if settings.keep is not None:
        return _to_number(ranking, int(settings.keep), before, after)
    if settings.multiply_adds is not None:
        return _to_budget(spec, coupling, ranking, settings.multiply_adds, before, after, depth or len(architecture(spec).blocks))
    assert accuracy is not None and settings.accuracy_drop is not None
    removed: frozenset[int] = frozenset()
    start = accuracy(removed)
    for step in range(1, STEPS):
        trial = ranking.share(step / STEPS)
        if accuracy(trial) < start - settings.accuracy_drop:
            break
        removed = trial
    return removed


def _key_of(settings: Prune) -> str:
    return "keep" if settings.keep is not None else "schedule"


def _to_number(ranking: Ranking, keep: int, before: float, after: float) -> frozenset[int]:
    sizes = {group.name: len(group.items) + group.held for group in ranking.groups}
    if before == 0 and all(size <= keep for size in sizes.values()):
        largest = max(sizes.values())
        raise AmountError(
            "keep", f"received {keep}; no layer that is pruned has more than {largest} filters; allowed: 1 to {largest - 1}"
        )

    def target(group: Group) -> int:
        size = sizes[group.name]
        start = keep + (size - keep) / (1 - before)  # its size before the first round
        return size if size <= keep else round(start - (start - keep) * after)

    return ranking.number(target)


def _to_budget(
    spec: ModelSpec, coupling: Coupling, ranking: Ranking, budget: float, before: float, after: float, depth: int
) -> frozenset[int]:
    def cost(removed: frozenset[int]) -> int:
        return deployed_cost(architecture(without(spec, coupling, removed)), depth)

    now = cost(frozenset())
    least = cost(ranking.share(1.0))
    start = float(now) if isinstance(budget, int) else now / (1 - (1 - budget) * before)
    end = float(budget) if isinstance(budget, int) else start * budget
    limit = now - (after - before) / (1 - before) * (now - end)
    if before == 0 and end >= now:
        raise AmountError("multiply_adds", f"received {budget:,}; it has {now:,} already; allowed: fewer")
    if end < least:
        nearest = f"{least:,} multiply-adds, {least / start:.3g} of {int(start):,}"
        raise AmountError(
            "multiply_adds", f"received {budget:g}; with one filter in every layer that is pruned there remain {nearest}"
        )
    low, high = 0, ranking.most  # the smallest removal within the limit
    while low < high:
        middle = (low + high) // 2
        if cost(ranking.share(middle / ranking.most)) <= limit:
            high = middle
        else:
            low = middle + 1
    return ranking.share(low / ranking.most)
