"""Accelerated proximal gradient (FISTA) on all training images at once, for linear heads."""

import math
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from kerasgreedy.errors import InputError
from kerasgreedy.network.evaluation import objectives_of
from kerasgreedy.nn.penalties import Penalty
from kerasgreedy.runs.checkpoint import Arrays
from kerasgreedy.runs.devices import Devices
from kerasgreedy.solvers.solver import Record, Solver, Task, Verdict, Work
from kerasgreedy.solvers.step import Result, phase_logits
from kerasgreedy.solvers.updates import Setting, penalties_of
from kerasgreedy.spec.solver_settings import Fista

Point: TypeAlias = dict[str, NDArray[np.float64]]
# The power iteration comes to the curvature from below.
MARGIN = 1.02


@dataclass(frozen=True)
class FistaRecord(Record):
    """How a phase ended.

    Attributes:
        iterations: steps that were made.
        restarts: of the momentum.
        subgradient: norm of a subgradient of the objective at the last point, at most, as a share of that of the loss's gradient
            at zero weights.
        curvature: head -> bound that its steps are the inverse of.
        objective: what is minimised, penalties included, where the last gradient was taken.
        converged: `subgradient` came under the tolerance.
    """

    iterations: int
    restarts: int
    subgradient: float | None
    curvature: dict[str, float]
    objective: float | None
    converged: bool

    def as_dict(self) -> dict[str, Any]:
        return {"fista": super().as_dict()}


