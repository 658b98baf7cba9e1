"""The step against NumPy, and what it must leave alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from one_step import IMAGES, LABELS, NO_DROPOUT, RNG, arrays_of, setup

from kerasgreedy.nn.objectives import CrossEntropyLoss
from kerasgreedy.solvers.step import phase_logits
from kerasgreedy.spec.training import Sgd


def test_cross_entropy_with_label_smoothing():
    logits = RNG.normal(size=(4, 3))
    labels = np.array([0, 2, 1, 1])
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    target = 0.9 * np.eye(3)[labels] + 0.1 / 3
    np.testing.assert_allclose(
        CrossEntropyLoss(label_smoothing=0.1)(logits.astype(np.float32), labels, None), -(target * logs).sum(-1), rtol=1e-5
    )
    np.testing.assert_allclose(CrossEntropyLoss()(logits.astype(np.float32), labels, None), -logs[range(4), labels], rtol=1e-5)


def test_sgd_with_momentum_and_coupled_decay_is_the_formula():
    """v <- m v - rate (g + decay w), w <- w + v, on a linear model in float64; the decay holds for the bias too."""
    spec = "name: s\nblocks: [{flatten: true}]\nauxiliary_head: {}\n"
    network, _, step = setup("end_to_end", spec, settings=Sgd(momentum=0.9), rate=0.1, decay=0.01)
    w, b = (network.arrays("head_1")[f"head_1/dense_1/{n}"].astype(np.float64) for n in ("kernel", "bias"))
    x = IMAGES.reshape(16, -1).astype(np.float64)
    vw, vb = np.zeros_like(w), np.zeros_like(b)
    for _ in range(4):
        z = x @ w + b
        p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
        loss = -np.log(p[range(16), LABELS]).sum()
        right = (z.argmax(-1) == LABELS).sum()
        g = (p - np.eye(10)[LABELS]) / 16
        vw, vb = 0.9 * vw - 0.1 * (x.T @ g + 0.01 * w), 0.9 * vb - 0.1 * (g.sum(0) + 0.01 * b)
        w, b = w + vw, b + vb
        np.testing.assert_allclose(step(IMAGES, LABELS)["head_1"], [loss, right], rtol=1e-5)
    np.testing.assert_allclose(network.arrays("head_1")["head_1/dense_1/kernel"], w, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(network.arrays("head_1")["head_1/dense_1/bias"], b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("strategy", "index"), [("greedy", 0), ("greedy", 1), ("greedy", 2), ("end_to_end", 0), ("random_features", 0)]
)
def test_only_what_trains_moves_and_the_rest_stays_bit_for_bit(strategy, index):
    network, phase, step = setup(strategy, index=index, decay=5e-4)
    before = arrays_of(network)
    for _ in range(3):
        step(IMAGES, LABELS)
    for key, value in arrays_of(network).items():
        same = np.array_equal(value, before[key])
        if key.split("/")[0] not in phase.trains:
            assert same, f"{key} moved"
        elif not key.endswith("seed_generator_state"):
            assert not same, f"{key} did not move"


@pytest.mark.parametrize(
    ("strategy", "index", "reached"),
    [
        ("greedy", 1, {"block_2", "head_2"}),
        ("end_to_end", 0, {"block_1", "block_2", "block_3", "head_3"}),
        ("random_features", 0, {"head_1", "head_2", "head_3"}),
        ("decoupled", 0, {"block_1", "block_2", "block_3", "head_1", "head_2", "head_3"}),
    ],
)
def test_gradient_is_zero_outside_the_trainable_set(strategy, index, reached):
    network, phase, _ = setup(strategy, index=index)
    for name in network.names:
        network.component(name).trainable = True
    weights = {name: network.component(name).trainable_variables for name in network.names}
    with tf.GradientTape() as tape:
        logits = phase_logits(network, phase, IMAGES)
        loss = tf.add_n([tf.reduce_sum(CrossEntropyLoss()(z, LABELS, None)) for z in logits.values()])
    gradients = tape.gradient(loss, {name: [v.value for v in values] for name, values in weights.items()})
    for name, values in gradients.items():
        assert all((g is not None) == (name in reached) for g in values), name


def test_decoupled_blocks_learn_from_their_own_head_only():
    """The gradient of block 1 under `decoupled` is that of greedy's first phase; under deep supervision it is not."""
    first = {}
    for strategy in ("greedy", "decoupled", "deep_supervision"):
        network, _, step = setup(strategy, NO_DROPOUT, settings=Sgd(momentum=0.0))
        step(IMAGES, LABELS)
        first[strategy] = network.arrays("block_1")["block_1/conv_1/kernel"]
    np.testing.assert_allclose(first["decoupled"], first["greedy"], atol=1e-7)
    assert np.abs(first["deep_supervision"] - first["greedy"]).max() > 1e-4


def test_frozen_batch_norm_uses_its_moving_statistics():
    network, phase, _ = setup("greedy", NO_DROPOUT, index=1)
    for name in network.names:
        network.component(name).trainable = name in phase.trains
    x = keras.ops.convert_to_numpy(network.blocks[0](IMAGES, training=False))
    logits = phase_logits(network, phase, IMAGES)["head_2"]
    expected = network.heads[1](network.blocks[1](x, training=True), training=True)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
