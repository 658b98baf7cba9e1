"""Step time and peak memory of phase j as the net grows deeper, at equal width and resolution.

    python -m benchmarks.depth --json --plot depth.png

Greedy training promises that phase 16 costs no more memory than phase 2: the frozen prefix keeps nothing for a backward pass.
Its time grows, because the prefix still runs, unless its output is cached. Both are measured: computed and cached prefix.
The cached step is fed features that lie in memory; the store that holds those of a whole data set is not part of its peak.
Times are taken in turns (see `throughput.py`), peaks in fresh processes (see `memory.py`) at several batch sizes, whose line has
the slope that the framework's own memory does not blur; end to end at full depth stands beside them.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.costs import END_TO_END, Work
from benchmarks.figures import Machine, conclude, line_fit, new_figure, numbers, parser, put_table, say, spread
from benchmarks.memory import MIB, peak_memory
from benchmarks.specs import architecture_of, deep_spec
from benchmarks.workers import interleaved, open_workers

WAYS = {"computed prefix": "", "cached prefix": " cached"}


def main() -> None:
    """The command."""
    options = _options()
    spec = deep_spec(options.layers, options.width, options.size, options.k)
    if len(set(options.batches)) < 2:
        raise SystemExit("--batches: two different sizes or more; their line is what counts")
    if max(options.phases) > options.layers:
        raise SystemExit(f"--phases: received {max(options.phases)}; the net has {options.layers} blocks (--layers)")
    machine = Machine()
    ways = {way: CONTENDERS[f"ours {options.precision}{ending}"] for way, ending in WAYS.items()}
    rows = []
    for way, contender in ways.items():
        seconds = _times(spec, contender, options.phases, options.batch, options.rounds, options.steps)
        rows += [_row(spec, way, contender, phase, times, options.batches) for phase, times in seconds.items()]
    whole = ways["computed prefix"]
    times = _times(spec, whole, [END_TO_END], options.batch, options.rounds, options.steps)[END_TO_END]
    rows.append(_row(spec, "end to end", whole, END_TO_END, times, options.batches))
    result = {
        "benchmark": "depth",
        "layers": options.layers,
        "width": options.width,
        "size": options.size,
        "k": options.k,
        "precision": options.precision,
        "batch": options.batch,
        "batches": options.batches,
        "rows": rows,
        "last_over_first": _growth(rows),
        "machine": machine.facts(),
    }
    _print(result)
    conclude(options, result, _draw(result) if options.plot else None)


def _times(
    spec: dict[str, Any], contender: Contender, phases: Sequence[int | str], batch: int, rounds: int, steps: int
) -> dict[int | str, list[float]]:
    """Seconds a step for each phase, by round: one process a phase, all taking turns."""
    with open_workers([contender] * len(phases)) as workers:
        for worker, phase in zip(workers, phases, strict=True):
            worker.ask("build", spec=spec, phase=phase, batch=batch, **contender.settings)
            worker.ask("steps", count=3)
        seconds = interleaved(workers, rounds, "steps", count=steps)
    return {phase: [total / steps for total in own] for phase, own in zip(phases, seconds, strict=True)}


def _row(
    spec: dict[str, Any], way: str, contender: Contender, phase: int | str, seconds: Sequence[float], batches: Sequence[int]
) -> dict[str, Any]:
    peaks = [peak_memory(spec, contender, phase, batch, steps=3)[0] for batch in batches]
    work = Work.of(architecture_of(spec), phase, contender.cached)
    line = line_fit(batches, peaks)
    say(f"{way}, phase {phase}: {spread(seconds)['median']:.3f} s a step, peak {peaks[-1]:.0f} MiB, {line['slope']:.3f} an image")
    return {
        "way": way,
        "phase": phase,
        "step_seconds": spread(seconds),
        "rounds": list(seconds),
        "multiply_adds": work.multiply_adds,
        "peaks_mib": peaks,
        "peak_mib": peaks[-1],
        "slope_mib": line["slope"],
        "counted_mib": work.stored_bytes(contender.precision) / MIB,
    }


def _growth(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """For each way, the deepest measured phase over the shallowest (times round by round), and end to end over the deepest."""
    growth: dict[str, Any] = {}
    whole = rows[-1]
    for way in WAYS:
        own = [row for row in rows if row["way"] == way]
        first, last = own[0], own[-1]
        growth[way] = {
            "phases": [first["phase"], last["phase"]],
            "time": spread([b / a for a, b in zip(first["rounds"], last["rounds"], strict=True)]),
            "peak": last["peak_mib"] / first["peak_mib"],
            "count": last["counted_mib"] / first["counted_mib"],
            "slope": last["slope_mib"] / first["slope_mib"],
            "end_to_end_peak": whole["peak_mib"] / last["peak_mib"],
            "end_to_end_slope": whole["slope_mib"] / last["slope_mib"],
            "end_to_end_count": whole["counted_mib"] / last["counted_mib"],
        }
    return growth


def _print(result: dict[str, Any]) -> None:
    title = f"k = {result['k']}, {result['layers']} blocks of {result['width']}, {result['size']}x{result['size']}"
    title += f", batch {result['batch']}, {result['precision']}"
    lines = [
        [
            row["way"],
            row["phase"],
            f"{row['step_seconds']['median']:.3f}",
            *(f"{peak:.0f}" for peak in row["peaks_mib"]),
            f"{row['slope_mib']:.3f}",
            f"{row['counted_mib']:.3f}",
        ]
        for row in result["rows"]
    ]
    peaks = [f"peak MiB, batch {batch}" for batch in result["batches"]]
    put_table(title, ["way", "phase", "seconds a step", *peaks, "MiB an image", "counted MiB an image"], lines)
    lines = [
        [
            f"{way}, phase {growth['phases'][1]} over {growth['phases'][0]}",
            *(f"{value:.2f}" for value in (growth["time"]["median"], growth["peak"], growth["slope"], growth["count"])),
            *(f"{growth[key]:.2f}" for key in ("end_to_end_peak", "end_to_end_slope", "end_to_end_count")),
        ]
        for way, growth in result["last_over_first"].items()
    ]
    header = ["ratio", "time", "peak", "slope", "count", "end to end over the deepest phase: peak", "slope", "count"]
    put_table("Growth with depth", header, lines)


def _draw(result: dict[str, Any]) -> Any:
    figure = new_figure(9, 4)
    time_axes, memory_axes = figure.subplots(1, 2)
    for way in WAYS:
        own = [row for row in result["rows"] if row["way"] == way]
        phases = [row["phase"] for row in own]
        time_axes.plot(phases, [row["step_seconds"]["median"] for row in own], "o-", label=way)
        memory_axes.plot(phases, [row["peak_mib"] for row in own], "o-", label=way)
    whole = result["rows"][-1]
    label = f"end to end, {result['layers']} blocks"
    time_axes.axhline(whole["step_seconds"]["median"], color="C3", linestyle="--", label=label)
    memory_axes.axhline(whole["peak_mib"], color="C3", linestyle="--", label=label)
    for axes, what in ((time_axes, "seconds a step"), (memory_axes, "peak MiB")):
        axes.set_xticks(phases)
        axes.set_xlabel("phase")
        axes.set_ylabel(what)
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)
    return figure


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--layers", type=int, default=16)
    options.add_argument("--width", type=int, default=64)
    options.add_argument("--size", type=int, default=32, help="height and width of the images")
    options.add_argument("--k", type=int, choices=[1, 2, 3], default=3)
    options.add_argument("--phases", type=numbers, default=[2, 4, 8, 16], metavar="2,4,...")
    options.add_argument("--batch", type=int, default=64, help="of the timed steps")
    options.add_argument("--batches", type=numbers, default=[32, 128], metavar="32,128", help="two or more, for the peaks")
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--steps", type=int, default=3, help="of each phase in a round")
    options.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    return options.parse_args()


if __name__ == "__main__":
    main()
