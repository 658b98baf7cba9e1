"""Sparsity schedules against TFMOT's own objects."""

import numpy as np
import pytest

from kerasgreedy.errors import InputError
from kerasgreedy.spec.sparsity import ConstantSparsity, PolynomialDecay, from_tfmot

STEPS = range(0, 140)
CONSTANT = [
    {"target_sparsity": 0.3, "begin_step": 0},
    {"target_sparsity": 0.5, "begin_step": 7, "end_step": 60, "frequency": 9},
    {"target_sparsity": 0.0, "begin_step": 3, "end_step": 3, "frequency": 1},
]
DECAY = [
    {"initial_sparsity": 0.1, "final_sparsity": 0.8, "begin_step": 0, "end_step": 120},
    {"initial_sparsity": 0.0, "final_sparsity": 0.5, "begin_step": 11, "end_step": 90, "power": 1, "frequency": 7},
    {"initial_sparsity": 0.6, "final_sparsity": 0.2, "begin_step": 5, "end_step": 50, "power": 2.5, "frequency": 1},
]


@pytest.fixture(scope="module")
def tfmot():
    import tensorflow_model_optimization

    return tensorflow_model_optimization.sparsity.keras


@pytest.mark.parametrize(
    ("kind", "values"), [*(("ConstantSparsity", v) for v in CONSTANT), *(("PolynomialDecay", v) for v in DECAY)]
)
def test_schedules_are_tfmots_at_every_step(tfmot, kind, values):
    theirs = getattr(tfmot, kind)(**values)
    ours = from_tfmot(theirs)
    assert type(ours).__name__ == kind
    assert {key: getattr(ours, key) for key in values} == values
    for step in STEPS:
        active, sparsity = ours(step)
        expected = theirs(step)
        assert active == bool(expected[0]), step
        np.testing.assert_allclose(sparsity, float(expected[1]), rtol=1e-6, atol=1e-7)
    active_steps = [step for step in STEPS if ours(step)[0]]
    changes = [step for step in active_steps if ours(step)[1] != ours.final]
    assert ours.last_change in active_steps and all(step < ours.last_change for step in changes)


def test_a_schedule_by_hand():
    """Half way, with power 2: 0.8 - 0.6 * 0.25; ours come back from `from_tfmot` as they are."""
    values = {"initial_sparsity": 0.2, "final_sparsity": 0.8, "begin_step": 10, "end_step": 30, "power": 2, "frequency": 4}
    schedule = PolynomialDecay(name="polynomial_decay", **values)
    assert schedule(20) == (False, pytest.approx(0.65)) and schedule(18)[0] and not schedule(9)[0] and not schedule(34)[0]
    assert schedule(0)[1] == pytest.approx(0.2) and schedule(99)[1] == 0.8
    assert schedule.last_change == 30 and schedule.final == 0.8
    assert schedule.model_copy(update={"frequency": 6}).last_change == 28
    assert from_tfmot(schedule) is schedule


def test_what_is_no_schedule_of_ours_is_refused(tfmot):
    class Sawtooth(tfmot.ConstantSparsity):
        pass

    with pytest.raises(InputError, match="received Sawtooth; allowed: ConstantSparsity, PolynomialDecay"):
        from_tfmot(Sawtooth(0.5, 0))
    for other in (0.5, lambda step: (True, 0.5), "polynomial_decay"):
        with pytest.raises(InputError, match=r"allowed: tfmot.sparsity.keras.ConstantSparsity or PolynomialDecay"):
            from_tfmot(other)
    with pytest.raises(InputError, match=r"PolynomialDecay: end_step: received 5; allowed: more than 5 \(begin_step\)"):
        from_tfmot(tfmot.PolynomialDecay(0.1, 0.5, 5, 5))
    with pytest.raises(InputError, match=r"ConstantSparsity: frequency: received 1.5; allowed: integer"):
        from_tfmot(tfmot.ConstantSparsity(0.1, 5, frequency=1.5))


def test_steps_in_order():
    with pytest.raises(ValueError, match=r"received 4; allowed: -1, or 5 \(begin_step\) and more"):
        ConstantSparsity(name="constant_sparsity", target_sparsity=0.5, begin_step=5, end_step=4)
