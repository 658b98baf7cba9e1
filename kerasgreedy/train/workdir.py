"""The run folder: what was really used, what came out, and who may write to it."""

import errno
import fcntl
import hashlib
import importlib.metadata
import json
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kerasgreedy.errors import WorkdirError
from kerasgreedy.files import parse_json, read_bytes, read_json, refuse_links, storage_error, user_path, write_atomically
from kerasgreedy.reports.records import read_results
from kerasgreedy.spec.load import Document, dump, load_recipe, load_spec
from kerasgreedy.spec.model import ModelSpec
from kerasgreedy.spec.recipe import Recipe
from kerasgreedy.train.checkpoint import CheckpointStore
from kerasgreedy.train.worker_folder import worker_folder

# The spec of the network as it is, where it is not that of spec.yaml any more.
PRUNED = "pruned_spec.yaml"
# The files of the data set and what they held when the run began, see `data.contents`; bounded for two million of them.
DATA_FILES, MAX_DATA_FILES_BYTES = "data_files.json", 1_000_000_000
FIRST_FILES = ("spec.yaml", "recipe.yaml", "plan.json", "run.json")
# A shared file system may show a new folder to other machines late.
SIGHT_SECONDS = 60.0
PACKAGES = ("kerasgreedy", "tensorflow", "keras", "numpy", "tensorflow-datasets")


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
            copy._written_by = self.path
            yield copy

    @classmethod
    def create(cls, path: str | Path, spec: ModelSpec, recipe: Recipe, facts: dict[str, Any], plan: list[Any]) -> "Workdir":
        """Makes a run folder; it appears with all its first files or not at all.

        Raises:
            WorkdirError: the folder exists and is not empty, or cannot be written.
        """
        path = cls.free(path)
        real = path.resolve()
        beside = real.with_name(f".{real.name}.new")
        try:
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
            texts = {"spec.yaml": dump(spec), "recipe.yaml": dump(recipe)}
            facts = {**facts, "files": {name: _sha256(text) for name, text in texts.items()}}
            texts |= {"plan.json": json.dumps(plan, indent=1)}
            texts |= {"run.json": json.dumps({**facts, "sha256": _sha256(json.dumps(facts))}, indent=1)}
            for name, text in texts.items():
                write_atomically(beside / name, text.encode())
            beside.replace(real)
        except OSError as error:
            shutil.rmtree(beside, ignore_errors=True)
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
    def open(cls, path: str | Path) -> "Workdir":
        """An existing run folder.

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
        return workdir

    def documents(self) -> tuple[Document[ModelSpec], Document[Recipe]]:
        """The spec and recipe that the run used.

        Raises:
            WorkdirError: one of them is not what the run began with; it would go on as another run.
        """
        documents = load_spec(self.path / "spec.yaml"), load_recipe(self.path / "recipe.yaml")
        began = self.facts().get("files")  # older folders have none
        for name in ("spec.yaml", "recipe.yaml"):
            if isinstance(began, dict) and _sha256((self.path / name).read_text()) != began.get(name):
                raise WorkdirError(
                    f"{self.path / name}: not what the run began with (its checksum differs from that in run.json); put it back, "
                    "or train a new run from it"
                )
        return documents

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

    def keep_details(self, details: dict[str, str]) -> None:
        """Writes files about a change of the network."""
        for name, content in details.items():
            (self.path / "pruning").mkdir(exist_ok=True)
            self.write(f"pruning/{name}", content)

    def support(self, phase: int) -> Path:
        """The file of the weights that a phase's last stored masks were estimated with."""
        return self.path / "support" / f"phase_{phase + 1}.npz"

    def keep_support(self, phase: int, content: bytes) -> None:
        """Writes that file."""
        self.support(phase).parent.mkdir(exist_ok=True)
        try:
            write_atomically(self.support(phase), content)
        except OSError as error:
            raise storage_error(self.support(phase), error) from None

    def keep_spec(self, spec: ModelSpec) -> None:
        """Writes the spec of a network that changed."""
        self.write(PRUNED, dump(spec))

    @contextmanager
    def readable_faults(self) -> Iterator[None]:
        """Turns a full disk or exhausted memory, wherever it shows, into an error that says what to do."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise storage_error(self.path, error) from None
            raise
        except MemoryError:
            raise self._out_of_memory() from None
        except Exception as error:
            # TensorFlow's own writers and allocators; named by class so that this module stays free of TensorFlow.
            text = str(error)
            if "No space left on device" in text:
                raise storage_error(self.path, OSError(errno.ENOSPC, "No space left on device")) from None
            if type(error).__name__ == "ResourceExhaustedError":
                raise self._out_of_memory() from None
            raise

    def _out_of_memory(self) -> WorkdirError:
        return WorkdirError(
            f"out of memory; what was saved before is whole in {self.path}. A smaller training.batch_size, data.image_size or "
            "narrower blocks need less"
        )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Holds the folder, so that no second process trains in it.

        Raises:
            WorkdirError: another process holds it.
        """
        try:
            lock = open(self.path / ".lock", "w")  # noqa: SIM115 (closed below)
        except OSError as error:
            raise storage_error(self.path, error) from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise WorkdirError(f"{self.path}: another process is training in this folder") from None
            for place in (".", "pruning", "support"):  # those of checkpoints and cache go with the next checkpoint and phase
                for path in (self.path / place).glob("*.tmp"):  # of a write that was killed
                    path.unlink(missing_ok=True)
            yield


def default_workdir(spec: str, recipe: str) -> Path:
    """`runs/<spec>-<recipe>-<time>`."""
    return Path("runs") / f"{spec}-{recipe}-{time.strftime('%Y%m%d-%H%M%S')}"


def environment() -> dict[str, Any]:
    """Versions, machine and git state, for `run.json`."""
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "platform": platform.platform(),
        "command": sys.argv,
        "git": _git_state(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any] | None:
    """Commit and cleanness of the checkout in the current folder; None outside one.

    No program that the checkout's own settings name is run; where they name a filter, whether it is clean cannot be told (None).
    """

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        own = git("config", "--local", "--includes", "--name-only", "--list").lower().splitlines()
        if any(key.startswith(("filter.", "extensions.worktreeconfig")) for key in own):
            return {"commit": commit, "clean": None}
        changed = git("status", "--porcelain", "--untracked-files=no", "--ignore-submodules=dirty")  # those have settings too
        return {"commit": commit, "clean": not changed}
    except (OSError, subprocess.SubprocessError):
        return None
