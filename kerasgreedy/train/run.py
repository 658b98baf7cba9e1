"""Train, resume, evaluate: the functions behind the commands, for notebooks too."""

import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kerasgreedy.build import Network
from kerasgreedy.data.arrays import ImageArrays
from kerasgreedy.data.catalog import DataInfo
from kerasgreedy.data.pipeline import Part, Pipeline
from kerasgreedy.data.source import ArraySource, Source, open_data, prepare_arrays
from kerasgreedy.errors import CheckpointError, DataError, InputError
from kerasgreedy.reports.plots import plot_run
from kerasgreedy.reports.tables import results_markdown
from kerasgreedy.spec.load import load
from kerasgreedy.spec.recipe import Recipe
from kerasgreedy.train.evaluation import Evaluator
from kerasgreedy.train.log import MetricsLog
from kerasgreedy.train.loop import Loop
from kerasgreedy.train.plan import Job, prepare
from kerasgreedy.train.progress import Reporter, duration
from kerasgreedy.train.signals import StopRequest
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
    job = prepare(*documents, info=data.info() if data else None)
    place = Workdir.free(workdir or default_workdir(job.spec.name, job.recipe.name))
    pipeline = _pipeline(job, data)  # before the folder is made: bad data must not leave an empty run
    facts = {**environment(), "seed": job.recipe.seed, "data": _data_facts(job), "arrays": data is not None}
    folder = Workdir.create(place, job.spec, job.recipe, facts, [phase.as_dict() for phase in job.phases])
    return _run(folder, job, lambda: pipeline, strategy, quiet)


def resume_run(
    workdir: str | Path, data: ImageArrays | None = None, strategy: tf.distribute.Strategy | None = None, quiet: bool = False
) -> Run:
    """Goes on with a run from its newest whole checkpoint, and ends as if it had never stopped."""
    folder = Workdir.open(workdir)
    job = _job(folder, data)
    return _run(folder, job, lambda: _pipeline(job, data), strategy, quiet)


def evaluate_run(
    workdir: str | Path,
    part: Part = "test",
    data: ImageArrays | None = None,
    strategy: tf.distribute.Strategy | None = None,
    batch_size: int | None = None,
) -> dict[str, Any]:
    """Top-1, top-5 and loss of every trained depth and of their ensemble.

    Returns:
        `depths` (depth, top1, top5, loss), `ensemble` (top1, top5, loss), `examples`, `part`.
    """
    folder = Workdir.open(workdir)
    job = _job(folder, data)
    strategy = strategy or _strategy(job.recipe)
    with strategy.scope():
        state = _restored(folder, Network(job.architecture, job.recipe.seed))
    done = [depth for depth in job.trained_depths if _is_trained(job, state, depth)]
    if not done:
        raise CheckpointError(f"{folder.path}: no head is trained yet; train --resume {folder.path}")
    pipeline = _pipeline(job, data)
    with pipeline.named_failures():
        return _scores(job, state.network, pipeline, strategy, done, part, batch_size)


def load_network(workdir: str | Path) -> Network:
    """The network of a run with the weights of its newest whole checkpoint."""
    folder = Workdir.open(workdir)
    spec, recipe = folder.documents()
    job = prepare(spec, recipe, _stored_info(folder))
    return _restored(folder, Network(job.architecture, job.recipe.seed)).network


def _run(
    folder: Workdir, job: Job, open_pipeline: Callable[[], Pipeline], strategy: tf.distribute.Strategy | None, quiet: bool
) -> Run:
    strategy = strategy or _strategy(job.recipe)
    with folder.writing(), StopRequest() as stop:
        with strategy.scope():
            network = Network(job.architecture, job.recipe.seed)
        state = RunState(network, folder.checkpoints)
        faults = state.restore()
        results = folder.results()
        training = job.recipe.training
        pipeline = open_pipeline() if results is None or state.position.phase < len(job.phases) else None
        steps = pipeline.steps(training.batch_size) if pipeline else 0
        reporter = Reporter(job.phases, steps, training.batch_size, quiet)
        for fault in faults:
            reporter.warn(f"passed over a damaged checkpoint: {fault}")
        if pipeline is None or (results is not None and state.position.phase == len(job.phases)):
            reporter.say(f"{folder.path}: training is already done")
            return Run(folder.path, results or {}, network)
        _announce(reporter, folder, job, state, strategy)
        network.normalization = (np.broadcast_to(pipeline.mean, job.architecture.input_shape[-1:]).tolist(),
                                 np.broadcast_to(pipeline.deviation, job.architecture.input_shape[-1:]).tolist())  # fmt: skip
        log = MetricsLog(folder.path, state.position.log_bytes)
        try:
            with folder.readable_faults(), pipeline.named_failures():
                Loop(job, state, pipeline, strategy, log, reporter, stop).run()
                return _finish(folder, job, state, pipeline, strategy, reporter)
        finally:
            reporter.close()
            with contextlib.suppress(OSError):  # on a full disk the fault that counts has been raised already
                log.close()


