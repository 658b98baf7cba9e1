"""Reads the code blocks of README.md and docs/, and runs them at small sizes.

A page is run by the test `test_page_<name>`, which takes its blocks in the order of the page: each is run, or stands in `NOT_RUN`
with the reason. A block that is left over, new, or in another place fails the test of its page. Commands run in this process, in
a scratch folder of the page; sizes shrink by `--set` behind what the page says, so that its own settings are read and checked
against the documents that they are for; runs of the same command line are trained once for all pages.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from stand_ins import BLOCKS, WIDTH, small_sets, stand_in_copy

from kerasgreedy.cli import main as cli
from kerasgreedy.cli.own_data import with_data
from kerasgreedy.network import latency
from kerasgreedy.reports import plots
from kerasgreedy.runs.workdir import default_workdir
from kerasgreedy.spec.load import load
from kerasgreedy.train import results

ROOT = Path(__file__).resolve().parent.parent
PAGES = {path.stem.lower(): path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
# (page, first words) -> why no test runs the block.
NOT_RUN = {
    ("README.md", "python3 -m venv .venv && .venv/bin/pip install --quiet . &&"): "installs; .ci/run runs it as it stands",
    ("README.md", "python3 -m venv .venv && .venv/bin/pip install --quiet '.[test]' &&"): "the same",
    ("performance.md", "python -m benchmarks.throughput --check"): "PyTorch; tests/test_benchmarks.py does it where that is",
    ("performance.md", "python -m benchmarks.throughput --spec"): "PyTorch; options are read",
    ("performance.md", "python -m benchmarks.convex --check"): "the same; options are read",
    ("performance.md", "python -m benchmarks.landscape --json"): "PyTorch; tests/test_benchmarks.py does it where that is",
    ("performance.md", "python -m benchmarks.memory --spec"): "PyTorch; options are read",
    ("performance.md", "python -m benchmarks.depth --k 1"): "peaks of fresh processes, minutes; options are read",
    ("performance.md", "python -m benchmarks.end_to_accuracy --data"): "PyTorch; options are read",
    ("performance.md", "python -m benchmarks.whole_runs --data"): "PyTorch; options are read",
    ("performance.md", "python -m benchmarks.parity --data"): "PyTorch, hours; options are read",
}  # fmt: skip
# Commands that make a folder -> the parameter that names it.
OUTPUTS = {"train": "workdir", "prune": "out", "threshold": "out", "finish": "out", "export": "out"}


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: name of the file.
        line: of the opening fence, from 1.
        word: behind the opening fence, such as `python`.
    """

    page: str
    line: int
    word: str
    text: str

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.page}:{self.line} ({self.text.splitlines()[0][:60]})"


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text()
    return [
        Block(page.name, text.count("\n", 0, found.start()) + 1, found[1], found[2])
        for found in re.finditer(r"^```(.*)\n((?:.*\n)*?)^```$", text, re.M)
    ]


