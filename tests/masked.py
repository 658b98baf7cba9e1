"""Small networks under support masks, for the tests of solver `alternation`."""

from typing import Any

import numpy as np
import tensorflow as tf
from conftest import recipe_of, spec_of

from kerasgreedy.graph.architecture import architecture
from kerasgreedy.graph.supports import layout, row_bytes
from kerasgreedy.network.build import Network
from kerasgreedy.network.walk import IMAGES
from kerasgreedy.plan.compile import compile_plan
from kerasgreedy.solvers.alternation.support import Estimated, Held, Shared
from kerasgreedy.solvers.schedules import make_optimizer
from kerasgreedy.solvers.step import TrainStep, phase_logits

RECIPE = "name: r\ndata: {dataset: digits}\ntraining: {epochs: 2, batch_size: 8, optimizer: {name: sgd, learning_rate: 0.05}}\n"
HEAD = "auxiliary_head: {layers: [{global_avg_pool: true}]}"


def same_conv(x, kernel):
    """3x3 convolution of stride 1 with zeros around, in float64, from the definition."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    result = np.zeros((*x.shape[:3], kernel.shape[-1]))
    for row in range(3):
        for column in range(3):
            window = padded[:, row : row + x.shape[1], column : column + x.shape[2]]
            result += np.einsum("bijc,ck->bijk", window, kernel[row, column].astype(np.float64))
    return result


class Images:
    """Stands for a phase's input: batches (row, x, label) of some images in order, the last filled up with row -1."""

    start, augments = IMAGES, False

    def __init__(self, images, batch_size=8):
        self._images, self._batch_size = images, batch_size

    def __len__(self):
        return len(self._images)

    def view(self, view, shards=1):
        missing = -len(self._images) % self._batch_size
        rows = np.concatenate([np.arange(len(self._images)), np.full(missing, -1)])
        images = np.concatenate([self._images, np.zeros((missing, *self._images.shape[1:]), np.float32)])
        return tf.data.Dataset.from_tensor_slices((rows, images, np.zeros(len(rows), np.int32))).batch(self._batch_size)


class Masked:
    """One end-to-end phase of a network on (8, 8, 2) images of 3 classes.

    Args:
        blocks: YAML of the list of blocks; with `head` left out a mean over space and a classifier follow. Biases begin at 0.
        solver: settings of the solver, YAML.
        more: further overrides of the recipe.
        defaults: YAML of `block_defaults`.
    """

    def __init__(
        self,
        blocks: str,
        solver: str = "{}",
        *more: str,
        defaults: str = "{}",
        head: str = HEAD,
        shape: tuple[int, ...] = (8, 8, 2),
        strategy: Any = None,
        precision: str = "float32",
    ):
        text = f"name: s\nblock_defaults: {defaults}\nblocks: {blocks}\n{head}\n"
        spec = spec_of(text).value.model_copy(update={"input_shape": list(shape), "classes": 3})
        warm_up = "" if "warm_up_epochs" in solver else "warm_up_epochs: 0, "
        settings = solver.replace("{", f"{{name: alternation, {warm_up}", 1)
        recipe = recipe_of(RECIPE, "strategy=end_to_end", f"training.solver={settings}", f"precision={precision}", *more)
        (phase,) = compile_plan(spec, recipe.value, (32, 0))
        self.phase, self.settings, self.plan = phase, phase.training.solver, phase.solver_plan
        self.strategy = strategy or tf.distribute.get_strategy()
        with self.strategy.scope():
            self.network = Network(architecture(spec), seed=3)
            self.network.compute_in(precision)
        parts = [self.network.architecture.components[name] for name in phase.trains]
        self.units = layout(parts, self.settings.hold_pools)
        self.row_bytes = row_bytes(self.units)
        beta = 0.0 if isinstance(self.plan.beta, str) else self.plan.beta
        self.betas = {key: tf.constant(beta) for key, unit in self.units.items() if unit.is_mask}

    def logits(self, x, support=None, training=False):
        """Logits (b, 3), float32."""
        (z,) = phase_logits(self.network, self.phase, tf.constant(x), instead=support, training=training).values()
        return z.numpy()

    def bits(self, x, training=False):
        """Packed masks of a batch."""
        support = Estimated(self.units, self.settings, self.betas)
        self.logits(x, support, training)
        return support.bits().numpy()

    def held(self, bits):
        return Held(self.units, self.settings, tf.constant(bits))

    def shared(self, examples, betas=None):
        return Shared(self.units, self.settings, betas or self.betas, examples)

    def step(self, masked, optimizer=None):
        """A training step: plain; under bits that come with the batch (instance); or under the batch's mask."""
        training = self.phase.training
        with self.strategy.scope():
            keras_optimizer = make_optimizer(
                optimizer or training.optimizer, np.array([training.optimizer.learning_rate], np.float32)
            )

        def support(*bits):
            size = training.batch_size // training.accumulation
            return Held(self.units, self.settings, bits[0]) if bits else self.shared(size)

        return TrainStep(self.network, self.phase, keras_optimizer, self.strategy, support=support if masked else None)

    def variables(self):
        """name -> value, of all that trains."""
        return {key: value for name in self.phase.trains for key, value in self.network.arrays(name).items()}

    def kernels(self):
        """name -> Keras variable."""
        return {k: v for name in self.phase.trains for k, v in self.network.variables(name).items() if k.endswith("/kernel")}

    def load(self, arrays):
        for name in self.phase.trains:
            self.network.load_arrays(name, {k: v for k, v in arrays.items() if k.startswith(f"{name}/")})

    def random_biases(self, seed=1):
        """Gives biases and batch norm's offsets and statistics random values; returns self."""
        rng = np.random.default_rng(seed)
        arrays = self.variables()
        for key, value in arrays.items():
            name = key.rsplit("/", 1)[1]
            if name in ("bias", "moving_mean", "gamma") or (key.endswith("beta") and "batch_norm" in key):
                arrays[key] = (value + 0.3 * rng.normal(size=value.shape)).astype(np.float32)
            elif name == "moving_variance":
                arrays[key] = rng.uniform(0.5, 2, value.shape).astype(np.float32)
        self.load(arrays)
        return self
