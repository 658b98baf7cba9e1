"""The run that another one starts from, and whether it can. Imports no TensorFlow."""

from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from kerasgreedy.data.contents import check_contents, data_files
from kerasgreedy.data.info import DataInfo
from kerasgreedy.errors import CheckpointError, DataError, InputError, WorkdirError, dotted
from kerasgreedy.graph.architecture import Architecture
from kerasgreedy.graph.tree import walk
from kerasgreedy.plan.preparation import Job, prepare
from kerasgreedy.runs.checkpoint import NETWORK, Arrays, Snapshot
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.spec import layers as L
from kerasgreedy.spec.model import ModelSpec
from kerasgreedy.spec.strict import Strict

# Of run.json: images were drawn class by class.
BY_CLASS = "by_class"


def check_start_run(job: Job) -> Job:
    """Refuses a run to start from whose network is another one than the job's.

    Returns:
        the job; on the same data it splits as that run did.

    Raises:
        WorkdirError, CheckpointError: there is no finished run.
        InputError: it is another one.
    """
    folder, source, snapshot = _source(job)
    odd = differing(job.architecture, source.architecture, job.recipe.start_blocks)
    if odd:
        described = f"that run's network is described by {folder.network_spec}"
        raise InputError(f"start_from: {odd} {folder.path} and this spec; {described}")
    at = snapshot.meta
    _check_heads(job, source, at["phase"] + (at["epoch"] > 0 or at["step"] > 0))
    return _with_same_split(job, source, folder)


def differing(ours: Architecture, theirs: Architecture, blocks: int | None) -> str | None:
    """What keeps weights from fitting, as the beginning of a sentence (`block_2 differs between`); None: nothing.

    Args:
        blocks: only so many first blocks; None: all components.
    """
    one, other = (_shapes(each, blocks) for each in (ours, theirs))
    for name in {**one, **other}:
        if one.get(name) != other.get(name):
            return f"{name} differs between" if name in one and name in other else f"{name} is in only one of"
    return None


def run_weights(job: Job) -> dict[str, Arrays]:
    """Component -> its variables, of the run that the recipe starts from."""
    _, _, snapshot = _source(job)
    count = job.recipe.start_blocks
    names = job.architecture.components if count is None else [block.name for block in job.architecture.blocks[:count]]
    return {name: snapshot.arrays[NETWORK + name] for name in names}


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
    job = replace(prepare(spec, recipe, stored_info(folder), begins=False), by_class=splits_by_class(folder.facts()["data"]))
    return folder, job_at(folder, job, snapshot), snapshot


def _with_same_split(job: Job, source: Job, folder: Workdir) -> Job:
    """On the data that the weights were trained on, another split would make validation images of training images."""
    if not job.validation_images or not _same_images(job, source, folder):
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


def _same_images(job: Job, source: Job, folder: Workdir) -> bool:
    """Whether a job has the images of the run that it starts from, wherever they lie now."""
    if job.data.fingerprint != source.data.fingerprint:
        return False
    if job.data.dataset == source.data.dataset:
        return True
    stamps = folder.data_files()
    if job.data.fingerprint is None or stamps is None:
        return False
    try:
        check_contents(data_files(job.recipe.data, job.data.known), stamps)
    except DataError:
        return False
    return True


def _check_heads(job: Job, source: Job, begun: int) -> None:
    """`compress` works with heads that were trained; so many stages of that run have begun."""
    trained = {source.architecture.heads[depth - 1].name for depth in source.trained_depths(begun)}
    wanted = {head for stage in job.phases for head in stage.judged}
    if job.recipe.strategy == "compress" and not wanted <= trained:
        raise InputError(
            f"prune.heads: {min(wanted - trained)} was not trained by that run; trained: {', '.join(sorted(trained))}"
        )


def _shapes(arch: Architecture, blocks: int | None) -> dict[str, list[Any]]:
    """Component -> its layers, but for how they were written down and rates of dropout; of the first blocks only, or of all."""
    return {
        name: [(n.name, n.input_shape, n.output_shape, _essence(n.layer)) for n in walk(component.nodes)]
        + [(arch.defaults.batch_norm_momentum, arch.defaults.batch_norm_epsilon)]
        for name, component in arch.components.items()
        if blocks is None or component in arch.blocks[:blocks]
    }


def _essence(layer: Strict) -> Any:
    if isinstance(layer, L.Residual | L.Branches | L.Dropout):
        return type(layer)
    if isinstance(layer, L.Conv):  # what decides its kernel; what follows it are layers of their own
        return layer.kernel_size, layer.stride, layer.padding, layer.groups, layer.use_bias
    return layer.use_bias if isinstance(layer, L.Dense) else layer


def stored_info(folder: Workdir) -> DataInfo:
    """Facts of the data as they were when the run began."""
    facts = folder.facts()["data"]
    try:
        return TypeAdapter(DataInfo).validate_python({"reading": 1, **facts})  # versions before did not say
    except ValidationError as error:
        line = error.errors(include_url=False)[0]
        raise WorkdirError(f"{folder.path / 'run.json'}: damaged (data.{dotted(line['loc'])}: {line['msg']})") from None


def splits_by_class(facts: dict[str, Any]) -> bool:
    """Whether the images of a run were drawn class by class; older folders do not say, and theirs were not."""
    return facts.get("split") == BY_CLASS


def job_at(folder: Workdir, job: Job, snapshot: Snapshot) -> Job:
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
