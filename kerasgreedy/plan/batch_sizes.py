"""Whether the batches of a job fit its devices and the memory, before anything runs. Imports no TensorFlow."""

import math
from dataclasses import dataclass

from kerasgreedy.data.memory import available_memory
from kerasgreedy.errors import InputError
from kerasgreedy.graph.architecture import Architecture
from kerasgreedy.graph.kinds import has_kernel
from kerasgreedy.graph.tree import leaves, show
from kerasgreedy.plan.caching import ITEM_BYTES, gigabytes
from kerasgreedy.plan.preparation import Job
from kerasgreedy.plan.stages import Phase, phases_of
from kerasgreedy.spec import layers as L


@dataclass(frozen=True)
class Need:
    """Memory that a step holds at the very least.

    Attributes:
        bytes: at once, on all devices of a process.
        layer: whose tensors they are, `block_1/conv_1`.
        shape: of one example's output of the layer.
        images: examples at a time.
    """

    bytes: int
    layer: str
    shape: tuple[int, ...]
    images: int


def whole_shares(batch_size: int, replicas: int) -> int:
    """The least batch of that size or more that gives every device the same: evaluation fills it up with images of weight 0."""
    return -(-batch_size // replicas) * replicas


def check_batch(batch_size: int, replicas: int, parts: int = 1) -> None:
    """Refuses a batch that cannot be divided among devices and parts.

    Raises:
        InputError: it is too small, or the parts would not be equal.
    """
    share = -(-batch_size // replicas)
    if share * (replicas - 1) >= batch_size:  # a device would get nothing, and a convolution's gradient ends the process
        raise InputError(
            f"batch size {batch_size} does not reach {replicas} devices ({share} on each, none for the last); allowed: "
            f"{whole_shares(batch_size, replicas)}, or any number from {(replicas - 1) ** 2 + 1} on"
        )
    if parts > 1 and batch_size % (parts * replicas):
        raise InputError(
            f"training.accumulation: batch size {batch_size} cannot be divided into {parts} equal parts on {replicas} devices"
        )


def check_batches(job: Job, replicas: int, workers: int, on_cpu: bool) -> None:
    """Refuses a job whose batches fit neither its devices nor, on CPUs, the memory.

    On a CPU TensorFlow does not always survive an allocation that fails; a GPU's own memory is known to TensorFlow alone.

    Raises:
        InputError: says what would fit.
    """
    for training in job.recipe.trainings.values():
        check_batch(training.batch_size, replicas, training.accumulation)
        if training.batch_size % replicas and workers > 1:
            raise InputError(
                f"training.batch_size: {training.batch_size} cannot be divided equally over {replicas} workers' devices"
            )
    free = available_memory() if on_cpu else math.inf
    for phase in phases_of(job.phases):
        _check_norms(job, phase, replicas)
        need = least_memory(job.architecture, phase, workers)
        if need.bytes > free:
            raise InputError(
                f"training.batch_size: received {phase.training.batch_size}; phase {phase.name} would hold "
                f"{gigabytes(need.bytes)} at once for {need.layer} alone ({show(need.shape)}, {need.images:,} images at a "
                f"time) and {gigabytes(free)} of memory are free; a smaller batch_size, data.image_size or narrower blocks "
                "need less, and so does training.accumulation where the layer is trained"
            )


def _check_norms(job: Job, phase: Phase, replicas: int) -> None:
    """Refuses batch norm over a single value, which gives its offset whatever comes in."""
    part = -(-phase.training.batch_size // phase.training.accumulation)
    share = part if job.recipe.synchronizes(replicas) else part // replicas
    for name in phase.trains:
        for node in leaves(job.architecture.components[name].nodes):
            if isinstance(node.layer, L.BatchNorm) and share * math.prod(node.input_shape[:-1]) <= 1:
                raise InputError(
                    f"training.batch_size: phase {phase.name} would normalise {name}/{node.name} ({show(node.input_shape)}) over "
                    f"{share} image(s) at a time, that is one value for each channel; allowed: 2 images or more on each device "
                    "and in each part (training.accumulation), or no batch norm there"
                )


def least_memory(arch: Architecture, phase: Phase, workers: int = 1) -> Need:
    """A lower bound of what a phase needs: its largest layer, and nothing beside it.

    Going back through an activation or batch norm that trains takes two tensors of its shape, what was kept and the gradient, for
    the images of one part. Every convolution or dense layer that runs gives one tensor, in evaluation for a whole batch.
    """
    batch = phase.training.batch_size // workers
    part = batch // phase.training.accumulation
    needs = []
    for name in (*phase.trains, *phase.frozen):
        trains = name in phase.trains
        item = ITEM_BYTES[(phase.precision if trains else phase.prefix_precision).removeprefix("mixed_")]
        for node in leaves(arch.components[name].nodes):
            size = math.prod(node.output_shape) * item
            if has_kernel(node):
                needs.append(Need(size * batch, f"{name}/{node.name}", node.output_shape, batch))
            elif trains and isinstance(node.layer, L.Activation | L.BatchNorm):
                needs.append(Need(2 * size * part, f"{name}/{node.name}", node.output_shape, part))
    return max(needs, key=lambda need: need.bytes)
