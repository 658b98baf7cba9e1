"""Seconds and epochs to a stated accuracy: ours greedy, decoupled and end to end, and tuned PyTorch, greedy.

    python -m benchmarks.end_to_accuracy --data folder:PATH --target 0.6 --json --plot accuracy.png

PATH holds train/<class>/ and test/<class>/. Every run is a fresh process, and its clock starts with the process. The target is
an accuracy on validation data, a tenth of the training images, measured after every epoch: the first head of any depth that
reaches it stops the clock. Test data is looked at once, when a run ends; its figures stand beside, for the deepest head and
the best one. An epoch is a pass over the training images, whatever it trains: a greedy run counts those of all phases so
far. A run that never gets there reports the best that it reached, and when. Ours runs through `kerasgreedy train`, as a
user runs it; seconds and accuracies come from the records that a run writes.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Machine, conclude, new_figure, parser, put_table, say
from benchmarks.runs import OWN, Setting, folder_of, linked_part, own_setting, run

TORCH = "torch tuned greedy"
STRATEGIES = ("greedy", "decoupled", "end_to_end")


def main() -> None:
    """The command."""
    options = _options()
    machine = Machine()
    names = {**{f"ours {strategy}": strategy for strategy in STRATEGIES}, TORCH: "greedy"}
    runs = {}
    with tempfile.TemporaryDirectory() as place:
        data = linked_part(folder_of(options.data), Path(place) / "data", options.train_examples, options.test_examples)
        for number, (name, strategy) in enumerate(names.items()):
            if strategy not in options.strategies:
                continue
            runs[name] = _run(name, strategy, data, Path(place) / str(number), options)
            reached = runs[name]["reached"]
            say(f"{name}: {_when(reached)}" if reached else f"{name}: not reached, best {runs[name]['best']['accuracy']:.4f}")
    result = {
        "benchmark": "end_to_accuracy",
        "target": options.target,
        "target_on": "validation",
        "spec": options.spec,
        "width": options.width,
        "precision": options.precision,
        "epochs_of_a_greedy_phase": options.epochs,
        "epochs_of_other_strategies": options.whole_epochs or "as many as all greedy phases together",
        "train_examples": options.train_examples,
        "runs": runs,
        "machine": machine.facts(),
    }
    _print(result)
    conclude(options, result, _draw(result) if options.plot else None)


def _run(name: str, strategy: str, data: Path, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Runs one contender and reads its records."""
    phases = _phases(options.spec)
    # The same total of epochs for every strategy, with drops of the rate at the same shares of it.
    epochs = options.epochs if strategy == "greedy" else options.whole_epochs or options.epochs * phases
    every = max(1, round(options.every * epochs / options.epochs))
    setting = Setting(
        options.spec, data, epochs, every, options.batch, keep="best", precision=options.precision, width=options.width
    )
    extra = [f"strategy={strategy}", *options.set]
    command = setting.torch(out) if name == TORCH else setting.ours(out, extra=extra)
    started, seconds = run(command, tuned=name == TORCH)
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    scores = json.loads((out / "results.json").read_text())["depths"]
    return {
        "seconds": seconds,
        **timeline(records, started, options.target),
        "test_deepest": scores[-1]["top1"],
        "test_best": max(score["top1"] for score in scores),
    }


def timeline(records: Sequence[dict[str, Any]], started: float, target: float) -> dict[str, Any]:
    """The path of the validation accuracy, where it first reached the target (or None), and its best point.

    Args:
        records: of a metrics.jsonl, in order; several of one epoch have one head each.
        started: when the process did, in seconds since 1970.
    """
    points: list[dict[str, Any]] = []
    passes: set[tuple[int, int]] = set()
    for record in records:
        if record["split"] != "validation" or record["epoch"] == 0:  # epoch 0 is the start of a phase, not yet trained
            continue
        passes.add((record["phase"], record["epoch"]))
        point = {
            "seconds": record["time"] - started,
            "epochs": len(passes),
            "head": record["head"],
            "accuracy": record["accuracy"],
        }
        points.append(point)
    if not points:
        raise SystemExit("the run wrote no validation accuracy")
    reached = next((point for point in points if point["accuracy"] >= target), None)
    return {"reached": reached, "best": max(points, key=lambda point: point["accuracy"]), "path": points}


def _phases(spec: str) -> int:
    from benchmarks.specs import architecture_of, open_spec

    return len(architecture_of(open_spec(spec)).blocks)


def _when(point: dict[str, Any]) -> str:
    return f"{point['seconds']:.0f} s, {point['epochs']} epochs, {point['head']}"


def _print(result: dict[str, Any]) -> None:
    lines = []
    for name, own in result["runs"].items():
        reached, best = own["reached"], own["best"]
        first = [f"{reached['seconds']:.0f}", reached["epochs"], reached["head"]] if reached else ["not reached", "-", "-"]
        lines.append(
            [
                name,
                *first,
                f"{best['accuracy']:.4f} ({_when(best)})",
                f"{own['test_deepest']:.4f}",
                f"{own['test_best']:.4f}",
                f"{own['seconds']:.0f}",
            ]
        )
    title = f"{result['spec']}, {result['train_examples'] or 'all'} images: to {result['target']:.2f} on validation data"
    header = ["run", "seconds", "epochs", "head", "best on validation", "test, deepest head", "test, best head", "whole run, s"]
    put_table(title, header, lines)


def _draw(result: dict[str, Any]) -> Any:
    figure = new_figure()
    axes = figure.subplots()
    for name, own in result["runs"].items():
        best = 0.0
        xs, ys = [], []
        for point in own["path"]:
            best = max(best, point["accuracy"])
            xs.append(point["seconds"])
            ys.append(best)
        axes.step(xs, ys, where="post", label=name)
    axes.axhline(result["target"], color="grey", linestyle=":")
    axes.set_xlabel("seconds since the start of the process")
    axes.set_ylabel("best validation accuracy so far")
    axes.legend(fontsize=8)
    return figure


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--data", required=True, help="folder:PATH")
    options.add_argument("--target", type=float, required=True, help="accuracy on validation data, such as 0.6")
    options.add_argument("--spec", default="simcnn_k3_cifar", help="a SimCNN: a shipped name or a file")
    options.add_argument("--width", type=int, help="filters of the first block; the others in proportion")
    options.add_argument("--train-examples", type=int, help="default: all")
    options.add_argument("--test-examples", type=int, help="default: all")
    options.add_argument("--epochs", type=int, default=15, help="of each greedy phase")
    options.add_argument("--every", type=int, default=5, help="epochs of a greedy phase between two drops of the learning rate")
    options.add_argument("--whole-epochs", type=int, help="of the other strategies; default: as many as all phases together")
    options.add_argument("--batch", type=int, default=128)
    options.add_argument("--precision", choices=["float32", "mixed_bfloat16"], default="float32")
    options.add_argument("--strategies", type=lambda text: text.split(","), default=list(STRATEGIES), metavar="greedy,...")
    options.add_argument("--set", action="append", default=[], type=own_setting, metavar="KEY=VALUE", help=OWN)
    chosen = options.parse_args()
    unknown = set(chosen.strategies) - set(STRATEGIES)
    if unknown:
        options.error(f"--strategies: received {', '.join(sorted(unknown))}; allowed: {', '.join(STRATEGIES)}")
    return chosen


if __name__ == "__main__":
    main()
