"""What a run comes to: scores, costs, plots and the model, written when training is done."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from kerasgreedy.data.pipeline import Part, Pipeline
from kerasgreedy.errors import Diverged, InputError, tell
from kerasgreedy.files import replacing
from kerasgreedy.graph.architecture import architecture
from kerasgreedy.network.build import FLOAT32, Network
from kerasgreedy.network.evaluation import Evaluator
from kerasgreedy.network.latency import measure_latency, weights_bytes
from kerasgreedy.network.walk import Instead
from kerasgreedy.nn.objectives import CrossEntropyLoss
from kerasgreedy.plan.batch_sizes import whole_shares
from kerasgreedy.plan.preparation import Job
from kerasgreedy.reports.page_file import write_page
from kerasgreedy.reports.plots import plot_run
from kerasgreedy.reports.run_files import read_metrics, read_run
from kerasgreedy.reports.run_page import runs_page
from kerasgreedy.reports.tables import results_markdown
from kerasgreedy.runs.devices import Devices
from kerasgreedy.runs.state import RunState
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.strict_json import as_json, parse_json
from kerasgreedy.train.details import details_of, keep_details


def finish(
    folder: Workdir,
    job: Job,
    state: RunState,
    pipeline: Pipeline,
    strategy: tf.distribute.Strategy,
    seen: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Looks at the test data, for the first and only time, and writes the results; the chief also the plots and the model.

    Args:
        job: with the network's last spec.
        seen: called after each batch; what it raises ends the work.

    Returns:
        `results.json`.
    """
    scores = score(job, state.network, pipeline, strategy, "test", seen=seen)
    results = {
        "spec": job.spec.name,
        "recipe": job.recipe.name,
        "strategy": job.recipe.strategy,
        "dataset": job.recipe.data.dataset if job.data.dataset != "arrays" else "arrays",
        "seed": job.recipe.seed,
        **scores,
        "parameters": job.architecture.parameters,
        "multiply_adds": job.architecture.multiply_adds,
        "weights_bytes": weights_bytes(state.network),
        "phases": _with_scores(folder, state.position.kept),
        "epochs": sum(entry["epochs"] for entry in state.position.kept),
        "training_seconds": round(state.position.seconds, 1),
    }
    if Devices.of(strategy).chief:
        if any(stage.changes_network for stage in job.phases):
            results["pruned"] = _before_and_after(folder, state.network)
        _save_model(folder, state.network)
        plot_run(folder.path, results)
        folder.write("results.md", results_markdown(results))
    written = as_json(results, indent=1)
    folder.write("results.json", written)
    here = Devices.of(strategy)
    if here.workers == 1:  # one of several cannot ask the network alone
        size = whole_shares(job.recipe.training.batch_size, strategy.num_replicas_in_sync)  # of batches that are there already
        keep_details(details_of(state.network, pipeline, "test", job.data.class_names, size), folder.path / "evaluation" / "test")
    if here.chief:
        try:
            write_page(folder.path / "report.html", runs_page([read_run(folder.path)]), overwrite=True)
        except InputError as error:
            tell(f"no report.html: {error}")  # all else is written
    return dict(parse_json(written))


def _named(network: Network, depth: int) -> dict[str, str]:
    """The objective that a loss is by, where it is not cross entropy."""
    objective = network.objective(network.architecture.heads[depth - 1].name)
    return {} if isinstance(objective, CrossEntropyLoss) else {"objective": objective.words}


def _with_scores(folder: Workdir, stages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The finished stages, phases with the validation scores of the point that they kept (of the deepest head with a loss)."""
    seen = {(r["phase"], r["epoch"]): r for r in read_metrics(folder.path) if r["split"] == "validation"}
    result = []
    for index, entry in enumerate(stages):
        kept = entry["best"]["epoch"] if entry["keep"] == "best" and entry["best"] else entry["epochs"]
        record = seen.get((index, kept))
        scores = {"top1": record["accuracy"], "top5": record["top5"], "loss": record["loss"]} if record else None
        result.append({"validation": scores, **entry})
    return result


def score(
    job: Job,
    network: Network,
    pipeline: Pipeline,
    strategy: tf.distribute.Strategy,
    part: Part,
    batch_size: int | None = None,
    instead: Callable[[tf.Tensor, tf.Tensor], Instead] | None = None,
    seen: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Scores of the network's `depths` and of their ensemble on a part of the data.

    Args:
        instead, seen: see `Evaluator`.

    Raises:
        InputError: the part is empty.
        Diverged: a loss is not finite.
    """
    if not len(pipeline.parts[part]):
        raise InputError(f"part '{part}' holds no images")
    with strategy.scope():
        network.compute_in(FLOAT32)  # as the saved model does, whatever it was trained in
    evaluator = Evaluator(network, network.facts.depths, strategy, network.facts.ensemble_on, instead=instead)
    batches = pipeline.evaluation(part, whole_shares(batch_size or job.recipe.training.batch_size, strategy.num_replicas_in_sync))
    try:
        scores, ensemble, examples = evaluator(batches, seen)
    except Diverged as error:
        raise Diverged(
            f"{part} data: {error}. The newest checkpoint stays as it is; where training is not done, train --resume --set goes "
            "on with a smaller training.optimizer.learning_rate"
        ) from None
    return {
        "depths": [{"depth": depth, **values, **_named(network, depth)} for depth, values in scores.items()],
        "ensemble": {**(ensemble or {}), "on": network.facts.ensemble_on},
        "examples": examples,
        "part": part,
    }


def _before_and_after(folder: Workdir, network: Network) -> dict[str, Any]:
    """Costs of the network that the run began with and of the one that it ends with, timed beside each other."""
    began = Network(architecture(folder.documents()[0].value), network.seed)
    networks = {"before": began, "after": network}
    latency = measure_latency(networks)
    return {
        name: {
            "parameters": each.architecture.parameters,
            "multiply_adds": each.architecture.multiply_adds,
            "weights_bytes": weights_bytes(each),
            "latency": latency[name],
        }
        for name, each in networks.items()
    }


def _save_model(folder: Workdir, network: Network) -> None:
    with replacing(folder.path / "model.keras", ".keras") as beside:
        network.model().save(beside)
