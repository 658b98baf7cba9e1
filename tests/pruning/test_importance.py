"""Importance of filters against formulas in NumPy float64, forward and backward written out here."""

import zlib

import numpy as np
import pytest
import tensorflow as tf
from conftest import spec_of, two_devices
from numpy.lib.stride_tricks import sliding_window_view

from kerasgreedy.errors import Diverged, InputError
from kerasgreedy.graph.architecture import architecture
from kerasgreedy.graph.coupling import find_coupling
from kerasgreedy.network.build import Network
from kerasgreedy.pruning.importance import importance, normalized

RNG = np.random.default_rng(4)
IMAGES = RNG.normal(size=(5, 6, 6, 2)).astype(np.float32)
LABELS = np.array([0, 2, 1, 1, 0], np.int32)
WITH_DATA = ("taylor_activation", "taylor_weight", "mean_activation", "apoz")
EPSILON = 1e-5

PLAIN = """
name: plain
blocks: [[{conv: 3}, {conv: 4, batch_norm: true}]]
final_head: {layers: [{global_avg_pool: true}]}
"""
RESIDUAL = """
name: residual
block_defaults: {batch_norm: true}
blocks: [{conv: 4}, {residual: [{conv: 3}, {conv: 4, activation: linear}]}]
auxiliary_head: {layers: [{conv: 2}, {global_avg_pool: true}]}
"""
DEPTHWISE = """
name: depthwise
blocks: [[{conv: 3}, {conv: 6, groups: 3, activation: tanh}], [{flatten: true}, {dense: 5}]]
"""


def network_of(spec, strategy=None, shape=(6, 6, 2), classes=3):
    """With biases, scales and moving statistics that are not those of a fresh network."""
    with (strategy or tf.distribute.get_strategy()).scope():
        network = Network(architecture(spec_of(spec).value, shape, classes), seed=1)
    rng = np.random.default_rng(7)
    for name in network.names:
        arrays = network.arrays(name)
        for key, value in arrays.items():
            if not key.endswith("kernel"):
                arrays[key] = rng.uniform(0.5, 1.5, value.shape) * (-1 if "mean" in key else 1)
        network.load_arrays(name, arrays)
    return network


def groups_of(network, *names):
    coupling = find_coupling(network.architecture)
    return [coupling.group(name) for name in names] if names else list(coupling.groups)


def batches_of(size, images=IMAGES, labels=LABELS):
    """Full batches; the last is filled up with loud images of weight 0."""
    filler = -len(images) % size
    images = np.concatenate([images, np.full((filler, *images.shape[1:]), 50.0, np.float32)])
    weights = np.concatenate([np.ones(len(labels), np.float32), np.zeros(filler, np.float32)])
    labels = np.concatenate([labels, np.zeros(filler, np.int32)])
    return tf.data.Dataset.from_tensor_slices((images, labels, weights)).batch(size)


def scores_of(network, criterion, losses, *names, size=5, strategy=None, seed=0):
    batches = batches_of(size) if criterion in WITH_DATA else None
    strategy = strategy or tf.distribute.get_strategy()
    return importance(network, groups_of(network, *names), criterion, batches, losses, strategy, seed)


def doubles(network, name):
    return {key.removeprefix(f"{name}/"): value.astype(np.float64) for key, value in network.arrays(name).items()}


def windows(x):
    return sliding_window_view(np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)]), (3, 3), axis=(1, 2))


def conv(x, kernel):
    return np.einsum("nhwcij,ijco->nhwo", windows(x), kernel)


def norm(x, w, number=1):
    mean, variance, gamma, beta = (w[f"batch_norm_{number}/{k}"] for k in ("moving_mean", "moving_variance", "gamma", "beta"))
    return (x - mean) / np.sqrt(variance + EPSILON) * gamma + beta


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def relu(x):
    return np.maximum(x, 0)


