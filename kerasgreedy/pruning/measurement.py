"""Runs the part of a network that some losses reach, and gathers what its filters do by the items they belong to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from kerasgreedy.data.distributed import distributed
from kerasgreedy.errors import InputError, did_you_mean
from kerasgreedy.graph.chains import find_chains, no_scale
from kerasgreedy.graph.coupling import Group, Place
from kerasgreedy.network.build import FLOAT32, Network
from kerasgreedy.nn.gated import trained_kernel
from kerasgreedy.spec.convex_layers import ClassSeparable

Values: TypeAlias = NDArray[np.float64]
Scores: TypeAlias = dict[str, Values]
# Of a component, beside its feature maps; no layer has this name.
OUTPUT = "output"


@dataclass(frozen=True)
class ForwardPass:
    """One replica's part of a batch, after the forward pass.

    Attributes:
        tape: it watched the images and the weights.
        loss: scalar, the sum of weight_n * C_n.
        maps: feature maps (b, height, width, channels) or (b, channels).
        weights: (b,).
        variables: kernel and bias, of the layers of `maps`.
        fixed: those of these layers whose kernel is never trained.
    """

    tape: tf.GradientTape
    loss: tf.Tensor
    maps: dict[Place, tf.Tensor]
    weights: tf.Tensor
    variables: dict[Place, list[Any]]
    fixed: frozenset[Place] = frozenset()

    def share(self, values: tf.Tensor) -> tf.Tensor:
        """What each example adds to a mean: (b, ..., channels) to (b, channels)."""
        return tf.math.multiply_no_nan(over_space(values), tf.cast(self.weights, tf.float64)[:, None])


# A statistic gives (b, channels) float64 for each layer, or (1, channels) where examples are already summed.
Statistic: TypeAlias = Callable[[ForwardPass], dict[Place, tf.Tensor]]


def over_space(values: tf.Tensor) -> tf.Tensor:
    """(b, ..., channels) -> (b, channels) float64, the mean. Signs cancel in it, so it is added up in float64."""
    return tf.reduce_mean(tf.cast(values, tf.float64), axis=list(range(1, len(values.shape) - 1)))


class Measurement:
    """Groups, the part of the network that is run for them, and two ways through it: weights and data."""

    def __init__(
        self,
        network: Network,
        groups: Sequence[Group],
        batches: tf.data.Dataset | None,
        losses: Sequence[str],
        strategy: tf.distribute.Strategy,
        seed: int,
        seen: Callable[[int], None] | None = None,
    ):
        self.groups, self.seed, self._seen = groups, seed, seen
        self._network, self._batches, self._losses, self._strategy = network, batches, losses, strategy
        arch = network.architecture
        heads = [head.name for head in arch.heads]
        odd = next((name for name in losses if name not in heads), None)
        if odd is not None:
            raise InputError(f"there is no head '{odd}' to take a loss at; heads: {', '.join(heads)}{did_you_mean(odd, heads)}")
        self._depth = max(heads.index(name) for name in losses) + 1
        self._names = [*(block.name for block in arch.blocks[: self._depth]), *(name for name in heads if name in losses)]
        self._chains = {name: find_chains(arch.components[name].nodes) for name in self._names}
        self._positions = {group.name: self._find(group) for group in groups}
        # Component -> the layer that reads its fixed gates.
        self._readers = {
            name: node.name
            for name in self._names
            for node in arch.components[name].nodes
            if isinstance(node.layer, ClassSeparable)
        }

    def _find(self, group: Group) -> dict[Place, NDArray[np.int32]]:
        """Layer that is run -> of each of its filters, the position of its item; -1 for those that cannot be removed."""
        places = [place for place in group.places if place[0] in self._names]
        found = {place: np.full(self._layer(place).kernel.shape[-1], -1, np.int32) for place in places}
        for position, item in enumerate(group.items):
            inside = [filter_ for filter_ in item.filters if filter_.place in found]
            if not inside:
                where = ", ".join(dict.fromkeys(filter_.place[0] for filter_ in item.filters))
                raise InputError(
                    f"group '{group.name}': filters of {where} cannot be scored, the loss at {', '.join(self._losses)} "
                    f"runs {', '.join(self._names)} only"
                )
            for filter_ in inside:
                found[filter_.place][filter_.index] = position
        return found

    def _layer(self, place: Place) -> keras.layers.Layer:
        return self._network.component(place[0]).get_layer(place[1])

    def kernel(self, place: Place) -> Values:
        """(..., filters), of fixed gates (patch, classes, gates): the weights that read them."""
        layer = self._layer(place)
        if trained_kernel(layer) is not None:
            return keras.ops.convert_to_numpy(layer.kernel).astype(np.float64)
        read = keras.ops.convert_to_numpy(self._layer((place[0], self._readers[place[0]])).kernel)
        return np.moveaxis(read.astype(np.float64), -2, -1)

    def gamma(self, place: Place) -> Values:
        """(filters,) scale of the batch norm that follows directly."""
        norm = self._chains[place[0]][place[1]].batch_norm
        if norm is None:
            raise InputError(no_scale(place))
        return keras.ops.convert_to_numpy(self._layer((place[0], norm)).gamma).astype(np.float64)

    def by_filter(self, values: Callable[[Place], Values]) -> Scores:
        """Adds up, over the filters of each item, what a layer gives for its filters."""
        scores = {group.name: np.zeros(len(group.items)) for group in self.groups}
        for name, layers in self._positions.items():
            for place, positions in layers.items():
                if (positions < 0).all():
                    continue
                np.add.at(scores[name], positions[positions >= 0], values(place)[positions >= 0])
        return scores

    def stream(self, statistic: Statistic, each: Callable[[tf.Tensor], tf.Tensor] = tf.identity) -> Scores:
        """Means over the examples of `each`(sum of a statistic over the filters of an item)."""
        if self._batches is None:
            raise ValueError("this criterion needs batches")
        with self._strategy.scope():
            self._network.compute_in(FLOAT32, self._names)
            models = {name: self._with_maps(name) for name in self._names}

        def on_replica(images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
            values = statistic(self._forward(models, images, labels, weights))
            sums = {group.name: tf.reduce_sum(each(self._by_item(group, values)), axis=1) for group in self.groups}
            return sums, tf.reduce_sum(tf.cast(weights, tf.float64))

        @tf.function(autograph=False)
        def step(*batch: Any) -> Any:
            sums = self._strategy.run(on_replica, args=batch)
            return tf.nest.map_structure(lambda x: self._strategy.reduce(tf.distribute.ReduceOp.SUM, x, axis=None), sums)

        totals, count = {group.name: np.zeros(len(group.items)) for group in self.groups}, 0.0
        for batch in distributed(self._strategy, self._batches):
            sums, examples = step(*batch)
            count += float(examples)
            for name, values in sums.items():
                totals[name] += values.numpy()
            if self._seen:
                self._seen(round(count))
        if not count:
            raise ValueError("importance on no examples")
        return {name: values / count for name, values in totals.items()}

    def _with_maps(self, name: str) -> keras.Model:
        """The component with feature maps beside its output: the same tensors that its later layers take."""
        component = self._network.component(name)
        maps = {place[1]: component.get_layer(last).output for place, last in self._last(name).items()}
        return keras.Model(component.input, {OUTPUT: component.output, **maps})

    def _last(self, name: str) -> dict[Place, str]:
        places = [place for layers in self._positions.values() for place in layers if place[0] == name]
        return {place: self._chains[name][place[1]].last for place in places}

    def _forward(self, models: dict[str, keras.Model], x: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> ForwardPass:
        layers = {place: self._layer(place) for positions in self._positions.values() for place in positions}
        variables = {
            place: [variable.value for variable in (layer.kernel, layer.bias) if variable is not None]
            for place, layer in layers.items()
        }
        maps: dict[Place, tf.Tensor] = {}
        total = tf.zeros([])
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([x, variables])
            arch = self._network.architecture
            for block, head in list(zip(arch.blocks, arch.heads, strict=True))[: self._depth]:
                found = models[block.name](x, training=False)
                x = found.pop(OUTPUT)
                maps.update({(block.name, layer): z for layer, z in found.items()})
                if head.name in self._losses:
                    found = models[head.name](x, training=False)
                    logits = found.pop(OUTPUT)
                    maps.update({(head.name, layer): z for layer, z in found.items()})
                    total += tf.reduce_sum(weights * self._network.objective(head.name)(logits, labels, x))
        fixed = frozenset(place for place, layer in layers.items() if trained_kernel(layer) is None)
        return ForwardPass(tape, total, maps, weights, variables, fixed)

    def _by_item(self, group: Group, values: dict[Place, tf.Tensor]) -> tf.Tensor:
        """(items, b): sums over filters. Channels at position -1 are left out."""
        return tf.add_n(
            [
                tf.math.unsorted_segment_sum(tf.transpose(values[place]), positions, len(group.items))
                for place, positions in self._positions[group.name].items()
            ]
        )
