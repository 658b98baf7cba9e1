"""Accelerated proximal gradient (FISTA) on all training images at once, for linear heads."""

import math
from collections.abc import Generator, Iterator
from dataclasses import asdict, astuple, replace
from typing import Any

import numpy as np
import tensorflow as tf

from kerasgreedy.errors import InputError
from kerasgreedy.network.evaluation import objectives_of
from kerasgreedy.runs.checkpoint import Arrays
from kerasgreedy.solvers.convex_terms import Point, Terms
from kerasgreedy.solvers.fista_record import FistaRecord, Solved
from kerasgreedy.solvers.metric import Metric, Steps, part_of
from kerasgreedy.solvers.passes import Passes
from kerasgreedy.solvers.solver import Solver, Task, Verdict, Work
from kerasgreedy.solvers.step import Result, phase_logits
from kerasgreedy.spec.solver_settings import Fista

# Sums of losses are float32: so much of the objective below zero is a gap of zero.
ROUNDING = 1e-5


class Accelerated(Solver):
    """See `Solver`. One step an epoch, on the sum over all training images of the mean loss and the penalties.

    x_{k+1} = prox(y_k - grad(y_k) / L), y_{k+1} = x_{k+1} + (t_k - 1) / t_{k+1} * (x_{k+1} - x_k), with t_{k+1} =
    (1 + sqrt(1 + 4 t_k^2)) / 2 (Beck and Teboulle 2009, eq. 4.1 to 4.3). Where (y_k - x_{k+1}) . (x_{k+1} - x_k) > 0 the momentum
    begins anew. L of each head is the curvature of its objective times the largest eigenvalue of the mean of features times
    features (found by power iteration), plus that of the smooth penalties; with `directions` a `Metric` that is as large in
    these only, and products of vectors are in it.

    During an epoch the weights are y_k, between epochs x_k. Gradients are added up in float64. In memory: five copies of the
    heads' weights, and one of those of a class for each direction, whatever the number of images.
    """

    def __init__(self, task: Task):
        settings = task.phase.training.solver
        assert isinstance(settings, Fista)
        self._task, self._settings = task, settings
        network, phase = task.network, task.phase
        for name in network.names:
            network.component(name).trainable = name in phase.trains
        self._variables = {key: v for name in phase.trains for key, v in network.variables(name).items() if v.trainable}
        self._objectives = objectives_of(phase.training, phase.losses, smoothed=True)
        for head, objective in self._objectives.items():
            if objective.curvature is None:
                raise InputError(f"training.solver: fista cannot minimise the {objective.words} of {head}: it has no curvature")
        self._terms = Terms(task, self._variables, settings.factors[0])
        self._passes = Passes(task, self._variables)
        self._losses = self._passes.reduced(self._loss)
        self._size, self._images = phase.training.batch_size, self._passes.images
        self._warm = False
        self._norm0, self._iterations, self._restarts, self._t = math.nan, 0, 0, 1.0
        self._steps: dict[str, Steps] = {}
        self._before, self._ahead = self._passes.point(), self._passes.point()  # x_k and y_k
        self._gradient = {key: np.zeros(value.shape) for key, value in self._before.items()}
        self._loss_sum, self._dual_sums = 0.0, np.zeros((len(phase.losses), 2))
        self._subgradient = self._objective = self._gap = math.nan
        self._path: list[Solved] = []
        self._factor = settings.factors[0]  # that the last step was made with
        self.extras = {"fista": self}

    # What the loop asks for.

    def prepare(self, epoch: int, step: int) -> Generator[Work, None, None]:
        if self._steps:
            return
        present = self._passes.point()
        try:
            metrics = yield from self._passes.curvature(self._settings.directions, self._settings.power_iterations)
            self._passes.assign({key: np.zeros(value.shape) for key, value in present.items()})
            at_zero = yield from self._passes.mean(lambda *batch: self._losses(*batch)[0], "measuring the gradient at zero", 1, 1)
        finally:
            self._passes.assign(present)
        self._norm0 = math.sqrt(sum(float(np.sum(np.square(value))) for value in at_zero)) or 1.0
        for name, metric in metrics.items():
            objective = self._objectives[self._passes.heads[name]]
            self._keep(name, metric.scaled(float(objective.curvature or 1.0), objective.quadratic))

    def _keep(self, name: str, metric: Metric) -> None:
        # Features of zeros have no curvature: without a penalty any length is right.
        free = not metric.largest + self._terms.curvature
        self._steps[name] = Steps(replace(metric, rest=1.0) if free else metric, self._terms)

    def epoch(self, epoch: int, first_step: int, number: int) -> Iterator[Result]:
        if first_step == 0:
            self._before = self._passes.point()
            # Where kernels have to stay in a set, gap and objective mean something inside it only.
            self._passes.assign({key: self._terms.inside(key, value) for key, value in self._ahead.items()})
        whole = self._images // self._size
        batches = iter(self._passes.batches(first_step))
        for number_of_batch in range(first_step, whole):
            results = [self._losses(*next(batches))]
            if number_of_batch == whole - 1:
                results += [self._losses(*batch) for batch in batches]  # what is left is no batch of its own
            for gradients, _, duals in results:
                self._add(gradients)
                self._dual_sums += duals.numpy()
            sums = {head: tf.add_n([found[head] for _, found, _ in results]) for head in self._task.phase.losses}
            self._loss_sum += float(sum(values[0].numpy() for values in sums.values()))
            last = number_of_batch == whole - 1
            if last:
                self._update(epoch)
            warm, self._warm = self._warm, True
            yield Result(sums, warm, self._size + (self._images % self._size) * last)

    def verdict(self) -> Verdict | None:
        return self._solved if len(self._path) == len(self._settings.factors) else None

    @property
    def _solved(self) -> Verdict | None:
        """Of the problem of now."""
        if self._subgradient <= self._settings.tolerance:
            return Verdict("the subgradient is below the tolerance", self._subgradient, self._settings.tolerance)
        limit = self._settings.gap
        if limit is not None and 0 <= self._gap <= limit * abs(self._objective):
            return Verdict("the duality gap is below its share of the objective", self._gap / abs(self._objective), limit)
        return None

    def news(self) -> list[str]:
        if not self._iterations:
            return []
        gap = f", duality gap {self._gap:.2g}" if math.isfinite(self._gap) else ""
        factor = f"factor {self._factor:g}: " if self._settings.path else ""
        bound = f"subgradient at most {self._subgradient:.2g} of the gradient at zero"
        return [f"{factor}objective {self._objective:.8g}{gap}, {bound}"]

    def figures(self) -> dict[str, Any]:
        value = self._terms.value(self._passes.point(), self._factor)
        penalty = {} if value is None else {"penalty": value}
        gap = {"duality_gap": self._gap} if math.isfinite(self._gap) else {}
        factor = {"factor": self._factor} if self._settings.path else {}
        return {**penalty, **factor, "objective_value": self._objective, "subgradient": self._subgradient, **gap}

    def record(self) -> FistaRecord:
        done = self._iterations > 0
        return FistaRecord(
            self._iterations,
            self._restarts,
            self._subgradient if done else None,
            {name: steps.metric.largest + self._terms.curvature for name, steps in self._steps.items()},
            {name: steps.metric.rest + self._terms.curvature for name, steps in self._steps.items()},
            self._objective if done else None,
            self._gap if math.isfinite(self._gap) else None,
            self._terms.filters(self._passes.point()),
            self.verdict() is not None,
            [asdict(solved) for solved in self._path],
        )

    # What a checkpoint holds.

    def arrays(self) -> Arrays:
        numbers = [self._norm0, self._t, self._subgradient, self._objective, self._loss_sum, self._gap, self._terms.factor]
        kept = {
            "known": np.array([float(math.isfinite(value)) for value in numbers]),
            "numbers": np.nan_to_num(np.array(numbers)),
            "counts": np.array([self._iterations, self._restarts]),
            "dual_sums": self._dual_sums,
            "path": np.array([[-1.0 if v is None else v for v in astuple(solved)] for solved in self._path]).reshape(-1, 5),
        }
        for name, steps in self._steps.items():
            kept[f"curvature/{name}"] = np.array(steps.metric.rest)
            kept |= {f"directions/{name}": steps.metric.directions, f"values/{name}": steps.metric.values}
        for what, point in (("before", self._before), ("ahead", self._ahead), ("gradient", self._gradient)):
            kept |= {f"{what}/{key}": value for key, value in point.items()}
        return kept

    def load_arrays(self, arrays: Arrays) -> None:
        numbers = [float(v) if known else math.nan for v, known in zip(arrays["numbers"], arrays["known"], strict=True)]
        self._norm0, self._t, self._subgradient, self._objective, self._loss_sum, self._gap, self._terms.factor = numbers
        self._factor = self._terms.factor
        self._dual_sums = np.array(arrays["dual_sums"], np.float64)
        self._path = [
            Solved(factor, round(epoch), objective, None if gap == -1 else gap, subgradient)
            for factor, epoch, objective, gap, subgradient in arrays["path"].tolist()
        ]
        self._iterations, self._restarts = map(int, arrays["counts"])
        for key, value in arrays.items():
            what, _, name = key.partition("/")
            if what == "curvature":
                # Earlier versions knew of no directions.
                u, w = arrays.get(f"directions/{name}", np.zeros((0, 0), np.float32)), arrays.get(f"values/{name}", np.zeros(0))
                self._keep(name, Metric(u, w, float(value), self._objectives[self._passes.heads[name]].quadratic))
        self._before, self._ahead, self._gradient = (
            {key: np.array(arrays[f"{what}/{key}"], np.float64) for key in self._variables}
            for what in ("before", "ahead", "gradient")
        )

    # The mathematics.

    def _update(self, epoch: int) -> None:
        """The step, once the gradient of all images is there; leaves the weights at x_{k+1}."""
        y, before = self._passes.point(), self._before
        slopes = {key: value / self._images for key, value in self._gradient.items()}
        gradient = {key: value + self._terms.slope(key, y[key]) for key, value in slopes.items()}
        taken = {name: steps.take(part_of(y, name), part_of(gradient, name)) for name, steps in self._steps.items()}
        x = {key: value for point, _ in taken.values() for key, value in point.items()}
        self._subgradient = math.hypot(*(bound for _, bound in taken.values())) / self._norm0
        self._objective = self._loss_sum / self._images + self._terms.decay(y) + (self._terms.value(y) or 0.0)
        self._gap = self._duality_gap(slopes)
        self._factor = self._terms.factor
        back = {key: y[key] - x[key] for key in y}
        against = {key: v for name, steps in self._steps.items() for key, v in steps.times(part_of(back, name)).items()}
        if sum(np.sum(against[key] * (x[key] - before[key])) for key in y) > 0:
            self._t, self._ahead, self._restarts = 1.0, dict(x), self._restarts + 1
        else:
            t = (1 + math.sqrt(1 + 4 * self._t**2)) / 2
            self._ahead = {key: x[key] + (self._t - 1) / t * (x[key] - before[key]) for key in x}
            self._t = t
        self._iterations += 1
        self._gradient = {key: np.zeros(value.shape) for key, value in y.items()}
        self._loss_sum, self._dual_sums = 0.0, np.zeros_like(self._dual_sums)
        self._passes.assign(x)
        self._follow_path(epoch)

    def _duality_gap(self, slopes: Point) -> float:
        """Of the objective where the gradient was taken; NaN where the dual is not known."""
        bounds = [
            self._terms.dual(part_of(slopes, name), *sums)
            for name, sums in zip(self._task.phase.trains, self._dual_sums / self._images, strict=True)
        ]
        known = [bound for bound in bounds if bound is not None and math.isfinite(bound)]
        if len(known) != len(bounds):
            return math.nan
        gap = self._objective - sum(known)
        return max(gap, 0.0) if gap > -ROUNDING * abs(self._objective) else gap

    def _follow_path(self, epoch: int) -> None:
        """Goes on to the next problem of a regularisation path, from the point of now, where this one has had its share."""
        factors, place = self._settings.factors, len(self._path)
        if place == len(factors) or not (self._solved or epoch + 1 >= (place + 1) * self._task.phase.epochs // len(factors)):
            return
        gap = self._gap if math.isfinite(self._gap) else None
        self._path.append(Solved(factors[place], epoch + 1, self._objective, gap, self._subgradient))
        if place + 1 < len(factors):
            self._terms.factor, self._t, self._ahead = factors[place + 1], 1.0, dict(self._passes.point())

    def _add(self, gradients: list[tf.Tensor]) -> None:
        for key, value in zip(self._gradient, gradients, strict=True):
            self._gradient[key] += value.numpy()

    def _loss(self, rows: tf.Tensor, x: tf.Tensor, labels: tf.Tensor) -> tuple[list[tf.Tensor], dict[str, tf.Tensor], tf.Tensor]:
        """Gradients of the sum of losses, head -> (sum of losses, number right), sums of `dual_terms`; fillers count nothing."""
        weights = tf.cast(rows >= 0, tf.float32)
        values = [variable.value for variable in self._variables.values()]
        blocks: dict[str, Any] = {}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            outputs = phase_logits(self._task.network, self._task.phase, x, self._task.source.start, training=False, given=blocks)
            losses = {
                head: tf.reduce_sum(weights * self._objectives[head](z, labels, blocks[head])) for head, z in outputs.items()
            }
            total = tf.add_n(list(losses.values()))
        gradients = tape.gradient(total, values, unconnected_gradients="zero")
        hits = {head: tf.cast(tf.argmax(z, -1, tf.int32) == labels, tf.float32) for head, z in outputs.items()}
        right = {head: tf.reduce_sum(weights * hit) for head, hit in hits.items()}
        duals = [self._objectives[head].dual_terms(outputs[head], labels) for head in self._task.phase.losses]
        unknown = tf.fill([2], np.float32(np.nan))
        sums = [unknown if terms is None else tf.reduce_sum(weights[:, None] * terms, axis=0) for terms in duals]
        return gradients, {head: tf.stack([losses[head], right[head]]) for head in outputs}, tf.stack(sums)
