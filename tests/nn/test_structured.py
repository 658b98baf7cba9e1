"""Structured sparsity: norms, penalties and proximal maps by hand, in NumPy, by their optimality and by cvxpy."""

import itertools
from types import SimpleNamespace

import cvxpy
import numpy as np
import pytest
import tensorflow as tf

from kerasgreedy.kernel_groups import levels
from kerasgreedy.nn.structured import Entering, GroupNorms, RelaxedCost

RNG = np.random.default_rng(3)
NORMS = ["l2", "normalized", "scaled", "linf"]
GROUPS = ["kernel", "half_rings", "rings"]


def settings(groups="kernel", norm="l2", squared=False, weight=0.7):
    return SimpleNamespace(groups=groups, norm=norm, squared=squared, weight=weight)


def group_entries(kernel, groups):
    """For each filter, the numbers of each of its groups."""
    table = np.array(levels(kernel.shape[0], groups)) if kernel.ndim == 4 else None
    for j in range(kernel.shape[-1]):
        if table is None:
            yield [kernel[..., j].reshape(-1)]
        else:
            yield [kernel[..., j][table <= n].reshape(-1) for n in range(1, table.max() + 1)]


def norm_of(values, norm):
    length = np.sqrt(np.sum(values.astype(float) ** 2))
    factors = {"l2": 1, "normalized": values.size**-0.5, "scaled": values.size**0.5}
    return np.abs(values).max() if norm == "linf" else factors[norm] * length


def expected_value(kernels, s):
    sums = [np.array([sum(norm_of(g, s.norm) for g in gs) for gs in group_entries(k, s.groups)]) for k in kernels]
    if not s.squared:
        return s.weight * sum(each.sum() for each in sums)
    return s.weight * sum(each.sum() ** 2 if s.groups == "kernel" else (each**2).sum() for each in sums)


def test_norms_by_hand():
    """3x3, one channel: 1 at each place of the outer half-ring, 2 at those of the second, 3 in the middle."""
    kernel = np.array([[1, 1, 1], [1, 3, 2], [1, 2, 2]], float)[:, :, None, None]
    half = GroupNorms(settings("half_rings")).norms(tf.constant(kernel)).numpy()[:, 0]
    np.testing.assert_allclose(half, [np.sqrt(5), np.sqrt(5 + 12), np.sqrt(5 + 12 + 9)])
    rings = GroupNorms(settings("rings")).norms(tf.constant(kernel)).numpy()[:, 0]
    np.testing.assert_allclose(rings, [np.sqrt(17), np.sqrt(26)])
    value = GroupNorms(settings("half_rings", weight=2.0)).value({"a": tf.constant(kernel)})
    assert float(value) == pytest.approx(2 * (5**0.5 + 17**0.5 + 26**0.5))
    squared = GroupNorms(settings("half_rings", squared=True, weight=2.0)).value({"a": tf.constant(kernel)})
    assert float(squared) == pytest.approx(2 * (5**0.5 + 17**0.5 + 26**0.5) ** 2, rel=1e-6)


def test_norms_of_5x5_by_hand():
    """Ones in two channels: the groups have 18, 32, 42, 48 and 50 numbers, or 32, 48, 50."""
    kernel = tf.ones([5, 5, 2, 3], tf.float64)
    for groups, counts in (("half_rings", [18, 32, 42, 48, 50]), ("rings", [32, 48, 50]), ("kernel", [50])):
        counts = np.array(counts, float)
        for norm, powers in (("l2", 0.5), ("normalized", 0.0), ("scaled", 1.0)):
            got = GroupNorms(settings(groups, norm)).norms(kernel).numpy()
            np.testing.assert_allclose(got, np.repeat((counts**powers)[:, None], 3, 1))
        np.testing.assert_allclose(GroupNorms(settings(groups, "linf")).norms(kernel).numpy(), 1)


