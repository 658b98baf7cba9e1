"""The time left, with a clock of one's own."""

from types import SimpleNamespace

import pytest

from kerasgreedy.train.pace import Pace


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def phase(epochs=5, multiply_adds=1000, batch=10, index=0):
    training = SimpleNamespace(batch_size=batch)
    return SimpleNamespace(index=index, epochs=epochs, training_multiply_adds=multiply_adds, training=training)


def run(clock, pace, one, epochs, trace=5.0, step=1.0, rest=4.0):
    """Of 40 images: 4 steps an epoch, the first of a phase traces; `rest` is validation and the like."""
    pace.phase()
    for epoch in range(epochs):
        for number in range(4):
            took = trace + step if (epoch, number) == (0, 0) else step
            clock.now += took
            pace.step(one, took)
        clock.now += rest
        pace.epoch(one)


def test_the_truth_is_told_after_an_epoch():
    """Three counted steps and 4 s beside them: 7 s for three steps of work. The next epochs take 8 s each: four of them 32 s."""
    clock, one = Clock(), phase()
    pace = Pace(40, clock)
    run(clock, pace, one, 1)
    assert pace.left(one, 1, 0, []) == pytest.approx(4 * 4 * 7 / 3)  # 37 against 32
    run_more = Pace(40, clock)
    run(clock, run_more, one, 3)
    assert run_more.left(one, 3, 0, []) == pytest.approx(2 * 4 * (7 + 8 + 8) / 11)  # 16.7 against 16


def test_phases_to_come_cost_their_work_and_their_beginning():
    """At 40e9 multiply-adds a second (8e10 in 2 s) twice of them take twice as long; a beginning of 6 s as the first had."""
    clock, one = Clock(), phase(epochs=4, multiply_adds=8e9)
    pace = Pace(40, clock)
    run(clock, pace, one, 4)
    later = phase(epochs=2, multiply_adds=16e9)
    seconds = 2 * 4 * 2 * 2 + 6  # 2 s a step, as the last three epochs had
    assert pace.left(one, 4, 0, [later]) == pytest.approx(seconds)
    pace.phase()
    assert pace.left(later, 0, 0, []) == pytest.approx(seconds - 6)  # before its first step: at the pace of the one before


def test_small_steps_have_costs_that_do_not_grow():
    """A step of 1e6 multiply-adds in 2 s: 100 times of them are 1e8, 5 ms at 20e9 a second, and not 200 s."""
    clock, one = Clock(), phase(epochs=4, multiply_adds=1e5)
    pace = Pace(40, clock)
    run(clock, pace, one, 4)
    assert pace.left(one, 4, 0, [phase(epochs=1, multiply_adds=1e7)]) == pytest.approx(4 * (2 - 1e6 / 20e9 + 1e8 / 20e9) + 6)


def test_within_the_first_epoch_steps_are_all_that_is_known():
    clock, one = Clock(), phase(epochs=2)
    pace = Pace(40, clock)
    pace.phase()
    assert pace.left(one, 0, 0, []) is None
    clock.now += 30
    pace.step(one, 30)  # traced
    assert pace.left(one, 0, 1, []) is None
    clock.now += 2
    pace.step(one, 2)
    assert pace.left(one, 0, 2, []) == pytest.approx(6 * 2)


def test_an_epoch_of_one_step_and_a_resumed_one():
    clock, one = Clock(), phase(epochs=10, batch=40)
    pace = Pace(40, clock)
    pace.phase()
    for _ in range(3):
        clock.now += 2
        pace.step(one, 2)
        clock.now += 1
        pace.epoch(one)
    assert pace.left(one, 3, 0, []) == pytest.approx(7 * 3)  # the first epoch was its beginning
