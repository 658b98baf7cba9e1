"""Whole greedy runs, from the start of the process to its end: `kerasgreedy train` against tuned PyTorch, plain and compiled.

    python -m benchmarks.whole_runs --data folder:PATH --json --plot whole_runs.png

PATH holds train/<class>/ and test/<class>/. Start-up, tracing, decoding, crops and flips, validation after every epoch, the
test data at the end and all that a run writes are inside. Both sides read the same 10,000 training images (a folder of links, so
that neither decodes more), as JPEG, train the same phases for the same epochs and keep the last weights of each. With cached
views ours does less work by design: each image has so many fixed crops and flips, and the frozen prefix runs once for
each. That is another training set, so it is a ratio of its own. Runs take turns; a ratio is taken within a round, against the
faster of the two PyTorch scripts. Inductor keeps what it compiled in its cache on disk, as it does for a user: the first round
pays for it, unless it is still there from before.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.figures import Machine, conclude, grouped_bars, new_figure, numbers, parser, put_table, say, spread, spread_text
from benchmarks.runs import OWN, Setting, folder_of, linked_part, own_setting, run

TORCH, COMPILED = "torch tuned", "torch compiled"


def main() -> None:
    """The command."""
    options = _options()
    machine = Machine()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        data = linked_part(folder_of(options.data), place / "data", options.train_examples, options.test_examples)
        setting = Setting(
            options.spec,
            data,
            options.epochs,
            options.every,
            batch=options.batch,
            precision=options.precision,
            width=options.width,
        )
        seconds = _take_turns(setting, place, options)
    fastest = min(TORCH, COMPILED, key=lambda name: statistics.median(seconds[name]))
    anchor = seconds[fastest]
    result = {
        "benchmark": "whole_runs",
        "against": fastest,
        "spec": options.spec,
        "width": options.width,
        "precision": options.precision,
        "epochs": options.epochs,
        "batch": options.batch,
        "train_examples": options.train_examples,
        "test_examples": options.test_examples,
        "seconds": seconds,
        "runs": {
            name: {"seconds": spread(own), "speed_ratio": spread([b / a for a, b in zip(own, anchor, strict=True)])}
            for name, own in seconds.items()
        },
        "machine": machine.facts(),
    }
    _print(result)
    conclude(options, result, _draw(result) if options.plot else None)


def _take_turns(setting: Setting, place: Path, options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of every run: contender -> one for each round."""
    views = {"ours": None, **{f"ours, {count} cached view{'s' * (count > 1)}": count for count in options.views}}
    names = [*views, TORCH, COMPILED]
    seconds: dict[str, list[float]] = {name: [0.0] * options.rounds for name in names}
    for number in range(options.rounds):
        for index in range(len(names)):
            name = names[(number + index) % len(names)]
            out = place / f"{number}_{index}"
            ours = name in views
            command = setting.ours(out, views[name], options.set) if ours else setting.torch(out, name == COMPILED)
            _, seconds[name][number] = run(command, tuned=not ours)
            say(f"round {number + 1}, {name}: {seconds[name][number]:.1f} s")
    return seconds


def _print(result: dict[str, Any]) -> None:
    title = f"{result['spec']}" + (f", first block {result['width']} wide" if result["width"] else "")
    title += f", {result['train_examples']:,} images, {result['epochs']} epochs a phase, {result['precision']}"
    lines = [
        [name, f"{own['seconds']['median']:.1f}", spread_text(own["speed_ratio"]) if name != result["against"] else "-"]
        for name, own in result["runs"].items()
    ]
    put_table(title, ["run", "seconds, median", f"as fast as {result['against']} (10th to 90th percentile)"], lines)


def _draw(result: dict[str, Any]) -> Any:
    figure = new_figure(6, 4)
    axes = figure.subplots()
    grouped_bars(axes, list(result["runs"]), {"seconds": [own["seconds"]["median"] for own in result["runs"].values()]})
    axes.set_ylabel("seconds of a whole run")
    return figure


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--data", required=True, help="folder:PATH")
    options.add_argument("--spec", default="simcnn_k3_cifar", help="a SimCNN: a shipped name or a file")
    options.add_argument("--width", type=int, help="filters of the first block; the others in proportion")
    options.add_argument("--train-examples", type=int, default=10_000)
    options.add_argument("--test-examples", type=int, default=2_000)
    options.add_argument("--epochs", type=int, default=3, help="of each phase")
    options.add_argument("--every", type=int, default=15, help="epochs between two drops of the learning rate")
    options.add_argument("--batch", type=int, default=128)
    options.add_argument("--precision", choices=["float32", "mixed_bfloat16"], default="float32")
    options.add_argument("--views", type=numbers, default=[1, 2], metavar="1,2", help="runs of ours with so many cached views")
    options.add_argument("--set", action="append", default=[], type=own_setting, metavar="KEY=VALUE", help=OWN)
    options.add_argument("--rounds", type=int, default=3)
    return options.parse_args()


if __name__ == "__main__":
    main()
