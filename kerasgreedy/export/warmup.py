"""Requests that TensorFlow Serving runs when it loads a version, so that the first real one is not slow."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tensorflow as tf

from kerasgreedy.files import plain_path

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

WARM_UP_FILE = "assets.extra/tf_serving_warmup_requests"
# Numbers of fields in TensorFlow Serving's prediction_log.proto, predict.proto and model.proto, all of them messages, strings
# or maps. Its Python package would bring the same three lines, and gRPC, and one fixed TensorFlow.
_PREDICT_LOG, _REQUEST, _MODEL_SPEC, _INPUTS, _SIGNATURE_NAME, _KEY, _VALUE = 6, 1, 1, 2, 3, 1, 2


def write_warm_up(folder: Path, requests: Sequence[tuple[str, Mapping[str, "ArrayLike"]]]) -> None:
    """Writes the warm-up file of a SavedModel.

    Args:
        folder: of the version.
        requests: signature and its inputs by name, in the order in which they shall run.
    """
    target = folder / WARM_UP_FILE
    target.parent.mkdir()
    with plain_path(target.parent) as place, tf.io.TFRecordWriter(str(place / target.name)) as file:
        for signature, inputs in requests:
            file.write(_prediction_log(signature, inputs))


def _prediction_log(signature: str, inputs: Mapping[str, "ArrayLike"]) -> bytes:
    """A serialized PredictionLog. The model's name stays empty: the server fills in its own."""
    request = _field(_MODEL_SPEC, _field(_SIGNATURE_NAME, signature.encode()))
    for name, value in inputs.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        request += _field(_INPUTS, _field(_KEY, name.encode()) + _field(_VALUE, tensor))
    return _field(_PREDICT_LOG, _field(_REQUEST, request))


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field in protobuf's encoding."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, lowest first; the eighth says that more follow."""
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
