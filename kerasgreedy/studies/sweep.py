"""A sweep: one spec trained under every combination of some settings' values, with several seeds, beside each other.

A study is a folder; each combination and seed is an ordinary run in it. They do not depend on each other, so that values and
seeds can be added at any time.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kerasgreedy.files import user_path
from kerasgreedy.plan.preparation import prepare
from kerasgreedy.spec.load import load
from kerasgreedy.strict_json import as_json
from kerasgreedy.studies.study_folder import StudyFolder
from kerasgreedy.studies.sweep_range import Sweep, run_folder
from kerasgreedy.studies.sweep_table import write_table

# Of a study, what has to be the same when it goes on.
SAME = ("spec", "recipe", "overrides", "keys")


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
        KerasgreedyError: see `errors`; the folder holds another study, or a run cannot be. All runs are checked before the first.
    """
    for point in study.points:
        prepare(*load(study.spec, study.recipe, study.sets(point)))
    runs = StudyFolder(user_path(str(folder)), say, quiet)
    known = _claim(study, runs)
    for seed in study.seeds:
        for point in study.points:
            runs.train(
                run_folder(list(study.over), point, seed), study.spec, study.recipe, [*study.sets(point), f"recipe.seed={seed}"]
            )
            write_table(known, runs)
    return write_table(known, runs)


def _claim(study: Sweep, runs: StudyFolder) -> Sweep:
    """The sweep of all that the folder has ever been asked for."""
    asked: dict[str, Any] = {
        "kind": "sweep",
        "spec": study.spec,
        "recipe": study.recipe,
        "overrides": list(study.overrides),
        "keys": list(study.over),
        "values": [list(values) for values in study.over.values()],
        "seeds": list(study.seeds),
    }
    there = runs.claim(asked, SAME)
    if there:
        asked["values"] = [_union(*both) for both in zip(there["values"], asked["values"], strict=True)]
        asked["seeds"] = _union(there["seeds"], asked["seeds"])
    runs.note(asked)
    over = dict(zip(study.over, map(tuple, asked["values"]), strict=True))
    return Sweep(study.spec, study.recipe, over, tuple(asked["seeds"]), study.overrides)


def _union(old: list[Any], new: list[Any]) -> list[Any]:
    """Values of both, each once: numbers in their order, others as they came."""
    known = {as_json(value): value for value in [*old, *new]}
    values = list(known.values())
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return sorted(values) if numeric else values
