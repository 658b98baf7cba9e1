"""Reads what a run wrote."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasgreedy.errors import WorkdirError
from kerasgreedy.files import read_bytes, refuse_links, user_path
from kerasgreedy.reports.costs import RATIO_KEYS, SIDE_KEYS, TIME_KEYS
from kerasgreedy.strict_json import parse_json, read_json

MAX_METRICS_BYTES = 256_000_000
# What the deepest head answers on a part of the data, see `train.details`; below `evaluation/<part>/`.
DETAILS = "details.json"
SCORE_KEYS = ("top1", "top5", "loss")
# The split of records that say only where support masks were estimated; they have no head and no scores.
REFRESH = "refresh"
NUMBER = (int, float)
RECORD_KEYS: dict[str, type | tuple[type, ...]] = {
    "phase": int, "phase_name": str, "epoch": int, "split": str, "head": str, "loss": NUMBER, "accuracy": NUMBER, "step": int,
}  # fmt: skip
NUMBERS = ("top5", "learning_rate", "images_per_second", "time", "elapsed_seconds", "peak_memory_bytes")
RESULT_KEYS: dict[str, type | tuple[type, ...]] = {
    "spec": str, "recipe": str, "strategy": str, "dataset": str, "seed": int, "depths": list, "ensemble": dict, "examples": int,
    "parameters": int, "multiply_adds": int, "phases": list, "epochs": int, "training_seconds": NUMBER,
}  # fmt: skip


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
        lines = read_bytes(path / "metrics.jsonl", MAX_METRICS_BYTES).decode().splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise WorkdirError(f"{path / 'metrics.jsonl'}: damaged ({error})") from None
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(_record(line))
        except (ValueError, RecursionError) as error:
            if number < len(lines) or line.endswith("}"):
                raise WorkdirError(f"{path / 'metrics.jsonl'}:{number}: damaged ({error})") from None
    return records


def records_fault(content: bytes) -> str:
    """What is wrong with the lines of a `metrics.jsonl`, empty where nothing is."""
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            _record(line)
        except (ValueError, RecursionError) as error:
            return f"line {number}: {error}"
    return ""


def _record(line: str | bytes) -> dict[str, Any]:
    """One record; every reader relies on what is asked for here.

    Raises:
        ValueError, RecursionError: it is none.
    """
    record = parse_json(line)
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    refresh = record.get("split") == REFRESH
    wanted = {key: kind for key, kind in RECORD_KEYS.items() if not (refresh and key in ("head", "loss", "accuracy"))}
    for key, kind in {**wanted, **{key: NUMBER for key in NUMBERS if key in record}}.items():
        if not isinstance(record.get(key), kind) or (isinstance(record.get(key), bool) and key != "masks"):
            raise ValueError(f"{key}: received {record.get(key)!r}")
    return record


def read_run(path: str | Path) -> RunRecord:
    """The files of a finished run.

    Raises:
        WorkdirError: no run folder, not finished, or damaged.
    """
    path = user_path(path)
    if not path.is_dir():
        raise WorkdirError(f"{path}: no such run folder")
    if not (path / "results.json").is_file():
        unfinished = (path / "run.json").is_file()
        hint = f"the run is not finished; train --resume {path}" if unfinished else "not a run folder"
        raise WorkdirError(f"{path}: no results.json ({hint})")
    refuse_links(path)
    return RunRecord(path, read_results(path), read_metrics(path))


def last_validation(results: dict[str, Any]) -> dict[str, Any]:
    """Scores on validation data of the network that a run ended with, from its results; empty where it looked at none."""
    looked = [entry["validation"] for entry in results["phases"] if entry.get("validation")]
    return looked[-1].get("after", looked[-1]) if looked else {}


def read_results(path: Path) -> dict[str, Any]:
    """`results.json` of a run folder.

    Raises:
        WorkdirError: it lacks something that tables and plots need.
    """
    file = path / "results.json"
    results = read_json(file)
    try:
        missing = [key for key, kind in RESULT_KEYS.items() if not isinstance(results.get(key), kind)]
        missing += [f"depths.{key}" for entry in results["depths"] for key in ("depth", *SCORE_KEYS) if _is_no_number(entry, key)]
        missing += [f"ensemble.{key}" for key in SCORE_KEYS if _is_no_number(results["ensemble"], key)]
        missing += ["weights_bytes"] * ("weights_bytes" in results and _is_no_number(results, "weights_bytes"))
        if "pruned" in results:
            missing += [key for side in ("before", "after") for key in _missing_costs(results["pruned"][side], f"pruned.{side}")]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WorkdirError(f"{file}: damaged ({error})") from None
    if missing:
        raise WorkdirError(f"{file}: damaged ({missing[0]} is missing, or not what it should be)")
    return results


def _is_no_number(entry: dict[str, Any], key: str) -> bool:
    return not isinstance(entry.get(key), NUMBER)


def _missing_costs(side: dict[str, Any], place: str) -> list[str]:
    """Figures that one side of a comparison should hold and does not."""
    missing = [f"{place}.{key}" for key in SIDE_KEYS if not side.get(key, 0) > 0]
    for batch, entry in side.get("latency", {}).items():
        int(batch)
        wanted = (*TIME_KEYS, *(key for key in RATIO_KEYS if key in entry))
        missing += [f"{place}.latency.{batch}.{key}" for key in wanted if not entry.get(key, 0) > 0]
    return missing
