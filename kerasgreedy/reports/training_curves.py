"""The courses of runs, finished or not: loss and error against iterations, from the files of their folders."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from kerasgreedy.errors import InputError, WorkdirError, did_you_mean
from kerasgreedy.files import refuse_links, user_path
from kerasgreedy.reports.run_files import REFRESH, read_metrics
from kerasgreedy.spec.source import Source
from kerasgreedy.strict_json import read_json

Curve: TypeAlias = Literal["losses", "errors"]
Kinds: TypeAlias = dict[str, type | tuple[type, ...]]
PLACE_KEYS: Kinds = {"phase": int, "phase_name": str, "epoch": int, "split": str, "step": int}
SCORE_KEYS: Kinds = {"head": str, "loss": (int, float), "accuracy": (int, float)}


@dataclass(frozen=True)
class Course:
    """What a run wrote so far.

    Attributes:
        path: the run folder.
        seed: of the run.
        data: what `run.json` says of the data.
        settings: `spec` and `recipe`, as written in the run folder.
        finished: whether the results are written.
        metrics: records of `metrics.jsonl` in order.
    """

    path: Path
    seed: int
    data: dict[str, Any]
    settings: dict[str, Any]
    finished: bool
    metrics: list[dict[str, Any]]


@dataclass(frozen=True)
class Series:
    """Points of a curve, one a record, in order.

    Attributes:
        iterations: optimiser steps so far.
        losses: cross-entropy in nats.
        errors: 1 - accuracy.
        phases: index of the phase; a curve is not continued from one phase to the next.
        masked: whether the figures are of an epoch under masks, so of the masked network.
    """

    iterations: tuple[int, ...] = ()
    losses: tuple[float, ...] = ()
    errors: tuple[float, ...] = ()
    phases: tuple[int, ...] = ()
    masked: tuple[bool, ...] = ()

    def __len__(self) -> int:
        return len(self.iterations)


def read_course(place: str | Path) -> Course:
    """The course of a run, finished or not.

    Raises:
        WorkdirError: no run folder, nothing logged yet, or damaged.
        SpecError: its spec or recipe is not plain YAML.
    """
    path = user_path(place)
    if not path.is_dir():
        raise WorkdirError(f"{path}: no such run folder")
    missing = [name for name in ("run.json", "spec.yaml", "recipe.yaml") if not (path / name).is_file()]
    if missing:
        raise WorkdirError(f"{path}: not a run folder ({missing[0]} is missing)")
    refuse_links(path)
    facts = read_json(path / "run.json")
    for key, kind in (("seed", int), ("data", dict)):
        if not isinstance(facts.get(key), kind):
            raise WorkdirError(f"{path / 'run.json'}: damaged ({key} is missing)")
    metrics = read_metrics(path)
    for number, record in enumerate(metrics, start=1):
        fault = _fault(record)
        if fault:
            raise WorkdirError(f"{path / 'metrics.jsonl'}:{number}: damaged ({fault})")
    if all(record["split"] == REFRESH for record in metrics):
        raise WorkdirError(f"{path}: metrics.jsonl holds no losses (not an epoch is done)")
    settings = {name: Source.read(path / f"{name}.yaml").data for name in ("spec", "recipe")}
    return Course(path, facts["seed"], facts["data"], settings, (path / "results.json").is_file(), metrics)


def _fault(record: Any) -> str | None:
    if not isinstance(record, dict):
        return "not a JSON object"
    keys: Kinds = PLACE_KEYS if record.get("split") == REFRESH else {**PLACE_KEYS, **SCORE_KEYS}
    wrong = [key for key, kind in keys.items() if not isinstance(record.get(key), kind)]
    return f"{wrong[0]} is missing or not what it should be" if wrong else None


def series(course: Course, split: str, head: str | None = None, phase: str | None = None) -> Series:
    """Loss and error of a split against iterations.

    Args:
        split: `train`, `train_exact` or `validation`.
        head: follow this head only. Default: in each phase the deepest one with a loss, as the network grows.
        phase: only the phase of this name, its iterations counted from its own start. Default: all, one after the other.

    Returns:
        the curve, the start of a phase included where it was logged; empty where nothing of the split was.

    Raises:
        InputError: the run has no such phase or head.
    """
    records = _within(course, phase)
    heads: dict[int, dict[str, None]] = {}
    for record in records:
        if record["split"] != REFRESH:
            heads.setdefault(record["phase"], {})[record["head"]] = None
    known = list(dict.fromkeys(name for names in heads.values() for name in names))
    if head is not None and head not in known:
        raise InputError(f"--head: received '{head}'; {course.path} has {', '.join(known)}{did_you_mean(head, known)}")
    deepest = {index: list(names)[-1] for index, names in heads.items()}  # they are logged from the shallowest on
    chosen = [r for r in records if r["split"] == split and r["head"] == (deepest[r["phase"]] if head is None else head)]
    start = _start(course, phase)
    return Series(
        tuple(r["step"] - start for r in chosen),
        tuple(float(r["loss"]) for r in chosen),
        tuple(1 - float(r["accuracy"]) for r in chosen),
        tuple(r["phase"] for r in chosen),
        tuple(r.get("masks") is True for r in chosen),
    )


def refreshes(course: Course, phase: str | None = None) -> list[int]:
    """The iterations at which masks were estimated; counted from the start of the phase if one is named."""
    start = _start(course, phase)
    return [record["step"] - start for record in _within(course, phase) if record["split"] == REFRESH]


def iterations_to(curve: Series, target: float) -> float | None:
    """The first iteration at which the loss is at or below a target; None if it never is.

    Losses are known at records only. Between two records of one phase the loss is taken to change linearly; a first record of a
    phase that is low enough counts where it stands.
    """
    for index, (iteration, loss) in enumerate(zip(curve.iterations, curve.losses, strict=True)):
        if loss > target:
            continue
        if index == 0 or curve.phases[index - 1] != curve.phases[index]:
            return float(iteration)
        before, higher = curve.iterations[index - 1], curve.losses[index - 1]  # above the target, or it would have counted
        return before + (iteration - before) * (higher - target) / (higher - loss)
    return None


def value_at(curve: Series, what: Curve, iteration: int) -> float | None:
    """The curve's value at an iteration, linearly between records; None outside them. At a jump, that after it."""
    values: tuple[float, ...] = getattr(curve, what)
    after = bisect_right(curve.iterations, iteration)
    if after and curve.iterations[after - 1] == iteration:
        return values[after - 1]
    if after in (0, len(curve)):
        return None
    left, right = curve.iterations[after - 1], curve.iterations[after]
    return values[after - 1] + (values[after] - values[after - 1]) * (iteration - left) / (right - left)


