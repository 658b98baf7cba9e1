"""Train, resume, evaluate: the functions behind the commands, for notebooks too."""

import contextlib
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tensorflow as tf

from kerasgreedy.data.arrays import ImageArrays
from kerasgreedy.data.info import skipped_notice
from kerasgreedy.data.pipeline import Pipeline
from kerasgreedy.errors import InputError, Stopped, tell
from kerasgreedy.files import user_path
from kerasgreedy.network.build import Network
from kerasgreedy.plan.batch_sizes import check_batches
from kerasgreedy.plan.compile import compile_plan
from kerasgreedy.plan.preparation import Job, prepare
from kerasgreedy.reports.countdown import duration
from kerasgreedy.runs import longer
from kerasgreedy.runs.changed_settings import check_same_stages
from kerasgreedy.runs.checkpoint import CheckpointStore, Snapshot
from kerasgreedy.runs.devices import Devices, open_devices
from kerasgreedy.runs.environment import environment, has_bfloat16
from kerasgreedy.runs.holding import held, readable_faults
from kerasgreedy.runs.metrics_log import MetricsLog
from kerasgreedy.runs.open_run import (
    data_facts,
    newest,
    noted_contents,
    open_job,
    open_pipeline,
    restore,
    start_job,
    trained_network,
)
from kerasgreedy.runs.start_from import stored_info
from kerasgreedy.runs.start_sources import start_of, take_weights
from kerasgreedy.runs.state import Position, RunState
from kerasgreedy.runs.workdir import Workdir, default_workdir
from kerasgreedy.spec.load import Document, load
from kerasgreedy.spec.model import ModelSpec
from kerasgreedy.spec.recipe import Distribute, Recipe
from kerasgreedy.train.loop import Loop
from kerasgreedy.train.progress import Reporter
from kerasgreedy.train.results import finish
from kerasgreedy.train.signals import Asked, StopRequest


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
    devices: str | None = None,
) -> Run:
    """Trains a model spec by a recipe into a new run folder.

    Args:
        spec, recipe: files, or names of shipped ones; recipe defaults to `quickstart`.
        overrides: `key.key=value` texts for either.
        workdir: default `runs/<spec>-<recipe>-<time>`.
        data: own images instead of the recipe's data set (its `dataset` is then only a name).
        strategy: default: as the recipe's `distribute` and `devices` say. Of several workers, each calls this function.
        quiet: no progress.
        devices: see `open_devices`.

    Raises:
        KerasgreedyError: see `errors`; its `exit_code` says what kind.
    """
    documents = load(spec, recipe, overrides)
    names = [document.value.name for document in documents]
    # Before anything is computed: TensorFlow takes no new devices after that.
    here = Devices.of(strategy) if strategy else open_devices(documents[1].value.distribute, devices, quiet)
    if here.workers > 1 and workdir is None:
        raise InputError("several workers need --workdir, a folder that all of them see")
    place = user_path(workdir or default_workdir(*names))
    with here.together():
        if here.chief:
            Workdir.free(place)  # before anything is downloaded
            if here.workers > 1 and documents[1].value.data.download:
                start_job(documents, data)  # what all of them read
    with here.together():
        job, pipeline = _opened(documents, data, here)
        if here.chief:
            normalization = [value.tolist() for value in (pipeline.mean, pipeline.deviation)]
            facts = {
                **environment(),
                "seed": job.recipe.seed,
                "data": data_facts(job),
                "arrays": data is not None,
                "devices": {"replicas": here.replicas, "workers": here.workers},
                "normalization": normalization,
            }
            plan = [phase.as_dict() for phase in job.phases]
            Workdir.create(place, job.spec, job.recipe, facts, plan, None if data else noted_contents(job))
    return _run(Workdir(place), job, lambda: pipeline, here, quiet)


def _opened(
    documents: tuple[Document[ModelSpec], Document[Recipe]], data: ImageArrays | None, here: Devices
) -> tuple[Job, Pipeline]:
    """The job and its images, before there is a run folder: bad data must not leave an empty run."""
    job = start_job(documents, data)
    _check_batches(job, here)
    fitted = None
    if job.recipe.start_from:
        start = start_of(job)
        job, fitted = start.check(), start.fitted()
    pipeline = open_pipeline(job, data, fitted=fitted)
    return replace(job, by_class=pipeline.by_class), pipeline


