"""What an analysis looks at: any Keras model with its loss, and for a run its images."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from kerasgreedy.data.arrays import ImageArrays
from kerasgreedy.data.pipeline import Part, Pipeline
from kerasgreedy.errors import InputError, did_you_mean
from kerasgreedy.network.build import FLOAT32, Network
from kerasgreedy.network.parameters import Parameters
from kerasgreedy.network.points import Losses, cross_entropy
from kerasgreedy.plan.preparation import Job
from kerasgreedy.reports.run_files import read_results
from kerasgreedy.runs.kept_weights import kept_files, read_kept
from kerasgreedy.runs.open_run import open_job, open_pipeline, trained_network
from kerasgreedy.runs.workdir import Workdir

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH = 250


@dataclass(frozen=True)
class Sample:
    """Some images of a data set as the network takes them.

    Attributes:
        images, labels: (n, height, width, channels) float32 and (n,) int32.
        rows: (n,) which images of the part they are.
        part: of the data set.
        of: images of the whole part.
    """

    images: "NDArray[Any]"
    labels: "NDArray[Any]"
    rows: "NDArray[np.int64]"
    part: str
    of: int


@dataclass(frozen=True)
class RunParts:
    """Where a subject that is a run comes from."""

    folder: Workdir
    job: Job
    network: Network
    pipeline: Pipeline
    depth: int


@dataclass(frozen=True)
class Subject:
    """A network with one head.

    Attributes:
        name: in tables and legends.
        model: normalised images to logits, or to a list of logits and what `losses` needs beside them. Its weights stay as they
            are: analyses put values in their place (`Points`).
        losses: of what the model gives, and labels.
        classes: names, or none.
        run: of a run folder.
    """

    name: str
    model: keras.Model
    losses: Losses = cross_entropy
    classes: tuple[str, ...] = ()
    run: RunParts | None = field(default=None, repr=False)

    def sample(self, part: Part, examples: int) -> Sample:
        """Images of a run's data, drawn by the run's seed, not augmented.

        Raises:
            InputError: the part has none.
        """
        pipeline = self.parts.pipeline
        there = len(pipeline.parts[part])
        if not there:
            held = ", ".join(name for name, rows in pipeline.parts.items() if len(rows))
            raise InputError(f"part '{part}' holds no images; allowed: {held}")
        found: list[tuple[Any, ...]] = []
        with pipeline.named_failures():
            for rows, images, labels in pipeline.view(part, None, min(BATCH, there), min(examples, there)).as_numpy_iterator():
                real = rows >= 0  # the last batch is filled up
                found.append((images[real], labels[real], rows[real]))
        images, labels, rows = (np.concatenate(each) for each in zip(*found, strict=True))
        return Sample(images, labels, rows, part, there)

    def pixels(self, images: "NDArray[Any]") -> "NDArray[Any]":
        """Normalised images as pictures, from 0 to 1."""
        pipeline = self.parts.pipeline
        return np.clip((images * pipeline.deviation + pipeline.mean) / 255, 0, 1)

    def image(self, part: Part, number: int) -> Sample:
        """One image of a run's data, by its place in the part from 0.

        Raises:
            InputError: there is no such image.
        """
        pipeline = self.parts.pipeline
        there = len(pipeline.parts[part])
        if not 0 <= number < there:
            raise InputError(f"image: received {number}; allowed: 0 to {there - 1} of part '{part}'")
        with pipeline.named_failures():
            for rows, images, labels in pipeline.view(part, None, min(BATCH, there)).as_numpy_iterator():
                if (own := rows == number).any():
                    return Sample(images[own], labels[own], rows[own], part, there)
        raise InputError(f"image {number} of part '{part}' is not among those that can be read")

    @property
    def parts(self) -> RunParts:
        """Of a run.

        Raises:
            InputError: it is a model alone.
        """
        if self.run is None:
            raise InputError(f"{self.name}: is a model without blocks and images of its own; allowed: a run folder")
        return self.run

    @property
    def facts(self) -> dict[str, Any]:
        """Of a run: its folder, the head's depth, and where it was evaluated the error on test data. For records."""
        if self.run is None:
            return {}
        found: dict[str, Any] = {"workdir": str(self.run.folder.path), "depth": self.run.depth}
        if (self.run.folder.path / "results.json").is_file():
            depths = {entry["depth"]: entry for entry in read_results(self.run.folder.path)["depths"]}
            found |= {"test_error": 1 - depths[self.run.depth]["top1"]} if self.run.depth in depths else {}
        return found

    @property
    def digest(self) -> str:
        """SHA-256 of all weights."""
        digest = hashlib.sha256()
        for variable in self.model.variables:
            digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).tobytes())
        return digest.hexdigest()


