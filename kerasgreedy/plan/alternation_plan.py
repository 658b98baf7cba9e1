"""What alternation will do in a phase, decided before anything runs. Imports no TensorFlow."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kerasgreedy.errors import PlanError
from kerasgreedy.graph.architecture import Component, leaves
from kerasgreedy.graph.supports import MASKED, layout, row_bytes
from kerasgreedy.plan.caching import GIGABYTE, gigabytes
from kerasgreedy.spec import layers as L
from kerasgreedy.spec.recipe import Recipe
from kerasgreedy.spec.solver import Alternation
from kerasgreedy.spec.training import Training


@dataclass(frozen=True)
class AlternationPlan:
    """What alternation does in a phase.

    Attributes:
        settings: of the recipe.
        beta: per example, or `warm_up`.
        layers: number of layers whose support is held.
        units: number of their outputs.
        row_bytes: of one example's stored masks; 0 where none are stored.
        images: training images.
        views: different views of the training data; 0 where every epoch draws new ones.
        store: `memory`, `disk`, or `none` for masks that are made for each batch.
        prunes: connections that no example's active path crosses are held at zero (a sparse phase).
    """

    settings: Alternation
    beta: float | str
    layers: int
    units: int
    row_bytes: int = 0
    images: int = 0
    views: int = 0
    store: str = "none"
    prunes: bool = False

    @property
    def bytes(self) -> int:
        """Of all stored masks."""
        return self.row_bytes * self.images * self.views

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**vars(self), "settings": self.settings.model_dump(mode="json"), "bytes": self.bytes}

    def __str__(self) -> str:
        """For people."""
        settings = self.settings
        what = f"{settings.mode} masks on {self.layers} layers ({self.units:,} units)"
        warm = f"after {_epochs(settings.warm_up_epochs)} without" if settings.warm_up_epochs else "from the start"
        prunes = ", unused connections pruned" if self.prunes else ""
        if self.store == "none":
            rule = "majority vote" if settings.vote == "majority" else "eq. 41"
            beta = "chosen after the warm-up" if self.beta == "warm_up" else f"{self.beta:g} an example"
            return f"{what}, {warm}; for each batch by {rule}, beta {beta}{prunes}"
        floats = gigabytes(4 * self.units * self.images * self.views)
        place = "in memory" if self.store == "memory" else "on disk"
        hold = "until the loss stops falling" if settings.refresh == "plateau" else f"for {_epochs(settings.refresh)}"
        views = f" x {self.views} views" if self.views > 1 else ""
        return (
            f"{what}, {warm}; held {hold}; {self.row_bytes:,} bytes an image, {gigabytes(self.bytes)} {place} for "
            f"{self.images:,} images{views} (as float32: {floats}){prunes}"
        )


def _epochs(count: int) -> str:
    return f"{count} epoch" + "s" * (count != 1)


def plan_alternation(
    recipe: Recipe, training: Training, trains: Sequence[Component], images: int, prunes: bool
) -> AlternationPlan | None:
    """Works out how large the masks of a phase are, and where they go; None where its solver is another.

    Args:
        training: of the phase.
        trains: components that train.
        images: training images.
        prunes: see `AlternationPlan`.

    Raises:
        PlanError: nothing to hold, augmentation that is never seen again, no room, or thresholds that nothing fixes.
    """
    place = next(place for place, other in recipe.trainings.items() if other == training)
    solver = training.solver
    warms_up = isinstance(solver, Alternation) and solver.warm_up_epochs > 0
    later = recipe.dsd is not None and recipe.dsd.by_masks  # the dense phase is the warm-up of the sparse one
    if place == ("training",) and not (recipe.start_from or warms_up or later):
        _check_thresholds(trains)
    if not isinstance(solver, Alternation):
        return None
    units = layout(trains, solver.hold_pools)
    if not any(unit.planes == 1 for unit in units.values()):
        message = f"nothing that trains has an activation with a support; allowed: {', '.join(MASKED)}"
        raise PlanError((*place, "solver", "name"), message)
    counted = sum(math.prod(unit.shape) for unit in units.values())
    beta = solver.example_beta(training.batch_size)
    views = recipe.data.views
    if solver.mode == "batch":
        return AlternationPlan(solver, beta, len(units), counted, views=views or 0, prunes=prunes)
    if views is None:
        message = (
            "received 'instance' with augmentation drawn anew in every epoch: a stored mask belongs to an example as it was "
            "seen. Set data.augment_views, leave out data.augment, or use mode: batch"
        )
        raise PlanError((*place, "solver", "mode"), message)
    row = row_bytes(units)
    store = _store(solver, row * images * views, place)
    return AlternationPlan(solver, beta, len(units), counted, row, images, views, store, prunes)


def _store(solver: Alternation, size: int, place: tuple[str, ...]) -> str:
    limits = {"memory": solver.memory_gb, "disk": solver.disk_gb}
    tried = [store for store in limits if solver.store in ("auto", store)]
    for store in tried:
        if size <= limits[store] * GIGABYTE:
            return store
    room = " nor ".join(f"{store}_gb {limits[store]:g}" for store in tried)
    key = "store" if solver.store == "auto" else f"{solver.store}_gb"
    message = f"masks of {gigabytes(size)} do not fit into {room}; more, fewer images or views, or mode: batch"
    raise PlanError((*place, "solver", key), message)


def _check_thresholds(trains: Sequence[Component]) -> None:
    """Refuses thresholds that come from a warm-up where there is none."""
    for component in trains:
        for node in leaves(component.nodes):
            threshold = node.layer.threshold if isinstance(node.layer, L.Activation) else None
            if threshold and threshold.learn == "warm_up":
                message = (
                    f"{component.name} has a threshold with learn: warm_up, which only solver alternation with warm_up_epochs "
                    "above 0 ends; use that, or learn: fixed or surrogate"
                )
                raise PlanError(("training", "solver"), message)
