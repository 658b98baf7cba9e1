"""ONNX files of one head of a network, or of the vote; running such a file."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasgreedy.errors import InputError
from kerasgreedy.export.checking import FLOAT_TOLERANCE, check_same, jumps, require_packages, some_images
from kerasgreedy.export.converting import convertible, network_logits
from kerasgreedy.files import plain_temporary
from kerasgreedy.network.build import Network

if TYPE_CHECKING:
    from numpy.typing import NDArray

OPSET = 17
# Names of the domain of ONNX's own operations.
_STANDARD = ("", "ai.onnx")


@plain_temporary()
def onnx(network: Network, depth: int | str) -> bytes:
    """An ONNX file: `images` (n, height, width, channels) float32, raw 0..255, to `logits` (n, classes) float32.

    n is free. Normalisation is inside. Only operations of ONNX's standard domain, opset 17.

    Args:
        depth: of a trained head, or `ensemble`.

    Raises:
        InputError: a package is missing; bad depth; an operation that ONNX does not have; the logits differ by more than 1e-5 of
            the largest.
    """
    require_onnx()
    import tf2onnx

    function = convertible(network, depth).logits
    try:
        with _quiet("tf2onnx"):
            proto, _ = tf2onnx.convert.from_function(function, input_signature=function.input_signature, opset=OPSET)
    except Exception as error:
        raise InputError(f"tf2onnx cannot take this network ({error}); nothing was written") from error
    foreign = sorted({node.op_type for node in proto.graph.node if node.domain not in _STANDARD})
    if foreign:
        raise InputError(f"ONNX has no operation for {', '.join(foreign)}; nothing was written")
    _tidy(proto)
    content = proto.SerializeToString()
    images = some_images(network)
    try:
        received = run_onnx(content, images)
    except Exception as error:  # what tf2onnx leaves as it was, onnxruntime does not load
        raise InputError(f"onnxruntime cannot run the ONNX file of this network ({error}); nothing was written") from error
    check_same("ONNX file", network_logits(network, depth, images), received, FLOAT_TOLERANCE, jumps(network))
    return content


def run_onnx(content: bytes, images: "NDArray") -> "NDArray[np.float32]":
    """Logits (n, classes) float32 that an ONNX file gives for raw images (n, height, width, channels) of 0..255."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": np.asarray(images, np.float32)})[0]


def require_onnx() -> None:
    """Refuses to begin without the packages; see `require_packages`."""
    require_packages(["tf2onnx", "onnx", "onnxruntime"], "'kerasgreedy[export]'")


def _tidy(proto: Any) -> None:
    """Drops domains that nothing is of, and names the free size."""
    used = [entry for entry in proto.opset_import if entry.domain in _STANDARD]
    del proto.opset_import[:]
    proto.opset_import.extend(used)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Errors only from this logger; what they mean for the file is found when it is run."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
