"""One copy of the network against two on the same cores: what a copy more costs where it adds no computing power.

    python -m benchmarks.devices --spec simcnn_k3_cifar --width 32 --json

One process holds both; they share the cores (the CPU split into two logical devices), train end to end on the same batches
of noise at the same global batch size, and take turns. The ratio is of steps per second, two copies over one: 1 would be free. On
two GPUs the same step has twice the computing power; that is not measured here.
"""

import argparse
import time
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.figures import Machine, conclude, grouped_bars, new_figure, parser, put_table, say, spread, spread_text
from benchmarks.specs import RECIPE, architecture_of, open_spec, recipe_settings, resolved
from kerasgreedy.network.build import Network
from kerasgreedy.plan.compile import compile_plan
from kerasgreedy.runs.devices import Devices, open_devices
from kerasgreedy.solvers.schedules import make_optimizer
from kerasgreedy.solvers.step import TrainStep
from kerasgreedy.spec.load import load_recipe

WAYS = {"batch norm of the global batch": True, "batch norm by share": False}


def main() -> None:
    """The command."""
    options = parser(__doc__)
    options.add_argument("--spec", default="simcnn_k3_cifar", help="a shipped model spec")
    options.add_argument("--width", type=int, help="filters of the first block; the others follow")
    options.add_argument("--batch", type=int, default=128, help="the global batch")
    options.add_argument("--rounds", type=int, default=10)
    options.add_argument("--steps", type=int, default=5)
    options = options.parse_args()
    machine = Machine()
    two = open_devices("mirrored", "2")  # before anything is computed
    one = Devices(tf.distribute.get_strategy())
    spec = open_spec(options.spec, options.width)
    result = {
        "benchmark": "devices",
        "spec": options.spec,
        "width": options.width,
        "batch": options.batch,
        "rounds": options.rounds,
        "ways": {way: measure(spec, one, two, synchronized, options) for way, synchronized in WAYS.items()},
        "machine": machine.facts(),
    }
    rows = [[way, spread_text(own["two_over_one"])] for way, own in result["ways"].items()]
    put_table(f"{options.spec}, batch {options.batch}: steps per second, two copies over one", ["", "median (10-90 %)"], rows)
    conclude(options, result, _draw(result) if options.plot else None)


def measure(spec: dict[str, Any], one: Devices, two: Devices, synchronized: bool, options: argparse.Namespace) -> dict[str, Any]:
    """Steps per second of two copies over those of one, round by round."""
    runs = {name: Steps(spec, here, synchronized, options.batch) for name, here in (("one", one), ("two", two))}
    for run in runs.values():
        run.seconds(2)
    say("ready")
    ratios = []
    for number in range(options.rounds):
        order = list(runs) if number % 2 else list(runs)[::-1]
        seconds = {name: runs[name].seconds(options.steps) for name in order}
        ratios.append(seconds["one"] / seconds["two"])
    return {"two_over_one": spread(ratios), "ratios": ratios}


class Steps:
    """Training steps of a network under a strategy."""

    def __init__(self, spec: dict[str, Any], here: Devices, synchronized: bool, batch: int):
        recipe = load_recipe(RECIPE, [*recipe_settings(), "strategy=end_to_end", f"training.batch_size={batch}"]).value
        phase = compile_plan(resolved(spec), recipe)[0]
        arch = architecture_of(spec)
        with here.strategy.scope():
            network = Network(arch, 0, synchronized)
            optimizer = make_optimizer(recipe.training.optimizer, np.array([1e-3], np.float32))
        self._step = TrainStep(network, phase, optimizer, here.strategy)
        rng = np.random.default_rng(0)
        images = rng.normal(size=(batch, *arch.input_shape)).astype(np.float32)
        labels = rng.integers(0, arch.classes, batch).astype(np.int32)
        data = tf.data.Dataset.from_tensors((images, labels)).unbatch().batch(batch, drop_remainder=True)
        (self._batch,) = list(here.batches(data))

    def seconds(self, count: int) -> float:
        """Of so many steps."""
        start = time.perf_counter()
        for _ in range(count):
            sums = self._step(*self._batch)
        for value in sums.values():
            value.numpy()
        return time.perf_counter() - start


def _draw(result: dict[str, Any]) -> Any:
    figure = new_figure()
    axes = figure.subplots()
    medians = [own["two_over_one"]["median"] for own in result["ways"].values()]
    grouped_bars(axes, list(result["ways"]), {"two copies over one": medians})
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_ylabel("steps per second, two copies over one")
    return figure


if __name__ == "__main__":
    main()
