"""The support of layers: estimated, packed into bits, held, or shared by a batch."""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from kerasgreedy.graph.supports import Layout, Unit
from kerasgreedy.nn.activations import PositiveHardThreshold
from kerasgreedy.solvers.alternation.pools import largest, taken
from kerasgreedy.spec.solver_settings import Alternation


def pack(mask: tf.Tensor) -> tf.Tensor:
    """Truth values as bits: plane k of 8 holds a run of neighbours, so that unpacking needs no shuffling.

    Args:
        mask: (b, n) bool.

    Returns:
        (b, ceil(n / 8)) uint8; byte i holds element k * ceil(n / 8) + i in its bit k.
    """
    width = -(-mask.shape[1] // 8)
    padded = tf.pad(tf.cast(mask, tf.uint8), [[0, 0], [0, 8 * width - mask.shape[1]]])
    planes = [plane * tf.constant(1 << k, tf.uint8) for k, plane in enumerate(tf.split(padded, 8, axis=1))]
    return tf.add_n(planes)


def unpack(bits: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """What `pack` packed: (b, ceil(n / 8)) uint8 to (b, *shape) bool, n being the product of `shape`."""
    planes = [tf.cast(tf.bitwise.bitwise_and(bits, tf.constant(1 << k, tf.uint8)), tf.bool) for k in range(8)]
    return tf.reshape(tf.concat(planes, axis=1)[:, : math.prod(shape)], (-1, *shape))


class Support:
    """What the layers of a phase do while their support is estimated, held or shared; `Network.run` takes it as `instead`.

    Args:
        units: the layers that have a support.
        settings: rule, and what is done under a mask.
        betas: `component/layer` -> smallest x^2 of one example (or mean over a batch) that is in the support, exclusive.
    """

    def __init__(self, units: Layout, settings: Alternation, betas: Mapping[str, Any]):
        self._units, self._settings, self._betas = units, settings, betas

    def __call__(self, key: str, layer: keras.layers.Layer, q: tf.Tensor) -> tf.Tensor | None:
        unit = self._units.get(key)
        if isinstance(layer, keras.layers.Dropout):
            return None if self._settings.dropout == "drawn" else self._dropped(key, unit, q)
        if unit is None:
            return None
        if isinstance(layer, keras.layers.MaxPooling2D):
            return self._pooled(key, unit, layer, q)
        return self._masked(key, unit, layer, q)

    def _masked(self, key: str, unit: Unit, layer: keras.layers.Layer, q: tf.Tensor) -> tf.Tensor:
        raise NotImplementedError

    def _pooled(self, key: str, unit: Unit, layer: keras.layers.MaxPooling2D, x: tf.Tensor) -> tf.Tensor:
        raise NotImplementedError

    def _dropped(self, key: str, unit: Unit | None, x: tf.Tensor) -> tf.Tensor:
        """What a dropout does that draws nothing."""
        return x

    def _energy_root(self, layer: keras.layers.Layer, q: tf.Tensor) -> tf.Tensor:
        """x of eq. 36: the activation's output, or its input."""
        return layer(q) if self._settings.rule == "positive" else q

    def _in_support(self, key: str, layer: keras.layers.Layer, q: tf.Tensor) -> tf.Tensor:
        """Of each example (eq. 38), as |x| > sqrt(beta): squares of small numbers vanish in float16."""
        x = self._energy_root(layer, q)
        root = tf.cast(tf.sqrt(tf.cast(self._betas[key], tf.float32)), x.dtype)
        inside = tf.abs(x) > root
        if self._settings.rule == "positive" and isinstance(layer, PositiveHardThreshold):
            # The activation's own support (eq. 12): above a negative threshold q = 0 is in it, and has no energy.
            inside |= (root == 0) & layer.supported(q)
        return inside

    def _under(self, mask: tf.Tensor, layer: keras.layers.Layer, q: tf.Tensor) -> tf.Tensor:
        """m q (eq. 2), or m a(q). Not a product: an infinite q outside of the support is zero too."""
        value = q if self._settings.is_linear else layer(q)
        return tf.where(mask, value, tf.zeros_like(value))


class Estimated(Support):
    """Estimates masks and runs under them; `bits` gives them packed, in the order of the layout. For one trace.

    Args:
        drawn: of a dropout that is held, `component/layer` and its unit to the places (b, *shape) bool that stay; None: all.
    """

    def __init__(
        self,
        units: Layout,
        settings: Alternation,
        betas: Mapping[str, Any],
        drawn: Callable[[str, Unit], tf.Tensor] | None = None,
    ):
        super().__init__(units, settings, betas)
        self._parts: dict[str, list[tf.Tensor]] = {}
        self._drawn = drawn

    def bits(self) -> tf.Tensor:
        """(b, bytes of a row) uint8."""
        return tf.concat([part for key in self._units for part in self._parts[key]], axis=1)

    def _masked(self, key: str, unit: Unit, layer: keras.layers.Layer, q: tf.Tensor) -> tf.Tensor:
        mask = self._in_support(key, layer, q)
        self._parts[key] = [pack(_flat(mask))]
        return self._under(mask, layer, q)

    def _dropped(self, key: str, unit: Unit | None, x: tf.Tensor) -> tf.Tensor:
        if unit is None or self._drawn is None:
            return x
        stays = self._drawn(key, unit)
        self._parts[key] = [pack(_flat(stays))]
        return _kept(x, stays, unit)

    def _pooled(self, key: str, unit: Unit, layer: keras.layers.MaxPooling2D, x: tf.Tensor) -> tf.Tensor:
        switch = _flat(largest(layer, x))
        self._parts[key] = [pack(tf.bitwise.bitwise_and(switch, 1 << plane) > 0) for plane in range(unit.planes)]
        return layer(x)


class Held(Support):
    """Runs under given masks.

    Args:
        bits: (b, bytes of a row) uint8, as `Estimated.bits` gives them.
    """

    def __init__(self, units: Layout, settings: Alternation, bits: tf.Tensor):
        super().__init__(units, settings, {})
        self._bits = bits

    def _masked(self, key: str, unit: Unit, layer: keras.layers.Layer, q: tf.Tensor) -> tf.Tensor:
        return self._under(self._plane(unit, 0), layer, q)

    def _dropped(self, key: str, unit: Unit | None, x: tf.Tensor) -> tf.Tensor:
        return x if unit is None else _kept(x, self._plane(unit, 0), unit)

    def _pooled(self, key: str, unit: Unit, layer: keras.layers.MaxPooling2D, x: tf.Tensor) -> tf.Tensor:
        switch = tf.add_n([tf.cast(self._plane(unit, plane), tf.int32) * (1 << plane) for plane in range(unit.planes)])
        return taken(layer, switch, x)

    def _plane(self, unit: Unit, plane: int) -> tf.Tensor:
        start = unit.offset + plane * unit.plane_bytes
        return unpack(self._bits[:, start : start + unit.plane_bytes], unit.shape)


class Shared(Support):
    """One mask for the whole global batch, made from the batch itself as it comes by (eq. 41, or a majority vote).

    Args:
        examples: in the global batch, or in the part of it that runs at a time; with `weights` their sum on this replica.
        weights: of the examples on this replica, 0 for fillers; None: all count.
    """

    def __init__(
        self, units: Layout, settings: Alternation, betas: Mapping[str, Any], examples: Any, weights: tf.Tensor | None = None
    ):
        super().__init__(units, settings, betas)
        self._weights = weights
        self._examples = tf.cast(examples if weights is None else self._everywhere(examples), tf.float32)

    def _masked(self, key: str, unit: Unit, layer: keras.layers.Layer, q: tf.Tensor) -> tf.Tensor:
        if self._settings.vote == "majority":
            mask = self._mean(tf.cast(self._in_support(key, layer, q), tf.float32)) > 0.5
        else:
            mask = self._mean(tf.square(tf.cast(self._energy_root(layer, q), tf.float32))) > self._betas[key]
        return self._under(mask, layer, q)

    def _pooled(self, key: str, unit: Unit, layer: keras.layers.MaxPooling2D, x: tf.Tensor) -> tf.Tensor:
        """The place of its window with the largest mean square over the batch."""
        return taken(layer, largest(layer, self._mean(_energy(x))[None]), x)

    def _mean(self, score: tf.Tensor) -> tf.Tensor:
        if self._weights is not None:
            # Of fillers too: an infinite score times 0 is not a number.
            score = tf.math.multiply_no_nan(score, tf.reshape(self._weights, (-1, *[1] * (len(score.shape) - 1))))
        return self._everywhere(tf.reduce_sum(tf.stop_gradient(score), axis=0)) / self._examples

    @staticmethod
    def _everywhere(value: tf.Tensor) -> tf.Tensor:
        """The sum over replicas."""
        context = tf.distribute.get_replica_context()
        if context and context.num_replicas_in_sync > 1:
            return context.all_reduce(tf.distribute.ReduceOp.SUM, value)
        return value


def drawn_places(rows: tf.Tensor, seed: tf.Tensor) -> Callable[[str, Unit], tf.Tensor]:
    """Patterns of dropout by the number of the example: the same on any number of devices, and whenever they are drawn again.

    Args:
        rows: (b,) int64.
        seed: (n,) int32, n from 2 on: what they are drawn for.
    """

    def draw(key: str, unit: Unit) -> tf.Tensor:
        own = seed[:2]
        for part in (*tf.unstack(seed[2:]), zlib.crc32(key.encode()) & 0x7FFFFFFF):
            own = tf.random.experimental.stateless_fold_in(own, part)

        def places(row: tf.Tensor) -> tf.Tensor:
            return tf.random.stateless_uniform(unit.shape, tf.random.experimental.stateless_fold_in(own, row)) >= unit.rate

        return tf.map_fn(places, tf.cast(rows, tf.int32), fn_output_signature=tf.TensorSpec(unit.shape, tf.bool))

    return draw


def _kept(x: tf.Tensor, stays: tf.Tensor, unit: Unit) -> tf.Tensor:
    """As dropout scales it."""
    assert unit.rate is not None
    return tf.where(stays, x * tf.cast(1 / (1 - unit.rate), x.dtype), tf.zeros_like(x))


def _energy(x: tf.Tensor) -> tf.Tensor:
    """The square, float32; -1 for the padding of a pool: its own would overflow, and 0 would tie with units that are off."""
    x = tf.cast(x, tf.float32)
    return tf.where(x > -6e4, tf.square(x), -tf.ones_like(x))


def _flat(x: tf.Tensor) -> tf.Tensor:
    return tf.reshape(x, (-1, math.prod(x.shape[1:])))
