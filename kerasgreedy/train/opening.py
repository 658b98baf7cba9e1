"""From a run folder to its job, data and network."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf
from pydantic import TypeAdapter, ValidationError

from kerasgreedy.build import Network
from kerasgreedy.data.arrays import ImageArrays
from kerasgreedy.data.contents import check_contents, data_files, stamped
from kerasgreedy.data.fetch import fetch
from kerasgreedy.data.info import DataInfo
from kerasgreedy.data.opening import open_data, prepare_arrays, unreadable
from kerasgreedy.data.pipeline import Pipeline
from kerasgreedy.errors import CheckpointError, DataError, InputError, WorkdirError, dotted, tell
from kerasgreedy.files import as_json
from kerasgreedy.pruning.groups import walk
from kerasgreedy.spec import layers as L
from kerasgreedy.spec.architecture import Architecture
from kerasgreedy.spec.load import Document
from kerasgreedy.spec.model import ModelSpec
from kerasgreedy.spec.recipe import Recipe
from kerasgreedy.spec.strict import Strict
from kerasgreedy.train.checkpoint import CheckpointStore, Snapshot
from kerasgreedy.train.job import Job, prepare
from kerasgreedy.train.stages import PruneAction
from kerasgreedy.train.state import NETWORK, RunState
from kerasgreedy.train.workdir import DATA_FILES, PRUNED, Workdir

BY_CLASS = "by_class"


def start_job(documents: tuple[Document[ModelSpec], Document[Recipe]], data: ImageArrays | None) -> Job:
    """The job of a new run, with its data here and, where the recipe says so, its unreadable files left out."""
    job = prepare(*documents, info=_info(documents[1], data))
    if data is None and fetch(job.recipe.data):
        job = prepare(*documents)  # the names of the classes are known now
    if data is None and job.recipe.data.corrupt == "skip":
        job = prepare(*documents, skipped=unreadable(job.recipe.data, job.architecture.input_shape[-1]))
    return job


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
    job = prepare(spec, recipe, _info(recipe, data), _skipped(facts["data"]), begins=False)
    job = replace(job, by_class=_by_class(facts["data"]))
    now = json.loads(json.dumps(data_facts(job)))
    for key, value in facts["data"].items():
        if key == "image_shape" and "split" not in facts["data"]:
            continue  # older folders have the size of some of the images
        if now.get(key) != value:
            what = f"{key} was {value} and is {now.get(key)}"
            if key == "fingerprint":
                what = "files were added, removed or renamed" if job.data.dataset.startswith("folder:") else "other contents"
            raise DataError(f"{folder.path}: the data changed since the run began ({what})")
    if data is None:
        _check_contents(folder, job, check_data)
    return job


def noted_contents(job: Job) -> str | None:
    """The contents of the data set's files as text, for `data_files.json`; None where it has no files of its own."""
    files = data_files(job.recipe.data, job.data.skipped or ())
    return as_json(stamped(files)) if files else None


def _check_contents(folder: Workdir, job: Job, everything: bool) -> None:
    stamps = folder.data_files()
    files = data_files(job.recipe.data, job.data.skipped or ())
    if stamps is not None:
        try:
            check_contents(files, stamps, everything)
        except DataError as error:
            raise DataError(f"{folder.path}: {error}") from None
    elif everything and files:
        raise InputError(f"{folder.path}: {DATA_FILES} is missing, so that there is nothing to check the data against")


def stored_info(folder: Workdir) -> DataInfo:
    """Facts of the data as they were when the run began."""
    facts = folder.facts()["data"]
    try:
        return TypeAdapter(DataInfo).validate_python(facts)
    except ValidationError as error:
        line = error.errors(include_url=False)[0]
        raise WorkdirError(f"{folder.path / 'run.json'}: damaged (data.{dotted(line['loc'])}: {line['msg']})") from None


def _by_class(facts: dict[str, Any]) -> bool:
    """Whether the images of a run were drawn class by class; older folders do not say, and theirs were not."""
    return facts.get("split") == BY_CLASS


def _skipped(facts: dict[str, Any]) -> tuple[str, ...] | None:
    names = facts.get("skipped")
    return tuple(map(str, names)) if isinstance(names, list) else None


def data_facts(job: Job) -> dict[str, Any]:
    """What `run.json` says of the data."""
    images = {"train_images": job.train_images, "validation_images": job.validation_images, "test_images": job.test_images}
    return {**vars(job.data), **images, "split": BY_CLASS if job.by_class else "random"}


def check_start(job: Job) -> Job:
    """Refuses a run to start from whose network is another one than the job's.

    Returns:
        the job; on the same data it splits as that run did.

    Raises:
        WorkdirError, CheckpointError: there is no finished run.
        InputError: it is another one.
    """
    folder, source, _ = _source(job)
    changed = (folder.path / PRUNED).is_file()
    ours, theirs = (_shapes(each.architecture) for each in (job, source))
    for name in {**ours, **theirs}:
        if ours.get(name) != theirs.get(name):
            which = "differs between" if name in ours and name in theirs else "is in only one of"
            spec = folder.path / (PRUNED if changed else "spec.yaml")
            raise InputError(f"start_from: {name} {which} {folder.path} and this spec; that run's network is described by {spec}")
    _check_heads(job, source)
    return _with_same_split(job, source)


