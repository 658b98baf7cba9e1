"""Losses, gradients and Hessian products at weights that the model does not hold."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import two_devices

from kerasgreedy.errors import Diverged, InputError
from kerasgreedy.network.points import Points

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.normal(size=(20, 6, 6, 2)), RNG.integers(0, 3, 20)


def smooth(dtype="float32"):
    """A net without kinks; one part nested; batch norm and dropout in it."""
    keras.utils.set_random_seed(0)
    x = images = keras.Input((6, 6, 2), dtype=dtype)
    x = keras.layers.Conv2D(4, 3, activation="tanh", dtype=dtype)(x)
    inner = keras.Input(x.shape[1:], dtype=dtype)
    y = keras.layers.BatchNormalization(momentum=0.9, dtype=dtype)(inner)
    nested = keras.Model(inner, keras.layers.Conv2D(3, 2, activation="softplus", dtype=dtype)(y))
    x = keras.layers.Dropout(0.5, dtype=dtype)(keras.layers.Flatten(dtype=dtype)(nested(x)))
    return keras.Model(images, keras.layers.Dense(3, dtype=dtype)(x))


class Own(keras.Model):
    """Subclassed."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()
        self.flat, self.dense = keras.layers.Flatten(), keras.layers.Dense(3)

    def call(self, x, training=False):
        return self.dense(self.flat(keras.ops.relu(self.norm(self.conv(x), training=training))))


@pytest.fixture(params=["functional", "subclassed", "sequential"])
def model(request):
    if request.param == "functional":
        return smooth()
    keras.utils.set_random_seed(1)
    if request.param == "subclassed":
        own = Own()
        own(np.zeros((1, 6, 6, 2)))
        return own
    layers = [keras.layers.Conv2D(2, 3, activation="relu"), keras.layers.Flatten(), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((6, 6, 2)), *layers])


def by_hand(model, images=IMAGES, labels=LABELS):
    logits = np.asarray(model(images.astype(np.float32), training=False), np.float64)
    loss = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]
    return loss.mean(), (logits.argmax(1) == labels).mean()


def test_is_the_loss_of_the_model_with_these_weights(model):
    points = Points(model, IMAGES, LABELS, batch_size=7)
    theta = points.parameters.read()
    before = [keras.ops.convert_to_numpy(variable) for variable in model.variables]
    assert points.evaluate([theta])[0] == pytest.approx(by_hand(model), rel=1e-6)
    other = theta + 0.1 * RNG.normal(size=theta.size).astype(np.float32)
    found = points.evaluate([other])[0]
    points.gradient(other), points.hessian_product(other, other)
    for variable, old in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), old)
    for variable, tensor in zip(model.trainable_variables, points.parameters.tensors, strict=True):
        variable.assign(tensor.of(other))
    assert found == pytest.approx(by_hand(model), rel=1e-6)


def test_gradient_and_hessian_against_differences_in_float64():
    points = Points(smooth("float64"), IMAGES, LABELS, batch_size=8)
    theta = points.parameters.read()
    assert theta.dtype == np.float64
    v = RNG.normal(size=theta.size)
    step = 1e-5
    ahead, behind = (points.gradient(theta + sign * step * v) for sign in (1, -1))
    loss, gradient = points.gradient(theta)
    assert loss == pytest.approx(points.evaluate([theta])[0][0], rel=1e-12)
    assert gradient @ v == pytest.approx((ahead[0] - behind[0]) / (2 * step), rel=1e-8)
    product = points.hessian_product(theta, v)
    np.testing.assert_allclose(product, (ahead[1] - behind[1]) / (2 * step), rtol=1e-5, atol=1e-8)
    # Symmetric: u H v = v H u; and of a part of the batches alone, which average to the whole.
    u = RNG.normal(size=theta.size)
    assert u @ product == pytest.approx(v @ points.hessian_product(theta, u), rel=1e-9)
    parts = [points.hessian_product(theta, v, slice(i, i + 1)) for i in range(points.batches)]
    np.testing.assert_allclose(sum(n * p for n, p in zip((8, 8, 4), parts, strict=True)) / 20, product, rtol=1e-10)


