"""ONNX files: the logits they give, what they are made of, what is refused."""

import sys

import numpy as np
import pytest
from layer_kinds import CLASSES, SHAPE, SPECS, assert_close, exported, raw_images

from kerasgreedy.errors import InputError
from kerasgreedy.export import onnx as ours
from kerasgreedy.export.converting import network_logits

WHY = "the packages of kerasgreedy[export] are not installed"


@pytest.fixture
def packages():
    return [pytest.importorskip(name, reason=WHY) for name in ("onnx", "tf2onnx", "onnxruntime")]


@pytest.mark.parametrize("kind", SPECS)
def test_logits_are_those_of_the_network_for_one_image_and_for_five(packages, kind):
    onnx, _, onnxruntime = packages
    network, images = exported(kind), raw_images(5)
    for depth in (2, "ensemble"):
        content = ours.onnx(network, depth)
        expected = network_logits(network, depth, images)
        for count in (1, 5):
            assert_close(ours.run_onnx(content, images[:count]), expected[:count])

    onnx.checker.check_model(content, full_check=True)
    proto = onnx.load_from_string(content)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", ours.OPSET)]
    assert {node.domain for node in proto.graph.node} == {""}
    session = onnxruntime.InferenceSession(content)
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.shape, taken.type) == ("images", ["n", *SHAPE], "tensor(float)")
    assert (given.name, given.shape, given.type) == ("logits", ["n", CLASSES], "tensor(float)")


def test_other_logits_are_refused(packages, monkeypatch):
    monkeypatch.setattr(ours, "network_logits", lambda *arguments: network_logits(*arguments) + 0.001)
    with pytest.raises(InputError, match="the exported ONNX file gives other logits than the network .* nothing was written"):
        ours.onnx(exported("resampled"), 1)


def test_bad_depths_and_what_cannot_be_converted_or_run(packages, monkeypatch):
    with pytest.raises(InputError, match=r"depth: received 3; allowed: a trained depth \(1, 2\), or 'ensemble'"):
        ours.onnx(exported("resampled"), 3)
    import tensorflow as tf

    module = tf.Module()
    monkeypatch.setattr(ours, "convertible", lambda *_: module)
    signature = [tf.TensorSpec((None, *SHAPE), tf.float32, name="images")]
    # tf2onnx leaves an operation that it does not know as it is.
    module.logits = tf.function(lambda images: {"logits": tf.math.erfcinv(images)}, input_signature=signature)
    with pytest.raises(InputError, match="(?s)onnxruntime cannot run the ONNX file of this network .*nothing was written"):
        ours.onnx(exported("resampled"), 1)
    module.logits = tf.function(lambda images: {"logits": 1 // 0}, input_signature=signature)
    with pytest.raises(InputError, match="(?s)tf2onnx cannot take this network .* nothing was written"):
        ours.onnx(exported("resampled"), 1)


@pytest.mark.parametrize("package", ["onnx", "tf2onnx", "onnxruntime"])
def test_a_missing_package_is_named_before_any_work(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(ours, "convertible", None)
    with pytest.raises(InputError, match=r"pip install 'kerasgreedy\[export\]' \(.*\)"):
        ours.onnx(exported("resampled"), 1)


def test_random_images_are_bytes():
    from kerasgreedy.export.checking import some_images

    network = exported("resampled")
    images = some_images(network)
    assert images.shape == (4, *SHAPE) and images.dtype == np.float32
    assert images.min() >= 0 and images.max() <= 255 and (images == images.round()).all() and np.ptp(images) > 200
    given = raw_images(6)
    np.testing.assert_array_equal(some_images(network, given.astype(np.uint8))[4:], given[:4])
