"""`finish`: from a run folder to a new folder with the quantised or clustered network."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import safetensors.numpy
import tensorflow as tf

from kerasgreedy.data.arrays import ImageArrays
from kerasgreedy.data.pipeline import Pipeline
from kerasgreedy.errors import InputError, WorkdirError, did_you_mean, tell
from kerasgreedy.export.checking import require_packages
from kerasgreedy.export.lite import open_tflite
from kerasgreedy.export.tfmot import finishing
from kerasgreedy.export.tfmot.finishing import FineTuning
from kerasgreedy.export.tfmot.twin import Method
from kerasgreedy.files import new_folder, plain_temporary, user_path
from kerasgreedy.network.build import Network
from kerasgreedy.network.evaluation import Evaluator, Scores
from kerasgreedy.nn.objectives import CrossEntropyLoss
from kerasgreedy.plan.preparation import Job
from kerasgreedy.runs.open_run import open_job, open_pipeline, trained_network
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.strict_json import as_json


@dataclass(frozen=True)
class Finish:
    """What to do with a trained network.

    Attributes:
        method: `quantize` or `cluster`.
        epochs: of fine-tuning.
        clusters: distinct values of a kernel; `cluster` only, where None stands for 16.
        learning_rate: constant; None: a tenth of the recipe's.
        depth: of the head that is kept; None: the last trained one.
    """

    method: Method
    epochs: int = 3
    clusters: int | None = None
    learning_rate: float | None = None
    depth: int | None = None

    def check(self) -> None:
        """Raises InputError for values that cannot be used."""
        methods = get_args(Method)
        if self.method not in methods:
            hint = did_you_mean(self.method, methods)
            raise InputError(f"method: received '{self.method}'; allowed: {', '.join(methods)}{hint}")
        if self.epochs < 1:
            raise InputError(f"epochs: received {self.epochs}; allowed: 1 or more")
        if self.clusters is not None and self.method != "cluster":
            raise InputError("clusters: belongs to method 'cluster'")
        if self.clusters is not None and self.clusters < 2:
            raise InputError(f"clusters: received {self.clusters}; allowed: 2 or more")
        if self.learning_rate is not None and not 0 < self.learning_rate < float("inf"):
            raise InputError(f"learning_rate: received {self.learning_rate}; allowed: a positive number")


@plain_temporary()
def finish_run(
    workdir: str | Path,
    out: str | Path,
    settings: Finish,
    data: ImageArrays | None = None,
    quiet: bool = False,
    data_at: str | None = None,
) -> dict[str, Any]:
    """Quantises or clusters the network of a run, fine-tunes it on the run's data, and writes it to a new folder.

    `quantize` writes `model.tflite`; `cluster` writes `weights.safetensors` and `model.keras`; both write `results.json`. The
    run folder is only read. The test part is looked at for reporting only.

    Args:
        data: the arrays that the run was trained on, where it was trained on its caller's.
        quiet: no progress on standard error.
        data_at: where the data are now, see `moved_data`.

    Returns:
        What `results.json` holds: settings, `before` and `after` (top1, top5, loss on the test part), sizes in bytes.

    Raises:
        InputError: bad settings, `out` exists, the depth is not trained, or TFMOT cannot do that to a layer.
        Diverged: the loss is no longer finite.
    """
    settings.check()
    out = user_path(out)
    if out.exists() or out.is_symlink():  # before anything is trained
        raise WorkdirError(f"{out}: already exists; give another OUT")
    require_packages(["tensorflow_model_optimization", "tf_keras"], "'tensorflow-model-optimization>=0.8' 'tf_keras>=2.19'")
    job, network, pipeline = _opened(workdir, data, data_at)
    depth = network.facts.depths[-1] if settings.depth is None else settings.depth
    if depth not in network.facts.depths:
        raise InputError(f"depth: received {depth}; trained depths of this run: {', '.join(map(str, network.facts.depths))}")
    objective = network.objective(network.architecture.heads[depth - 1].name)
    if not isinstance(objective, CrossEntropyLoss):
        raise InputError(f"{workdir}: depth {depth} was trained by {objective.words}; finishing fine-tunes by cross entropy only")
    tuning = _tuning(job, settings, quiet)
    with new_folder(out) as folder, pipeline.named_failures():
        results = {
            "spec": job.spec.name,
            "method": settings.method,
            "depth": depth,
            "epochs": tuning.epochs,
            "learning_rate": tuning.learning_rate,
            "optimizer": tuning.optimizer.name,
            "batch_size": tuning.batch_size,
            "seed": tuning.seed,
            "part": "test",
            "examples": len(pipeline.parts["test"]),
            "before": _scores(network, depth, pipeline, tuning.batch_size),
        }
        finish = _quantized if settings.method == "quantize" else _clustered
        results |= finish(network, depth, settings, pipeline, tuning, folder)
        (folder / "results.json").write_text(as_json(results, indent=1))
    return results


def _opened(workdir: str | Path, data: ImageArrays | None, data_at: str | None) -> tuple[Job, Network, Pipeline]:
    folder = Workdir.open(workdir, data_at)
    job = open_job(folder, data)
    job, network = trained_network(folder, job)
    return job, network, open_pipeline(_unmixed(job), data, folder)


def _unmixed(job: Job) -> Job:
    """TFMOT's models take one label an image."""
    if not job.recipe.data.augment.mixup:
        return job
    tell("fine-tuning takes images that are not mixed: augment.mixup is left out")
    data = job.recipe.data.model_copy(update={"augment": job.recipe.data.augment.model_copy(update={"mixup": 0.0})})
    return replace(job, recipe=job.recipe.model_copy(update={"data": data}))