def resume_run(
    workdir: str | Path,
    data: ImageArrays | None = None,
    strategy: tf.distribute.Strategy | None = None,
    quiet: bool = False,
    devices: str | None = None,
    distribute: Distribute | None = None,
    overrides: Sequence[str] = (),
    check_data: bool = False,
    data_at: str | None = None,
) -> Run:
    """Goes on with a run from its newest whole checkpoint, and ends as if it had never stopped.

    The number of devices may be another one than before: what differs then is rounding, and the order of images where several
    workers keep cached features or masks.

    Args:
        distribute: instead of the recipe's.
        overrides: `key.key=value` texts for settings of training, such as a smaller learning rate after the run diverged; see
            `changes`. They hold from the checkpoint on, for good, and are written down in the run.
        strategy, devices: see `train_spec`.
        check_data: compare the contents of all files of the data set, not only of those whose size or times changed.
        data_at: where the data are now, if not where they were; it is written down in the run. See `changed_settings.moved_data`.
    """
    folder = Workdir.open(workdir, data_at)
    folder.ask_for(overrides)
    here = (
        Devices.of(strategy) if strategy else open_devices(distribute or folder.documents()[1].value.distribute, devices, quiet)
    )
    with here.together():
        job = open_job(folder, data, check_data)
        _check_batches(job, here)
    return _run(folder, job, lambda: open_pipeline(job, data, folder), here, quiet)


def load_network(workdir: str | Path) -> Network:
    """The network of a run with the weights of its newest whole checkpoint; needs no data."""
    folder = Workdir.open(workdir)
    spec, recipe = folder.documents()
    return trained_network(folder, prepare(spec, recipe, stored_info(folder), begins=False))[1]


def _run(folder: Workdir, job: Job, make_pipeline: Callable[[], Pipeline], here: Devices, quiet: bool) -> Run:
    shared = folder
    with contextlib.ExitStack() as stack:
        stack.enter_context(here.readable_loss())
        with here.together():
            if here.chief:
                stack.enter_context(held(folder.path))
            else:
                folder = stack.enter_context(folder.private_copy())
            store, snapshot = newest(folder)
        if not here.same(snapshot.digest if snapshot else ""):
            raise InputError(f"{shared.path}: the workers see different checkpoints; all of them have to share this folder")
        stop = stack.enter_context(StopRequest())
        with here.strategy.scope():
            job, state = restore(folder, job, store, snapshot)
            again = folder.checkpoints  # one that knows the files of the checkpoint that it read
            ended = _take_changes(folder, job, state, here, again)
            if ended is not None:
                job, state = restore(folder, job, again, ended)
        results = folder.results()
        finished = results is not None and state.position.phase == len(job.phases)
        to_do = here.agree(not finished)[0]  # a worker may not see the chief's file yet
        if results is not None and not to_do:
            Reporter((), 0, quiet or not here.chief).say(f"{folder.path}: training is already done")
            return Run(shared.path, results, state.network)
        try:
            network = _train(folder, job, state, make_pipeline, here, stop, quiet or not here.chief)
        except Stopped as error:
            raise Stopped(f"{error}; to go on: kerasgreedy train --resume {shlex.quote(str(shared.path))}") from None
        here.agree(False)  # the chief has written everything
        return Run(shared.path, folder.results() or {}, network)


def _take_changes(folder: Workdir, job: Job, state: RunState, here: Devices, store: CheckpointStore) -> Snapshot | None:
    """Makes the changes that were asked for part of the run, if it can go on with them.

    Returns:
        of a finished run that trains longer, the checkpoint that it goes back to; read with `store`.

    Raises:
        InputError: it cannot.
    """
    position = state.position
    before = folder.documents(asked=False)[1].value
    if not folder.asked or folder.documents()[1].value == before:
        return longer.goes_on(folder, job, state, store)
    began = compile_plan(job.spec, before, (job.train_images, job.validation_images), position.kept)
    check_same_stages(began, job.phases)
    ended = None
    if position.phase == len(job.phases) and not folder.asked_for_place:
        ended = longer.end_of_training(folder, job, state, store)
        position = Position.of(ended.meta)
    if here.chief:
        aside = longer.set_results_aside(folder) if ended else None
        if aside:
            others = "; phases before it stay as they are" if position.phase else ""
            name = job.phases[position.phase].name
            tell(f"{name} trains on from epoch {position.epoch + 1}{others}. Results so far: {folder.path / aside}")
        folder.record_changes({"phase": position.phase, "epoch": position.epoch, "step": position.step})
    return ended or longer.goes_on(folder, job, state, store)


