"""What actions do: they take the network as it is, and give another one with a record of what changed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from kerasgreedy.data.pipeline import Pipeline
from kerasgreedy.graph.coupling import Coupling, find_coupling
from kerasgreedy.network import surgery
from kerasgreedy.network.build import FLOAT32, Network
from kerasgreedy.network.evaluation import Evaluator
from kerasgreedy.plan.actions import Action, ActionEntry, HeadAction, PruneAction, PruneEntry
from kerasgreedy.plan.amounts import Ranking, choose, deployed_cost, deployed_parameters, selectable
from kerasgreedy.plan.batch_sizes import whole_shares
from kerasgreedy.plan.preparation import Job
from kerasgreedy.plan.removals import changes
from kerasgreedy.pruning.importance import importance, normalized
from kerasgreedy.spec.doors import imported
from kerasgreedy.spec.model import ModelSpec
from kerasgreedy.strict_json import as_json


@dataclass(frozen=True)
class Doing:
    """What an action is done to, and with.

    Attributes:
        job: with the plan for the network as it is.
        network: in float32.
        pipeline: batches.
        strategy: that the network was built under.
        seen: told after each batch how many images importance has seen, and of how many.
        asked: called after each batch of validation data; what it raises ends the action.
    """

    job: Job
    network: Network
    pipeline: Pipeline
    strategy: tf.distribute.Strategy
    seen: Callable[[int, int], None] = lambda done, total: None
    asked: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Outcome:
    """What an action leaves.

    Attributes:
        network: in float32.
        spec: of it.
        entry: what is remembered of the action among the finished stages.
        files: path below the run folder -> contents.
    """

    network: Network
    spec: ModelSpec
    entry: ActionEntry
    files: dict[str, bytes]


def perform(action: Action, doing: Doing) -> Outcome:
    """Does an action. The same network, data and seed give the same outcome."""
    with doing.strategy.scope():
        doing.network.compute_in(FLOAT32)
    outcome: Outcome = imported(action.home)(action, doing)
    return outcome


def replace_head(action: HeadAction, doing: Doing) -> Outcome:
    """Puts a fresh head in the place of another."""
    with doing.strategy.scope():
        changed, spec = surgery.replace_head(doing.network, doing.job.spec, action.replaces, action.head)
    return Outcome(changed, spec, entry_of(action, doing.network, changed), {})


def entry_of(action: Action, before: Network, after: Network) -> ActionEntry:
    """What is remembered of an action of which there is nothing more to say than how large the network was and is."""
    return ActionEntry(**sizes(action, before, after))


def prune(action: PruneAction, doing: Doing) -> Outcome:
    """Removes filters."""
    return _Pruning(action, doing).outcome()


class _Pruning:
    def __init__(self, action: PruneAction, doing: Doing):
        self.action, self.job, self.network, self.pipeline = action, doing.job, doing.network, doing.pipeline
        self.strategy, self._doing = doing.strategy, doing
        self.coupling: Coupling = find_coupling(doing.network.architecture)
        self.groups = selectable(self.coupling, action.targets, action.touches, action.begun)
        self.depth = action.depth(doing.network.architecture)

    def outcome(self) -> Outcome:
        action, settings = self.action, self.action.settings
        images = min(settings.images or self.job.train_images, self.job.train_images)
        raw = importance(
            self.network,
            self.groups,
            settings.importance,
            self._images(),
            action.heads,
            self.strategy,
            self.job.recipe.seed,
            lambda done: self._doing.seen(done, images),
        )
        scores = {name: values.tolist() for name, values in normalized(raw).items()}
        evaluator = Evaluator(self.network, [self.depth], self.strategy)
        before = self._validation(evaluator)
        removed = choose(
            self.job.spec,
            self.coupling,
            Ranking(self.coupling, self.groups, scores, settings.ranking, action.final),
            settings,
            action.counted,
            action.progress[1],
            action.start,
            lambda labels: self._accuracy(evaluator, labels),
        )
        changed, spec = self.network, self.job.spec
        if removed:
            with self.strategy.scope():
                changed, spec = surgery.remove_filters(self.network, self.job.spec, self.coupling, removed)
        after = self._validation(Evaluator(changed, [self.depth], self.strategy))
        entry = PruneEntry(
            **sizes(action, self.network, changed, self.depth),
            importance=settings.importance,
            start=action.start,
            targets=list(action.targets),
            filters={name: [old, new] for name, old, new in changes(self.coupling, self.groups, removed)},
            validation={"before": before, "after": after} if before else None,
        )
        details = {
            group.name: {
                "places": ["/".join(place) for place in group.places],
                "scores": scores[group.name],
                "kept": [item.label not in removed for item in group.items],
            }
            for group in self.groups
        }
        text = as_json({"importance": settings.importance, "groups": details})
        return Outcome(changed, spec, entry, {f"pruning/{action.name}.json": text.encode()})

    def _images(self) -> tf.data.Dataset:
        return self.pipeline.evaluation("train", batch_size_of(self._doing), self.action.settings.images)

    def _validation(self, evaluator: Evaluator) -> dict[str, float] | None:
        return validation_scores(self._doing, evaluator, self.depth)

    def _accuracy(self, evaluator: Evaluator, labels: frozenset[int]) -> float:
        """On validation data, with some channels silent."""
        with surgery.silenced(self.network, self.coupling, labels):
            scores = self._validation(evaluator)
        assert scores is not None
        return scores["top1"]


def batch_size_of(doing: Doing) -> int:
    """That of the recipe, or the next larger one that replicas can share."""
    return whole_shares(doing.job.recipe.training.batch_size, doing.strategy.num_replicas_in_sync)


def validation_scores(doing: Doing, evaluator: Evaluator, depth: int) -> dict[str, float] | None:
    """Scores at a depth on validation data; None: there is none."""
    if not len(doing.pipeline.parts["validation"]):
        return None
    scores, _, _ = evaluator(doing.pipeline.evaluation("validation", batch_size_of(doing)), doing.asked)
    return scores[depth]


def sizes(action: Action, before: Network, after: Network, depth: int | None = None) -> dict[str, Any]:
    """What every entry says: sizes are those of the blocks up to the deepest head with a loss, and that head."""
    depth = depth or len(before.heads)
    architectures = before.architecture, after.architecture
    return {
        "phase": action.name,
        "action": action.kind,
        "depth": depth,
        "parameters": tuple(deployed_parameters(each, depth) for each in architectures),
        "multiply_adds": tuple(deployed_cost(each, depth) for each in architectures),
    }
