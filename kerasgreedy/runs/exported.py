"""The folder of an exported version: which one is meant, its card, and whether its files are those that were written.

TensorFlow takes a changed constant without a word. Imports no TensorFlow.
"""

import hashlib
from pathlib import Path
from typing import Any

from kerasgreedy.errors import WorkdirError
from kerasgreedy.files import user_path
from kerasgreedy.strict_json import read_json

FACTS, CARD = "export.json", "model_card.json"


def version_at(place: str | Path) -> Path:
    """A version, or the newest of a folder of versions.

    Raises:
        WorkdirError: there is none, or it was not written by `export`.
    """
    path = user_path(place)
    if not path.is_dir():
        raise WorkdirError(f"{path}: no such folder")
    if not is_version(path):
        versions = [each for each in path.iterdir() if each.name.isdecimal() and is_version(each)]
        if not versions:
            raise WorkdirError(f"{path}: is no run folder, and holds no exported version")
        path = max(versions, key=lambda each: int(each.name))
    if not (path / "assets" / CARD).is_file():
        raise WorkdirError(f"{path}: not written by kerasgreedy export (assets/{CARD} is missing)")
    return path


def is_version(path: Path) -> bool:
    """Whether a folder is one, even if its model is lost: an older version must not answer in its place without a word."""
    return any((path / name).is_file() for name in ("saved_model.pb", FACTS))


def read_card(version: Path) -> dict[str, Any]:
    """The card of an exported version.

    Raises:
        WorkdirError: it is damaged.
    """
    return read_json(version / "assets" / CARD)


def features_depth(version: Path, blocks: int) -> int:
    """The block whose features a version of a network of so many blocks gives.

    Raises:
        WorkdirError: its card does not say.
    """
    depth = read_card(version).get("features_depth")
    if not isinstance(depth, int) or not 1 <= depth <= blocks:
        raise WorkdirError(f"{version / 'assets' / CARD}: damaged (features_depth: {depth!r})")
    return depth


def checksums(version: Path) -> dict[str, str]:
    """File below a version -> SHA-256, of all that are there."""
    return {str(path.relative_to(version)): _sha256(path) for path in sorted(version.rglob("*")) if path.is_file()}


def check_files(version: Path) -> None:
    """Refuses a version whose files are not those that were written; one without checksums passes.

    Raises:
        WorkdirError: a file is missing or damaged.
    """
    there = FACTS in {path.name for path in version.iterdir()}  # as a folder, a pipe or a broken link too
    facts: dict[str, Any] = read_json(version / FACTS) if there else {}
    written = facts.get("files", {})
    if not isinstance(written, dict):
        raise WorkdirError(f"{version / FACTS}: damaged (files: not a mapping)")
    present = checksums(version)
    for name, digest in written.items():
        if name not in present:
            raise WorkdirError(f"{version / name}: is missing; it was written by kerasgreedy export")
        if present[name] != digest:
            raise WorkdirError(f"{version / name}: damaged (its checksum differs)")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
