"""Whether the files of an exported version are those that were written: TensorFlow takes a changed constant without a word."""

import hashlib
from pathlib import Path
from typing import Any

from kerasgreedy.errors import WorkdirError
from kerasgreedy.strict_json import read_json

FACTS = "export.json"


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
