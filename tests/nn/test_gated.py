"""Gated layers against filters run one by one, in float64; and that what they make is convex."""

import numpy as np
import pytest
import tensorflow as tf
from fitted import patches_of

from kerasgreedy.nn.gated import GatedConv2D, GatedPatches, RectifiedMean, SeparableScores

RNG = np.random.default_rng(0)
SIZE, STRIDE, CHANNELS, GATES, CLASSES = 3, 2, 2, 5, 4
IMAGES = RNG.normal(size=(6, 8, 7, CHANNELS))
LENGTH = SIZE * SIZE * CHANNELS


def patches():
    """(b, K, h)."""
    return patches_of(IMAGES, SIZE, STRIDE)


def built(layer, *weights):
    layer.build((None, *IMAGES.shape[1:]))
    layer.set_weights(list(weights))
    return layer


def kernel(count):
    return RNG.normal(size=(SIZE, SIZE, CHANNELS, count))


def test_sums_first_and_classes_then_are_every_filter_run_over_the_map():
    """sum over k, i of 1[X_k g_i >= 0] X_k v_ic / K, in P C filters."""
    gates, v = kernel(GATES), RNG.normal(size=(LENGTH, GATES, CLASSES))
    x, g = patches(), gates.reshape(LENGTH, GATES)
    naive = np.zeros((len(IMAGES), CLASSES))
    for k in range(x.shape[1]):
        for i in range(GATES):
            for c in range(CLASSES):
                naive[:, c] += (x[:, k] @ g[:, i] >= 0) * (x[:, k] @ v[:, i, c])
    for over, count in (("sum", 1), ("mean", x.shape[1])):
        layer = built(GatedPatches(GATES, SIZE, over=over, strides=STRIDE, dtype="float64"), gates)
        scores = SeparableScores(CLASSES, dtype="float64")
        scores.build((None, LENGTH, GATES))
        scores.set_weights([v])
        np.testing.assert_allclose(scores(layer(IMAGES)), naive / count, rtol=1e-12, atol=1e-12)
        single = built(GatedPatches(GATES, SIZE, over=over, strides=STRIDE), gates)
        s = np.asarray(single(IMAGES.astype(np.float32)), np.float64).reshape(len(IMAGES), -1)
        np.testing.assert_allclose(s @ v.reshape(-1, CLASSES), naive / count, atol=1e-6 * np.abs(naive).max())


def test_pairs_are_the_same_sums_with_both_signs():
    gates = kernel(GATES)
    plain = built(GatedPatches(GATES, SIZE, strides=STRIDE, dtype="float64"), gates)(IMAGES)
    both = np.concatenate([gates, gates], axis=-1), np.concatenate([np.ones(GATES), -np.ones(GATES)])
    paired = built(GatedPatches(2 * GATES, SIZE, paired=True, strides=STRIDE, dtype="float64"), *both)(IMAGES)
    np.testing.assert_allclose(paired, np.concatenate([plain, -np.asarray(plain)], axis=-1), atol=1e-14)


def test_the_pairs_that_are_drawn_have_one_gate():
    layer = GatedPatches(2 * GATES, SIZE, paired=True, kernel_initializer="random_normal")
    layer.build((None, 8, 8, CHANNELS))
    np.testing.assert_array_equal(layer.kernel[..., :GATES], layer.kernel[..., GATES:])
    np.testing.assert_array_equal(layer.signs, [1.0] * GATES + [-1.0] * GATES)


def test_a_map_behind_gates_and_its_twin():
    gates, v = kernel(GATES), kernel(GATES)
    x = patches()
    one, two = x @ gates.reshape(LENGTH, -1), x @ v.reshape(LENGTH, -1)
    layer = built(GatedConv2D(GATES, SIZE, strides=STRIDE, dtype="float64"), v, gates)
    np.testing.assert_allclose(np.reshape(layer(IMAGES), two.shape), np.where(one >= 0, two, 0), atol=1e-12)
    own = built(GatedConv2D(GATES, SIZE, own=True, strides=STRIDE, dtype="float64"), v)
    np.testing.assert_allclose(np.reshape(own(IMAGES), two.shape), np.maximum(two, 0), atol=1e-12)
    for over, divisor in (("mean", 1), ("sum", 1 / x.shape[1])):
        mean = built(RectifiedMean(GATES, SIZE, over=over, strides=STRIDE, dtype="float64"), v)
        np.testing.assert_allclose(mean(IMAGES), np.maximum(two, 0).mean(1) / divisor, atol=1e-12)


