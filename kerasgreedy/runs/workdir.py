"""The run folder: what was really used, what came out, and who may write to it."""

import errno
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kerasgreedy.errors import WorkdirError
from kerasgreedy.files import read_bytes, refuse_links, scratch_folder, storage_error, user_path, write_atomically
from kerasgreedy.reports.run_files import read_results
from kerasgreedy.runs.changed_settings import absolute_places, check_changes, moved_data, only_places
from kerasgreedy.runs.checkpoint import CheckpointStore
from kerasgreedy.runs.worker_folder import worker_folder
from kerasgreedy.spec.load import Document, dump, load_recipe, load_spec
from kerasgreedy.spec.model import ModelSpec
from kerasgreedy.spec.recipe import Recipe
from kerasgreedy.strict_json import as_json, parse_json, read_json

# The spec of the network as it is, where it is not that of spec.yaml any more.
PRUNED = "pruned_spec.yaml"
# The recipe as the run goes on with it, where that is not recipe.yaml any more. For people: the run itself reads run.json.
CHANGED = "changed_recipe.yaml"
# The files of the data set and what they held when the run began, see `data.contents`; bounded for two million of them.
DATA_FILES, MAX_DATA_FILES_BYTES = "data_files.json", 1_000_000_000
FIRST_FILES = ("spec.yaml", "recipe.yaml", "plan.json", "run.json")
# What else a run writes; each is what it should be, or not there.
FILES = (*FIRST_FILES, PRUNED, CHANGED, "metrics.jsonl", "results.json", "results.md", "report.html", "model.keras", DATA_FILES)
FOLDERS = ("checkpoints", "checkpoints/objects", "cache", "evaluation", "kept", "plots", "pruning", "support", "tensorboard")
# A shared file system may show a new folder to other machines late.
SIGHT_SECONDS = 60.0


