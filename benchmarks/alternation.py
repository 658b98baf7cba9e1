"""What the solver `alternation` costs beside plain descent: room for masks, time of a step, time of a refresh.

    python -m benchmarks.alternation --json --plot alternation.png
    python -m benchmarks.alternation --spec nin_cifar10 --ways stored stored-pools shared-linear shared-pools

Training is end to end, through the solvers and the input that a run uses; the images are noise in memory.

- Room: what the plan says for `--images`; nothing of that size is made.
- A step: masks of `--stored` images are estimated and kept, read in the random order of the epochs, unpacked and applied; a
  plain step gets its images from the same pipeline. All ways share one process and one network and take turns, and each
  round begins with another one. A ratio is taken within each round, against the plain steps of that round.
- A refresh: while the masks are estimated, pairs of batches take turns with pairs of plain steps. An epoch has as many batches
  as a refresh, so the ratio of a batch to a step is that of a refresh to an epoch.

Each ratio is given by the clock, and by the processor time of all threads, which company on the machine disturbs less.
"""

import argparse
import statistics
from collections.abc import Sequence
from typing import Any, TypeAlias

from benchmarks.figures import Machine, conclude, grouped_bars, new_figure, parser, put_table, say
from benchmarks.ours import SolverSteps, mask_plan, noise_pipeline
from benchmarks.specs import architecture_of, open_spec
from kerasgreedy.network.build import Network

# Thresholds of 0: which units they let in costs nothing, and none has to be chosen first.
SHARED = ["mode=batch", "beta=0"]
LINEAR = "under_mask=linear"
STORED = ["store=memory"]
WAYS = {
    "stored": STORED,
    "stored-pools": [*STORED, "hold_pools=true"],
    "shared": SHARED,
    "shared-linear": [*SHARED, LINEAR],
    "shared-majority": ["mode=batch", "vote=majority", LINEAR],
    "shared-pools": [*SHARED, LINEAR, "hold_pools=true"],
}
Pair: TypeAlias = tuple[float, float]  # by the clock, and of processors
ROOM = 1e6  # gigabytes: the plan is to say how large masks are, not whether they fit


def main() -> None:
    """The command."""
    options = _options()
    spec = open_spec(options.spec, options.width)
    sizes = room(spec, options.images)
    ways = options.ways or [way for way in WAYS if len(sizes) == 2 or not way.endswith("pools")]
    if len(sizes) == 1 and any(way.endswith("pools") for way in ways):
        raise SystemExit(f"--ways: {spec['name']} has no max-pool that could be held")
    needed = (2 * options.rounds + 1) * options.batch
    if options.stored < needed:
        raise SystemExit(f"--stored: a refresh needs two batches for each round and one before, {needed} images or more")
    machine = Machine()
    steps = measure(spec, ways, options.batch, options.precision, options.rounds, options.steps, options.stored)
    result = {
        "benchmark": "alternation",
        "spec": spec["name"],
        "batch": options.batch,
        "precision": options.precision,
        "rounds": options.rounds,
        "steps": options.steps,
        "images": options.images,
        "stored_images": options.stored,
        "room": sizes,
        **steps,
        "machine": machine.facts(),
    }
    _print(result)
    conclude(options, result, _draw(result) if options.plot else None)


def room(spec: dict[str, Any], images: int) -> dict[str, Any]:
    """Bytes of the stored masks of so many images, by way; held pools only where the spec has max-pools."""
    result = {}
    for way in ("stored", "stored-pools"):
        plan = mask_plan(spec, images, [*_settings(way), f"training.solver.memory_gb={ROOM}"])
        if result and plan.layers == result["stored"]["layers"]:
            break
        floats = 4 * plan.units * images
        result[way] = {
            "layers": plan.layers,
            "units": plan.units,
            "bytes_an_image": plan.row_bytes,
            "bytes": plan.bytes,
            "float32_bytes": floats,
            "ratio": floats / plan.bytes,
        }
    return result


