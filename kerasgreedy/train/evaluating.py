"""Evaluate a run: on its own images, on its own images elsewhere, or on others of the same classes."""

from pathlib import Path
from typing import Any, Literal

import tensorflow as tf

from kerasgreedy.data.arrays import ImageArrays
from kerasgreedy.data.pipeline import Part
from kerasgreedy.errors import DataError, InputError, SpecError, tell
from kerasgreedy.files import user_path
from kerasgreedy.plan.preparation import Job, prepare
from kerasgreedy.runs.devices import own_devices
from kerasgreedy.runs.open_run import open_job, open_pipeline, trained_state
from kerasgreedy.runs.other_data import other_pipeline
from kerasgreedy.runs.start_from import stored_info
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.solvers.alternation.masked_network import Masks, masked_layers
from kerasgreedy.spec.starter import plain_name
from kerasgreedy.train.details import details_of, draw_details, free_for_details, keep_details
from kerasgreedy.train.results import score


def evaluate_run(
    workdir: str | Path,
    part: Part = "test",
    data: ImageArrays | None = None,
    strategy: tf.distribute.Strategy | None = None,
    batch_size: int | None = None,
    masks: Masks | None = None,
    rule: Literal["positive", "energy"] | None = None,
    beta: float | None = None,
    devices: str | None = None,
    check_data: bool = False,
    data_at: str | None = None,
    details: str | Path | bool = False,
) -> dict[str, Any]:
    """Top-1, top-5 and loss of every trained depth and of their ensemble.

    Args:
        masks, rule, beta: evaluate the last phase that alternated under masks instead of activations, see `masked_layers`.
        strategy, devices: see `train_spec`.
        check_data: see `resume_run`.
        data_at: where the run's data are now; or other images of the same classes, of which the test part is taken (of a folder
            of class folders all images).
        details: a folder for `details.json`, `classes.csv`, `confusion.csv`, `confusion.png` and `mistakes.png` (the surest
            mistakes) of the deepest trained head, which are replaced if they are there.

    Returns:
        `depths` (depth, top1, top5, loss), `ensemble` (top1, top5, loss), `examples`, `part`; on other images `data`; with
        `details` `classes`, `confused`, `confusion`, `mistakes` (see `details_of`) and `details` (the folder).
    """
    if details and masks:
        raise InputError("--details are about activations; leave --masks out")
    folder, job, other = _subject(workdir, data, check_data, data_at)
    if other and part != "test":
        raise InputError(f"--part: received '{part}'; of other images than the run's the test part is measured on")
    target = _details_folder(folder, details, part, other)
    strategy = strategy or own_devices(folder.documents()[1].value.distribute, devices).strategy
    with strategy.scope():
        job, state = trained_state(folder, job)
        network = state.network
        instead = masked_layers(folder, job, network, state.position.kept, masks, rule, beta) if masks else None
    pipeline = other_pipeline(folder, job, other) if other else open_pipeline(job, data, folder)
    with pipeline.named_failures():
        scores = score(job, network, pipeline, strategy, part, batch_size, instead)
        if other:
            scores["data"] = other
        if target is not None:
            found = details_of(network, pipeline, part, job.data.class_names, batch_size or job.recipe.training.batch_size)
            found |= {"data": other} if other else {}
            keep_details(found, target)
            draw_details(found, folder.path.name, target)
            mistakes = [{key: value for key, value in entry.items() if key != "picture"} for entry in found["mistakes"]]
            scores |= {key: found[key] for key in ("classes", "confused", "confusion") if key in found}
            scores |= {"mistakes": mistakes, "details": str(target)}
    return scores


def _details_folder(folder: Workdir, details: str | Path | bool, part: Part, other: str | None) -> Path | None:
    """Where details go; those of other images never in the place of the run's own."""
    if not details:
        return None
    if not isinstance(details, bool):
        return free_for_details(user_path(details))
    name = f"other_{plain_name(other.rpartition(':')[2].rstrip('/').rpartition('/')[2])}" if other else part
    return free_for_details(folder.path / "evaluation" / name)


def _subject(
    workdir: str | Path, data: ImageArrays | None, check_data: bool, data_at: str | None
) -> tuple[Workdir, Job, str | None]:
    """The run folder, its job, and the place of other images than the run's if those are meant."""
    if data_at is None:
        folder = Workdir.open(workdir)
        return folder, open_job(folder, data, check_data), None
    try:
        folder = Workdir.open(workdir, data_at)
        return folder, open_job(folder, data, check_data), None
    except (DataError, SpecError) as error:
        folder = Workdir.open(workdir)
        reason = str(error).removeprefix(f"{folder.path}: ").removeprefix("--data: ")
    tell(f"{data_at} does not hold the run's own images, so it is measured on as others are ({reason})")
    return folder, prepare(*folder.documents(), stored_info(folder), begins=False), data_at
