"""What alternation will do in a phase, decided before anything runs. Imports no TensorFlow."""

import math
from dataclasses import dataclass
from typing import Any

from kerasgreedy.graph.supports import MASKED, drop_rate, layout, row_bytes
from kerasgreedy.graph.tree import leaves
from kerasgreedy.plan.caching import GIGABYTE, gigabytes
from kerasgreedy.plan.solver_plans import SolverRequest
from kerasgreedy.plan.stages import SolverPlan
from kerasgreedy.spec.solver_settings import Alternation


@dataclass(frozen=True)
class AlternationPlan(SolverPlan):
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
        prunes: how connections are told that are held at zero, in a sparse phase: `dsd.unused`; None: none are.
        weight_beta: of `dsd`.
    """

    settings: Alternation
    beta: float | str
    layers: int
    units: int
    row_bytes: int = 0
    images: int = 0
    views: int = 0
    store: str = "none"
    prunes: str | None = None
    weight_beta: float | None = None

    reads_alone = True

    @property
    def bytes(self) -> int:
        """Of all stored masks."""
        return self.row_bytes * self.images * self.views

    def as_dict(self) -> dict[str, Any]:
        return {"alternation": {**vars(self), "settings": self.settings.model_dump(mode="json"), "bytes": self.bytes}}

    @property
    def takes_rows(self) -> bool:  # type: ignore[override]
        return self.settings.mode == "instance"

    @property
    def keeps_files(self) -> bool:  # type: ignore[override]
        return self.store == "disk"

    @property
    def ends_warm_up(self) -> bool:  # type: ignore[override]
        return self.settings.warm_up_epochs > 0

    def __str__(self) -> str:
        settings = self.settings
        what = f"{settings.mode} masks on {self.layers} layers ({self.units:,} units)"
        warm = f"after {_epochs(settings.warm_up_epochs)} without" if settings.warm_up_epochs else "from the start"
        unused = {
            "paths": "unused connections",
            "filters": "unused filters",
            "weights": f"weights with w^2 <= {self.weight_beta}",
        }
        prunes = f", {unused[self.prunes]} pruned" if self.prunes else ""
        prunes += {"drawn": "", "held": ", dropout held with them", "off": ", dropout off under them"}[settings.dropout]
        if self.store == "none":
            rule = "majority vote" if settings.vote == "majority" else "eq. 41"
            beta = "chosen after the warm-up" if self.beta == "warm_up" else f"{self.beta:g} an example"
            return f"{what}, {warm}; for each batch by {rule}, beta {beta}{prunes}"
        floats = gigabytes(4 * self.units * self.images * self.views)
        place = "in memory" if self.store == "memory" else "on disk"
        hold = "until the loss stops falling" if settings.refresh == "plateau" else f"for {_epochs(settings.refresh)}"
        views = f" x {self.views} views" if self.views > 1 else ""
        prunes += ", recorded while an epoch trains" if settings.estimate == "live_epoch" else ""
        return (
            f"{what}, {warm}; held {hold}; {self.row_bytes:,} bytes an image, {gigabytes(self.bytes)} {place} for "
            f"{self.images:,} images{views} (as float32: {floats}){prunes}"
        )


def _epochs(count: int) -> str:
    return f"{count} epoch" + "s" * (count != 1)


def plan_alternation(solver: Alternation, asked: SolverRequest) -> AlternationPlan:
    """Works out how large the masks of a phase are, and where they go.

    Raises:
        PlanError: nothing to hold, augmentation that is never seen again, or no room.
    """
    units = layout(asked.trains, solver.hold_pools, solver.dropout == "held")
    if not any(unit.is_mask for unit in units.values()):
        message = f"nothing that trains has an activation with a support; allowed: {', '.join(MASKED)}"
        raise asked.refused(("name",), message)
    if solver.dropout != "drawn" and not any(drop_rate(node) for part in asked.trains for node in leaves(part.nodes)):
        raise asked.refused(("dropout",), f"received '{solver.dropout}'; nothing that trains has dropout; leave it out")
    counted = sum(math.prod(unit.shape) for unit in units.values())
    beta = solver.example_beta(asked.training.batch_size)
    views, dsd = asked.recipe.data.views, asked.recipe.dsd if asked.prunes else None
    prunes, weight_beta = (dsd.unused or "paths", dsd.weight_beta) if dsd else (None, None)
    if solver.mode == "batch":
        return AlternationPlan(solver, beta, len(units), counted, views=views or 0, prunes=prunes, weight_beta=weight_beta)
    if views is None:
        message = (
            "received 'instance' with augmentation drawn anew in every epoch: a stored mask belongs to an example as it was "
            "seen. Set data.augment_views, leave out data.augment, or use mode: batch"
        )
        raise asked.refused(("mode",), message)
    if solver.estimate == "live_epoch":
        _recorded(asked, views)
    row = row_bytes(units)
    store = _store(solver, row * asked.images * views, asked)
    return AlternationPlan(solver, beta, len(units), counted, row, asked.images, views, store, prunes, weight_beta)


def _recorded(asked: SolverRequest, views: int) -> None:
    """Refuses what masks cannot be recorded for while an epoch trains."""
    if views > 1:
        message = f"received 'live_epoch' with {views} views, of which an epoch sees one; allowed: data.augment_views 1, or pass"
        raise asked.refused(("estimate",), message)
    if asked.training.accumulation > 1:
        message = "received 'live_epoch' with accumulation, but batches are recorded whole; leave out accumulation, or use pass"
        raise asked.refused(("estimate",), message)
    if asked.prunes:
        message = "received 'live_epoch' in a sparse phase, which prunes before it trains; allowed: pass"
        raise asked.refused(("estimate",), message)


def _store(solver: Alternation, size: int, asked: SolverRequest) -> str:
    limits = {"memory": solver.memory_gb, "disk": solver.disk_gb}
    tried = [store for store in limits if solver.store in ("auto", store)]
    for store in tried:
        if size <= limits[store] * GIGABYTE:
            return store
    room = " nor ".join(f"{store}_gb {limits[store]:g}" for store in tried)
    key = "store" if solver.store == "auto" else f"{solver.store}_gb"
    message = f"masks of {gigabytes(size)} do not fit into {room}; more, fewer images or views, or mode: batch"
    raise asked.refused((key,), message)