def test_at_zero_a_gate_is_open():
    gates, v = np.zeros((SIZE, SIZE, CHANNELS, 1)), kernel(1)
    layer = built(GatedConv2D(1, SIZE, dtype="float64"), v, gates)
    np.testing.assert_allclose(layer(IMAGES), tf.nn.conv2d(IMAGES, v, 1, "VALID"), atol=1e-12)


def test_only_the_filters_are_trained_and_no_gradient_passes_through_gates():
    layer = GatedConv2D(GATES, SIZE)
    layer.build((None, 8, 7, CHANNELS))
    assert [w.name for w in layer.trainable_weights] == ["kernel"] and [w.name for w in layer.non_trainable_weights] == ["gates"]
    sums = GatedPatches(GATES, SIZE)
    sums.build((None, 8, 7, CHANNELS))
    assert not sums.trainable_weights


def losses(scores, targets):
    """Both objectives, float64: squared error and cross entropy, each with its targets, mean over images."""
    top = scores.max(1, keepdims=True)
    logs = scores - top - np.log(np.exp(scores - top).sum(1, keepdims=True))
    squared = 0.5 * np.mean(np.sum((scores - targets[0]) ** 2, 1))
    return {"squared_error": squared, "cross_entropy": -np.mean(np.sum(targets[1] * logs, 1))}


def twin_scores(point):
    u, w = np.split(point, [LENGTH * GATES])
    return np.maximum(patches() @ u.reshape(LENGTH, GATES), 0).mean(1) @ w.reshape(GATES, CLASSES)


def objective(form, point, targets, sums, shape):
    """Of a point (n,): gated, gated with the hinge and both penalties, and the twin."""
    if form == "twin":
        return losses(twin_scores(point), targets)
    v = point.reshape(shape)
    found = losses(np.einsum("bhp,hpc->bc", sums, v), targets)
    if form == "hinge":
        x, g = patches(), GATE.reshape(LENGTH, GATES)
        sides = 2 * (x @ g >= 0) - 1
        broken = np.maximum(-sides[..., None] * np.einsum("bkh,hpc->bkpc", x, v), 0).mean((0, 1)).sum()
        norms = np.linalg.norm(v, axis=0).sum() + 0.5 * np.sum(v**2)
        found = {name: value + 0.3 * broken + 0.1 * norms for name, value in found.items()}
    return found


GATE = kernel(GATES)


@pytest.mark.parametrize("form", ["gated", "hinge", "twin"])
def test_along_a_segment_the_loss_lies_under_its_chord_but_not_the_twin_s(form):
    """1,000 random segments, both objectives, the sums those of the layer in float64."""
    rng = np.random.default_rng(7)
    targets = [np.eye(CLASSES)[rng.integers(0, CLASSES, len(IMAGES))]] * 2
    sums = np.asarray(built(GatedPatches(GATES, SIZE, strides=STRIDE, dtype="float64"), GATE)(IMAGES))
    shape = (LENGTH, GATES, CLASSES)
    size = LENGTH * GATES + GATES * CLASSES if form == "twin" else LENGTH * GATES * CLASSES
    above = {"squared_error": 0, "cross_entropy": 0}
    for _ in range(1000):
        a, b, t = rng.normal(size=size), rng.normal(size=size), rng.uniform()
        if form == "twin":  # the same filters in another order: the same function, and the same loss
            u, w = np.split(a, [LENGTH * GATES])
            b = np.concatenate(
                [np.roll(u.reshape(LENGTH, GATES), 1, 1).ravel(), np.roll(w.reshape(GATES, CLASSES), 1, 0).ravel()]
            )
            z = twin_scores(a)
            targets = [z, np.exp(z) / np.exp(z).sum(1, keepdims=True)]  # which both ends give, and nothing between
        ends = [objective(form, point, targets, sums, shape) for point in (a, b, (1 - t) * a + t * b)]
        for name in above:
            chord = (1 - t) * ends[0][name] + t * ends[1][name]
            above[name] += ends[2][name] > chord + 1e-9 * abs(chord)
    assert all(count > 900 for count in above.values()) if form == "twin" else not any(above.values())
