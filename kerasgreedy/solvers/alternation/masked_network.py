"""Evaluation of a run under masks instead of its activations (the support paper's '+MaskT')."""

import io
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import tensorflow as tf

from kerasgreedy.data.npz import array_names, read_array
from kerasgreedy.errors import InputError, WorkdirError
from kerasgreedy.graph.supports import layout
from kerasgreedy.network.build import Network
from kerasgreedy.network.walk import Instead
from kerasgreedy.plan.alternation_plan import AlternationPlan
from kerasgreedy.plan.preparation import Job
from kerasgreedy.plan.stages import Stage
from kerasgreedy.runs.checkpoint import Arrays
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.solvers.alternation.support import Estimated, Held, Shared
from kerasgreedy.spec.solver_settings import Alternation

Masks: TypeAlias = Literal["held", "instance", "batch"]
MASKS = ("held", "instance", "batch")


def masked_layers(
    folder: Workdir,
    job: Job,
    network: Network,
    entries: Sequence[Mapping[str, Any]],
    masks: Masks,
    rule: Literal["positive", "energy"] | None = None,
    beta: float | None = None,
) -> Callable[[tf.Tensor, tf.Tensor], Instead]:
    """(images, their weights) to what the layers of the last phase that alternated do instead of their activations.

    Args:
        network: with the weights that are evaluated.
        entries: of the finished stages.
        masks: `held`: each image's masks as the weights of the last refresh before the kept point give them, the network that
            training under stored masks has minimised the loss of; `instance`: its masks as the weights themselves give them
            (eq. 38); `batch`: one for the batch (eq. 41).
        rule, beta: instead of the run's.

    Raises:
        InputError: the run has no such masks.
    """
    if masks not in MASKS:
        raise InputError(f"masks: received {masks!r}; allowed: {', '.join(MASKS)}")
    done = job.phases[: len(entries)]
    phase = next((stage for stage in reversed(done) if isinstance(stage.solver_plan, AlternationPlan)), None)
    if phase is None or not entries[phase.index]["alternation"]["refreshes"]:
        raise InputError(f"{folder.path}: no finished phase in which solver alternation made masks; --masks needs one")
    assert isinstance(phase.solver_plan, AlternationPlan)
    settings = phase.solver_plan.settings
    # As all evaluation, without dropout.
    settings = settings.model_copy(update={"rule": rule or settings.rule, "dropout": "off"})
    replaced = {head for stage in done[phase.index :] for head in stage.resets}
    components = [job.architecture.components[name] for name in phase.trains if name not in replaced]
    units = layout(components, settings.hold_pools)
    found = entries[phase.index]["alternation"]["beta"]
    values = {key: found[key] if beta is None else beta for key, unit in units.items() if unit.is_mask}
    if settings.rule == "energy" and masks != "held" and not any(values.values()):
        raise InputError("--rule energy with beta 0 leaves every unit in; give --beta above 0")
    betas = {key: tf.constant(value) for key, value in values.items()}
    if masks == "batch":

        def shared(x: tf.Tensor, weights: tf.Tensor) -> Instead:
            return Shared(units, settings, betas, tf.reduce_sum(weights), weights)

        return shared
    weights_then = _weights(folder, phase, settings, replaced) if masks == "held" else {}
    then = Network(network.architecture, network.seed)
    for name in network.names:
        try:
            then.load_arrays(name, weights_then.get(name) or network.arrays(name))
        except InputError as error:
            raise InputError(f"--masks held: filters were removed after phase {phase.name} ({error})") from None
    depths = job.trained_depths(phase.index + 1)

    def own(x: tf.Tensor, weights: tf.Tensor) -> Instead:
        estimated = Estimated(units, settings, betas)
        then.logits(x, depths, instead=estimated)
        return Held(units, settings, estimated.bits())

    return own


def support_file(phase: int) -> str:
    """Where a run folder has the weights that a phase's stored masks were estimated with."""
    return f"support/phase_{phase + 1}.npz"


def packed(weights: Mapping[str, Arrays]) -> bytes:
    """Weights of components as an npz file."""
    buffer = io.BytesIO()
    named: dict[str, Any] = {f"{name}/{key}": value for name, arrays in weights.items() for key, value in arrays.items()}
    np.savez(buffer, **named)
    return buffer.getvalue()


def _weights(folder: Workdir, phase: Stage, settings: Alternation, replaced: Collection[str]) -> dict[str, Arrays]:
    """Component -> weights at the last refresh before the point that the phase kept."""
    if settings.mode == "batch":
        raise InputError("--masks: received 'held'; masks of mode batch are not held; allowed: instance, batch")
    file = folder.path / support_file(phase.index)
    if not file.is_file():
        raise WorkdirError(f"{file}: not there; allowed: --masks instance or batch")
    result: dict[str, dict[str, Any]] = {}
    for key in array_names(file):
        name = next((name for name in phase.trains if key.startswith(f"{name}/")), None)
        if name is None:
            raise WorkdirError(f"{file}: damaged (holds '{key}', which phase {phase.name} does not train)")
        if name not in replaced:
            result.setdefault(name, {})[key.removeprefix(f"{name}/")] = read_array(file, key)
    return dict(result)