def measure(
    spec: dict[str, Any], ways: Sequence[str], batch: int, precision: str, rounds: int, steps: int, stored: int
) -> dict[str, Any]:
    """Times of all ways and of plain descent; see the top of this file.

    Returns:
        `step`: way -> ratio to a plain step; `refresh`: way that stores -> ratio to a plain epoch; `seconds`: way and
        `plain` -> of the steps of each round. Both by the clock and by the processors.
    """
    architecture = architecture_of(spec)
    network = Network(architecture, seed=0)
    pipeline = noise_pipeline(stored, architecture.input_shape)

    def opened(settings: Sequence[str]) -> SolverSteps:
        return SolverSteps(network, pipeline, spec, batch, [f"precision={precision}", *settings])

    plain = opened([])
    plain.run(2)  # traces, fills the allocator and leaves the slow first steps behind
    solvers, refresh = {"plain": plain}, {}
    for way in ways:
        solvers[way] = opened(_settings(way))
        refresh[way] = _refresh(solvers[way], plain, rounds)
        solvers[way].run(2)
        say(f"{way}: ready")
    seconds: dict[str, list[Pair]] = {way: [(0.0, 0.0)] * rounds for way in solvers}
    order = list(solvers)
    for number in range(rounds):
        for place in range(len(order)):
            way = order[(number + place) % len(order)]
            seconds[way][number] = solvers[way].run(steps)
        say(f"round {number + 1}: " + ", ".join(f"{way} {own[number][0] / steps:.3f} s" for way, own in seconds.items()))
    return {
        "step": {way: ratios(seconds[way], seconds["plain"]) for way in ways},
        "refresh": {way: ratios(*zip(*pairs, strict=True)) for way, pairs in refresh.items() if pairs},
        "seconds": seconds,
    }


def _refresh(masked: SolverSteps, plain: SolverSteps, rounds: int) -> list[tuple[Pair, Pair]]:
    """Lets a solver estimate its masks; gives two batches of that and two plain steps, by round. Empty where none are kept."""
    result = []
    before: Pair | None = None
    for number, seconds in enumerate(masked.preparing()):
        if number == 0 or len(result) == rounds:  # the first one traces
            continue
        if before is None:
            before = seconds
        else:
            result.append(((before[0] + seconds[0], before[1] + seconds[1]), plain.run(2)))
            before = None
    return result


def ratios(own: Sequence[Pair], plain: Sequence[Pair]) -> dict[str, dict[str, float]]:
    """Round by round: median, least and most, as a few rounds have no percentiles."""
    result = {}
    for index, kind in enumerate(("clock", "processors")):
        values = [a[index] / b[index] for a, b in zip(own, plain, strict=True)]
        result[kind] = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return result


def _settings(way: str) -> list[str]:
    own = ["name=alternation", "warm_up_epochs=0", *WAYS[way]]
    return [f"training.solver.{text}" for text in own]


def _text(ratios: dict[str, dict[str, float]] | None) -> list[str]:
    if ratios is None:
        return ["-", "-"]
    return [f"{own['median']:.2f} ({own['least']:.2f}-{own['most']:.2f})" for own in ratios.values()]


def _print(result: dict[str, Any]) -> None:
    header = ["masks", "layers", "units", "bytes an image", "GB in all", "as float32", "ratio"]
    lines = [
        [
            way,
            own["layers"],
            f"{own['units']:,}",
            f"{own['bytes_an_image']:,}",
            f"{own['bytes'] / 1e9:.2f}",
            f"{own['float32_bytes'] / 1e9:.1f}",
            f"{own['ratio']:.2f}",
        ]
        for way, own in result["room"].items()
    ]
    put_table(f"{result['spec']}: stored masks of {result['images']:,} images", header, lines)
    lines = [[way, *_text(own), *_text(result["refresh"].get(way))] for way, own in result["step"].items()]
    title = f"{result['spec']}, batch {result['batch']}, {result['precision']}, {result['stored_images']:,} images stored, "
    title += f"{result['rounds']} rounds of {result['steps']} steps: median (least-most)"
    put_table(title, ["masks", "step over plain step", "by processors", "refresh over plain epoch", "by processors"], lines)


def _draw(result: dict[str, Any]) -> Any:
    figure = new_figure()
    axes = figure.subplots()
    grouped_bars(
        axes, list(result["step"]), {"step over plain step": [own["clock"]["median"] for own in result["step"].values()]}
    )
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_ylabel("step over plain step")
    axes.set_title(f"{result['spec']}, {result['precision']}")
    return figure


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--spec", default="allcnn_c", help="a shipped name or a file")
    options.add_argument("--width", type=int, help="of a SimCNN: filters of the first block; the others in proportion")
    options.add_argument("--ways", nargs="+", choices=list(WAYS), help="default: all that the spec has layers for")
    options.add_argument("--batch", type=int, default=128)
    options.add_argument("--precision", choices=["float32", "mixed_bfloat16"], default="float32")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--steps", type=int, default=2, help="of each way in a round")
    options.add_argument("--images", type=int, default=50_000, help="whose masks' size is worked out")
    options.add_argument("--stored", type=int, default=5000, help="whose masks are made, kept in memory and read")
    return options.parse_args()


if __name__ == "__main__":
    main()
