"""Layers against independent formulas."""

import keras
import numpy as np
import pytest

from kerasgreedy.nn.downsampling import InvertibleDownsampling, InvertibleUpsampling, PadLowest, Subsample
from kerasgreedy.nn.ensemble import Ensemble, ensemble_weights

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("factor", [2, 3])
def test_invertible_downsampling_is_the_definition_and_inverts_bit_for_bit(factor):
    x = RNG.normal(size=(2, 2 * factor, 3 * factor, 5)).astype(np.float32)
    y = keras.ops.convert_to_numpy(InvertibleDownsampling(factor)(x))
    for i in range(factor):
        for j in range(factor):
            place = i * factor + j
            np.testing.assert_array_equal(y[..., place * 5 : (place + 1) * 5], x[:, i::factor, j::factor])
    np.testing.assert_array_equal(InvertibleUpsampling(factor)(y), x)


def test_invertible_downsampling_refuses_what_does_not_divide():
    with pytest.raises(ValueError, match="divisible by 2, received 7x8"):
        InvertibleDownsampling(2)(np.zeros((1, 7, 8, 3), np.float32))
    with pytest.raises(ValueError, match="divisible by 4, received 6"):
        InvertibleUpsampling(2)(np.zeros((1, 2, 2, 6), np.float32))


def test_subsample_takes_every_second_place_and_adds_zero_channels():
    x = RNG.normal(size=(2, 5, 4, 3)).astype(np.float32)
    y = keras.ops.convert_to_numpy(Subsample(2, 7)(x))
    np.testing.assert_array_equal(y[..., :3], x[:, ::2, ::2])
    assert y.shape == (2, 3, 2, 7) and not y[..., 3:].any()


def test_padding_never_wins_a_maximum():
    x = -1e6 * np.ones((1, 2, 2, 1), np.float32)
    pooled = keras.layers.MaxPooling2D(3, 1)(PadLowest(1)(x))
    np.testing.assert_array_equal(pooled, x)


def test_ensemble_on_logits_and_on_probabilities():
    z = [np.array([[1.0, 2.0, 0.5]]), np.array([[0.0, -1.0, 3.0]]), np.array([[2.0, 0.0, 0.0]])]
    weights = np.array([2, 4, 8]) / 14
    np.testing.assert_allclose(ensemble_weights([1, 2, 3]), weights)
    on_logits = Ensemble([1, 2, 3], "logits")([v.astype(np.float32) for v in z])
    np.testing.assert_allclose(on_logits, sum(w * v for w, v in zip(weights, z, strict=True)), rtol=1e-6)
    probabilities = sum(w * np.exp(v) / np.exp(v).sum() for w, v in zip(weights, z, strict=True))
    on_probabilities = Ensemble([1, 2, 3], "probabilities")([v.astype(np.float32) for v in z])
    np.testing.assert_allclose(keras.ops.softmax(on_probabilities), probabilities, rtol=1e-6)


def test_ensemble_weights_double_with_depth_even_where_depths_are_missing():
    assert ensemble_weights([2, 4]) == [0.2, 0.8]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (InvertibleDownsampling(2), (4, 4, 3)),
        (InvertibleUpsampling(2), (2, 2, 8)),
        (Subsample(2, 5), (4, 4, 3)),
        (PadLowest(1), (3, 3, 2)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, keras.layers.Layer) else "",
)
def test_layers_survive_saving_and_tell_their_output_shape(layer, shape, tmp_path):
    images = keras.Input(shape)
    model = keras.Model(images, layer(images))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    x = RNG.normal(size=(2, *shape)).astype(np.float32)
    np.testing.assert_array_equal(again(x), model(x))
    assert layer.compute_output_shape((None, *shape)) == (None, *model(x).shape[1:])
