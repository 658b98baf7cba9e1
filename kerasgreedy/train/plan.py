"""Recipe + spec -> an ordered list of phases: plain data that is printed before anything runs. Imports no TensorFlow."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from kerasgreedy.spec import layers as L
from kerasgreedy.spec.architecture import Architecture, Component
from kerasgreedy.spec.dsd import Dsd
from kerasgreedy.spec.lower import show
from kerasgreedy.spec.recipe import Recipe
from kerasgreedy.spec.sparsity import ConstantSparsity, PolynomialDecay
from kerasgreedy.spec.training import Training
from kerasgreedy.train.caching import CachePlan, plan_cache

Components: TypeAlias = tuple[Component, ...]


@dataclass(frozen=True)
class Phase:
    """One stage of training.

    Attributes:
        index: from 0.
        name: for people and for logs.
        trains: components whose weights move.
        frozen: components that the phase runs but does not change.
        losses: heads that have a loss; the phase minimises the sum of their losses.
        stop_gradient: no gradient passes from one block to the one before.
        training: epochs, optimiser, schedule, what is kept.
        block: index of the block that a greedy phase trains; None where a phase trains several.
        solver: how the phase's problem is solved.
        prefix: blocks before the first that trains or has a loss at its head; all of them are frozen.
        cache: how the prefix's output reaches the phase.
        sparsity: kernels of what trains are pruned by this schedule over the phase's steps; None: they are dense.
        precision, prefix_precision: what trained and frozen components compute in.
        init: `fresh`; `trained`: with the weights of the phase before; or `identity`: block and head start from the previous
            ones (greedy, Prop. 3.1).
        init_reason: why `identity` was asked for and cannot be done here, else empty.
        parameters: number of weights that move.
        multiply_adds: of one image, forward, through all that the phase runs.
        prefix_multiply_adds: of them, those of the prefix.
        training_multiply_adds: of one image's step: forward, and twice as much again for what trains. A cached prefix does not
            count: it is run once for each view.
    """

    index: int
    name: str
    trains: tuple[str, ...]
    frozen: tuple[str, ...]
    losses: tuple[str, ...]
    stop_gradient: bool
    training: Training
    parameters: int
    multiply_adds: int
    prefix_multiply_adds: int
    training_multiply_adds: int
    init: str = "fresh"
    init_reason: str = ""
    block: int | None = None
    solver: str = "sgd"
    prefix: int = 0
    cache: CachePlan = field(default_factory=CachePlan)
    sparsity: ConstantSparsity | PolynomialDecay | None = None
    precision: str = "float32"
    prefix_precision: str = "float32"

    @property
    def epochs(self) -> int:
        """Passes over the training data."""
        return self.training.epochs

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
        cache = {"cache": self.cache.store} | {f"cache_{key}": value for key, value in vars(self.cache).items() if key != "store"}
        sparsity = self.sparsity.model_dump(mode="json") if self.sparsity else None
        training = self.training.model_dump(mode="json")
        return {**plain, **cache, "epochs": self.epochs, "training": training, "sparsity": sparsity}

    def total_multiply_adds(self, images: int) -> int:
        """Of the whole phase on so many training images, evaluation left out."""
        return images * (
            self.epochs * self.training_multiply_adds + self.cache.views * self.prefix_multiply_adds * self.cache.used
        )


def compile_plan(arch: Architecture, recipe: Recipe, images: tuple[int, int] = (0, 0)) -> tuple[Phase, ...]:
    """The phases of a recipe's strategy on an architecture.

    Args:
        images: in the training and in the validation part; they decide whether a cache fits.
    """
    return _STRATEGIES[recipe.strategy](_Compiler(arch, recipe, images))


@dataclass(frozen=True)
class _Compiler:
    """Fills in what follows from a phase's components."""

    arch: Architecture
    recipe: Recipe
    images: tuple[int, int]

    def phase(self, name: str, trains: Components, losses: Components, stop_gradient: bool, **more: Any) -> Phase:
        arch, recipe = self.arch, self.recipe
        deepest = max(arch.heads.index(head) for head in losses)
        frozen = tuple(block for block in arch.blocks[: deepest + 1] if block not in trains)
        places = [i for i, pair in enumerate(zip(arch.blocks, arch.heads, strict=True)) if pair[0] in trains or pair[1] in losses]
        cache = plan_cache(arch, recipe, places[0], self.images)
        trained, fixed = (sum(component.multiply_adds for component in part) for part in (trains, frozen))
        prefix = sum(block.multiply_adds for block in arch.blocks[: places[0]])
        return Phase(
            name=name,
            trains=tuple(component.name for component in trains),
            frozen=tuple(component.name for component in frozen),
            losses=tuple(component.name for component in losses),
            stop_gradient=stop_gradient,
            parameters=sum(component.parameters for component in trains),
            multiply_adds=trained + fixed,
            prefix_multiply_adds=prefix,
            training_multiply_adds=3 * trained + fixed - prefix * cache.used,
            prefix=places[0],
            cache=cache,
            precision=recipe.precision,
            prefix_precision=recipe.frozen_precision,
            **{"index": 0, "training": recipe.training, **more},
        )


