"""Optimisers by Keras's names: their steps against the published formulas in float64."""

import keras
import numpy as np
import pytest

from kerasgreedy.solvers.schedules import make_optimizer
from kerasgreedy.spec.training import Adam, AdamW, RmsProp, Sgd, Training

RATES = np.array([0.1, 0.05, 0.02], np.float32)
GRADIENTS = np.array([[0.5, -1.0], [0.25, 2.0], [-1.5, 0.125]])
START = np.array([1.0, -2.0])


def stepped(settings):
    variable = keras.Variable(START.astype(np.float32))
    optimizer = make_optimizer(settings, RATES)
    optimizer.build([variable])
    for gradient in GRADIENTS:
        optimizer.apply([keras.ops.convert_to_tensor(gradient.astype(np.float32))])
    return keras.ops.convert_to_numpy(variable)


def test_adamw_takes_its_decay_from_the_weights_alone():
    """Loshchilov and Hutter 2019, Algorithm 2: the moments never see the weights."""
    w, m, v = START.copy(), np.zeros(2), np.zeros(2)
    for step, (rate, g) in enumerate(zip(RATES.astype(float), GRADIENTS, strict=True), start=1):
        w -= rate * 0.3 * w
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        w -= rate * (m / (1 - 0.8**step)) / (np.sqrt(v / (1 - 0.9**step)) + 1e-7)
    settings = AdamW(name="adamw", beta_1=0.8, beta_2=0.9, weight_decay=0.3)
    assert settings.coupled_decay == 0
    np.testing.assert_allclose(stepped(settings), w, rtol=2e-5)
    plain = AdamW(name="adamw", beta_1=0.8, beta_2=0.9, weight_decay=0)
    np.testing.assert_allclose(stepped(plain), stepped(Adam(name="adam", beta_1=0.8, beta_2=0.9)), rtol=1e-6)


@pytest.mark.parametrize(("momentum", "centered"), [(0.0, False), (0.5, False), (0.0, True)])
def test_rmsprop(momentum, centered):
    w, square, mean, velocity = START.copy(), np.zeros(2), np.zeros(2), np.zeros(2)
    for rate, g in zip(RATES.astype(float), GRADIENTS, strict=True):
        square, mean = 0.8 * square + 0.2 * g * g, 0.8 * mean + 0.2 * g
        step = rate * g / np.sqrt(square - mean**2 * centered + 1e-4)
        velocity = momentum * velocity + step
        w -= velocity if momentum else step
    settings = RmsProp(name="rmsprop", rho=0.8, momentum=momentum, centered=centered, epsilon=1e-4, weight_decay=0.1)
    assert settings.coupled_decay == 0.1  # added to the gradient by the step, not here
    np.testing.assert_allclose(stepped(settings), w, rtol=2e-5)


def test_documents_name_them():
    for text, kind in (("adamw", AdamW), ({"name": "rmsprop", "rho": 0.5}, RmsProp), ("sgd", Sgd)):
        assert isinstance(Training.model_validate({"epochs": 1, "optimizer": text}).optimizer, kind)
