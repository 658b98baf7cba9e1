"""What actions do: they take the network as it is, and give another one with a record of what changed."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import tensorflow as tf

from kerasgreedy.data.pipeline import Pipeline
from kerasgreedy.files import as_json
from kerasgreedy.graph.coupling import Coupling, find_coupling
from kerasgreedy.network.build import FLOAT32, Network
from kerasgreedy.network.evaluation import Evaluator
from kerasgreedy.network.surgery import remove_filters, replace_head, silenced
from kerasgreedy.plan.amounts import Ranking, choose, deployed_cost, deployed_parameters, selectable
from kerasgreedy.plan.batch_sizes import whole_shares
from kerasgreedy.plan.compile import changes
from kerasgreedy.plan.preparation import Job
from kerasgreedy.plan.stages import HeadAction, PruneAction
from kerasgreedy.pruning.importance import importance, normalized
from kerasgreedy.spec.model import ModelSpec


@dataclass(frozen=True)
class Outcome:
    """What an action leaves.

    Attributes:
        network: in float32.
        spec: of it.
        entry: the action's entry among the finished stages, plain data.
        details: name -> text of a file for the run folder.
    """

    network: Network
    spec: ModelSpec
    entry: dict[str, Any]
    details: dict[str, str]


def perform(
    action: PruneAction | HeadAction,
    job: Job,
    network: Network,
    pipeline: Pipeline,
    strategy: tf.distribute.Strategy,
    seen: Callable[[int, int], None] | None = None,
    asked: Callable[[], None] | None = None,
) -> Outcome:
    """Does an action. The same network, data and seed give the same outcome.

    Args:
        seen: told after each batch how many images importance has seen, and of how many.
        asked: called after each batch of validation data; what it raises ends the action.
    """
    with strategy.scope():
        network.compute_in(FLOAT32)
        if isinstance(action, HeadAction):
            changed, spec = replace_head(network, job.spec, action.replaces, action.head)
            return Outcome(changed, spec, _entry(action, job, network, changed), {})
    return _Pruning(action, job, network, pipeline, strategy, asked).outcome(seen)


class _Pruning:
    def __init__(
        self,
        action: PruneAction,
        job: Job,
        network: Network,
        pipeline: Pipeline,
        strategy: tf.distribute.Strategy,
        asked: Callable[[], None] | None,
    ):
        self._asked = asked
        self.action, self.job, self.network, self.pipeline, self.strategy = action, job, network, pipeline, strategy
        self.coupling: Coupling = find_coupling(network.architecture)
        self.groups = selectable(self.coupling, action.targets, action.touches, action.begun)
        self.depth = action.depth(network.architecture)

    def outcome(self, seen: Callable[[int, int], None] | None) -> Outcome:
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
            (lambda done: seen(done, images)) if seen else None,
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
                changed, spec = remove_filters(self.network, self.job.spec, self.coupling, removed)
        after = self._validation(Evaluator(changed, [self.depth], self.strategy))
        entry = {
            **_entry(action, self.job, self.network, changed, self.depth),
            "importance": settings.importance,
            "start": asdict(action.start) if action.start else None,
            "targets": list(action.targets),
            "filters": {name: [old, new] for name, old, new in changes(self.coupling, self.groups, removed)},
            "validation": {"before": before, "after": after} if before else None,
        }
        details = {
            group.name: {
                "places": ["/".join(place) for place in group.places],
                "scores": scores[group.name],
                "kept": [item.label not in removed for item in group.items],
            }
            for group in self.groups
        }
        return Outcome(
            changed, spec, entry, {f"{action.name}.json": as_json({"importance": settings.importance, "groups": details})}
        )

    def _images(self) -> tf.data.Dataset:
        return self.pipeline.evaluation("train", self._batch_size, self.action.settings.images)

    @property
    def _batch_size(self) -> int:
        return whole_shares(self.job.recipe.training.batch_size, self.strategy.num_replicas_in_sync)

    def _validation(self, evaluator: Evaluator) -> dict[str, float] | None:
        if not len(self.pipeline.parts["validation"]):
            return None
        batches = self.pipeline.evaluation("validation", self._batch_size)
        scores, _, _ = evaluator(batches, self._asked)
        return scores[self.depth]

    def _accuracy(self, evaluator: Evaluator, labels: frozenset[int]) -> float:
        """On validation data, with some channels silent."""
        with silenced(self.network, self.coupling, labels):
            scores = self._validation(evaluator)
        assert scores is not None
        return scores["top1"]


def _entry(
    action: PruneAction | HeadAction, job: Job, before: Network, after: Network, depth: int | None = None
) -> dict[str, Any]:
    """Sizes are those of the blocks up to the deepest head with a loss, and that head."""
    depth = depth or len(before.heads)
    sizes = {
        "parameters": [deployed_parameters(network.architecture, depth) for network in (before, after)],
        "multiply_adds": [deployed_cost(network.architecture, depth) for network in (before, after)],
    }
    return {"phase": action.name, "action": action.kind, "epochs": 0, "best": None, "keep": "last", "depth": depth, **sizes}
