"""The folder of a study: what it asks, and its runs, each made once, gone on with, or known to have diverged."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasgreedy.errors import Diverged, WorkdirError
from kerasgreedy.files import write_atomically
from kerasgreedy.plan.preparation import Job, prepare
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.spec.load import load
from kerasgreedy.strict_json import as_json, read_json
from kerasgreedy.train.entry_points import resume_run, train_spec

STUDY = "study.json"
DIVERGED = "diverged.json"


@dataclass(frozen=True)
class StudyFolder:
    """A folder of runs that answer one question.

    Attributes:
        path: of the folder.
        say: told of each run before it begins.
        quiet: no progress of the runs.
    """

    path: Path
    say: Callable[[str], None]
    quiet: bool = False

    def claim(self, asked: dict[str, Any], same: Sequence[str]) -> dict[str, Any]:
        """Refuses a folder whose runs would not be those of the study, and gives what was noted there before.

        Args:
            asked: what the study asks, as JSON, with `kind`, `spec`, `recipe`, `overrides`; `digest` is added: SHA-256 of both
                documents as they are read.
            same: the keys that have to be as they were, beside `kind` and `digest`.

        Raises:
            WorkdirError: another study, or no study, is there.
        """
        documents = load(asked["spec"], asked["recipe"], asked["overrides"])
        text = "".join(document.value.model_dump_json() for document in documents)
        asked["digest"] = hashlib.sha256(text.encode()).hexdigest()
        if (self.path / STUDY).is_file():
            there: dict[str, Any] = {"kind": "frontier", **read_json(self.path / STUDY)}
            other = next((key for key in ("kind", *same, "digest") if there.get(key) != asked[key]), None)
            if other:
                what = "contents of spec and recipe" if other == "digest" else f"{other} {there.get(other)}"
                raise WorkdirError(f"{self.path}: holds a study with other {what}, received {asked[other]}; take another folder")
            return there
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise WorkdirError(
                f"{self.path}: is there and holds no study; allowed: a new or empty folder, or that of a study to go on with"
            )
        return {}

    def note(self, asked: dict[str, Any]) -> None:
        """Writes what the study asks."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / STUDY, as_json(asked, indent=1).encode())

    @property
    def diverged(self) -> dict[str, str]:
        """Run -> why it ended, of those that diverged."""
        if not (self.path / DIVERGED).is_file():
            return {}
        noted = read_json(self.path / DIVERGED)
        return {run: str(why) for run, why in noted.items() if (self.path / run / "run.json").is_file()}

    def train(self, name: str, spec: str, recipe: str | None, sets: Sequence[str]) -> bool:
        """`run` of a spec by a recipe; a run that went on with other settings, by hand, is not taken for it.

        Raises:
            WorkdirError: it has other settings than these.
        """
        place = self.path / name
        if (place / "run.json").is_file():
            _check_same(place, prepare(*load(spec, recipe, sets)))
        return self.run(name, lambda place: train_spec(spec, recipe, sets, place, quiet=self.quiet))

    def run(self, name: str, start: Callable[[Path], Any]) -> bool:
        """Begins a run, or goes on with it, unless it has ended.

        Args:
            name: of its folder, below that of the study.
            start: makes it, into a folder.

        Returns:
            whether it is finished; False: it diverged. It is not tried again while its folder is there.
        """
        place = self.path / name
        if (place / "results.json").is_file():
            return True
        if name in self.diverged:
            self.say(f"{name} diverged before, and is left out; without its folder it is tried again")
            return False
        self.say(name)
        try:
            resume_run(place, quiet=self.quiet) if (place / "run.json").is_file() else start(place)
        except Diverged as error:
            self.say(f"{name} diverged, and is left out: {error}")
            noted = {**self.diverged, name: str(error)}
            write_atomically(self.path / DIVERGED, as_json(noted, indent=1).encode())
            return False
        return True


def _check_same(place: Path, job: Job) -> None:
    now = [document.value.model_dump(mode="json") for document in Workdir.open(place).documents()]
    for there, wanted in zip(now, (job.spec, job.recipe), strict=True):
        found = _difference(there, wanted.model_dump(mode="json"))
        if found:
            key, *values = found
            raise WorkdirError(
                f"{place}: has {key} {values[0]}, and this study asks for {values[1]} (changed by hand?); move it elsewhere"
            )


def _difference(one: Any, other: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """The first place at which two documents differ, and what stands there."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        pairs = {name: (one[name], other[name]) for name in one}
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = {str(index): pair for index, pair in enumerate(zip(one, other, strict=True))}
    else:
        return None if one == other else (key.lstrip("."), one, other)
    return next((found for name, pair in pairs.items() if (found := _difference(*pair, f"{key}.{name}"))), None)
