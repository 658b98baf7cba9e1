"""What a removal of filters takes and leaves, as far as that is known before anything runs. No TensorFlow."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kerasgreedy.errors import did_you_mean
from kerasgreedy.graph.architecture import Architecture
from kerasgreedy.graph.chains import find_chains, no_scale
from kerasgreedy.graph.coupling import Coupling, Group, find_coupling, kept
from kerasgreedy.graph.rewriting import without
from kerasgreedy.plan.actions import PruneAction
from kerasgreedy.plan.amounts import AmountError, Ranking, Start, choose, selectable, why_nothing
from kerasgreedy.spec.model import ModelSpec


@dataclass(frozen=True)
class Foreseen:
    """What is known of a removal.

    Attributes:
        action: with the sizes that it leaves, where the settings alone decide them.
        spec: of the network that it leaves, where these are known and it has not been done.
        idle: why it will remove nothing.
    """

    action: PruneAction
    spec: ModelSpec | None = None
    idle: AmountError | None = None


def removal_targets(arch: Architecture, wanted: list[str] | None, name: str, depths: range) -> tuple[str, ...]:
    """The components that shall lose filters: by default a greedy phase's block, else all blocks and heads with a loss.

    Args:
        wanted: what the recipe, or the strategy, asks for.
        name: of the block after whose phase it is; empty: after the only phase.
        depths: indices of the heads that have a loss.

    Raises:
        AmountError: one of them cannot.
    """
    heads = [arch.heads[i].name for i in depths]
    able = [*([name] if name else [block.name for block in arch.blocks[: depths[-1] + 1]]), *heads]
    with_filters = {component for group in find_coupling(arch).groups for component in group.components}
    if wanted is None:
        return tuple(component for component in (able[:-1] if name else able) if component in with_filters)
    for component in wanted:
        if component not in arch.components:
            hint = did_you_mean(component, arch.components) or f"; allowed: {', '.join(arch.components)}"
            raise AmountError("components", f"received '{component}'{hint}")
        if component not in with_filters:
            raise AmountError("components", f"received '{component}', which has no filters that can be removed")
        if not name and component not in able:
            raise AmountError("components", f"received '{component}', which has no loss; allowed: {', '.join(able)}")
    return tuple(component for component in able if component in wanted)


def foresee(action: PruneAction, spec: ModelSpec, arch: Architecture, done: Sequence[Mapping[str, Any]]) -> Foreseen:
    """What a removal will come to.

    Args:
        spec, arch: of the network before it.
        done: entries of the stages that are done.

    Raises:
        AmountError: it cannot be done.
    """
    if action.index < len(done):
        entry = done[action.index]
        changed = tuple((name, old, new) for name, (old, new) in entry["filters"].items())
        return Foreseen(replace(action, start=Start(**entry["start"]), planned=changed))
    settings = action.settings
    coupling = find_coupling(arch)
    groups = selectable(coupling, action.targets, action.touches, action.begun)
    if settings.importance == "batch_norm_scale":
        _check_scales(action, arch, groups)
    start = action.start or Start.of(arch, groups, action.counted)
    action = replace(action, start=start)
    if settings.accuracy_drop is not None or settings.zeros:
        return Foreseen(action)
    ranking = Ranking(coupling, groups, None, settings.ranking, action.final)
    removed = choose(spec, coupling, ranking, settings, action.counted, action.progress[1], start)
    idle = why_nothing(settings, coupling, groups, start) if not removed and not done else None
    if settings.ranking == "global" and len(groups) > 1:
        return Foreseen(action, idle=idle)
    return Foreseen(replace(action, planned=changes(coupling, groups, removed)), without(spec, coupling, removed), idle)


def _check_scales(action: PruneAction, arch: Architecture, groups: Sequence[Group]) -> None:
    """Refuses a layer without batch norm now, and not when its filters are to be ranked."""
    depth = action.depth(arch)
    run = [*arch.blocks[:depth], *(head for head in arch.heads if head.name in action.heads)]
    chains = {(c.name, name): chain for c in run for name, chain in find_chains(c.nodes).items()}
    for place in (filter_.place for group in groups for item in group.items for filter_ in item.filters):
        if place in chains and chains[place].batch_norm is None:
            raise AmountError("importance", no_scale(place))


def changes(coupling: Coupling, groups: Sequence[Group], removed: Collection[int]) -> tuple[tuple[str, int, int], ...]:
    """(layer, filters before, filters after) for every layer of some groups."""
    places = dict.fromkeys(place for group in groups for place in group.places)
    return tuple(("/".join(place), len(coupling.outputs[place]), len(kept(coupling.outputs[place], removed))) for place in places)
