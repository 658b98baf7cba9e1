"""What layers learn of the training images before anything trains, against NumPy."""

import numpy as np
import pytest
from fitted import fitting, patches_of

from kerasgreedy.errors import InputError
from kerasgreedy.network.gates import fit_gates
from kerasgreedy.network.statistics import fit_standardize

RNG = np.random.default_rng(3)
IMAGES = RNG.normal(size=(21, 8, 7, 2)).astype(np.float32)


HEAD = "blocks: [{activation: linear}]\nfinal_head: {layers: [{gated_conv: %s, kernel_size: 3, stride: 2, padding: valid, "
HEAD += "class_separable: true, %s}]}\n"


@pytest.mark.parametrize("options", ["gates: normal", "gates: patches", "gates: patches, paired: true"])
def test_patterns_on_the_training_patches_are_distinct_and_not_empty(options):
    found = fitting(HEAD % (40, options), "head_1", "gated_conv_1", IMAGES)
    told = fit_gates(found)
    gates = np.asarray(found.layer.kernel, np.float64).reshape(18, -1)
    if "paired" in options:
        np.testing.assert_array_equal(gates[:, :40], gates[:, 40:])
        gates = gates[:, :40]
    assert gates.shape == (18, 40) and told == {"drawn": 80, "images": 8}  # the first batch tells them apart
    opened = patches_of(IMAGES, 3, 2).reshape(-1, 18) @ gates >= 0
    assert len(np.unique(opened, axis=1).T) == 40 and opened.any(0).all()
    np.testing.assert_allclose(np.linalg.norm(gates, axis=0), 1, rtol=1e-5)
    if "patches" in options:
        flat = patches_of(IMAGES, 3, 2).reshape(-1, 18).astype(np.float64)
        differences = flat[:, None] - flat[None]
        lengths = np.linalg.norm(differences, axis=-1)
        units = differences[lengths > 0] / lengths[lengths > 0][:, None]
        assert (np.abs(units @ gates).max(0) > 1 - 1e-6).all()


def test_the_same_seed_draws_the_same_and_another_seed_others():
    drawn = []
    for seed in (0, 0, 1):
        found = fitting(HEAD % (10, "gates: patches"), "head_1", "gated_conv_1", IMAGES, seed=seed)
        fit_gates(found)
        drawn.append(np.asarray(found.layer.kernel))
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert np.abs(drawn[0] - drawn[2]).max() > 0.1


def test_more_gates_than_patterns_are_refused():
    """Patches of one number have two patterns: where it is positive, and where it is negative."""
    spec = "blocks: [{gated_conv: 3, kernel_size: 1}]\n"
    message = r"block_1/gated_conv_1: received 3 gates; of 6 that were drawn 2 have patterns of their own.*allowed: up to 2"
    with pytest.raises(InputError, match=message):
        fit_gates(fitting(spec, "block_1", "gated_conv_1", IMAGES[..., :1]))


def test_a_gate_that_never_opens_is_not_taken():
    """On positive numbers g > 0 is always open and g < 0 never: one pattern is left."""
    spec = "blocks: [{gated_conv: 1, kernel_size: 1}]\n"
    found = fitting(spec, "block_1", "gated_conv_1", np.abs(IMAGES[..., :1]) + 0.1)
    fit_gates(found)
    assert float(np.asarray(found.layer.gates).ravel()[0]) == 1.0


@pytest.mark.parametrize("by", ["channels", "places"])
def test_standardize_is_the_mean_and_deviation_of_what_reaches_it(by):
    spec = f"blocks: [[{{conv: 3, activation: relu}}, {{standardize: {by}}}]]\n"
    found = fitting(spec, "block_1", "standardize_1", IMAGES)
    assert fit_standardize(found) == {"constant": 0}
    y = np.asarray(found.network.blocks[0](IMAGES, training=False), np.float64)
    axes = (0, 1, 2) if by == "channels" else 0
    np.testing.assert_allclose(y.mean(axes), 0, atol=1e-5)
    np.testing.assert_allclose((y**2).mean((0, 1, 2)) if by == "channels" else (y**2).mean(), 1, rtol=1e-4)


def test_what_never_varies_is_centred_only():
    spec = "blocks: [{standardize: channels}]\n"
    images = np.concatenate([IMAGES[..., :1], np.full_like(IMAGES[..., :1], 7)], axis=-1)
    found = fitting(spec, "block_1", "standardize_1", images)
    assert fit_standardize(found) == {"constant": 1}
    np.testing.assert_array_equal(np.asarray(found.network.blocks[0](images))[..., 1], 0)
