"""Accuracy of greedy runs, depth by depth: `kerasgreedy train` against the PyTorch script that was written from the paper.

    python -m benchmarks.parity --data folder:PATH --spec simcnn_k1_cifar --width 64 --seeds 0,1,2 --out parity_k1.json

PATH holds train/<class>/ and test/<class>/. All sides train the same phases on the same images, with the same split of a seed,
the same schedule, the same kinds of crops and flips, and initial weights as PyTorch draws them; ours with what it takes to do
as PyTorch does: momentum of gradients and the unbiased moving variance. Sides:

ours     `kerasgreedy train`
torch    PyTorch with generators of its own: single runs differ by chance, and means over seeds are compared
paired   PyTorch with initial weights, order, crops and flips of ours: compared seed by seed, which sees far smaller differences

Every run that ends is added to OUT at once; runs that are there are not made again, so that seeds and sides can be added later.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from benchmarks.contenders import CONTENDERS
from benchmarks.figures import Machine, conclude, new_figure, parser, put_table, say
from benchmarks.runs import Setting, folder_of, linked_part, run
from benchmarks.specs import open_spec
from benchmarks.workers import open_workers

OURS, TORCH, PAIRED = SIDES = ("ours", "torch", "paired")
TITLES = {OURS: "ours", TORCH: "PyTorch", PAIRED: "PyTorch, paired"}
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
            for side in options.sides:
                done = result["top1"].setdefault(side, {})
                if str(seed) not in done:
                    done[str(seed)] = _run(options, data, place / f"{side}_{seed}", side, seed)
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
    if side == OURS:
        command = setting.ours(out, extra=AS_PYTORCH)
    else:
        paired = start(options.spec, options.width, data, seed, out.with_suffix(".npz")) if side == PAIRED else None
        command = setting.torch(out, paired=paired)
    _, seconds = run(command, tuned=side != OURS)
    depths = json.loads((out / "results.json").read_text())["depths"]
    found = [round(100 * entry["top1"], 3) for entry in sorted(depths, key=lambda entry: entry["depth"])]
    say(f"{side}, seed {seed}: {' '.join(f'{value:.1f}' for value in found)} ({seconds:.0f} s)")
    return found


def start(place: str, width: int | None, data: Path, seed: int, file: Path) -> Path:
    """Writes the weights that ours begins with; by a process of its own, since two frameworks in one do not get on."""
    spec, classes = open_spec(place, width), len(list((data / "train").iterdir()))
    spec["block_defaults"] = {**spec.get("block_defaults", {}), "initializer": INITIALIZER}
    with open_workers([CONTENDERS["ours float32"]]) as (worker,):
        worker.ask("start", spec=spec, classes=classes, seed=seed, file=str(file))
    return file


def _begun(options: argparse.Namespace) -> dict[str, Any]:
    """What there is of an earlier start.

    Raises:
        SystemExit: it was with other settings.
    """
    settings = {**{key: getattr(options, key) for key in SETTINGS}, "initializer": INITIALIZER}
    if not options.out.exists():
        return {"benchmark": "parity", **settings, "top1": {}}
    result = json.loads(options.out.read_text())
    odd = [key for key in settings if result.get(key) != settings[key]]
    if odd:
        raise SystemExit(f"{options.out}: is of {odd[0]} {result.get(odd[0])}, and not {settings[odd[0]]}; give another --out")
    return dict(result)


def rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """For each depth the mean and standard deviation over seeds of each side; and under `from_torch` and `from_paired` by how
    much ours is better and the standard error of that.

    Of runs with generators of their own it is the difference of the means, its error the root of the sum of both variances over
    their numbers of seeds; of paired runs the mean and error of the differences of those seeds that both have.
    """
    sides = {side: runs for side, runs in result["top1"].items() if runs}
    depths = range(len(next(iter(next(iter(sides.values())).values()))))
    at = [{side: {seed: run[depth] for seed, run in runs.items()} for side, runs in sides.items()} for depth in depths]
    return [_row(depth, runs) for depth, runs in zip(depths, at, strict=True)]


def _row(depth: int, sides: dict[str, dict[str, float]]) -> dict[str, Any]:
    row: dict[str, Any] = {"depth": depth + 1}
    row |= {side: (statistics.mean(runs.values()), _deviation(runs.values())) for side, runs in sides.items()}
    if OURS in sides and TORCH in sides:
        variance = sum(row[side][1] ** 2 / len(sides[side]) for side in (OURS, TORCH))
        row["from_torch"] = row[OURS][0] - row[TORCH][0], variance**0.5
    pairs = [value - sides[PAIRED][seed] for seed, value in sides.get(OURS, {}).items() if seed in sides.get(PAIRED, {})]
    if pairs:
        row["from_paired"] = statistics.mean(pairs), _deviation(pairs) / len(pairs) ** 0.5
    return row


def _deviation(values: Collection[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _print(result: dict[str, Any]) -> None:
    title = f"{result['spec']}, first block {result['width'] or 'as written'}, {result['train_examples']:,} images, "
    title += f"{result['epochs']} epochs a block, {result['precision']}"
    table = rows(result)
    sides = [side for side in SIDES if side in table[0]]
    for side in sides:
        title += f"; {TITLES[side]}: seeds {', '.join(sorted(result['top1'][side], key=int))}"
    against = [key for key in ("from_torch", "from_paired") if key in table[0]]
    names = {"from_torch": "difference of the means", "from_paired": "difference of pairs"}
    lines = [
        [row["depth"], *(f"{mean:.2f} ± {deviation:.2f}" for mean, deviation in (row[side] for side in sides)),
         *(f"{difference:+.2f} ± {error:.2f}" for difference, error in (row[key] for key in against))]
        for row in table
    ]  # fmt: skip
    put_table(title, ["depth", *(TITLES[side] for side in sides), *(names[key] for key in against)], lines)


def _draw(result: dict[str, Any]) -> Any:
    figure = new_figure(6, 4)
    axes = figure.subplots()
    table = rows(result)
    for shift, side in ((-0.08, OURS), (0, TORCH), (0.08, PAIRED)):
        if side not in table[0]:
            continue
        means, deviations = zip(*(row[side] for row in table), strict=True)
        axes.errorbar([row["depth"] + shift for row in table], means, deviations, marker="o", capsize=3, label=TITLES[side])
    axes.set_xticks([row["depth"] for row in table])
    axes.set_xlabel("depth (blocks)")
    axes.set_ylabel("top-1 on test images, %; mean and deviation over seeds")
    axes.legend()
    return figure


def _sides(text: str) -> list[str]:
    """Names of `SIDES`, in their order."""
    given = text.split(",")
    if odd := [name for name in given if name not in SIDES]:
        raise argparse.ArgumentTypeError(f"received '{odd[0]}'; allowed: {', '.join(SIDES)}")
    return [side for side in SIDES if side in given]


def _seeds(text: str) -> list[int]:
    return sorted({int(part) for part in text.split(",")})


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--data", required=True, help="folder:PATH")
    options.add_argument("--out", type=Path, required=True, help="JSON file that runs are added to")
    options.add_argument("--spec", default="simcnn_k1_cifar", help="a SimCNN: a shipped name or a file")
    options.add_argument("--width", type=int, help="filters of the first block; the others in proportion")
    options.add_argument(
        "--sides", type=_sides, default=list(SIDES), metavar=",".join(SIDES), help="which runs to add (default: all)"
    )
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
