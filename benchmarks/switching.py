"""One device, two devices, two workers in turn within one run: how far its loss curve is from that of one device throughout.

    python -m benchmarks.switching --data folder:PATH --json --plot switched.png

Every seed is trained twice: on one device from beginning to end, and with a SIGTERM at some step of each `--every`-th epoch,
after which the run is resumed on two logical devices, on two worker processes, on one device, and so on. The noise to
compare with is the deviation between the seeds of the undisturbed runs.
"""

import argparse
import itertools
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Machine, conclude, new_figure, parser, put_table, say
from benchmarks.runs import Setting, folder_of, linked_part
from kerasgreedy.reports.run_files import read_metrics, read_results

# What a run goes on with, in turn.
TURNS = {"two devices": ["--devices", "2"], "two workers": ["--workers", "2"], "one device": []}
STOPPED = 3  # exit code


def main() -> None:
    """The command."""
    options = parser(__doc__)
    options.add_argument("--data", required=True, type=folder_of, help="folder:PATH")
    options.add_argument("--spec", default="simcnn_k3_cifar", help="a shipped model spec")
    options.add_argument("--width", type=int, default=16, help="filters of the first block; the others follow")
    options.add_argument("--images", type=int, default=4000, help="for training and validation")
    options.add_argument("--epochs", type=int, default=6, help="of each phase")
    options.add_argument("--every", type=int, default=3, help="epochs between two stops")
    options.add_argument("--seeds", type=int, default=3)
    options = options.parse_args()
    machine = Machine()
    curves: dict[str, list[list[float]]] = {"throughout": [], "switched": []}
    accuracy: dict[str, list[float]] = {"throughout": [], "switched": []}
    turns: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        options.data = linked_part(options.data, Path(folder) / "images", options.images, 2000)
        for seed in range(options.seeds):
            for way in curves:
                place = Path(folder) / f"{way}_{seed}"
                taken = train(options, seed, place, options.every if way == "switched" else None)
                turns += [taken] if taken else []
                curves[way].append([r["loss"] for r in read_metrics(place) if r["split"] == "train"])
                accuracy[way].append(100 * read_results(place)["depths"][-1]["top1"])
                say(f"seed {seed}, {way}: {accuracy[way][-1]:.2f} %, {len(taken)} changes")
                shutil.rmtree(place)
    result = {
        "benchmark": "switching",
        **{key: getattr(options, key) for key in ("spec", "width", "images", "epochs", "seeds")},
        "changes": turns,
        "accuracy": accuracy,
        **compared(np.array(curves["throughout"]), np.array(curves["switched"])),
        "curves": curves,
        "machine": machine.facts(),
    }
    rows = [[name, f"{result[name]['mean']:.4f}", f"{result[name]['largest']:.4f}"] for name in ("by_changes", "between_seeds")]
    put_table("training loss of an epoch: differences", ["", "mean", "largest"], rows)
    conclude(options, result, _draw(curves, options.epochs) if options.plot else None)


def compared(throughout: Any, switched: Any) -> dict[str, dict[str, float]]:
    """Differences of the training loss, an epoch at a time.

    Args:
        throughout, switched: (seeds, epochs).

    Returns:
        `by_changes`: absolute differences within a seed; `between_seeds`: the deviation (n - 1) between seeds of `throughout`.
    """
    differences = {"by_changes": np.abs(switched - throughout), "between_seeds": throughout.std(0, ddof=1)}
    return {name: {"mean": float(value.mean()), "largest": float(value.max())} for name, value in differences.items()}


def train(options: argparse.Namespace, seed: int, place: Path, every: int | None) -> list[str]:
    """Trains a run to its end; returns what it went on with after each stop, none where `every` is None."""
    setting = Setting(options.spec, options.data, options.epochs, options.epochs, width=options.width)
    command: Sequence[str] = setting.ours(place, extra=[f"seed={seed}", "sync_batch_norm=true"])
    rng, taken = random.Random(seed), list[str]()
    for stop, turn in zip(itertools.count(1), itertools.cycle(TURNS)):
        stopped = _until(command, place, stop * every if every else None, rng)
        if not stopped:
            return taken
        taken.append(turn)
        command = [sys.executable, "-m", "kerasgreedy", "train", "--resume", str(place), "--quiet", *TURNS[turn]]
    raise AssertionError("the runs end")


def _until(command: Sequence[str], place: Path, epochs: int | None, rng: random.Random) -> bool:
    """Runs a command until it ends, or until so many epochs are done and part of another; whether it was stopped."""

    def done() -> int:
        log = place / "metrics.jsonl"
        return log.read_text().count('"train"') if log.exists() else 0

    before = done()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while epochs is not None and process.poll() is None:
        time.sleep(0.05)
        if done() >= max(epochs, before + 1):
            time.sleep(rng.uniform(0.1, 1.5))
            process.send_signal(signal.SIGTERM)
            break
    _, err = process.communicate()
    if process.returncode not in (0, STOPPED):
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {err[-2000:]}")
    return process.returncode == STOPPED


def _draw(curves: dict[str, list[list[float]]], epochs: int) -> Any:
    figure = new_figure()
    axes = figure.subplots()
    for way, (style, color) in {"throughout": ("-", "0.6"), "switched": ("--", "tab:red")}.items():
        for index, losses in enumerate(curves[way]):
            label = {"throughout": "one device throughout", "switched": "one, two devices, two workers in turn"}[way]
            axes.plot(np.arange(1, len(losses) + 1), losses, style, color=color, label=None if index else label)
    for phase in range(epochs, len(curves["switched"][0]), epochs):
        axes.axvline(phase + 0.5, color="0.85", linewidth=0.8)
    axes.set_xlabel("epoch; a line where the next block begins")
    axes.set_ylabel("training loss")
    axes.legend(fontsize=7)
    return figure


if __name__ == "__main__":
    main()