def _greedy(plan: _Compiler) -> tuple[Phase, ...]:
    phases = []
    for index, (block, head) in enumerate(zip(plan.arch.blocks, plan.arch.heads, strict=True)):
        wanted = plan.recipe.training.init == "identity" and index > 0
        reason = identity_obstacle(plan.arch, index) if wanted else ""
        init = "identity" if wanted and not reason else "fresh"
        more = {"index": index, "block": index, "init": init, "init_reason": reason}
        phases.append(plan.phase(block.name, (block, head), (head,), True, **more))
    return tuple(phases)


def _decoupled(plan: _Compiler) -> tuple[Phase, ...]:
    return (plan.phase("decoupled", (*plan.arch.blocks, *plan.arch.heads), plan.arch.heads, True),)


def _end_to_end(plan: _Compiler) -> tuple[Phase, ...]:
    return (plan.phase("end_to_end", (*plan.arch.blocks, plan.arch.heads[-1]), plan.arch.heads[-1:], False),)


def _deep_supervision(plan: _Compiler) -> tuple[Phase, ...]:
    return (plan.phase("deep_supervision", (*plan.arch.blocks, *plan.arch.heads), plan.arch.heads, False),)


def _random_features(plan: _Compiler) -> tuple[Phase, ...]:
    return (plan.phase("random_features", plan.arch.heads, plan.arch.heads, True),)


def _dsd(plan: _Compiler) -> tuple[Phase, ...]:
    """Dense, sparse, dense (Han et al. 2017), end to end."""
    trains, losses = (*plan.arch.blocks, plan.arch.heads[-1]), plan.arch.heads[-1:]
    pruning = (plan.recipe.dsd or Dsd()).pruning
    phases = (("dense", "fresh", None), ("sparse", "trained", pruning), ("dense_again", "trained", None))
    return tuple(
        plan.phase(name, trains, losses, False, index=index, init=init, sparsity=sparsity, training=training)
        for index, ((name, init, sparsity), training) in enumerate(zip(phases, plan.recipe.trainings, strict=True))
    )


_STRATEGIES: dict[str, Callable[[_Compiler], tuple[Phase, ...]]] = {
    "greedy": _greedy,
    "decoupled": _decoupled,
    "end_to_end": _end_to_end,
    "deep_supervision": _deep_supervision,
    "random_features": _random_features,
    "dsd": _dsd,
}


def identity_obstacle(arch: Architecture, index: int) -> str:
    """Why block `index` cannot start as the identity with the previous head's weights; empty when it can.

    It can where it is one convolution that keeps resolution and width, its activation and the previous block's last one are
    relu (relu(relu(x)) = relu(x)), and both heads have the same layers.
    """
    block, before = arch.blocks[index], arch.blocks[index - 1]
    kinds = [type(node.layer) for node in block.nodes]
    if kinds not in ([L.Conv, L.Activation], [L.Conv, L.BatchNorm, L.Activation]):
        return f"{block.name} is not one convolution with an activation"
    conv = block.nodes[0].layer
    if block.input_shape != block.output_shape:
        return f"{block.name} maps {show(block.input_shape)} to {show(block.output_shape)}"
    if not isinstance(conv, L.Conv) or conv.groups != 1 or conv.kernel_size % 2 == 0:
        return f"{block.name}'s convolution is grouped or its kernel is even"
    if not (_ends_in_relu(block) and _ends_in_relu(before)):
        return f"{before.name} and {block.name} must end in relu"
    mine, theirs = ([(n.layer, n.input_shape) for n in arch.heads[i].nodes] for i in (index, index - 1))
    return "" if mine == theirs else f"head_{index} and head_{index + 1} differ"


def _ends_in_relu(block: Component) -> bool:
    layer = block.nodes[-1].layer
    return isinstance(layer, L.Activation) and layer.activation == "relu"
