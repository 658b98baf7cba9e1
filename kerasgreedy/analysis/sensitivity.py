"""Accuracy of a trained network against the filters that are taken out, component by component, without fine-tuning."""

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kerasgreedy.data.arrays import ImageArrays
from kerasgreedy.data.pipeline import Part, Pipeline
from kerasgreedy.errors import InputError, did_you_mean
from kerasgreedy.graph.architecture import architecture
from kerasgreedy.graph.coupling import Coupling, Group, find_coupling
from kerasgreedy.graph.rewriting import without
from kerasgreedy.network.build import FLOAT32, Network
from kerasgreedy.network.evaluation import Evaluator, Scores
from kerasgreedy.network.surgery import silenced
from kerasgreedy.plan.amounts import AmountError, Ranking, deployed_cost, deployed_parameters, selectable
from kerasgreedy.plan.batch_sizes import whole_shares
from kerasgreedy.pruning.importance import importance, normalized
from kerasgreedy.runs.devices import own_devices
from kerasgreedy.runs.open_run import open_job, open_pipeline, trained_network
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.spec.model import ModelSpec
from kerasgreedy.spec.pruning_settings import IMPORTANCES

# The name of the curve on which all components lose filters together.
ALL = "all"
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
PARTS = ("test", "validation", "train")
RANKINGS = ("layer", "global")


def sensitivity_of(
    workdir: str | Path,
    importance: Sequence[str] = ("taylor_activation",),
    shares: Sequence[float] = SHARES,
    part: Part = "validation",
    images: int | None = None,
    components: Sequence[str] | None = None,
    ranking: str = "layer",
    data: ImageArrays | None = None,
    strategy: tf.distribute.Strategy | None = None,
    examples: int | None = None,
    say: Callable[[str], None] | None = None,
    devices: str | None = None,
    check_data: bool = False,
    data_at: str | None = None,
) -> dict[str, Any]:
    """Top-1 and loss at the deepest trained head when the weakest filters of a component, or of all, are gone.

    Filters are made silent, which gives what really removing them gives (`pruning.removal`); nothing is trained and nothing is
    written. Importance is measured once for each criterion, in the whole network, on training images, for the sum of the
    losses of all trained heads. Components are the blocks up to the deepest trained head, and that head.

    Args:
        workdir: of a run with trained weights; it need not be finished.
        importance: criteria, see `pruning.importance`.
        shares: of the filters that go, each above 0 and below 1. Of each layer, or of all (`ranking`), and at least one stays.
        part: that accuracy is measured on.
        images: training images that importance is measured on, drawn by the run's seed; default: all.
        components: names of components, and `all` for all of them together; default: each one and `all`.
        ranking: `layer` or `global`, see the recipe's `prune.ranking`.
        data: the arrays of a run that was trained on arrays.
        strategy, devices: default: as the recipe's `distribute` says, on this machine; see `open_devices`.
        examples: images of the part that accuracy is measured on, drawn by the run's seed; default: all.
        say: takes a line of progress for each curve.
        check_data: see `resume_run`.
        data_at: where the data are now, see `moved_data`.

    Returns:
        `workdir`, `spec` (its name), `depth` (of the head), `part`, `examples`, `ranking`, `losses` (heads), `images` (as given),
        `baseline` {`top1`, `loss`}, `curves`, and `skipped`: a list of {`component`, `reason`} of those that have no curve
        because no filter of theirs can be removed alone. A curve is {`criterion`, `component`, `points`}, and a point {`share`
        (asked for), `filters_removed`, `filters` (that could be removed, before), `parameters_share`, `multiply_adds_share` (of
        the really smaller network up to that head, against the whole one), `top1` (a fraction), `loss`}.

    Raises:
        InputError: an argument cannot be used; no filter can be removed; a criterion does not fit the network.
        WorkdirError, CheckpointError, DataError: the run folder or its data cannot be used, or nothing is trained yet.
    """
    criteria = _unique(importance)
    _check(criteria, shares, part, images, ranking, examples)
    folder = Workdir.open(workdir, data_at)
    job = open_job(folder, data, check_data)
    strategy = strategy or own_devices(job.recipe.distribute, devices).strategy
    with strategy.scope():
        job, network = trained_network(folder, job)
        network.compute_in(FLOAT32)
    pipeline = open_pipeline(job, data, folder)
    if not len(pipeline.parts[part]):
        raise InputError(
            f"part '{part}' holds no images; allowed: {', '.join(p for p, rows in pipeline.parts.items() if len(rows))}"
        )
    batch_size = whole_shares(job.recipe.training.batch_size, strategy.num_replicas_in_sync)
    probe = Probe(network, job.spec, strategy, pipeline.evaluation(part, batch_size, examples))
    groups, skipped = probe.selections(components)
    with pipeline.named_failures():
        train = pipeline.evaluation("train", batch_size, images)
        # All criteria first: one that does not fit the network shall not stop a long measurement half way.
        scores = {criterion: probe.scores(criterion, groups, train, job.recipe.seed) for criterion in criteria}
        baseline = probe(frozenset())
        curves = []
        for criterion in scores:
            for component, chosen in groups.items():
                points = [probe.point(share, chosen, scores[criterion], ranking) for share in sorted(_unique(shares))]
                curves.append({"criterion": criterion, "component": component, "points": points})
                if say:
                    course = " ".join(f"{100 * point['top1']:.1f}" for point in points)
                    say(f"{criterion}, {component}: top-1 {100 * baseline['top1']:.1f} -> {course} %")
    return {
        "workdir": str(folder.path),
        "spec": job.spec.name,
        "depth": probe.depth,
        "part": part,
        "examples": _count(pipeline, part, examples),
        "ranking": ranking,
        "losses": probe.losses,
        "images": images,
        "baseline": _brief(baseline),
        "curves": curves,
        "skipped": skipped,
    }


