"""Beta of a batch's mask (eq. 41), chosen from the network as the warm-up left it."""

from collections.abc import Generator, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasgreedy.graph.supports import Layout, Unit
from kerasgreedy.inputs.features import PhaseInput
from kerasgreedy.network.build import Network
from kerasgreedy.plan.stages import Phase
from kerasgreedy.solvers.alternation.support import Shared, Support
from kerasgreedy.solvers.step import phase_logits
from kerasgreedy.spec.solver_settings import Alternation

# Batches that beta is chosen on.
BATCHES = 20


class Counted(Support):
    """Runs with the activations themselves; `shares` gives the share of active units of each layer. For one trace."""

    def __init__(self, units: Layout, settings: Alternation):
        super().__init__(units, settings, {})
        self.shares: dict[str, tf.Tensor] = {}

    def _masked(self, key: str, unit: Unit, layer: keras.layers.Layer, q: tf.Tensor) -> tf.Tensor:
        value = layer(q)
        self.shares[key] = tf.reduce_mean(tf.cast(value != 0, tf.float32))
        return value

    def _pooled(self, key: str, unit: Unit, layer: keras.layers.MaxPooling2D, x: tf.Tensor) -> tf.Tensor:
        return layer(x)


class Chosen(Shared):
    """Chooses each layer's beta so that a given share of its units is in the mask, and runs under it. For one trace."""

    def __init__(self, units: Layout, settings: Alternation, shares: Mapping[str, Any], examples: int):
        super().__init__(units, settings, {}, examples)
        self._shares = shares
        self.betas: dict[str, tf.Tensor] = {}

    def _masked(self, key: str, unit: Unit, layer: keras.layers.Layer, q: tf.Tensor) -> tf.Tensor:
        energy = self._mean(tf.square(tf.cast(self._energy_root(layer, q), tf.float32)))
        self.betas[key] = smallest_left_out(tf.reshape(energy, [-1]), self._shares[key])
        self._betas = self.betas
        return super()._masked(key, unit, layer, q)


def smallest_left_out(energy: tf.Tensor, share: Any) -> tf.Tensor:
    """The beta for which round(share * n) of n energies, at least one, are above it, ties left out; 0 where all are in."""
    count = tf.cast(tf.round(tf.cast(share, tf.float32) * tf.cast(tf.size(energy), tf.float32)), tf.int32)
    count = tf.where(tf.cast(share, tf.float32) > 0, tf.maximum(count, 1), count)
    falling = tf.concat([tf.sort(energy, direction="DESCENDING"), [0.0]], axis=0)
    return falling[count]


def estimate_betas(
    network: Network, phase: Phase, units: Layout, settings: Alternation, source: PhaseInput, view: int | None
) -> Generator[tuple[str, int, int], None, dict[str, float]]:
    """Yields (what is being done, images done, images in all); returns layer -> beta per example, the mean over batches.

    Shares are those of the activations themselves; energies those of the network under its masks, layer after layer.
    """
    parts = phase.training.accumulation
    size = phase.training.batch_size // parts
    keys = [key for key, unit in units.items() if unit.is_mask]

    @tf.function(autograph=False)
    def shares(x: tf.Tensor) -> tf.Tensor:
        counted = Counted(units, settings)
        phase_logits(network, phase, x, source.start, counted, training=False)
        return tf.stack([counted.shares[key] for key in keys])

    @tf.function(autograph=False)
    def betas(x: tf.Tensor, given: tf.Tensor) -> tf.Tensor:
        chosen = Chosen(units, settings, {key: given[i] for i, key in enumerate(keys)}, size)
        phase_logits(network, phase, x, source.start, chosen, training=False)
        return tf.stack([chosen.betas[key] for key in keys])

    def whole() -> Iterator[tf.Tensor]:
        batches = (x for rows, x, _ in source.view(view).take(BATCHES) if rows.numpy()[-1] >= 0)
        return (part for x in batches for part in tf.split(x, parts))

    found = np.mean([shares(x).numpy() for x in whole()], axis=0, dtype=np.float64)
    chosen = []
    for number, x in enumerate(whole(), start=1):
        chosen.append(betas(x, tf.constant(found, tf.float32)).numpy())
        yield "choosing beta", number * size, min(len(source) // (parts * size), BATCHES) * parts * size
    return {key: float(np.mean([betas[i] for betas in chosen], dtype=np.float64)) for i, key in enumerate(keys)}