def command_lines(text: str) -> list[str]:
    """The commands of a block; one may go on in the next line."""
    return [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def all_commands(group: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """`train` -> command, and `data list` -> command of a group."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from all_commands(command, (*before, name))
        else:
            yield " ".join((*before, name)), command


COMMANDS = dict(all_commands(typer.main.get_command(cli.app)))


@dataclass(frozen=True)
class Answer:
    """What a command did."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The object on the last line of standard output."""
        assert self.out, self.err
        return json.loads(self.out.splitlines()[-1])

    @property
    def flat(self) -> str:
        """Standard output with single spaces."""
        return " ".join(self.out.split())


@dataclass
class Page:
    """A page whose blocks are taken one after the other.

    Attributes:
        folder: the scratch folder, which is the current one.
        names: what Python blocks share.
        shared: folders that commands of all pages have made.
        origin: a folder that a command made -> the command.
        most: blocks of a network that is made narrow.
    """

    path: Path
    folder: Path
    capture: Any
    patch: pytest.MonkeyPatch
    shared: "Shared"
    names: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    most: int = BLOCKS

    def __post_init__(self) -> None:
        self.left = blocks_of(self.path)
        self.text = self.path.read_text()

    def take(self, start: str, word: str | None = None) -> Block:
        """The next block, which begins so."""
        assert self.left, f"{self.path.name} has no more blocks; expected: {start}"
        block = self.left.pop(0)
        assert block.text.startswith(start), f"{block.name} is not the block that is expected here: {start}"
        assert word is None or block.word == word, f"{block.name} is {block.word!r} and not {word!r}"
        return block

    def not_run(self, start: str) -> Block:
        """The next block, which stands in `NOT_RUN`."""
        block = self.take(start)
        assert any(name == block.page and block.text.startswith(words) for name, words in NOT_RUN), f"{block.name} is not listed"
        return block

    def says(self, *texts: str) -> None:
        """The page says so, line breaks aside; what an assertion beside it checks."""
        flat = " ".join(self.text.split())
        for text in texts:
            assert " ".join(text.split()) in flat, f"{self.path.name} says no more: {text}"

    def section(self, title: str) -> str:
        """The text below a title, up to the next title of any level."""
        found = re.search(rf"^{re.escape(title)}\n(.*?)(?=^#+ |\Z)", self.text, re.M | re.S)
        assert found, f"{self.path.name} has no title {title}"
        return found[1]

    def yaml(self, start: str) -> Any:
        """The documents of a YAML block: what it holds."""
        return yaml.safe_load(self.take(start, "yaml").text)

    def run(self, *words: str) -> Answer:
        """A command line in this process."""
        self.patch.setattr(sys, "argv", list(words))
        self.capture.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = self.capture.readouterr()
        assert "Traceback" not in err and code != 1, err
        return Answer(words, code, out, err)

    def python(self, start: str, width: int | None = WIDTH, **names: Any) -> dict[str, Any]:
        """Runs a Python block with what the ones before it left; `train_spec` and `prune_run` are shrunk."""
        block = self.take(start)
        assert block.word in ("python", ""), block.name
        self.names.update(names)
        with self.patch.context() as patch:
            self._shrink_python(patch, width)
            exec(compile(block.text, block.name, "exec"), self.names)
        return self.names

    def _shrink_python(self, patch: pytest.MonkeyPatch, width: int | None) -> None:
        import kerasgreedy as kg
        from kerasgreedy.train import entry_points as run
        from kerasgreedy.train import prune_run as pruning

        def train_spec(spec, recipe=None, overrides=(), data=None, **more):
            small = small_sets(spec, recipe, overrides, width, data is None, self.most)
            return run.train_spec(spec, recipe, [*overrides, *small], data=data, quiet=True, **more)

        def prune_run(workdir, epochs=3, **more):
            return pruning.prune_run(workdir, epochs=min(epochs, 1), quiet=True, **more)

        patch.setattr(kg, "train_spec", train_spec, raising=False)
        patch.setattr(kg, "prune_run", prune_run, raising=False)

    def commands(self, start: str, more: dict[int, Sequence[str]] | None = None, width: int | None = WIDTH) -> list[Answer]:
        """Runs every command of the next block; each ends with 0.

        Args:
            more: number of a command, from 0 -> words behind what the page says.
            width: see `small_sets`.
        """
        lines = command_lines(self.take(start).text)
        return [self.command(line, (more or {}).get(number, ()), width) for number, line in enumerate(lines)]

    def command(self, line: str, more: Sequence[str] = (), width: int | None = WIDTH) -> Answer:
        """Runs one command as the page has it, shrunk."""
        words = shlex.split(line, comments=True)
        assert words[0] == "kerasgreedy", line
        words, target = (words[:-2], words[-1]) if words[-2] == ">" else (words, None)
        words = [found for word in words for found in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]
        answer = self._made(words, more, width) if words[1] in OUTPUTS else self.run(*words, *more)
        assert answer.code == 0, f"{shlex.join(answer.words)}\n{answer.err}"
        if target:
            Path(target).write_text(answer.out)
        return answer

    def _made(self, words: list[str], more: Sequence[str], width: int | None) -> Answer:
        """A command that makes a folder; where another page had the same of the same run, its folder is copied."""
        read = COMMANDS[words[1]].make_context
        if read(words[1], words[2:]).params.get("resume"):
            return self.run(*words, *more)
        if words[1] == "train":
            given = read("train", words[2:]).params
            recipe, sets, _ = with_data(given["data_at"], given["recipe"], given["sets"] or [])
            small = small_sets(given["spec"], recipe, sets, width, most=self.most)
            words += [part for text in small for part in ("--set", text)]
        words += more
        given, names = read(words[1], words[2:]).params, []
        out, source = given.pop(OUTPUTS[words[1]]), given.pop("workdir", None)
        if words[1] == "train":  # by what they come to, however the page says it
            recipe, sets, _ = with_data(given.pop("data_at"), given.pop("recipe"), given.pop("sets") or [])
            documents = load(given.pop("spec"), recipe, sets)
            names = [document.value.name for document in documents]
            given["documents"] = [document.value.model_dump_json() for document in documents]
            if "folder:" in given["documents"][1]:  # of this page
                given["folder"] = self.folder
        key = repr((words[1], self.origin.get(str(source)), sorted(given.items(), key=str)))
        with self.shared.kept(key) as kept:
            place = out or (Path(f"{source}-pruned") if source else None)
            if kept.exists() and not (place and place.exists()):
                answer = Answer(**json.loads((kept / "answer.json").read_text()))
                place = place or default_workdir(*names)
                shutil.copytree(kept / "folder", place)
            else:
                before = set(Path("runs").glob("*"))
                answer = self.run(*words)
                if answer.code:
                    return answer
                place = place or (set(Path("runs").glob("*")) - before).pop()
                if not kept.exists():
                    shutil.copytree(place, kept / "folder")
                    (kept / "answer.json").write_text(json.dumps(vars(answer)))
        self.origin[str(place)] = key
        return answer

    def copy_of_cifar10(self) -> None:
        """A prepared TFDS copy of the name `cifar10`, with few images, where TFDS keeps them."""
        with self.shared.kept("tfds") as folder:
            if not folder.exists():
                stand_in_copy(folder, "cifar10")
        self.patch.setenv("TFDS_DATA_DIR", str(folder))


@dataclass(frozen=True)
class Shared:
    """A folder for what all pages use, in every process of the tests."""

    folder: Path

    @contextlib.contextmanager
    def kept(self, key: str) -> Iterator[Path]:
        """The place of what has this key; nobody else makes it meanwhile."""
        place = self.folder / hashlib.sha256(key.encode()).hexdigest()[:16]
        with place.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield place


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """One folder for all processes of pytest-xdist, whose own folders lie in a common one."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "documents"
    folder.mkdir(exist_ok=True)
    return Shared(folder)


@pytest.fixture
def page(request, tmp_path, monkeypatch, capsys, shared):
    """The page that the test is named after, in a scratch folder; every block has to be taken."""
    path = PAGES[request.function.__name__.removeprefix("test_page_")]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tensorflow_datasets"))
    current = Page(path, tmp_path, capsys, monkeypatch, shared)
    monkeypatch.setattr(latency, "ROUNDS", 6)
    monkeypatch.setattr(latency, "SAMPLE_SECONDS", 0.002)
    monkeypatch.setattr(results, "plot_run", plots.plot_run)  # not the blank ones of other tests
    failed = request.session.testsfailed
    yield current
    if request.session.testsfailed == failed:
        assert not current.left, f"not run and not listed: {', '.join(block.name for block in current.left)}"