class Probe:
    """A trained network that is scored with some of its channels silent; its weights are afterwards what they were.

    The evaluation is traced once, whatever is silent, and every set of silent channels is evaluated once.

    Args:
        network: in float32; its `depths` are those of the trained heads.
        spec: of the network, with `input_shape` and `classes`.
        batches: (image, label, weight) that are scored, see `Pipeline.evaluation`.
    """

    def __init__(self, network: Network, spec: ModelSpec, strategy: tf.distribute.Strategy, batches: tf.data.Dataset):
        self.depth = max(network.facts.depths)
        self.losses = [network.architecture.heads[depth - 1].name for depth in network.facts.depths]
        self.coupling: Coupling = find_coupling(network.architecture)
        self._network, self._spec, self._strategy, self._batches = network, spec, strategy, batches
        self._evaluator = Evaluator(network, [self.depth], strategy)
        self._known: dict[frozenset[int], Scores] = {}

    def __call__(self, removed: frozenset[int]) -> Scores:
        """top1, top5 and loss at the deepest trained head without the filters under some labels."""
        if removed not in self._known:
            with silenced(self._network, self.coupling, removed):
                self._known[removed] = self._evaluator(self._batches)[0][self.depth]
        return self._known[removed]

    @property
    def able(self) -> list[str]:
        """Components whose filters count at that head."""
        arch = self._network.architecture
        return [*(block.name for block in arch.blocks[: self.depth]), arch.heads[self.depth - 1].name]

    def selections(self, wanted: Sequence[str] | None) -> tuple[dict[str, tuple[Group, ...]], list[dict[str, str]]]:
        """Curve -> groups with the items that can go on it; and the components that have none, with the reason.

        Raises:
            InputError: an unknown component, or no curve is left.
        """
        able = self.able
        names = _unique(wanted) if wanted is not None else [*able, ALL]
        _known("components", names, [*able, ALL])
        others = set(self._network.architecture.components) - set(able)  # may shrink too: they do not count
        found: dict[str, tuple[Group, ...]] = {}
        skipped = []
        for name in names:
            try:
                targets, touches = (able, {*able, *others}) if name == ALL else ([name], {name, *others})
                groups = selectable(self.coupling, targets, touches)
                reason = f"{name}: holds no filters that can be removed"
            except AmountError as error:
                groups, reason = (), error.message
            if groups:
                found[name] = groups
            else:
                skipped.append({"component": name, "reason": reason})
        if not found:
            raise InputError("; ".join(entry["reason"] for entry in skipped) or "components: received none")
        return found, skipped

    def scores(
        self, criterion: str, groups: dict[str, tuple[Group, ...]], batches: tf.data.Dataset, seed: int
    ) -> dict[int, float]:
        """The label of every item of some selections -> its importance, not normalised."""
        targets = self.able if ALL in groups else list(groups)
        union = selectable(self.coupling, targets, set(self._network.architecture.components))
        found = importance(self._network, union, criterion, batches, self.losses, self._strategy, seed)
        return {item.label: float(s) for group in union for item, s in zip(group.items, found[group.name], strict=True)}

    def point(self, share: float, groups: tuple[Group, ...], scores: dict[int, float], ranking: str) -> dict[str, Any]:
        """What is left without a share of the weakest filters."""
        removed = self.weakest(share, groups, scores, ranking)
        arch, smaller = self._network.architecture, architecture(without(self._spec, self.coupling, removed))
        return {
            "share": share,
            "filters_removed": self._filters(groups, removed),
            "filters": self._filters(groups, None),
            "parameters_share": deployed_parameters(smaller, self.depth) / deployed_parameters(arch, self.depth),
            "multiply_adds_share": deployed_cost(smaller, self.depth) / deployed_cost(arch, self.depth),
            **_brief(self(removed)),
        }

    def weakest(self, share: float, groups: tuple[Group, ...], scores: dict[int, float], ranking: str) -> frozenset[int]:
        """Labels of the items that go, ranked as the recipe's `prune` ranks them."""
        raw = {group.name: np.array([scores[item.label] for item in group.items]) for group in groups}
        ranked = {name: values.tolist() for name, values in normalized(raw).items()}
        return Ranking(self.coupling, groups, ranked, ranking).share(share)

    def _filters(self, groups: tuple[Group, ...], removed: Collection[int] | None) -> int:
        items = [item for group in groups for item in group.items if removed is None or item.label in removed]
        return sum(filter_.place[0] in self.able for item in items for filter_ in item.filters)


