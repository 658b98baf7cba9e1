"""What is remembered of a convex problem that was solved."""

from dataclasses import dataclass
from typing import Any

from kerasgreedy.solvers.solver import Record


@dataclass(frozen=True)
class Solved:
    """Where a problem of a regularisation path was left.

    Attributes:
        factor: of the penalties.
        epoch: after which it was left, counted from 0 at the start of the phase.
        objective, duality_gap, subgradient: as in `FistaRecord`, of this problem.
    """

    factor: float
    epoch: int
    objective: float
    duality_gap: float | None
    subgradient: float


@dataclass(frozen=True)
class FistaRecord(Record):
    """How a phase ended.

    Attributes:
        iterations: steps that were made.
        restarts: of the momentum.
        subgradient: norm of a subgradient of the objective at the last point, at most, as a share of that of the loss's gradient
            at zero weights.
        curvature: head -> bound of the largest curvature.
        step_curvature: head -> that its steps are the inverse of: the same, or of what is left beside `directions`.
        objective: what is minimised, penalties included, where the last gradient was taken; at the last point it is no higher,
            but for what the small problems of steps with `directions` leave open.
        duality_gap: between that and the lower bound of the minimum there, so that the last point is no farther from the optimum;
            None where no bound is known.
        filters: `component/layer` -> [filters that are not zero, filters], where a penalty makes zeros.
        converged: `subgradient` came under the tolerance, or the gap under its own.
        path: the problems of a regularisation path.
    """

    iterations: int
    restarts: int
    subgradient: float | None
    curvature: dict[str, float]
    step_curvature: dict[str, float]
    objective: float | None
    duality_gap: float | None
    filters: dict[str, list[int]]
    converged: bool
    path: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        return {"fista": super().as_dict()}
