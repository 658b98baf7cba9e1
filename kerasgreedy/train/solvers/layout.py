"""Which layers of a phase have a support, and where its bits lie. Imports no TensorFlow."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from kerasgreedy.spec import layers as L
from kerasgreedy.spec.architecture import Component
from kerasgreedy.spec.lower import Node, Shape
from kerasgreedy.spec.solver import Alternation
from kerasgreedy.train.caching import GIGABYTE, gigabytes

# Activations that only let values through or not, so that a mask can stand for them.
MASKED = ("relu", "positive_hard_threshold")
Layout: TypeAlias = dict[str, "Unit"]


@dataclass(frozen=True)
class Unit:
    """The support of one layer.

    Attributes:
        shape: of the layer's output, without the batch axis.
        offset: first byte of an example's row that belongs to it.
        planes: bits of each output: 1 for a mask; for a max-pool, as many as number the places of its window.
    """

    shape: Shape
    offset: int
    planes: int = 1

    @property
    def plane_bytes(self) -> int:
        """Bytes of one plane; each begins a new byte."""
        return math.ceil(math.prod(self.shape) / 8)

    @property
    def bytes(self) -> int:
        """Of one example."""
        return self.planes * self.plane_bytes


def is_masked(node: Node) -> bool:
    """Whether the layer is an activation that a mask can stand for."""
    return isinstance(node.layer, L.Activation) and node.layer.activation in MASKED


def pool_size(node: Node) -> int:
    """Side of the window of a max-pool; 0 for any other layer."""
    if isinstance(node.layer, L.MaxPool):
        return node.layer.max_pool
    if isinstance(node.layer, L.Downsample) and node.layer.downsample == "max":
        return node.layer.factor
    return 0


def layout(components: Sequence[Component], pools: bool) -> Layout:
    """`component/layer` -> its place, for every layer of some components that has a support.

    Args:
        pools: max-pools are held too.
    """
    result: Layout = {}
    offset = 0
    for component in components:
        for node in _leaves(component.nodes):
            planes = 1 if is_masked(node) else math.ceil(math.log2(pool_size(node) ** 2)) if pools and pool_size(node) > 1 else 0
            if planes:
                unit = Unit(node.output_shape, offset, planes)
                result[f"{component.name}/{node.name}"] = unit
                offset += unit.bytes
    return result


def _leaves(nodes: Sequence[Node]) -> Iterator[Node]:
    for node in nodes:
        yield from (leaf for child in node.children for leaf in _leaves(child)) if node.children else (node,)


def row_bytes(units: Layout) -> int:
    """Of one example: the sum over all layers."""
    return sum(unit.bytes for unit in units.values())


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
        warm = f"after {settings.warm_up_epochs} epochs without" if settings.warm_up_epochs else "from the start"
        prunes = ", unused connections pruned" if self.prunes else ""
        if self.store == "none":
            rule = "majority vote" if settings.vote == "majority" else "eq. 41"
            return f"{what}, {warm}; for each batch by {rule}, beta {self.beta} an example{prunes}"
        floats = gigabytes(4 * self.units * self.images * self.views)
        place = "in memory" if self.store == "memory" else "on disk"
        hold = "the loss stops falling" if settings.refresh == "plateau" else f"{settings.refresh} epochs"
        views = f" x {self.views} views" if self.views > 1 else ""
        return (
            f"{what}, {warm}; held until {hold}; {self.row_bytes:,} bytes an image, {gigabytes(self.bytes)} {place} for "
            f"{self.images:,} images{views} (as float32: {floats}){prunes}"
        )


class MaskError(Exception):
    """Masks cannot be had; `key` is that of the solver which is to blame."""

    def __init__(self, key: str, message: str):
        super().__init__(message)
        self.key, self.message = key, message


def plan_alternation(
    settings: Alternation, components: Sequence[Component], batch_size: int, images: int, views: int | None, prunes: bool
) -> AlternationPlan:
    """Works out how large the masks are, and where they go.

    Args:
        components: that train.
        images: training images.
        views: different views of them; None where every epoch draws new ones.

    Raises:
        MaskError: nothing to hold, augmentation that is never seen again, or no room.
    """
    units = layout(components, settings.hold_pools)
    if not any(unit.planes == 1 for unit in units.values()):
        raise MaskError("name", f"nothing that trains has an activation with a support; allowed: {', '.join(MASKED)}")
    counted = sum(math.prod(unit.shape) for unit in units.values())
    beta = settings.example_beta(batch_size)
    plan = AlternationPlan(settings, beta, len(units), counted, views=views or 0, prunes=prunes)
    if settings.mode == "batch":
        return plan
    if views is None:
        raise MaskError(
            "mode",
            "received 'instance' with augmentation drawn anew in every epoch: a stored mask belongs to an example as it was "
            "seen. Set data.augment_views, leave out data.augment, or use mode: batch",
        )
    row = row_bytes(units)
    size = row * images * views
    limits = {"memory": settings.memory_gb, "disk": settings.disk_gb}
    tried = [store for store in limits if settings.store in ("auto", store)]
    store = next((store for store in tried if size <= limits[store] * GIGABYTE), None)
    if store is None:
        room = " nor ".join(f"{store}_gb {limits[store]:g}" for store in tried)
        key = "store" if settings.store == "auto" else f"{settings.store}_gb"
        raise MaskError(key, f"masks of {gigabytes(size)} do not fit into {room}; more, fewer images or views, or mode: batch")
    return AlternationPlan(settings, beta, len(units), counted, row, images, views, store, prunes)