def test_statistics_are_those_of_the_sample(model):
    points = Points(model, IMAGES, LABELS, batch_size=20)
    if not points.has_batch_norm:
        return
    theta = points.parameters.read() * 1.3
    (norm,) = points._norms
    (conv, *_) = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Conv2D)]
    kernel, bias = (np.asarray(points.parameters.tensors[i].of(theta), np.float64) for i in (0, 1))
    windows = np.lib.stride_tricks.sliding_window_view(IMAGES, (3, 3), (1, 2))  # (n, h, w, c, 3, 3)
    maps = np.einsum("nhwcij,ijcf->nhwf", windows, kernel) + bias
    if conv.activation is keras.activations.tanh:
        maps = np.tanh(maps)
    found = points.statistics(theta)
    places = {id(variable): i for i, variable in enumerate(model.non_trainable_variables)}
    np.testing.assert_allclose(found[places[id(norm.moving_mean)]], maps.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[places[id(norm.moving_variance)]], maps.var((0, 1, 2)), rtol=1e-4)
    # In batches: of the first batch norm still those of all images.
    parts = Points(model, IMAGES, LABELS, batch_size=6).statistics(theta)
    np.testing.assert_allclose(parts[places[id(norm.moving_mean)]], maps.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(parts[places[id(norm.moving_variance)]], maps.var((0, 1, 2)), rtol=1e-4)
    # They are what counts then, and the model's own stay.
    assert points.evaluate([theta], [found])[0] != points.evaluate([theta])[0]
    assert keras.ops.convert_to_numpy(norm.moving_mean).tolist() == [0.0] * 4


def test_frozen_and_shared_batch_norm():
    """What is frozen keeps its statistics; one that is called twice has two of each and is refused; any momentum will do."""
    x = images = keras.Input((6, 6, 2))
    frozen = keras.layers.BatchNormalization(trainable=False)
    free = keras.layers.BatchNormalization(momentum=1.0)
    x = free(keras.layers.Conv2D(3, 3)(frozen(x)))
    model = keras.Model(images, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    frozen.moving_mean.assign([5.0, -3.0])
    points = Points(model, IMAGES, LABELS)
    found = points.statistics(points.parameters.read())
    places = {id(variable): i for i, variable in enumerate(model.non_trainable_variables)}
    assert found[places[id(frozen.moving_mean)]].tolist() == [5.0, -3.0]
    given = np.asarray(model.layers[2](frozen(IMAGES.astype(np.float32), training=False)), np.float64)
    np.testing.assert_allclose(found[places[id(free.moving_mean)]], given.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(found[places[id(free.moving_variance)]], given.var((0, 1, 2)), rtol=1e-4)
    norm = keras.layers.BatchNormalization()
    twice = keras.Model(images, keras.layers.Dense(3)(keras.layers.Flatten()(norm(keras.ops.relu(norm(images))))))
    points = Points(twice, IMAGES, LABELS)
    with pytest.raises(InputError, match="is called more than once"):
        points.statistics(points.parameters.read())


def test_two_devices_give_the_same():
    model = smooth()
    one, two = Points(model, IMAGES, LABELS, batch_size=7), Points(model, IMAGES, LABELS, batch_size=7, strategy=two_devices())
    theta = one.parameters.read()
    others = [theta + 0.1 * i for i in range(3)]
    fixed = [one.statistics(other) for other in others]
    alone = [one.evaluate([other], [f])[0] for other, f in zip(others, fixed, strict=True)]
    assert two.devices == 2
    together = two.evaluate(others[:2], fixed[:2]) + two.evaluate(others[2:], fixed[2:])
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_refuses_and_stops():
    with pytest.raises(InputError, match="received 20 images and 3 labels"):
        Points(smooth(), IMAGES, LABELS[:3])
    points = Points(smooth(), IMAGES, LABELS)
    theta = points.parameters.read()
    with pytest.raises(Diverged, match="not finite"):
        points.gradient(theta * np.float32("nan"))
    with pytest.raises(Diverged, match="not finite"):
        points.hessian_product(theta, theta * np.float32("inf"))


def test_a_loss_of_ones_own():
    """Squared error of a linear model: value, gradient and Hessian in closed form."""
    x, y = RNG.normal(size=(30, 4)), RNG.normal(size=30)
    model = keras.Sequential([keras.Input((4,), dtype="float64"), keras.layers.Dense(1, use_bias=False, dtype="float64")])
    points = Points(model, x, y, lambda out, label: tf.square(out[:, 0] - label) / 2, batch_size=9)
    theta = points.parameters.read()
    residual = x @ theta - y
    assert points.evaluate([theta])[0][0] == pytest.approx((residual**2).mean() / 2, rel=1e-12)
    np.testing.assert_allclose(points.gradient(theta)[1], x.T @ residual / 30, rtol=1e-12)
    np.testing.assert_allclose(points.hessian_product(theta, np.ones(4)), x.T @ x @ np.ones(4) / 30, rtol=1e-12)
