"""This package's side of the measurements: the only file here that knows its training code.

As a program it is a worker, started by `workers.Worker`, not by hand.
"""

import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.costs import END_TO_END
from benchmarks.specs import CLASSES, RECIPE, architecture_of, recipe_settings, resolved
from benchmarks.workers import serve
from kerasgreedy.data.pipeline import Pipeline
from kerasgreedy.data.splits import ArraySplit
from kerasgreedy.inputs.feature_store import FeatureStore, StoreFolder
from kerasgreedy.inputs.features import ImageInput, stored_batches
from kerasgreedy.network.build import Network
from kerasgreedy.network.walk import StartPoint
from kerasgreedy.plan.alternation_plan import AlternationPlan
from kerasgreedy.plan.compile import compile_plan
from kerasgreedy.plan.stages import Phase
from kerasgreedy.solvers.schedules import make_optimizer
from kerasgreedy.solvers.solver import Task
from kerasgreedy.solvers.step import TrainStep
from kerasgreedy.spec.load import load_recipe
from kerasgreedy.spec.recipe import Data
from kerasgreedy.spec.solver_settings import SOLVERS


class Session:
    """What one worker process has built."""

    def build(
        self,
        spec: dict[str, Any],
        phase: int | str,
        batch: int,
        precision: str,
        cached: bool,
        tuned: bool = False,
        compiled: bool = False,
        accumulation: int = 1,
        learning_rate: float = 0.1,
        weight_decay: float = 5e-4,
        scatter: bool = False,
    ) -> None:
        """Network, step and two batches of noise for one phase.

        Args:
            scatter: draw batch norm's parameters and statistics, and biases, at random: fresh ones are zeros and ones, which
                would hide a layer that uses the wrong ones.
        """
        if tuned or compiled:
            raise ValueError("ours runs in the environment that a user has")
        arch = architecture_of(spec)
        strategy = END_TO_END if phase == END_TO_END else "greedy"
        sets = [*recipe_settings(precision, accumulation), f"strategy={strategy}", f"training.batch_size={batch}"]
        sets += [f"training.optimizer.learning_rate={learning_rate}", f"training.optimizer.weight_decay={weight_decay}"]
        recipe = load_recipe(RECIPE, sets).value
        chosen = compile_plan(resolved(spec), recipe)[0 if phase == END_TO_END else int(phase) - 1]
        self.network = Network(arch, seed=0)
        self.network.compute_in(precision, [*chosen.frozen, *chosen.trains])
        if scatter:
            _scatter(self.network)
        optimizer = make_optimizer(recipe.training.optimizer, np.array([learning_rate], np.float32))
        first_block = len(chosen.frozen) if cached else 0
        self.step = TrainStep(self.network, chosen, optimizer, tf.distribute.get_strategy(), StartPoint(first_block))
        self._head = chosen.losses[-1]
        rng = np.random.default_rng(1)
        if first_block:
            kind = "bfloat16" if precision == "mixed_bfloat16" else "float32"
            self.batches = self._stored(rng, batch, arch.blocks[first_block - 1].output_shape, kind)
        else:
            self.batches = itertools.cycle([tuple(map(tf.constant, noise(rng, batch, arch.input_shape))) for _ in range(2)])

    def _stored(self, rng: np.random.Generator, batch: int, shape: tuple[int, ...], kind: str) -> Iterator[Any]:
        """Shuffled batches from a store in memory, as a run with a cache reads them; gathering them counts.

        The features are rectified noise: what a block would give costs the same.
        """
        self.store = FeatureStore(2 * batch, shape, kind, None, {})
        for start in (0, batch):
            features, labels = noise(rng, batch, shape)
            kept = np.maximum(features, 0)
            if kind == "bfloat16":
                kept = tf.bitcast(tf.cast(kept, tf.bfloat16), tf.uint16).numpy()
            self.store.put(np.arange(start, start + batch), kept, labels)
        order = rng.integers(0, 2 * batch, 1000 * batch)
        return iter(stored_batches(self.store, order, batch, lambda _, x, label: (x, label)).prefetch(1))

    def start(self, spec: dict[str, Any], classes: int, seed: int, file: str) -> None:
        """Writes the weights that a run of this seed begins with, as `export` writes them."""
        self.network = Network(architecture_of(spec, classes), seed=seed)
        self.export(file)

    def steps(self, count: int) -> float:
        """Seconds of so many steps."""
        start = time.perf_counter()
        for _ in range(count):
            sums = self.step(*next(self.batches))
        sums[self._head].numpy()
        return time.perf_counter() - start

    def export(self, file: str) -> None:
        """Writes all weights as NumPy arrays."""
        arrays = {key: value for name in self.network.names for key, value in self.network.arrays(name).items()}
        np.savez(file, **arrays)

    def losses(self, batch: int, count: int, batches: int) -> list[float]:
        """The loss of each of so many steps on batches drawn from a fixed seed, in turn."""
        rng = np.random.default_rng(2)
        shape = self.network.architecture.input_shape
        drawn = [noise(rng, batch, shape) for _ in range(batches)]
        sums = [self.step(*drawn[number % batches])[self._head] for number in range(count)]
        return [float(value[0]) / batch for value in sums]

    def convolution_rate(self, precision: str, batch: int, repeats: int = 20) -> float:
        """GFLOP/s of a 3x3 convolution 128 -> 128 at 32x32, forward; the best of so many."""
        kind = tf.bfloat16 if precision == "mixed_bfloat16" else tf.float32
        x = tf.cast(tf.random.normal((batch, 32, 32, 128)), kind)
        w = tf.cast(tf.random.normal((3, 3, 128, 128)), kind)
        convolve = tf.function(lambda: tf.nn.conv2d(x, w, 1, "SAME")[0, 0, 0, 0])
        best = float("inf")
        for _ in range(repeats):
            start = time.perf_counter()
            convolve().numpy()
            best = min(best, time.perf_counter() - start)
        return 2 * batch * 32 * 32 * 9 * 128 * 128 / best / 1e9