def run_subject(workdir: str | Path, depth: int | None = None, data: ImageArrays | None = None) -> Subject:
    """The network of a run up to a depth, in float32, all its weights trainable.

    Args:
        depth: of a trained head, from 1; default: the deepest.
        data: the arrays of a run that was trained on arrays.

    Raises:
        InputError: there is no such depth.
        WorkdirError, CheckpointError, DataError: the run folder or its data cannot be used, or nothing is trained yet.
    """
    folder = Workdir.open(workdir)
    job, network = trained_network(folder, open_job(folder, data))
    network.compute_in(FLOAT32)
    depths = network.facts.depths
    depth = depths[-1] if depth is None else depth
    if depth not in depths:
        raise InputError(f"depth: received {depth}; allowed: a trained one of {folder.path} ({', '.join(map(str, depths))})")
    objective = network.objective(network.architecture.heads[depth - 1].name)

    def losses(outputs: Any, labels: tf.Tensor) -> tf.Tensor:
        logits, block = outputs
        return objective(logits, labels, block)

    parts = RunParts(folder, job, network, open_pipeline(job, data, folder), depth)
    return Subject(folder.path.name, model_at(network, depth), losses, tuple(job.data.class_names), parts)


def class_index(names: Sequence[str], text: str, what: str = "class") -> int:
    """The class that a name or a number means.

    Raises:
        InputError: there is none; begins with `what`.
    """
    known = list(names)
    if text in known:
        return known.index(text)
    if text.isdecimal() and int(text) < len(known):
        return int(text)
    hint = did_you_mean(text, known) or f"; allowed: {', '.join(known[:20])}, or a number below {len(known)}"
    raise InputError(f"{what}: received '{text}'{hint}")


def kept_points(subject: Subject, parameters: Parameters) -> list[tuple[int, "NDArray[Any]"]]:
    """(epochs done, weights (size,)) along the last phase that kept some, the weights as they are now at the end.

    Components that this phase did not train are as they are now; heads at other depths do not matter.

    Raises:
        InputError: nothing was kept, or of another network only.
    """
    depth, network, folder = subject.parts.depth, subject.parts.network, subject.parts.folder.path
    components = [block.name for block in network.architecture.blocks[:depth]]
    components.append(network.architecture.heads[depth - 1].name)
    variables = {key: variable for name in components for key, variable in network.variables(name).items()}
    names = {id(variable): key for key, variable in variables.items()}
    now, found = parameters.read(), []
    for files in reversed(kept_files(folder).values()):
        for epoch, path in files:
            arrays = {key: value for key, value in read_kept(path).items() if key in variables}
            theta = now.copy()
            for tensor, variable in zip(parameters.tensors, subject.model.trainable_variables, strict=True):
                value = arrays.get(names[id(variable)])
                if value is not None and value.shape == tensor.shape:
                    theta[tensor.start : tensor.stop] = value.reshape(-1)
            if arrays and all(tuple(variables[key].shape) == value.shape for key, value in arrays.items()):
                found.append((epoch, theta))
        if found:
            break
    if len(found) < 2:
        raise InputError(f"{folder}: holds no weights of the way to depth {depth}; train with keep_checkpoints: 20 in the recipe")
    if not np.array_equal(found[-1][1], now):
        found.append((found[-1][0], now))
    return found


def model_at(network: Network, depth: int) -> keras.Model:
    """Normalised images to the logits of a head and what that head is given; shares the network's weights."""
    images = keras.Input(network.architecture.input_shape, name="images", dtype="float32")
    x = images
    for block in network.blocks[:depth]:
        block.trainable = True
        x = block(x)
    head = network.heads[depth - 1]
    head.trainable = True
    return keras.Model(images, [head(x), x], name=f"depth_{depth}")
