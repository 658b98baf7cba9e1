"""Commands run in this process, in a scratch folder; what an error has to say."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from kerasgreedy.cli import main as cli

SPEC = "name: s\nblocks: [{conv: 2}, {conv: 2}]\n"


RECIPE = "name: r\ndata: {dataset: digits, validation: 0}\ntraining: {epochs: 1, batch_size: 4}\n"


Files = dict[str, str | bytes | None]  # path -> content; None makes a folder


class Case(NamedTuple):
    id: str
    command: str
    expected: tuple[str, ...]  # parts of the message, see `spelled`
    files: Files = {}

    def write_files(self) -> None:
        """Into the current folder."""
        for name, content in self.files.items():
            path = Path(name)
            (path if content is None else path.parent).mkdir(parents=True, exist_ok=True)
            if content is not None:
                path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test works in a folder of its own that holds a good spec and a good recipe."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "no_tfds"))
    Path("s.yaml").write_text(SPEC)
    Path("r.yaml").write_text(RECIPE)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str], tuple[int, str, str]]:
    """Runs the command line in this process: exit code, standard output, standard error."""

    def run(command: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kerasgreedy", *shlex.split(command)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return (ended.value.code or 0, *capsys.readouterr())

    return run


def spelled(part: str) -> str:
    """A part of a message in full: `?name` is a hint, `:5:2` a place in x.yaml."""
    return f"did you mean '{part[1:]}'?" if part[0] == "?" else f"x.yaml{part}" if part[0] == ":" else part


def assert_clear(code: int, out: str, err: str, expected: tuple[str, ...]) -> None:
    assert not [bad for bad in ("Traceback", "fault of the program") if bad in err], err
    assert (code, out) == (2, ""), err
    assert sum(line.lower().startswith("error: ") for line in err.splitlines()) == 1, err
    missing = [part for part in map(spelled, expected) if part not in err]
    assert not missing, f"{missing} not in: {err}"


def run_cli(monkeypatch, capsys, *arguments):
    """(exit code, standard output, standard error) of a command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["kerasgreedy", *map(str, arguments)])
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = end.code or 0
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def command(monkeypatch, capsys):
    return lambda *arguments: run_cli(monkeypatch, capsys, *arguments)
