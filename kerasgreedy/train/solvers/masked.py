"""Evaluation of a run under masks instead of its activations (the support paper's '+MaskT')."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import tensorflow as tf

from kerasgreedy.build import Network
from kerasgreedy.errors import InputError, WorkdirError
from kerasgreedy.spec.solver import Alternation
from kerasgreedy.train.checkpoint import Arrays
from kerasgreedy.train.job import Job
from kerasgreedy.train.solvers.layout import layout
from kerasgreedy.train.solvers.support import Estimated, Held, Shared
from kerasgreedy.train.stages import Phase
from kerasgreedy.train.workdir import Workdir
from kerasgreedy.walk import Instead

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
        masks: `held`: each image's masks as the weights of the last refresh give them, the network that training under stored
            masks has minimised the loss of; `instance`: its masks as the weights themselves give them (eq. 38); `batch`: one for
            the batch (eq. 41).
        rule, beta: instead of the run's.

    Raises:
        InputError: the run has no such masks.
    """
    phase = next((stage for stage in reversed(job.phases) if isinstance(stage, Phase) and stage.alternation), None)
    if phase is None or phase.alternation is None or phase.index >= len(entries):
        raise InputError(f"{folder.path}: no finished phase with solver alternation; --masks needs one")
    settings = phase.alternation.settings
    settings = settings.model_copy(update={"rule": rule or settings.rule})
    units = layout([job.architecture.components[name] for name in phase.trains], settings.hold_pools)
    found = entries[phase.index]["alternation"]["beta"]
    betas = {key: tf.constant(found[key] if beta is None else beta) for key, unit in units.items() if unit.planes == 1}
    if masks == "batch":

        def shared(x: tf.Tensor, weights: tf.Tensor) -> Instead:
            return Shared(units, settings, betas, tf.reduce_sum(weights), weights)

        return shared
    weights_then = _weights(folder, phase, settings) if masks == "held" else {}
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


def packed(weights: Mapping[str, Arrays]) -> bytes:
    """Weights of components as an npz file."""
    buffer = io.BytesIO()
    named: dict[str, Any] = {f"{name}/{key}": value for name, arrays in weights.items() for key, value in arrays.items()}
    np.savez(buffer, **named)
    return buffer.getvalue()


def _weights(folder: Workdir, phase: Phase, settings: Alternation) -> dict[str, Arrays]:
    """Component -> weights at the phase's last refresh."""
    if settings.mode == "batch":
        raise InputError("--masks: received 'held'; masks of mode batch are not held; allowed: instance, batch")
    file = folder.support(phase.index)
    try:
        with np.load(file) as arrays:
            result: dict[str, dict[str, Any]] = {}
            for key in arrays.files:
                name = next(name for name in phase.trains if key.startswith(f"{name}/"))
                result.setdefault(name, {})[key.removeprefix(f"{name}/")] = arrays[key]
            return dict(result)
    except (OSError, ValueError, StopIteration) as error:
        raise WorkdirError(f"{file}: damaged ({error})") from None
