"""FISTA that follows the directions of largest curvature at their own curvature: the bound, the step, and the same optimum."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import same_weights, some, two_devices, weights
from convex_runs import FISTA, check_resumed, fista_of, problem, solving
from networks import TWO_LAYER as SPEC

from kerasgreedy.errors import Diverged, SpecError
from kerasgreedy.solvers import fista, passes
from kerasgreedy.solvers.metric import Metric, Steps, pack

HEADS = "name: s\nblocks: [{conv: 6}, {conv: 8, downsample: average}]\nauxiliary_head: {pool_to: 1}\n"
ROWS = """
name: ccnn
blocks: [[{random_features: 20, kernel_size: 3, gamma: 0.2}, {avg_pool: 2}, {standardize: places}]]
auxiliary_head: {layers: [{rows: true}]}
"""


class Thresholds:
    """Terms of a penalty `curvature` / 2 |v|^2 and a threshold, both on kernels only."""

    factor = 1.0

    def __init__(self, curvature, threshold=0.3):
        self.curvature, self._threshold = curvature, threshold

    def curvature_of(self, key):
        return self.curvature if "kernel" in key else 0.0

    def mapped(self, key, value, rate):
        short = tf.sign(value) * tf.maximum(tf.abs(value) - rate * self._threshold, 0)
        return short if "kernel" in key else value

    def proximal(self, key, value, rate):
        return self.mapped(key, tf.constant(value), tf.constant(rate, tf.float64)).numpy()


@pytest.fixture
def solve(tmp_path):
    return solving(tmp_path)


@pytest.fixture
def metrics(monkeypatch):
    """The metrics that runs have measured."""
    found = []

    class Noted(Steps):
        def __init__(self, metric, terms):
            found.append(metric)
            super().__init__(metric, terms)

    monkeypatch.setattr(fista, "Steps", Noted)
    return found


def test_the_bound_is_above_the_curvature_and_close_to_it_in_the_largest_directions(solve, metrics):
    """Features times features in NumPy, float64, against U diag(w) U^T + rest I."""
    run = solve(SPEC, FISTA, "training.epochs=1", "training.solver.directions=6", "training.batch_size=40")
    a, _, _ = problem(run)
    curvature = a.T @ a / len(a)
    (metric,) = metrics
    u = metric.directions.astype(float)
    np.testing.assert_allclose(u.T @ u, np.eye(6), atol=1e-5)
    bound = u @ np.diag(metric.values) @ u.T + metric.rest * np.eye(len(u))
    assert np.linalg.eigvalsh(bound - curvature)[0] > -1e-6 * metric.largest
    exact = np.linalg.eigvalsh(curvature)[::-1]
    np.testing.assert_allclose(metric.values, exact[:6], rtol=2e-2)
    assert exact[6] <= metric.rest <= 1.2 * exact[6] < exact[0] / 20
    np.testing.assert_allclose(metric.times(np.eye(len(u))[:, :3], 0.5), bound[:, :3] + 0.5 * np.eye(len(u))[:, :3], atol=1e-4)


def test_a_step_minimises_its_bound():
    """Against plain proximal gradient steps in NumPy, float64, many of them; kernel and bias, the bias without penalty."""
    rng = np.random.default_rng(0)
    u, _ = np.linalg.qr(rng.normal(size=(9, 3)))
    metric = Metric(u.astype(np.float32), np.array([50.0, 20.0, 3.0]), 0.4)
    y = {"head_1/dense_1/kernel": rng.normal(size=(2, 4, 5)), "head_1/dense_1/bias": rng.normal(size=5)}
    slope = {key: rng.normal(size=value.shape) for key, value in y.items()}
    x, bound = Steps(metric, Thresholds(0.1)).take(y, slope)
    whole = u @ np.diag(metric.values) @ u.T + 0.5 * np.eye(9)
    best, largest = pack(y), 50.5
    for _ in range(20_000):
        best = best - (pack(slope) + whole @ (best - pack(y))) / largest
        best[:8] = np.sign(best[:8]) * np.maximum(np.abs(best[:8]) - 0.3 / largest, 0)

    def value(x):
        moved = x - pack(y)
        return np.sum(pack(slope) * moved) + np.sum(moved * (whole @ moved)) / 2 + 0.3 * np.abs(x[:8]).sum()

    assert value(best) <= value(pack(x)) < value(best) + 0.01 * (value(pack(y)) - value(best))
    assert bound > 0


@pytest.mark.parametrize("values", [[50.0, 20.0, 3.0], [7000.0, 500.0, 50.0], []])
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("size", [1.0, 1e-3])
@pytest.mark.parametrize("decay", [0.0, 10.0])
def test_the_bound_of_the_gradient_is_one(values, exact, size, decay):
    """In float64, for losses whose curvature is as far from the metric as may be; a penalty on the kernel and not on the bias."""
    rng = np.random.default_rng(0)
    u, _ = np.linalg.qr(rng.normal(size=(9, 9)))
    directions, rest = u[:, : len(values)].astype(np.float32), 0.4
    metric = Metric(directions, np.array(values), rest, exact)
    near = u[:, : len(values)] @ np.diag(values) @ u[:, : len(values)].T
    others = u[:, len(values) :] @ u[:, len(values) :].T
    curvatures = [near, near + rest * others, *([] if exact else [np.zeros((9, 9)), 0.3 * near])]
    y = {"head_1/dense_1/kernel": rng.normal(size=(2, 4, 5)), "head_1/dense_1/bias": rng.normal(size=5)}
    y = {key: value.astype(np.float32).astype(float) for key, value in y.items()}
    slope = {key: size * rng.normal(size=value.shape) for key, value in y.items()}
    x, bound = Steps(metric, Thresholds(decay, threshold=0.0)).take(y, slope)
    moved = pack(x) - pack(y)
    for curvature in curvatures:
        gradient = pack(slope) + curvature @ moved
        gradient[:8] += decay * moved[:8]
        rounded = 2e-7 * (metric.largest + decay) * np.abs(pack(y)).max() * np.sqrt(45)
        assert np.linalg.norm(gradient) <= bound + rounded


def test_features_that_are_not_finite_end_the_run(solve, monkeypatch):
    monkeypatch.setattr(passes.Passes, "_product", lambda self, bases, *batch: [basis * np.inf for basis in bases])
    with pytest.raises(Diverged, match="features that head_1 is linear in are not finite"):
        solve(SPEC, FISTA, "training.solver.directions=5")


def test_what_is_left_needs_passes_to_be_measured(solve):
    with pytest.raises(SpecError, match="received 3; allowed with directions: 8 or more"):
        solve(SPEC, FISTA, "training.solver.directions=5", "training.solver.power_iterations=3")


@pytest.mark.parametrize(
    "penalty", some("{name: l2, weight: 0.1}", slow=["{name: l1, weight: 0.02}", "{name: group_lasso, weight: 0.02}"])
)
def test_the_optimum_is_the_same_in_fewer_steps(solve, penalty):
    sets = [f"training.regularizers=[{penalty}]", "training.solver.gap=1e-3"]
    plain = fista_of(solve(SPEC, FISTA, *sets, folder="plain"))
    ahead = fista_of(solve(SPEC, FISTA, *sets, "training.solver.directions=10", folder="ahead"))
    assert plain["converged"] and ahead["converged"]
    assert ahead["objective"] == pytest.approx(plain["objective"], rel=2e-3)
    assert (
        max(run["objective"] - run["duality_gap"] for run in (plain, ahead)) <= min(plain["objective"], ahead["objective"]) + 1e-6
    )
    assert ahead["iterations"] < plain["iterations"] / 2
    assert ahead["step_curvature"]["head_1"] < plain["step_curvature"]["head_1"] / 10
    assert plain["step_curvature"] == plain["curvature"]


@pytest.mark.slow
def test_in_a_ball_too(solve):
    sets = ["training.regularizers=[{name: nuclear_ball, radius: 0.2}]", "training.solver.gap=1e-3"]
    plain = fista_of(solve(ROWS, FISTA, *sets, folder="plain"))
    ahead = fista_of(solve(ROWS, FISTA, *sets, "training.solver.directions=10", folder="ahead"))
    assert plain["converged"] and ahead["converged"]
    assert ahead["objective"] == pytest.approx(plain["objective"], rel=1e-3)
    assert ahead["iterations"] < plain["iterations"]


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["squared_error", "cross_entropy"])
def test_heads_with_biases_and_more_directions_than_weights(solve, objective):
    """Two heads at a time, 7 and 9 weights a class; all directions are followed then, and squared error takes a step or two."""
    sets = ["strategy=random_features", "training.regularizers=[]", "training.optimizer={name: sgd, weight_decay: 0.1}",
            f"training.objective={objective}", "training.solver={name: fista, tolerance: 1e-6}"]  # fmt: skip
    plain = solve(HEADS, FISTA, *sets, folder="plain")
    ahead = solve(HEADS, FISTA, *sets, "training.solver.directions=50", folder="ahead")
    assert fista_of(ahead)["objective"] == pytest.approx(fista_of(plain)["objective"], rel=1e-5)
    assert fista_of(ahead)["iterations"] < fista_of(plain)["iterations"] / (10 if objective == "squared_error" else 1.2)
    for key, value in weights(plain.workdir).items():
        if value.dtype.kind == "f":
            np.testing.assert_allclose(weights(ahead.workdir)[key], value, atol=1e-3 * max(1, np.abs(value).max()), err_msg=key)


@pytest.mark.parametrize("at", some(slow=[1, 4, 7, 10]))
def test_stopped_and_resumed_equals_never_stopped(solve, monkeypatch, at):
    sets = ["training.epochs=6", "training.solver.path=[3, 1]", "training.batch_size=50", "training.solver.directions=5"]
    check_resumed(solve, monkeypatch, at, SPEC, FISTA, *sets, "training.solver.power_iterations=8")


@pytest.mark.slow
def test_two_devices_equal_one(solve):
    sets = ["training.epochs=3", "training.batch_size=32", "training.solver.directions=5"]
    one = solve(SPEC, FISTA, *sets, folder="one")
    two = solve(SPEC, FISTA, *sets, folder="two", strategy=two_devices())
    for key, value in weights(one.workdir).items():
        if value.dtype.kind == "f":
            np.testing.assert_allclose(weights(two.workdir)[key], value, atol=1e-4 * max(1, np.abs(value).max()), err_msg=key)
    assert fista_of(two)["objective"] == pytest.approx(fista_of(one)["objective"], rel=1e-5)


@pytest.mark.slow
def test_kept_sums_give_the_same(solve):
    sets = ["training.epochs=3", "training.solver.directions=5"]
    plain = solve(SPEC, FISTA, *sets, folder="plain")
    kept = solve(SPEC, FISTA, *sets, "cache={memory_gb: 1}", folder="kept")
    same_weights(weights(kept.workdir), weights(plain.workdir))