class SolverSteps:
    """Steps end to end by one of the solvers, through the input that a run gives it: images in memory, and masks if it keeps any.

    Args:
        network: solvers may share it. It hardly moves: only time is measured.
        pipeline: its images are the training data.
        settings: see `solver_phase`.
    """

    def __init__(self, network: Network, pipeline: Pipeline, spec: dict[str, Any], batch: int, settings: Sequence[str]):
        phase = solver_phase(spec, batch, len(pipeline.parts["train"]), settings)
        network.compute_in(phase.precision, phase.trains)
        optimizer = make_optimizer(phase.training.optimizer, np.array([1e-9], np.float32), phase.precision)
        source = ImageInput(phase, pipeline)
        folder = StoreFolder(Path(tempfile.gettempdir()) / "unused")  # for masks on disk, which nobody measures
        task = Task(phase, network, optimizer, tf.distribute.get_strategy(), source, folder)
        self._solver = SOLVERS.load(phase.solver)(task)
        self._head = phase.losses[-1]
        self._results = self._epochs()

    def preparing(self) -> Iterator[tuple[float, float]]:
        """Lets the solver get ready for its first epoch; gives what `run` does, for each batch of masks that it estimates."""
        start = _now()
        for _ in self._solver.prepare(0, 0):
            yield _since(start)
            start = _now()

    def run(self, count: int) -> tuple[float, float]:
        """Seconds of so many steps, by the clock and of processors; all that `preparing` gives has to be taken before."""
        start = _now()
        for _ in range(count):
            sums = next(self._results).sums
        sums[self._head].numpy()
        return _since(start)

    def _epochs(self) -> Iterator[Any]:
        for epoch in itertools.count():
            yield from self._solver.epoch(epoch, 0, 0)


def _now() -> tuple[float, float]:
    """By the clock, and processor seconds of all threads of this process."""
    return time.perf_counter(), time.process_time()


def _since(start: tuple[float, float]) -> tuple[float, float]:
    clock, processors = _now()
    return clock - start[0], processors - start[1]


def solver_phase(spec: dict[str, Any], batch: int, images: int, settings: Sequence[str]) -> Phase:
    """The only phase of training end to end.

    Args:
        images: in the training data.
        settings: `--set` texts: precision and solver.
    """
    recipe = load_recipe("allcnn_cifar10", [*settings, f"training.batch_size={batch}"]).value
    return compile_plan(resolved(spec), recipe, (images, 0))[0]


def mask_plan(spec: dict[str, Any], images: int, settings: Sequence[str]) -> AlternationPlan:
    """What `settings`, which name a solver that keeps masks, keep of so many training images."""
    return solver_phase(spec, 1, images, settings).solver_plan


def noise_pipeline(images: int, shape: Sequence[int]) -> Pipeline:
    """Training images of noise in memory, normalised and in random order."""
    rng = np.random.default_rng(0)
    split = ArraySplit(rng.integers(0, 256, (images, *shape), dtype=np.uint8), rng.integers(0, CLASSES, images))
    return Pipeline(split, split, Data(dataset="noise", validation=0), tuple(shape[:2]), seed=0)


def noise(rng: np.random.Generator, batch: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels; `benchmarks.torch_worker` draws the same ones from the same generator."""
    images = rng.normal(size=(batch, *shape)).astype(np.float32)
    return images, rng.integers(0, CLASSES, batch).astype(np.int32)


def _scatter(network: Network) -> None:
    rng = np.random.default_rng(3)
    around_one = ("gamma", "moving_variance")
    for name in network.names:
        for key, variable in network.variables(name).items():
            kind = key.rpartition("/")[2]
            if kind in around_one:
                variable.assign(rng.uniform(0.5, 1.5, variable.shape))
            elif kind in ("beta", "moving_mean", "bias"):
                variable.assign(rng.normal(0, 0.1, variable.shape))


if __name__ == "__main__":
    session = Session()
    names = ("build", "start", "steps", "export", "losses", "convolution_rate")
    serve({name: getattr(session, name) for name in names})
