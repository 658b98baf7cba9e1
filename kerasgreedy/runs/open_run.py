"""From a run folder to its job, data and network."""

import contextlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from kerasgreedy.data.arrays import ImageArrays
from kerasgreedy.data.catalog import describe
from kerasgreedy.data.contents import check_contents, data_files, stamped
from kerasgreedy.data.fetch import fetch
from kerasgreedy.data.info import READING, DataInfo, Known
from kerasgreedy.data.loaders import open_data, prepare_arrays, without_unreadable
from kerasgreedy.data.named import kind_of
from kerasgreedy.data.pipeline import Pipeline
from kerasgreedy.errors import CheckpointError, DataError, InputError, WorkdirError, tell
from kerasgreedy.files import user_path
from kerasgreedy.network.build import Network, NetworkFacts
from kerasgreedy.network.evaluation import objectives_of
from kerasgreedy.plan.preparation import Job, prepare
from kerasgreedy.runs.checkpoint import CheckpointStore, Snapshot
from kerasgreedy.runs.start_from import BY_CLASS, job_at, splits_by_class
from kerasgreedy.runs.state import RunState
from kerasgreedy.runs.workdir import DATA_FILES, Workdir
from kerasgreedy.spec.load import Document
from kerasgreedy.spec.model import ModelSpec
from kerasgreedy.spec.recipe import Recipe
from kerasgreedy.strict_json import as_json


def start_job(documents: tuple[Document[ModelSpec], Document[Recipe]], data: ImageArrays | None) -> Job:
    """The job of a new run, with its data here and, where the recipe says so, its unreadable files left out."""
    known = Known() if data else _known_by_start(documents[1].value)
    job = prepare(*documents, info=_info(documents[1], data), known=known)
    if data is None and fetch(job.recipe.data):
        job = prepare(*documents)  # the names of the classes are known now
    if data is None and job.recipe.data.corrupt == "skip":
        job = prepare(*documents, known=without_unreadable(job.recipe.data, job.architecture.input_shape[-1], known))
    return job


def _known_by_start(recipe: Recipe) -> Known:
    """How the images of a folder are read: as the run did that a new one starts from, where they are the same."""
    if (
        recipe.start_from
        and kind_of(recipe.data.dataset)[0] == "folder"
        and (user_path(recipe.start_from) / "run.json").is_file()
    ):
        facts = Workdir.open(recipe.start_from).facts()["data"]
        old = Known(reading=facts.get("reading", 1))
        with contextlib.suppress(DataError):
            if old.reading != READING and describe(recipe.data, old).fingerprint == facts.get("fingerprint"):
                return old
    return Known()


def _info(recipe: Document[Recipe], data: ImageArrays | None) -> DataInfo | None:
    """Facts of a caller's own images."""
    return data.info(recipe.value.data.channel_axis) if data else None


def open_job(folder: Workdir, data: ImageArrays | None, check_data: bool = False) -> Job:
    """The job of a run folder; refuses data that changed since the run began.

    Args:
        check_data: hash all files of the data set, not only those that look changed.
    """
    spec, recipe = folder.documents()
    facts = folder.facts()
    if facts.get("arrays") and data is None:
        raise DataError(f"{folder.path}: this run was trained on arrays of its caller; give them again")
    # Files that were left out stay out, even if they can be read by now: the examples are those that the run began with.
    try:
        job = prepare(spec, recipe, _info(recipe, data), _known(facts["data"]), begins=False)
    except DataError as error:
        lies = not data and kind_of(recipe.value.data.dataset)[0] != "embedded"
        where = ". If the data lie elsewhere now: train --resume RUN --data PLACE" if lies else ""
        raise DataError(f"{error}{where}") from None
    job = replace(job, by_class=splits_by_class(facts["data"]))
    now = json.loads(json.dumps(data_facts(job)))
    for key, value in facts["data"].items():
        if key == "image_shape" and "split" not in facts["data"]:
            continue  # older folders have the size of some of the images
        if key == "dataset" and _may_move(value, now.get(key)):
            continue  # what the files hold is compared
        if now.get(key) != value:
            what = f"{key} was {value} and is {now.get(key)}"
            if key == "fingerprint":
                what = "files were added, removed or renamed" if job.data.dataset.startswith("folder:") else "other contents"
            raise DataError(f"{folder.path}: the data changed since the run began ({what})")
    if data is None:
        _check_contents(folder, job, check_data)
    return job


def _may_move(old: Any, new: Any) -> bool:
    """Whether two data sets may be the same images at two places: of named sets it is the name that says which they are."""
    kinds = {kind_of(str(each))[0] for each in (old, new)}
    return len(kinds) == 1 and kinds <= {"folder", "npz"}


def noted_contents(job: Job) -> str | None:
    """The contents of the data set's files as text, for `data_files.json`; None where it has no files of its own."""
    files = data_files(job.recipe.data, job.data.known)
    return as_json(stamped(files)) if files else None