class Workdir:
    """Paths and files of one run.

    `spec.yaml` and `recipe.yaml` (as really used), `run.json` (versions, seed, git state, data), `plan.json`,
    `data_files.json` (what the files of the data set held),
    `pruned_spec.yaml` and `pruning/` (where filters were removed), `support/` (where masks were stored), `metrics.jsonl`,
    `tensorboard/`, `checkpoints/`, and when training is done `results.json`, `results.md`, `plots/`,
    `model.keras`.
    """

    def __init__(self, path: str | Path):
        self.path = user_path(path)
        self._written_by: Path | None = None
        self._asked: list[str] = []

    @contextmanager
    def private_copy(self) -> Iterator["Workdir"]:
        """A folder of this process alone, for a worker that is not the chief: it reads the run's checkpoints and writes none.

        What else it writes (cached features, metrics, plots) is removed with it.

        Raises:
            WorkdirError: the chief's folder does not come into sight.
        """
        with worker_folder() as place:
            ends = time.monotonic() + SIGHT_SECONDS
            while not all((self.path / name).is_file() for name in FIRST_FILES):
                if time.monotonic() > ends:
                    raise WorkdirError(
                        f"{self.path}: this worker does not see the chief's run folder; all workers have to share it"
                    )
                time.sleep(0.1)
            for name in (*FIRST_FILES, PRUNED, "results.json"):
                if (self.path / name).is_file():
                    shutil.copy(self.path / name, place)
            copy = Workdir(place)
            copy._written_by, copy._asked = self.path, self._asked
            yield copy

    @classmethod
    def create(
        cls,
        path: str | Path,
        spec: ModelSpec,
        recipe: Recipe,
        facts: dict[str, Any],
        plan: list[Any],
        contents: str | None = None,
    ) -> "Workdir":
        """Makes a run folder; it appears with all its first files or not at all, and for one of several processes only.

        Args:
            contents: of `data_files.json`, if the data set has files.

        Raises:
            WorkdirError: the folder exists and is not empty, or cannot be written.
        """
        path = cls.free(path)
        real = path.resolve()
        texts = {"spec.yaml": dump(spec), "recipe.yaml": dump(recipe)}
        facts = {**facts, "files": {name: _sha256(text) for name, text in texts.items()}}
        if contents:
            texts |= {DATA_FILES: contents}
            facts |= {"data_files": _sha256(contents)}
        texts |= {"plan.json": as_json(plan, indent=1), "run.json": _sealed(facts)}
        try:
            if real.parent.is_file():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            with scratch_folder(real) as new:
                for name, text in texts.items():
                    write_atomically(new / name, text.encode())
                new.rename(real)  # over an empty folder, but not over what another process has put there since
        except OSError as error:
            cls.free(path)
            raise WorkdirError(f"{path}: cannot be made ({error.strerror or error})") from None
        return cls(path)

    @staticmethod
    def free(path: str | Path) -> Path:
        """A path where a run folder can be made.

        Raises:
            WorkdirError: something is there already.
        """
        path = user_path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            resume = f"; to go on with it: train --resume {path}" if (path / "run.json").is_file() else ""
            raise WorkdirError(f"{path}: already exists and is not empty; give another --workdir{resume}")
        if path.resolve() == Path.cwd():
            raise WorkdirError(f"{path}: is the current folder; give another --workdir")
        return path

    @classmethod
    def open(cls, path: str | Path, data_at: str | None = None) -> "Workdir":
        """An existing run folder.

        Args:
            data_at: where its data are now, see `moved_data`.

        Raises:
            WorkdirError: it is none.
        """
        workdir = cls(path)
        if not workdir.path.is_dir():
            raise WorkdirError(f"{workdir.path}: no such run folder")
        missing = [name for name in ("run.json", "spec.yaml", "recipe.yaml") if not (workdir.path / name).is_file()]
        if missing:
            raise WorkdirError(f"{workdir.path}: not a run folder ({missing[0]} is missing)")
        refuse_links(workdir.path)
        for names, right, what in ((FILES, Path.is_file, "a file"), (FOLDERS, Path.is_dir, "a folder")):
            odd = next(
                (workdir.path / name for name in names if (workdir.path / name).exists() and not right(workdir.path / name)), None
            )
            if odd is not None:
                raise WorkdirError(f"{odd}: should be {what}; put it back, or take it away")
        if data_at is not None:
            workdir.ask_for([moved_data(workdir.documents()[1].value.data.dataset, data_at)])
        return workdir

    def documents(self, asked: bool = True) -> tuple[Document[ModelSpec], Document[Recipe]]:
        """The spec and recipe that the run uses: those that it began with, and the changes that it went on with.

        Args:
            asked: with the changes of `ask_for` too.

        Raises:
            WorkdirError: one of them is not what the run began with; it would go on as another run.
        """
        sets = [*(text for change in self.changes() for text in change["set"]), *(self._asked if asked else [])]
        documents = load_spec(self.path / "spec.yaml"), load_recipe(self.path / "recipe.yaml", sets)
        began = self.facts().get("files")  # older folders have none
        for name in ("spec.yaml", "recipe.yaml"):
            if isinstance(began, dict) and _sha256((self.path / name).read_text()) != began.get(name):
                raise WorkdirError(
                    f"{self.path / name}: not what the run began with (its checksum differs from that in run.json); put it back, "
                    "or train a new run from it"
                )
        return documents

    def changes(self) -> list[dict[str, Any]]:
        """Settings that the run went on with: for each time `set` (texts `key.key=value`) and where it stood then."""
        changes = self.facts().get("changes", [])
        if not (isinstance(changes, list) and all(isinstance(c, dict) and _are_texts(c.get("set")) for c in changes)):
            raise WorkdirError(f"{self.path / 'run.json'}: damaged (changes: not a list of settings)")
        return changes

    def ask_for(self, sets: Sequence[str]) -> None:
        """Lets `documents` give the recipe with these changes; `record_changes` makes them part of the run.

        Raises:
            InputError: no run could go on with them.
        """
        check_changes(sets)
        self._asked = [*self._asked, *absolute_places(sets)]
        self.documents()

    @property
    def asked(self) -> bool:
        """Whether there are changes that are not part of the run yet."""
        return bool(self._asked)

    @property
    def asked_for_place(self) -> bool:
        """Whether all that was asked for is where the data are now."""
        return bool(self._asked) and only_places(self._asked)

    def record_changes(self, place: dict[str, Any]) -> None:
        """Writes down the changes that were asked for, in `run.json` alone: a kill leaves the old or the new settings."""
        if not self._asked:
            return
        facts = {key: value for key, value in self.facts().items() if key != "sha256"}
        entry = {**place, "set": self._asked, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        self.write("run.json", _sealed({**facts, "changes": [*self.changes(), entry]}))
        self._asked = []
        self.write(CHANGED, dump(self.documents()[1].value))

    @property
    def network_spec(self) -> Path:
        """The file that describes its network as it is: what the run began with, or what its actions left."""
        return self.path / (PRUNED if (self.path / PRUNED).is_file() else "spec.yaml")

    @property
    def checkpoints(self) -> CheckpointStore:
        """Its checkpoints."""
        return CheckpointStore((self._written_by or self.path) / "checkpoints", writes=self._written_by is None)

    def facts(self) -> dict[str, Any]:
        """`run.json`."""
        facts = read_json(self.path / "run.json")
        if not isinstance(facts.get("data"), dict):
            raise WorkdirError(f"{self.path / 'run.json'}: damaged (no facts of the data)")
        if "sha256" in facts and _sha256(json.dumps({k: v for k, v in facts.items() if k != "sha256"})) != facts["sha256"]:
            raise WorkdirError(f"{self.path / 'run.json'}: damaged (its checksum differs)")
        return facts

    def data_files(self) -> dict[str, list[Any]] | None:
        """`data_files.json`; None where the run has none, as older ones and those on arrays or embedded images.

        Raises:
            WorkdirError: it is not what the run began with.
        """
        path = self.path / DATA_FILES
        try:
            content = read_bytes(path, MAX_DATA_FILES_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise WorkdirError(f"{path}: damaged ({error})") from None
        began = self.facts().get("data_files")
        if began is not None and hashlib.sha256(content).hexdigest() != began:
            raise WorkdirError(f"{path}: damaged (its checksum differs from that in run.json)")
        try:
            found = parse_json(content)
            if not all(len(stamp) == 5 for stamp in found.values()):
                raise ValueError("allowed: five facts of each file")
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise WorkdirError(f"{path}: damaged ({error})") from None
        return dict(found)

    def results(self) -> dict[str, Any] | None:
        """`results.json`, or None while the run is not done."""
        return read_results(self.path) if (self.path / "results.json").is_file() else None

    def write(self, name: str, content: str) -> None:
        """Writes a file of the folder atomically.

        Raises:
            WorkdirError: the disk is full or cannot be written.
        """
        try:
            write_atomically(self.path / name, content.encode())
        except OSError as error:
            raise storage_error(self.path / name, error) from None

    def keep(self, files: Mapping[str, bytes]) -> None:
        """Writes files, named by their paths below the folder, that a stage leaves."""
        for name, content in files.items():
            path = self.path / name
            path.parent.mkdir(exist_ok=True)
            try:
                write_atomically(path, content)
            except OSError as error:
                raise storage_error(path, error) from None

    def keep_plan(self, spec: ModelSpec, plan: list[Any]) -> None:
        """Writes the spec of a network that changed, and what the plan is now."""
        self.write(PRUNED, dump(spec))
        self.write("plan.json", as_json(plan, indent=1))


def _sealed(facts: dict[str, Any]) -> str:
    """Facts as the text of `run.json`, with their own checksum."""
    return as_json({**facts, "sha256": _sha256(as_json(facts))}, indent=1)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def default_workdir(spec: str, recipe: str) -> Path:
    """`runs/<spec>-<recipe>-<time>-<chance>`: two runs that begin in the same second have two names."""
    return Path("runs") / f"{spec}-{recipe}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
