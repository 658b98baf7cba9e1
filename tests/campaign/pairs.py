"""Pairs: two commands that want one folder at the same moment. One has it, whole and alone; the other is refused."""

import json
import random
import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kerasgreedy.reports.run_files import read_metrics

from . import workloads
from .faults import Fault
from .kills import Campaign
from .meeting import Meeting
from .nursery import Around, Ended
from .workloads import Workload

DELAY = 0.05  # seconds, at most
LIMIT = 240.0
REFUSED = re.compile(
    r"error: \S+: (already exists( and is not empty)?; .*|another process is (training in this folder|writing it; .*))\n"
)
COUNTS = {"trainings": 100, "resumed": 20, "training and export": 20}


def tiny(name: str, width: int, seed: int) -> Workload:
    """A run whose every file tells whose it is."""
    return Workload(
        name,
        f"name: {name}\nblocks: [{{conv: {width}}}]\nauxiliary_head: {{pool_to: 1}}\n",
        f"name: {name}\nseed: {seed}\ndata: {{dataset: digits, train_examples: 32, test_examples: 16}}\n"
        f"training: {{epochs: 1, batch_size: 16, optimizer: {{name: sgd, learning_rate: 0.0{seed}}}}}\n",
    )


LEFT, RIGHT = tiny("left", 3, 1), tiny("right", 5, 2)
WIDTHS = {"left": (3, 3, 1, 3), "right": (3, 3, 1, 5)}


@dataclass
class Pair:
    """Two commands and what came of them: `one won`, `both done`, `both lost`, `mixed`, `hang`, `unclear`."""

    kind: str
    moment: str
    came: str = ""
    left: list[str] = field(default_factory=list)
    said: str = ""

    def __str__(self) -> str:
        behind = f", left behind: {', '.join(self.left)}" if self.left else ""
        return f"pair of {self.kind}, met when {self.moment}: {self.came}{behind} ({self.said.strip()})"


def owners(workdir: Path) -> dict[str, set[str]]:
    """File -> whose it is."""
    facts = json.loads((workdir / "run.json").read_text())
    recipe = yaml.safe_load((workdir / "recipe.yaml").read_text())
    rates = {round(record["learning_rate"], 4) for record in read_metrics(workdir) if "learning_rate" in record}
    by_seed, by_shape = {1: "left", 2: "right"}, {f"float32{shape}": name for name, shape in WIDTHS.items()}
    kernels = [value for key, value in workloads.weights(workdir).items() if key.startswith("network/block_1/")]
    shapes = {name for text, name in by_shape.items() if any(value.startswith(text.encode()) for value in kernels)}
    results = json.loads((workdir / "results.json").read_text())
    sizes = {4 * 9 * width: name for name, (*_, width) in WIDTHS.items()}  # bytes of a kernel of 3x3, as float32
    saved = {sizes[len(v)] for v in workloads.model_weights(workdir / "model.keras").values() if len(v) in sizes}
    return {
        "spec.yaml": {yaml.safe_load((workdir / "spec.yaml").read_text())["name"]},
        "recipe.yaml": {recipe["name"], by_seed[recipe["seed"]]},
        "run.json": {by_seed[facts["seed"]]},
        "metrics.jsonl": {{0.01: "left", 0.02: "right"}.get(rate, "?") for rate in rates},
        "results.json": {results["spec"], results["recipe"], by_seed[results["seed"]]},
        "checkpoints": shapes,
        "model.keras": saved,
    }


