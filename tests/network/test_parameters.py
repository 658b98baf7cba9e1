"""Weights of any model as one vector, and what of it is a filter."""

import keras
import numpy as np
import pytest

from kerasgreedy.analysis.directions import filter_normalized, principal
from kerasgreedy.errors import InputError
from kerasgreedy.network.build import build_network
from kerasgreedy.network.parameters import Parameters
from kerasgreedy.spec.load import load


def everything():
    """One of each kind of layer that has filters, and what has none; one part nested."""
    x = images = keras.Input((8, 8, 4))
    x = keras.layers.Conv2D(6, 3, name="conv")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    x = keras.layers.Conv2D(8, 1, groups=4, name="grouped")(x)
    x = keras.layers.SeparableConv2D(5, 3, padding="same", name="separable")(x)
    x = keras.layers.Conv2DTranspose(7, 2, name="transposed")(x)
    x = keras.layers.LayerNormalization(axis=(1, 2, 3), name="layer_norm")(x)
    inner = keras.Input(x.shape[1:])
    nested = keras.Model(inner, keras.layers.Conv2D(3, 2, name="conv")(inner), name="nested")
    x = keras.layers.Flatten()(nested(x))
    return keras.Model(images, keras.layers.Dense(5, name="dense")(x))


# Layer and variable, as they stand in the vector -> axes that are a filter's own, by hand; None: no filters.
OWN = [
    ("conv/kernel", (0, 1, 2)), ("conv/bias", None), ("norm/gamma", None), ("norm/beta", None),
    ("depthwise/kernel", (0, 1)), ("depthwise/bias", None), ("grouped/kernel", (0, 1, 2)), ("grouped/bias", None),
    ("separable/depthwise_kernel", (0, 1)), ("separable/pointwise_kernel", (0, 1, 2)), ("separable/bias", None),
    ("transposed/kernel", (0, 1, 3)), ("transposed/bias", None), ("layer_norm/gamma", None), ("layer_norm/beta", None),
    ("conv/kernel", (0, 1, 2)), ("conv/bias", None), ("dense/kernel", (0,)), ("dense/bias", None),
]  # fmt: skip


def test_directions_have_the_norms_of_the_filters():
    model = everything()
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    parameters = Parameters(model)
    theta = parameters.read()
    assert parameters.size == model.count_params() - sum(int(np.prod(v.shape)) for v in model.non_trainable_variables)
    direction = filter_normalized(parameters, theta, seed=3, number=0)
    assert len(OWN) == len(parameters.tensors)
    for tensor, variable, (name, own) in zip(parameters.tensors, model.trainable_variables, OWN, strict=True):
        assert tensor.path.endswith(name)
        part, weights = (tensor.of(vector).astype(np.float64) for vector in (direction, theta))
        np.testing.assert_array_equal(weights, keras.ops.convert_to_numpy(variable))
        if own is None:
            assert not part.any()
            continue
        norms, wanted = (np.sqrt((values**2).sum(own)) for values in (part, weights))
        np.testing.assert_allclose(norms, wanted, rtol=1e-6)
    assert np.array_equal(direction, filter_normalized(parameters, theta, 3, 0))
    assert not np.array_equal(direction, filter_normalized(parameters, theta, 3, 1))


def test_filters_that_are_zero_stay():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.layers[0].kernel.assign([[1.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
    parameters = Parameters(model)
    direction = filter_normalized(parameters, parameters.read(), 0, 0)
    assert np.linalg.norm(direction[0:6:2]) == pytest.approx(3.0)
    assert not direction[1:6:2].any() and not direction[6:].any()


@pytest.mark.parametrize("spec", ["resnet20_cifar", "convex_two_layer", "nonconvex_two_layer"])
def test_every_kernel_of_a_spec_has_filters(spec):
    network = build_network(load(spec)[0].value, (32, 32, 3), 10)
    for component in (*network.blocks, *network.heads):
        if component.trainable_variables:
            for tensor in Parameters(component).tensors:
                assert bool(tensor.filters) == tensor.path.endswith("kernel")
                if "convex" in spec and tensor.path.endswith("kernel") and len(tensor.shape) == 3:
                    assert tensor.filters == (1, 2)  # each gate and class has its own


def test_refuses_what_has_no_vector():
    with pytest.raises(InputError, match="is not built"):
        Parameters(keras.Sequential([keras.layers.Dense(2)]))
    with pytest.raises(InputError, match="has no trainable weights"):
        Parameters(keras.Sequential([keras.Input((3,)), keras.layers.ReLU()]))
    with pytest.raises(InputError, match="float16"):
        Parameters(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, dtype="float16")]))


def test_the_plane_of_a_path():
    """Three points of a plane: it is found, coordinates give the points back, the last is the origin."""
    rng = np.random.default_rng(0)
    one, two = np.linalg.qr(rng.normal(size=(50, 2)))[0].T
    last = rng.normal(size=50)
    path = [last + 3 * one, last + one + 0.5 * two, last - 0.2 * one + 0.3 * two, last]
    directions, places, shares = principal(path)
    np.testing.assert_allclose(directions @ directions.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(places @ directions + last, path, atol=1e-12)
    np.testing.assert_allclose(sum(shares), 1, rtol=1e-12)
    np.testing.assert_allclose(places[-1], 0, atol=1e-12)
    # Of a straight line the second direction is nothing.
    directions, places, shares = principal([last + 2 * one, last + one, last])
    assert shares[0] == pytest.approx(1) and shares[1] == pytest.approx(0, abs=1e-12) and not directions[1].any()
