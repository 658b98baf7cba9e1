"""Predictions of an exported version for image files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from kerasgreedy.data.decode import read_image
from kerasgreedy.data.image_kinds import IMAGE_ENDINGS
from kerasgreedy.errors import DataError, InputError, WorkdirError
from kerasgreedy.export.card import CARD, read_card
from kerasgreedy.export.checksums import FACTS, check_files
from kerasgreedy.export.image_bytes import MOST_PIXELS, MOST_SIDE
from kerasgreedy.files import plain_path, user_path

BATCH = 32


@dataclass(frozen=True)
class Exported:
    """A version that has been loaded.

    Attributes:
        path: its folder.
        card: its model card.
        serve: files (n,) to probabilities and names.
        channels: that its images have: 1 or 3.
    """

    path: Path
    card: dict[str, Any]
    serve: Any
    channels: int


def open_export(place: str | Path) -> Exported:
    """Loads a version, or the newest of a folder of versions.

    Raises:
        WorkdirError: there is none, or it was not written by `export`.
    """
    path = user_path(place)
    if not path.is_dir():
        raise WorkdirError(f"{path}: no such folder")
    if not _is_version(path):
        versions = [each for each in path.iterdir() if each.name.isdecimal() and _is_version(each)]
        if not versions:
            hint = "; this is a run folder: kerasgreedy export" if (path / "run.json").is_file() else ""
            raise WorkdirError(f"{path}: holds no exported version{hint}")
        path = max(versions, key=lambda each: int(each.name))
    if not (path / "assets" / CARD).is_file():
        raise WorkdirError(f"{path}: not written by kerasgreedy export (assets/{CARD} is missing)")
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
    return Exported(path, card, serve, channels)


def _is_version(path: Path) -> bool:
    """Even if its model is lost: an older version must not answer in its place without a word."""
    return any((path / name).is_file() for name in ("saved_model.pb", FACTS))


def predict_files(
    model: Exported, places: Sequence[str | Path], top: int = 3
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
            good.append((str(file), _lossless(file, model.channels)))
        except DataError as error:
            faults.append({"file": str(file), "error": str(error).removeprefix(f"{file}: ")})
        if len(good) == BATCH:
            _predict(model, good, top, predictions)
            good = []
    if good:
        _predict(model, good, top, predictions)
    return predictions, faults


def _lossless(file: Path, channels: int) -> bytes:
    """The pixels of a file, by the decoder of training, as a PNG file."""
    image = read_image(str(file), channels)
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
            inside = sorted(each for each in path.rglob("*") if each.suffix.lower() in IMAGE_ENDINGS and each.is_file())
            if not inside:
                raise InputError(f"{path}: holds no {', '.join(IMAGE_ENDINGS)} file")
            files += inside
        else:
            files.append(path)
    return files


def _predict(model: Exported, files: Sequence[tuple[str, bytes]], top: int, predictions: list[dict[str, Any]]) -> None:
    probabilities = model.serve(image_bytes=tf.constant([content for _, content in files]))["probabilities"].numpy()
    names = model.card["class_names"]
    for (file, _), row in zip(files, probabilities, strict=True):
        best = (-row).argsort(kind="stable")[:top]
        classes = [{"name": names[index], "id": int(index), "probability": float(row[index])} for index in best]
        predictions.append({"file": file, "classes": classes})
