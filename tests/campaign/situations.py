"""Situations from outside: one command in a folder of its own, and what it may come to."""

import json
import math
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from . import workloads
from .faults import Fault
from .kills import Campaign
from .nursery import Around, Ended, Nursery
from .workloads import Workload

LIMIT = 60.0  # seconds; the machine may be busy with other things: what only begins counts, see `_judged`
GOOD, BAD = ("right", "clear error"), ("unclear", "half-made", "crash", "silent", "lost", "hang")
RAW = re.compile("[\x1b\u202e]")

DATA = "{dataset: digits, train_examples: 40, test_examples: 16, validation: 8}"
SMALL = Workload(
    "small",
    "name: small\nblocks: [{conv: 3}, {conv: 4, downsample: max}]\nauxiliary_head: {pool_to: 2}\n",
    f"name: short\ndata: {DATA}\ntraining: {{epochs: 1, batch_size: 16, optimizer: {{name: sgd, learning_rate: 0.05}}}}\n",
)
TRAIN = ("train", "-q", "spec.yaml", "-r", "recipe.yaml", "-w", "new")
RESUME = ("train", "-q", "--resume", "stopped")


@dataclass
class Situation:
    """A command, and what it may come to.

    Attributes:
        group: the row of the table.
        what: names it within its group.
        command: what follows `kerasgreedy`, in a folder with `spec.yaml`, `recipe.yaml` and what it needs.
        says: pattern of the one error; empty: it must go right.
        either: going right is allowed beside the error.
        needs: names of `Bases`.
        before: is done in the folder first.
        check: what is wrong with a result that went right, or empty.
        after: commands that must go right once this one has ended without going right.
        absent: what must not be there after an error.
    """

    group: str
    what: str
    command: Sequence[Any]
    says: str = ""
    either: bool = False
    needs: Sequence[str] = ()
    before: Callable[[Path], Any] | None = None
    check: Callable[[Path, Ended], str] | None = None
    after: Sequence[Sequence[Any]] = ()
    absent: Sequence[str] = ("new",)
    around: Around = field(default_factory=Around)


@dataclass
class Tried:
    """A situation and what came of it: one of `GOOD` or `BAD`."""

    group: str
    what: str
    came: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.group}, {self.what}: {self.came} ({self.why.strip()})"


class Bases:
    """What situations begin with, made once."""

    def __init__(self, campaign: Campaign, folder: Path):
        self.campaign, self.folder = campaign, folder
        folder.mkdir()

    def make(self) -> None:
        """`run` (finished), `stopped`, `out` (an export), and stopped runs on data of each kind of file."""
        from . import outside_data

        place = self.folder / "plain"
        SMALL.command(place, place)
        outside_data.write(place)

        def make(nursery: Nursery, task: tuple[Sequence[str], int]) -> None:
            command, step = task
            fault = asdict(Fault("step/after", step, "SIGTERM")) if step else None
            ended = nursery.run(command, fault, around=Around(folder=str(place)))
            if ended.code != (3 if step else 0):
                raise RuntimeError(f"{' '.join(command)} ended with {ended.code}: {ended.err}")

        begin = ("train", "-q", "spec.yaml", "-r")
        stopped: list[tuple[Sequence[str], int]] = [
            ((*begin, f"{kind}.yaml", "-w", f"stopped_{kind}"), 1) for kind in outside_data.KINDS
        ]
        self.campaign.each(make, [((*begin, "recipe.yaml", "-w", "run"), 0), *stopped])
        self.campaign.each(make, [(("export", "-q", "run", "out"), 0), ((*begin, "recipe.yaml", "-w", "stopped"), 3)])
        shutil.copytree(place / "run", place / "huge")
        outside_data.make_huge(place / "huge")

    def copy(self, place: Path, needs: Sequence[str]) -> None:
        """Copies what a situation needs."""
        from . import outside_data

        place.mkdir()
        for name in ("spec.yaml", "recipe.yaml", *needs):
            source = self.folder / "plain" / name
            shutil.copytree(source, place / name) if source.is_dir() else shutil.copy(source, place / name)
            if name.startswith("stopped_"):
                outside_data.move(place / name, self.folder / "plain", place)


