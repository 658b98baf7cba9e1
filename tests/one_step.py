"""A step of the small spec, by any strategy and settings."""

import dataclasses

import numpy as np
import tensorflow as tf
from conftest import TINY_RECIPE, TINY_SPEC, recipe_of, spec_of

from kerasgreedy.graph.architecture import architecture
from kerasgreedy.network.build import Network
from kerasgreedy.plan.compile import compile_plan
from kerasgreedy.solvers.schedules import make_optimizer
from kerasgreedy.solvers.step import TrainStep
from kerasgreedy.spec.training import Sgd

RNG = np.random.default_rng(2)


IMAGES = RNG.normal(size=(16, 8, 8, 1)).astype(np.float32)


LABELS = RNG.integers(0, 10, 16).astype(np.int32)


NO_DROPOUT = TINY_SPEC.replace(", {dropout: 0.25}", "")


def setup(
    strategy_name, spec=TINY_SPEC, index=0, strategy=None, settings=None, rate=0.05, decay=0.0, smoothing=0.0, more=(),
    batch=16, clip=None, synchronized=True,
):  # fmt: skip
    strategy = strategy or tf.distribute.get_strategy()
    document = spec_of(spec).value.model_copy(update={"input_shape": [8, 8, 1], "classes": 10})
    arch = architecture(document)
    phase = compile_plan(document, recipe_of(TINY_RECIPE, f"strategy={strategy_name}", *more).value)[index]
    settings = (settings or Sgd()).model_copy(update={"weight_decay": decay})
    changed = {"optimizer": settings, "batch_size": batch, "label_smoothing": smoothing, "clip_norm": clip}
    training = phase.training.model_copy(update=changed)
    phase = dataclasses.replace(phase, training=training)
    with strategy.scope():
        network = Network(arch, 5, synchronized)
        optimizer = make_optimizer(settings, np.array([rate], np.float32))
    return network, phase, TrainStep(network, phase, optimizer, strategy)


def arrays_of(network):
    return {key: value for name in network.names for key, value in network.arrays(name).items()}
