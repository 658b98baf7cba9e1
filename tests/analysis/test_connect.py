"""Paths between networks: known heights are found, and what was found is taken again."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerasgreedy.analysis.analysis import Desk, Ledger
from kerasgreedy.analysis.connect import ConnectAnalysis
from kerasgreedy.analysis.pairs import pair
from kerasgreedy.analysis.path_finding import Memory, Sight, bezier, descend, string
from kerasgreedy.analysis.running import analyse
from kerasgreedy.analysis.subject import Subject, run_subject
from kerasgreedy.errors import InputError
from kerasgreedy.network.points import Points
from kerasgreedy.spec.analyses_of_loss import Connect


def product_net(width):
    """x = 1 to sum over i of w_i v_i, which should be 1: the loss is (<w, v> - 1)^2 / 2."""
    dense = [keras.layers.Dense(units, use_bias=False, dtype="float64") for units in (width, 1)]
    model = keras.Sequential([keras.Input((1,), dtype="float64"), *dense])
    points = Points(model, np.ones((1, 1)), np.ones(1), lambda out, label: tf.square(out[:, 0] - label) / 2)
    return Sight(points, None, 11)


ONES = {1: np.array([1.0, 1.0]), 2: np.array([1.0, 0.0, 1.0, 0.0])}


def test_one_hidden_unit_has_a_barrier_and_two_have_none():
    """w v = 1 has two branches: each way from (1, 1) to (-1, -1) meets an axis, where the loss is 1/2. A second unit leads round.

    Linear networks: one component where the hidden width is larger than both ends (Freeman and Bruna 2017, Theorem 2.2).
    """
    path = string(product_net(1), ONES[1], -ONES[1], 0.45, rate=0.1)
    assert not path.connected and path.height == pytest.approx(0.5, abs=1e-12)
    path = string(product_net(1), ONES[1], -ONES[1], 0.5, rate=0.1)
    assert path.connected and len(path.beads) == 2
    start = np.array([1.0, 0.1, 1.0, 0.2])
    sight = product_net(2)
    low = sight.loss(start)
    path = string(sight, start, np.array([-1.0, 0.1, -1.0, 0.2]), 0.05, rate=0.1)
    assert path.connected and path.height <= 0.05 and low < 0.01 and len(path.beads) > 2
    for bead in path.beads[1:-1]:
        assert (bead[:2] @ bead[2:] - 1) ** 2 / 2 <= 0.05


def test_a_convex_loss_has_no_barrier():
    """Of a quadratic the straight line's height is that of its higher end."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), rng.normal(size=30)
    model = keras.Sequential([keras.Input((4,), dtype="float64"), keras.layers.Dense(1, use_bias=False, dtype="float64")])
    sight = Sight(Points(model, x, y, lambda out, label: tf.square(out[:, 0] - label) / 2), None, 9)
    start, end = rng.normal(size=(2, 4))
    ends = [((x @ w - y) ** 2).mean() / 2 for w in (start, end)]
    path = string(sight, start, end, max(ends) * (1 + 1e-9))
    assert path.connected and path.height == pytest.approx(max(ends), rel=1e-12)
    # Descent stops as soon as it is under the level.
    theta, loss = descend(sight, start, 0.9 * ends[0], 1000, 0.02)
    assert ((x @ theta - y) ** 2).mean() / 2 == pytest.approx(loss, rel=1e-12) and loss <= 0.9 * ends[0] < 1.2 * loss


def test_beads_are_bounded():
    sight = product_net(2)
    start = np.array([1.0, 0.1, 1.0, 0.2])
    path = string(sight, start, np.array([-1.0, 0.1, -1.0, 0.2]), 0.02, beads=3, rate=0.1)
    assert len(path.beads) == 3 and not path.connected and path.height > 0.02


def test_a_curve_goes_around():
    start = np.array([1.0, 0.1, 1.0, 0.2])
    sight = product_net(2)
    end = np.array([-1.0, 0.1, -1.0, 0.2])
    path = bezier(sight, start, end, 0.2, steps=400, rate=0.05)
    assert path.connected and path.height < 0.2 < max(sight.along(start, end))
    np.testing.assert_array_equal(path.beads[0], start)
    np.testing.assert_array_equal(path.beads[-1], end)
    # On a quadratic Bezier curve second differences at even t are constant.
    second = np.diff(path.beads, 2, axis=0)
    np.testing.assert_allclose(second, np.broadcast_to(second[0], second.shape), atol=1e-12)


