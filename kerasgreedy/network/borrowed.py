"""Weights of any Keras model for the blocks of a network: paired layer by layer, and proved by what both compute."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kerasgreedy.errors import InputError
from kerasgreedy.graph.architecture import Architecture
from kerasgreedy.graph.tree import Node
from kerasgreedy.network.build import Network
from kerasgreedy.network.taps import noting, tapped

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Of the largest number that a block gives.
TOLERANCE = 1e-4
# Kinds whose weights can be taken: stock classes, of which the package's own are subclasses or namesakes.
STOCK = (keras.layers.Conv2D, keras.layers.BatchNormalization, keras.layers.Dense)
SCALING = (keras.layers.Rescaling, keras.layers.Normalization)


@dataclass(frozen=True)
class Pixels:
    """What a Keras model takes: (x - mean) / deviation of images of 0..255, by channel.

    Attributes:
        reversed: the channels come as blue, green, red.
        inside: the model does it itself and takes 0..255.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    reversed: bool = False
    inside: bool = False

    def of(self, images: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """Images (n, height, width, channels) of 0..255 as the model takes them."""
        if self.inside:
            return images
        scaled = (images - np.array(self.mean, np.float32)) / np.array(self.deviation, np.float32)
        return np.asarray(scaled[..., ::-1] if self.reversed else scaled, np.float32)


# As `preprocess_input` of keras.applications calls them, red before green before blue.
PIXELS = {
    "bytes": Pixels((0.0,), (1.0,)),
    "unit": Pixels((0.0,), (255.0,)),
    "tf": Pixels((127.5,), (127.5,)),
    "torch": Pixels((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "caffe": Pixels((123.68, 116.779, 103.939), (1.0, 1.0, 1.0), reversed=True),
}


@dataclass(frozen=True)
class Weighted:
    """A layer with weights.

    Attributes:
        place: its name, in messages and as the beginning of its variables' names.
        kind: the name of its stock class.
        arrays: kernel and bias; or gamma, beta, moving mean and variance.
    """

    place: str
    kind: str
    arrays: tuple["NDArray[np.float32]", ...]

    def __str__(self) -> str:
        return f"{self.place} ({self.kind} {'x'.join(map(str, self.arrays[0].shape))})"


@dataclass(frozen=True)
class Borrowed:
    """What was taken.

    Attributes:
        arrays: block -> its variables, as `Network.arrays` names them.
        pixels: how images are normalised for them.
        layer: of the Keras model, the layer that gives what the last block gives.
    """

    arrays: Mapping[str, Mapping[str, "NDArray[np.float32]"]]
    pixels: Pixels
    layer: str


def borrow(model: keras.Model, arch: Architecture, blocks: int, pixels: Pixels | None = None, seed: int = 0) -> Borrowed:
    """Takes the weights of the first blocks of a network from a Keras model.

    Layers with weights are paired in their order, by kind and shape; where a network divides, its parts in the order of the spec
    or in the reverse one. A bias in front of a batch norm, where the spec has none, goes into the moving mean, which is the same
    function. Then both are run on random images: what the last block gives has to be what some layer of the model gives.

    Args:
        arch: of the network, at the model's own size of images if that has one.
        pixels: what the model takes; None: 0..255, scaled by its own first layers.

    Raises:
        InputError: a layer has no counterpart, the function is another one, or how images are scaled is not known.
    """
    pixels = pixels or scaled_inside(model, arch.input_shape[-1])
    if pixels is None:
        raise InputError(
            f"{model.name}: has no Rescaling and no Normalization at its beginning, so that it is not known what numbers it was "
            f"trained on; say start_pixels: one of {', '.join(PIXELS)}"
        )
    theirs = _weighted_of(model)
    fault = None
    for backwards in (False, True):
        network = Network(arch, seed)
        try:
            arrays = _paired(network, arch, blocks, theirs, backwards, pixels.reversed)
            for name, values in arrays.items():
                network.load_arrays(name, values)
            return Borrowed(arrays, pixels, _same_function(network, model, blocks, pixels))
        except InputError as error:
            fault = fault or error
    assert fault is not None
    raise fault


def own_shape(model: keras.Model) -> tuple[int | None, int | None, int]:
    """Height, width (None: any) and channels of the images that a model takes.

    Raises:
        InputError: it takes something else.
    """
    allowed = "allowed: a model of one batch of images, channels last, that was built for them"
    try:
        shape = model.input_shape
    except (AttributeError, ValueError, RuntimeError):  # subclassed, or never called
        raise InputError(f"{model.name}: does not say what it takes; {allowed}") from None
    if isinstance(shape, dict | list) and len(shape) == 1:
        (shape,) = shape.values() if isinstance(shape, dict) else shape
    first = any(getattr(layer, "data_format", None) == "channels_first" for layer in _leaves(model))
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[3] is None or first:
        raise InputError(f"{model.name}: takes {shape}{', channels first' if first else ''}; {allowed}")
    return shape[1:]


def scaled_inside(model: keras.Model, channels: int) -> Pixels | None:
    """What the first layers of a model do to images of 0..255; None: nothing.

    Raises:
        InputError: a factor is not above 0.
    """
    factor, offset = np.ones(channels), np.zeros(channels)
    found = False
    for layer in _leaves(model):
        if isinstance(layer, keras.layers.InputLayer):
            continue
        if not isinstance(layer, SCALING):
            break
        if isinstance(layer, keras.layers.Rescaling):
            scale, shift = (np.broadcast_to(np.asarray(each, float), channels) for each in (layer.scale, layer.offset))
        else:
            mean, variance = (np.broadcast_to(np.asarray(each, float).ravel(), channels) for each in (layer.mean, layer.variance))
            deviation = np.maximum(np.sqrt(variance), keras.backend.epsilon())
            scale, shift = (deviation, mean) if layer.invert else (1 / deviation, -mean / deviation)
        factor, offset, found = factor * scale, offset * scale + shift, True
    if not found:
        return None
    if not np.all(factor > 0):
        raise InputError(f"{model.name}: its first layers turn images over; allowed: factors above 0")
    return Pixels(tuple((-offset / factor).tolist()), tuple((1 / factor).tolist()), inside=True)


def _leaves(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer)
        else:
            yield layer


def _weighted_of(model: keras.Model) -> list[Weighted]:
    layers = (layer for layer in _leaves(model) if layer.weights and not isinstance(layer, SCALING))
    return [_weighted(layer.name, layer) for layer in layers]


def _weighted(place: str, layer: keras.layers.Layer) -> Weighted:
    # Depthwise and transposed convolutions are other kinds, though some inherit from each other.
    stock = next((cls for cls in STOCK if isinstance(layer, cls)), type(layer))
    return Weighted(place, stock.__name__, tuple(np.asarray(weight, np.float32) for weight in layer.weights))


def _nodes(nodes: Sequence[Node], backwards: bool) -> Iterator[Node]:
    """Layers without children, as they are written, or with the parts of each division in the reverse order."""
    for node in nodes:
        if not node.children:
            yield node
        for child in reversed(node.children) if backwards else node.children:
            yield from _nodes(child, backwards)


def _paired(
    network: Network, arch: Architecture, blocks: int, theirs: Sequence[Weighted], backwards: bool, bgr: bool
) -> dict[str, dict[str, "NDArray[np.float32]"]]:
    """Block -> its variables, with the weights of the counterparts of its layers."""
    left, found, first = list(theirs), {}, True
    for block in arch.blocks[:blocks]:
        arrays = dict(network.arrays(block.name))
        ours = [_ours(network, block.name, node) for node in _nodes(block.nodes, backwards)]
        mine = [layer for layer in ours if layer is not None]
        carried: NDArray[np.float32] | None = None  # a bias for the batch norm behind it
        for place, layer in enumerate(mine):
            other = _counterpart(layer, left)
            left.remove(other)
            values = list(other.arrays)
            if carried is not None and len(values) == 4:  # another number is refused below
                values[2] = values[2] - carried
            carried = None
            if first and bgr:
                if layer.kind != "Conv2D":
                    raise InputError(f"{layer}: channels in the order blue, green, red can only be turned in a convolution")
                values[0] = values[0][:, :, ::-1]
            first = False
            if len(values) == len(layer.arrays) + 1 and layer.kind == "Conv2D" and _is_norm(mine[place + 1 : place + 2]):
                carried = values.pop()
            elif len(values) + 1 == len(layer.arrays) and layer.kind in ("Conv2D", "Dense"):
                values.append(np.zeros_like(layer.arrays[1]))
            if [value.shape for value in values] != [value.shape for value in layer.arrays]:
                raise InputError(f"{other} has {len(other.arrays)} weights, and {layer} of the spec {len(layer.arrays)}")
            keys = [key for key in arrays if key.startswith(f"{layer.place}/")]
            arrays |= dict(zip(keys, values, strict=True))
        found[block.name] = arrays
    return found


def _ours(network: Network, block: str, node: Node) -> Weighted | None:
    layer = network.component(block).get_layer(node.name)
    weights = [weight for weight in layer.weights if "seed_generator" not in weight.path]
    if not weights:
        return None
    found = _weighted(f"{block}/{node.name}", layer)
    if found.kind not in [cls.__name__ for cls in STOCK]:
        raise InputError(
            f"{found.place}: of a {found.kind} no weights can be taken; allowed: convolutions, batch norms, dense layers"
        )
    return replace(found, arrays=tuple(np.asarray(weight, np.float32) for weight in weights))


def _is_norm(layers: Sequence[Weighted]) -> bool:
    return bool(layers) and layers[0].kind == "BatchNormalization"


def _counterpart(layer: Weighted, left: Sequence[Weighted]) -> Weighted:
    for other in left:
        if other.kind == layer.kind and other.arrays[0].shape == layer.arrays[0].shape:
            return other
    next_one = f"; the next one there is {left[0]}" if left else ""
    raise InputError(f"{layer} of the spec has no counterpart among the layers that are left{next_one}")


def _same_function(network: Network, model: keras.Model, blocks: int, pixels: Pixels) -> str:
    """The layer of a model that gives what the last of the blocks gives, on random images."""
    images = np.random.default_rng(0).integers(0, 256, (2, *network.architecture.input_shape)).astype(np.float32)
    x: Any = (images - np.array(pixels.mean, np.float32)) / np.array(pixels.deviation, np.float32)
    for block in network.blocks[:blocks]:
        x = block(x, training=False)
    ours = np.asarray(x, float)
    largest = np.abs(ours).max()
    if not np.isfinite(ours).all() or largest == 0:
        raise InputError(f"with its weights block {blocks} gives nothing but zeros, or no finite numbers")
    seen: dict[keras.layers.Layer, list[Any]] = {layer: [] for layer in _leaves(model)}
    with tapped({layer: noting(outputs) for layer, outputs in seen.items()}):
        model(pixels.of(images), training=False)
    nearest, gap = None, np.inf
    for layer, outputs in seen.items():
        for output in outputs:
            if getattr(output, "shape", None) is not None and tuple(output.shape) == ours.shape:
                difference = np.abs(np.asarray(output, float) - ours).max() / largest
                nearest, gap = (layer, difference) if difference < gap else (nearest, gap)
    if nearest is None or gap > TOLERANCE:
        there = f"the nearest, {nearest.name}, differs by {gap:.2g} of it" if nearest else "none has its shape"
        shape = "x".join(map(str, ours.shape[1:]))
        raise InputError(
            f"all layers have counterparts, and yet no layer of {model.name} gives what block {blocks} ({shape}) gives; {there}. "
            "Padding, strides, activations or the epsilon of batch norms are others, or it computes in another precision"
        )
    return str(nearest.name)
