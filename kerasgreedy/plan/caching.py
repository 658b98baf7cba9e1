"""Where the outputs of a phase's frozen prefix are kept, decided before anything runs. Imports no TensorFlow."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kerasgreedy.graph.architecture import Architecture, Component
from kerasgreedy.graph.kinds import kind_of
from kerasgreedy.graph.tree import Node
from kerasgreedy.spec.objective_settings import OutputObjective
from kerasgreedy.spec.recipe import Recipe
from kerasgreedy.spec.solver_settings import PlainSolver
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
        front: layers of the head, `head_1/gated_conv_1`, whose output is kept in the place of the block's.
    """

    store: str = "none"
    dtype: str = "float32"
    views: int = 0
    bytes: int = 0
    reason: str = "no frozen block before what trains"
    front: tuple[str, ...] = ()

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


def fixed_front(head: Component, training: Training) -> tuple[Node, ...]:
    """The first layers of a head that trains, as far as they give the same for an image in every epoch; the last costs something.

    Nothing where what trains the head looks at these layers, or at what the head stands on.
    """
    looks_inside = any(settings.of_batches for settings in training.regularizers)
    of_outputs = isinstance(training.objective_of(head.name), OutputObjective)
    if looks_inside or not of_outputs or not isinstance(training.solver, PlainSolver):
        return ()
    changes = lambda node: node.children or node.parameters or kind_of(node.layer).takes_training  # noqa: E731
    fixed = tuple(itertools.takewhile(lambda node: not changes(node), head.nodes))
    costly = [place for place, node in enumerate(fixed, start=1) if node.multiply_adds]
    return fixed[: costly[-1]] if costly else ()


def plan_cache(
    arch: Architecture,
    recipe: Recipe,
    training: Training,
    prefix: int,
    images: tuple[int, int],
    head: Component | None = None,
) -> CachePlan:
    """Chooses for a phase whose first `prefix` blocks are frozen, and have no loss but at the last one's head.

    What fixed layers at the start of a head give may be far larger than what the head is given: it is kept on disk only where
    that is asked for.

    Args:
        training: of the phase.
        images: in the training and in the validation part.
        head: on the last of these blocks, if it trains and nothing else has a loss.
    """
    if not prefix:
        return CachePlan()
    front = fixed_front(head, training) if head else ()
    blocks = _plan(arch, recipe, training, prefix, images, ())
    if not head or not front:
        return blocks
    both = replace(_plan(arch, recipe, training, prefix, images, front), front=tuple(f"{head.name}/{n.name}" for n in front))
    if both.store == "memory" or (both.used and recipe.cache.store == "disk"):
        return both
    return blocks if blocks.used else replace(blocks, reason=f"{blocks.reason}; with {', '.join(both.front)}: {both.reason}")


def _plan(
    arch: Architecture, recipe: Recipe, training: Training, prefix: int, images: tuple[int, int], front: Sequence[Node]
) -> CachePlan:
    cache = recipe.cache
    dtype = cache.dtype or (recipe.precision if front else recipe.frozen_precision).removeprefix("mixed_")
    if not front and not any(block.multiply_adds for block in arch.blocks[:prefix]):
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
    size = math.prod((front[-1] if front else arch.blocks[prefix - 1]).output_shape) * ITEM_BYTES[dtype]
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
