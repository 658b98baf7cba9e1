"""Losses weighted by class."""

import numpy as np
import pytest

from kerasgreedy.errors import InputError
from kerasgreedy.reports.run_files import read_run
from kerasgreedy.solvers.step import class_weights
from kerasgreedy.train.entry_points import train_spec

NAMES = tuple("0123456789")
SPEC = "name: s\nblocks: [{conv: 4}]\nauxiliary_head: {pool_to: 2}\n"
RECIPE = "name: r\ndata: {dataset: digits, train_examples: 60, validation: 0}\ntraining: {epochs: 1, batch_size: 60}\n"


def test_factors_by_hand():
    """6, 3 and 1 images: 10 / (3 * n); as scikit-learn's `balanced`."""
    np.testing.assert_allclose(class_weights("balanced", np.array([6, 3, 1]), "abc"), [10 / 18, 10 / 9, 10 / 3], rtol=1e-6)
    np.testing.assert_allclose(class_weights("balanced", np.array([6, 2]), "abc"), [8 / 12, 2, 1], rtol=1e-6)  # c has none
    np.testing.assert_allclose(class_weights({"b": 2.5}, np.array([6, 3, 1]), "abc"), [1, 2.5, 1])


@pytest.fixture
def trained(tmp_path):
    (tmp_path / "s.yaml").write_text(SPEC)
    (tmp_path / "r.yaml").write_text(RECIPE)

    def train(name, *sets):
        run = train_spec(tmp_path / "s.yaml", tmp_path / "r.yaml", sets, workdir=tmp_path / name, quiet=True)
        train.losses = [record["loss"] for record in read_run(run.workdir).metrics if record["split"] == "train"]
        return [weight for key in run.network.names for weight in run.network.component(key).get_weights()]

    return train


def test_equal_factors_scale_the_gradient(trained):
    """All classes with 2 at half the rate: the step of SGD is that of 1 at the whole rate."""
    train_losses = trained
    plain = trained("one", "training.optimizer={name: sgd, learning_rate: 0.2, momentum: 0}")
    before = train_losses.losses
    twice = "{" + ", ".join(f"'{name}': 2.0" for name in NAMES) + "}"
    half = trained("two", "training.optimizer={name: sgd, learning_rate: 0.1, momentum: 0}", f"training.class_weights={twice}")
    assert before == pytest.approx(train_losses.losses, rel=1e-6)  # reported without factors
    for one, two in zip(plain, half, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
    apart = trained("three", "training.optimizer={name: sgd, learning_rate: 0.2, momentum: 0}", "training.class_weights={'3': 9}")
    assert any(np.abs(one - other).max() > 1e-3 for one, other in zip(plain, apart, strict=True))


def test_fista_refuses_them(trained):
    with pytest.raises(InputError, match="training.class_weights: solver 'fista'"):
        trained("x", "training.solver=fista", "training.class_weights=balanced", "strategy=convex")


def test_classes_that_are_not_there_are_found_before_anything_runs(trained, tmp_path):
    with pytest.raises(InputError, match="training.class_weights.11: no class of 'digits'"):
        trained("x", "training.class_weights={'11': 2}")
    assert not (tmp_path / "x").exists()
