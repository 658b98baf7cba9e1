"""Reads what a run wrote."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasgreedy.errors import WorkdirError


@dataclass(frozen=True)
class RunRecord:
    """The files of one run.

    Attributes:
        path: the run folder.
        results: `results.json`.
        metrics: records of `metrics.jsonl` in order.
    """

    path: Path
    results: dict[str, Any]
    metrics: list[dict[str, Any]]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a `metrics.jsonl`; a last line that was cut off by a kill is left out."""
    try:
        lines = (path / "metrics.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            if number < len(lines):
                raise WorkdirError(f"{path / 'metrics.jsonl'}:{number}: damaged ({error})") from None
    return records


def read_run(path: str | Path) -> RunRecord:
    """The files of a finished run.

    Raises:
        WorkdirError: no run folder, not finished, or damaged.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        raise WorkdirError(f"{path}: no such run folder")
    if not (path / "results.json").is_file():
        unfinished = (path / "run.json").is_file()
        hint = f"the run is not finished; train --resume {path}" if unfinished else "not a run folder"
        raise WorkdirError(f"{path}: no results.json ({hint})")
    try:
        results = json.loads((path / "results.json").read_text())
        results["depths"], results["ensemble"]["top1"]
    except (ValueError, KeyError, TypeError) as error:
        raise WorkdirError(f"{path / 'results.json'}: damaged ({error})") from None
    return RunRecord(path, results, read_metrics(path))
