"""Recipe + spec -> an ordered list of phases and actions: plain data that is printed before anything runs. No TensorFlow."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from kerasgreedy.errors import PlanError, ShapeError, did_you_mean
from kerasgreedy.graph.architecture import Architecture, Component, architecture
from kerasgreedy.graph.penalised import penalised, scale_layers
from kerasgreedy.graph.rewriting import last_head, resized
from kerasgreedy.graph.tree import Path_
from kerasgreedy.plan.actions import Action, HeadAction
from kerasgreedy.plan.amounts import AmountError
from kerasgreedy.plan.caching import plan_cache
from kerasgreedy.plan.convex_actions import FitAction, layers_to_fit
from kerasgreedy.plan.removal_stages import Removal, add_pruning, add_threshold
from kerasgreedy.plan.solver_plans import SolverRequest, plan_solver
from kerasgreedy.plan.stages import Phase, SolverPlan, Stage
from kerasgreedy.spec.model import ModelSpec, merged_head
from kerasgreedy.spec.recipe import Recipe
from kerasgreedy.spec.strategy_names import STRATEGIES
from kerasgreedy.spec.training import Training

Components: TypeAlias = tuple[Component, ...]


def compile_plan(
    spec: ModelSpec, recipe: Recipe, images: tuple[int, int] = (0, 0), done: Sequence[Mapping[str, Any]] = ()
) -> tuple[Stage, ...]:
    """The phases and actions of a recipe on a network.

    What stands behind a removal of filters is planned with the sizes that it leaves, where they are known beforehand.

    Args:
        spec: with `input_shape` and `classes`.
        images: in the training and in the validation part; they decide whether a cache fits.
        done: the entries of the stages that are done, see `Position.kept`; `spec` is what they left.

    Raises:
        AmountError: a removal cannot be done.
    """
    plan = Compiler(spec, recipe, images, done)
    STRATEGIES.load(recipe.strategy)(plan)
    if recipe.prune and not plan.removals:
        raise AmountError("components", "no block has filters that can be removed")
    if plan.idle and len(plan.idle) == plan.removals:
        raise plan.idle[0]
    if recipe.replace_head:
        plan.replace_head()
    for name in recipe.phases:
        if name not in plan.own_phases:
            message = (
                f"the strategy has no such phase; allowed: {', '.join(plan.own_phases)}{did_you_mean(name, plan.own_phases)}"
            )
            raise PlanError(("phases", name), message)
    names = [stage.name for stage in plan.stages]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise PlanError(("strategy",), f"a block is named '{twice}', as another stage of the plan is; rename the block")
    return tuple(plan.stages)


@dataclass
class Compiler:
    """Collects stages, and follows how the network changes under them."""

    spec: ModelSpec
    recipe: Recipe
    images: tuple[int, int]
    done: Sequence[Mapping[str, Any]]
    stages: list[Stage] = field(default_factory=list)
    removals: int = 0
    own_phases: list[str] = field(default_factory=list)  # that `training` is about
    _fitted: set[str] = field(default_factory=set)
    _fresh: set[str] = field(default_factory=set)  # beside a run to start from: what does not come from it
    idle: list[AmountError] = field(default_factory=list)  # one for each removal that will remove nothing

    def __post_init__(self) -> None:
        self.arch: Architecture = architecture(self.spec)
        heads = [head.name for head in self.arch.heads]
        taken = self.taken
        most = len(heads) if self.recipe.strategy == "end_to_end" else len(heads) - 1  # its one head is enough
        if taken > most:
            message = f"received {taken}; the network has {len(heads)}; allowed: up to {most}"
            if most < len(heads):
                message = (
                    f"received {taken}; the network has {len(heads)}, and one has to be left to train; allowed: up to {most}, or "
                    "all with strategy: end_to_end, which then trains the last head"
                )
            raise PlanError(("start_blocks",), message)
        self._fresh = {part.name for part in (*self.arch.blocks[taken:], *self.arch.heads)} if taken else set()
        for name in self.recipe.training.head_objectives:
            if name not in heads:
                message = f"there is no such head; allowed: {', '.join(heads)}{did_you_mean(name, heads)}"
                raise PlanError(("training", "head_objectives", name), message)
        for section, training in self.recipe.trainings.items() if not self.done else ():
            _check_patterns(self.arch, section, training)

    @property
    def taken(self) -> int:
        """Blocks that come from another run and stay as they are."""
        return self.recipe.start_blocks or 0

    def phase(
        self,
        name: str,
        trains: Components,
        losses: Components,
        stop_gradient: bool,
        section: tuple[str, ...] = ("training",),
        **more: Any,
    ) -> None:
        """Adds a phase, working out what follows from its components.

        Args:
            section: keys of the recipe that lead to how it is trained.
        """
        arch, recipe = self.arch, self.recipe
        if section == ("training",):
            self.own_phases.append(name)
            section = ("phases", name) if name in recipe.phases else section
        training = recipe.trainings[section]
        self._fit(name, losses)
        more.setdefault("init", "trained" if recipe.goes_on else "fresh")
        deepest = max(arch.heads.index(head) for head in losses)
        frozen = tuple(block for block in arch.blocks[: deepest + 1] if block not in trains)
        pairs = enumerate(zip(arch.blocks, arch.heads, strict=True))
        first = next(index for index, (block, head) in pairs if block in trains or head in losses)
        ready = first + (arch.blocks[first] in frozen)  # a head on a frozen block reads what that gives
        own = arch.heads[ready - 1] if ready and losses == (arch.heads[ready - 1],) and losses[0] in trains else None
        cache = plan_cache(arch, recipe, training, ready, self.images, own)
        trained, fixed = (sum(component.multiply_adds for component in part) for part in (trains, frozen))
        prefix = sum(block.multiply_adds for block in arch.blocks[:ready])
        prefix += sum(arch.node(key).multiply_adds for key in cache.front)
        asked = SolverRequest(recipe, section, training, trains, losses, self.images[0], more.pop("prunes", False))
        phase = Phase(
            index=len(self.stages),
            name=name,
            trains=tuple(component.name for component in trains),
            frozen=tuple(component.name for component in frozen),
            losses=tuple(component.name for component in losses),
            stop_gradient=stop_gradient,
            training=training,
            parameters=sum(component.parameters for component in trains),
            multiply_adds=trained + fixed,
            prefix_multiply_adds=prefix,
            training_multiply_adds=3 * trained - 2 * _before_weights(trains) + fixed - prefix * cache.used,
            prefix=ready,
            cache=cache,
            solver_plan=self._solver_plan(asked),
            precision=recipe.precision,
            prefix_precision=recipe.frozen_precision,
            **more,
        )
        self.stages.append(phase)

    def _fit(self, phase: str, losses: Components) -> None:
        """Lets layers that know the training images see them before the first phase that runs them."""
        if self.is_done("fit"):
            fitted = tuple(self.done[len(self.stages)]["fitted"])
            self._fitted.update(fitted)
            return self.act(FitAction, f"fit_{phase}", layers=fitted)
        if len(self.stages) < len(self.done):
            return None
        deepest = max(self.arch.heads.index(head) for head in losses)
        run = [*self.arch.blocks[: deepest + 1], *losses]
        if self.recipe.start_from:  # what layers know comes with the weights, but for what is new
            run = [component for component in run if component.name in self._fresh]
            if self.recipe.start_unfinished and any(layers_to_fit(component) for component in self.arch.components.values()):
                message = "layers that are fitted to the training images may not have been; start from a finished run"
                raise PlanError(("start_unfinished",), message)
        layers = [place for component in run for place in layers_to_fit(component) if place not in self._fitted]
        if layers:
            self._fitted.update(layers)
            self.act(FitAction, f"fit_{phase}", layers=tuple(layers))
        return None

    def _solver_plan(self, asked: SolverRequest) -> SolverPlan:
        """Of a phase that is done nothing is refused: what came after it may have changed what it trained."""
        try:
            return plan_solver(asked)
        except PlanError:
            if len(self.stages) < len(self.done):
                return SolverPlan()
            raise

    def is_done(self, kind: str) -> bool:
        """Whether the stage that comes next is an action of a kind, and done: what it changed it would not find again."""
        return len(self.stages) < len(self.done) and self.done[len(self.stages)].get("action") == kind

    def act(self, kind: type[Action], name: str, **settings: Any) -> None:
        """Adds an action that leaves the shapes of the network as they are.

        Args:
            settings: its fields beside index and name.
        """
        self.stages.append(kind(len(self.stages), name, **settings))

    def prune(
        self,
        name: str,
        touches: tuple[str, ...],
        depths: range,
        tuned: range,
        stop_gradient: bool,
        default: str,
        loses: Sequence[str] = (),
    ) -> None:
        """Adds the rounds of a removal, each with its fine-tuning, if the recipe asks for them.

        Args:
            name: of the block after whose phase it is; empty: after the only phase.
            touches: blocks and heads that may lose filters, those that shall first come from the recipe or are the blocks.
            depths: indices of the heads that have a loss.
            tuned: indices of the blocks that fine-tuning trains, if it trains blocks.
            default: what it trains where the recipe does not say: `head` or `all`.
            loses: components that shall lose filters where the recipe does not say; empty: blocks.
        """
        removal = Removal(name, touches, depths, tuned, stop_gradient, default, tuple(loses))
        add_threshold(self, removal)
        add_pruning(self, removal)

    def replace_head(self) -> None:
        """Adds the replacement of the last head, and the phase that trains the new one."""
        settings, last = self.recipe.replace_head, self.arch.heads[-1].name
        assert settings is not None
        present, own = last_head(self.spec), settings.head
        head = merged_head(present, own)
        action = HeadAction(len(self.stages), "replace_head", last, head)
        self.stages.append(action)
        if action.index >= len(self.done):
            place = ("replace_head", "head")
            if present.layers is not None and own.layers is None and "hidden_layers" not in own.model_fields_set:
                raise PlanError(
                    place, "the present head is given as 'layers', to which nothing is added; give hidden_layers, or layers"
                )
            if "width" in own.model_fields_set and not head.hidden_layers:
                raise PlanError((*place, "width"), f"received {own.width}; there is no hidden layer; give hidden_layers")
            try:
                self.become(resized(self.spec, {}, {last: head}))
            except ShapeError as error:
                raise PlanError(place, error.message) from None
        self._fresh.add(last)
        self._fitted = {place for place in self._fitted if place.split("/")[0] != last}
        heads = self.arch.heads[-1:]
        self.phase("final_head", heads, heads, True, init="fresh", section=("replace_head", "training"))

    def become(self, spec: ModelSpec) -> None:
        """Goes on with the network that a stage leaves."""
        self.spec, self.arch = spec, architecture(spec)


def _before_weights(trains: Components) -> int:
    """Multiply-adds of what trains before its first weights: no gradient passes there."""
    nodes = itertools.takewhile(lambda node: not node.parameters, trains[0].nodes)
    return sum(node.multiply_adds for node in nodes)


def _check_patterns(arch: Architecture, section: tuple[str, ...], training: Training) -> None:
    """Refuses a regularizer that means no layer of the network."""
    for number, settings in enumerate(training.regularizers):
        meant = penalised(arch, settings, arch.components)
        place: Path_ = (*section, "regularizers", number)
        if not meant:
            layers = penalised(arch, settings.model_copy(update={"of": "all"}), arch.components)
            allowed = ", ".join(layers) or f"none: no layer has what {settings.name} is about"
            message = f"received {settings.of}, which is no layer of this network with such a kernel; allowed: {allowed}"
            raise PlanError((*place, "of"), message)
        scaled = scale_layers(arch, arch.components) if settings.acts_on != "kernel" else meant
        odd = next((key for key in meant if key not in scaled), None)
        if odd:
            allowed = ", ".join(key for key in meant if key in scaled) or "none, so take on: kernel"
            message = f"on: {settings.acts_on} needs a batch norm right after each layer, and {odd} has none; allowed: {allowed}"
            raise PlanError((*place, "of"), message)
