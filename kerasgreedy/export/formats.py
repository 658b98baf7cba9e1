"""Files beside the SavedModel: for Keras, for devices, for other runtimes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kerasgreedy.data.arrays import ImageArrays
from kerasgreedy.data.pipeline import Part, Pipeline
from kerasgreedy.export.checking import FLOAT_TOLERANCE, check_accuracy, check_same, jumps, some_images
from kerasgreedy.export.converting import network_logits
from kerasgreedy.export.endpoints import Answer
from kerasgreedy.export.lite import Kind, check_int8, run_tflite, tflite
from kerasgreedy.export.onnx import onnx, require_onnx
from kerasgreedy.export.portable import portable_model
from kerasgreedy.network.build import Network
from kerasgreedy.runs.open_run import open_job, open_pipeline
from kerasgreedy.runs.workdir import Workdir

if TYPE_CHECKING:
    from numpy.typing import NDArray

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


class ExportFormat(ABC):
    """A kind of file that an export can hold beside the SavedModel.

    Attributes:
        file: its name.
    """

    file: str

    def check(self, source: Workdir, data: ImageArrays | None) -> None:
        """Refuses what cannot be, before all the work; see `NetworkSource` for the arguments.

        Raises:
            KerasgreedyError: a package or data is missing.
        """

    @abstractmethod
    def write(self, source: NetworkSource, file: Path) -> dict[str, Any]:
        """Writes the file, after comparing it with the network; returns what else is to be said of it.

        Raises:
            InputError: it would give something else.
        """


class KerasFile(ExportFormat):
    """Stock Keras layers, with all depths and the vote. The file itself is loaded again and compared at each."""

    file = "model.keras"

    def write(self, source: NetworkSource, file: Path) -> dict[str, Any]:
        portable_model(source.network).save(file)
        images = some_images(source.network)
        received = keras.models.load_model(file)(images, training=False)
        answers: list[Answer] = [*source.network.facts.depths, "ensemble"]
        for depth in answers:
            name = "ensemble" if depth == "ensemble" else f"depth_{depth}"
            expected, given = network_logits(source.network, depth, images), np.asarray(received[name])
            check_same(f"{file.name}, {name},", expected, given, FLOAT_TOLERANCE, jumps(source.network))
        return {}


class LiteFloat(ExportFormat):
    """TFLite with weights of float32."""

    file = "model.tflite"
    kind: Kind = "float"

    def write(self, source: NetworkSource, file: Path) -> dict[str, Any]:
        file.write_bytes(tflite(source.network, source.answer, self.kind))
        return {}


class LiteFloat16(LiteFloat):
    """TFLite with weights of float16."""

    file = "model_float16.tflite"
    kind = "float16"


class LiteInt8(ExportFormat):
    """TFLite in whole numbers. It says `images`, `part`, and `top1_float` and `top1` on them."""

    file = "model_int8.tflite"

    def check(self, source: Workdir, data: ImageArrays | None) -> None:
        check_int8(open_job(source, data).architecture)  # which refuses data that is gone or changed

    def write(self, source: NetworkSource, file: Path) -> dict[str, Any]:
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


class OnnxFile(ExportFormat):
    """ONNX, operations of its standard domain only."""

    file = "model.onnx"

    def check(self, source: Workdir, data: ImageArrays | None) -> None:
        require_onnx()

    def write(self, source: NetworkSource, file: Path) -> dict[str, Any]:
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