@pytest.mark.parametrize("form", ["string", "bezier"])
def test_killed_and_begun_again_is_the_same(tmp_path, form):
    start, end = np.array([1.0, 0.1, 1.0, 0.2]), np.array([-1.0, 0.1, -1.0, 0.2])

    class Killed(Exception):
        pass

    def run(folder, kills):
        """As often as it is killed, a bead or a hundred steps later each time."""
        seen = []

        def did(what):
            seen.append(what)
            if len(seen) == (2 if form == "string" else 130) and kills:
                raise Killed

        folder.mkdir(exist_ok=True)
        memory = Memory(Desk(Ledger(folder / "ledger.jsonl"), tf.distribute.get_strategy(), folder))
        if form == "string":
            return string(product_net(2), start, end, 0.02, rate=0.1, memory=memory, did=did)
        return bezier(product_net(2), start, end, 0.2, 400, 0.05, memory=memory, did=did)

    expected = run(tmp_path / "whole", False)
    for _ in range(3):
        with pytest.raises(Killed):
            run(tmp_path / "killed", True)
    found = run(tmp_path / "killed", False)
    np.testing.assert_array_equal(found.beads, expected.beads)
    assert found.losses == expected.losses and found.connected == expected.connected


@pytest.mark.slow
def test_a_way_between_two_runs(two_runs, tmp_path):
    found = analyse(Connect(examples=100, level=1.0, points=5, steps=100), two_runs, tmp_path / "out", quiet=True)
    figures = found.figures
    assert figures["statistics"] == "reestimated" and figures["straight_height"] > 1.0
    assert figures["connected"] == (figures["height"] <= 1.0)
    one, theta, other = pair([run_subject(run) for run in two_runs])
    sample = one.sample("train", 100)
    points = Points(one.model, sample.images, sample.labels, one.losses)
    for weights, loss in ((theta, figures["ends"][0]), (other, figures["ends"][1])):
        assert points.evaluate([weights], [points.statistics(weights)])[0][0] == pytest.approx(loss, rel=1e-5)
    middle = points.evaluate([(theta + other) / 2], [points.statistics((theta + other) / 2)])[0][0]
    assert figures["straight"][2] == pytest.approx(middle, rel=1e-4)
    assert len(figures["test"]) + 1 == figures["beads"] == len(figures["places"]) and figures["length"] >= 1 - 1e-9
    assert [file.name for file in found.files] == ["connect.json", "connect.csv", "connect.png"]
    assert np.array(Image.open(found.files[-1])).std() > 5
    again = analyse(Connect(examples=100, level=1.0, points=5, steps=100), two_runs, tmp_path / "out", quiet=True)
    assert again.figures == figures


@pytest.mark.slow
def test_a_curve_that_is_overwritten_begins_anew(two_runs, tmp_path):
    first, second = (Connect(form="bezier", examples=30, points=3, steps=6, seed=seed, learning_rate=0.1) for seed in (0, 7))
    analyse(first, two_runs, tmp_path / "out", quiet=True)
    over = analyse(second, two_runs, tmp_path / "out", overwrite=True, quiet=True).figures
    assert over == analyse(second, two_runs, tmp_path / "fresh", quiet=True).figures


def test_the_command(two_runs, call, tmp_path, monkeypatch, finished):
    monkeypatch.chdir(tmp_path)
    one, two = two_runs
    code, out, _ = call(f"connect {one} {two} --form bezier --examples 30 --steps 5 --points 3 --out here --json")
    found = json.loads(out.splitlines()[-1])
    assert code == 0 and found["form"] == "bezier" and found["beads"] == 3
    assert found["level"] == pytest.approx(2 * max(found["ends"]))
    code, out, err = call(f"connect {one}")
    assert code == 2 and "connect: received 1 run folders; allowed: 2" in err


def test_networks_of_other_shapes_have_no_line(two_runs):
    one = run_subject(two_runs[0])
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(InputError, match="differ in their layers"):
        ConnectAnalysis(Connect()).measure([one, Subject("other", model)], None)
