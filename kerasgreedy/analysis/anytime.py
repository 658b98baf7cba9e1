"""Early exit: accuracy against multiply-adds when the first head that is sure enough answers."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from kerasgreedy.data.arrays import ImageArrays
from kerasgreedy.data.pipeline import Part, Pipeline
from kerasgreedy.errors import InputError, did_you_mean
from kerasgreedy.graph.architecture import Architecture
from kerasgreedy.network.build import FLOAT32, Network
from kerasgreedy.nn.ensemble import Ensemble
from kerasgreedy.plan.preparation import Job
from kerasgreedy.runs.open_run import open_job, open_pipeline, trained_network
from kerasgreedy.runs.workdir import Workdir

# The threshold that no confidence reaches: every head is asked, and the last one answers.
NEVER: Literal["never"] = "never"
Threshold: TypeAlias = float | Literal["never"]
# Low ones are for many classes, where confidence is low; of ten classes the largest probability is never under 0.1.
THRESHOLDS: tuple[Threshold, ...] = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, NEVER)
PARTS = ("test", "validation", "train")


def anytime_of(
    workdir: str | Path,
    part: Part = "test",
    data: ImageArrays | None = None,
    thresholds: Sequence[Threshold] | None = None,
    batch_size: int | None = None,
    data_at: str | None = None,
) -> dict[str, Any]:
    """Top-1 and mean multiply-adds of an image when a network answers at the first head that is confident.

    Confidence is the largest softmax probability of a head, in float32. The trained heads are asked in order; the first whose
    confidence is at least the threshold answers, and the last one answers always. An image pays for all blocks up to its exit
    and for every trained head on the way. One pass over the part, in float32, on one device; every image counts once and
    nothing is written.

    Args:
        workdir: of a run with two trained depths or more; it need not be finished.
        part: `test`, `validation` or `train`. A threshold is chosen on `validation`; `test` is for reporting.
        data: the arrays of a run that was trained on arrays.
        thresholds: numbers from 0 (everything leaves at the first head) to 1, and `never` (nothing leaves before the last).
            At 1 those images leave whose probability is exactly 1 when rounded to float32. Default: `THRESHOLDS`.
        batch_size: default: the recipe's.
        data_at: where the data are now, see `moved_data`.

    Returns:
        `workdir`, `spec` (its name), `part`, `examples`;
        `depths`, what answering always there gives: a list of {`depth`, `top1`, `confidence` (mean), `multiply_adds` (blocks
        and that one head), `multiply_adds_share`};
        `ensemble` {`on`, `top1`, `confidence`, `multiply_adds`, `multiply_adds_share`}, the vote of all trained heads;
        `points`, by rising threshold: see `exit_curve`, and `multiply_adds_share`.
        Accuracies, confidences and shares are fractions; `multiply_adds_share` is of answering always at the last trained depth.

    Raises:
        InputError: a threshold, the part or the batch size cannot be used, or only one depth is trained.
        WorkdirError, CheckpointError, DataError: the run folder or its data cannot be used, or nothing is trained yet.
    """
    wanted = _checked(THRESHOLDS if thresholds is None else thresholds)
    if part not in PARTS:
        raise InputError(f"part: received '{part}'; allowed: {', '.join(PARTS)}{did_you_mean(part, PARTS)}")
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size: received {batch_size}; allowed: 1 or more")
    folder = Workdir.open(workdir, data_at)
    job = open_job(folder, data)
    job, network = trained_network(folder, job)
    _check_depths(folder, job, network.facts.depths)
    pipeline = open_pipeline(job, data, folder)
    if not len(pipeline.parts[part]):
        held = ", ".join(name for name, rows in pipeline.parts.items() if len(rows))
        raise InputError(f"part '{part}' holds no images; allowed: {held}")
    with pipeline.named_failures():
        confidence, right = _asked(network, pipeline, part, batch_size or job.recipe.training.batch_size)
    alone, together = exit_costs(network.architecture, network.facts.depths)
    points = exit_curve(confidence[:, :-1], right[:, :-1], network.facts.depths, together, wanted)
    sure, top1 = confidence.mean(0, np.float64).tolist(), right.mean(0).tolist()
    return {
        "workdir": str(folder.path),
        "spec": job.spec.name,
        "part": part,
        "examples": len(right),
        "depths": [
            {"depth": depth, "top1": top1[i], "confidence": sure[i], **_cost(alone[i], alone)}
            for i, depth in enumerate(network.facts.depths)
        ],
        "ensemble": {"on": network.facts.ensemble_on, "top1": top1[-1], "confidence": sure[-1], **_cost(together[-1], alone)},
        "points": [{**point, **_cost(point["multiply_adds"], alone)} for point in points],
    }


def exit_costs(arch: Architecture, depths: Sequence[int]) -> tuple[list[int], list[int]]:
    """Multiply-adds of one image that is answered at each trained depth.

    Args:
        depths: of the trained heads, ascending; 1 is the first block.

    Returns:
        with that head alone: blocks up to it and the head; and as an exit: blocks up to it and all trained heads up to it.
    """
    blocks = np.cumsum([block.multiply_adds for block in arch.blocks])[np.array(depths) - 1]
    heads = np.array([arch.heads[depth - 1].multiply_adds for depth in depths])
    return (blocks + heads).tolist(), (blocks + np.cumsum(heads)).tolist()


def exit_curve(
    confidence: ArrayLike, right: ArrayLike, depths: Sequence[int], costs: Sequence[float], thresholds: Sequence[Threshold]
) -> list[dict[str, Any]]:
    """What early exit gives at each threshold.

    Args:
        confidence: (examples, depths) float, of each trained head; compared with the threshold in float32.
        right: (examples, depths) bool, whether that head's answer is the label.
        depths: the depths of the columns, ascending.
        costs: multiply-adds of an image that leaves there, heads that were asked before included.
        thresholds: numbers, or `never`.

    Returns:
        a point for each threshold: `threshold`, `top1`, `depth` (mean of the exits), `multiply_adds` (mean of an image),
        `exits`: for each depth {`depth`, `share` (of the examples that leave there), `top1` (of those; None where none does)}.
    """
    sure, correct = np.asarray(confidence, np.float32), np.asarray(right, bool)
    rows = np.arange(len(sure))
    points = []
    for threshold in thresholds:
        leaves = sure >= np.float32(math.inf if threshold == NEVER else threshold)
        leaves[:, -1] = True
        exits = leaves.argmax(1)  # the first that is true
        answers = correct[rows, exits]
        counts = np.bincount(exits, minlength=len(depths))
        hits = np.bincount(exits, answers, minlength=len(depths))
        points.append(
            {
                "threshold": threshold,
                "top1": float(answers.mean()),
                "depth": float(counts @ np.array(depths) / len(sure)),
                "multiply_adds": float(counts @ np.array(costs, np.float64) / len(sure)),
                "exits": [
                    {"depth": depth, "share": count / len(sure), "top1": hit / count if count else None}
                    for depth, count, hit in zip(depths, counts.tolist(), hits.tolist(), strict=True)
                ],
            }
        )
    return points


def _asked(network: Network, pipeline: Pipeline, part: Part, batch_size: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Confidence and whether the answer is right: (examples, trained heads and, last, their ensemble)."""
    network.compute_in(FLOAT32)
    ensemble = Ensemble(network.facts.depths, network.facts.ensemble_on)

    @tf.function(autograph=False)
    def ask(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        heads = network.logits(images, network.facts.depths)
        logits = tf.stack([*heads, ensemble(heads)], axis=1)
        answers = tf.argmax(logits, axis=-1, output_type=tf.int32)
        return tf.reduce_max(tf.nn.softmax(logits), axis=-1), tf.equal(answers, labels[:, None])

    confidence, right = [], []
    for images, labels, weights in pipeline.evaluation(part, batch_size):
        counted = weights.numpy() > 0  # the last batch is filled up
        sure, correct = ask(images, labels)
        confidence.append(sure.numpy()[counted])
        right.append(correct.numpy()[counted])
    return np.concatenate(confidence), np.concatenate(right)


def _checked(thresholds: Sequence[Threshold]) -> list[Threshold]:
    """Each once, ascending, `never` last."""
    received = list(thresholds)
    if not received:
        raise InputError("thresholds: received none")
    for threshold in received:
        if isinstance(threshold, str) and threshold != NEVER:
            hint = did_you_mean(threshold, [NEVER])
            raise InputError(f"thresholds: received '{threshold}'; allowed: numbers from 0 to 1, and '{NEVER}'{hint}")
        if not isinstance(threshold, str) and not 0 <= threshold <= 1:
            hint = f"; no image leaves early at '{NEVER}'" if threshold > 1 else ""
            raise InputError(f"thresholds: received {threshold:g}; allowed: numbers from 0 to 1, and '{NEVER}'{hint}")
    numbers: list[Threshold] = sorted({float(threshold) for threshold in received if not isinstance(threshold, str)})
    return [*numbers, NEVER] if NEVER in received else numbers


def _check_depths(folder: Workdir, job: Job, depths: Sequence[int]) -> None:
    if len(depths) > 1:
        return
    more = [depth for depth in job.trained_depths() if depth not in depths]
    what = (
        f"so far; go on with it: train --resume {folder.path}"
        if more
        else "in this run; strategies greedy, decoupled and deep_supervision train a head at every depth"
    )
    raise InputError(f"{folder.path}: nothing to exit from: only one depth ({depths[0]}) is trained {what}")


def _cost(multiply_adds: float, alone: Sequence[float]) -> dict[str, float]:
    return {"multiply_adds": multiply_adds, "multiply_adds_share": multiply_adds / alone[-1]}
