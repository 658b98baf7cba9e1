"""Train, resume, evaluate: the functions behind the commands, for notebooks too."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tensorflow as tf

from kerasgreedy.build import Network
from kerasgreedy.data.arrays import ImageArrays
from kerasgreedy.data.info import skipped_notice
from kerasgreedy.data.pipeline import Part, Pipeline
from kerasgreedy.errors import InputError
from kerasgreedy.spec.load import load
from kerasgreedy.train.job import Job, prepare
from kerasgreedy.train.log import MetricsLog
from kerasgreedy.train.loop import Loop
from kerasgreedy.train.opening import (
    check_start,
    data_facts,
    open_job,
    open_pipeline,
    restore,
    start_job,
    stored_info,
    strategy_of,
    take_weights,
    trained_network,
    trained_state,
)
from kerasgreedy.train.progress import Reporter, duration
from kerasgreedy.train.results import finish, score
from kerasgreedy.train.signals import StopRequest
from kerasgreedy.train.solvers.masked import Masks, masked_layers
from kerasgreedy.train.state import RunState
from kerasgreedy.train.workdir import Workdir, default_workdir, environment


@dataclass(frozen=True)
class Run:
    """A run that has ended.

    Attributes:
        workdir: its folder.
        results: what `evaluate` gives, and facts of the training.
        network: with the trained weights.
    """

    workdir: Path
    results: dict[str, Any]
    network: Network


def train_spec(
    spec: str | Path,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    workdir: str | Path | None = None,
    data: ImageArrays | None = None,
    strategy: tf.distribute.Strategy | None = None,
    quiet: bool = False,
) -> Run:
    """Trains a model spec by a recipe into a new run folder.

    Args:
        spec, recipe: files, or names of shipped ones; recipe defaults to `quickstart`.
        overrides: `key.key=value` texts for either.
        workdir: default `runs/<spec>-<recipe>-<time>`.
        data: own images instead of the recipe's data set (its `dataset` is then only a name).
        strategy: default: as the recipe's `distribute` says.
        quiet: no progress.

    Raises:
        KerasgreedyError: see `errors`; its `exit_code` says what kind.
    """
    documents = load(spec, recipe, overrides)
    names = [document.value.name for document in documents]
    place = Workdir.free(workdir or default_workdir(*names))  # before anything is downloaded
    job = start_job(documents, data)
    strategy = strategy or strategy_of(job.recipe)
    _check_batches(job, strategy)
    source = None
    if job.recipe.start_from:
        check_start(job)
        source = Workdir.open(job.recipe.start_from)
    pipeline = open_pipeline(job, data, source)  # before the folder is made: bad data must not leave an empty run
    facts = {
        **environment(),
        "seed": job.recipe.seed,
        "data": data_facts(job),
        "arrays": data is not None,
        "normalization": [value.tolist() for value in (pipeline.mean, pipeline.deviation)],
    }
    folder = Workdir.create(place, job.spec, job.recipe, facts, [phase.as_dict() for phase in job.phases])
    return _run(folder, job, lambda: pipeline, strategy, quiet)


def resume_run(
    workdir: str | Path, data: ImageArrays | None = None, strategy: tf.distribute.Strategy | None = None, quiet: bool = False
) -> Run:
    """Goes on with a run from its newest whole checkpoint, and ends as if it had never stopped."""
    folder = Workdir.open(workdir)
    job = open_job(folder, data)
    return _run(folder, job, lambda: open_pipeline(job, data, folder), strategy, quiet)


def evaluate_run(
    workdir: str | Path,
    part: Part = "test",
    data: ImageArrays | None = None,
    strategy: tf.distribute.Strategy | None = None,
    batch_size: int | None = None,
    masks: Masks | None = None,
    rule: Literal["positive", "energy"] | None = None,
    beta: float | None = None,
) -> dict[str, Any]:
    """Top-1, top-5 and loss of every trained depth and of their ensemble.

    Args:
        masks, rule, beta: evaluate the last phase that alternated under masks instead of activations, see `masked_layers`.

    Returns:
        `depths` (depth, top1, top5, loss), `ensemble` (top1, top5, loss), `examples`, `part`.
    """
    folder = Workdir.open(workdir)
    job = open_job(folder, data)
    strategy = strategy or strategy_of(job.recipe)
    with strategy.scope():
        job, state = trained_state(folder, job)
        network = state.network
        instead = masked_layers(folder, job, network, state.position.kept, masks, rule, beta) if masks else None
    pipeline = open_pipeline(job, data, folder)
    with pipeline.named_failures():
        _check_batch(batch_size or job.recipe.training.batch_size, strategy)
        return score(job, network, pipeline, strategy, part, batch_size, instead)


def load_network(workdir: str | Path) -> Network:
    """The network of a run with the weights of its newest whole checkpoint; needs no data."""
    folder = Workdir.open(workdir)
    spec, recipe = folder.documents()
    return trained_network(folder, prepare(spec, recipe, stored_info(folder), begins=False))[1]


def _run(
    folder: Workdir, job: Job, make_pipeline: Callable[[], Pipeline], strategy: tf.distribute.Strategy | None, quiet: bool
) -> Run:
    strategy = strategy or strategy_of(job.recipe)
    with folder.writing(), StopRequest() as stop:
        with strategy.scope():
            job, state, faults = restore(folder, job)
        results = folder.results()
        if results is not None and state.position.phase == len(job.phases):
            Reporter((), 0, quiet).say(f"{folder.path}: training is already done")
            return Run(folder.path, results, state.network)
        if state.position.spec is not None:
            folder.keep_spec(job.spec)  # a kill may have come between checkpoint and file
        pipeline = make_pipeline()
        _check_batches(job, strategy)
        if job.recipe.start_from and not state.saved:
            take_weights(job, state.network)
            state.save(())  # from here on the run needs the other one no more
        reporter = Reporter(job.phases, len(pipeline.parts["train"]), quiet)
        for fault in faults:
            reporter.warn(f"passed over a damaged checkpoint: {fault}")
        if job.data.skipped:
            reporter.warn(skipped_notice(job.data.skipped))
        _announce(reporter, folder, job, state, strategy)
        log = MetricsLog(folder.path, state.position.log_bytes)
        try:
            with folder.readable_faults(), pipeline.named_failures():
                job = Loop(job, state, pipeline, strategy, log, reporter, stop, folder).run()
                reporter.say("evaluating on the test data")
                results = finish(folder, job, state, pipeline, strategy)
                reporter.say(f"trained in {duration(state.position.seconds)}; results, plots and model are in {folder.path}")
                return Run(folder.path, results, state.network)
        finally:
            reporter.close()
            with contextlib.suppress(OSError):  # on a full disk the fault that counts has been raised already
                log.close()


def _check_batches(job: Job, strategy: tf.distribute.Strategy) -> None:
    for training in job.recipe.trainings.values():
        _check_batch(training.batch_size, strategy, training.accumulation)


def _check_batch(batch_size: int, strategy: tf.distribute.Strategy, parts: int = 1) -> None:
    devices = strategy.num_replicas_in_sync
    if batch_size < devices:
        raise InputError(f"batch size {batch_size} is too small for {devices} devices")
    if parts > 1 and batch_size % (parts * devices):
        raise InputError(
            f"training.accumulation: batch size {batch_size} cannot be divided into {parts} equal parts on {devices} devices"
        )


def _announce(reporter: Reporter, folder: Workdir, job: Job, state: RunState, strategy: tf.distribute.Strategy) -> None:
    position = state.position
    where = ""
    if position.started or position.phase:
        where = f", resumed at phase {position.phase + 1}, epoch {position.epoch + 1}, step {position.step + 1}"
    size = "x".join(map(str, job.architecture.input_shape))
    replicas = strategy.num_replicas_in_sync
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    devices = f", {replicas} {kind}s" if replicas > 1 else f", on {kind}"
    reporter.say(
        f"{job.spec.name} on {job.data.dataset} ({job.train_images:,} training, {job.validation_images:,} validation, "
        f"{job.test_images:,} test images, {size}, {job.data.classes} classes), strategy {job.recipe.strategy}, "
        f"recipe {job.recipe.name}{devices}{where}"
    )
    reporter.say(f"run folder: {folder.path}")
