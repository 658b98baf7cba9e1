"""Training images a second of every greedy phase: ours, plain PyTorch, tuned PyTorch.

    python -m benchmarks.throughput --check                          # the same losses first
    python -m benchmarks.throughput --spec simcnn_k3_cifar --json --plot throughput.png

Every contender is a process of its own, alive for the whole measurement; all take turns, one at a time, and each round begins
with another one. A speed is the median over rounds; a ratio is taken within each round, against the fastest tuned PyTorch of
the same precision, compiled or not, and stands with its 10th and 90th percentile. The share of the rate is what the step's
multiply-adds (see `costs.py`) need at the speed of a lone convolution, measured here in both frameworks; the faster
framework's is the rate for all. With `--before CHECKOUT` our step of another commit takes part, and ratios are to it.

Batches lie in memory, without decoding, crops and flips: `whole_runs.py` measures with them. Those of a cached contender
hold features. `--check` trains 20 steps from the same weights on the same batches, in float32.
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.contenders import CONTENDERS, OURS, Contender
from benchmarks.costs import Work
from benchmarks.figures import (
    Machine,
    conclude,
    grouped_bars,
    harmonic_mean,
    new_figure,
    numbers,
    parser,
    put_table,
    say,
    spread,
    spread_text,
)
from benchmarks.specs import architecture_of, open_spec
from benchmarks.workers import Worker, interleaved, open_workers

CHECK_STEPS, CHECK_TOLERANCE = 20, 1e-4
# A low rate: at a high one the frameworks' rounding errors grow tenfold every few steps. Much decay: so that it shows.
CHECK_SGD = {"learning_rate": 1e-4, "weight_decay": 0.5}
CHECK_BATCHES = 4  # taken in turn, so that losses of the same batch can be seen to fall


def main() -> None:
    """The command."""
    options = _options()
    spec = open_spec(options.spec, options.width)
    depths = options.depths or list(range(1, len(architecture_of(spec).blocks) + 1))
    if options.check:
        result = check(spec, depths, options.batch, compiled=True)
        put_table(
            f"{spec['name']}: largest difference of the loss in {CHECK_STEPS} steps from the same weights",
            ["depth", "difference", "first loss", "last loss"],
            [
                [row["depth"], f"{row['difference']:.1e}", f"{row['ours'][0]:.5f}", f"{row['ours'][-1]:.5f}"]
                for row in result["depths"]
            ],
        )
        conclude(options, result)
        raise SystemExit(0 if result["same"] else 1)
    contenders = [CONTENDERS[name] for name in options.contenders]
    if options.before:
        contenders.append(Contender("ours before", OURS, options.precision, checkout=options.before.resolve()))
    result = measure(spec, depths, contenders, options.batch, options.rounds, options.steps)
    _print(result)
    conclude(options, result, _draw(result) if options.plot else None)


def check(
    spec: dict[str, Any], depths: Sequence[int], batch: int, rival_sgd: dict[str, float] = CHECK_SGD, compiled: bool = False
) -> dict[str, Any]:
    """Whether our step and PyTorch's give the same losses, at every depth, plain and tuned alike.

    Args:
        rival_sgd: PyTorch's rate and decay; others than ours must show, or the check is blind.
        compiled: compiled PyTorch as well; takes a minute for each depth.
    """
    names = ("ours float32", "torch plain float32", "torch tuned float32", *(["torch compiled float32"] if compiled else []))
    rows = []
    with open_workers([CONTENDERS[name] for name in names]) as (ours, *rivals), tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "weights.npz")
        for depth in depths:
            common = {"spec": spec, "phase": depth, "batch": batch}
            ours.ask("build", **common, **CHECK_SGD, **ours.contender.settings, scatter=True)
            ours.ask("export", file=file)
            losses = ours.ask("losses", batch=batch, count=CHECK_STEPS, batches=CHECK_BATCHES)
            row = {"depth": depth, "ours": losses, "difference": 0.0}
            for rival in rivals:
                rival.ask("build", **common, **rival_sgd, **rival.contender.settings)
                theirs = rival.ask("losses", file=file, batch=batch, count=CHECK_STEPS, batches=CHECK_BATCHES)
                apart = max(abs(a - b) for a, b in zip(losses, theirs, strict=True))
                row[rival.contender.name] = theirs
                row["difference"] = max(row["difference"], apart)
            rows.append(row)
            say(f"depth {depth}: losses differ by {row['difference']:.1e}")
    same = all(row["difference"] <= CHECK_TOLERANCE for row in rows)
    return {"benchmark": "throughput --check", "spec": spec["name"], "tolerance": CHECK_TOLERANCE, "same": same, "depths": rows}


def measure(
    spec: dict[str, Any], depths: Sequence[int], contenders: Sequence[Contender], batch: int, rounds: int, steps: int
) -> dict[str, Any]:
    """Speeds at every depth; see the top of this file."""
    machine = Machine()
    with open_workers(contenders) as workers:
        rates = _rates(workers, batch)
        say("convolution: " + ", ".join(f"{rate:.0f} GFLOP/s {precision}" for precision, rate in rates.items()))
        rows = [_depth(workers, spec, depth, batch, rounds, steps, rates) for depth in depths]
    return {
        "benchmark": "throughput",
        "spec": spec["name"],
        "blocks": [block["layers"] for block in spec["blocks"]],
        "batch": batch,
        "rounds": rounds,
        "steps": steps,
        "convolution_gflops": rates,
        "depths": rows,
        "mean_over_depths": _means(contenders, rows, rounds),
        "machine": machine.facts(),
    }


def _rates(workers: Sequence[Worker], batch: int) -> dict[str, float]:
    """Best GFLOP/s of a lone convolution for each precision, over all frameworks, each measured three times in turn."""
    best: dict[str, float] = {}
    for _ in range(3):
        for worker in workers:
            precision = worker.contender.precision
            best[precision] = max(best.get(precision, 0.0), worker.ask("convolution_rate", precision=precision, batch=batch))
    return best


def _depth(
    workers: Sequence[Worker],
    spec: dict[str, Any],
    depth: int,
    batch: int,
    rounds: int,
    steps: int,
    rates: dict[str, float],
) -> dict[str, Any]:
    """All contenders at one depth."""
    for worker in workers:
        worker.ask("build", spec=spec, phase=depth, batch=batch, **worker.contender.settings)
        worker.ask("steps", count=2)  # traces, fills the allocator and leaves the slow first steps behind
    seconds = interleaved(workers, rounds, "steps", count=steps)
    speeds = {worker.contender.name: [steps * batch / s for s in own] for worker, own in zip(workers, seconds, strict=True)}
    row: dict[str, Any] = {"depth": depth, "contenders": {}}
    for worker in workers:
        contender = worker.contender
        speed = statistics.median(speeds[contender.name])
        work = Work.of(architecture_of(spec), depth, contender.cached).multiply_adds
        row["contenders"][contender.name] = {
            "images_per_second": spread(speeds[contender.name]),
            "rounds": speeds[contender.name],
            "multiply_adds": work,
            "share_of_rate": 2 * work * speed / 1e9 / rates[contender.precision],
            "ratio": _ratio(contender, [other.contender for other in workers], speeds),
        }
        say(f"depth {depth}, {contender.name}: {speed:.1f} images/s")
    return row


def _ratio(contender: Contender, all_: Sequence[Contender], speeds: dict[str, list[float]]) -> dict[str, float] | None:
    """Round by round, against the fastest other PyTorch that is tuned, of the same precision, or ours of another commit.

    None where no such thing is measured.
    """
    before = [speeds[other.name] for other in all_ if other.checkout and other != contender]
    anchors = before or [speeds[other.name] for other in all_ if other.is_anchor_of(contender)]
    if not anchors:
        return None
    return spread([own / theirs for own, theirs in zip(speeds[contender.name], max(anchors, key=statistics.median), strict=True)])


def _means(contenders: Sequence[Contender], rows: Sequence[dict[str, Any]], rounds: int) -> dict[str, Any]:
    """Harmonic means over the depths, round by round: the speed of a run that spends as many epochs on each block."""
    speeds = {
        contender.name: [
            harmonic_mean([row["contenders"][contender.name]["rounds"][number] for row in rows]) for number in range(rounds)
        ]
        for contender in contenders
    }
    return {c.name: {"images_per_second": spread(speeds[c.name]), "ratio": _ratio(c, contenders, speeds)} for c in contenders}


def _print(result: dict[str, Any]) -> None:
    rows, means = result["depths"], result["mean_over_depths"]
    depths = [f"depth {row['depth']}" for row in rows]
    at = f"{result['spec']}, batch {result['batch']}, median of {result['rounds']} rounds of {result['steps']} steps"

    def table(title: str, cell: Any, mean: Any) -> None:
        lines = [[name, *(cell(row["contenders"][name]) for row in rows), mean(means[name])] for name in means]
        put_table(title, ["contender", *depths, "harmonic mean"], lines)

    speed = "images_per_second"
    table(f"Images a second: {at}", lambda c: f"{c[speed]['median']:.1f}", lambda m: f"{m[speed]['median']:.1f}")
    rival = "our step before" if "ours before" in means else "the fastest other tuned PyTorch of the same precision"
    title = f"Against {rival} (10th to 90th percentile over rounds)"
    table(title, lambda c: spread_text(c["ratio"]), lambda m: spread_text(m["ratio"]))
    rates = ", ".join(f"{precision} {rate:.0f} GFLOP/s" for precision, rate in result["convolution_gflops"].items())
    table(f"Share of the rate of a lone convolution ({rates})", lambda c: f"{c['share_of_rate']:.2f}", lambda m: "")


def _draw(result: dict[str, Any]) -> Any:
    figure = new_figure(9, 4.5)
    axes = figure.subplots()
    rows = result["depths"]
    series = {
        name: [*(row["contenders"][name]["images_per_second"]["median"] for row in rows), mean["images_per_second"]["median"]]
        for name, mean in result["mean_over_depths"].items()
    }
    grouped_bars(axes, [*(f"depth {row['depth']}" for row in rows), "harmonic mean"], series)
    axes.set_ylabel("training images a second")
    speeds = [speed for own in series.values() for speed in own]
    if max(speeds) > 10 * min(speeds):
        axes.set_yscale("log")
    axes.set_title(f"{result['spec']}, batch {result['batch']}")
    return figure


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--spec", default="simcnn_k3_cifar", help="a SimCNN: a shipped name or a file")
    options.add_argument("--width", type=int, help="filters of the first block; the others in proportion")
    options.add_argument("--batch", type=int, default=128)
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--steps", type=int, default=3, help="of each contender in a round")
    options.add_argument("--depths", type=numbers, metavar="1,2,...", help="default: all")
    options.add_argument("--contenders", type=_contenders, default=list(CONTENDERS), help=f"some of: {', '.join(CONTENDERS)}")
    options.add_argument("--before", type=Path, metavar="CHECKOUT", help="ours of another commit takes part: a checkout of it")
    options.add_argument("--precision", choices=["float32", "mixed_bfloat16"], default="float32", help="of --before")
    options.add_argument("--check", action="store_true", help="compare losses instead of speeds")
    return options.parse_args()


def _contenders(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in CONTENDERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"received '{unknown[0]}'; allowed: {', '.join(CONTENDERS)}")
    return names


if __name__ == "__main__":
    main()