@pytest.fixture(scope="module")
def plain():
    """The plain network, and by hand: conv -> relu -> conv -> batch norm -> relu -> mean -> dense -> cross entropy."""
    network = network_of(PLAIN)
    w, head = doubles(network, "block_1"), doubles(network, "head_1")
    x = IMAGES.astype(np.float64)
    z1 = relu(conv(x, w["conv_1/kernel"]) + w["conv_1/bias"])
    z2 = relu(norm(conv(z1, w["conv_2/kernel"]), w))
    logs = log_softmax(z2.mean((1, 2)) @ head["dense_1/kernel"] + head["dense_1/bias"])
    d_logits = np.exp(logs) - np.eye(3)[LABELS]  # of each example's own loss
    dz2 = np.broadcast_to((d_logits @ head["dense_1/kernel"].T)[:, None, None] / 36, z2.shape)
    scale = w["batch_norm_1/gamma"] / np.sqrt(w["batch_norm_1/moving_variance"] + EPSILON)
    dy2 = dz2 * (z2 > 0) * scale
    dz1 = conv(dy2, w["conv_2/kernel"][::-1, ::-1].transpose(0, 1, 3, 2))
    dy1 = dz1 * (z1 > 0)
    products = [
        (np.einsum("nhwcij,nhwo->ijco", windows(x), dy1) * w["conv_1/kernel"]).sum((0, 1, 2))
        + dy1.sum((0, 1, 2)) * w["conv_1/bias"],
        (np.einsum("nhwcij,nhwo->ijco", windows(z1), dy2) * w["conv_2/kernel"]).sum((0, 1, 2)),
    ]
    expected = {
        "taylor_activation": [abs((z * dz).mean((1, 2))).mean(0) for z, dz in ((z1, dz1), (z2, dz2))],
        "taylor_weight": [(product / 5) ** 2 for product in products],
        "mean_activation": [z.mean((0, 1, 2)) for z in (z1, z2)],
        "apoz": [(z > 0).mean((0, 1, 2)) for z in (z1, z2)],
        "magnitude_l1": [abs(w[f"conv_{i}/kernel"]).sum((0, 1, 2)) for i in (1, 2)],
        "magnitude_l2": [np.sqrt((w[f"conv_{i}/kernel"] ** 2).sum((0, 1, 2))) for i in (1, 2)],
    }
    return network, expected


@pytest.mark.parametrize(
    "criterion", ["taylor_activation", "taylor_weight", "mean_activation", "apoz", "magnitude_l1", "magnitude_l2"]
)
def test_a_plain_network_is_the_formula(plain, criterion):
    network, expected = plain
    scores = scores_of(network, criterion, ["head_1"], size=2)
    assert list(scores) == ["block_1/conv_1", "block_1/conv_2"]
    for values, wanted in zip(scores.values(), expected[criterion], strict=True):
        assert values.dtype == np.float64 and wanted.min() > 0
        np.testing.assert_allclose(values, wanted, rtol=2e-5)


def test_the_plain_case_has_zeros(plain):
    """Else its shares and gradients would prove less."""
    shares = np.concatenate(plain[1]["apoz"])
    assert shares.min() < 0.95 and shares.max() > shares.min()


def test_signs_do_not_cancel_over_the_batch():
    """z = 1, logits (0.7 z - 0.7, 0.7 - 0.7 z) = 0: dC/dz is -0.7 under label 0 and 0.7 under label 1."""
    spec = "name: s\nblocks: [{conv: 1, kernel_size: 1}]\nauxiliary_head: {layers: [{global_avg_pool: true}]}\n"
    network = network_of(spec, shape=(1, 1, 1), classes=2)
    network.load_arrays("block_1", {"block_1/conv_1/kernel": np.ones((1, 1, 1, 1)), "block_1/conv_1/bias": np.zeros(1)})
    network.load_arrays(
        "head_1", {"head_1/dense_1/kernel": np.array([[0.7, -0.7]]), "head_1/dense_1/bias": np.array([-0.7, 0.7])}
    )
    batches = batches_of(2, np.ones((2, 1, 1, 1), np.float32), np.array([0, 1], np.int32))
    arguments = (batches, ["head_1"], tf.distribute.get_strategy())
    score = importance(network, groups_of(network), "taylor_activation", *arguments)["block_1/conv_1"]
    np.testing.assert_allclose(score, [0.7], rtol=1e-6)
    joint = importance(network, groups_of(network), "taylor_weight", *arguments)["block_1/conv_1"]
    np.testing.assert_allclose(joint, [0.0], atol=1e-12)  # the mean gradient is zero, and the square of it


