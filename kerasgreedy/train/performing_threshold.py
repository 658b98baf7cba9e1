"""Takes out of a network what a structured penalty has made small."""

from typing import Any

import numpy as np

from kerasgreedy.graph.architecture import architecture
from kerasgreedy.graph.coupling import Place
from kerasgreedy.graph.restructuring import Cut
from kerasgreedy.graph.shrink_steps import Rewriting, cuts, held, steps
from kerasgreedy.graph.thresholding import Thresholded, pattern, sides
from kerasgreedy.graph.tree import Node
from kerasgreedy.kernel_groups import group_count, side_left
from kerasgreedy.network.evaluation import Evaluator
from kerasgreedy.network.latency import faster_as_branches
from kerasgreedy.network.shrinking import norms_of, shrunk, thresholded_arrays
from kerasgreedy.plan.amounts import AmountError, counted_cost
from kerasgreedy.plan.threshold_plan import ThresholdAction, ThresholdEntry
from kerasgreedy.strict_json import as_json
from kerasgreedy.train.performing import Doing, Outcome, sizes, validation_scores

# Thresholds that are reported before one is chosen, and halvings of the interval in which the largest allowed one lies.
SWEEP, HALVINGS = 12, 5
NOTHING = -1.0  # below every norm
# A budget is met so nearly, or as many thresholds on both sides are tried as well.
NEAR, AROUND = 0.01, 200


def threshold(action: ThresholdAction, doing: Doing) -> Outcome:
    """Chooses tau, and removes what is at most as large."""
    return _Thresholding(action, doing).outcome()


