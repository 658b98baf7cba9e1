"""Our side of `benchmarks.landscape`: `Points`, and `model.evaluate` at every point. A worker, not started by hand."""

import time
from typing import Any

from kerasgreedy.network.points import Points  # before Keras: it lets TensorFlow use oneDNN on any CPU

import keras  # isort: skip
import numpy as np  # isort: skip

from benchmarks.landscape_problem import EPSILON, of  # isort: skip
from benchmarks.workers import serve  # isort: skip


class Session:
    """What one worker process has built."""

    def build(self, problem: dict[str, Any], form: str, compiled: bool = False) -> None:
        """The model and its directions."""
        if compiled:
            raise ValueError("ours is compiled always")
        self.problem, self.form = of(problem), form
        self.images, self.labels = self.problem.sample()
        self.model = _model(self.problem)
        self.kernels = [v for v in self.model.trainable_variables if v.name == "kernel"]
        self.start = [keras.ops.convert_to_numpy(kernel) for kernel in self.kernels]
        self.directions = self.problem.directions()
        if form == "points":
            self.points = Points(self.model, self.images, self.labels)
            self.theta = self.points.parameters.read()
            self.ways = [self._flat(direction) for direction in self.directions]
        else:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            self.model.compile(loss=loss, metrics=["accuracy"])

    def _flat(self, direction: list[np.ndarray]) -> np.ndarray:
        parts = iter(direction)
        return np.concatenate(
            [
                next(parts).ravel() if v.name == "kernel" else np.zeros(v.shape, np.float32).ravel()
                for v in self.model.trainable_variables
            ]
        )

    def _loss(self, a: float, b: float) -> float:
        if self.form == "points":
            point = self.theta + np.float32(a) * self.ways[0] + np.float32(b) * self.ways[1]
            return self.points.evaluate([point])[0][0]
        for kernel, start, one, two in zip(self.kernels, self.start, *self.directions, strict=True):
            kernel.assign(start + np.float32(a) * one + np.float32(b) * two)
        return float(self.model.evaluate(self.images, self.labels, batch_size=500, verbose=0)[0])

    def losses(self, count: int) -> list[float]:
        """At so many points."""
        return [self._loss(*place) for place in self.problem.places(count)]

    def steps(self, count: int) -> float:
        """Seconds of so many points."""
        start = time.perf_counter()
        self.losses(count)
        return time.perf_counter() - start


def _model(problem: Any) -> keras.Model:
    x = images = keras.Input((problem.side, problem.side, problem.channels))
    for number, width in enumerate(problem.widths):
        x = keras.layers.Conv2D(width, 3, strides=2 if number else 1, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(epsilon=EPSILON)(x))
    x = keras.layers.Dense(problem.classes)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(images, x)
    layers = [layer for layer in model.layers if layer.weights]
    for number, arrays in enumerate(problem.arrays()[:-1]):
        layers[2 * number].kernel.assign(arrays["kernel"])
        norm = layers[2 * number + 1]
        values = [arrays[key] for key in ("gamma", "beta", "mean", "variance")]
        for variable, value in zip((norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance), values, strict=True):
            variable.assign(value)
    last = problem.arrays()[-1]
    layers[-1].kernel.assign(last["kernel"])
    layers[-1].bias.assign(last["bias"])
    return model


if __name__ == "__main__":
    session = Session()
    serve({name: getattr(session, name) for name in ("build", "steps", "losses")})