class Outside:
    """All situations.

    Args:
        campaign: two of its warm processes are used.
        groups: only those whose name begins with one of these.
    """

    def __init__(self, campaign: Campaign, groups: Sequence[str] = ("",)):
        self.campaign, self.folder, self.groups = campaign, campaign.folder / "outside", tuple(groups)
        self.folder.mkdir()

    def run(self) -> list[Tried]:
        """Each of them."""
        from .outside import situations

        bases = Bases(self.campaign, self.folder / "bases")
        bases.make()
        chosen = [each for each in situations() if each.group.startswith(self.groups)]
        done = 0

        def one(nursery: Nursery, task: tuple[int, Situation]) -> Tried:
            nonlocal done
            number, situation = task
            place = self.folder / str(number)
            bases.copy(place, situation.needs)
            try:
                tried = self._one(nursery, situation, place)
            finally:
                shutil.rmtree(place, ignore_errors=True)
            done += 1
            if tried.came in BAD or done % 25 == 0:
                self.campaign.say(f"{done} of {len(chosen)} situations{f': {tried}' if tried.came in BAD else ''}")
            return tried

        return self.campaign.each(one, list(enumerate(chosen)))

    def _one(self, nursery: Nursery, situation: Situation, place: Path) -> Tried:
        if situation.before:
            situation.before(place)
        around = replace(situation.around, folder=str(place), limit=4 * LIMIT)
        ended = nursery.run(situation.command, around=around)
        came, why = _judged(situation, ended, place)
        if ended.code and came in GOOD:
            for command in situation.after:
                then = nursery.run(command, around=Around(folder=str(place), limit=4 * LIMIT))
                if then.code:
                    came, why = "lost", f"{' '.join(map(str, command))} ended with {then.code}: {then.err}; before: {ended.err}"
                    break
        return Tried(situation.group, situation.what, came, why)


def _judged(situation: Situation, ended: Ended, place: Path) -> tuple[str, str]:
    said = f"{ended.code}: {ended.err[-600:]}"
    # On a busy machine the clock says little: what waits spends no processor time.
    if ended.code == -9 and ended.seconds > LIMIT:
        return "hang", said
    if "Traceback" in ended.err or "fault of the program" in ended.err or ended.code not in (0, 2, 3, 4):
        return "crash", said
    if RAW.search(ended.out + ended.err):
        return "silent", f"a terminal would obey {RAW.findall(ended.out + ended.err)}: {said}"
    if ended.code == 0:
        wrong = situation.check(place, ended) if situation.check else ""
        if wrong:
            return "silent", f"{wrong} {said}"
        return ("silent", f"was to be refused {said}") if situation.says and not situation.either else ("right", "")
    mute = 2 in (*situation.around.closed, *situation.around.full)
    errors = re.findall(r"(?mi)^error: ", ended.err)
    if not situation.says or not (mute or (len(errors) == 1 and re.search(situation.says, ended.err))):
        return "unclear", said
    left = [name for name in situation.absent if (place / name).exists()]
    left += [str(path.relative_to(place)) for path in place.rglob("*") if _is_scratch(path)]
    return ("half-made", f"{', '.join(left)} {said}") if left else ("clear error", said)


def _is_scratch(path: Path) -> bool:
    return path.name.startswith(".kerasgreedy-") or (path.name.endswith((".new", ".tmp")) and path.is_file())


def finite(name: str) -> Callable[[Path, Ended], str]:
    """A check: a JSON file holds finite numbers only."""

    def check(place: Path, _: Ended) -> str:
        return _not_finite(json.loads((place / name).read_text()))

    return check


def said_json(_: Path, ended: Ended) -> str:
    """A check: standard output ends with a JSON object of finite numbers."""
    try:
        return _not_finite(json.loads(ended.out.strip().splitlines()[-1]))
    except (ValueError, IndexError) as error:
        return f"no JSON: {error}"


def there(*names: str) -> Callable[[Path, Ended], str]:
    """A check: these are there, and not empty."""

    def check(place: Path, _: Ended) -> str:
        missing = [name for name in names if not (place / name).exists() or not (place / name).stat().st_size]
        return f"missing: {', '.join(missing)}" if missing else ""

    return check


def not_there(*names: str) -> Callable[[Path, Ended], str]:
    """A check: these are not there."""
    return lambda place, _: ", ".join(f"{name} is there" for name in names if (place / name).exists())


def _not_finite(value: Any) -> str:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if isinstance(value, float) and not math.isfinite(value):
        return f"a figure is {value}"
    return next(filter(None, map(_not_finite, parts)), "")


def situation_rows(tried: Sequence[Tried]) -> list[dict[str, Any]]:
    """One row for each group."""
    rows: dict[str, Counter[str]] = {}
    for each in tried:
        rows.setdefault(each.group, Counter())[each.came] += 1
    return [
        {"group": group, "tried": came.total(), **{name.replace(" ", "_"): came[name] for name in (*GOOD, *BAD)}}
        for group, came in rows.items()
    ]


def same_files(one: Path, other: Path) -> bool:
    """Whether two folders hold the same."""
    return workloads.tree(one) == workloads.tree(other)
