"""What a step of the convex two-layer network costs: ours, the same the naive way, and PyTorch.

    python -m benchmarks.convex --check
    python -m benchmarks.convex --json --plot convex.png

The problem is that of Chang and Lee at its full size: 1,024 gates of 6x6 with stride 4 on images of 32x32x3, ten classes, squared
error, batches of 1,000, SGD with momentum. `summed` adds up the gated patches first and then applies all classes; `naive` runs
ten times as many filters over the map; `kept` reads sums that were computed once, as bfloat16. Each contender goes through a
batch in parts: ours of 25 images, of sums 50, PyTorch in those that were fastest of several. They take turns, each round begins
with another one, and a ratio is taken within a round.
"""

import argparse
import statistics
from dataclasses import asdict
from typing import Any

from benchmarks.contenders import Contender
from benchmarks.convex_problem import Problem
from benchmarks.figures import Machine, conclude, grouped_bars, new_figure, parser, put_table, say, spread, spread_text
from benchmarks.workers import interleaved, open_workers

OURS, TORCH = "benchmarks.convex_ours", "benchmarks.convex_torch"
CONTENDERS = {
    contender.name: (contender, {"form": form, "compiled": contender.compiled})
    for contender, form in (
        (Contender("ours", OURS), "summed"),
        (Contender("ours, kept", OURS), "kept"),
        (Contender("ours, naive", OURS), "naive"),
        (Contender("torch", TORCH, tuned=True), "summed"),
        (Contender("torch, compiled", TORCH, tuned=True, compiled=True), "summed"),
        (Contender("torch, naive", TORCH, tuned=True), "naive"),
    )
}
STEPS, TOLERANCE = 8, 1e-5  # rounding to bfloat16 included


def main() -> None:
    """The command."""
    options = _options()
    if options.check:
        result = check(Problem(batch=100), options.contenders)
        put_table("Largest difference of a loss from ours", ["contender", "difference"], list(result["difference"].items()))
        conclude(options, result)
        raise SystemExit(0 if result["same"] else 1)
    result = measure(Problem(), options.contenders, options.rounds, options.steps)
    _print(result)
    conclude(options, result, _draw(result) if options.plot else None)


def check(problem: Problem, names: list[str]) -> dict[str, Any]:
    """Whether all give the same losses, step after step."""
    chosen = [CONTENDERS[name] for name in names]
    with open_workers([contender for contender, _ in chosen]) as workers:
        losses = {}
        for worker, (contender, settings) in zip(workers, chosen, strict=True):
            worker.ask("build", problem=asdict(problem), **settings)
            losses[contender.name] = worker.ask("losses", count=STEPS)
    first = losses[names[0]]
    apart = {name: max(abs(a - b) for a, b in zip(first, own, strict=True)) for name, own in losses.items()}
    return {
        "benchmark": "convex --check",
        "losses": losses,
        "difference": apart,
        "tolerance": TOLERANCE,
        "same": max(apart.values()) <= TOLERANCE,
    }


def measure(problem: Problem, names: list[str], rounds: int, steps: int) -> dict[str, Any]:
    """Images a second of all contenders, and how often the first of them is as fast, round by round."""
    machine, chosen = Machine(), [CONTENDERS[name] for name in names]
    with open_workers([contender for contender, _ in chosen]) as workers:
        for worker, (contender, settings) in zip(workers, chosen, strict=True):
            part = worker.ask("build", problem=asdict(problem), **settings)
            worker.ask("steps", count=2)
            say(f"{contender.name}: ready" + (f", parts of {part}" if part else ""))
        seconds = interleaved(workers, rounds, "steps", count=steps)
    rows = {}
    for (contender, settings), own in zip(chosen, seconds, strict=True):
        speeds = [steps * problem.batch / value for value in own]
        work = problem.multiply_adds(settings["form"])
        rows[contender.name] = {
            "images_per_second": spread(speeds),
            "multiply_adds": work,
            "gflops": 2 * work * statistics.median(speeds) / 1e9,
            "ours_over_it": spread([its / ours for its, ours in zip(own, seconds[0], strict=True)]),
        }
    return {
        "benchmark": "convex",
        "problem": asdict(problem),
        "rounds": rounds,
        "steps": steps,
        "contenders": rows,
        "machine": machine.facts(),
    }


def _print(result: dict[str, Any]) -> None:
    lines = [
        [
            name,
            f"{own['images_per_second']['median']:,.0f}",
            f"{own['multiply_adds'] / 1e6:.1f}M",
            f"{own['gflops']:.0f}",
            spread_text(own["ours_over_it"]),
        ]
        for name, own in result["contenders"].items()
    ]
    header = ["contender", "images a second", "multiply-adds of an image's step", "GFLOP/s", "ours is as many times as fast"]
    put_table(f"Median of {result['rounds']} rounds of {result['steps']} steps (10th-90th percentile)", header, lines)


def _draw(result: dict[str, Any]) -> Any:
    figure = new_figure()
    axes = figure.subplots()
    rows = result["contenders"]
    grouped_bars(axes, list(rows), {"images a second": [own["images_per_second"]["median"] for own in rows.values()]})
    axes.set_ylabel("images a second")
    axes.set_title("Step of the convex two-layer network")
    return figure


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--check", action="store_true", help="whether all give the same losses; nothing is timed")
    options.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS), help="the first is ours")
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--steps", type=int, default=2, help="of each contender in a round")
    return options.parse_args()


if __name__ == "__main__":
    main()
