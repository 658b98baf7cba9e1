"""Files beside the SavedModel: for Keras, for devices, for other runtimes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import keras
import numpy as np

from kerasgreedy.data.arrays import ImageArrays
from kerasgreedy.data.pipeline import Part, Pipeline
from kerasgreedy.export.checking import FLOAT_TOLERANCE, check_accuracy, check_same, jumps, some_images
from kerasgreedy.export.converting import network_logits
from kerasgreedy.export.endpoints import Answer
from kerasgreedy.export.lite import run_tflite, tflite
from kerasgreedy.export.onnx import onnx
from kerasgreedy.export.portable import portable_model
from kerasgreedy.network.build import Network
from kerasgreedy.runs.open_run import open_job, open_pipeline
from kerasgreedy.runs.workdir import Workdir

if TYPE_CHECKING:
    from numpy.typing import NDArray

Format: TypeAlias = Literal["keras", "tflite", "tflite_float16", "tflite_int8", "onnx"]
CALIBRATION_IMAGES, CHECKED_IMAGES = 256, 1000


@dataclass(frozen=True)
class NetworkSource:
    """What a format is made of.

    Attributes:
        network: with trained weights.
        answer: of a file with one output.
        run, data: where its images are had from.
    """

    network: Network
    answer: Answer
    run: Workdir
    data: ImageArrays | None


def write_format(name: Format, folder: Path, source: NetworkSource) -> dict[str, Any]:
    """Writes one file into a folder, after comparing it with the network.

    Returns:
        `format`, `file`, `bytes`; of int8 also `images`, `part`, `top1_float` and `top1` on them.

    Raises:
        InputError: it would give something else, or a package is missing.
    """
    file, write = _FORMATS[name]
    about = write(source, folder / file)
    return {"format": name, "file": file, "bytes": (folder / file).stat().st_size, **about}


def _keras(source: NetworkSource, file: Path) -> dict[str, Any]:
    """The file itself is loaded again and compared at every depth, and the vote."""
    portable_model(source.network).save(file)
    images = some_images(source.network)
    received = keras.models.load_model(file)(images, training=False)
    answers: list[Answer] = [*source.network.depths, "ensemble"]
    for depth in answers:
        name = "ensemble" if depth == "ensemble" else f"depth_{depth}"
        expected, given = network_logits(source.network, depth, images), np.asarray(received[name])
        check_same(f"{file.name}, {name},", expected, given, FLOAT_TOLERANCE, jumps(source.network))
    return {}


def _float(source: NetworkSource, file: Path) -> dict[str, Any]:
    file.write_bytes(tflite(source.network, source.answer, "float"))
    return {}


def _float16(source: NetworkSource, file: Path) -> dict[str, Any]:
    file.write_bytes(tflite(source.network, source.answer, "float16"))
    return {}


def _int8(source: NetworkSource, file: Path) -> dict[str, Any]:
    job = open_job(source.run, source.data)
    pipeline = open_pipeline(job, source.data, source.run)
    with pipeline.named_failures():
        calibration, _ = _raw_images(pipeline, "train", CALIBRATION_IMAGES)
        part: Part = "validation" if len(pipeline.parts["validation"]) else "train"
        images, labels = _raw_images(pipeline, part, CHECKED_IMAGES)
    content = tflite(source.network, source.answer, "int8", calibration)
    float_content = tflite(source.network, source.answer, "float")
    before, after = (float((run_tflite(each, images).argmax(1) == labels).mean()) for each in (float_content, content))
    check_accuracy("tflite_int8", before, after, len(labels))
    file.write_bytes(content)
    return {"images": len(labels), "part": part, "top1_float": before, "top1": after}


def _onnx(source: NetworkSource, file: Path) -> dict[str, Any]:
    file.write_bytes(onnx(source.network, source.answer))
    return {}


def _raw_images(pipeline: Pipeline, part: Part, most: int) -> tuple["NDArray[np.uint8]", "NDArray[np.int32]"]:
    """Up to so many unaugmented images of a part, uint8 of 0..255, and their labels."""
    images, labels = [], []
    for image, label, weight in pipeline.evaluation(part, 64, most).as_numpy_iterator():
        kept = weight > 0
        raw = image[kept] * pipeline.deviation + pipeline.mean
        images.append(np.rint(raw).clip(0, 255).astype(np.uint8))
        labels.append(label[kept])
    return np.concatenate(images), np.concatenate(labels)


_FORMATS: dict[Format, tuple[str, Callable[[NetworkSource, Path], dict[str, Any]]]] = {
    "keras": ("model.keras", _keras),
    "tflite": ("model.tflite", _float),
    "tflite_float16": ("model_float16.tflite", _float16),
    "tflite_int8": ("model_int8.tflite", _int8),
    "onnx": ("model.onnx", _onnx),
}
