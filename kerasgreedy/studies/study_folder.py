"""The folder of a study: what it asks, and its runs, each made once, gone on with, or known to have diverged."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kerasgreedy.errors import Diverged, Stopped, WorkdirError
from kerasgreedy.files import OWN, storage_error, write_atomically
from kerasgreedy.plan.preparation import Job, prepare
from kerasgreedy.runs.holding import held, readable_faults
from kerasgreedy.runs.start_sources import start_of
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.spec.load import load
from kerasgreedy.strict_json import as_json, read_json
from kerasgreedy.train.entry_points import resume_run, train_spec
from kerasgreedy.train.signals import StopRequest

STUDY = "study.json"
DIVERGED = "diverged.json"


def job_of(spec: str, recipe: str | None, sets: Sequence[str]) -> Job:
    """What a run would be, with the run that it starts from looked at, as `train` does before it begins.

    Raises:
        KerasgreedyError: it cannot be.
    """
    job = prepare(*load(spec, recipe, sets))
    return start_of(job).check() if job.recipe.start_from else job


def same_run(noted: str | Path, run: str | Path) -> bool:
    """Whether a path that was noted is a run `<point>/<run>` of a study, wherever the folder of the study was then."""
    return Path(noted).parts[-2:] == Path(run).parts[-2:]


class StudyFolder:
    """A folder of runs that answer one question.

    Args:
        path: of the folder.
        say: told of each run before it begins.
        quiet: no progress of the runs.
    """

    def __init__(self, path: Path, say: Callable[[str], None], quiet: bool = False):
        self.path, self.say, self.quiet = path, say, quiet
        self._stop = StopRequest()

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Makes the folder where it is not there, and holds it; a signal ends the study, between two runs at the latest.

        Raises:
            WorkdirError: another process holds it, or it cannot be.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(self.path, error) from None
        with held(self.path, "runs the study in"), readable_faults(self.path), self._stop:
            yield

    def claim(self, asked: dict[str, Any], same: Sequence[str], job: Job) -> dict[str, Any]:
        """Refuses a folder whose runs would not be those of the study, and gives what was noted there before.

        Args:
            asked: what the study asks, as JSON, with `kind`; `digest` is added: SHA-256 of spec and recipe as they are read.
            same: the keys that have to be as they were, beside `kind` and `digest`.
            job: of spec and recipe without what the study changes.

        Raises:
            WorkdirError: another study, or no study, is there.
        """
        text = job.spec.model_dump_json() + job.recipe.model_dump_json()
        asked["digest"] = hashlib.sha256(text.encode()).hexdigest()
        if (self.path / STUDY).is_file():
            there: dict[str, Any] = {"kind": "frontier", **read_json(self.path / STUDY)}
            other = next((key for key in ("kind", *same, "digest") if there.get(key) != asked[key]), None)
            if other == "digest":
                documents = f"{there.get('spec')} and {there.get('recipe')}"
                message = f"holds a study of {documents} with other contents of spec and recipe"
            elif other:
                message = f"holds a study with other {other} {there.get(other)}, received {asked[other]}"
            else:
                return there
            raise WorkdirError(f"{self.path}: {message}; take another folder")
        if any(not name.name.startswith((OWN, ".lock")) for name in self.path.iterdir()):
            raise WorkdirError(
                f"{self.path}: is there and holds no study; allowed: a new or empty folder, or that of a study to go on with"
            )
        return {}

    def note(self, asked: dict[str, Any]) -> None:
        """Writes what the study asks."""
        write_atomically(self.path / STUDY, as_json(asked, indent=1).encode())

    @property
    def diverged(self) -> dict[str, str]:
        """Run -> why it ended, of those that diverged and have not ended well since."""
        if not (self.path / DIVERGED).is_file():
            return {}
        noted = {run: str(why) for run, why in read_json(self.path / DIVERGED).items()}
        return {run: why for run, why in noted.items() if self._is_there(run) and not self.is_done(run)}

    def is_done(self, name: str) -> bool:
        """Whether a run has its results."""
        return (self.path / name / "results.json").is_file()

    def _is_there(self, name: str) -> bool:
        return (self.path / name / "run.json").is_file()

    def check(self, name: str, job: Callable[[], Job]) -> None:
        """Sees to it that a run that is there is the one that its name says.

        Raises:
            WorkdirError: it went on with other settings, by hand.
        """
        if not self._is_there(name):
            return
        wanted = job()
        now = [document.value.model_dump(mode="json") for document in Workdir.open(self.path / name).documents()]
        start, noted = wanted.recipe.start_from, now[1]["start_from"]
        if start and noted and Path(start).is_relative_to(self.path.resolve()) and same_run(noted, start):
            now[1]["start_from"] = start  # the study was elsewhere
        for there, asked in zip(now, (wanted.spec, wanted.recipe), strict=True):
            found = _difference(there, asked.model_dump(mode="json"))
            if found:
                key, *values = found
                has, asks = map(as_json, values)
                message = f"{self.path / name}: has {key} {has}, and this study asks for {asks} (changed by hand?)"
                raise WorkdirError(f"{message}; move it elsewhere")

    def train(self, name: str, spec: str, recipe: str | None, sets: Sequence[str]) -> bool:
        """`run` of a spec by a recipe; one that went on with other settings, by hand, is not taken for it.

        Raises:
            WorkdirError: it has other settings than these.
        """
        self.check(name, lambda: prepare(*load(spec, recipe, sets)))
        return self.run(name, lambda place: train_spec(spec, recipe, sets, place, quiet=self.quiet))

    def run(self, name: str, start: Callable[[Path], Any]) -> bool:
        """Begins a run, or goes on with it, unless it has ended.

        Args:
            name: of its folder, below that of the study.
            start: makes it, into a folder.

        Returns:
            whether it is finished; False: it diverged. It is not tried again while its folder is there.

        Raises:
            Stopped: a signal came.
        """
        self._ends()
        if self.is_done(name):
            return True
        known = self.diverged
        if name in known:
            self.say(f"{name} diverged before, and is left out; without its folder it is tried again")
            return False
        self._note_diverged(known)  # of a run whose folder was taken away nothing is left
        self.say(name)
        try:
            resume_run(self.path / name, quiet=self.quiet) if self._is_there(name) else start(self.path / name)
        except Stopped as error:
            raise Stopped(f"{name}: {str(error).partition('; to go on')[0]}; the same command goes on") from None
        except Diverged as error:
            self.say(f"{name} diverged, and is left out: {str(error).partition('. ')[0]}")
            self._note_diverged({**known, name: str(error)})
            return False
        self._ends()
        return True

    def _note_diverged(self, runs: dict[str, str]) -> None:
        if runs or (self.path / DIVERGED).is_file():
            write_atomically(self.path / DIVERGED, as_json(runs, indent=1).encode())

    def _ends(self) -> None:
        if self._stop.name:
            raise Stopped(f"stopped by {self._stop.name} between two runs; the same command goes on")


def _difference(one: Any, other: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """The first place at which two documents differ, and what stands there."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        pairs = {name: (one[name], other[name]) for name in one}
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = {str(index): pair for index, pair in enumerate(zip(one, other, strict=True))}
    else:
        return None if one == other else (key.lstrip("."), one, other)
    return next((found for name, pair in pairs.items() if (found := _difference(*pair, f"{key}.{name}"))), None)