def mean_series(curves: Sequence[Series]) -> Series:
    """The mean of several curves at the points (phase and iteration) that all of them have."""
    places = [{place: index for index, place in enumerate(zip(c.phases, c.iterations, strict=True))} for c in curves]
    common = [place for place in places[0] if all(place in other for other in places)]
    rows = [[own[place] for own in places] for place in common]  # for each point, its index in each curve

    def means(values: Sequence[Sequence[float]]) -> tuple[float, ...]:
        return tuple(sum(own[i] for own, i in zip(values, row, strict=True)) / len(row) for row in rows)

    return Series(
        tuple(iteration for _, iteration in common),
        means([curve.losses for curve in curves]),
        means([curve.errors for curve in curves]),
        tuple(phase for phase, _ in common),
        tuple(all(curve.masked[i] for curve, i in zip(curves, row, strict=True)) for row in rows),
    )


def _within(course: Course, phase: str | None) -> list[dict[str, Any]]:
    """The records of a phase, or all."""
    known = list(dict.fromkeys(record["phase_name"] for record in course.metrics))
    if phase is not None and phase not in known:
        raise InputError(f"--phase: received '{phase}'; {course.path} has {', '.join(known)}{did_you_mean(phase, known)}")
    return [record for record in course.metrics if phase is None or record["phase_name"] == phase]


def _start(course: Course, phase: str | None) -> int:
    """The overall step at which a phase begins: where those before it ended."""
    if phase is None:
        return 0
    first = min(record["phase"] for record in _within(course, phase))
    return max((record["step"] for record in course.metrics if record["phase"] < first), default=0)
