"""What a point of a loss surface costs: ours, `model.evaluate` at every point, and PyTorch.

    python -m benchmarks.landscape --check
    python -m benchmarks.landscape --json
    python -m benchmarks.landscape --small --steps 50

A network on 1,000 images of 32x32, or with `--small` a smaller one on 360 of 8x8; points of a 51x51 plane of filter-normalised
directions. PyTorch runs in channels_last with the size of batches that was fastest of several. Contenders take turns, each round
begins with another one, and a ratio is taken within a round.
"""

import argparse
import statistics
from dataclasses import asdict, replace
from typing import Any

from benchmarks.contenders import Contender
from benchmarks.figures import Machine, conclude, parser, put_table, say, spread, spread_text
from benchmarks.landscape_problem import Problem
from benchmarks.workers import interleaved, open_workers

OURS, TORCH = "benchmarks.landscape_ours", "benchmarks.landscape_torch"
CONTENDERS = {
    contender.name: (contender, {"form": form, "compiled": contender.compiled})
    for contender, form in (
        (Contender("ours", OURS), "points"),
        (Contender("model.evaluate", OURS), "evaluate"),
        (Contender("torch", TORCH, tuned=True), "points"),
        (Contender("torch, compiled", TORCH, tuned=True, compiled=True), "points"),
    )
}
TOLERANCE = 1e-4
SMALL = Problem(side=8, channels=1, widths=(8, 16), images=360)


def main() -> None:
    """The command."""
    options = _options()
    problem = SMALL if options.small else Problem()
    if options.check:
        result = check(replace(problem, images=100), options.contenders)
        put_table(
            "Largest relative difference of a loss from ours", ["contender", "difference"], list(result["difference"].items())
        )
        conclude(options, result)
        raise SystemExit(0 if result["same"] else 1)
    result = measure(problem, options.contenders, options.rounds, options.steps)
    _print(result)
    conclude(options, result, None)


def check(problem: Problem, names: list[str], count: int = 5) -> dict[str, Any]:
    """Whether all give the same losses at the same points."""
    chosen = [CONTENDERS[name] for name in names]
    losses = {}
    with open_workers([contender for contender, _ in chosen]) as workers:
        for worker, (contender, settings) in zip(workers, chosen, strict=True):
            worker.ask("build", problem=asdict(problem), **settings)
            losses[contender.name] = worker.ask("losses", count=count)
    first = losses[names[0]]
    apart = {name: max(abs(a - b) / abs(a) for a, b in zip(first, own, strict=True)) for name, own in losses.items()}
    return {"benchmark": "landscape --check", "losses": losses, "difference": apart, "same": max(apart.values()) <= TOLERANCE}


def measure(problem: Problem, names: list[str], rounds: int, steps: int) -> dict[str, Any]:
    """Points a second of all contenders, and how often the first of them is as fast, round by round."""
    machine, chosen = Machine(), [CONTENDERS[name] for name in names]
    with open_workers([contender for contender, _ in chosen]) as workers:
        for worker, (contender, settings) in zip(workers, chosen, strict=True):
            size = worker.ask("build", problem=asdict(problem), **settings)
            worker.ask("steps", count=2)
            say(f"{contender.name}: ready" + (f", batches of {size}" if size else ""))
        seconds = interleaved(workers, rounds, "steps", count=steps)
    work = problem.multiply_adds * problem.images
    rows = {
        contender.name: {
            "points_per_second": spread([steps / value for value in own]),
            "gflops": 2 * work * statistics.median([steps / value for value in own]) / 1e9,
            "ours_over_it": spread([its / ours for its, ours in zip(own, seconds[0], strict=True)]),
        }
        for (contender, _), own in zip(chosen, seconds, strict=True)
    }
    about = {"benchmark": "landscape", "problem": asdict(problem), "rounds": rounds, "steps": steps}
    return {**about, "multiply_adds": work, "contenders": rows, "machine": machine.facts()}


def _print(result: dict[str, Any]) -> None:
    lines = [
        [name, f"{own['points_per_second']['median']:.2f}", f"{own['gflops']:.0f}", spread_text(own["ours_over_it"])]
        for name, own in result["contenders"].items()
    ]
    header = ["contender", "points a second", "GFLOP/s", "ours is as many times as fast"]
    put_table(f"Median of {result['rounds']} rounds of {result['steps']} points (10th-90th percentile)", header, lines)


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--check", action="store_true", help="whether all give the same losses; nothing is timed")
    options.add_argument("--small", action="store_true", help="a smaller network on small images")
    options.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS), help="the first is ours")
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--steps", type=int, default=5, help="points of each contender in a round")
    return options.parse_args()


if __name__ == "__main__":
    main()
