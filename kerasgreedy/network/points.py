"""Loss, gradient and Hessian-vector products of a Keras model at any weights, which the model itself never gets to hold."""

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from kerasgreedy.errors import Diverged, InputError
from kerasgreedy.network.outputs import (
    as_images,
    check_classes,
    first_of,
    logits_of,
    refuse_low_precision,
    refuse_probabilities,
)
from kerasgreedy.network.parameters import Parameters
from kerasgreedy.network.taps import tapped

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What the model gives, and integer labels (n,): the loss of each example (n,).
Losses: TypeAlias = Callable[[Any, tf.Tensor], tf.Tensor]
# Of a batch: enough that calls weigh nothing, and few enough that maps stay small.
PIXELS, LEAST, MOST = 512 * 1024, 16, 1000


def cross_entropy(outputs: Any, labels: tf.Tensor) -> tf.Tensor:
    """Of logits (n, classes), the first or only output, by example."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.cast(labels, tf.int32), logits=logits_of(outputs))


def usual_batch(images: "NDArray[Any]") -> int:
    """Examples of a batch, by the size of images (n, height, width, channels)."""
    return int(np.clip(PIXELS // max(1, int(np.prod(images.shape[1:-1]))), LEAST, MOST))


class Points:
    """A sample of examples, on which a model is evaluated at points theta of `Parameters`; mean losses over the sample.

    The model is called in inference mode with values in the place of its variables (`stateless_call`), so that they stay. Batch
    norm takes its moving statistics, or those of a point that `statistics` gives. Losses are those of the data: what regularizers
    of layers add (`model.losses`) is left out.

    Args:
        images, labels: (n, ...) and (n,); kept in memory, as float of the weights' type.
        losses: default: cross entropy of logits; a model that ends in a softmax is refused then.
        batch_size: default: `usual_batch`.
        strategy: each of its devices evaluates points of its own; results do not depend on how many there are.

    Raises:
        InputError: images and labels are no such arrays, or the model is none whose loss this is.
    """

    def __init__(
        self,
        model: keras.Model,
        images: "NDArray[Any]",
        labels: "NDArray[Any]",
        losses: Losses = cross_entropy,
        batch_size: int | None = None,
        strategy: tf.distribute.Strategy | None = None,
    ):
        images = as_images(images)
        if len(images) != len(labels) or not len(labels):
            raise InputError(f"received {len(images)} images and {len(labels)} labels; allowed: as many of both, one or more")
        self.parameters = Parameters(model)
        refuse_low_precision(model)
        if losses is cross_entropy:
            check_classes(model, labels, "labels")
            refuse_probabilities(model, images[:LEAST])
        self.examples = len(labels)
        self._model, self._losses = model, losses
        self._strategy = strategy or tf.distribute.get_strategy()
        dtype = self.parameters.dtype
        size = batch_size or usual_batch(images)
        rows = range(0, self.examples, size)
        self._batches = [(tf.constant(images[i : i + size], dtype), tf.constant(labels[i : i + size])) for i in rows]
        self._norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
        self._trained_norms = [layer for layer in self._norms if layer.trainable]
        self._places = {id(variable): i for i, variable in enumerate(model.non_trainable_variables)}
        self._evaluate = tf.function(self._everywhere, autograph=False)
        self._slope = tf.function(self._gradient, autograph=False)
        self._bend = tf.function(self._curved, autograph=False)
        self._observe = tf.function(self._seen, autograph=False)

    @property
    def devices(self) -> int:
        """How many points are evaluated at the same time."""
        return int(self._strategy.num_replicas_in_sync)

    @property
    def has_batch_norm(self) -> bool:
        """Whether statistics of batches are a part of the model."""
        return bool(self._norms)

    def evaluate(self, points: Sequence[Any], statistics: Sequence[Any] | None = None) -> list[tuple[float, float]]:
        """Mean loss and accuracy at up to `devices` points, each on a device of its own.

        Args:
            points: each (size,).
            statistics: for each what `statistics` gave; default: the model's own.
        """
        most = self.devices
        if not 0 < len(points) <= most:
            raise ValueError(f"{len(points)} points for {most} devices")
        filled = [points[min(i, len(points) - 1)] for i in range(most)]
        fixed = [(statistics or [None] * len(points))[min(i, len(points) - 1)] for i in range(most)]
        theta = self._spread([tf.constant(point, self.parameters.dtype) for point in filled])
        frozen = [self._spread(values) for values in zip(*(self._frozen(each) for each in fixed), strict=True)]
        total = np.zeros((most, 2))
        for images, labels in self._batches:
            total += np.stack([each.numpy() for each in self._evaluate(theta, frozen, images, labels)])
        return [(float(loss), float(right)) for loss, right in (total / self.examples)[: len(points)]]

    def gradient(self, theta: Any, batches: slice = slice(None), by_batch: bool = False) -> tuple[float, "NDArray[Any]"]:
        """Mean loss and its gradient (size,) over all or some of the batches.

        Args:
            by_batch: batch norm takes the statistics of each batch, and the gradient goes through them.

        Raises:
            Diverged: they are not finite.
        """
        theta = tf.constant(theta, self.parameters.dtype)
        chosen = self._batches[batches]
        loss, total = 0.0, np.zeros(self.parameters.size, self.parameters.dtype)
        for images, labels in chosen:
            sums, gradient = self._slope(theta, images, labels, by_batch)
            loss += float(sums)
            total += gradient.numpy()
        count = sum(len(labels) for _, labels in chosen)
        if not (np.isfinite(loss) and np.isfinite(total).all()):
            raise Diverged(f"{self._model.name}: the loss or its gradient is not finite at this point")
        return loss / count, total / count

    def hessian_product(self, theta: Any, vector: Any, batches: slice = slice(None)) -> "NDArray[Any]":
        """H v, (size,), H the Hessian of the mean loss over all or some of the batches at theta (Pearlmutter 1994)."""
        theta, vector = (tf.constant(value, self.parameters.dtype) for value in (theta, vector))
        chosen = self._batches[batches]
        total = np.zeros(self.parameters.size, self.parameters.dtype)
        for images, labels in chosen:
            total += self._bend(theta, vector, images, labels).numpy()
        if not np.isfinite(total).all():
            raise Diverged(f"{self._model.name}: a product with the Hessian is not finite at this point")
        return total / sum(len(labels) for _, labels in chosen)

    @property
    def batches(self) -> int:
        """How many batches the sample has."""
        return len(self._batches)

    def statistics(self, theta: Any) -> list["NDArray[Any]"]:
        """What the non-trainable variables are at theta when batch norm is re-estimated on this sample.

        Every batch norm that trains normalises by its batch while it is looked at, all else runs in inference mode; what is kept
        is the mean and the variance over all of the sample. Those that are frozen keep theirs.

        Raises:
            InputError: one of them is called more than once.
        """
        if not self._trained_norms:
            return [keras.ops.convert_to_numpy(value) for value in self._frozen(None)]
        theta = tf.constant(theta, self.parameters.dtype)
        sums: dict[int, Any] = {}
        for images, labels in self._batches:
            n = len(labels)
            for number, seen in self._observe(theta, images).items():
                m, v = (value.numpy().astype(np.float64) for value in seen)
                first, second = sums.get(number, (0.0, 0.0))
                sums[number] = first + n * m, second + n * (v + m * m)
        values = self._frozen(None)
        for number, (first, second) in sums.items():  # one that is never called keeps its own
            layer, mean = self._trained_norms[number], first / self.examples
            values[self._places[id(layer.moving_mean)]] = mean.astype(self.parameters.dtype)
            variance = np.maximum(second / self.examples - mean * mean, 0.0)
            values[self._places[id(layer.moving_variance)]] = variance.astype(self.parameters.dtype)
        return [keras.ops.convert_to_numpy(value) for value in values]

    def _frozen(self, given: Sequence[Any] | None) -> list[Any]:
        return list(given) if given is not None else [v.value for v in self._model.non_trainable_variables]

    def _spread(self, values: Sequence[Any]) -> Any:
        """One value for each device."""
        if self.devices == 1:
            return tf.convert_to_tensor(values[0])
        return self._strategy.experimental_distribute_values_from_function(
            lambda context: tf.convert_to_tensor(values[context.replica_id_in_sync_group])
        )

    def _outputs(self, theta: tf.Tensor, frozen: Sequence[Any], images: tf.Tensor) -> Any:
        """What the model gives in inference mode, with these values in the place of its variables."""
        takes = "training" in inspect.signature(self._model.call).parameters  # a subclassed one may not
        mode = {"training": False} if takes else {}
        return self._model.stateless_call(self.parameters.split(theta), frozen, images, **mode)[0]

    def _everywhere(self, theta: Any, frozen: Any, images: tf.Tensor, labels: tf.Tensor) -> Any:
        sums = self._strategy.run(self._sums, args=(theta, frozen, images, labels))
        return self._strategy.experimental_local_results(sums)

    def _sums(self, theta: tf.Tensor, frozen: Sequence[Any], images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tapped(dict.fromkeys(self._norms, _fused)):
            outputs = self._outputs(theta, frozen, images)
        right = tf.equal(tf.argmax(first_of(outputs), axis=-1), tf.cast(labels, tf.int64))
        losses = tf.cast(self._losses(outputs, labels), tf.float64)
        return tf.stack([tf.reduce_sum(losses), tf.reduce_sum(tf.cast(right, tf.float64))])

    def _gradient(self, theta: tf.Tensor, images: tf.Tensor, labels: tf.Tensor, by_batch: bool) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape, tapped(dict.fromkeys(self._trained_norms if by_batch else (), _by_batch)):
            tape.watch(theta)
            outputs = self._outputs(theta, self._frozen(None), images)
            loss = tf.reduce_sum(self._losses(outputs, labels))
        return loss, tape.gradient(loss, theta)

    def _curved(self, theta: tf.Tensor, vector: tf.Tensor, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as outer:
            outer.watch(theta)
            slope = self._gradient(theta, images, labels, False)[1]
            along = tf.reduce_sum(slope * vector)
        product = outer.gradient(along, theta)
        return tf.zeros_like(theta) if product is None else product

    def _seen(self, theta: tf.Tensor, images: tf.Tensor) -> dict[int, tuple[tf.Tensor, tf.Tensor]]:
        """Number of a batch norm that trains -> (mean, variance) of what it is given, when each normalises by this batch."""
        numbers = {id(layer): number for number, layer in enumerate(self._trained_norms)}
        seen: dict[int, tuple[tf.Tensor, tf.Tensor]] = {}
        twice: list[str] = []

        def look(call: Callable[..., Any], inputs: Any, training: Any = None, mask: Any = None) -> Any:
            layer = call.__self__  # type: ignore[attr-defined]
            if numbers[id(layer)] in seen:
                twice.append(layer.name)  # raised here, it would come wrapped by Keras
            axes = [axis for axis in range(len(inputs.shape)) if axis != layer.axis % len(inputs.shape)]
            seen[numbers[id(layer)]] = tf.nn.moments(tf.cast(inputs, self.parameters.dtype), axes)
            return call(inputs, training=True, mask=mask)

        with tapped(dict.fromkeys(self._trained_norms, look)):
            self._outputs(theta, self._frozen(None), images)
        if twice:
            message = f"batch norm '{twice[0]}' is called more than once: its statistics cannot be re-estimated"
            raise InputError(f"{message}; allowed: moving ones")
        return seen


def _by_batch(call: Callable[..., Any], inputs: Any, training: Any = None, mask: Any = None) -> Any:
    return call(inputs, training=True, mask=mask)


def _fused(call: Callable[..., Any], inputs: Any, training: Any = None, mask: Any = None) -> Any:
    """Batch norm in inference mode by the one kernel that TensorFlow fuses with what stands before and behind it.

    Keras composes it of elementwise operations, each of which goes through the maps again.
    """
    layer = call.__self__  # type: ignore[attr-defined]
    fits = len(inputs.shape) == 4 and layer.axis in (-1, 3) and mask is None and inputs.dtype == tf.float32
    if not (fits and layer.scale and layer.center):
        return call(inputs, training=False, mask=mask)
    arguments = {"scale": layer.gamma, "offset": layer.beta, "mean": layer.moving_mean, "variance": layer.moving_variance}
    return tf.raw_ops.FusedBatchNormV3(x=inputs, **arguments, epsilon=layer.epsilon, is_training=False).y