@pytest.mark.parametrize(("groups", "norm", "squared"), itertools.product(GROUPS, NORMS, [False, True]))
def test_values_and_gradients(groups, norm, squared):
    """Against NumPy, and by central differences in float64; both kinds of layers."""
    s = settings(groups, norm, squared)
    kernels = {"a": RNG.normal(size=(5, 5, 2, 3)), "b": RNG.normal(size=(3, 3, 3, 4)), "c": RNG.normal(size=(6, 5))}
    penalty = GroupNorms(s)
    as_tensors = {key: tf.constant(value) for key, value in kernels.items()}
    assert float(penalty.value(as_tensors)) == pytest.approx(expected_value(list(kernels.values()), s), rel=1e-5)
    slopes = penalty.gradients(as_tensors)
    for key, value in kernels.items():
        for _ in range(6):
            place = tuple(RNG.integers(size) for size in value.shape)
            ends = []
            for sign in (1, -1):
                moved = value.copy()
                moved[place] += sign * 1e-5
                ends.append(expected_value([moved if k == key else v for k, v in kernels.items()], s))
            assert float(slopes[key][place]) == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-4, rel=1e-4)


@pytest.mark.parametrize(("groups", "norm", "squared"), itertools.product(GROUPS, NORMS, [False, True]))
def test_the_gradient_at_zero_is_zero(groups, norm, squared):
    kernel = np.zeros((3, 3, 2, 2), np.float32)
    kernel[1, 1, :, 1] = 1  # the outer groups of the second filter are zero as well
    slope = GroupNorms(settings(groups, norm, squared)).gradients({"a": tf.constant(kernel)})["a"].numpy()
    assert np.isfinite(slope).all() and not slope[..., 0].any() and slope[1, 1, 0, 1] > 0
    assert not np.delete(slope[..., 1].reshape(9, 2), 4, 0).any()


@pytest.mark.parametrize(("groups", "norm", "squared"), itertools.product(GROUPS, NORMS, [False, True]))
def test_proximal_maps_are_those_that_a_generic_solver_finds(groups, norm, squared):
    """min |u - w|^2 / 2 + rate * value(u) by cvxpy; some filters, and outer groups, become zero exactly."""
    s, rate = settings(groups, norm, squared), 0.4
    kernel = np.random.default_rng(1).normal(size=(3, 3, 2, 3)) * np.array([1.0, 0.4, 0.05])
    kernel[0] *= 0.1
    got = GroupNorms(s).proximal(tf.constant(kernel), tf.constant(rate, tf.float64)).numpy()
    columns = [cvxpy.Variable(18) for _ in range(3)]
    table = np.repeat(np.array(levels(3, groups)).reshape(-1), 2)
    sums = []
    for u in columns:
        terms = []
        for n in range(1, table.max() + 1):
            inside = u[np.flatnonzero(table <= n)]
            size = int((table <= n).sum())
            factor = {"l2": 1, "normalized": size**-0.5, "scaled": size**0.5, "linf": 1}[norm]
            terms.append(factor * cvxpy.norm(inside, "inf" if norm == "linf" else 2))
        sums.append(sum(terms))
    if not squared:
        penalty = sum(sums)
    else:
        penalty = cvxpy.square(sum(sums)) if groups == "kernel" else sum(cvxpy.square(each) for each in sums)
    flat = kernel.reshape(18, 3)
    distance = sum(cvxpy.sum_squares(u - flat[:, j]) for j, u in enumerate(columns))
    cvxpy.Problem(cvxpy.Minimize(distance / 2 + rate * s.weight * penalty)).solve(
        solver="CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10
    )
    np.testing.assert_allclose(got.reshape(18, 3), np.stack([u.value for u in columns], 1), atol=2e-4)
    if not squared and norm in ("l2", "scaled"):
        assert not got[..., 2].any()