def _train(
    folder: Workdir,
    job: Job,
    state: RunState,
    make_pipeline: Callable[[], Pipeline],
    here: Devices,
    stop: StopRequest,
    quiet: bool,
) -> Network:
    """Runs the loop from where the state stands, and writes what it comes to."""
    began = time.monotonic()
    if state.position.spec is not None:
        # A kill may have come between checkpoint and files.
        folder.keep_plan(job.spec, [stage.as_dict() for stage in job.phases])
    pipeline = make_pipeline()
    if job.recipe.start_from and not state.saved:
        take_weights(job, state.network)
        state.save(())  # from here on the run needs the other one no more
    reporter = Reporter(job.phases, len(pipeline.parts["train"]), quiet)
    if job.data.skipped and here.chief:
        reporter.warn(skipped_notice(job.data.skipped))
    if job.data.passed_over.count and here.chief:
        reporter.warn(f"{job.data.dataset}: {job.data.passed_over.words}")
    if here.chief:
        for notice in pipeline.notices:
            reporter.warn(notice)
    _announce(reporter, folder, job, state, here)
    position = state.position if here.chief else Position()
    log = MetricsLog(folder.path, position.log_bytes, position.log_marks)
    try:
        with readable_faults(folder.path), pipeline.named_failures():
            asked = Asked(stop, here)
            job = Loop(job, state, pipeline, here.strategy, log, reporter, asked, folder).run()
            reporter.say("evaluating on the test data")
            finish(
                folder,
                job,
                state,
                pipeline,
                here.strategy,
                asked.ends("before the results were written; training is done and saved"),
            )
            spent, here_now = duration(state.position.seconds), duration(time.monotonic() - began)
            reporter.say(f"trained in {spent}; {here_now} on the clock since it was started")
            reporter.say(f"results, plots, model and report.html are in {folder.path}")
            return state.network
    finally:
        reporter.close()
        with contextlib.suppress(OSError):  # on a full disk the fault that counts has been raised already
            log.close()


def _check_batches(job: Job, here: Devices) -> None:
    check_batches(job, here.replicas, here.workers, on_cpu=not tf.config.list_physical_devices("GPU"))


def _announce(reporter: Reporter, folder: Workdir, job: Job, state: RunState, here: Devices) -> None:
    position = state.position
    where = ""
    if position.started or position.phase:
        where = f", resumed at phase {position.phase + 1}, epoch {position.epoch + 1}, step {position.step + 1}"
    size = "x".join(map(str, job.architecture.input_shape))
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    batch = job.recipe.training.batch_size
    devices = f", on {kind}"
    if here.replicas > 1:
        over = f" in {here.workers} workers" if here.workers > 1 else ""
        norm = "" if job.recipe.synchronizes(here.replicas) else ", batch norm by share"
        devices = f", on {here.replicas} {kind}s{over}: batches of {batch}, {batch / here.replicas:g} on each{norm}"
    reporter.say(
        f"{job.spec.name} on {job.data.dataset} ({job.train_images:,} training, {job.validation_images:,} validation, "
        f"{job.test_images:,} test images, {size}, {job.data.classes} classes), strategy {job.recipe.strategy}, "
        f"recipe {job.recipe.name}{devices}{where}"
    )
    if kind == "CPU" and has_bfloat16() is False and "mixed_bfloat16" in (job.recipe.precision, job.recipe.frozen_precision):
        reporter.say("this processor has no instructions for bfloat16: steps are slower than in float32")
    reporter.say(f"run folder: {folder.path}")
