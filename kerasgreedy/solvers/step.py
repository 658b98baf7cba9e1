"""The step: mathematics of one batch, always under a tf.distribute.Strategy."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from kerasgreedy.network.build import Network
from kerasgreedy.network.evaluation import objectives_of
from kerasgreedy.network.walk import IMAGES, Instead, StartPoint
from kerasgreedy.nn.mixed import Labels, by_label
from kerasgreedy.plan.stages import Phase
from kerasgreedy.solvers.updates import Setting, Update, updates_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

Sums: TypeAlias = dict[str, Any]
Support: TypeAlias = Callable[..., Instead]


@dataclass(frozen=True)
class Result:
    """What a batch came to.

    Attributes:
        sums: head -> (sum of losses, number right) over the batch; still on the device.
        warm: nothing was traced for it; for those who time steps.
        examples: of them; None: a batch.
        recorded: what the support of each device's share was, packed; of a step that records.
    """

    sums: Sums
    warm: bool
    examples: int | None = None
    recorded: Any = None


def phase_logits(
    network: Network,
    phase: Phase,
    x: tf.Tensor,
    start: StartPoint = IMAGES,
    instead: Instead | None = None,
    training: bool = True,
    given: dict[str, Any] | None = None,
) -> dict[str, tf.Tensor]:
    """Logits of the heads that the phase has a loss at; no other head is computed, no later block is run.

    Frozen components run in inference mode. Under `stop_gradient`, and out of frozen blocks, no gradient passes.

    Args:
        x: images, or what has been made of them by `start`: all its blocks are frozen.
        instead: what layers of the trained components do, where they do something else (see `Network.run`).
        training: False: trained components run in inference mode too.
        given: filled with what each of these heads is given; None where `start` is inside it.

    Returns:
        head name -> (b, classes).
    """
    result = {}
    instead = start.passing(instead)

    def run(name: str, x: tf.Tensor) -> tf.Tensor:
        trained = name in phase.trains
        return network.run(name, x, trained and training, instead if trained else None)

    for depth, (block, head) in enumerate(zip(network.blocks, network.heads, strict=True), start=1):
        if depth < start.block:
            continue
        trained = block.name in phase.trains
        if depth > start.block:
            x = run(block.name, x)
        if head.name in phase.losses:
            inside = tf.stop_gradient(x) if not trained else x
            if given is not None:
                given[head.name] = None if start.is_inside_head(depth) else inside
            result[head.name] = run(head.name, inside)
        if len(result) == len(phase.losses):
            break
        if phase.stop_gradient or not trained:
            x = tf.stop_gradient(x)
    return result


def class_weights(
    setting: Literal["balanced"] | dict[str, float], counts: "NDArray[np.int64]", names: Sequence[str]
) -> "NDArray[np.float32]":
    """Factors of the losses of training images by class.

    Args:
        setting: `training.class_weights`.
        counts: (at most classes,) training images of each class.
        names: of the classes.

    Returns:
        (classes,) images / (classes * images of the class) where balanced (of a class without images 1).
    """
    if isinstance(setting, dict):
        return np.array([setting.get(name, 1.0) for name in names], np.float32)
    whole = np.zeros(len(names))
    whole[: len(counts)] = counts
    return np.where(whole > 0, whole.sum() / (np.count_nonzero(whole) * np.maximum(whole, 1)), 1).astype(np.float32)


class TrainStep:
    """One optimiser step of a phase on a global batch.

    Minimises the sum over the phase's heads of the mean loss by their objectives, plus weight_decay / 2 * |w|^2 over all that
    trains, plus the regularizers.
    With `accumulation` = n the batch goes through in n parts, one after the other, and their gradients are summed before the
    one update: the peak of memory is that of a part. Batch norm then sees a part at a time.

    Args:
        network: built under the strategy's scope, in the precision of the phase.
        phase: what trains, where the losses stand, by which objectives, global batch size, weight decay, label smoothing.
        optimizer: built here, with exactly the variables of this phase.
        start: what the step is fed (see `phase_logits`).
        more: what is done to gradients and variables beside what the phase's settings ask for.
        support: given what a batch holds behind the labels, what the layers of the trained components do instead.
        class_weights: (classes,) factors of the losses by label; None: all 1.
        beside: another step of the same phase, whose updates this one shares, with all that they keep.
        records: results hold what the support was; not with accumulation.
    """

    def __init__(
        self,
        network: Network,
        phase: Phase,
        optimizer: keras.optimizers.Optimizer,
        strategy: tf.distribute.Strategy,
        start: StartPoint = IMAGES,
        more: Sequence[Update] = (),
        support: Support | None = None,
        class_weights: "NDArray[np.float32] | None" = None,
        beside: "TrainStep | None" = None,
        records: bool = False,
    ):
        self._support, self._records = support, records
        self._weights = class_weights
        self.updates: list[Update] = beside.updates if beside else updates_of(Setting(network, phase, optimizer, strategy), *more)
        self._network, self._phase, self._optimizer, self._strategy = network, phase, optimizer, strategy
        self._start, self._parts = start, phase.training.accumulation
        self._batch_size = phase.training.batch_size
        self._objectives = objectives_of(phase.training, phase.losses, smoothed=True)
        for name in network.names:
            network.component(name).trainable = name in phase.trains
        self.variables = [v for name in phase.trains for v in network.component(name).trainable_variables]
        with strategy.scope():
            optimizer.build(self.variables)
        self._warm = False  # the first call traces the graph
        self._compiled = tf.function(self._global, autograph=False)

    def __call__(self, x: Any, labels: Any, *more: Any) -> Sums:
        """Runs the step; returns head -> (sum of losses, number right) over the global batch."""
        sums: Sums = self._compiled(x, labels, *more)[0]
        return sums

    def result(self, batch: Sequence[Any], number: int) -> Result:
        """Runs the step of a number, counted from 0 in the phase."""
        for update in self.updates:
            update.before(number)
        warm, self._warm = self._warm, True
        sums, recorded = self._compiled(*batch)
        return Result(sums, warm, recorded=recorded)

    def _global(self, *batch: Any) -> tuple[Sums, Any]:
        optimizer = getattr(self._optimizer, "inner_optimizer", self._optimizer)
        begun, rate = tf.identity(optimizer.iterations.value), tf.identity(optimizer.learning_rate)
        sums, recorded = self._strategy.run(self._replica, args=batch)
        # A step that overflows is left out, and does not count.
        rate *= tf.cast(optimizer.iterations.value - begun, tf.float32)
        for update in self.updates:
            update.on_variables(rate)
        return tf.nest.map_structure(lambda x: self._strategy.reduce(tf.distribute.ReduceOp.SUM, x, axis=None), sums), recorded

    def _replica(self, *batch: Any) -> tuple[Sums, Any]:
        gradients, sums, recorded = self._gradients(*batch) if self._parts == 1 else (*self._accumulated(*batch), ())
        for update in self.updates:
            gradients = update.on_gradients(gradients, self.variables)
        self._optimizer.apply(gradients, self.variables)
        return sums, recorded

    def _gradients(self, x: tf.Tensor, labels: Labels, *more: tf.Tensor) -> tuple[list[tf.Tensor], Sums, Any]:
        values = [variable.value for variable in self.variables]
        support = self._support(*more) if self._support else None
        instead, inputs = self._reading(support)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            blocks: dict[str, Any] = {}
            logits = phase_logits(self._network, self._phase, x, self._start, instead, given=blocks)
            of = {head: functools.partial(self._loss, head, z, blocks[head]) for head, z in logits.items()}
            losses = {head: tf.reduce_sum(by_label(loss, labels)) for head, loss in of.items()}
            weighted = [self._weighted(loss, labels) for loss in of.values()] if self._weights is not None else losses.values()
            total = tf.add_n([*weighted, *(update.on_inputs(inputs) for update in self.updates if update.reads)])
            objective = self._optimizer.scale_loss(total / self._batch_size)
        right = {head: tf.reduce_sum(by_label(functools.partial(_right, _decide(z)), labels)) for head, z in logits.items()}
        # Unconnected: thresholds, while masks stand for them.
        gradients = tape.gradient(objective, values, unconnected_gradients="zero")
        recorded = support.bits() if self._records else ()  # type: ignore[union-attr]
        return gradients, {head: tf.stack([losses[head], right[head]]) for head in logits}, recorded

    def _loss(self, head: str, logits: tf.Tensor, block: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return self._objectives[head](logits, labels, block)

    def _weighted(self, loss: Callable[[tf.Tensor], tf.Tensor], labels: Labels) -> tf.Tensor:
        """The sum over the batch, with the weights of its classes."""
        weights = tf.constant(self._weights)
        return tf.reduce_sum(by_label(lambda each: loss(each) * tf.gather(weights, each), labels))

    def _reading(self, instead: Instead | None) -> tuple[Instead | None, dict[str, tf.Tensor]]:
        """What keeps the inputs that updates read while the network runs, and where it keeps them."""
        wanted = {key for update in self.updates for key in update.reads}
        kept: dict[str, tf.Tensor] = {}
        if not wanted:
            return instead, kept

        def read(key: str, layer: keras.layers.Layer, x: tf.Tensor) -> tf.Tensor | None:
            if key in wanted:
                kept[key] = x
            return instead(key, layer, x) if instead else None

        return read, kept

    def _accumulated(self, *batch: Any) -> tuple[list[tf.Tensor], Sums]:
        """Part after part: those that may run at the same time would save no memory."""
        size = tf.shape(batch[0])[0] // self._parts
        if self._strategy.num_replicas_in_sync > 1:
            return self._unrolled(batch, size)

        def add(part: tf.Tensor, gradients: list[tf.Tensor], sums: Sums) -> tuple[tf.Tensor, list[tf.Tensor], Sums]:
            rows = slice(part * size, (part + 1) * size)
            more = self._gradients(*tf.nest.map_structure(lambda values: values[rows], batch))[:2]
            return part + 1, *tf.nest.map_structure(tf.add, (gradients, sums), more)

        zeros = [tf.zeros(v.shape, v.dtype) for v in self.variables]
        start = (tf.constant(0), zeros, {head: tf.zeros(2) for head in self._phase.losses})
        _, gradients, sums = tf.while_loop(lambda part, *_: part < self._parts, add, start, parallel_iterations=1)
        return gradients, sums

    def _unrolled(self, batch: tuple[Any, ...], size: tf.Tensor) -> tuple[list[tf.Tensor], Sums]:
        """The same without a loop: synchronised batch norm cannot reach the other replicas from inside one."""
        total = self._gradients(*tf.nest.map_structure(lambda values: values[:size], batch))[:2]
        for part in range(1, self._parts):
            with tf.control_dependencies(tf.nest.flatten(total)):
                rows = slice(part * size, (part + 1) * size)
                part_of = tf.nest.map_structure(lambda values: tf.identity(values[rows]), batch)  # noqa: B023 (called at once)
                total = tf.nest.map_structure(tf.add, total, self._gradients(*part_of)[:2])
        return total


def _decide(logits: tf.Tensor) -> tf.Tensor:
    return tf.argmax(logits, axis=-1, output_type=tf.int32)


def _right(decided: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.equal(decided, labels), tf.float32)
