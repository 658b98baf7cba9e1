"""Learning rates by hand."""

import math

import numpy as np
import pytest

from kerasgreedy.solvers.schedules import TableSchedule, learning_rates, make_optimizer
from kerasgreedy.spec.training import Adam, ConstantSchedule, CosineSchedule, Sgd, StepSchedule


def test_the_papers_cifar_schedule():
    rates = learning_rates(0.1, StepSchedule(name="step", factor=0.2, every=15), epochs=50, steps_per_epoch=4)
    assert len(rates) == 200
    by_epoch = rates.reshape(50, 4)
    for epoch, rate in ((0, 0.1), (14, 0.1), (15, 0.02), (29, 0.02), (30, 0.004), (44, 0.004), (45, 0.0008), (49, 0.0008)):
        np.testing.assert_allclose(by_epoch[epoch], rate, rtol=1e-6)


def test_drops_at_epochs_that_are_given():
    schedule = StepSchedule(name="step", factor=0.1, at=[200, 250, 300])
    by_epoch = learning_rates(0.05, schedule, epochs=350, steps_per_epoch=3).reshape(350, 3)
    for first, last, rate in ((0, 199, 0.05), (200, 249, 0.005), (250, 299, 0.0005), (300, 349, 0.00005)):
        np.testing.assert_allclose(by_epoch[first : last + 1], rate, rtol=1e-6)


def test_epochs_past_the_end_never_come_and_a_warm_up_goes_before():
    schedule = StepSchedule(name="step", factor=0.5, at=[1, 7], warmup_epochs=0.5)
    np.testing.assert_allclose(learning_rates(1.0, schedule, 2, 4), [0.5, 1, 1, 1, 0.5, 0.5, 0.5, 0.5])


def test_cosine_with_warm_up():
    rates = learning_rates(0.4, CosineSchedule(name="cosine", final=0.1, warmup_epochs=2), epochs=6, steps_per_epoch=2)
    np.testing.assert_allclose(rates[:4], [0.1, 0.2, 0.3, 0.4], rtol=1e-6)
    for step in range(4, 12):
        share = (step / 2 - 2) / 4
        assert rates[step] == pytest.approx(0.4 * (0.1 + 0.9 * (1 + math.cos(math.pi * share)) / 2), rel=1e-5)


def test_warm_up_alone_and_half_an_epoch():
    rates = learning_rates(1.0, ConstantSchedule(warmup_epochs=0.5), epochs=2, steps_per_epoch=4)
    np.testing.assert_allclose(rates, [0.5, 1, 1, 1, 1, 1, 1, 1])


def test_the_optimiser_reads_the_table_and_holds_its_end():
    rates = np.array([0.5, 0.25], np.float32)
    assert [float(TableSchedule(rates)(step)) for step in (0, 1, 2, 9)] == [0.5, 0.25, 0.25, 0.25]
    sgd = make_optimizer(Sgd(momentum=0.7, nesterov=True), rates)
    assert (sgd.momentum, sgd.nesterov, sgd.weight_decay) == (0.7, True, None)
    adam = make_optimizer(Adam(name="adam", beta_1=0.8, epsilon=1e-4), rates)
    assert (adam.beta_1, adam.beta_2, adam.epsilon) == (0.8, 0.999, 1e-4)