def _finish(
    folder: Workdir, job: Job, state: RunState, pipeline: Pipeline, strategy: tf.distribute.Strategy, reporter: Reporter
) -> Run:
    """Looks at the test data, for the first and only time, and writes the results, the plots and the model."""
    reporter.say("evaluating on the test data")
    depths = job.trained_depths
    scores = _scores(job, state.network, pipeline, strategy, depths, "test", None)
    results = {
        "spec": job.spec.name,
        "recipe": job.recipe.name,
        "strategy": job.recipe.strategy,
        "dataset": job.recipe.data.dataset if job.data.dataset != "arrays" else "arrays",
        "seed": job.recipe.seed,
        **scores,
        "parameters": job.architecture.parameters,
        "multiply_adds": job.architecture.multiply_adds,
        "phases": state.position.kept,
        "epochs": sum(entry["epochs"] for entry in state.position.kept),
        "training_seconds": round(state.position.seconds, 1),
    }
    _save_model(folder, state.network, depths, job.recipe.ensemble.on)
    plot_run(folder.path, results)
    folder.write("results.md", results_markdown(results))
    written = json.dumps(results, indent=1)
    folder.write("results.json", written)
    reporter.say(f"trained in {duration(state.position.seconds)}; results, plots and model are in {folder.path}")
    return Run(folder.path, json.loads(written), state.network)


def _save_model(folder: Workdir, network: Network, depths: Sequence[int], ensemble_on: str) -> None:
    beside = folder.path / ".model.new.keras"
    network.model(depths, ensemble_on).save(beside)
    beside.replace(folder.path / "model.keras")


def _scores(
    job: Job,
    network: Network,
    pipeline: Pipeline,
    strategy: tf.distribute.Strategy,
    depths: Sequence[int],
    part: Part,
    batch_size: int | None,
) -> dict[str, Any]:
    if not len(pipeline.parts[part]):
        raise InputError(f"part '{part}' holds no images")
    evaluator = Evaluator(network, depths, strategy, job.recipe.ensemble.on)
    scores, ensemble, examples = evaluator(pipeline.evaluation(part, batch_size or job.recipe.training.batch_size))
    return {
        "depths": [{"depth": depth, **values} for depth, values in scores.items()],
        "ensemble": {**(ensemble or {}), "on": job.recipe.ensemble.on},
        "examples": examples,
        "part": part,
    }


def _job(folder: Workdir, data: ImageArrays | None) -> Job:
    spec, recipe = folder.documents()
    if folder.facts().get("arrays") and data is None:
        raise DataError(f"{folder.path}: this run was trained on arrays of its caller; give them again")
    return prepare(spec, recipe, info=data.info() if data else None)


def _stored_info(folder: Workdir) -> DataInfo:
    facts = folder.facts()["data"]
    return DataInfo(
        facts["dataset"],
        tuple(facts["image_shape"]),
        tuple(facts["class_names"]),
        facts["train_examples"],
        facts["test_examples"],
    )


def _data_facts(job: Job) -> dict[str, Any]:
    images = {"train_images": job.train_images, "validation_images": job.validation_images, "test_images": job.test_images}
    return {**vars(job.data), **images}


def _pipeline(job: Job, data: ImageArrays | None) -> Pipeline:
    height, width, channels = job.architecture.input_shape
    sources: tuple[Source, Source]
    if data is not None:
        sources = prepare_arrays(data.train, data.test, (height, width), channels)
    else:
        sources = open_data(job.recipe.data, (height, width), channels)
    for source in sources:
        if isinstance(source, ArraySource) and source.size and source.labels.max() >= job.data.classes:
            message = f"a label is {source.labels.max()}; allowed: 0 to {job.data.classes - 1}"
            raise DataError(f"{job.recipe.data.dataset}: {message}")
    return Pipeline(*sources, job.recipe.data, (height, width), job.recipe.seed)


def _restored(folder: Workdir, network: Network) -> RunState:
    state = RunState(network, folder.checkpoints)
    for fault in state.restore():
        print(f"passed over a damaged checkpoint: {fault}", file=sys.stderr)
    if not state.position.started and not state.position.kept:
        raise CheckpointError(f"{folder.path}: nothing is trained yet; train --resume {folder.path}")
    return state


def _is_trained(job: Job, state: RunState, depth: int) -> bool:
    head = job.architecture.heads[depth - 1].name
    return any(head in phase.losses for phase in job.phases[: state.position.phase + 1])


def _strategy(recipe: Recipe) -> tf.distribute.Strategy:
    if recipe.distribute == "mirrored":
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


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
