"""Our side of `benchmarks.convex`: the step of a run, and the same problem the naive way. A worker, not started by hand."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.convex_problem import Problem
from benchmarks.workers import serve
from kerasgreedy.graph.architecture import architecture
from kerasgreedy.inputs.feature_store import FeatureStore
from kerasgreedy.inputs.features import stored_batches
from kerasgreedy.network.build import Network
from kerasgreedy.network.walk import IMAGES, StartPoint
from kerasgreedy.nn.gated import GatedPatches
from kerasgreedy.plan.compile import compile_plan
from kerasgreedy.plan.stages import phases_of
from kerasgreedy.solvers.schedules import make_optimizer
from kerasgreedy.solvers.step import TrainStep
from kerasgreedy.spec.model import ModelSpec
from kerasgreedy.spec.recipe import Recipe

# Of kept sums, images of a part: the fastest of 25, 50, 100, 250 and 1,000.
KEPT_PART, MOST_STEPS = 50, 500


class Session:
    """What one worker process has built."""

    def build(self, problem: dict[str, Any], form: str, compiled: bool = False) -> None:
        """Gates, zero filters, and two batches."""
        if compiled:
            raise ValueError("our step is compiled always")
        own = Problem(**problem)
        make = {"summed": _step, "naive": Naive, "kept": Kept}[form]
        self.step, self.batches = make(own), [tuple(map(tf.constant, batch)) for batch in own.draw_batches(2)]
        if isinstance(self.step, Kept):
            self.step.fill(self.batches)

    def steps(self, count: int) -> float:
        """Seconds of so many steps."""
        start = time.perf_counter()
        for number in range(count):
            sums = self.step(*self.batches[number % 2])
        sums["head_1"].numpy()
        return time.perf_counter() - start

    def losses(self, count: int) -> list[float]:
        """The loss of each of so many steps."""
        found = [self.step(*self.batches[number % 2])["head_1"] for number in range(count)]
        return [float(value[0]) / len(self.batches[0][1]) for value in found]


def _step(problem: Problem, start: StartPoint = IMAGES) -> TrainStep:
    """The package's step, as a plan of strategy `convex` makes it; `start`: behind what is kept."""
    gated = {"gated_conv": problem.gates, "kernel_size": problem.kernel, "stride": problem.stride, "padding": "valid"}
    spec = ModelSpec.model_validate(
        {
            "name": "convex",
            "input_shape": [problem.side, problem.side, problem.channels],
            "classes": problem.classes,
            "blocks": [{"activation": "linear"}],
            "final_head": {"layers": [{**gated, "class_separable": True}]},
        }
    )
    sgd = {"name": "sgd", "learning_rate": problem.learning_rate, "momentum": problem.momentum}
    training = {
        "epochs": 1,
        "batch_size": problem.batch,
        "accumulation": problem.batch // problem.part,
        "objective": "squared_error",
        "optimizer": sgd,
    }
    data = {"dataset": "cifar10", "validation": 0}
    recipe = Recipe.model_validate(
        {"name": "convex", "data": data, "strategy": "convex", "training": {**training, "monitor": "train_loss"}}
    )
    (phase,) = phases_of(compile_plan(spec, recipe))
    network = Network(architecture(spec), seed=0)
    layer = network.component("head_1").get_layer("gated_conv_1")
    layer.kernel.assign(problem.draw_gates())
    rates = np.array([problem.learning_rate], np.float32)
    return TrainStep(network, phase, make_optimizer(recipe.training.optimizer, rates), tf.distribute.get_strategy(), start)


class Kept:
    """The package's step on sums that are kept in memory as bfloat16, each read in a new order."""

    def __init__(self, problem: Problem):
        front = ("head_1/gated_conv_1",)
        self._step = _step(replace(problem, part=KEPT_PART), StartPoint(1, front))
        self._gates, self._problem = problem.draw_gates(), problem

    def fill(self, batches: list[Any]) -> None:
        """Keeps the sums of these batches, and reads them one after the other from now on."""
        layer = GatedPatches(self._problem.gates, self._problem.kernel, strides=self._problem.stride, padding="valid")
        layer.build((None, self._problem.side, self._problem.side, self._problem.channels))
        layer.kernel.assign(self._gates)
        size = self._problem.batch
        shape = (self._problem.length, self._problem.gates)
        self._store = FeatureStore(size * len(batches), shape, "bfloat16", None, {})
        for number, (images, labels) in enumerate(batches):
            own = np.arange(number * size, (number + 1) * size)
            for first in range(0, size, self._problem.part):
                part = slice(first, first + self._problem.part)
                sums = tf.bitcast(tf.cast(layer(images[part]), tf.bfloat16), tf.uint16)
                self._store.put(own[part], sums.numpy(), labels[part].numpy())
        draw = np.random.default_rng(2)
        rows = [draw.permutation(size) + number % len(batches) * size for number in range(MOST_STEPS)]
        self._batches = iter(stored_batches(self._store, np.concatenate(rows), size, lambda _, x, label: (x, label)).prefetch(1))

    def __call__(self, *_: Any) -> dict[str, tf.Tensor]:
        return self._step(*next(self._batches))


class Naive:
    """All P C filters run over the map, and the gates silence them there."""

    def __init__(self, problem: Problem):
        self._problem = problem
        self._gates = tf.constant(problem.draw_gates())
        shape = (*self._gates.shape, problem.classes)
        self._filters, self._velocity = tf.Variable(tf.zeros(shape)), tf.Variable(tf.zeros(shape))
        self._compiled = tf.function(self._global, autograph=False)

    def __call__(self, x: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._compiled(x, labels)

    def _global(self, x: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
        part = self._problem.part

        def add(start: tf.Tensor, gradient: tf.Tensor, loss: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            own, value = self._part(x[start : start + part], labels[start : start + part])
            return start + part, gradient + own, loss + value

        begin = (tf.constant(0), tf.zeros_like(self._filters), tf.constant(0.0))
        _, gradient, loss = tf.while_loop(lambda start, *_: start < self._problem.batch, add, begin, parallel_iterations=1)
        velocity = self._problem.momentum * self._velocity - self._problem.learning_rate * gradient / self._problem.batch
        self._filters.assign_add(self._velocity.assign(velocity))
        return {"head_1": tf.stack([loss, 0.0])}

    def _part(self, x: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        stride, gates, classes = self._problem.stride, self._problem.gates, self._problem.classes
        filters = self._filters.value() if callable(self._filters.value) else self._filters.value
        open_ = tf.cast(tf.nn.conv2d(x, self._gates, stride, "VALID") >= 0, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(filters)
            maps = tf.nn.conv2d(x, tf.reshape(filters, [*self._gates.shape[:3], gates * classes]), stride, "VALID")
            maps = tf.reshape(maps, [-1, *open_.shape[1:], classes])
            scores = tf.reduce_sum(tf.reduce_mean(maps * open_[..., None], axis=[1, 2]), axis=1)
            loss = tf.reduce_sum(tf.square(scores - tf.one_hot(labels, classes))) / 2
        return tape.gradient(loss, filters), loss


if __name__ == "__main__":
    session = Session()
    serve({name: getattr(session, name) for name in ("build", "steps", "losses")})