@pytest.mark.parametrize("groups", ["half_rings", "rings"])
def test_one_pass_is_exact_by_its_optimality_condition(groups):
    """w - u is rate times a subgradient: on groups that are not zero u / |u|, else inside the ball; on 200 random kernels."""
    table = np.array(levels(5, groups))
    for _ in range(200):
        w = RNG.normal(size=(5, 5, 2, 1)) * 10 ** RNG.uniform(-1, 1) * np.exp(-table[:, :, None, None] * RNG.uniform(-1, 1))
        u = GroupNorms(settings(groups, weight=1.0)).proximal(tf.constant(w), tf.constant(0.5, tf.float64)).numpy()
        gone = max([n for n in range(1, table.max() + 1) if not u[table <= n].any()], default=0)
        rest = w - u
        for n in range(gone + 1, table.max() + 1):  # groups with something left have one subgradient
            inside = (table <= n)[:, :, None, None]
            rest = rest - 0.5 * np.where(inside, u, 0) / np.sqrt(np.sum(u[table <= n] ** 2))
        assert not np.abs(rest[table > gone]).max(initial=0) > 1e-12
        # What is left belongs to groups that are zero: sums of vectors of length 0.5 at most, each within its group.
        left = rest[..., 0]
        for n in reversed(range(1, gone + 1)):
            outer = left[table == n]
            assert np.sqrt(np.sum(outer**2)) <= 0.5 * (gone - n + 1) + 1e-12
        assert np.sqrt(np.sum(left**2)) <= 0.5 * gone + 1e-12


def test_the_mean_square_of_normalised_norms_is_that_of_the_entries():
    """(26) for entries of variance C^2, whatever the size of the group; (27), (28) for the sum of d of them."""
    c, d = 1.7, 4000
    for side in (1, 3, 5):
        kernel = tf.constant(RNG.normal(size=(side, side, 4, d)) * c)
        norms = GroupNorms(settings("kernel", "normalized")).norms(kernel).numpy()[0]
        assert np.mean(norms**2) == pytest.approx(c**2, rel=0.05)
        assert np.mean(norms) <= c and norms.sum() <= d * c
        scaled = GroupNorms(settings("kernel", "scaled")).norms(kernel).numpy()[0]
        np.testing.assert_allclose(scaled, norms * 4 * side**2)


def test_complexity_by_hand_and_by_differences():
    """Two layers: images of 3 channels, 4 filters on 8x8 places; then 2 filters on 4x4 places that read these four."""
    one, two = RNG.normal(size=(3, 3, 3, 4)), RNG.normal(size=(3, 3, 4, 2))
    penalty = RelaxedCost(settings("half_rings", weight=0.01))
    made = tuple((("a/c", i),) for i in range(4))
    penalty.entering = {"a/c": Entering(64, 1, ((), (), ())), "b/c": Entering(16, 1, made)}

    def value(one, two):
        size = [np.array([sum(norm_of(g, "l2") for g in gs) for gs in group_entries(k, "half_rings")]) for k in (one, two)]
        width = np.sqrt((one**2).sum((0, 1, 2))).sum()
        return 0.01 * (64 * 3 * (size[0] ** 2).sum() + 16 * width * (size[1] ** 2).sum())

    kernels = {"a/c": tf.constant(one), "b/c": tf.constant(two)}
    assert float(penalty.value(kernels)) == pytest.approx(value(one, two), rel=1e-5)
    slope = penalty.gradients(kernels)["a/c"].numpy()
    for place in [(0, 0, 0, 0), (1, 1, 2, 3)]:
        ends = [value(one + sign * 1e-6 * np.eye(1, one.size, np.ravel_multi_index(place, one.shape)).reshape(one.shape), two)
                for sign in (1, -1)]  # fmt: skip
        assert slope[place] == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4)


def test_complexity_counts_channels_of_sums_once():
    """A channel that two filters make counts as the norm of both together; grouped kernels read a share of what enters."""
    one, two, three = (RNG.normal(size=(1, 1, 2, 2)) for _ in range(3))
    penalty = RelaxedCost(settings("half_rings", weight=1.0))
    sums = tuple((("a", i), ("b", i)) for i in range(2))
    penalty.entering = {"a": Entering(1, 1, ((), ())), "b": Entering(1, 1, ((), ())), "c": Entering(5, 2, sums)}
    norm = lambda k: np.sqrt((k**2).sum((0, 1, 2)))  # noqa: E731
    width = np.sqrt(norm(one) ** 2 + norm(two) ** 2).sum()
    expected = 2 * (norm(one) ** 2).sum() + 2 * (norm(two) ** 2).sum() + 5 / 2 * width * (norm(three) ** 2).sum()
    kernels = {"a": tf.constant(one), "b": tf.constant(two), "c": tf.constant(three)}
    assert float(penalty.value(kernels)) == pytest.approx(expected, rel=1e-5)
