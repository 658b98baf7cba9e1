"""A network again in stock Keras layers, for processes that have no kerasgreedy.

The layers of this package have a stock twin or are written with stock layers and operations:

- Convolution and batch norm: Keras's own, which compute the same.
- Space-to-depth and its inverse: Reshape, Permute, Reshape, with the channel order of `nn/downsampling.py`.
- The weightless `pad` shortcut: a maximum over 1x1 windows takes every n-th place; ZeroPadding2D, told that the channels are
  rows, adds the new ones.
- A maximum over a padded map: the rows and columns at the border once more. Padding is at most half a window, so every window
  that has such a copy has the original too.
- Channels at other places: taken one by one, the new ones from a channel of zeros.
- A positive hard threshold: the threshold and the shift in force, as constants; they are not trained any further.
- The vote: Rescaling and Add, or the logarithm of a mean of probabilities.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from kerasgreedy.errors import InputError
from kerasgreedy.export.checking import FLOAT_TOLERANCE, check_same, jumps, some_images
from kerasgreedy.graph import tree
from kerasgreedy.graph.architecture import Component
from kerasgreedy.graph.kinds import kind_of
from kerasgreedy.graph.tree import Node, fold
from kerasgreedy.network.build import Network
from kerasgreedy.nn.activations import ApartActivation
from kerasgreedy.nn.batch_norm import FusedBatchNormalization
from kerasgreedy.nn.channels import sources
from kerasgreedy.nn.conv import RowGradientConv2D
from kerasgreedy.nn.dropout import ReplicaDropout
from kerasgreedy.nn.ensemble import ensemble_weights
from kerasgreedy.spec import layers as L
from kerasgreedy.spec.doors import imported

STOCK = {
    RowGradientConv2D: layers.Conv2D,
    FusedBatchNormalization: layers.BatchNormalization,
    ApartActivation: layers.Activation,  # Keras's batch norm is not fused
    ReplicaDropout: layers.Dropout,
}


def portable_model(network: Network, depths: Sequence[int] | None = None) -> keras.Model:
    """The function of `network.model(depths)` as a Keras model of stock layers and `keras.ops` only.

    Saved as `.keras` it loads with `keras.models.load_model` (safe mode on) where kerasgreedy is not installed, and can be
    trained there. Weights are copied, all of them trainable, float32. Layer `block_1.conv_1` is `conv_1` of component `block_1`.

    Args:
        depths: of the heads; default: `network.facts.depths`.

    Returns:
        Raw images (batch, height, width, channels) float32 of 0..255 to a dict of logits (batch, classes) float32: `depth_1` ...
        and `ensemble`.

    Raises:
        InputError: there is no such depth, or the logits on random images differ by more than 1e-5 of the largest.
    """
    wanted = network.facts.depths if depths is None else list(depths)
    images, outputs = Rebuild(network).heads(wanted)
    outputs["ensemble"] = vote(list(outputs.values()), wanted, network.facts.ensemble_on)
    model = keras.Model(images, outputs, name=_plain(network.architecture.name))
    some = some_images(network)
    received = model(some, training=False)
    for key, expected in network.model(wanted)(some, training=False).items():
        check_same("Keras model", np.asarray(expected), np.asarray(received[key]), FLOAT_TOLERANCE, jumps(network))
    return model


def vote(logits: Sequence[Any], depths: Sequence[int], on: str) -> Any:
    """What `nn.ensemble.Ensemble` gives, in stock layers."""
    weights = ensemble_weights(depths)
    if on == "logits":
        scaled = [
            layers.Rescaling(weight, name=f"ensemble.depth_{depth}")(z)
            for weight, depth, z in zip(weights, depths, logits, strict=True)
        ]
        return layers.Add(name="ensemble")(scaled) if len(scaled) > 1 else scaled[0]
    logs = [
        layers.Rescaling(1.0, math.log(weight), name=f"ensemble.log_depth_{depth}")(ops.log_softmax(z))
        for weight, depth, z in zip(weights, depths, logits, strict=True)
    ]
    stacked = ops.stack(logs)
    # Not ops.logsumexp: it asks for infinities, which quantisation answers wrongly.
    top = ops.max(stacked, axis=0)
    return top + ops.log(ops.sum(ops.exp(stacked - top), axis=0))


class Rebuild:
    """Puts the layers of a network together again, with their weights, as one model of stock layers.

    Subclasses say in `kinds` what they do otherwise.
    """

    def __init__(self, network: Network):
        self._network = network
        self._component = ""
        self._model: keras.Model = None

    def heads(self, depths: Sequence[int]) -> tuple[Any, dict[str, Any]]:
        """The input and, by name (`depth_1`), the logits of these depths as symbolic tensors.

        Raises:
            InputError: there is no such depth.
        """
        arch = self._network.architecture
        for depth in depths:
            if not 1 <= depth <= len(arch.blocks):
                raise InputError(f"depth: received {depth}; this network has depths 1 to {len(arch.blocks)}")
        images = keras.Input(arch.input_shape, name="images", dtype="float32")
        x = self.normalized(images)
        outputs = {}
        for depth in range(1, max(depths) + 1):
            x = self._run(arch.blocks[depth - 1], x)
            if depth in depths:
                outputs[f"depth_{depth}"] = self._run(arch.heads[depth - 1], x)
        return images, outputs

    def normalized(self, images: Any) -> Any:
        """Raw images as the first block takes them."""
        if not self._network.facts.normalization:
            return images
        mean, deviation = self._network.facts.normalization
        return layers.Normalization(mean=mean, variance=np.square(deviation), name="normalize")(images)

    def _run(self, component: Component, x: Any) -> Any:
        self._component, self._model = component.name, self._network.component(component.name)
        return self.sequence(component.nodes, x)

    def sequence(self, nodes: Sequence[Node], x: Any) -> Any:
        return fold(nodes, x, self._leaf, lambda node, parts: self.copied(node.name, parts))

    def _leaf(self, node: Node, x: Any) -> Any:
        kind = kind_of(node.layer)
        method = imported(kind.portable) if kind.portable else self.kinds.get(type(node.layer), Rebuild.as_it_is)
        return method(self, node.layer, node, x)

    def as_it_is(self, _: Any, node: Node, x: Any) -> Any:
        """Stock layers already, or of those that `STOCK` names."""
        return self.copied(node.name, x)

    def weights(self, node: Node) -> list[np.ndarray]:
        """Of the component's layer, in the order of Keras."""
        return self._model.get_layer(node.name).get_weights()

    def name(self, node: Node, part: str = "") -> str:
        """What its layer, or one of several, is called."""
        return f"{_plain(self._component)}.{node.name}{part}"

    def copied(self, name: str, x: Any) -> Any:
        """The output of the component's layer of that name, as a stock layer with the same weights."""
        layer = self._model.get_layer(name)
        stock = STOCK.get(type(layer), type(layer))
        if not stock.__module__.startswith("keras."):
            raise InputError(
                f"{self._component}/{name}: a {stock.__name__} is no layer of Keras, and its kind does not say how stock layers "
                "do what it does; see 'portable' in docs/extending.md"
            )
        config = {"name": f"{_plain(self._component)}.{name}", "dtype": "float32", "trainable": True}
        own = {key: value for key, value in layer.get_config().items() if key != "unbiased"}  # of batches, which it will not see
        copy = stock.from_config({**own, **config})
        y = copy(x)
        copy.set_weights(layer.get_weights())
        return y

    def pad(self, layer: tree.Pad, node: Node, x: Any) -> Any:
        if layer.value == "zero":
            return self.copied(node.name, x)
        height, width, _ = node.input_shape
        return self._repeated_ends(node, self._repeated_ends(node, x, 1, height, layer.before), 2, width, layer.before)

    def _repeated_ends(self, node: Node, x: Any, axis: int, size: int, times: int) -> Any:
        """The first and the last row (axis 1) or column (axis 2) so many times more."""
        ends = []
        for end, cut in (("first", (0, size - 1)), ("last", (size - 1, 0))):
            crop = (cut, (0, 0)) if axis == 1 else ((0, 0), cut)
            ends.append([layers.Cropping2D(crop, name=self.name(node, f"_{end}_of_axis_{axis}"))(x)] * times)
        return layers.Concatenate(axis, name=self.name(node, f"_axis_{axis}"))([*ends[0], x, *ends[1]])

    def activation(self, layer: L.Activation, node: Node, x: Any) -> Any:
        if layer.activation == "square":
            return layers.Multiply(name=self.name(node))([x, x])
        if layer.threshold is None:
            return self.copied(node.name, x)
        own = self._model.get_layer(node.name)
        threshold, shift = np.asarray(own.threshold()), np.asarray(own.shift())
        if shift.any():  # it is the threshold then
            x = x - shift
        elif threshold.any():
            return ops.where(x <= threshold, 0.0, x)
        return layers.ReLU(name=self.name(node))(x)

    def downsample(self, layer: L.Downsample, node: Node, x: Any) -> Any:
        if layer.downsample != "invertible":
            return self.copied(node.name, x)
        f, (height, width, _) = layer.factor, node.output_shape
        # A patch's row of f places is already adjacent to the channels: only its f rows have to move there.
        return self._rearranged(node, x, (height, f, width, f * node.input_shape[-1]))

    def upsample(self, layer: L.Upsample, node: Node, x: Any) -> Any:
        f, (height, width, _) = layer.factor, node.input_shape
        return self._rearranged(node, x, (height, width, f, f * node.output_shape[-1]))

    def _rearranged(self, node: Node, x: Any, split: tuple[int, ...]) -> Any:
        x = layers.Reshape(split, name=self.name(node, "_split"))(x)
        x = layers.Permute((1, 3, 2, 4), name=self.name(node, "_permute"))(x)
        return layers.Reshape(node.output_shape, name=self.name(node))(x)

    def subsample(self, layer: tree.PadShortcut, node: Node, x: Any) -> Any:
        x = layers.MaxPooling2D(1, layer.stride, name=self.name(node, "_places"))(x)
        new = ((0, 0), (0, layer.channels - node.input_shape[-1]))
        return layers.ZeroPadding2D(new, data_format="channels_first", name=self.name(node))(x)

    def place_channels(self, layer: L.PlaceChannels, node: Node, x: Any) -> Any:
        padded = ops.pad(x, [(0, 0)] * (len(x.shape) - 1) + [(0, 1)])
        return ops.take(padded, sources(layer.place_channels, layer.at), axis=-1)

    def middle(self, layer: L.RandomCrop, node: Node, x: Any) -> Any:
        return layers.CenterCrop(*node.output_shape[:2], name=self.name(node))(x)

    kinds: Mapping[type, Callable[[Any, Any, Node, Any], Any]] = {
        **dict.fromkeys(
            (L.Conv, L.Dense, L.BatchNorm, L.MaxPool, L.AvgPool, L.PoolTo, L.GlobalAvgPool, L.Flatten, L.Dropout, L.Rows),
            as_it_is,
        ),
        tree.Pad: pad,
        tree.Crop: as_it_is,
        L.PlaceChannels: place_channels,
        L.RandomCrop: middle,
        L.Activation: activation,
        L.Downsample: downsample,
        L.Upsample: upsample,
        tree.PadShortcut: subsample,
    }


def _plain(name: str) -> str:
    return name.replace("/", "_")
