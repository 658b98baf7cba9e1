"""Level sets of small networks: where they are connected, and where they are not (Freeman and Bruna 2017; Venturi et al. 2018).

    python examples/level_sets.py [--quick]

Four claims of the slides on loss landscapes, each with pairs of trained networks or a closed form. A path is looked for by
dynamic string sampling (`kerasgreedy.analysis.path_finding.string`); the height is the lowest level at which one was found, by
bisection, and the straight line's height stands beside it. A path that was not found is no proof that there is none; the
closed forms are.
"""

import kerasgreedy  # noqa: F401, I001 (before TensorFlow: its settings)

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from kerasgreedy.analysis.path_finding import Sight, descend, string
from kerasgreedy.network.points import Points

RATE, STEPS = 0.05, 3000


@dataclass(frozen=True)
class Pair:
    """What was found between two solutions.

    Attributes:
        ends: the higher of their losses.
        straight: the straight line's height.
        path: the lowest level at which a path was found.
    """

    ends: float
    straight: float
    path: float


def network(widths: Sequence[int], activation: str | Callable | None, inputs: int) -> keras.Model:
    """Dense layers without biases in float64; the last one is linear."""
    layers = [keras.layers.Dense(width, activation, use_bias=False, dtype="float64") for width in widths[:-1]]
    last = keras.layers.Dense(widths[-1], use_bias=False, dtype="float64")
    return keras.Sequential([keras.Input((inputs,), dtype="float64"), *layers, last])


def sight_of(model: keras.Model, x: np.ndarray, y: np.ndarray) -> Sight:
    """Mean of the sum of squares / 2, looked at in 21 places of each piece."""
    targets = tf.constant(y)

    def losses(outputs: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.square(outputs - tf.gather(targets, rows)), axis=1) / 2

    return Sight(Points(model, x, np.arange(len(x)), losses), None, 21)


def solution(sight: Sight, seed: int, scale: float, level: float) -> np.ndarray:
    """Gradient descent from random weights, until it is under a level or out of steps."""
    start = np.random.default_rng(seed).normal(0, scale, sight.points.parameters.size)
    return descend(sight, start, level, STEPS, RATE)[0]


def between(sight: Sight, one: np.ndarray, two: np.ndarray, tries: int = 7) -> Pair:
    """Bisection on the level, between the higher end and the straight line's height."""
    line = sight.along(one, two)
    low, high = max(line[0], line[-1]), max(line)
    found = high
    for _ in range(tries):
        level = (low + found) / 2
        path = string(sight, one, two, level, beads=24, steps=400, rate=RATE)
        if path.connected:
            found = max(path.height, low)
        else:
            low = level
        if found <= 1.02 * max(line[0], line[-1]) + 1e-9:
            break
    return Pair(max(line[0], line[-1]), high, found)


def pairs(make: Callable[[], Sight], scale: float, level: float, count: int) -> list[Pair]:
    """So many pairs of solutions from different random weights."""
    sight = make()
    return [between(sight, *(solution(sight, 2 * i + j, scale, level) for j in (0, 1))) for i in range(count)]


def linear(count: int) -> list[list[str]]:
    """Theorem 2.2 of Freeman and Bruna: linear, hidden width > min(inputs, outputs): one component. Width 1 of 1: two."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 3))
    y = x @ rng.normal(size=(3, 2))
    rows = []
    for width in (3, 5):
        rows += [
            _row(f"linear 3-{width}-2", pair, "no barrier")
            for pair in pairs(lambda width=width: sight_of(network([width, 2], None, 3), x, y), 0.7, 0.01, count)
        ]
    one = sight_of(network([1, 1], None, 1), np.ones((1, 1)), np.ones((1, 1)))
    rows.append(_row("linear 1-1-1, (1, 1) to (-1, -1)", between(one, np.ones(2), -np.ones(2)), "1/2 (closed form)"))
    return rows


def two_components() -> list[list[str]]:
    """Of one ReLU unit, (1, 1) and (-1, 1) as data: either is fitted, with loss 1/4, and every way between meets 1/2."""
    sight = sight_of(network([1, 1], "relu", 1), np.array([[1.0], [-1.0]]), np.ones((2, 1)))
    pair = between(sight, np.array([1.0, 1.0]), np.array([-1.0, 1.0]))
    return [_row("ReLU 1-1-1, two examples", pair, "1/2 (closed form)")]


def wider(count: int) -> list[list[str]]:
    """Two-layer ReLU with m units: the path's height falls with m (the slides: at most max(level, m^(-1/n)))."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2))
    y = np.sin(2 * x[:, :1]) * x[:, 1:]
    rows = []
    for m in (2, 4, 8, 16, 32):
        found = pairs(lambda m=m: sight_of(network([m, 1], "relu", 2), x, y), 0.7, 0.02, count)
        worst = max(found, key=lambda pair: pair.path - pair.ends)
        rows.append(_row(f"ReLU 2-{m}-1", worst, f"at most max(level, {m**-0.5:.2f})"))
    return rows


def quadratic(count: int) -> list[list[str]]:
    """Two layers with the activation z^2 and more than 2 N units: one component."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 3)), rng.normal(size=(4, 1))
    found = pairs(lambda: sight_of(network([9, 1], keras.ops.square, 3), x, y), 0.5, 0.01, count)
    return [_row("z^2 3-9-1, N = 4", pair, "no barrier (9 > 2 N)") for pair in found]


def _row(name: str, pair: Pair, claim: str) -> list[str]:
    return [name, f"{pair.ends:.3f}", f"{pair.straight:.3f}", f"{pair.path:.3f}", claim]


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one pair of each")
    count = 1 if parser.parse_args().quick else 3
    rows = [*linear(count), *two_components(), *wider(count), *quadratic(count)]
    header = ["network", "higher end", "straight line", "path", "claim"]
    print("| " + " | ".join(header) + " |\n| " + " | ".join("---" for _ in header) + " |")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