class Pairs:
    """All pairs.

    Args:
        campaign: prepared; two of its warm processes are used.
    """

    def __init__(self, campaign: Campaign, counts: dict[str, int] | None = None):
        self.campaign, self.folder = campaign, campaign.folder / "pairs"
        self.counts = counts or COUNTS
        self.rng = random.Random(campaign.seed)
        self.folder.mkdir()

    def run(self) -> list[Pair]:
        """Each pair."""
        kinds: dict[str, tuple[Callable[..., Pair], Sequence[str]]] = {
            "trainings": (self._trainings, ("start", "looked at", "made", "unseen")),
            "resumed": (self._resumed, ("start", "held")),
            "training and export": (self._with_export, ("start", "unseen")),
        }
        self._bases()
        done = []
        for kind, (one, moments) in kinds.items():
            for number in range(self.counts[kind]):
                place = self.folder / f"{kind.replace(' ', '_')}_{number}"
                place.mkdir()
                pair = Pair(kind, moments[number % len(moments)])
                done.append(one(pair, place, number))
                shutil.rmtree(place)
            self.campaign.say(f"{self.counts[kind]} pairs of {kind} are done")
        return done

    def _bases(self) -> None:
        """A run that was stopped, what it comes to undisturbed, and a finished one to export."""
        nursery, place = self.campaign.made[0], self.folder / "bases"
        stop = asdict(Fault("step/after", 1, "SIGTERM"))
        for name, fault, code in (("whole", {}, 0), ("stopped", stop, 3)):
            ended = nursery.run(LEFT.command(place / name, place / name / "run"), fault)
            if ended.code != code:
                raise RuntimeError(f"the {name} run ended with {ended.code}: {ended.err}")
        self.expected = workloads.outcome(place / "whole/run")

    def _both(self, pair: Pair, place: Path, commands: Sequence[Sequence[Any]]) -> list[Ended]:
        met = place / "met"
        met.mkdir()
        delays = [self.rng.uniform(0, DELAY) for _ in commands]

        def one(number: int) -> Ended:
            meeting = Meeting(pair.moment, str(met), str(number), delays[number])
            return self.campaign.made[number].run(commands[number], around=Around(meet=asdict(meeting), limit=LIMIT))

        with ThreadPoolExecutor(2) as pool:
            ended = list(pool.map(one, range(2)))
        pair.said = " | ".join(f"{each.code}: {each.err.strip()}" for each in ended)
        return ended

    def _judge(self, pair: Pair, ended: Sequence[Ended], whole: Callable[[int], bool], may_both: bool) -> Pair:
        """Args: whole: whether what the command with that number made is there, and its own alone."""
        won = [number for number, each in enumerate(ended) if each.code == 0]
        if any(each.code == -9 for each in ended):
            pair.came = "hang"
        elif any(each.code not in (0, 2) or (each.code == 2 and not REFUSED.fullmatch(each.err)) for each in ended):
            pair.came = "unclear"
        elif not won:
            pair.came = "both lost"
        elif not all(map(whole, won)) or (len(won) == 2 and not may_both):
            pair.came = "mixed"
        else:
            pair.came = "one won" if len(won) == 1 else "both done"
        return pair

    def _trainings(self, pair: Pair, place: Path, number: int) -> Pair:
        run = place / "here/run"
        run.parent.mkdir()
        both = (LEFT, RIGHT) if number % 2 else (RIGHT, LEFT)
        ended = self._both(pair, place, [each.command(place / each.name, run) for each in both])
        self._judge(pair, ended, lambda won: all(whose == {both[won].name} for whose in owners(run).values()), False)
        pair.left = _left(run.parent, {"run"})
        return pair

    def _resumed(self, pair: Pair, place: Path, number: int) -> Pair:
        run = place / "here/run"
        shutil.copytree(self.folder / "bases/stopped/run", run)
        ended = self._both(pair, place, [["train", "-q", "--resume", run]] * 2)
        self._judge(pair, ended, lambda _: not workloads.differences(run, self.expected), True)
        pair.left = _left(run.parent, {"run"})
        return pair

    def _with_export(self, pair: Pair, place: Path, number: int) -> Pair:
        out = place / "out"
        out.mkdir()
        asked = ["--version", "1"] if number % 4 < 2 else []  # without it, the version after those that are there
        export = ["export", "-q", self.folder / "bases/whole/run", out, *asked]
        ended = self._both(pair, place, [RIGHT.command(place / "spec", out / "1"), export])

        def whole(won: int) -> bool:
            if won == 0:
                return all(whose == {"right"} for whose in owners(out / "1").values())
            version = max(path.name for path in out.iterdir())
            listed = json.loads((out / version / "export.json").read_text())
            return not (out / version / "run.json").exists() and bool(listed) and (out / version / "saved_model.pb").is_file()

        self._judge(pair, ended, whole, not asked)
        pair.left = _left(out, {"1", "2"})
        return pair


def _left(folder: Path, right: set[str]) -> list[str]:
    """What stands in a folder beside what should."""
    inside = [name for path in folder.iterdir() if path.is_dir() for name in workloads.litter(path)]
    return sorted({path.name for path in folder.iterdir()} - right) + inside


def pair_rows(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """One row for each kind."""
    rows = {}
    for pair in pairs:
        row = rows.setdefault(
            pair.kind,
            {"pairs_of": pair.kind, "pairs": 0, "one_won": 0, "both_done": 0, "both_lost": 0, "mixed": 0, "hang": 0, "unclear": 0,
             "left_behind": 0},
        )  # fmt: skip
        row["pairs"] += 1
        row[pair.came.replace(" ", "_")] += 1
        row["left_behind"] += bool(pair.left)
    return list(rows.values())
