"""The Keras model that loads where this package is not: what it gives, what it is made of, training it there."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import spec_of
from layer_kinds import SPECS, assert_close, exported, raw_images

from kerasgreedy.errors import Diverged, InputError
from kerasgreedy.export import portable
from kerasgreedy.export.checking import check_accuracy, check_same
from kerasgreedy.export.portable import portable_model
from kerasgreedy.network.build import build_network

# What a process without kerasgreedy does with the files: logits of one image and of five, a step of training, logits again.
ELSEWHERE = """
import json, sys
sys.modules["kerasgreedy"] = None
import keras, numpy as np

found = {}
for kind in sys.argv[1:]:
    model = keras.models.load_model(f"{kind}.keras")
    images = np.load("images.npy")
    foreign = [layer.name for layer in model.layers if not type(layer).__module__.startswith("keras.")]
    found[kind] = {"foreign": foreign, "layers": [layer.name for layer in model.layers]}
    found[kind]["logits"] = {name: z.numpy().tolist() for name, z in model(images).items()}
    found[kind]["first"] = {name: z.numpy().tolist() for name, z in model(images[:1]).items()}
    two = [model(images, training=True)["ensemble"].numpy() for _ in range(2)]
    found[kind]["drops"] = bool(np.abs(two[0] - two[1]).max() > 1e-3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), {name: loss for name in found[kind]["logits"]})
    before = [variable.numpy() for variable in model.weights]
    labels = np.arange(5) % 4
    found[kind]["loss"] = model.fit(images, {name: labels for name in found[kind]["logits"]}, verbose=0).history["loss"][0]
    stay = [v.path for v, old in zip(model.weights, before) if np.array_equal(v.numpy(), old)]
    found[kind]["stay"] = [path for path in stay if "normalize" not in path]
json.dump(found, open("found.json", "w"))
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    for kind in SPECS:
        portable_model(exported(kind)).save(folder / f"{kind}.keras")
    np.save(folder / "images.npy", raw_images(5))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", ELSEWHERE, *SPECS], cwd=folder, env=environment, check=True, timeout=900)
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("kind", SPECS)
def test_the_file_gives_the_same_logits_where_this_package_is_not(elsewhere, kind):
    expected = exported(kind).model()(raw_images(5))
    found = elsewhere[kind]
    assert found["foreign"] == [] and set(found["logits"]) == set(expected)
    for name, logits in expected.items():
        assert_close(found["logits"][name], logits)
        assert_close(found["first"][name], logits[:1])


@pytest.mark.parametrize("kind", SPECS)
def test_the_file_can_be_trained_there(elsewhere, kind):
    found = elsewhere[kind]
    assert np.isfinite(found["loss"]) and found["drops"] == (kind == "thresholds")
    fixed = [path for path in found["stay"] if path.endswith(("_gates/kernel", "_patches/kernel"))]
    assert found["stay"] == fixed  # every other weight moved, moving statistics too
    assert len(fixed) == (16 if kind == "gated" else 0)


def test_layers_are_named_by_component_and_layer(elsewhere):
    assert {"images", "normalize", "block_1.downsample_1", "block_2.residual_1", "head_2.dense_1", "ensemble"} <= set(
        elsewhere["resampled"]["layers"]
    )


def numbers_of(layers, images, head="{layers: [{flatten: true}]}"):
    """What `layers` make of images, read through a dense layer that gives the numbers back, in a portable model."""
    height, width, channels = images.shape[1:]
    text = f"name: t\ninput_shape: [{height}, {width}, {channels}]\nclasses: 2\nblocks:\n  - {layers}\nfinal_head: {head}\n"
    count = build_network(spec_of(text).value).heads[0].layers[-1].kernel.shape[0]
    network = build_network(spec_of(text, f"classes={count}").value)
    arrays = network.arrays("head_1")
    network.load_arrays("head_1", {**arrays, "head_1/dense_1/kernel": np.eye(count, dtype=np.float32)})
    return np.asarray(portable_model(network)(images)["depth_1"])


@pytest.mark.parametrize(("side", "window", "stride", "padding"), [(5, 3, 2, 1), (6, 4, 3, 2), (3, 2, 1, 1), (2, 5, 1, 2)])
def test_a_padded_maximum_is_that_of_a_map_surrounded_by_minus_infinity(side, window, stride, padding):
    x = np.random.default_rng(0).normal(-9, 1, (2, side, side, 2)).astype(np.float32)
    padded = np.pad(x, ((0, 0), *[(padding, padding)] * 2, (0, 0)), constant_values=-np.inf)
    places = range(0, side + 2 * padding - window + 1, stride)
    expected = [[padded[:, i : i + window, j : j + window].max((1, 2)) for j in places] for i in places]
    received = numbers_of(f"[{{max_pool: {window}, stride: {stride}, padding: {padding}}}]", x)
    np.testing.assert_array_equal(received, np.stack(expected).transpose(2, 0, 1, 3).reshape(2, -1))


