"""Accuracy of greedy runs, depth by depth: `kerasgreedy train` against the PyTorch script that was written from the paper.

    python -m benchmarks.parity --data folder:PATH --spec simcnn_k1_cifar --width 64 --seeds 0,1,2 --out parity_k1.json

PATH holds train/<class>/ and test/<class>/. Both sides train the same phases on the same images, with the same split of a seed,
the same schedule, the same kinds of crops and flips, and initial weights as PyTorch draws them; ours with what it takes to do
as PyTorch does: momentum of gradients and the unbiased moving variance. What is drawn at random is drawn by other generators,
so single runs differ and means over seeds are compared. Every run that ends is added to OUT at once; runs that are there are
not made again, so that seeds can be added later.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.figures import Machine, conclude, new_figure, parser, put_table, say
from benchmarks.runs import Setting, folder_of, linked_part, run

OURS, TORCH = "ours", "torch"
AS_PYTORCH = ["training.optimizer.momentum_form=pytorch", "block_defaults.batch_norm_variance=unbiased"]
INITIALIZER = "pytorch"
SETTINGS = ("spec", "width", "precision", "epochs", "every", "batch", "train_examples", "test_examples", "validation")


def main() -> None:
    """The command."""
    options = _options()
    machine = Machine()
    result = _begun(options)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        data = linked_part(folder_of(options.data), place / "data", options.train_examples, options.test_examples)
        for seed in options.seeds:
            for side in (OURS, TORCH):
                if str(seed) not in result["top1"][side]:
                    result["top1"][side][str(seed)] = _run(options, data, place / f"{side}_{seed}", side, seed)
                    result["machine"] = machine.facts()
                    options.out.write_text(json.dumps(result, indent=1))
    _print(result)
    conclude(options, result, _draw(result) if options.plot else None)


def _run(options: argparse.Namespace, data: Path, out: Path, side: str, seed: int) -> list[float]:
    """Top-1 on the test images at each depth, in per cent."""
    setting = Setting(
        options.spec,
        data,
        options.epochs,
        options.every,
        batch=options.batch,
        precision=options.precision,
        validation=options.validation,
        width=options.width,
        seed=seed,
        initializer=INITIALIZER,
    )
    _, seconds = run(setting.ours(out, extra=AS_PYTORCH) if side == OURS else setting.torch(out), tuned=side == TORCH)
    depths = json.loads((out / "results.json").read_text())["depths"]
    found = [round(100 * entry["top1"], 3) for entry in sorted(depths, key=lambda entry: entry["depth"])]
    say(f"{side}, seed {seed}: {' '.join(f'{value:.1f}' for value in found)} ({seconds:.0f} s)")
    return found


def _begun(options: argparse.Namespace) -> dict[str, Any]:
    """What there is of an earlier start.

    Raises:
        SystemExit: it was with other settings.
    """
    settings = {**{key: getattr(options, key) for key in SETTINGS}, "initializer": INITIALIZER}
    if not options.out.exists():
        return {"benchmark": "parity", **settings, "top1": {OURS: {}, TORCH: {}}}
    result = json.loads(options.out.read_text())
    odd = [key for key in settings if result.get(key) != settings[key]]
    if odd:
        raise SystemExit(f"{options.out}: is of {odd[0]} {result.get(odd[0])}, and not {settings[odd[0]]}; give another --out")
    return dict(result)


def rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """For each depth the mean and standard deviation over seeds of both sides, and the difference of the means with its error.

    The error is the root of the sum of both variances over their numbers of seeds.
    """
    sides = {side: list(result["top1"][side].values()) for side in (OURS, TORCH)}
    found = []
    for depth in range(len(sides[OURS][0])):
        row: dict[str, Any] = {"depth": depth + 1}
        variance = 0.0
        for side, runs in sides.items():
            values = [values[depth] for values in runs]
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            row[side] = (statistics.mean(values), deviation)
            variance += deviation**2 / len(values)
        row["difference"], row["error"] = row[OURS][0] - row[TORCH][0], variance**0.5
        found.append(row)
    return found


def _print(result: dict[str, Any]) -> None:
    seeds = sorted(set(result["top1"][OURS]) & set(result["top1"][TORCH]), key=int)
    title = f"{result['spec']}, first block {result['width'] or 'as written'}, {result['train_examples']:,} images, "
    title += f"{result['epochs']} epochs a block, {result['precision']}, seeds {', '.join(seeds)}"
    lines = [
        [row["depth"], *(f"{mean:.2f} ± {deviation:.2f}" for mean, deviation in (row[OURS], row[TORCH])),
         f"{row['difference']:+.2f} ± {row['error']:.2f}"]
        for row in rows(result)
    ]  # fmt: skip
    put_table(title, ["depth", "ours", "PyTorch", "difference of the means"], lines)


def _draw(result: dict[str, Any]) -> Any:
    figure = new_figure(6, 4)
    axes = figure.subplots()
    table = rows(result)
    for shift, side in ((-0.05, OURS), (0.05, TORCH)):
        means, deviations = zip(*(row[side] for row in table), strict=True)
        axes.errorbar([row["depth"] + shift for row in table], means, deviations, marker="o", capsize=3, label=side)
    axes.set_xticks([row["depth"] for row in table])
    axes.set_xlabel("depth (blocks)")
    axes.set_ylabel("top-1 on test images, %; mean and deviation over seeds")
    axes.legend()
    return figure


def _seeds(text: str) -> list[int]:
    return sorted({int(part) for part in text.split(",")})


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--data", required=True, help="folder:PATH")
    options.add_argument("--out", type=Path, required=True, help="JSON file that runs are added to")
    options.add_argument("--spec", default="simcnn_k1_cifar", help="a SimCNN: a shipped name or a file")
    options.add_argument("--width", type=int, help="filters of the first block; the others in proportion")
    options.add_argument("--seeds", type=_seeds, default=[0, 1, 2], metavar="0,1,2")
    options.add_argument("--train-examples", type=int, default=10_000)
    options.add_argument("--test-examples", type=int, default=10_000)
    options.add_argument("--epochs", type=int, default=12, help="of each phase")
    options.add_argument("--every", type=int, default=4, help="epochs between two drops of the learning rate")
    options.add_argument("--batch", type=int, default=128)
    options.add_argument("--validation", type=float, default=0.1, help="share of the training images, by which nothing is chosen")
    options.add_argument("--precision", choices=["float32", "mixed_bfloat16"], default="float32")
    return options.parse_args()


if __name__ == "__main__":
    main()
