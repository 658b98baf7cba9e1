"""Ends of a spectrum and the trace, against dense linear algebra."""

import numpy as np
import pytest

from kerasgreedy.analysis.lanczos import hutchinson, lanczos


def symmetric(values, seed=0):
    rng = np.random.default_rng(seed)
    turned = np.linalg.qr(rng.normal(size=(len(values), len(values))))[0]
    return (turned * values) @ turned.T


@pytest.mark.parametrize("seed", range(3))
def test_ends_of_a_random_matrix(seed):
    matrix = symmetric(np.random.default_rng(seed).normal(size=80), seed)
    values = np.linalg.eigvalsh(matrix)
    found = lanczos(lambda v: matrix @ v, 80, 80, seed, 1e-9)
    assert found.converged
    assert found.largest == pytest.approx(values[-1], rel=1e-8)
    assert found.smallest == pytest.approx(values[0], rel=1e-8)
    for value, vector in zip((found.largest, found.smallest), found.vectors.T, strict=True):
        np.testing.assert_allclose(matrix @ vector, value * vector, atol=1e-6)


def test_errors_bound_what_is_not_converged():
    values = np.concatenate([np.linspace(-1, 1, 200), [1.02, 1.03]])
    matrix = symmetric(values)
    found = lanczos(lambda v: matrix @ v, len(values), 8, 0, 1e-6)
    assert not found.converged and found.steps == 8
    for value, error in ((found.largest, found.largest_error), (found.smallest, found.smallest_error)):
        assert 1e-6 < np.abs(values - value).min() <= error


def test_full_reorthogonalisation_brings_no_value_twice():
    """Well separated ends make plain Lanczos lose orthogonality within some dozens of steps."""
    values = np.concatenate([[1e6, 1e5, -1e6], np.linspace(0, 1, 97)])
    matrix = symmetric(values)
    found = lanczos(lambda v: matrix @ v, 100, 100, 1, 1e-15)
    assert found.steps <= 100
    assert found.largest == pytest.approx(1e6, rel=1e-9) and found.smallest == pytest.approx(-1e6, rel=1e-9)


def test_an_invariant_space_ends_it():
    """Of the identity one vector is enough; of rank one, two."""
    found = lanczos(lambda v: 3 * v, 50, 40, 0)
    assert (found.steps, found.converged) == (1, True)
    assert found.largest == pytest.approx(3) and found.smallest == pytest.approx(3)
    u = np.random.default_rng(1).normal(size=50)
    found = lanczos(lambda v: u * (u @ v), 50, 40, 0)
    assert found.steps == 2 and found.converged
    assert found.largest == pytest.approx(u @ u) and found.smallest == pytest.approx(0, abs=1e-9)


def test_trace():
    diagonal = np.random.default_rng(0).normal(size=60)
    # Of a diagonal matrix every draw is exact.
    assert hutchinson(lambda v: diagonal * v, 60, 3, 0) == pytest.approx((diagonal.sum(), 0), abs=1e-12)
    matrix = symmetric(np.linspace(0, 1, 60))
    mean, error = hutchinson(lambda v: matrix @ v, 60, 400, 0)
    assert abs(mean - 30) < 4 * error
    # Var(z^T A z) = 2 sum over i != j of A_ij^2 for random signs.
    spread = np.sqrt(2 * ((matrix**2).sum() - (np.diag(matrix) ** 2).sum()) / 400)
    assert error == pytest.approx(spread, rel=0.15)
