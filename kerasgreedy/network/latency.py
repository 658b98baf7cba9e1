"""Measured costs of the network that is deployed: all blocks and one head, in inference mode, float32."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from kerasgreedy.errors import InputError
from kerasgreedy.network.build import FLOAT32, Network
from kerasgreedy.nn.channels import placed

ROUNDS, FEWEST_ROUNDS = 20, 5
SAMPLE_SECONDS = 0.05  # a sample repeats a fast call until the clock and the scheduler matter little
NETWORK_SECONDS = 4.0  # for one network at one batch size, where fewer than ROUNDS rounds take that long


def measure_latency(
    networks: Mapping[str, Network],
    batch_sizes: Sequence[int] = (1, 32),
    rounds: int | None = None,
    depth: int | None = None,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Times networks beside each other on random normal input.

    Each runs as a tf.function of one fixed input shape (batch, height, width, channels), float32. Samples are interleaved
    (A B A B ...), so that other work on the machine strikes all networks alike. As in `Network.model`, components that compute
    in lower precision are set to float32.

    Args:
        networks: name -> network; the others are compared with the first.
        batch_sizes: images in a call.
        rounds: samples of each network; default: 20, or as many as fit into 4 seconds for each network, but at least 5.
        depth: of the head (1 is the first block); default: the final head.

    Returns:
        name -> batch size as text (`"1"`) -> `median_ms`, `low_ms`, `high_ms` (quartiles of a call, milliseconds), `rounds`, and
        for all but the first network `ratio`, `ratio_low`, `ratio_high`: see `statistics_of`.

    Raises:
        InputError: no network, or a batch size, number of rounds or depth that cannot be.
    """
    if not networks:
        raise InputError("measure_latency: received no network")
    for what, value in (*(("batch size", size) for size in batch_sizes), ("rounds", 1 if rounds is None else rounds)):
        if value < 1:
            raise InputError(f"measure_latency: {what} {value}; allowed: 1 or more")
    depths = {name: _depth(network, depth, name) for name, network in networks.items()}
    result: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in networks}
    for size in batch_sizes:
        calls = {name: _call(network, size, depths[name]) for name, network in networks.items()}
        for name, figures in statistics_of(samples(calls, rounds)).items():
            result[name][str(size)] = figures
    return result


def samples(
    calls: Mapping[str, Callable[[], object]], rounds: int | None = None, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of one call, for each callable and round; all callables take turns in each round.

    Args:
        rounds: see `measure_latency`.
        clock: gives seconds.
    """

    def timed(call: Callable[[], object], repetitions: int) -> float:
        start = clock()
        for _ in range(repetitions):
            call()
        return (clock() - start) / repetitions

    repetitions: dict[str, int] = {}
    longest = 0.0
    for name, call in calls.items():
        call()  # the first call optimises the graph
        once = max(min(timed(call, 1), timed(call, 1)), 1e-9)
        repetitions[name] = max(1, round(SAMPLE_SECONDS / once))
        longest = max(longest, once * repetitions[name])
    if rounds is None:
        rounds = min(ROUNDS, max(FEWEST_ROUNDS, int(NETWORK_SECONDS / longest)))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            seconds[name].append(timed(call, repetitions[name]))
    return seconds


def statistics_of(seconds: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Any]]:
    """Median and quartiles of samples that were taken in the same rounds.

    `ratio` is the median, over rounds, of the first one's time over this one's in the same round (2: twice as fast as the first),
    `ratio_low` and `ratio_high` its quartiles. What slows a whole round down cancels in it.

    Args:
        seconds: name -> one figure for each round.

    Returns:
        name -> the figures that `measure_latency` names.
    """
    first = next(iter(seconds))
    result: dict[str, dict[str, Any]] = {}
    for name, own in seconds.items():
        low, median, high = _quartiles([1000 * value for value in own])
        result[name] = {"median_ms": median, "low_ms": low, "high_ms": high, "rounds": len(own)}
        if name != first:
            ratios = [before / after for before, after in zip(seconds[first], own, strict=True)]
            low, median, high = _quartiles(ratios)
            result[name] |= {"ratio": median, "ratio_low": low, "ratio_high": high}
    return result


def weights_bytes(network: Network, depth: int | None = None) -> int:
    """Bytes of the float32 weights of the deployed network, moving statistics included; dropout's random state is not kept.

    Not the size of a run's `model.keras`, which holds every trained head.

    Args:
        depth: of the head; default: the final one.

    Raises:
        InputError: the network has no such depth.
    """
    depth = _depth(network, depth, network.architecture.name)
    parts = (*network.blocks[:depth], network.heads[depth - 1])
    return sum(4 * math.prod(variable.shape) for part in parts for variable in part.weights)


def _call(network: Network, batch_size: int, depth: int) -> Callable[[], object]:
    network.compute_in(FLOAT32)
    shape = (batch_size, *network.architecture.input_shape)
    images = tf.random.stateless_normal(shape, seed=(0, 0))
    forward = tf.function(lambda x: network.logits(x, [depth])[0], input_signature=[tf.TensorSpec(shape, tf.float32)])
    concrete = forward.get_concrete_function()
    return lambda: concrete(images).numpy()  # fetched: a device that works on behind the call must have ended


def _depth(network: Network, depth: int | None, name: str) -> int:
    most = len(network.blocks)
    if depth is None:
        return most
    if not 1 <= depth <= most:
        raise InputError(f"network '{name}': received depth {depth}; allowed: 1 to {most}")
    return depth


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


def faster_as_branches(
    shape: Sequence[int], stride: int, sides: Mapping[int, int], places: Sequence[int], rounds: int = 9
) -> bool:
    """Whether kernels of different sides take less time as one convolution for each side than as one of the largest.

    Timed beside each other on 32 maps, float32; the channels of the branches are put into their places. A gain under a twentieth
    is none.

    Args:
        shape: (height, width, channels) of the map.
        sides: side -> kernels.
        places: of each channel of the branches, its place.
    """
    x = tf.random.stateless_normal((32, *shape), seed=(0, 0))
    largest, count = max(sides), sum(sides.values())
    whole = tf.random.stateless_normal((largest, largest, shape[-1], count), seed=(0, 1))
    parts = [tf.random.stateless_normal((side, side, shape[-1], number), seed=(0, side)) for side, number in sides.items()]
    ranks = {place: rank for rank, place in enumerate(sorted(places))}

    @tf.function
    def as_one() -> tf.Tensor:
        return tf.nn.conv2d(x, whole, stride, "SAME")

    @tf.function
    def as_parts() -> tf.Tensor:
        joined = tf.concat([tf.nn.conv2d(x, part, stride, "SAME") for part in parts], axis=-1)
        return placed(joined, count, [ranks[place] for place in places])

    calls = {"one": lambda: as_one().numpy(), "parts": lambda: as_parts().numpy()}
    return bool(statistics_of(samples(calls, rounds))["parts"]["ratio"] > 1.05)