def _with_same_split(job: Job, source: Job) -> Job:
    """On the data that the weights were trained on, another split would make validation images of training images."""
    if (job.data.dataset, job.data.fingerprint) != (source.data.dataset, source.data.fingerprint) or not job.validation_images:
        return job
    ours, theirs = ((j.recipe.seed, j.recipe.data.validation, j.recipe.data.train_examples) for j in (job, source))
    if ours != theirs:
        names = ("seed", "data.validation", "data.train_examples")
        odd = [f"{name}={value}" for name, value, own in zip(names, theirs, ours, strict=True) if value != own]
        raise InputError(
            f"start_from: that run split the same data otherwise, so most validation images would be ones that its weights were "
            f"trained on; give {', '.join(odd)} as there, or data.validation=0"
        )
    return replace(job, by_class=source.by_class)


def _check_heads(job: Job, source: Job) -> None:
    """`compress` works with heads that were trained."""
    trained = {source.architecture.heads[depth - 1].name for depth in source.trained_depths()}
    wanted = {head for stage in job.phases if isinstance(stage, PruneAction) for head in stage.heads}
    if job.recipe.strategy == "compress" and not wanted <= trained:
        raise InputError(
            f"prune.heads: {min(wanted - trained)} was not trained by that run; trained: {', '.join(sorted(trained))}"
        )


def take_weights(job: Job, network: Network) -> None:
    """Gives a network the weights of the run that the recipe starts from."""
    _, _, snapshot = _source(job)
    for name in network.names:
        network.load_arrays(name, snapshot.arrays[NETWORK + name])


def _source(job: Job) -> tuple[Workdir, Job, Snapshot]:
    """The run that the recipe starts from: its folder, its job as it is now, and its newest whole checkpoint."""
    assert job.recipe.start_from
    folder = Workdir.open(job.recipe.start_from)
    snapshot, _ = folder.checkpoints.load()
    if snapshot is None or not (folder.results() or job.recipe.start_unfinished):
        raise CheckpointError(
            f"start_from: {folder.path}: this run is not finished; go on with it: train --resume {folder.path}"
            + ("; or take what it has so far: start_unfinished=true" if snapshot else "")
        )
    spec, recipe = folder.documents()
    job = replace(prepare(spec, recipe, stored_info(folder), begins=False), by_class=_by_class(folder.facts()["data"]))
    return folder, _at(folder, job, snapshot), snapshot


def _shapes(arch: Architecture) -> dict[str, list[Any]]:
    """Component -> its layers, but for how they were written down and rates of dropout."""
    return {
        name: [(n.name, n.input_shape, n.output_shape, _essence(n.layer)) for n in walk(component.nodes)]
        + [(arch.defaults.batch_norm_momentum, arch.defaults.batch_norm_epsilon)]
        for name, component in arch.components.items()
    }


def _essence(layer: Strict) -> Any:
    if isinstance(layer, L.Residual | L.Branches | L.Dropout):
        return type(layer)
    if isinstance(layer, L.Conv):  # what decides its kernel; what follows it are layers of their own
        return layer.kernel_size, layer.stride, layer.padding, layer.groups, layer.use_bias
    return layer.use_bias if isinstance(layer, L.Dense) else layer


def open_pipeline(job: Job, data: ImageArrays | None, folder: Workdir | None = None) -> Pipeline:
    """Batches of a job; those of an existing run are normalised as it was when the run began."""
    height, width, channels = job.architecture.input_shape
    size = height, width
    about = job.recipe.data, job.data, size, channels
    splits = prepare_arrays(data, *about) if data else open_data(*about)
    fitted = _normalization(folder, channels) if folder else None
    return Pipeline(*splits, job.recipe.data, size, job.recipe.seed, fitted, job.by_class)


def _normalization(folder: Workdir, channels: int) -> tuple[list[float], list[float]]:
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
    mean, deviation = (np.broadcast_to(value, channels).tolist() for value in _normalization(folder, channels))
    network.normalization = mean, deviation
    network.depths, network.ensemble_on = job.trained_depths(), job.recipe.ensemble.on
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
        job = _at(folder, job, snapshot)
    state = RunState(fresh_network(folder, job), store)
    if snapshot:
        state.restore(snapshot)
        if state.position.phase > len(job.phases):
            raise CheckpointError(f"the checkpoint is damaged ({state.position.phase} stages of {len(job.phases)} are done)")
    return job, state


def _at(folder: Workdir, job: Job, snapshot: Snapshot) -> Job:
    """The job with the network of a checkpoint, which actions may have changed."""
    if snapshot.meta.get("spec") is None:
        return job
    try:
        spec = ModelSpec.model_validate(snapshot.meta["spec"])
    except ValidationError as error:
        raise CheckpointError(f"{folder.path}: the checkpoint's spec cannot be used ({error.error_count()} faults)") from None
    try:
        return job.at(spec, snapshot.meta["kept"])
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{folder.path}: the checkpoint was written by another version ({error!r})") from None


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
    network.depths = job.trained_depths(position.phase + (position.epoch > 0 or position.step > 0))
    if not network.depths:
        raise CheckpointError(f"{folder.path}: nothing is trained yet; train --resume {folder.path}")
    return job, state
