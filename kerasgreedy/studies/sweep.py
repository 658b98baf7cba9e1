"""A sweep: one spec trained under every combination of some settings' values, with several seeds, beside each other.

A study is a folder; each combination and seed is an ordinary run in it. They do not depend on each other, so that values and
seeds can be added at any time.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kerasgreedy.errors import Diverged, InputError, Problem, SpecError, WorkdirError
from kerasgreedy.files import user_path
from kerasgreedy.plan.preparation import Job, prepare
from kerasgreedy.spec.load import load
from kerasgreedy.strict_json import as_json, is_number, value_text
from kerasgreedy.studies.study_folder import STUDY, StudyFolder, job_of
from kerasgreedy.studies.sweep_range import Point, Sweep, run_folder
from kerasgreedy.studies.sweep_table import write_table


def sweep(
    study: Sweep, folder: str | Path, say: Callable[[str], None] = lambda line: None, quiet: bool = False
) -> dict[str, Any]:
    """Trains what of a sweep is not trained yet, in its folder, and draws what there is after each run.

    It may be stopped anywhere, and goes on where it was.

    Args:
        say: told of each run before it begins.

    Returns:
        the contents of `sweep.json`, see `sweep_table.write_table`; of all values and seeds that the folder has been asked for.

    Raises:
        KerasgreedyError: see `errors`; the folder holds another study, or a run cannot be. All runs are checked before the first,
            and none is counted under settings that it was not trained with.
        Diverged: every run did.
    """
    plain = prepare(*load(study.spec, study.recipe, study.overrides))
    for point, seed in _runs(study):
        _check(study, point, seed)
    runs = StudyFolder(user_path(str(folder)), say, quiet)
    with runs.opened():
        known, asked = _claim(study, runs, plain)
        jobs = [(each, prepare(*load(known.spec, known.recipe, known.sets(*each)))) for each in _runs(known)]
        _all_different(jobs)
        for each, job in jobs:
            runs.check(run_folder(known.keys, *each), lambda job=job: job)  # type: ignore[misc]
        runs.note(asked)
        for each in _runs(study):
            runs.train(run_folder(study.keys, *each), study.spec, study.recipe, study.sets(*each))
            write_table(known, runs)
        table = write_table(known, runs)
    if not table["runs"]:
        raise Diverged(f"{runs.path}: every run diverged; other values, a warm-up or clip_norm may help")
    return table


def _runs(study: Sweep) -> list[tuple[Point, int]]:
    return [(point, seed) for seed in study.seeds for point in study.points]


def _check(study: Sweep, point: Point, seed: int) -> None:
    """Refuses a run that cannot be; a fault of a swept value is said to be of `--over`, where the user wrote it."""

    def named(problem: Problem) -> Problem:
        key = problem.where.removeprefix("--set ").partition("=")[0]
        return replace(problem, where=problem.where.replace("--set", "--over", 1)) if key in study.over else problem

    try:
        job_of(study.spec, study.recipe, study.sets(point, seed))
    except SpecError as error:
        raise SpecError([named(problem) for problem in error.problems]) from None


def _claim(study: Sweep, runs: StudyFolder, plain: Job) -> tuple[Sweep, dict[str, Any]]:
    """The sweep of all that the folder has ever been asked for, and how that is noted."""
    asked: dict[str, Any] = {
        "kind": "sweep",
        "spec": study.spec,
        "recipe": study.recipe,
        "overrides": list(study.overrides),
        "keys": list(study.keys),
    }
    there = runs.claim(asked, ("keys",), plain)
    values, seeds = there.get("values", [[]] * len(study.keys)), there.get("seeds", [])
    if there and not _is_whole(values, seeds, len(study.keys)):
        raise WorkdirError(f"{runs.path / STUDY}: damaged (values or seeds); put it back, or take another folder")
    asked["values"] = [_union(*both) for both in zip(values, study.over.values(), strict=True)]
    asked["seeds"] = _union(seeds, study.seeds)
    over = dict(zip(study.over, map(tuple, asked["values"]), strict=True))
    return replace(study, over=over, seeds=tuple(asked["seeds"])), asked


def _is_whole(values: Any, seeds: Any, settings: int) -> bool:
    listed = isinstance(values, list) and len(values) == settings and all(isinstance(own, list) and own for own in values)
    return listed and isinstance(seeds, list) and bool(seeds) and all(type(seed) is int and seed >= 0 for seed in seeds)


def _union(old: Any, new: Any) -> list[Any]:
    """Values of both, each once: numbers in their order, others as they came."""
    values = list({as_json(value): value for value in [*old, *new]}.values())
    return sorted(values) if all(map(is_number, values)) else values


def _all_different(jobs: Sequence[tuple[tuple[Point, int], Job]]) -> None:
    """Refuses combinations that are the same run in other words, which would be counted twice."""
    first: dict[str, Point] = {}
    for (point, _), job in jobs:
        text = job.spec.model_dump_json() + job.recipe.model_dump_json()
        if text in first:
            one, two = (", ".join(map(value_text, each)) for each in (first[text], point))
            raise InputError(f"--over: {one} and {two} are the same run; allowed: one of them")
        first[text] = point
