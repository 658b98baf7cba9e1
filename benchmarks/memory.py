"""Peak memory of every greedy phase against end to end: the same net, the same batch, ours and PyTorch.

    python -m benchmarks.memory --spec simcnn_k1_cifar --json --plot memory.png

Each figure comes from a fresh process: build, reset the peak (write 5 to /proc/self/clear_refs), run a few steps, read VmHWM
from /proc/self/status. The peak is reset before the first step and not after a warm-up, because an allocator that kept its
warm-up's buffers would hide what a step takes. A peak holds the framework, the weights and all else that is resident, so
the least-squares line over batch sizes is the fairer figure: its slope (MiB an image) is what grows with the batch. Beside it
stands the count of stored activations from the architecture (`costs.py` states the rule), which no allocator blurs. PyTorch runs
in channels_last with the allocator's defaults: the settings that keep buffers buy speed with memory.

The paper (section 4.1) says that end to end took 5 times the GPU memory of k = 1, J = 5 layerwise training.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from benchmarks.contenders import OURS, TORCH, Contender
from benchmarks.costs import END_TO_END, Work
from benchmarks.figures import Machine, conclude, grouped_bars, line_fit, new_figure, numbers, parser, put_table, say
from benchmarks.specs import architecture_of, open_spec
from benchmarks.workers import open_workers

MIB = 2**20
PAPER = "the paper, section 4.1 (GPU, k = 1, J = 5): end to end takes 5 times as much"


def main() -> None:
    """The command."""
    options = _options()
    spec = open_spec(options.spec, options.width)
    depths = range(1, len(architecture_of(spec).blocks) + 1)
    phases = [*(options.phases or depths), END_TO_END]
    contenders = [
        Contender("ours", OURS, options.precision),
        Contender("torch", TORCH, options.precision, tuned=True, keeps_buffers=False),
    ]
    machine = Machine()
    rows = [
        measure(spec, contender, phase, options.batches, options.steps, options.accumulation)
        for phase in phases
        for contender in contenders
    ]
    result = {
        "benchmark": "memory",
        "spec": spec["name"],
        "blocks": [block["layers"] for block in spec["blocks"]],
        "precision": options.precision,
        "accumulation": options.accumulation,
        "batches": options.batches,
        "rows": rows,
        "end_to_end_over_worst_phase": _ratios(rows),
        "paper": PAPER,
        "machine": machine.facts(),
    }
    _print(result)
    conclude(options, result, _draw(result) if options.plot else None)


def measure(
    spec: dict[str, Any], contender: Contender, phase: int | str, batches: Sequence[int], steps: int, accumulation: int = 1
) -> dict[str, Any]:
    """Peaks of one contender in one phase over batch sizes, their line, and the count."""
    peaks, residents = [], []
    for batch in batches:
        peak, resident = peak_memory(spec, contender, phase, batch, steps, accumulation)
        peaks.append(peak)
        residents.append(resident)
        say(f"{contender.name}, phase {phase}, batch {batch}: peak {peak:.0f} MiB ({resident:.0f} before the first step)")
    stored = Work.of(architecture_of(spec), phase, contender.cached).stored_bytes(contender.precision, accumulation)
    return {
        "contender": contender.name,
        "phase": phase,
        "peak_mib": peaks,
        "resident_before_mib": residents,
        "line_mib": line_fit(batches, peaks) if len(set(batches)) > 1 else None,
        "counted_mib_an_image": stored / MIB,
    }


def peak_memory(
    spec: dict[str, Any], contender: Contender, phase: int | str, batch: int, steps: int, accumulation: int = 1
) -> tuple[float, float]:
    """MiB at the peak of so many steps in a fresh process, and MiB that were resident before them."""
    with open_workers([contender]) as (worker,):
        worker.ask("build", spec=spec, phase=phase, batch=batch, accumulation=accumulation, **contender.settings)
        resident = worker.ask("reset_peak")
        worker.ask("steps", count=steps)
        return worker.ask("peak"), resident


def _ratios(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """End to end over the phase that takes most: by peak at each batch size, by slope, by count."""
    result = {}
    for name in dict.fromkeys(row["contender"] for row in rows):
        own = [row for row in rows if row["contender"] == name]
        whole, phases = own[-1], own[:-1]
        peaks = [peak / max(row["peak_mib"][n] for row in phases) for n, peak in enumerate(whole["peak_mib"])]
        slope = None
        if whole["line_mib"]:
            slope = whole["line_mib"]["slope"] / max(row["line_mib"]["slope"] for row in phases)
        count = whole["counted_mib_an_image"] / max(row["counted_mib_an_image"] for row in phases)
        result[name] = {"peak": peaks, "slope": slope, "count": count}
    return result


def _print(result: dict[str, Any]) -> None:
    batches = result["batches"]
    lines = []
    for row in result["rows"]:
        line = row["line_mib"]
        fit = [f"{line['slope']:.2f}", f"{line['constant']:.0f}"] if line else ["-", "-"]
        peaks = [f"{peak:.0f}" for peak in row["peak_mib"]]
        lines.append([row["contender"], row["phase"], *peaks, *fit, f"{row['counted_mib_an_image']:.2f}"])
    title = f"{result['spec']}, {result['precision']}, accumulation {result['accumulation']}: peak MiB"
    header = ["contender", "phase", *(f"batch {batch}" for batch in batches), "MiB an image", "constant", "counted MiB an image"]
    put_table(title, header, lines)
    lines = [
        [
            name,
            *(f"{peak:.2f}" for peak in ratio["peak"]),
            f"{ratio['slope']:.2f}" if ratio["slope"] else "-",
            f"{ratio['count']:.2f}",
        ]
        for name, ratio in result["end_to_end_over_worst_phase"].items()
    ]
    put_table(
        "End to end over the worst phase", ["contender", *(f"peak, batch {batch}" for batch in batches), "slope", "count"], lines
    )
    print(f"\nBeside it: {PAPER}.")


def _draw(result: dict[str, Any]) -> Any:
    figure = new_figure()
    axes = figure.subplots()
    rows = result["rows"]
    names = list(dict.fromkeys(row["contender"] for row in rows))
    own = {name: [row for row in rows if row["contender"] == name] for name in names}
    batch = max(result["batches"])
    at = result["batches"].index(batch)
    series = {f"{name}, measured": [row["peak_mib"][at] for row in own[name]] for name in names}
    series["stored activations, counted"] = [row["counted_mib_an_image"] * batch for row in own[names[0]]]
    grouped_bars(axes, [f"phase {row['phase']}".replace("phase end_to_end", "end to end") for row in own[names[0]]], series)
    axes.set_ylabel("peak MiB")
    axes.set_title(f"{result['spec']}, batch {batch}, {result['precision']}")
    return figure


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--spec", default="simcnn_k1_cifar", help="a SimCNN: a shipped name or a file")
    options.add_argument("--width", type=int, help="filters of the first block; the others in proportion")
    options.add_argument("--phases", type=numbers, metavar="1,2,...", help="default: all; end to end always")
    options.add_argument("--batches", type=numbers, default=[32, 64, 128], metavar="32,64,...")
    options.add_argument("--steps", type=int, default=4)
    options.add_argument("--precision", choices=["float32", "mixed_bfloat16"], default="float32")
    options.add_argument("--accumulation", type=int, default=1, help="parts that a batch goes through in")
    return options.parse_args()


if __name__ == "__main__":
    main()
