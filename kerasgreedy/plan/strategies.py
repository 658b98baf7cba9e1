"""Strategies: each is a function that emits the stages of a recipe. No TensorFlow."""

from typing import Any

from kerasgreedy.errors import PlanError
from kerasgreedy.graph.architecture import Architecture, Component
from kerasgreedy.graph.tree import Pad, show
from kerasgreedy.plan.compile import Compiler
from kerasgreedy.plan.convex_actions import FiltersAction, RectifyAction, check_rectified, taken_filters
from kerasgreedy.spec import layers as L
from kerasgreedy.spec.dsd import Dsd


def greedy(plan: Compiler) -> None:
    """Block after block, each with its own head on what is frozen before it (greedy, algorithm 1)."""
    for index in range(plan.taken, len(plan.arch.blocks)):
        block, head = plan.arch.blocks[index], plan.arch.heads[index]
        wanted = plan.recipe.training.init == "identity" and index > 0
        reason = identity_obstacle(plan.arch, index) if wanted else ""
        init: dict[str, Any] = {"init": "identity"} if wanted and not reason else {}
        plan.phase(block.name, (block, head), (head,), True, block=index, init_reason=reason, **init)
        # Blocks that are not trained yet may shrink with it, frozen ones may not.
        touches = tuple(c.name for pair in list(zip(plan.arch.blocks, plan.arch.heads, strict=True))[index:] for c in pair)
        own = range(index, index + 1)
        plan.prune(block.name, touches, own, own, True, "head")


def decoupled(plan: Compiler) -> None:
    """All blocks at once, each by its own head's loss: no gradient passes from one block to the one before."""
    _one_phase(plan, "decoupled", all_heads=True, stop_gradient=True)


def end_to_end(plan: Compiler) -> None:
    """The whole network by the last head's loss."""
    _one_phase(plan, "end_to_end", all_heads=False, stop_gradient=False)


def deep_supervision(plan: Compiler) -> None:
    """The whole network by the sum of all heads' losses."""
    _one_phase(plan, "deep_supervision", all_heads=True, stop_gradient=False)


def _one_phase(plan: Compiler, name: str, all_heads: bool, stop_gradient: bool) -> None:
    heads = plan.arch.heads[plan.taken :] if all_heads else plan.arch.heads[-1:]
    plan.phase(name, (*plan.arch.blocks[plan.taken :], *heads), heads, stop_gradient)
    _prune_all(plan, all_heads, stop_gradient)


def _prune_all(plan: Compiler, all_heads: bool, stop_gradient: bool = False, default: str = "all") -> None:
    count = len(plan.arch.blocks)
    depths = range(0 if all_heads else count - 1, count)
    plan.prune("", tuple(plan.arch.components), depths, range(count), stop_gradient, default)


def random_features(plan: Compiler) -> None:
    """All heads at once on blocks that are never trained."""
    heads = plan.arch.heads[plan.taken :]
    plan.phase("random_features", heads, heads, True)
    _prune_all(plan, all_heads=True, stop_gradient=True, default="head")


def convex(plan: Compiler) -> None:
    """Head after head, on blocks that take their first layer's filters from the head before and are never trained."""
    prune = plan.recipe.prune
    blocks = [block.name for block in plan.arch.blocks if prune and block.name in (prune.components or ())]
    if blocks:
        raise PlanError(("prune", "components"), f"received '{blocks[0]}'; strategy 'convex' trains heads only; allowed: heads")
    for index in range(plan.taken, len(plan.arch.blocks)):
        block, head = plan.arch.blocks[index], plan.arch.heads[index]
        if index > plan.taken:
            plan.act(FiltersAction, f"filters_{block.name}", **_filters(plan, index))
        plan.phase(block.name, (head,), (head,), True, block=index)
        own = range(index, index + 1)
        plan.prune(block.name, (head.name,), own, own, True, "head", loses=(head.name,))
    if plan.recipe.convex and plan.recipe.convex.rectify:
        for head in plan.arch.heads:
            if not plan.is_done("rectify"):
                check_rectified(head)
            plan.act(RectifyAction, f"rectify_{head.name}", head=head.name, images=plan.recipe.convex.images)


def _filters(plan: Compiler, index: int) -> dict[str, Any]:
    """What fills a block; of what is done, as it was: the head may have fewer filters by now."""
    if plan.is_done("filters"):
        entry = plan.done[len(plan.stages)]
        return {key: entry[key] for key in ("head", "layer", "filters")}
    return taken_filters(plan.arch, index, counted=not plan.done)


def compress(plan: Compiler) -> None:
    """Nothing but removal, its fine-tuning and a new head, on a network that was trained before."""
    _prune_all(plan, all_heads=plan.recipe.prune is not None and plan.recipe.prune.heads == "all")


def dsd(plan: Compiler) -> None:
    """Dense, sparse, dense (Han et al. 2017), end to end."""
    trains, losses = (*plan.arch.blocks[plan.taken :], plan.arch.heads[-1]), plan.arch.heads[-1:]
    settings = plan.recipe.dsd or Dsd()
    plan.phase("dense", trains, losses, False)
    plan.phase(
        "sparse", trains, losses, False, ("dsd", "sparse"), init="trained", sparsity=settings.pruning, prunes=settings.by_masks
    )
    plan.phase("dense_again", trains, losses, False, ("dsd", "dense"), init="trained")
    _prune_all(plan, all_heads=False)


def identity_obstacle(arch: Architecture, index: int) -> str:
    """Why block `index` cannot start as the identity with the previous head's weights; empty when it can.

    It can where it is one convolution that keeps resolution and width, both heads have the same layers, and its activation
    changes nothing of what the previous block's last one gives: relu(relu(x)) = relu(x), and eta*(eta*(x; b); a) = eta*(x; b)
    for 0 <= a <= b (a relu gives what eta*(x; 0) does).
    """
    block, before = arch.blocks[index], arch.blocks[index - 1]
    layers = [node.layer for node in block.nodes if not isinstance(node.layer, Pad)]
    kinds = [type(layer) for layer in layers]
    if kinds not in ([L.Conv, L.Activation], [L.Conv, L.BatchNorm, L.Activation]):
        return f"{block.name} is not one convolution with an activation"
    conv = layers[0]
    if block.input_shape != block.output_shape:
        return f"{block.name} maps {show(block.input_shape)} to {show(block.output_shape)}"
    if not isinstance(conv, L.Conv) or conv.groups != 1 or conv.kernel_size % 2 == 0:
        return f"{block.name}'s convolution is grouped or its kernel is even"
    passes, given = _passes_above(block), _passes_above(before)
    if passes is None or given is None or passes > given:
        return f"{before.name} and {block.name} must end in relu, or in {L.HARD_THRESHOLD} with the same one fixed beta >= 0"
    mine, theirs = ([(n.layer, n.input_shape) for n in arch.heads[i].nodes] for i in (index, index - 1))
    return "" if mine == theirs else f"head_{index} and head_{index + 1} differ"


def _passes_above(block: Component) -> float | None:
    """b, where the block ends in an activation that passes numbers above b >= 0 as they are and gives 0 else; or None."""
    layer = block.nodes[-1].layer
    if not isinstance(layer, L.Activation):
        return None
    if layer.threshold is None:
        return 0.0 if layer.activation == "relu" else None
    known = (layer.threshold.learn, layer.threshold.per) == ("fixed", "layer") and layer.threshold.beta >= 0
    return layer.threshold.beta if known else None
