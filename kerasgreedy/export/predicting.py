"""Predictions for image files, of an exported version or of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from kerasgreedy.data.decode import read_image
from kerasgreedy.data.folder_walk import images_below
from kerasgreedy.data.image_kinds import IMAGE_ENDINGS
from kerasgreedy.data.thumbnails import thumbnail
from kerasgreedy.errors import DataError, InputError, WorkdirError, tell
from kerasgreedy.export.endpoints import Answer
from kerasgreedy.export.export_run import Export, chosen_depths, endpoints_of
from kerasgreedy.export.image_bytes import MOST_PIXELS, MOST_SIDE
from kerasgreedy.files import plain_path, user_path
from kerasgreedy.network.build import FLOAT32
from kerasgreedy.plan.preparation import prepare
from kerasgreedy.runs.exported import CARD, check_files, read_card, version_at
from kerasgreedy.runs.open_run import trained_network
from kerasgreedy.runs.start_from import stored_info
from kerasgreedy.runs.workdir import Workdir

BATCH = 32


@dataclass(frozen=True)
class Answering:
    """A network that has been loaded.

    Attributes:
        path: folder of the version or run.
        card: the version's model card, or of a run `name`, `answer` and `class_names`.
        serve: files (n,) to probabilities and names.
        channels: that its images have: 1 or 3.
        upright: whether images are turned as their EXIF data say, as they were in training.
        exported: of a version, not of a run.
    """

    path: Path
    card: dict[str, Any]
    serve: Any
    channels: int
    upright: bool = True
    exported: bool = True


def open_network(place: str | Path, answer: Answer | None = None) -> Answering:
    """Loads an exported version, the newest of a folder of versions, or the network of a run.

    Args:
        answer: whose prediction a run gives: a trained depth, or `ensemble`; default the last trained depth. An export has its
            own.

    Raises:
        WorkdirError: there is none.
        InputError: a depth that is not trained, or one for an export.
    """
    path = user_path(place)
    if not (path / "run.json").is_file():
        if answer is not None:
            raise InputError("--depth: is for run folders; an export answers as it was written to")
        return open_export(place)
    folder = Workdir.open(path)
    job, network = trained_network(folder, prepare(*folder.documents(), stored_info(folder), begins=False))
    network.compute_in(FLOAT32)
    settings = Export(answer=answer)
    chosen, _ = chosen_depths(network, settings)
    endpoints = endpoints_of(job, network, chosen, settings)
    card = {"name": job.spec.name, "answer": chosen, "class_names": list(job.data.class_names)}
    return Answering(
        path, card, endpoints.serve_encoded, job.architecture.input_shape[-1], job.data.known.upright, exported=False
    )


def open_export(place: str | Path) -> Answering:
    """Loads a version, or the newest of a folder of versions.

    Raises:
        WorkdirError: there is none, or it was not written by `export`.
    """
    path = version_at(place)
    card = read_card(path)
    check_files(path)
    try:
        with plain_path(path) as place:
            signatures = tf.saved_model.load(str(place)).signatures
        serve = signatures["serve_encoded"]
        channels = signatures["serve"].structured_input_signature[1]["images"].shape[-1]
        classes = serve.structured_outputs["probabilities"].shape[-1]
    except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
        raise WorkdirError(f"{path}: damaged ({str(error).splitlines()[0]})") from None
    names = card.get("class_names")
    if not {"name", "answer"} <= card.keys():
        raise WorkdirError(f"{path / 'assets' / CARD}: damaged (name or answer is missing)")
    if not (isinstance(names, list) and len(names) == classes and all(isinstance(name, str) for name in names)):
        raise WorkdirError(f"{path / 'assets' / CARD}: damaged (class_names are not the names of {classes} classes)")
    return Answering(path, card, serve, channels, card.get("upright") is True)  # versions before did not turn


def predict_files(
    model: Answering, places: Sequence[str | Path], top: int = 3
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Predicts for files, and for the images of folders. They are decoded as training decodes them.

    Returns:
        For each readable file `file` and `classes` (up to `top` of `name`, `id`, `probability`, best first); and for each other
        one `file` and `error`.
    """
    predictions: list[dict[str, Any]] = []
    faults: list[dict[str, str]] = []
    good: list[tuple[str, bytes]] = []
    for file in _files(places):
        try:
            good.append((str(file), _lossless(file, model.channels, model.upright)))
        except DataError as error:
            faults.append({"file": str(file), "error": str(error).removeprefix(f"{file}: ")})
        if len(good) == BATCH:
            _predict(model, good, top, predictions)
            good = []
    if good:
        _predict(model, good, top, predictions)
    return predictions, faults


def pictures_of(predictions: Sequence[dict[str, Any]], most: int) -> dict[str, bytes]:
    """Small JPEG files of the first images that were predicted for, by file."""
    return {entry["file"]: thumbnail(read_image(entry["file"], 3)) for entry in predictions[:most]}


def _lossless(file: Path, channels: int, upright: bool) -> bytes:
    """The pixels of a file, by the decoder of training, as a PNG file."""
    image = read_image(str(file), channels, upright)
    if image.shape[0] * image.shape[1] > MOST_PIXELS or max(image.shape) > MOST_SIDE:
        raise DataError(
            f"{file}: has {image.shape[0]}x{image.shape[1]} pixels; allowed: {MOST_PIXELS:,}, and {MOST_SIDE:,} a side"
        )
    return bytes(tf.io.encode_png(image, compression=1).numpy())


def _files(places: Sequence[str | Path]) -> list[Path]:
    files: list[Path] = []
    for place in places:
        path = user_path(place)
        if path.is_dir():
            inside, lost = images_below(path)
            if not inside:
                raise InputError(f"{path}: holds no {', '.join(IMAGE_ENDINGS)} file")
            if lost.count:
                tell(f"{path}: {lost.words}")
            files += inside
        else:
            files.append(path)
    return files


def _predict(model: Answering, files: Sequence[tuple[str, bytes]], top: int, predictions: list[dict[str, Any]]) -> None:
    probabilities = model.serve(image_bytes=tf.constant([content for _, content in files]))["probabilities"].numpy()
    names = model.card["class_names"]
    for (file, _), row in zip(files, probabilities, strict=True):
        best = (-row).argsort(kind="stable")[:top]
        classes = [{"name": names[index], "id": int(index), "probability": float(row[index])} for index in best]
        predictions.append({"file": file, "classes": classes})
