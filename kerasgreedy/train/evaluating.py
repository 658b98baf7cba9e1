"""Evaluate a run: on its own images, on its own images elsewhere, or on others of the same classes."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from kerasgreedy.data.arrays import ImageArrays
from kerasgreedy.data.pipeline import Part, Pipeline
from kerasgreedy.errors import DataError, InputError, WorkdirError, tell
from kerasgreedy.files import user_path, write_atomically
from kerasgreedy.network.answers import Answers, answers_of
from kerasgreedy.plan.batch_sizes import whole_shares
from kerasgreedy.plan.preparation import Job, prepare
from kerasgreedy.reports.answers_table import class_rows
from kerasgreedy.reports.figures import write_figure
from kerasgreedy.reports.pictures_plot import draw_confusion, draw_sheet
from kerasgreedy.runs.devices import own_devices
from kerasgreedy.runs.open_run import open_job, open_pipeline, trained_state
from kerasgreedy.runs.other_data import other_pipeline
from kerasgreedy.runs.start_from import stored_info
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.solvers.alternation.masked_network import Masks, masked_layers
from kerasgreedy.train.results import score

MISTAKES = 24


def evaluate_run(
    workdir: str | Path,
    part: Part = "test",
    data: ImageArrays | None = None,
    strategy: tf.distribute.Strategy | None = None,
    batch_size: int | None = None,
    masks: Masks | None = None,
    rule: Literal["positive", "energy"] | None = None,
    beta: float | None = None,
    devices: str | None = None,
    check_data: bool = False,
    data_at: str | None = None,
    details: str | Path | None = None,
) -> dict[str, Any]:
    """Top-1, top-5 and loss of every trained depth and of their ensemble.

    Args:
        masks, rule, beta: evaluate the last phase that alternated under masks instead of activations, see `masked_layers`.
        strategy, devices: see `train_spec`.
        check_data: see `resume_run`.
        data_at: where the run's data are now; or other images of the same classes, of which the test part is taken (of a folder
            of class folders all images).
        details: a folder for `classes.csv`, `confusion.csv`, `confusion.png` and `mistakes.png` (the surest mistakes) of the
            deepest trained head, which are replaced if they are there.

    Returns:
        `depths` (depth, top1, top5, loss), `ensemble` (top1, top5, loss), `examples`, `part`; on other images `data`; with
        `details` `classes` (name, images, right), `confusion` (images by label and answer), `mistakes` (place, label, answer,
        probability) and `details` (the folder).
    """
    if details is not None and masks:
        raise InputError("--details are about activations; leave --masks out")
    target = None if details is None else _free(user_path(details))
    folder, job, other = _subject(workdir, data, check_data, data_at)
    if other and part != "test":
        raise InputError(f"--part: received '{part}'; of other images than the run's the test part is measured on")
    strategy = strategy or own_devices(folder.documents()[1].value.distribute, devices).strategy
    with strategy.scope():
        job, state = trained_state(folder, job)
        network = state.network
        instead = masked_layers(folder, job, network, state.position.kept, masks, rule, beta) if masks else None
    pipeline = other_pipeline(folder, job, other) if other else open_pipeline(job, data, folder)
    with pipeline.named_failures():
        scores = score(job, network, pipeline, strategy, part, batch_size, instead)
        if other:
            scores["data"] = other
        if target is not None:
            size = whole_shares(batch_size or job.recipe.training.batch_size, 1)
            answers = answers_of(network, network.facts.depths[-1], pipeline.evaluation(part, size), MISTAKES)
            scores |= _write_details(answers, job.data.class_names, pipeline, f"{folder.path.name}", part, target)
    return scores


def _subject(
    workdir: str | Path, data: ImageArrays | None, check_data: bool, data_at: str | None
) -> tuple[Workdir, Job, str | None]:
    """The run folder, its job, and the place of other images than the run's if those are meant."""
    if data_at is None:
        folder = Workdir.open(workdir)
        return folder, open_job(folder, data, check_data), None
    try:
        folder = Workdir.open(workdir, data_at)
        return folder, open_job(folder, data, check_data), None
    except (DataError, InputError) as error:
        folder = Workdir.open(workdir)
        reason = str(error).removeprefix(f"{folder.path}: ").removeprefix("--data: ")
    tell(f"{data_at} does not hold the run's own images, so it is measured on as others are ({reason})")
    return folder, prepare(*folder.documents(), stored_info(folder), begins=False), data_at


def _free(folder: Path) -> Path:
    """A folder for details.

    Raises:
        WorkdirError: it is a file, or holds something else.
    """
    ours = {"classes.csv", "confusion.csv", "confusion.png", "mistakes.png"}
    if folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - ours):
        raise WorkdirError(f"{folder}: is no folder of details; give another --out")
    return folder


def _write_details(
    answers: Answers, names: Sequence[str], pipeline: Pipeline, name: str, part: Part, target: Path
) -> dict[str, Any]:
    counts = answers.confusion.tolist()
    named = enumerate(zip(names, counts, strict=True))
    classes = [{"name": each, "images": sum(row), "right": row[index]} for index, (each, row) in named]
    examples = sum(entry["images"] for entry in classes)
    facts = {"name": name, "classes": list(names), "confusion": counts, "examples": examples, "part": part}
    accuracy = (examples - answers.wrong) / examples
    target.mkdir(parents=True, exist_ok=True)
    _write_csv(target / "classes.csv", class_rows(classes, counts))
    _write_csv(target / "confusion.csv", [["label", *names], *([each, *row] for each, row in zip(names, counts, strict=True))])
    write_figure(target / "confusion.png", lambda: draw_confusion({**facts, "accuracy": accuracy}), overwrite=True)
    texts = [f"{names[m.answer]} {100 * m.probability:.0f} %\nis {names[m.label]}" for m in answers.mistakes]
    pictures = [((m.image * pipeline.deviation + pipeline.mean) / 255).clip(0, 1) for m in answers.mistakes]
    (target / "mistakes.png").unlink(missing_ok=True)  # there may be none now
    if pictures:
        title = f"{name}: the surest of {answers.wrong:,} mistakes ({examples:,} {part} images)"
        write_figure(target / "mistakes.png", lambda: draw_sheet(np.array(pictures), texts, title), overwrite=True)
    mistakes = [
        {"place": m.place, "label": names[m.label], "answer": names[m.answer], "probability": m.probability}
        for m in answers.mistakes
    ]
    return {"classes": classes, "confusion": counts, "mistakes": mistakes, "details": str(target)}


def _write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    content = io.StringIO()
    csv.writer(content, lineterminator="\n").writerows(rows)
    write_atomically(path, content.getvalue().encode())
