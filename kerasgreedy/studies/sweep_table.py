"""What the runs of a sweep came to."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from kerasgreedy.files import write_atomically
from kerasgreedy.reports.run_files import RunRecord, last_validation, read_run
from kerasgreedy.reports.sweep_plot import plot_sweep
from kerasgreedy.strict_json import as_json
from kerasgreedy.studies.study_folder import StudyFolder
from kerasgreedy.studies.sweep_range import Sweep, run_folder, short_names

TABLE = "sweep.json"
# Settings under which validation figures are not of the same images, and do not say which point is best.
OTHER_IMAGES = {"recipe.data", *(f"recipe.data.{key}" for key in ("dataset", "data_dir", "validation", "test", "test_seed"))}
# Of each run, what points have the mean and the range of.
SCORES = (
    "top1", "loss", "validation_top1", "validation_loss", "train_accuracy", "train_loss", "parameters", "multiply_adds",
    "training_seconds", "peak_memory_bytes",
)  # fmt: skip


def write_table(study: Sweep, runs: StudyFolder) -> dict[str, Any]:
    """Writes `sweep.json` and `sweep.png`, of the runs that have ended; gives the contents of the first.

    Returns:
        `keys`: setting -> its short name; `runs`: each with `values` by short name, `seed`, `run` and figures; `points`: for each
        combination `values`, `seeds` and `diverged` (seeds) and for each figure [mean, lowest, highest] over seeds; `best`: index
        of the point with the highest accuracy on validation data, see `_best`; None where what is swept changes these data.
    """
    keys = study.keys
    names = short_names(keys)
    known, diverged = [], runs.diverged
    points = []
    for point in study.points:
        values = {names[key]: value for key, value in zip(keys, point, strict=True)}
        folders = {seed: run_folder(keys, point, seed) for seed in study.seeds}
        own = [
            {"values": values, "seed": seed, "run": folder, **_figures(read_run(runs.path / folder))}
            for seed, folder in folders.items()
            if runs.is_done(folder)
        ]
        lost = [seed for seed, folder in folders.items() if folder in diverged]
        known += own
        if own or lost:
            entry = {"values": values, "seeds": [run["seed"] for run in own], "diverged": lost}
            points.append(entry | _ranges(own))
    best = None if OTHER_IMAGES.intersection(keys) else _best(points, known)
    table = {"spec": study.spec, "recipe": study.recipe, "keys": names, "runs": known, "points": points, "best": best}
    write_atomically(runs.path / TABLE, as_json(table, indent=1).encode())
    if known:
        plot_sweep(runs.path / "sweep.png", table)
    return table


def _figures(run: RunRecord) -> dict[str, Any]:
    """Scores of the last depth; training figures are those of the last epoch, whichever one was kept."""
    results = run.results
    validation = last_validation(results)
    last: dict[str, Any] = next((record for record in reversed(run.metrics) if record["split"] == "train"), {})
    peaks = [record["peak_memory_bytes"] for record in run.metrics if "peak_memory_bytes" in record]
    return {
        "top1": results["depths"][-1]["top1"],
        "loss": results["depths"][-1]["loss"],
        "validation_top1": validation.get("top1"),
        "validation_loss": validation.get("loss"),
        "train_accuracy": last.get("accuracy"),
        "train_loss": last.get("loss"),
        "parameters": results["parameters"],
        "multiply_adds": results["multiply_adds"],
        "epochs": results["epochs"],
        "training_seconds": results["training_seconds"],
        "peak_memory_bytes": max(peaks, default=None),
    }


def _ranges(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found = {}
    for key in SCORES:
        values = [run[key] for run in runs if run[key] is not None]
        found[key] = [fmean(values), min(values), max(values)] if values and len(values) == len(runs) else None
    return found


def _best(points: Sequence[dict[str, Any]], runs: Sequence[dict[str, Any]]) -> int | None:
    """By validation data alone: test figures decide nothing. Of equal ones, the one with the lower loss on them.

    Means are over the seeds that all points have which have not diverged, so that none is ahead for an easier split; None where
    there are none, or no validation data.
    """
    whole = [index for index, point in enumerate(points) if point["seeds"] and not point["diverged"]]
    common = set.intersection(*(set(points[index]["seeds"]) for index in whole)) if whole else set()

    def score(index: int) -> tuple[float, float]:
        values = as_json(points[index]["values"])
        own = [run for run in runs if as_json(run["values"]) == values and run["seed"] in common]
        return fmean(run["validation_top1"] for run in own), -fmean(run["validation_loss"] for run in own)

    if not common or any(run["validation_top1"] is None for run in runs):
        return None
    return max(whole, key=score)
