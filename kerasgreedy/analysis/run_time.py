"""How long a plan would take on this machine, from a few timed steps of its phases."""

import time
from dataclasses import dataclass
from statistics import median

import numpy as np
import tensorflow as tf

from kerasgreedy.errors import InputError
from kerasgreedy.network.build import Network
from kerasgreedy.network.walk import IMAGES, StartPoint
from kerasgreedy.plan.preparation import Job
from kerasgreedy.plan.stages import Phase, phases_of
from kerasgreedy.solvers.schedules import make_optimizer
from kerasgreedy.solvers.step import TrainStep

# Steps of a phase that are timed, after one that traces and one that warms up.
TIMED = 3
# Looking at validation images costs a forward pass, a third of a step for each.
_FORWARD = 1 / 3


@dataclass(frozen=True)
class Timing:
    """Of a phase.

    Attributes:
        name: of the phase.
        step_seconds: of one step; median.
        start_seconds: of building and tracing.
        steps: of all its epochs.
        seconds: of the phase in all, validation included.
    """

    name: str
    step_seconds: float
    start_seconds: float
    steps: int
    seconds: float


def time_plan(job: Job) -> list[Timing]:
    """Times steps of each phase on noise of the right size, one device; nothing is read and nothing written.

    What solvers do beside descent (masks that are estimated, full-batch steps), actions and the reading of images are not in it.

    Raises:
        InputError: the plan has no phases.
    """
    phases = phases_of(job.phases)
    if not phases:
        raise InputError("the plan has no phases that train")
    network = Network(job.architecture, job.recipe.seed)
    return [_timed(job, network, phase) for phase in phases]


def _timed(job: Job, network: Network, phase: Phase) -> Timing:
    began = time.monotonic()
    batch, draw = phase.training.batch_size, np.random.default_rng(0)
    network.compute_in(phase.precision, phase.trains)
    network.compute_in(phase.prefix_precision, phase.frozen)
    optimizer = make_optimizer(phase.training.optimizer, np.full(1, 1e-6, np.float32), phase.precision)
    start_at = StartPoint(phase.prefix, phase.cache.front) if phase.cache.used else IMAGES
    step = TrainStep(network, phase, optimizer, tf.distribute.get_strategy(), start_at)
    images = tf.constant(draw.normal(size=(batch, *job.architecture.input_shape)).astype(np.float32))
    images = network.begin(start_at, images)
    labels = tf.constant(draw.integers(0, job.architecture.classes, batch).astype(np.int32))
    step(images, labels)
    start = time.monotonic() - began
    step(images, labels)
    seconds = []
    for _ in range(TIMED):
        before = time.monotonic()
        sums = step(images, labels)
        next(iter(sums.values())).numpy()
        seconds.append(time.monotonic() - before)
    each = median(seconds)
    steps = job.train_images // batch * phase.epochs
    looks = job.validation_images / batch * phase.epochs * _FORWARD
    filled = job.train_images / batch * phase.cache.views * _FORWARD * phase.cache.used
    return Timing(phase.name, each, start, steps, start + each * (steps + looks + filled))
