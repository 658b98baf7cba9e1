"""Where the outputs of a phase's frozen prefix are kept, decided before anything runs. Imports no TensorFlow."""

import math
from dataclasses import dataclass

from kerasgreedy.graph.architecture import Architecture
from kerasgreedy.spec.recipe import Recipe
from kerasgreedy.spec.training import Training

GIGABYTE = 10**9
ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class CachePlan:
    """How the output of the frozen prefix reaches a phase.

    Attributes:
        store: `memory`, `disk`, or `none`: computed anew for each batch.
        dtype: what it is kept in.
        views: views of the training data that are kept.
        bytes: of all that is, or would be, kept.
        reason: why this was chosen.
    """

    store: str = "none"
    dtype: str = "float32"
    views: int = 0
    bytes: int = 0
    reason: str = "no frozen block before what trains"

    @property
    def used(self) -> bool:
        """Whether anything is kept."""
        return self.store != "none"

    def __str__(self) -> str:
        """`cached: 2 views, 1.30 GB in memory as float32`, or `images`."""
        if not self.used:
            return "images"
        views = f"{self.views} view" + "s" * (self.views > 1)
        place = "in memory" if self.store == "memory" else "on disk"
        return f"cached: {views}, {gigabytes(self.bytes)} {place} as {self.dtype}"


def plan_cache(arch: Architecture, recipe: Recipe, training: Training, prefix: int, images: tuple[int, int]) -> CachePlan:
    """Chooses for a phase whose first `prefix` blocks are frozen, and have no loss but at the last one's head.

    Args:
        training: of the phase.
        images: in the training and in the validation part.
    """
    if not prefix:
        return CachePlan()
    cache = recipe.cache
    dtype = cache.dtype or recipe.frozen_precision.removeprefix("mixed_")
    if not any(block.multiply_adds for block in arch.blocks[:prefix]):
        return CachePlan(dtype=dtype, reason="they cost no multiply-adds")
    if cache.store == "none":
        return CachePlan(dtype=dtype, reason="cache.store is none")
    views = recipe.data.views
    if views is None:
        return CachePlan(dtype=dtype, reason="every epoch draws new views; data.augment_views would fix them")
    if training.epochs <= views:
        return CachePlan(dtype=dtype, reason=f"{training.epochs} epoch(s) read each of {views} view(s) once at most")
    train, validation = images
    exact_train = training.watches and training.monitor == "train_loss" and recipe.data.augment.changes
    unaugmented = validation + train * exact_train
    size = math.prod(arch.blocks[prefix - 1].output_shape) * ITEM_BYTES[dtype]
    return _placed(recipe, dtype, views, (views * train + unaugmented) * size)


def _placed(recipe: Recipe, dtype: str, views: int, size: int) -> CachePlan:
    cache = recipe.cache
    too_large: list[str] = []
    for store, limit in (("memory", cache.memory_gb), ("disk", cache.disk_gb)):
        if cache.store not in ("auto", store):
            continue
        if size <= limit * GIGABYTE:
            told = f"; {too_large[0]}" if too_large else ""
            return CachePlan(store, dtype, views, size, f"{gigabytes(size)} fit into cache.{store}_gb {limit:g}{told}")
        too_large.append(f"{gigabytes(size)} do not fit into cache.{store}_gb {limit:g}")
    return CachePlan("none", dtype, views, size, " and ".join(too_large))


def gigabytes(size: float) -> str:
    """1234567890 as `1.23 GB`."""
    return f"{size / GIGABYTE:.2f} GB" if size >= GIGABYTE / 100 else f"{size / 1e6:.1f} MB"
