"""Networks and images for `linearity`: a spec with random ones, or those of a run folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasgreedy.analysis.linearity import LIMIT, linearity
from kerasgreedy.data.pipeline import Part
from kerasgreedy.errors import InputError, ShapeError, did_you_mean
from kerasgreedy.graph.architecture import architecture
from kerasgreedy.network.build import FLOAT32, Network
from kerasgreedy.runs.open_run import open_job, open_pipeline, trained_network
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.spec.load import load_spec

PARTS = ("validation", "test", "train")


def linearity_of_spec(
    spec: str | Path,
    overrides: Sequence[str] = (),
    examples: int = 8,
    depth: int | None = None,
    weights: str = "kernel",
    limit: int = LIMIT,
    seed: int = 0,
) -> dict[str, Any]:
    """`linearity` of a spec with fresh weights on normal random images, both drawn by the seed.

    Raises:
        SpecError, InputError: the spec, or one of its layers or an argument, cannot be used.
    """
    _check_counts(examples, limit)
    document = load_spec(spec, overrides)
    try:
        arch = architecture(document.value)
    except ShapeError as error:
        raise document.shape_problem(error) from None
    x = np.random.default_rng(seed).normal(size=(examples, *arch.input_shape)).astype(np.float32)
    found = linearity(Network(arch, seed), x, depth, weights, limit, seed)
    return {"place": str(spec), "images": "random", **found}


def linearity_of_run(
    workdir: str | Path,
    part: Part = "validation",
    examples: int = 8,
    depth: int | None = None,
    weights: str = "kernel",
    limit: int = LIMIT,
) -> dict[str, Any]:
    """`linearity` of a run's trained weights on images of one of its parts, drawn by the run's seed; nothing is written.

    Raises:
        WorkdirError, CheckpointError, DataError: the run folder or its data cannot be used, or nothing is trained yet.
        InputError: a layer or an argument cannot be used.
    """
    _check_counts(examples, limit)
    if part not in PARTS:
        raise InputError(f"part: received '{part}'; allowed: {', '.join(PARTS)}{did_you_mean(part, PARTS)}")
    folder = Workdir.open(workdir)
    job, network = trained_network(folder, open_job(folder, None))
    network.compute_in(FLOAT32)
    pipeline = open_pipeline(job, None, folder)
    held = len(pipeline.parts[part])
    if examples > held:
        raise InputError(f"examples: received {examples}; allowed: up to {held:,}, the images of part '{part}'")
    with pipeline.named_failures():
        # One full batch: there is no image of weight 0 in it.
        x, _, _ = next(pipeline.evaluation(part, examples, examples).as_numpy_iterator())
    return {"place": str(folder.path), "images": part, **linearity(network, x, depth, weights, limit, job.recipe.seed)}


def _check_counts(examples: int, limit: int) -> None:
    for key, count in (("examples", examples), ("limit", limit)):
        if count < 1:
            raise InputError(f"{key}: received {count}; allowed: 1 or more")
