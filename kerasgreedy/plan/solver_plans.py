"""From the settings of a solver to what it will do in a phase. Imports no TensorFlow."""

from collections.abc import Sequence
from dataclasses import dataclass

from kerasgreedy.errors import PlanError
from kerasgreedy.graph.architecture import Component
from kerasgreedy.graph.tree import leaves
from kerasgreedy.plan.stages import SolverPlan
from kerasgreedy.spec import layers as L
from kerasgreedy.spec.recipe import Recipe
from kerasgreedy.spec.solver_settings import SOLVERS, Averaged
from kerasgreedy.spec.training import Training


@dataclass(frozen=True)
class SolverRequest:
    """A phase, as far as it is known when its solver is planned.

    Attributes:
        recipe: all of it.
        section: keys that lead to the settings of this phase's training.
        training: these settings.
        trains: components whose weights move.
        losses: heads that have a loss.
        images: for training.
        prunes: connections that masks leave unused are to be held at zero.
    """

    recipe: Recipe
    section: tuple[str, ...]
    training: Training
    trains: Sequence[Component]
    losses: Sequence[Component]
    images: int
    prunes: bool

    def refused(self, key: tuple[str, ...], message: str) -> PlanError:
        """The error at a key of the solver."""
        return PlanError((*self.section, "solver", *key), message)

    def of_training(self, key: tuple[str | int, ...], message: str) -> PlanError:
        """The error at a key of the training."""
        return PlanError((*self.section, *key), message)


def plan_solver(asked: SolverRequest) -> SolverPlan:
    """What the solver of a phase will do.

    Raises:
        PlanError: it cannot do this phase, or nothing fixes thresholds that a warm-up trains.
    """
    for number, limit in enumerate(asked.training.regularizers):
        every = getattr(limit, "every", 1)
        if every > 1 and asked.training.solver.name not in ("sgd", "averaged"):
            message = f"received {every}; solver '{asked.training.solver.name}' projects after each step; leave it out"
            raise asked.of_training(("regularizers", number, "every"), message)
    if asked.training.class_weights is not None and asked.training.solver.name == "fista":
        message = "solver 'fista' minimises the mean loss of all images alike; leave it out"
        raise asked.of_training(("class_weights",), message)
    if asked.training.solver.name == "fista" and not asked.training.optimizer.coupled and asked.training.optimizer.weight_decay:
        message = "solver 'fista' knows no decay that is taken from the weights themselves; take sgd, or set it to 0"
        raise asked.of_training(("optimizer", "weight_decay"), message)
    planner = SOLVERS.load(asked.training.solver.name, "plan")
    plan: SolverPlan = planner(asked.training.solver, asked) if planner else SolverPlan()
    dsd = asked.recipe.dsd
    later = dsd is not None and dsd.by_masks  # the dense phase is the warm-up of the sparse one
    if asked.section[0] in ("training", "phases") and not (asked.recipe.goes_on or plan.ends_warm_up or later):
        _check_thresholds(asked)
    return plan


def plan_averaged(solver: Averaged, asked: SolverRequest) -> SolverPlan:
    """Refuses what would end a phase before the mean is taken, or keep another point.

    Raises:
        PlanError: it would.
    """
    if asked.training.watches:
        key = "early_stopping" if asked.training.early_stopping else "keep"
        raise asked.of_training(
            (key,), "solver 'averaged' ends with the mean of the last points of the whole phase; leave it out"
        )
    if asked.recipe.strategy == "dsd":
        raise asked.refused(("name",), "received 'averaged'; a mean of points would not be as sparse as each; allowed: sgd")
    return SolverPlan()


def _check_thresholds(asked: SolverRequest) -> None:
    """Refuses thresholds that come from a warm-up where there is none."""
    for component in asked.trains:
        for node in leaves(component.nodes):
            threshold = node.layer.threshold if isinstance(node.layer, L.Activation) else None
            if threshold and threshold.learn == "warm_up":
                message = (
                    f"{component.name} has a threshold with learn: warm_up, which only solver alternation with warm_up_epochs "
                    "above 0 ends; use that, or learn: fixed or surrogate"
                )
                raise asked.refused((), message)
