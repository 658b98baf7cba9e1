"""A long series of products goes on after a kill as if there had been none."""

import numpy as np
import pytest

from kerasgreedy.analysis.lanczos import hutchinson, lanczos
from kerasgreedy.analysis.replay import Replay
from kerasgreedy.analysis.running import analyse
from kerasgreedy.network.points import Points
from kerasgreedy.spec.analyses_of_loss import Curvature

MATRIX = np.diag(np.arange(30.0)) + np.random.default_rng(0).normal(size=(30, 30)) * 1e-3


class Killed(BaseException):
    """Nobody catches it."""


def ends(path, key="a", dtype=np.float64, killed_after=1000):
    """Largest eigenvalue, vectors and trace, and how many products were computed."""
    series, count = Replay(path, key, 30, dtype), 0

    def product(vector):
        def compute():
            nonlocal count
            if count == killed_after:
                raise Killed
            count += 1
            return ((MATRIX + MATRIX.T) @ vector).astype(dtype)

        return series(compute)

    try:
        found = lanczos(product, 30, 12, 0, 1e-12, dtype)
        return (found.largest, found.vectors.tolist(), hutchinson(product, 30, 4, 0)), count
    except Killed:
        return None, count


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_killed_anywhere_it_comes_to_the_same(tmp_path, dtype):
    whole, count = ends(tmp_path / "whole", dtype=dtype)
    assert count == 16
    for stop in range(16):
        path = tmp_path / f"{stop}"
        assert ends(path, dtype=dtype, killed_after=stop) == (None, stop)
        if stop % 2:
            with open(path, "ab") as file:
                file.write(b"torn" * stop)  # less than a vector
        assert ends(path, dtype=dtype) == (whole, 16 - stop)
        assert ends(path, dtype=dtype) == (whole, 0)


@pytest.mark.parametrize("content", [b"", b"x", b'["b", 30, "<f8"]\n' + bytes(480), b'["a", 31, "<f8"]\n' + bytes(496)])
def test_a_file_of_another_series_is_written_anew(tmp_path, content):
    whole, _ = ends(tmp_path / "whole")
    (tmp_path / "other").write_bytes(content)
    assert ends(tmp_path / "other") == (whole, 16)


def test_a_spectrum_that_was_killed(two_runs, tmp_path, monkeypatch):
    settings = Curvature(examples=20, batches=1, steps=6, draws=2, tolerance=1e-9)
    whole = analyse(settings, two_runs[:1], tmp_path / "whole", quiet=True).figures
    multiply, done = Points.hessian_product, []

    def slow(self, *given):
        if len(done) == 5:
            raise Killed
        done.append(1)
        return multiply(self, *given)

    monkeypatch.setattr(Points, "hessian_product", slow)
    with pytest.raises(Killed):
        analyse(settings, two_runs[:1], tmp_path / "killed", quiet=True)
    assert (tmp_path / "killed" / "unfinished.bin").is_file()
    done.clear()
    assert analyse(settings, two_runs[:1], tmp_path / "killed", quiet=True).figures["runs"] == whole["runs"] and len(done) == 3
    assert not (tmp_path / "killed" / "unfinished.bin").exists()


def test_what_fails_before_its_first_product_leaves_nothing_in_the_way(two_runs, tmp_path, monkeypatch):
    def fail(self, *given):
        raise Killed

    monkeypatch.setattr(Points, "hessian_product", fail)
    with pytest.raises(Killed):
        analyse(Curvature(examples=20), two_runs[:1], tmp_path / "out", quiet=True)
    assert not list((tmp_path / "out").iterdir())
