"""Images that a run has never seen, made ready as its own: the same classes, size and normalisation."""

from typing import TYPE_CHECKING

import numpy as np

from kerasgreedy.data.catalog import dataset_at, describe, inapplicable
from kerasgreedy.data.folders import whole_folder
from kerasgreedy.data.info import Known
from kerasgreedy.data.loaders import open_data
from kerasgreedy.data.named import kind_of
from kerasgreedy.data.pipeline import Pipeline
from kerasgreedy.data.splits import ArraySplit, FileSplit, Split
from kerasgreedy.errors import DataError, did_you_mean
from kerasgreedy.plan.preparation import Job
from kerasgreedy.runs.open_run import normalization
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.spec.recipe import Data

if TYPE_CHECKING:
    from collections.abc import Sequence


def other_pipeline(folder: Workdir, job: Job, place: str) -> Pipeline:
    """The test images of another data set, of a folder without `train` and `test` all its images, as those of the run are.

    Args:
        place: a data set as in a recipe, or a path.

    Raises:
        DataError: it is not there, or has classes that the run does not know.
    """
    data = _data(job, place)
    height, width, channels = job.architecture.input_shape
    split = _folder(data, job, channels) if kind_of(data.dataset)[0] == "folder" else _other(data, job, (height, width), channels)
    return Pipeline(split, split, data, (height, width), job.recipe.seed, normalization(folder, channels))


def _data(job: Job, place: str) -> Data:
    """The run's data section for another data set: how images are made ready stays."""
    dataset = dataset_at(place)
    ours = job.recipe.data
    data = Data(dataset=dataset, validation=0, normalize=ours.normalize, image_size=ours.image_size, test_resize=ours.test_resize)
    while unfit := inapplicable(data, dataset):
        data = data.model_copy(update={unfit[0]: Data.model_fields[unfit[0]].default})
    return data


def _folder(data: Data, job: Job, channels: int) -> Split:
    folder = whole_folder(kind_of(data.dataset)[1], data, Known())
    labels = _labels(folder.class_names, job, data.dataset)
    return FileSplit([(file.path, labels[file.label]) for file in folder.splits["test"]], channels)


def _other(data: Data, job: Job, size: tuple[int, int], channels: int) -> Split:
    info = describe(data)
    _, test = open_data(data, info, size, channels)
    labels = _labels(info.class_names, job, data.dataset)
    if labels == list(range(len(labels))):
        return test
    if not isinstance(test, ArraySplit):
        raise DataError(f"{data.dataset}: its classes stand in another order than the run's, and it is too large for memory")
    return ArraySplit(test.images, np.asarray(labels)[test.labels], job.data.classes, data.dataset)


def _labels(names: "Sequence[str]", job: Job, dataset: str) -> list[int]:
    """The run's number of each class, by name; classes without names are numbers already."""
    known = job.data.class_names
    numbers = [str(number) for number in range(len(names))]
    if list(names) == numbers and not set(names) <= set(known) and len(names) <= len(known):
        return list(range(len(names)))
    strange = [name for name in names if name not in known]
    if strange:
        hint = did_you_mean(strange[0], known) or f"; allowed: {', '.join(known[:20])}"
        raise DataError(f"{dataset}: holds the class '{strange[0]}', which the run does not know{hint}")
    return [known.index(name) for name in names]