def test_a_number_at_its_threshold_does_not_pass():
    x = np.array([[[[6.9999995, -3.0]], [[7.0, 7.000001]]]], np.float32)
    received = numbers_of("[{activation: positive_hard_threshold, threshold: {beta: 7}}]", x)
    np.testing.assert_array_equal(received, np.array([[0, 0, 0, 7.000001]], np.float32))


def test_space_to_depth_puts_the_places_of_a_patch_one_after_the_other():
    x = np.arange(16, dtype=np.float32).reshape(1, 2, 4, 2)
    expected = [[0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15]]
    np.testing.assert_array_equal(numbers_of("[{downsample: invertible}]", x), expected)
    back = numbers_of("[{downsample: invertible}, {upsample: invertible}]", x)
    np.testing.assert_array_equal(back, x.reshape(1, -1))


def test_the_vote_of_probabilities_is_the_logarithm_of_their_weighted_mean():
    z = np.random.default_rng(0).normal(0, 3, (2, 4, 5))
    probabilities = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    expected = np.log((probabilities[0] + 4 * probabilities[1]) / 5)  # depths 1 and 3: 2^1 and 2^3
    inputs = [keras.Input((5,)), keras.Input((5,))]
    model = keras.Model(inputs, portable.vote(inputs, [1, 3], "probabilities"))
    np.testing.assert_allclose(model([*z.astype(np.float32)]), expected, rtol=1e-5)


def test_chosen_depths_only_and_float32_whatever_the_network_computes_in():
    network = build_network(spec_of("name: t\ninput_shape: [8, 8, 3]\nclasses: 3\nblocks: [{conv: 4}, {conv: 4}]").value)
    network.compute_in("mixed_bfloat16")
    model = portable_model(network, [1])
    assert list(model.output) == ["depth_1", "ensemble"] and {layer.compute_dtype for layer in model.layers} == {"float32"}
    images = raw_images(3)
    assert_close(model(images)["depth_1"], network.model([1])(images)["depth_1"])
    with pytest.raises(InputError, match="depth: received 3; this network has depths 1 to 2"):
        portable_model(network, [1, 3])


def test_a_model_that_differs_is_refused(monkeypatch):
    monkeypatch.setitem(portable.Rebuild.kinds, portable.L.Flatten, lambda self, layer, node, x: self.copied(node.name, x + 1))
    with pytest.raises(InputError, match="exported Keras model gives other logits than the network .* nothing was written"):
        portable_model(exported("resampled"))


def test_logits_are_compared_with_the_largest():
    z = np.array([[50.0, -2.0], [1.0, 3.0]])
    check_same("file", z, z + 0.0004, 1e-5)
    with pytest.raises(
        InputError, match=r"the exported file gives other logits than the network \(differ by 6.0e-04 at a size of 5.0e\+01\)"
    ):
        check_same("file", z, z + [[0, 0], [0, 6e-4]], 1e-5)
    with pytest.raises(Diverged, match="what the file gives is not finite everywhere"):
        check_same("file", z, np.full((2, 2), np.nan), 1e-5)
    with pytest.raises(Diverged, match="not finite everywhere"):
        check_same("file", np.full((2, 2), np.nan), np.full((2, 2), np.nan), 1e-5, jumps=True)
    with pytest.raises(InputError, match=r"logits of shape \(2, 1\), the network \(2, 2\)"):
        check_same("file", z, z[:, :1], 1e-5)


def test_where_an_activation_jumps_half_of_the_images_must_agree():
    z = np.ones((4, 2))
    one, two, three = (z + 0.05 * (np.arange(4) < wrong)[:, None] for wrong in (1, 2, 3))
    check_same("file", z, one, 1e-5, jumps=True)
    for received in (two, three, z + 0.2 * (np.arange(4) < 1)[:, None]):
        with pytest.raises(InputError):
            check_same("file", z, received, 1e-5, jumps=True)
    with pytest.raises(InputError):
        check_same("file", z, one, 1e-5)


@pytest.mark.parametrize(
    ("before", "after", "examples", "refused"),
    [
        (0.90, 0.89, 1000, False),  # a point
        (0.90, 0.889, 1000, True),
        (0.90, 0.86, 50, False),  # two images
        (0.90, 0.84, 50, True),
        (0.90, 0.95, 50, False),
        (0.90, float("nan"), 50, True),
    ],
)
def test_quantisation_may_cost_a_point_or_two_images(before, after, examples, refused):
    if not refused:
        return check_accuracy("int8 file", before, after, examples)
    with pytest.raises(
        InputError, match=f"the exported int8 file classifies .* % of {examples} images rightly, the network 90.00 %"
    ):
        check_accuracy("int8 file", before, after, examples)
