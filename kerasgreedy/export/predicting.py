"""Predictions of an exported version for image files."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from kerasgreedy.errors import InputError, WorkdirError
from kerasgreedy.export.card import CARD, read_card
from kerasgreedy.export.image_bytes import MOST_PIXELS
from kerasgreedy.export.sealed import FACTS, check_files
from kerasgreedy.files import read_bytes, user_path

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
BATCH = 32
# A bitmap of as many pixels as the model takes, at four bytes each, and its head.
MOST_BYTES = 4 * MOST_PIXELS + 4096


@dataclass(frozen=True)
class Exported:
    """A version that has been loaded.

    Attributes:
        path: its folder.
        card: its model card.
        serve: files (n,) to probabilities and names.
    """

    path: Path
    card: dict[str, Any]
    serve: Any


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
        serve = tf.saved_model.load(str(path)).signatures["serve_encoded"]
        classes = serve.structured_outputs["probabilities"].shape[-1]
    except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
        raise WorkdirError(f"{path}: damaged ({str(error).splitlines()[0]})") from None
    names = card.get("class_names")
    if not {"name", "answer"} <= card.keys():
        raise WorkdirError(f"{path / 'assets' / CARD}: damaged (name or answer is missing)")
    if not (isinstance(names, list) and len(names) == classes and all(isinstance(name, str) for name in names)):
        raise WorkdirError(f"{path / 'assets' / CARD}: damaged (class_names are not the names of {classes} classes)")
    return Exported(path, card, serve)


def _is_version(path: Path) -> bool:
    """Even if its model is lost: an older version must not answer in its place without a word."""
    return any((path / name).is_file() for name in ("saved_model.pb", FACTS))


def predict_files(
    model: Exported, places: Sequence[str | Path], top: int = 3
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Predicts for files, and for the images of folders.

    Returns:
        For each readable file `file` and `classes` (up to `top` of `name`, `id`, `probability`, best first); and for each other
        one `file` and `error`.
    """
    predictions: list[dict[str, Any]] = []
    faults: list[dict[str, str]] = []
    good: list[tuple[str, bytes]] = []
    for file in _files(places):
        try:
            if file.exists() and not file.is_file():  # a pipe would be waited for
                raise OSError("no ordinary file")
            good.append((str(file), read_bytes(file, MOST_BYTES)))
        except OSError as error:
            faults.append({"file": str(file), "error": error.strerror or str(error)})
        if len(good) == BATCH:
            _predict(model, good, top, predictions, faults)
            good = []
    if good:
        _predict(model, good, top, predictions, faults)
    return predictions, faults


def _files(places: Sequence[str | Path]) -> list[Path]:
    files: list[Path] = []
    for place in places:
        path = user_path(place)
        if path.is_dir():
            inside = sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES and each.is_file())
            if not inside:
                raise InputError(f"{path}: holds no {', '.join(SUFFIXES)} file")
            files += inside
        else:
            files.append(path)
    return files


def _predict(
    model: Exported, files: Sequence[tuple[str, bytes]], top: int, predictions: list[dict[str, Any]], faults: list[dict[str, str]]
) -> None:
    """A batch that holds a bad file fails as a whole: its files are then asked one by one."""
    try:
        probabilities = model.serve(image_bytes=tf.constant([content for _, content in files]))["probabilities"].numpy()
    except tf.errors.InvalidArgumentError as error:
        if len(files) == 1:
            faults.append({"file": files[0][0], "error": _reason(str(error))})
            return
        for each in files:
            _predict(model, [each], top, predictions, faults)
        return
    names = model.card["class_names"]
    for (file, _), row in zip(files, probabilities, strict=True):
        best = (-row).argsort(kind="stable")[:top]
        classes = [{"name": names[index], "id": int(index), "probability": float(row[index])} for index in best]
        predictions.append({"file": file, "classes": classes})


def _reason(text: str) -> str:
    """The message of an assertion or of the decoder, without TensorFlow's account of the graph."""
    asserted = re.search(r"assertion failed: \[(.*?)[. ]*\]", text)
    if asserted:
        return asserted[1]
    plain = text.split("<stack traces unavailable>")[-1].strip().split("\n")[0].split("[[")[0].strip()
    return f"not a readable image ({plain})"