def _check_contents(folder: Workdir, job: Job, everything: bool) -> None:
    stamps = folder.data_files()
    files = data_files(job.recipe.data, job.data.known)
    if stamps and len(stamps) == len(files) == 1 and kind_of(job.recipe.data.dataset)[0] == "npz":
        files = dict(zip(stamps, files.values(), strict=True))  # it may have another name now
    if stamps is not None:
        try:
            check_contents(files, stamps, everything)
        except DataError as error:
            raise DataError(f"{folder.path}: {error}") from None
    elif everything and files:
        raise InputError(f"{folder.path}: {DATA_FILES} is missing, so that there is nothing to check the data against")


def _known(facts: dict[str, Any]) -> Known:
    """What a run knows of its folder; those of versions before do not say how they read files."""
    names, reading = facts.get("skipped"), facts.get("reading", 1)
    return Known(tuple(map(str, names)) if isinstance(names, list) else None, reading)


def data_facts(job: Job) -> dict[str, Any]:
    """What `run.json` says of the data."""
    images = {"train_images": job.train_images, "validation_images": job.validation_images, "test_images": job.test_images}
    known = {key: value for key, value in vars(job.data).items() if key != "passed_over"}
    return {**known, **images, "split": BY_CLASS if job.by_class else "random"}


def open_pipeline(
    job: Job,
    data: ImageArrays | None,
    folder: Workdir | None = None,
    fitted: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Pipeline:
    """Batches of a job; those of an existing run are normalised as it was when the run began.

    Args:
        fitted: mean and deviation by channel that they are normalised with instead.
    """
    height, width, channels = job.architecture.input_shape
    size = height, width
    about = job.recipe.data, job.data, size, channels
    splits = prepare_arrays(data, *about) if data else open_data(*about)
    fitted = normalization(folder, channels) if folder else fitted
    return Pipeline(*splits, job.recipe.data, size, job.recipe.seed, fitted, job.by_class)


def normalization(folder: Workdir, channels: int) -> tuple[list[float], list[float]]:
    """Mean and deviation that a run's images are normalised with, by channel or one for all.

    Raises:
        WorkdirError: `run.json` does not say.
    """
    try:
        mean, deviation = ([float(value) for value in part] for part in folder.facts()["normalization"])
        if {len(mean), len(deviation)} - {1, channels} or not all(map(math.isfinite, (*mean, *deviation))):
            raise ValueError(f"allowed: two lists of {channels} numbers")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise WorkdirError(f"{folder.path / 'run.json'}: damaged (normalization: {error!r})") from None
    return mean, deviation


def fresh_network(folder: Workdir, job: Job) -> Network:
    """The network of a run with fresh weights, knowing how its images are normalised and which heads will be trained."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    network = Network(job.architecture, job.recipe.seed, job.recipe.synchronizes(replicas))
    channels = job.architecture.input_shape[-1]
    mean, deviation = (np.broadcast_to(value, channels).tolist() for value in normalization(folder, channels))
    objectives = objectives_of(job.recipe.training, [head.name for head in job.architecture.heads])
    network.facts = NetworkFacts(job.trained_depths(), (mean, deviation), job.recipe.ensemble.on, objectives)
    return network


def newest(folder: Workdir) -> tuple[CheckpointStore, Snapshot | None]:
    """The checkpoints of a run and the newest whole one, if anything was saved; says which damaged ones are passed over."""
    store = folder.checkpoints
    snapshot, faults = store.load()
    for fault in faults:
        tell(f"passed over a damaged checkpoint: {fault}")
    return store, snapshot


def restore(folder: Workdir, job: Job, store: CheckpointStore, snapshot: Snapshot | None) -> tuple[Job, RunState]:
    """The state of a run at a checkpoint, with the network as it was then; fresh where nothing was saved.

    Call this under the strategy's scope.

    Args:
        store: that the snapshot was read with; the run's next checkpoints go there.

    Returns:
        the job with its plan for that network, and the state.
    """
    if snapshot:
        job = job_at(folder, job, snapshot)
    state = RunState(fresh_network(folder, job), store)
    if snapshot:
        state.restore(snapshot)
        if state.position.phase > len(job.phases):
            raise CheckpointError(f"the checkpoint is damaged ({state.position.phase} stages of {len(job.phases)} are done)")
    return job, state


def trained_network(folder: Workdir, job: Job) -> tuple[Job, Network]:
    """The network with its newest weights, and the job with its plan for it; see `trained_state`."""
    job, state = trained_state(folder, job)
    return job, state.network


def trained_state(folder: Workdir, job: Job) -> tuple[Job, RunState]:
    """The newest state, and the job with its plan for the network as it is.

    The network's `depths` are those of the heads that have been trained so far.
    """
    job, state = restore(folder, job, *newest(folder))
    network, position = state.network, state.position
    network.facts = replace(network.facts, depths=job.trained_depths(position.phase + (position.epoch > 0 or position.step > 0)))
    if not network.facts.depths:
        raise CheckpointError(f"{folder.path}: nothing is trained yet; train --resume {folder.path}")
    return job, state
