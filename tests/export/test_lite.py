"""TFLite files: the logits they give, what they take, what stays float in int8, what is refused."""

import numpy as np
import pytest
import tensorflow as tf
from layer_kinds import CLASSES, SHAPE, SPECS, assert_close, exported, raw_images

from kerasgreedy.errors import InputError
from kerasgreedy.export import lite
from kerasgreedy.export.converting import network_logits
from kerasgreedy.export.lite import run_tflite, tflite


def depth_of(kind):
    """One network votes by logits, one by probabilities, one is taken at its last depth."""
    return 3 if kind == "thresholds" else "ensemble"


def opened(content, plain=False):
    resolver = tf.lite.experimental.OpResolverType
    kind = resolver.BUILTIN_WITHOUT_DEFAULT_DELEGATES if plain else resolver.AUTO
    interpreter = tf.lite.Interpreter(model_content=content, experimental_op_resolver_type=kind)
    interpreter.allocate_tensors()
    return interpreter


@pytest.mark.parametrize("kind", SPECS)
def test_float_gives_the_logits_of_the_network_for_one_image_and_for_five(kind):
    network, images = exported(kind), raw_images(5)
    expected = network_logits(network, depth_of(kind), images)
    content = tflite(network, depth_of(kind), "float")
    assert_close(run_tflite(content, images), expected)

    interpreter = opened(content)
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert taken["dtype"] == given["dtype"] == np.float32
    assert list(taken["shape_signature"]) == [-1, *SHAPE] and list(given["shape_signature"]) == [-1, CLASSES]
    interpreter.resize_tensor_input(taken["index"], (5, *SHAPE))
    interpreter.allocate_tensors()
    interpreter.set_tensor(taken["index"], images)
    interpreter.invoke()
    assert_close(interpreter.get_tensor(given["index"]), expected)

    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["images"], "outputs": ["logits"]}}
    run = interpreter.get_signature_runner()
    for count in (1, 5):
        assert_close(run(images=images[:count])["logits"], expected[:count])


def test_float16_holds_its_weights_in_half_the_size():
    network, images = exported("resampled"), raw_images(5)
    expected = network_logits(network, 2, images)
    content = tflite(network, 2, "float16")
    received = run_tflite(content, images)
    assert_close(received, expected, 1e-2)
    assert np.abs(received - expected).max() > 1e-5  # they are rounded
    kernel = network.arrays("block_1")["block_1/conv_1/kernel"]
    tensors = [detail for detail in opened(content, plain=True).get_tensor_details() if np.prod(detail["shape"]) == kernel.size]
    assert np.float16 in [detail["dtype"] for detail in tensors]


# Numbers of which one is float32: the logits; beside an operation that has no int8 kernel, what it takes and gives.
FLOAT = {"resampled": 1, "branched": 3, "thresholds": 1}


def test_int8_does_not_hold_gates_and_random_features():
    with pytest.raises(InputError, match="block_1/gated_conv_1 cannot be computed in int8; allowed: tflite"):
        tflite(exported("gated"), depth_of("gated"), "int8", raw_images(8).astype(np.uint8))


@pytest.mark.parametrize("kind", [kind for kind in SPECS if kind != "gated"])
def test_int8_computes_in_int8_and_reads_bytes(kind):
    network, images = exported(kind), raw_images(48)
    depth = depth_of(kind)
    content = tflite(network, depth, "int8", images.astype(np.uint8))
    interpreter = opened(content, plain=True)
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (taken["dtype"], taken["quantization"], given["dtype"]) == (np.uint8, (1.0, 0), np.float32)
    floats = [detail["name"] for detail in interpreter.get_tensor_details() if detail["dtype"] == np.float32]
    assert len(floats) == FLOAT[kind], floats

    expected = network_logits(network, depth, images)
    received = run_tflite(content, images)
    assert np.sqrt(np.mean((received - expected) ** 2)) < 0.2 * expected.std(0).mean()
    interpreter = opened(content)
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], (5, *SHAPE))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images[:5].astype(np.uint8))
    interpreter.invoke()
    np.testing.assert_allclose(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]), received[:5], atol=1e-6)


def test_int8_reads_bytes_as_they_are_whatever_the_calibration_images_hold():
    grey = 100 + raw_images(8) / 10
    before = grey.copy()
    content = tflite(exported("resampled"), 1, "int8", grey)
    assert opened(content).get_input_details()[0]["quantization"] == (1.0, 0)
    np.testing.assert_array_equal(grey, before)
    np.testing.assert_array_equal(run_tflite(content, grey.round() + 0.4), run_tflite(content, grey.round()))  # the nearest byte


def test_a_file_that_does_not_run_is_refused(monkeypatch):
    def fail(*_):
        raise RuntimeError("failed to prepare")

    monkeypatch.setattr(lite, "run_tflite", fail)
    with pytest.raises(InputError, match=r"TFLite cannot run the int8 file of this network \(failed to prepare\); .* much alike"):
        tflite(exported("resampled"), 1, "int8", raw_images(2))
    with pytest.raises(InputError, match=r"the float file of this network \(failed to prepare\); nothing was written"):
        tflite(exported("resampled"), 1, "float")


def test_the_runtime_of_its_own_takes_the_same_file():
    runtime = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not installed")
    network, images = exported("resampled"), raw_images(5)
    run = runtime.Interpreter(model_content=tflite(network, 1, "float")).get_signature_runner()
    for count in (1, 5):
        assert_close(run(images=images[:count])["logits"], network_logits(network, 1, images[:count]))


BAD = [
    ({"kind": "int4", "depth": 1}, "kind: received 'int4'; allowed: float, float16, int8"),
    ({"kind": "float", "depth": 4}, r"depth: received 4; allowed: a trained depth \(1, 2\), or 'ensemble'"),
    ({"kind": "float", "depth": "all"}, "depth: received 'all'"),
    ({"kind": "int8", "depth": 1}, "calibration: int8 takes the ranges of its activations from images; received none"),
    (
        {"kind": "int8", "depth": 1, "calibration": np.zeros((2, 8, 8, 1))},
        r"calibration: received images of shape \(8, 8, 1\); the network takes \(8, 8, 3\)",
    ),
    (
        {"kind": "int8", "depth": 1, "calibration": np.full((2, *SHAPE), -1.5)},
        "calibration: received numbers from -1.5 to -1.5; allowed: raw images, 0 to 255",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        tflite(exported("resampled"), **arguments)


def test_other_logits_are_refused(monkeypatch):
    network = exported("resampled")
    true = network_logits
    monkeypatch.setattr(lite, "network_logits", lambda *arguments: true(*arguments) + 0.001)
    with pytest.raises(
        InputError, match="the exported float TFLite file gives other logits than the network .* nothing was written"
    ):
        tflite(network, 1, "float")
    monkeypatch.setattr(lite, "network_logits", lambda *arguments: true(*arguments) + 0.1)
    with pytest.raises(InputError, match="the exported float16 TFLite file gives other logits"):
        tflite(network, 1, "float16")


def test_what_tflite_cannot_convert_is_refused(monkeypatch):
    def fail(self):
        raise RuntimeError("no such operation")

    module = lite.convertible(exported("resampled"), 1)
    monkeypatch.setattr(lite, "convertible", lambda *_: module)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.logits.get_concrete_function()], module)
    monkeypatch.setattr(type(converter), "convert", fail)
    with pytest.raises(InputError, match=r"TFLite cannot take this network \(no such operation\); nothing was written"):
        tflite(exported("resampled"), 1, "float")