def residual_losses(network, gates, inner=None):
    """Loss of each example at both heads, with gates on the filters of the trunk and of the body's first layer."""
    one, two = doubles(network, "block_1"), doubles(network, "block_2")
    inner = np.ones(3) if inner is None else inner
    x = relu(norm(conv(IMAGES.astype(np.float64), one["conv_1/kernel"]), one)) * gates[0]
    body = relu(norm(conv(x, two["conv_1/kernel"]), two)) * inner
    y = relu(x + norm(conv(body, two["conv_2/kernel"]), two, 2) * gates[1])
    losses = []
    for name, features in (("head_1", x), ("head_2", y)):
        w = doubles(network, name)
        hidden = relu(norm(conv(features, w["conv_1/kernel"]), w)).mean((1, 2))
        losses.append(-log_softmax(hidden @ w["dense_1/kernel"] + w["dense_1/bias"])[range(5), LABELS])
    return losses


def gate(index, value, count):
    return np.where(np.arange(count) == index, value, 1.0)


def slope(of, step=1e-6):
    return (of(1 + step) - of(1 - step)) / (2 * step)


def test_coupled_filters_are_the_effect_of_one_gate_on_all_of_them():
    """dC_n/dgate = sum over filters and places of z dC_n/dz, so the score is |dC_n/dgate| / 36, averaged; both losses count."""
    network = network_of(RESIDUAL)
    scores = scores_of(network, "taylor_activation", ["head_1", "head_2"], "block_1/conv_1", "block_2/conv_1")
    trunk = [slope(lambda v, i=i: sum(residual_losses(network, [gate(i, v, 4)] * 2))) for i in range(4)]
    inner = [slope(lambda v, i=i: sum(residual_losses(network, np.ones((2, 4)), gate(i, v, 3)))) for i in range(3)]
    np.testing.assert_allclose(scores["block_1/conv_1"], abs(np.array(trunk)).mean(1) / 36, rtol=1e-4)
    np.testing.assert_allclose(scores["block_2/conv_1"], abs(np.array(inner)).mean(1) / 36, rtol=1e-4)


def test_a_greedy_loss_sees_the_filters_of_its_block_only():
    """Block 1's filters are coupled with those of block 2, which is not run: no effect, no magnitude, no scale of it counts."""
    network = network_of(RESIDUAL)
    one = doubles(network, "block_1")
    effects = [slope(lambda v, i=i: residual_losses(network, [gate(i, v, 4), np.ones(4)])[0]) for i in range(4)]
    expected = {
        "taylor_activation": abs(np.array(effects)).mean(1) / 36,
        "magnitude_l1": abs(one["conv_1/kernel"]).sum((0, 1, 2)),
        "batch_norm_scale": abs(one["batch_norm_1/gamma"]),
    }
    for criterion, values in expected.items():
        scores = scores_of(network, criterion, ["head_1"], "block_1/conv_1")
        np.testing.assert_allclose(scores["block_1/conv_1"], values, rtol=1e-4, err_msg=criterion)


@pytest.fixture(scope="module")
def twice():
    """The same weights without a strategy, and on two replicas."""
    both = two_devices()
    return network_of(RESIDUAL), network_of(RESIDUAL, both), both


