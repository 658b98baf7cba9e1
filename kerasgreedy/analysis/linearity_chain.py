"""From blocks and a head to a chain of maps (support paper, eq. 13)."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kerasgreedy.analysis.linearity_steps import Array, Fixed, Gate, Scaled, Step, Switch, Weights
from kerasgreedy.errors import InputError
from kerasgreedy.graph.architecture import Architecture, Component
from kerasgreedy.graph.rules import adaptive_windows, margins, same_margins
from kerasgreedy.graph.tree import Crop, Node, Pad, Shape
from kerasgreedy.spec import layers as L
from kerasgreedy.spec.layers import Padding

# Those that pass a value whole or not at all.
ACTIVATIONS = ("relu", "positive_hard_threshold", "linear")
ALLOWED = (
    "a plain chain of conv, dense, batch_norm, activation, downsample, upsample, max_pool, avg_pool, pool_to, "
    "global_avg_pool, flatten, dropout, standardize, place_channels"
)


def components_at(arch: Architecture, depth: int) -> list[Component]:
    """Blocks 1 to `depth` and the head there."""
    return [*arch.blocks[:depth], arch.heads[depth - 1]]


def check_chain(components: Sequence[Component]) -> None:
    """Refuses what is no plain chain with supports of zeros and ones.

    Raises:
        InputError: names the first layer that cannot be.
    """
    for component in components:
        for node in _with_margins(component.nodes):
            where = f"{component.name}/{node.name}"
            if type(node.layer) not in _STEPS:
                kind = node.name.rpartition("_")[0]
                raise InputError(f"{where}: '{kind}' cannot be written as one product of weights; allowed: {ALLOWED}")
            if isinstance(node.layer, L.Activation) and node.layer.activation not in ACTIVATIONS:
                name = node.layer.activation
                raise InputError(f"{where}: received '{name}'; allowed: {', '.join(ACTIVATIONS)} (supports of 0 and 1)")


def chain_of(components: Sequence[Component], arch: Architecture, arrays: Mapping[str, Array]) -> list[Step]:
    """The maps of some components that run one after the other.

    Args:
        arrays: `block_1/conv_1/kernel` -> weights, of all components.

    Raises:
        InputError: see `check_chain`.
    """
    check_chain(components)
    steps: list[Step] = []
    for component in components:
        for node in _with_margins(component.nodes):
            name = f"{component.name}/{node.name}"
            own = {
                key.rpartition("/")[2]: value.astype(np.float64) for key, value in arrays.items() if key.startswith(f"{name}/")
            }
            steps += _STEPS[type(node.layer)](node, name, own, arch.defaults.batch_norm_epsilon)
    return steps


def _with_margins(nodes: Sequence[Node]) -> Iterator[Node]:
    """The layers, those that pad with the one behind them as one: its windows reach over the edge, where nothing is."""
    pad: Node | None = None
    for node in nodes:
        if isinstance(node.layer, Pad):
            pad = node
            continue
        if pad is not None:
            padded = node.layer.model_copy(update={"padding": [pad.layer.before, pad.layer.after]})  # type: ignore[attr-defined]
            node, pad = replace(node, layer=padded, input_shape=pad.input_shape), None
        yield node


def _dense(node: Node, name: str, own: dict[str, Array], _: float) -> list[Step]:
    columns, rows = (index.ravel() for index in np.indices(own["kernel"].shape))
    (width,), (height,) = node.input_shape, node.output_shape
    entries = np.arange(rows.size)
    return [Weights(name, height, width, rows, columns, entries, own["kernel"].ravel(), own.get("bias"), np.arange(height))]


def _conv(node: Node, name: str, own: dict[str, Array], _: float) -> list[Step]:
    layer: Any = node.layer
    (_, _, channels), (out_h, out_w, filters) = node.input_shape, node.output_shape
    windows = _windows(node.input_shape, layer.kernel_size, layer.stride, layer.padding)  # (places, taps)
    shape = own["kernel"].shape  # (height, width, channels of a group, filters)
    place, tap, channel, filter_ = (i.ravel() for i in np.indices((*windows.shape, shape[2], filters)))
    inside = windows[place, tap] >= 0
    place, tap, channel, filter_ = (i[inside] for i in (place, tap, channel, filter_))
    group = filter_ // (filters // layer.groups)
    columns = windows[place, tap] * channels + group * shape[2] + channel
    entries = np.ravel_multi_index((tap, channel, filter_), (shape[0] * shape[1], *shape[2:]))
    spread = np.tile(np.arange(filters), out_h * out_w)
    size = math.prod(node.output_shape), math.prod(node.input_shape)
    return [Weights(name, *size, place * filters + filter_, columns, entries, own["kernel"].ravel(), own.get("bias"), spread)]


def _batch_norm(node: Node, name: str, own: dict[str, Array], epsilon: float) -> list[Step]:
    scale = own["gamma"] / np.sqrt(own["moving_variance"] + epsilon)
    places = math.prod(node.input_shape[:-1])
    return [Scaled(np.tile(scale, places), np.tile(own["beta"] - own["moving_mean"] * scale, places))]


def _standardize(node: Node, name: str, own: dict[str, Array], _: float) -> list[Step]:
    factor = np.broadcast_to(own["factor"], node.input_shape).ravel()
    return [Scaled(factor, -np.broadcast_to(own["mean"], node.input_shape).ravel() * factor)]


def _activation(node: Node, name: str, own: dict[str, Array], _: float) -> list[Step]:
    kind = node.layer.activation  # type: ignore[attr-defined]
    if kind == "linear":
        return []
    if kind == "relu":
        return [Gate(name, np.zeros(()))]
    size = math.prod(node.input_shape)  # a number, or one for each channel, is repeated over all places
    if "bias" in own and not own["hard"]:  # it warms up: max(q - bias, 0) (eq. 7)
        return [Scaled(np.ones(size), -np.resize(own["bias"], size)), Gate(name, np.zeros(()))]
    return [Gate(name, np.resize(own["beta"], size))]


def _downsample(node: Node, name: str, own: dict[str, Array], _: float) -> list[Step]:
    layer: Any = node.layer
    if layer.downsample == "invertible":
        return [_moved(_space_to_depth(node.input_shape, layer.factor))]
    windows = _by_channel(_windows(node.input_shape, layer.factor, layer.factor, "valid"), node.input_shape[-1])
    return [Switch(name, windows) if layer.downsample == "max" else _means(windows)]


def _upsample(node: Node, name: str, own: dict[str, Array], _: float) -> list[Step]:
    height, width, channels = node.input_shape
    f = node.layer.factor  # type: ignore[attr-defined]
    places = np.arange(math.prod(node.input_shape)).reshape(height, width, f, f, channels // f**2)
    return [_moved(places.transpose(0, 2, 1, 3, 4).ravel())]


def _max_pool(node: Node, name: str, own: dict[str, Array], _: float) -> list[Step]:
    layer: Any = node.layer
    windows = _windows(node.input_shape, layer.max_pool, layer.stride or layer.max_pool, layer.padding)
    return [Switch(name, _by_channel(windows, node.input_shape[-1]))]


def _avg_pool(node: Node, name: str, own: dict[str, Array], _: float) -> list[Step]:
    layer: Any = node.layer
    windows = _windows(node.input_shape, layer.avg_pool, layer.stride or layer.avg_pool, layer.padding)
    return [_means(_by_channel(windows, node.input_shape[-1]))]


def _adaptive(node: Node, name: str, own: dict[str, Array], _: float) -> list[Step]:
    """`pool_to`, and the mean over all places."""
    height, width, channels = node.input_shape
    out = node.output_shape[:2] if len(node.output_shape) == 3 else (1, 1)
    sides = []
    for size, count in zip((height, width), out, strict=True):
        windows = list(adaptive_windows(size, count))
        side = np.full((count, max(end - start for start, end in windows)), -1)
        for i, (start, end) in enumerate(windows):
            side[i, : end - start] = np.arange(start, end)
        sides.append(side)
    return [_means(_by_channel(_crossed(sides, width), channels))]


def _middle(node: Node, name: str, own: dict[str, Array], _: float) -> list[Step]:
    """The window in the middle of a map."""
    height, width, channels = node.input_shape
    sides = [
        np.arange(left)[:, None] + (size - left) // 2 for size, left in zip((height, width), node.output_shape[:2], strict=True)
    ]
    return [_means(_by_channel(_crossed(sides, width), channels))]


def _crop(node: Node, name: str, own: dict[str, Array], _: float) -> list[Step]:
    layer: Any = node.layer
    sides = [np.arange(left)[:, None] + layer.before for left in node.output_shape[:2]]
    return [_means(_by_channel(_crossed(sides, node.input_shape[1]), node.input_shape[2]))]


def _place_channels(node: Node, name: str, own: dict[str, Array], _: float) -> list[Step]:
    layer: Any = node.layer
    source = np.full(layer.place_channels, -1)
    source[layer.at] = np.arange(len(layer.at))
    places = np.arange(math.prod(node.input_shape[:-1]))[:, None]
    columns = np.where(source < 0, 0, places * len(layer.at) + source).ravel()  # no row of a `Fixed` is empty
    return [Fixed(np.arange(columns.size), columns, np.tile(source >= 0, len(places)).astype(float))]


_STEPS: dict[type, Callable[[Node, str, dict[str, Array], float], list[Step]]] = {
    L.Conv: _conv,
    L.Dense: _dense,
    L.BatchNorm: _batch_norm,
    L.Activation: _activation,
    L.Downsample: _downsample,
    L.Upsample: _upsample,
    L.MaxPool: _max_pool,
    L.AvgPool: _avg_pool,
    L.PoolTo: _adaptive,
    L.GlobalAvgPool: _adaptive,
    L.RandomCrop: _middle,
    Crop: _crop,
    L.PlaceChannels: _place_channels,
    L.Flatten: lambda *_: [],
    L.Dropout: lambda *_: [],
    L.Standardize: _standardize,
}


def _windows(shape: Shape, size: int, stride: int, padding: Padding | L.Margins) -> Array:
    """Places (row * width + column) under each position of a window, (positions, size * size); -1 outside the map."""
    sides: list[Array] = []
    for length in shape[:2]:
        if padding == "same":  # as TensorFlow: the odd place of padding stands behind
            count, before = -(-length // stride), same_margins(length, size, stride)[0]
        else:
            before, after = margins(padding)
            count = (length + before + after - size) // stride + 1
        side = np.arange(count)[:, None] * stride + np.arange(size) - before
        sides.append(np.where((side >= 0) & (side < length), side, -1))
    return _crossed(sides, shape[1])


def _crossed(sides: Sequence[Array], width: int) -> Array:
    rows, columns = sides
    y, x = rows[:, None, :, None], columns[None, :, None, :]
    return np.where((y >= 0) & (x >= 0), y * width + x, -1).reshape(len(rows) * len(columns), -1)


def _by_channel(windows: Array, channels: int) -> Array:
    """(positions, places) -> (positions * channels, places): each channel for itself."""
    by_channel = windows[:, None] * channels + np.arange(channels)[:, None]
    return np.where(windows[:, None] < 0, -1, by_channel).reshape(-1, windows.shape[1])


def _means(windows: Array) -> Fixed:
    rows, places = np.nonzero(windows >= 0)
    return Fixed(rows, windows[rows, places], 1 / np.bincount(rows)[rows])


def _moved(columns: Array) -> Fixed:
    return Fixed(np.arange(columns.size), columns, np.ones(columns.size))


def _space_to_depth(shape: Shape, f: int) -> Array:
    height, width, channels = shape
    places = np.arange(math.prod(shape)).reshape(height // f, f, width // f, f, channels)
    return places.transpose(0, 2, 1, 3, 4).ravel()
