"""TFLite files of one head of a network, or of the vote; running such a file."""

import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import tensorflow as tf

from kerasgreedy.errors import InputError, did_you_mean
from kerasgreedy.export.checking import FLOAT_TOLERANCE, HALF_TOLERANCE, check_finite, check_same, jumps, some_images
from kerasgreedy.export.converting import convertible, network_logits
from kerasgreedy.files import plain_temporary
from kerasgreedy.graph.architecture import Architecture
from kerasgreedy.graph.kinds import kind_of
from kerasgreedy.graph.tree import leaves
from kerasgreedy.network.build import Network

if TYPE_CHECKING:
    from numpy.typing import NDArray

Kind: TypeAlias = Literal["float", "float16", "int8"]
_TOLERANCES = {"float": FLOAT_TOLERANCE, "float16": HALF_TOLERANCE}


@plain_temporary()
def tflite(network: Network, depth: int | str, kind: Kind, calibration: "NDArray | None" = None) -> bytes:
    """A TFLite file: `images` (n, height, width, channels), raw 0..255, to `logits` (n, classes) float32.

    n is 1 until `resize_tensor_input` says otherwise; a signature runner does that by itself. Images are float32, with `int8`
    uint8. Normalisation is inside.

    Args:
        depth: of a trained head, or `ensemble`.
        kind: `float`; `float16`: weights of half the size, computed in float32 on a CPU; `int8`: weights and activations are
            quantised after training (Jacob et al. 2018; kernels by output channel, biases int32).
        calibration: of `int8`: raw images (n, height, width, channels) of 0..255, from which the ranges of the activations are
            taken. Some hundred training images will do.

    Raises:
        InputError: bad arguments; TFLite cannot convert the network; the logits of `float` differ by more than 1e-5 of the
            largest, those of `float16` by more than 1e-2. How much `int8` loses is for the caller to measure
            (`checking.check_accuracy`).
    """
    if kind not in get_args(Kind):
        hint = did_you_mean(kind, get_args(Kind))
        raise InputError(f"kind: received {kind!r}; allowed: {', '.join(get_args(Kind))}{hint}")
    images = _checked(network, calibration) if kind == "int8" else calibration
    module = convertible(network, depth)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.logits.get_concrete_function()], module)
    if kind != "float":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind == "int8":
        check_int8(network.architecture)
        converter.representative_dataset = lambda: _one_by_one(images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "statistics for quantized inputs were expected": they come from the images
            content = converter.convert()
    except Exception as error:  # the converter's classes are not public
        raise InputError(f"TFLite cannot take this network ({error}); nothing was written") from error
    _check(network, depth, kind, content, images)
    return content


def check_int8(arch: Architecture) -> None:
    """Refuses layers that decide by the sign of a number, or divide by small ones."""
    for component in arch.components.values():
        for node in leaves(component.nodes):
            if not kind_of(node.layer).in_int8(node.layer):
                message = f"{component.name}/{node.name} cannot be computed in int8; allowed: tflite, tflite_float16, onnx, keras"
                raise InputError(message)


def _checked(network: Network, calibration: "NDArray | None") -> "NDArray[np.float32]":
    shape = network.architecture.input_shape
    if calibration is None or not len(calibration):
        raise InputError("calibration: int8 takes the ranges of its activations from images; received none")
    images = np.array(calibration, np.float32)
    if images.shape[1:] != tuple(shape):
        raise InputError(f"calibration: received images of shape {images.shape[1:]}; the network takes {tuple(shape)}")
    if not (images.min() >= 0 and images.max() <= 255):
        raise InputError(
            f"calibration: received numbers from {images.min():g} to {images.max():g}; allowed: raw images, 0 to 255"
        )
    # So that a byte of an input image means the number that it is, whatever these images hold.
    images[0].flat[0], images[0].flat[-1] = 0, 255
    return images


def _one_by_one(images: Any) -> Iterator[list[Any]]:
    for image in images:
        yield [image[None]]


def _check(network: Network, depth: int | str, kind: Kind, content: bytes, calibration: "NDArray | None") -> None:
    images = some_images(network, calibration)
    try:
        received = run_tflite(content, images)
    except RuntimeError as error:
        hint = "; calibration images that are much alike give ranges that it cannot use" if kind == "int8" else ""
        raise InputError(f"TFLite cannot run the {kind} file of this network ({error}){hint}; nothing was written") from error
    if kind != "int8":
        expected = network_logits(network, depth, images)
        return check_same(f"{kind} TFLite file", expected, received, _TOLERANCES[kind], jumps(network))
    check_finite("what the int8 TFLite file gives", received)
    scale, zero = _interpreter(content).get_input_details()[0]["quantization"]
    if (scale, zero) != (1.0, 0):
        raise InputError(
            f"the exported int8 TFLite file does not read bytes as they are (scale {scale}, zero {zero}); nothing was written"
        )


def run_tflite(content: bytes, images: "NDArray") -> "NDArray[np.float32]":
    """Logits (n, classes) float32 that a TFLite file gives for raw images (n, height, width, channels) of 0..255."""
    return open_tflite(content)(images)


def open_tflite(content: bytes) -> "Callable[[NDArray], NDArray[np.float32]]":
    """A TFLite file as a function of raw images (n, height, width, channels) of 0..255 to logits (n, classes) float32.

    A file that takes bytes is given the nearest ones.
    """
    interpreter = _interpreter(content)
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()

    def logits(images: "NDArray") -> "NDArray[np.float32]":
        if taken["dtype"] == np.uint8:
            images = np.rint(images)
        rows = []
        for image in np.asarray(images, taken["dtype"]):
            interpreter.set_tensor(taken["index"], image[None])
            interpreter.invoke()
            rows.append(interpreter.get_tensor(given["index"])[0])
        return np.stack(rows)

    return logits


def _interpreter(content: bytes) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "is deprecated": its successor is a package of its own
        interpreter = tf.lite.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    return interpreter