class Accelerated(Solver):
    """See `Solver`. One step an epoch, on the sum over all training images of the mean loss and the penalties.

    x_{k+1} = prox(y_k - grad(y_k) / L), y_{k+1} = x_{k+1} + (t_k - 1) / t_{k+1} * (x_{k+1} - x_k), with t_{k+1} =
    (1 + sqrt(1 + 4 t_k^2)) / 2 (Beck and Teboulle 2009, eq. 4.1 to 4.3). Where (y_k - x_{k+1}) . (x_{k+1} - x_k) > 0 the momentum
    begins anew. L of each head is the curvature of its objective times the largest eigenvalue of the mean of features times
    features (found by power iteration), plus that of the smooth penalties.

    During an epoch the weights are y_k, between epochs x_k. Gradients are added up in float64. In memory: five copies of the
    heads' weights, whatever the number of images.
    """

    def __init__(self, task: Task):
        settings = task.phase.training.solver
        assert isinstance(settings, Fista)
        self._task, self._settings = task, settings
        self._devices = Devices.of(task.strategy)
        network, phase = task.network, task.phase
        for name in network.names:
            network.component(name).trainable = name in phase.trains
        self._variables = {key: v for name in phase.trains for key, v in network.variables(name).items()}
        self._objectives = objectives_of(phase.training, phase.losses, smoothed=True)
        for head, objective in self._objectives.items():
            if objective.curvature is None:
                raise InputError(f"training.solver: fista cannot minimise the {objective.words} of {head}: it has no curvature")
        self._decay = phase.training.optimizer.weight_decay
        self._penalties = self._open_penalties()
        self._losses = tf.function(lambda *batch: self._reduced(self._loss, *batch), autograph=False)
        self._squares = tf.function(lambda *batch: self._reduced(self._square, *batch), autograph=False)
        self._size, self._images = phase.training.batch_size, len(task.source)
        self._warm = False
        self._norm0, self._iterations, self._restarts, self._t = math.nan, 0, 0, 1.0
        self._curvature: dict[str, float] = {}
        self._before, self._ahead = self._point(), self._point()  # x_k and y_k
        self._gradient = {key: np.zeros(value.shape) for key, value in self._before.items()}
        self._loss_sum = 0.0
        self._subgradient = self._objective = math.nan
        self.extras = {"fista": self}

    def _open_penalties(self) -> list[tuple[Penalty, dict[str, str]]]:
        """Each penalty, and `component/layer` -> name of the variable that it is of."""
        task, found = self._task, []
        for penalty, kernels in penalties_of(Setting(task.network, task.phase, task.optimizer, task.strategy)):
            if not penalty.is_proximal and penalty.curvature is None:
                name = penalty.settings.name
                raise InputError(f"training.regularizers: {name} has neither a proximal map nor a curvature for fista")
            found.append((penalty, {key: f"{key}/kernel" for key in kernels}))
        return found

    # What the loop asks for.

    def prepare(self, epoch: int, step: int) -> Generator[Work, None, None]:
        if self._curvature:
            return
        present = self._point()
        try:
            curvature = yield from self._power_iteration()
            self._assign({key: np.zeros(value.shape) for key, value in present.items()})
            at_zero = yield from self._pass(self._losses, "measuring the gradient at zero", 1, 1)
        finally:
            self._assign(present)
        self._norm0 = _norm(at_zero) or 1.0
        smooth = self._decay + sum(penalty.curvature or 0.0 for penalty, _ in self._penalties)
        self._curvature = {name: MARGIN * value + smooth or 1.0 for name, value in curvature.items()}

    def epoch(self, epoch: int, first_step: int, number: int) -> Iterator[Result]:
        if first_step == 0:
            self._before = self._point()
            self._assign(self._ahead)
        whole = self._images // self._size
        batches = iter(self._devices.batches(self._task.source.view(None, self._devices.workers).skip(first_step)))
        for number_of_batch in range(first_step, whole):
            results = [self._losses(*next(batches))]
            if number_of_batch == whole - 1:
                results += [self._losses(*batch) for batch in batches]  # what is left is no batch of its own
            for gradients, _ in results:
                self._add(gradients)
            sums = {head: tf.add_n([found[head] for _, found in results]) for head in self._task.phase.losses}
            self._loss_sum += float(sum(values[0].numpy() for values in sums.values()))
            last = number_of_batch == whole - 1
            if last:
                self._update()
            warm, self._warm = self._warm, True
            yield Result(sums, warm, self._size + (self._images % self._size) * last)

    def verdict(self) -> Verdict | None:
        if not self._subgradient <= self._settings.tolerance:
            return None
        return Verdict("the subgradient is below the tolerance", self._subgradient, self._settings.tolerance)

    def news(self) -> list[str]:
        if not self._iterations:
            return []
        return [f"objective {self._objective:.8g}, subgradient at most {self._subgradient:.2g} of the gradient at zero"]

    def figures(self) -> dict[str, Any]:
        values = [self._value(penalty, kernels, self._point()) for penalty, kernels in self._penalties]
        penalty = {"penalty": sum(values)} if values else {}
        return {**penalty, "objective_value": self._objective, "subgradient": self._subgradient}

    def record(self) -> FistaRecord:
        done = self._iterations > 0
        return FistaRecord(
            self._iterations,
            self._restarts,
            self._subgradient if done else None,
            self._curvature,
            self._objective if done else None,
            self.verdict() is not None,
        )

    # What a checkpoint holds.

    def arrays(self) -> Arrays:
        numbers = [self._norm0, self._t, self._subgradient, self._objective, self._loss_sum]
        kept = {
            "known": np.array([float(math.isfinite(value)) for value in numbers]),
            "numbers": np.nan_to_num(np.array(numbers)),
            "counts": np.array([self._iterations, self._restarts]),
        }
        kept |= {f"curvature/{name}": np.array(value) for name, value in self._curvature.items()}
        for what, point in (("before", self._before), ("ahead", self._ahead), ("gradient", self._gradient)):
            kept |= {f"{what}/{key}": value for key, value in point.items()}
        return kept

    def load_arrays(self, arrays: Arrays) -> None:
        numbers = [float(v) if known else math.nan for v, known in zip(arrays["numbers"], arrays["known"], strict=True)]
        self._norm0, self._t, self._subgradient, self._objective, self._loss_sum = numbers
        self._iterations, self._restarts = map(int, arrays["counts"])
        self._curvature = {key.partition("/")[2]: float(v) for key, v in arrays.items() if key.startswith("curvature/")}
        self._before, self._ahead, self._gradient = (
            {key: np.array(arrays[f"{what}/{key}"], np.float64) for key in self._variables}
            for what in ("before", "ahead", "gradient")
        )

    # The mathematics.

    def _update(self) -> None:
        """The step, once the gradient of all images is there; leaves the weights at x_{k+1}."""
        y, before = self._point(), self._before
        gradient = {key: value / self._images + self._slope(key, y[key]) for key, value in self._gradient.items()}
        x, lengths = {}, {key: self._curvature[key.split("/")[0]] for key in y}
        for key, value in y.items():
            x[key] = self._proximal(key, value - gradient[key] / lengths[key], 1 / lengths[key]).astype(np.float32).astype(float)
        # s = L (y - x) - grad(y) is a subgradient of the proximal part at x, so grad(x) + s is one of the whole; its norm is at
        # most twice that of L (y - x).
        self._subgradient = 2 * _norm({key: lengths[key] * (y[key] - x[key]) for key in y}) / self._norm0
        smooth = self._decay / 2 * _norm(y) ** 2
        self._objective = self._loss_sum / self._images + smooth + sum(self._value(p, k, y) for p, k in self._penalties)
        if sum(np.sum((y[key] - x[key]) * (x[key] - before[key])) for key in y) > 0:
            self._t, self._ahead, self._restarts = 1.0, dict(x), self._restarts + 1
        else:
            t = (1 + math.sqrt(1 + 4 * self._t**2)) / 2
            self._ahead = {key: x[key] + (self._t - 1) / t * (x[key] - before[key]) for key in x}
            self._t = t
        self._iterations += 1
        self._gradient = {key: np.zeros(value.shape) for key, value in y.items()}
        self._loss_sum = 0.0
        self._assign(x)

    def _slope(self, key: str, value: NDArray[np.float64]) -> NDArray[np.float64]:
        """Gradient of the smooth penalties in one variable."""
        weight = self._decay + sum(p.curvature or 0.0 for p, kernels in self._penalties if key in kernels.values())
        return weight * value

    def _proximal(self, key: str, value: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
        for penalty, kernels in self._penalties:
            if penalty.is_proximal and key in kernels.values():
                value = penalty.proximal(tf.constant(value), tf.constant(rate, tf.float64)).numpy()
        return value

    def _value(self, penalty: Penalty, kernels: Mapping[str, str], point: Point) -> float:
        return float(penalty.value({key: tf.constant(point[name]) for key, name in kernels.items()}))

    def _power_iteration(self) -> Generator[Work, None, dict[str, float]]:
        """Head -> largest eigenvalue of the mean of J^T J, J the derivative of its outputs in its weights, times curvature."""
        random = np.random.default_rng(0)
        vector = {key: random.normal(size=value.shape) for key, value in self._point().items()}
        found: dict[str, float] = {}
        count = self._settings.power_iterations
        for iteration in range(1, count + 1):
            norms = {name: _norm(_of(vector, name)) or 1.0 for name in self._task.phase.trains}
            vector = {key: value / norms[key.split("/")[0]] for key, value in vector.items()}
            self._assign(vector)
            vector = yield from self._pass(self._squares, "measuring the curvature", iteration, count)
            found = {name: _norm(_of(vector, name)) for name in self._task.phase.trains}
        heads = dict(zip(self._task.phase.trains, self._task.phase.losses, strict=True))
        return {name: float(self._objectives[heads[name]].curvature or 1.0) * value for name, value in found.items()}

    def _pass(self, function: Callable[..., Any], what: str, number: int, of: int) -> Generator[Work, None, Point]:
        """The mean over all training images of a gradient with the weights of now."""
        total = {key: np.zeros(value.shape) for key, value in self._point().items()}
        for index, batch in enumerate(self._devices.batches(self._task.source.view(None, self._devices.workers)), start=1):
            for key, value in zip(total, function(*batch)[0], strict=True):
                total[key] += value.numpy()
            yield what, min((number - 1) * self._images + index * self._size, number * self._images), of * self._images
        return {key: value / self._images for key, value in total.items()}

    def _add(self, gradients: list[tf.Tensor]) -> None:
        for key, value in zip(self._gradient, gradients, strict=True):
            self._gradient[key] += value.numpy()

    def _reduced(self, replica: Callable[..., Any], *batch: Any) -> Any:
        strategy = self._devices.strategy
        found = strategy.run(replica, args=batch)
        return tf.nest.map_structure(lambda x: strategy.reduce(tf.distribute.ReduceOp.SUM, x, axis=None), found)

    def _loss(self, rows: tf.Tensor, x: tf.Tensor, labels: tf.Tensor) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """Gradients of the sum of losses, and head -> (sum of losses, number right); fillers count nothing."""
        weights = tf.cast(rows >= 0, tf.float32)
        values = [variable.value for variable in self._variables.values()]
        blocks: dict[str, tf.Tensor] = {}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            outputs = phase_logits(
                self._task.network, self._task.phase, x, self._task.source.first_block, training=False, given=blocks
            )
            losses = {
                head: tf.reduce_sum(weights * self._objectives[head](z, labels, blocks[head])) for head, z in outputs.items()
            }
            total = tf.add_n(list(losses.values()))
        gradients = tape.gradient(total, values, unconnected_gradients="zero")
        hits = {head: tf.cast(tf.argmax(z, -1, tf.int32) == labels, tf.float32) for head, z in outputs.items()}
        right = {head: tf.reduce_sum(weights * hit) for head, hit in hits.items()}
        return gradients, {head: tf.stack([losses[head], right[head]]) for head in outputs}

    def _square(self, rows: tf.Tensor, x: tf.Tensor, labels: tf.Tensor) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """J^T J v for weights v, summed over the images: outputs are linear in v."""
        weights = tf.cast(rows >= 0, tf.float32)[:, None]
        values = [variable.value for variable in self._variables.values()]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            outputs = phase_logits(self._task.network, self._task.phase, x, self._task.source.first_block, training=False)
            total = tf.add_n([tf.reduce_sum(weights * tf.square(z)) / 2 for z in outputs.values()])
        return tape.gradient(total, values, unconnected_gradients="zero"), {}

    def _point(self) -> Point:
        return {key: variable.numpy().astype(np.float64) for key, variable in self._variables.items()}

    def _assign(self, point: Mapping[str, NDArray[np.float64]]) -> None:
        for key, variable in self._variables.items():
            variable.assign(point[key].astype(np.float32))


def _of(point: Point, component: str) -> Point:
    return {key: value for key, value in point.items() if key.startswith(f"{component}/")}


def _norm(point: Mapping[str, NDArray[np.float64]]) -> float:
    return math.sqrt(sum(float(np.sum(np.square(value))) for value in point.values()))