def _tuning(job: Job, settings: Finish, quiet: bool) -> FineTuning:
    training = job.recipe.training

    def say(line: str) -> None:
        if not quiet:
            tell(line)

    return FineTuning(
        settings.epochs,
        settings.learning_rate or training.optimizer.learning_rate / 10,
        training.optimizer,
        training.batch_size,
        phase=len(job.phases),  # an order of its own, unlike those of the run's phases
        seed=job.recipe.seed,
        say=say,
    )


def _scores(network: Network, depth: int, pipeline: Pipeline, batch_size: int) -> Scores:
    evaluator = Evaluator(network, [depth], tf.distribute.get_strategy())
    return evaluator(pipeline.evaluation("test", batch_size))[0][depth]


def _quantized(network: Network, depth: int, _: Finish, pipeline: Pipeline, tuning: FineTuning, folder: Path) -> dict[str, Any]:
    content = finishing.quantize(network, depth, pipeline, tuning)
    shape = list(network.architecture.input_shape)
    (folder / "model.tflite").write_bytes(content)
    return {
        "after": _tflite_scores(content, pipeline, tuning.batch_size),
        "float_weights_bytes": sum(array.nbytes for array in finishing.weights_of(network, depth).values()),
        "file_bytes": len(content),
        "input": {"name": "images", "shape": [1, *shape], "type": "float32", "range": [0, 255]},
        "output": {"name": "logits", "shape": [1, network.architecture.classes], "type": "float32"},
    }


def _tflite_scores(content: bytes, pipeline: Pipeline, batch_size: int) -> Scores:
    """Scores of the very file that is written."""
    run = open_tflite(content)
    sums = np.zeros(3)
    examples = 0
    for images, labels, weights in pipeline.evaluation("test", batch_size).as_numpy_iterator():
        kept = weights > 0
        raw = images[kept] * pipeline.deviation + pipeline.mean
        logits = run(raw).astype(np.float64)
        label = labels[kept]
        own = logits[np.arange(len(label)), label]
        # int8 logits are often equal: as TensorFlow does, the first of equals wins, and equals at the border all count.
        first = logits.argmax(1) == label
        five = (logits > own[:, None]).sum(1) < 5
        shifted = logits - logits.max(1, keepdims=True)
        losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(label)), label]
        sums += [first.sum(), five.sum(), losses.sum()]
        examples += len(label)
    top1, top5, loss = (sums / examples).tolist()
    return {"top1": top1, "top5": top5, "loss": loss}


def _clustered(
    network: Network, depth: int, settings: Finish, pipeline: Pipeline, tuning: FineTuning, folder: Path
) -> dict[str, Any]:
    clusters = settings.clusters or 16
    before = finishing.weights_of(network, depth)
    finishing.cluster(network, depth, clusters, pipeline, tuning)
    network.facts = replace(network.facts, depths=[depth])
    after = finishing.weights_of(network, depth)
    (folder / "weights.safetensors").write_bytes(safetensors.numpy.save(after))
    network.model().save(folder / "model.keras")
    return {
        "clusters": clusters,
        "after": _scores(network, depth, pipeline, tuning.batch_size),
        "weights_bytes": sum(array.nbytes for array in after.values()),
        "gzip_bytes_before": finishing.gzip_bytes(before),
        "gzip_bytes_after": finishing.gzip_bytes(after),
        "distinct_values": finishing.distinct_values(after),
    }
