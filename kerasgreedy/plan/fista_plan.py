"""Whether accelerated proximal gradient can do a phase. Imports no TensorFlow."""

from dataclasses import dataclass
from typing import Any

from kerasgreedy.graph.architecture import Component
from kerasgreedy.graph.kinds import kind_of
from kerasgreedy.graph.tree import leaves
from kerasgreedy.plan.solver_plans import SolverRequest
from kerasgreedy.plan.stages import SolverPlan
from kerasgreedy.spec import layers as L
from kerasgreedy.spec.convex_layers import ClassSeparable
from kerasgreedy.spec.regularizers import L1, GroupLasso, NuclearBall, Regularizer, matches
from kerasgreedy.spec.solver_settings import Fista
from kerasgreedy.spec.strict import show


@dataclass(frozen=True)
class FistaPlan(SolverPlan):
    """What accelerated proximal gradient does in a phase.

    Attributes:
        settings: of the recipe.
        passes: over the training images at most: those that measure, and one for each epoch.
    """

    settings: Fista
    passes: int

    def as_dict(self) -> dict[str, Any]:
        return {"fista": {"tolerance": self.settings.tolerance, "passes": self.passes}}

    def __str__(self) -> str:
        return f"one step an epoch on all images, at most {self.passes} passes, to {self.settings.tolerance:g}"


def plan_fista(solver: Fista, asked: SolverRequest) -> FistaPlan:
    """Refuses what is no convex problem, or has no proximal map.

    Raises:
        PlanError: says which layer or setting it is.
    """
    for component in asked.trains:
        _check_linear(component, asked)
    if asked.recipe.data.augment.changes:
        raise asked.refused(("name",), "received 'fista', whose problem is one set of images; leave out data.augment")
    if asked.recipe.precision != "float32":
        raise asked.refused(("name",), f"received 'fista' with precision {asked.recipe.precision}; allowed: float32")
    proximal = []
    for number, settings in enumerate(asked.training.regularizers):
        form = getattr(settings, "form", None)
        if settings.of_batches:
            message = f"received '{settings.name}', which is a sum over all images that has no proximal map; allowed: solver sgd"
            raise asked.of_training(("regularizers", number, "name"), message)
        if form == "subgradient":
            message = "received 'subgradient', which has no proximal map; allowed with solver fista: proximal"
            raise asked.of_training(("regularizers", number, "form"), message)
        proximal += [settings] if form else []
    if [type(settings) for settings in proximal] not in ([], [type(each) for each in proximal[:1]], [L1, GroupLasso]):
        message = "the proximal map of several is not known; allowed with solver fista: one, or l1 followed by group_lasso"
        raise asked.of_training(("regularizers",), message)
    _check_path(solver, asked)
    if solver.gap is not None and not all(_has_dual(component, asked) for component in asked.trains):
        message = (
            "the duality gap is known for squared_error, with one of weight_decay, l2, l1, group_lasso and nuclear_ball on all "
        )
        message += "that trains, biases included (which only weight_decay is on); leave it out, tolerance is a stop of its own"
        raise asked.refused(("gap",), message)
    measured = solver.power_iterations + 1 + (3 if solver.directions else 0)
    return FistaPlan(solver, measured + asked.training.epochs)


def _check_path(solver: Fista, asked: SolverRequest) -> None:
    """A path needs penalties or a ball that its factors change, one side of them first, and an epoch for each of its problems."""
    if not solver.path:
        return
    regularizers = asked.training.regularizers
    weighted = bool(asked.training.optimizer.coupled_decay) or any(isinstance(each, Regularizer) for each in regularizers)
    bounded = any(isinstance(each, NuclearBall) for each in regularizers)
    if not (weighted or bounded):
        raise asked.refused(("path",), "there is no penalty with a weight, and no ball, whose factor it could be; leave it out")
    if weighted and bounded:
        raise asked.refused(("path",), "its factors would change a penalty and a ball at the same time; leave one of them out")
    if (solver.path[0] < solver.path[1]) != bounded:
        order = "rising, for the ball grows" if bounded else "falling, for penalties become weaker"
        raise asked.refused(("path",), f"received {show(solver.path)}; allowed: {order}")
    if len(solver.path) > asked.training.epochs:
        message = f"received {len(solver.path)} problems for {asked.training.epochs} epochs; allowed: up to one for each epoch"
        raise asked.refused(("path",), message)


def _has_dual(component: Component, asked: SolverRequest) -> bool:
    """Whether the conjugate of all that is added to a head's loss is known; see `solvers.convex_terms.Terms.dual`."""
    last, decay = component.nodes[-1], bool(asked.training.optimizer.coupled_decay)
    key = f"{component.name}/{last.name}"
    penalties = [each for each in asked.training.regularizers if matches(each.of, key, True, True) and each.applies(last.layer)]
    biased = isinstance(last.layer, L.Dense) and bool(last.layer.use_bias)
    one = len(penalties) + decay == 1 and (decay or not biased)
    return one and asked.training.objective_of(component.name).name == "squared_error"


def _check_linear(component: Component, asked: SolverRequest) -> None:
    """A head of layers that nothing changes, and at its end one that is linear in its weights."""
    *before, last = list(leaves(component.nodes))
    is_head = component.name in [head.name for head in asked.losses]
    odd = next((node for node in before if node.parameters or kind_of(node.layer).takes_training), None)
    if odd is None and not isinstance(last.layer, L.Dense | ClassSeparable):
        odd = last
    if odd is not None or not is_head:
        what = f"{component.name}/{odd.name}" if odd is not None else component.name
        message = (
            f"received 'fista', and phase trains {what}; allowed: heads of layers without weights and one linear layer (strategy "
            "random_features, convex, or replace_head, with hidden_layers: 0 and batch_norm: false), or of gated_conv with fixed "
            "gates and class_separable: true"
        )
        raise asked.refused(("name",), message)