@pytest.mark.parametrize("criterion", WITH_DATA)
def test_neither_batch_size_nor_replicas_matter(twice, criterion):
    """Sizes 5, 2 (one filler) and 7 (two); two replicas with 2 + 1 examples, then 1 + 1 and a filler.

    A joint weight score is the square of a sum that may nearly cancel: it is held to the largest of its group.
    """
    network, mirrored, both = twice
    heads = ["head_1", "head_2"]
    reference = scores_of(network, criterion, heads)
    others = [scores_of(network, criterion, heads, size=size) for size in (2, 7)]
    others.append(scores_of(mirrored, criterion, heads, size=3, strategy=both))
    assert len(reference) == 4
    for scores in others:
        for name, values in reference.items():
            near_zero = 1e-6 * values.max() if criterion == "taylor_weight" else 0
            np.testing.assert_allclose(scores[name], values, rtol=1e-6, atol=near_zero, err_msg=name)


def test_items_with_several_filters_of_one_layer_and_dense_layers():
    network = network_of(DEPTHWISE)
    one, two = doubles(network, "block_1"), doubles(network, "block_2")
    x = IMAGES.astype(np.float64)
    z1 = relu(conv(x, one["conv_1/kernel"]) + one["conv_1/bias"])
    pairs = [conv(z1[..., i : i + 1], one["conv_2/kernel"][..., 2 * i : 2 * i + 2]) for i in range(3)]
    z2 = np.tanh(np.concatenate(pairs, -1) + one["conv_2/bias"])
    z3 = relu(z2.reshape(5, -1) @ two["dense_1/kernel"] + two["dense_1/bias"])
    scores = scores_of(network, "mean_activation", ["head_2"])
    spatial = z1.mean((0, 1, 2)) + abs(z2).mean((0, 1, 2)).reshape(3, 2).sum(1)
    np.testing.assert_allclose(scores["block_1/conv_1"], spatial, rtol=1e-5)
    np.testing.assert_allclose(scores["block_2/dense_1"], z3.mean(0), rtol=1e-5)
    scores = scores_of(network, "apoz", ["head_2"])
    np.testing.assert_allclose(scores["block_1/conv_1"], ((z1 > 0).mean((0, 1, 2)) + 2) / 3, rtol=1e-6)  # tanh is never 0
    np.testing.assert_allclose(scores["block_2/dense_1"], (z3 > 0).mean(0), rtol=1e-6)
    squares = (one["conv_1/kernel"] ** 2).sum((0, 1, 2)) + (one["conv_2/kernel"] ** 2).sum((0, 1, 2)).reshape(3, 2).sum(1)
    scores = scores_of(network, "magnitude_l2", ["head_2"])
    np.testing.assert_allclose(scores["block_1/conv_1"], np.sqrt(squares), rtol=1e-6)
    np.testing.assert_allclose(scores["block_2/dense_1"], np.sqrt((two["dense_1/kernel"] ** 2).sum(0)), rtol=1e-6)


def test_a_joint_weight_score_sums_before_it_squares():
    """With relu and no batch norm, sum(g w) over kernel and bias is sum(z dC/dz): of one place, the effect of a gate."""
    network = network_of(DEPTHWISE)
    two, head = doubles(network, "block_2"), doubles(network, "head_2")
    features = network.component("block_1")(IMAGES).numpy().astype(np.float64).reshape(5, -1)
    z = relu(features @ two["dense_1/kernel"] + two["dense_1/bias"])
    logs = log_softmax(z @ head["dense_1/kernel"] + head["dense_1/bias"])
    effect = z * ((np.exp(logs) - np.eye(3)[LABELS]) @ head["dense_1/kernel"].T)
    scores = scores_of(network, "taylor_weight", ["head_2"], "block_2/dense_1", size=2)
    np.testing.assert_allclose(scores["block_2/dense_1"], effect.mean(0) ** 2, rtol=1e-4)
    scores = scores_of(network, "taylor_activation", ["head_2"], "block_2/dense_1", size=2)
    np.testing.assert_allclose(scores["block_2/dense_1"], abs(effect).mean(0), rtol=1e-4)


