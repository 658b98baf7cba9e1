"""`kerasgreedy specs`: the specs and recipes that come with the package."""

import re
from pathlib import Path
from textwrap import shorten
from typing import Annotated

import typer

from kerasgreedy.cli import output
from kerasgreedy.cli.options import Json
from kerasgreedy.errors import InputError, WorkdirError, did_you_mean
from kerasgreedy.files import user_path, write_atomically
from kerasgreedy.spec.load import shipped_files

KINDS = ("spec", "recipe")


def specs(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Print this one. Default: list all.")] = None,
    kind: Annotated[str | None, typer.Option("--kind", metavar="spec|recipe", help="Only these.")] = None,
    copy: Annotated[
        Path | None, typer.Option("--copy", metavar="FILE", help="Copy NAME to a new file, to be changed and trained.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List, print or copy the specs and recipes that come with the package."""
    if kind not in (None, *KINDS):
        raise InputError(f"--kind: received '{kind}'; allowed: {', '.join(KINDS)}{did_you_mean(str(kind), KINDS)}")
    found = [(each, stem, file) for each in KINDS if kind in (None, each) for stem, file in shipped_files(each).items()]
    if name is None:
        if copy is not None:
            raise InputError("--copy: says where NAME is copied to; give NAME")
        entries = [{"name": stem, "kind": each, "about": about(file)} for each, stem, file in found]
        if as_json:
            output.put_json({"files": entries})
            return
        output.put_table(
            ["name", "kind", "what"],
            [[entry["name"], entry["kind"], shorten(entry["about"], 70, placeholder=" ...")] for entry in entries],
        )
        output.put("`kerasgreedy specs NAME` prints one, `--copy FILE` copies it.")
        return
    file = next((file for _, stem, file in found if stem == name), None)
    if file is None:
        names = [stem for _, stem, _ in found]
        raise InputError(f"received '{name}'; no shipped spec or recipe of that name{did_you_mean(name, names)}")
    text = file.read_text(encoding="utf-8")
    if copy is None:
        output.put_json({"name": name, "text": text}) if as_json else output.put(text.rstrip("\n"))
        return
    target = user_path(copy)
    if target.is_dir():
        target /= file.name
    if target.exists():
        raise WorkdirError(f"{target}: already exists; give another name")
    if not target.parent.is_dir():
        raise WorkdirError(f"{target.parent}: no such folder")
    write_atomically(target, text.encode())
    output.put_json({"name": name, "copy": str(target)}) if as_json else output.put(f"copied to {target}")


def about(file: Path) -> str:
    """The first sentence of a file's header."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").strip())
    whole = " ".join(lines)
    end = re.search(r"(?<=[a-z0-9\)`])[.:;](?= [A-Z]| Command|$)", whole)
    return whole[: end.start()] if end else whole
