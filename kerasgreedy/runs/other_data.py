"""Images that a run has never seen, made ready as its own: the same classes, size and normalisation."""

from typing import TYPE_CHECKING

import numpy as np

from kerasgreedy.data.catalog import dataset_at, describe, inapplicable
from kerasgreedy.data.contents import stamped
from kerasgreedy.data.folders import whole_folder
from kerasgreedy.data.info import Known
from kerasgreedy.data.loaders import is_readable, open_data
from kerasgreedy.data.named import kind_of
from kerasgreedy.data.pipeline import Pipeline
from kerasgreedy.data.splits import ArraySplit, FileSplit, Split
from kerasgreedy.errors import DataError, did_you_mean, tell
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
    split = (
        _folder(folder, data, job, channels)
        if kind_of(data.dataset)[0] == "folder"
        else _other(data, job, (height, width), channels)
    )
    return Pipeline(split, split, data, (height, width), job.recipe.seed, normalization(folder, channels))


def _data(job: Job, place: str) -> Data:
    """The run's data section for another data set: how images are made ready stays."""
    dataset = dataset_at(place)
    ours = job.recipe.data
    data = Data(dataset=dataset, validation=0, normalize=ours.normalize, image_size=ours.image_size, test_resize=ours.test_resize)
    while unfit := inapplicable(data, dataset):
        data = data.model_copy(update={unfit[0]: Data.model_fields[unfit[0]].default})
    return data


def _folder(folder: Workdir, data: Data, job: Job, channels: int) -> Split:
    """Without the images that the run was trained on, and, where the run skips such, without those that cannot be read."""
    known = Known(reading=job.data.reading)
    found = whole_folder(kind_of(data.dataset)[1], data, known)
    labels = _labels(found.class_names, job, data.dataset)
    files = found.splits["test"]
    if found.passed_over.count:
        tell(f"{data.dataset}: {found.passed_over.words}")
    if job.recipe.data.corrupt == "skip":
        good = [file for file in files if is_readable(file.path, channels)]
        if len(good) < len(files):
            tell(f"{data.dataset}: left out {len(files) - len(good):,} unreadable image file(s)")
        files = good
    trained = _trained_on(folder, job)
    if trained is None:
        tell(f"{folder.path}: does not know what its files held, so it is not looked whether it was trained on some of these")
    else:
        stamps = stamped({file.name: file.path for file in files})
        fresh = [file for file in files if stamps[file.name][4] not in trained]
        if len(fresh) < len(files):
            tell(f"{data.dataset}: left out {len(files) - len(fresh):,} image(s) that the run was trained on")
        files = fresh
    if not files:
        raise DataError(f"{data.dataset}: no image is left to measure on")
    return FileSplit([(file.path, labels[file.label]) for file in files], channels, known.upright)


def _trained_on(folder: Workdir, job: Job) -> set[str] | None:
    """What the files of the run's training split held, the images that validate among them; None where it was not noted."""
    stamps = folder.data_files()
    if stamps is None or kind_of(job.data.dataset)[0] != "folder":
        return None if stamps is None and kind_of(job.data.dataset)[0] == "folder" else set()
    tested = set(job.data.test_files or ())
    return {stamp[4] for name, stamp in stamps.items() if name not in tested and not (not tested and name.startswith("test/"))}


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
    nameless = kind_of(dataset)[0] != "folder"
    if nameless and list(names) == numbers and not set(names) <= set(known) and len(names) <= len(known):
        return list(range(len(names)))
    strange = [name for name in names if name not in known]
    if strange:
        hint = did_you_mean(strange[0], known) or f"; allowed: {', '.join(known[:20])}"
        raise DataError(f"{dataset}: holds the class '{strange[0]}', which the run does not know{hint}")
    return [known.index(name) for name in names]