def _check(
    importance: Sequence[str], shares: Sequence[float], part: str, images: int | None, ranking: str, examples: int | None
) -> None:
    _known("importance", importance, IMPORTANCES.names)
    _known("part", [part], PARTS)
    _known("ranking", [ranking], RANKINGS)
    for key, given in (("importance", importance), ("shares", shares)):
        if not len(given):
            raise InputError(f"{key}: received none")
    odd = next((share for share in shares if not 0 < share < 1), None)
    if odd is not None:
        raise InputError(f"shares: received {odd:g}; allowed: above 0 and below 1")
    for key, count in (("images", images), ("examples", examples)):
        if count is not None and count < 1:
            raise InputError(f"{key}: received {count}; allowed: 1 or more")


def _known(key: str, names: Iterable[str], allowed: Collection[str]) -> None:
    for name in names:
        if name not in allowed:
            raise InputError(f"{key}: received '{name}'; allowed: {', '.join(allowed)}{did_you_mean(name, allowed)}")


def _unique(values: Sequence[Any]) -> list[Any]:
    """Each once, in order; a single name is a list of one."""
    return list(dict.fromkeys([values] if isinstance(values, str) else values))


def _brief(scores: Scores) -> Scores:
    return {key: scores[key] for key in ("top1", "loss")}


def _count(pipeline: Pipeline, part: Part, examples: int | None) -> int:
    size = len(pipeline.parts[part])
    return size if examples is None else min(size, examples)