class _Thresholding:
    def __init__(self, action: ThresholdAction, doing: Doing):
        self.action, self.network, self.spec, self._doing = action, doing.network, doing.job.spec, doing
        self.arch = doing.network.architecture
        self.depth = action.depth(self.arch)
        places = [(component, layer) for component, _, layer in (key.partition("/") for key in action.layers)]
        self.norms = norms_of(self.network, places, action.measure, action.measure.on)
        self.groups = action.measure.groups
        self.all_norms = np.unique([norm for filters in self.norms.values() for filter_ in filters for norm in filter_])
        self._evaluator = Evaluator(self.network, [self.depth], doing.strategy)
        self._looked: dict[float, float] = {}
        self._costs: dict[int, int] = {}

    def outcome(self) -> Outcome:
        action = self.action
        before = self._validation(self._evaluator)
        sweep = [self._row(tau) for tau in self._sweep()]
        tau = self._tau(before)
        found = self._pattern(tau)
        left = self._sides(found)
        changes = cuts(self.spec, found, self.groups, action.touches)
        split = self._split(changes)
        zeros = self._zeros(changes, split)
        rewritings = self._steps(found, split, zeros)
        with (
            self.network.holding(thresholded_arrays(self.network, self.spec, found, self.groups, action.touches)),
            self._doing.strategy.scope(),
        ):
            changed, spec = shrunk(self.network, self.spec, rewritings)
        after = self._validation(Evaluator(changed, [self.depth], self._doing.strategy))
        entry = ThresholdEntry(
            **sizes(action, self.network, changed, self.depth),
            tau=tau,
            target=self._target(rewritings),
            filters={"/".join(place): [len(gone), sum(left["/".join(place)].values())] for place, gone in found.gone.items()},
            sides=left,
            bodies=["/".join(place) for place in found.bodies],
            emptied=["/".join(place) for place in found.emptied],
            split=["/".join(place) for place in split],
            zeros=["/".join(place) for place in zeros],
            held=["/".join(place) for place in self._held(found)],
            zero_share=self._zero_share(),
            validation={"before": before, "after": after} if before else None,
        )
        norms = {"/".join(place): filters for place, filters in self.norms.items()}
        text = as_json({"tau": tau, "groups": self.groups, "norm": action.measure.norm, "sweep": sweep, "norms": norms})
        return Outcome(changed, spec, entry, {f"thresholds/{action.name}.json": text.encode()})

    def _pattern(self, tau: float) -> Thresholded:
        return pattern(self.arch, self.norms, tau, self.action.touches, self.action.settings.round_to)

    def _steps(self, found: Thresholded, split: list[Place], zeros: list[Place]) -> list[Rewriting]:
        return steps(self.spec, found, self.groups, self.action.touches, split, zeros)

    def _cost(self, found: Thresholded, padded: bool | None = None) -> int:
        """Multiply-adds of what a budget counts; with kernels of different sides as the settings say, or as branches."""
        padded = self.action.sizes == "padded" if padded is None else padded
        if padded and self.action.settings.sums == "placed":
            return self._left(self._steps(found, [], []))
        changes = cuts(self.spec, found, self.groups, self.action.touches)
        split = [] if padded else [place for place, (_, cut) in changes.items() if len(cut.parts) > 1]
        return self._left(self._steps(found, split, self._zeros(changes, split)))

    def _left(self, rewritings: list[Rewriting]) -> int:
        """Multiply-adds of what a budget counts, when all is rewritten."""
        return counted_cost(architecture(rewritings[-1].after) if rewritings else self.arch, self.action.counted)

    def _tau(self, before: dict[str, float] | None) -> float:
        settings = self.action.settings
        if settings.tau is not None:
            return settings.tau
        if settings.multiply_adds is not None:
            return self._for_budget(settings.multiply_adds)
        assert settings.accuracy_drop is not None and before is not None
        limit = before["top1"] - settings.accuracy_drop
        if self._accuracy(0.0) < limit:
            return NOTHING
        low, high = 0.0, None
        for tau in self._sweep():
            if self._accuracy(tau) < limit:
                high = tau
                break
            low = tau
        for _ in range(HALVINGS if high is not None else 0):
            assert high is not None
            middle = (low + high) / 2
            low, high = (middle, high) if self._accuracy(middle) >= limit else (low, middle)
        return low

    def _for_budget(self, budget: float) -> float:
        """The threshold that leaves most within the budget, of equal ones the smallest."""
        begun = counted_cost(self.arch, self.action.counted)
        limit = budget if isinstance(budget, int) else begun * budget
        if begun <= limit and self.action.of_one_block and isinstance(budget, int):
            return NOTHING  # the same number for every block: some have less from the start
        if begun <= limit:
            raise AmountError("multiply_adds", f"received {budget:,}; there are {begun:,} already; allowed: fewer", "threshold")
        least = self._cost(self._pattern(float(self.all_norms[-1])))
        if least > limit:
            share = -(-1000 * least // begun) / 1000
            message = (
                f"received {budget:,}; one filter at least stays in every layer that has no shortcut around it, and what is "
            )
            message += f"not regularised stays; nearest: {least:,} multiply-adds, {share:g} of {begun:,}"
            raise AmountError("multiply_adds", message, "threshold")
        return self._within(limit)

    def _within(self, limit: float) -> float:
        """The threshold that leaves most within a number of multiply-adds that the largest one is within."""
        low, high = 0, len(self.all_norms) - 1
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self._at(middle) <= limit else (middle + 1, high)
        if self._at(low) >= (1 - NEAR) * limit:
            return float(self.all_norms[low])
        # Costs need not fall with every threshold: multiples of `round_to`, and kernels that cannot be cropped, come and go.
        around = range(max(0, low - AROUND), min(len(self.all_norms), low + AROUND))
        within = [place for place in around if self._at(place) <= limit]
        return float(self.all_norms[max(within, key=lambda place: (self._at(place), -place))])

    def _at(self, place: int) -> int:
        """Multiply-adds that the threshold at a place among all norms leaves."""
        if place not in self._costs:
            self._costs[place] = self._cost(self._pattern(float(self.all_norms[place])))
        return self._costs[place]

    def _target(self, rewritings: list[Rewriting]) -> tuple[int, int] | None:
        budget = self.action.settings.multiply_adds
        if budget is None:
            return None
        begun = counted_cost(self.arch, self.action.counted)
        return (budget if isinstance(budget, int) else int(begun * budget)), self._left(rewritings)

    def _sweep(self) -> list[float]:
        """Thresholds from below the smallest norm that is not zero to the largest, where most happens at the quantiles."""
        above = self.all_norms[self.all_norms > 0]
        return sorted({float(tau) for tau in np.quantile(above, np.linspace(0, 1, SWEEP))}) if above.size else [0.0]

    def _row(self, tau: float) -> dict[str, Any]:
        """What a threshold would leave."""
        found = self._pattern(tau)
        left: dict[str, int] = {}
        for own in self._sides(found).values():
            for side, count in own.items():
                left[side] = left.get(side, 0) + count
        return {
            "tau": tau,
            "kernels": sum(left.values()),
            "sides": left,
            "bodies": len(found.bodies),
            "multiply_adds": (cost := self._cost(found)),
            "multiply_adds_padded": cost if self.action.sizes == "padded" else self._cost(found, padded=True),
            "accuracy": self._accuracy(tau) if len(self._doing.pipeline.parts["validation"]) else None,
        }

    def _accuracy(self, tau: float) -> float:
        """On validation data, of the thresholded network."""
        if tau not in self._looked:
            arrays = thresholded_arrays(self.network, self.spec, self._pattern(tau), self.groups, self.action.touches)
            with self.network.holding(arrays):
                scores = self._validation(self._evaluator)
            assert scores is not None
            self._looked[tau] = scores["top1"]
        return self._looked[tau]

    def _validation(self, evaluator: Evaluator) -> dict[str, float] | None:
        return validation_scores(self._doing, evaluator, self.depth)

    def _split(self, changes: dict[Place, tuple[Node, Cut]]) -> list[Place]:
        """Layers whose kernels of different sides become branches."""
        if self.action.sizes == "padded":
            return []
        chosen = []
        for place, (node, cut) in changes.items():
            if len(cut.parts) > 1:
                layer: Any = node.layer
                counts = {layer.kernel_size - part.before - part.after: len(part.filters) for part in cut.parts}
                shape = node.input_shape
                if self.action.sizes == "branches" or faster_as_branches(shape, layer.stride, counts, cut.order):
                    chosen.append(place)
        return chosen

    def _zeros(self, changes: dict[Place, tuple[Node, Cut]], split: list[Place]) -> list[Place]:
        """Layers that keep filters of zeros; of branches by side the channels have to be put in place anyway."""
        if self.action.settings.sums == "placed":
            return []
        return [place for place, (_, cut) in changes.items() if cut.has_gaps and place not in split]

    def _held(self, found: Thresholded) -> dict[Place, int]:
        return held(self.spec, found, self.groups, self.action.touches)

    def _sides(self, found: Thresholded) -> dict[str, dict[str, int]]:
        """Layer -> side -> filters that stay."""
        side, stay = sides(self.arch, found.gone), self._held(found)
        whole = {place: group_count(side[place], self.groups) for place in found.gone}
        result: dict[str, dict[str, int]] = {}
        for place, gone in found.gone.items():
            own = result.setdefault("/".join(place), {})
            if place in stay:
                own[str(side[place])] = stay[place]
                continue
            for count in sorted(count for count in gone if count < whole[place]):
                key = str(side_left(side[place], count, self.groups))
                own[key] = own.get(key, 0) + 1
        return result

    def _zero_share(self) -> float:
        """Of the places of kernels, weighted by their channels, those in groups of norm 0."""
        side, zero, total = sides(self.arch, self.norms), 0.0, 0.0
        for (component, layer), filters in self.norms.items():
            whole, size = group_count(side[component, layer], self.groups), side[component, layer]
            kernel = self.network.arrays(component)[f"{component}/{layer}/kernel"]
            each = kernel[..., 0].size
            for norms in filters:
                count = sum(norm == 0 for norm in norms)
                left = 0 if count == whole else side_left(size, count, self.groups)
                zero, total = zero + each * (1 - left**2 / size**2), total + each
        return zero / total