@pytest.mark.parametrize("criterion", ["taylor_activation", "taylor_weight"])
def test_frozen_or_bfloat16_components_change_nothing(criterion):
    network = network_of(RESIDUAL)
    reference = scores_of(network, criterion, ["head_2"], "block_1/conv_1")["block_1/conv_1"]
    network.model()  # the components stand in another model too
    network.component("block_1").trainable = False
    np.testing.assert_array_equal(scores_of(network, criterion, ["head_2"], "block_1/conv_1")["block_1/conv_1"], reference)
    network.compute_in("mixed_bfloat16")
    np.testing.assert_array_equal(scores_of(network, criterion, ["head_2"], "block_1/conv_1")["block_1/conv_1"], reference)


def test_random_scores_depend_on_seed_and_group_only():
    network = network_of(RESIDUAL)
    scores = scores_of(network, "random", ["head_2"], "block_2/conv_1", seed=3)
    expected = np.random.default_rng((3, zlib.crc32(b"block_2/conv_1"))).random(3)
    np.testing.assert_array_equal(scores["block_2/conv_1"], expected)
    assert not np.array_equal(scores_of(network, "random", ["head_2"], "block_2/conv_1", seed=4)["block_2/conv_1"], expected)


def test_normalized():
    scores = normalized({"a": np.array([3.0, 4.0]), "b": np.zeros(2)})
    np.testing.assert_allclose(scores["a"], [0.6, 0.8], rtol=1e-15)
    np.testing.assert_array_equal(scores["b"], [0.0, 0.0])


@pytest.mark.parametrize(
    ("criterion", "losses", "group", "message"),
    [
        ("taylor_wieght", ["head_2"], "block_1/conv_1", "received 'taylor_wieght'.*did you mean 'taylor_weight'"),
        ("magnitude_l1", ["head_3"], "block_1/conv_1", "no head 'head_3'.*heads: head_1, head_2"),
        ("apoz", ["head_1"], "block_2/conv_1", "group 'block_2/conv_1': filters of block_2 .* runs block_1, head_1 only"),
        ("magnitude_l1", ["head_2"], "head_1/conv_1", "group 'head_1/conv_1': filters of head_1"),
    ],
)
def test_bad_input(criterion, losses, group, message):
    with pytest.raises(InputError, match=message):
        scores_of(network_of(RESIDUAL), criterion, losses, group)


def test_a_layer_without_batch_norm_has_no_scale():
    network = network_of(PLAIN)
    with pytest.raises(InputError, match="block_1/conv_1 has none; use 'magnitude_l2'"):
        scores_of(network, "batch_norm_scale", ["head_1"])
    scores = scores_of(network, "batch_norm_scale", ["head_1"], "block_1/conv_2")
    np.testing.assert_allclose(scores["block_1/conv_2"], doubles(network, "block_1")["batch_norm_1/gamma"], rtol=1e-7)


def test_missing_batches_and_numbers_that_are_not():
    network = network_of(PLAIN)
    strategy = tf.distribute.get_strategy()
    with pytest.raises(ValueError, match="needs batches"):
        importance(network, groups_of(network), "apoz", None, ["head_1"], strategy)
    with pytest.raises(ValueError, match="no examples"):
        importance(network, groups_of(network), "apoz", batches_of(5).take(0), ["head_1"], strategy)
    arrays = network.arrays("block_1")
    arrays["block_1/conv_2/kernel"][0, 0, 0, 0] = np.nan
    network.load_arrays("block_1", arrays)
    with pytest.raises(Diverged, match="group 'block_1/conv_2': 'magnitude_l1' is not finite"):
        scores_of(network, "magnitude_l1", ["head_1"])
