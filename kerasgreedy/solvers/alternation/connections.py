"""Which weights the active paths of a network cross, given the support."""

import itertools
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from kerasgreedy.inputs.features import PhaseInput
from kerasgreedy.network.build import Network
from kerasgreedy.network.walk import Instead
from kerasgreedy.plan.stages import Phase
from kerasgreedy.solvers.step import phase_logits

if TYPE_CHECKING:
    from numpy.typing import NDArray


def used_connections(
    network: Network,
    phase: Phase,
    source: PhaseInput,
    views: Sequence[int | None],
    support: Callable[[], Instead],
    whole: bool,
    most: bool = False,
) -> "Generator[tuple[str, int, int], None, dict[str, NDArray[np.bool_]]]":
    """Yields (what is being done, images done, images in all); returns kernel -> True where some example uses a weight.

    A connection under a zero mask, at either end or anywhere further up, carries nothing from the input to the loss: its weight
    has no part in the derivative of the logits. So a weight is used where the derivative of a random combination of logits is not
    zero for some batch, in inference mode (a sum of different numbers is zero by chance with probability 0).

    Args:
        views: of the training images that are looked at.
        support: makes the masks of a batch, or of the part of it that runs at a time.
        whole: leave out a last batch that is filled up.
        most: instead, True for all weights of a filter of which some weight is used in batches with at least half of the images.
    """
    kernels = _kernels(network, phase)
    classes = network.architecture.classes
    parts = phase.training.accumulation
    size = phase.training.batch_size // parts
    mixed = tf.constant(np.random.default_rng(0).normal(size=(size, classes)), tf.float32)

    @tf.function(autograph=False)
    def touched(x: tf.Tensor, real: tf.Tensor) -> list[tf.Tensor]:
        values = [variable.value for variable in kernels.values()]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            logits = phase_logits(network, phase, x, source.start, support(), training=False)
            weighed = [tf.math.multiply_no_nan(tf.cast(z, tf.float32), real[:, None] * mixed) for z in logits.values()]
            total = tf.add_n([tf.reduce_sum(each) for each in weighed])
        return [gradient != 0 for gradient in tape.gradient(total, values, unconnected_gradients="zero")]

    used = {key: np.zeros(kernel.shape, bool) for key, kernel in kernels.items()}
    times = {key: np.zeros(kernel.shape[-1], int) for key, kernel in kernels.items()}  # images of batches that use a filter
    total, done, counted = len(source) * len(views), 0, 0
    for rows, x, _ in itertools.chain.from_iterable(source.view(view) for view in views):
        real = rows.numpy() >= 0
        if not (whole and not real.all()):
            for part, counts in zip(tf.split(x, parts), np.split(real.astype(np.float32), parts), strict=True):
                images = int(counts.sum())
                counted += images
                for key, touches in zip(used, touched(part, tf.constant(counts)), strict=True):
                    used[key] |= touches.numpy()
                    times[key] += images * touches.numpy().any(tuple(range(len(touches.shape) - 1)))
        done += int(real.sum())
        yield "looking for unused connections", done, total
    if not most:
        return used
    return {key: np.broadcast_to(2 * times[key] >= counted, kernel.shape) for key, kernel in kernels.items()}


def heavy_weights(network: Network, phase: Phase, beta: float) -> "dict[str, NDArray[np.bool_]]":
    """Kernel -> True where w^2 > beta: eq. 38 of the support paper, of weights."""
    return {key: np.square(keras.ops.convert_to_numpy(kernel)) > beta for key, kernel in _kernels(network, phase).items()}


def _kernels(network: Network, phase: Phase) -> dict[str, keras.Variable]:
    return {
        key: variable
        for name in phase.trains
        for key, variable in network.variables(name).items()
        if key.endswith("/kernel")
    }  # fmt: skip
