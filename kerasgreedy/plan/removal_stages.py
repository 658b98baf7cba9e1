"""Removals as stages of a plan: of weak filters, in rounds, and of what a structured penalty has made small. No TensorFlow."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kerasgreedy.plan.actions import PruneAction
from kerasgreedy.plan.removals import foresee, removal_targets
from kerasgreedy.plan.stages import phases_of
from kerasgreedy.plan.threshold_plan import threshold_action
from kerasgreedy.spec.pruning_settings import FineTune
from kerasgreedy.spec.regularizers import Limit

if TYPE_CHECKING:
    from kerasgreedy.plan.compile import Compiler


@dataclass(frozen=True)
class Removal:
    """Where a strategy lets filters be removed; see `Compiler.prune`."""

    name: str
    touches: tuple[str, ...]
    depths: range
    tuned: range
    stop_gradient: bool
    default: str
    loses: tuple[str, ...]


def add_pruning(plan: "Compiler", at: Removal) -> None:
    """Adds the rounds of `prune`, each with its fine-tuning, if the recipe asks for them."""
    settings = plan.recipe.prune
    if settings is None:
        return
    wanted = settings.components or list(at.loses) or None
    targets = _begun_targets(plan) or removal_targets(plan.arch, wanted, at.name, at.depths)
    if not targets:
        return
    before, start = 0.0, None
    for number, after in enumerate(settings.progress, start=1):
        mark = "_".join(["", *([at.name] if at.name else []), *([str(number)] if len(settings.progress) > 1 else [])])
        heads = tuple(plan.arch.heads[i].name for i in at.depths)
        counted = targets if at.name else (*(block.name for block in plan.arch.blocks[: at.depths[-1] + 1]), heads[-1])
        index = len(plan.stages)
        action = PruneAction(index, f"prune{mark}", targets, at.touches, heads, counted, settings, (before, after), start)
        foreseen = foresee(action, plan.spec, plan.arch, plan.done)
        action = foreseen.action
        if foreseen.spec is not None:
            plan.become(foreseen.spec)
        plan.idle += [foreseen.idle] if foreseen.idle else []
        plan.removals += 1
        start = action.start
        plan.stages.append(action)
        _add_tuning(plan, at, "prune", settings.fine_tune, mark)
        before = after


def add_threshold(plan: "Compiler", at: Removal) -> None:
    """Adds the removal of what is small, and its fine-tuning, if the recipe asks for it."""
    settings = plan.recipe.threshold
    if settings is None:
        return
    heads, mark = tuple(plan.arch.heads[i].name for i in at.depths), f"_{at.name}" if at.name else ""
    blocks = [at.name] if at.name else [block.name for block in plan.arch.blocks[: at.depths[-1] + 1]]
    among = at.loses or (*blocks, *heads)
    action = threshold_action(
        len(plan.stages),
        plan.arch,
        plan.done[len(plan.stages)] if plan.is_done("threshold") else None,
        settings,
        settings.measure(_trained_by(plan)),
        name=f"threshold{mark}",
        among=among,
        touches=at.touches,
        heads=heads,
        counted=among if at.name else (*blocks, heads[-1]),
        several_workers=plan.recipe.distribute == "multi_worker",
    )
    plan.stages.append(action)
    _add_tuning(plan, at, "threshold", settings.fine_tune, mark)


def _trained_by(plan: "Compiler") -> Sequence[Limit]:
    """The regularizers of the phase that a removal follows, which need not be those of the recipe's training."""
    phases = phases_of(plan.stages)
    return (phases[-1].training if phases else plan.recipe.training).regularizers


def _add_tuning(plan: "Compiler", at: Removal, section: str, settings: FineTune | None, mark: str) -> None:
    """Adds the fine-tuning of the network as a removal leaves it, of one block or of all."""
    if settings:
        losses = tuple(plan.arch.heads[i] for i in at.depths)
        blocks = [plan.arch.blocks[i] for i in at.tuned] if (settings.trains or at.default) == "all" else []
        block = at.depths[0] if at.name else None
        trains, place = (*blocks, *losses), (section, "fine_tune")
        plan.phase(f"fine_tune{mark}", trains, losses, at.stop_gradient, place, init="trained", block=block)


def _begun_targets(plan: "Compiler") -> tuple[str, ...]:
    """Those of a removal whose first round is done: by now they may have nothing left to lose."""
    entry = plan.done[len(plan.stages)] if len(plan.stages) < len(plan.done) else {}
    return tuple(entry.get("targets", ()))
