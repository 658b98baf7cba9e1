"""Accelerated proximal gradient on linear heads: ends at the optimum that closed forms and other solvers give, and says so."""

import numpy as np
import pytest
from conftest import same_weights, some, stop_at, weights, without_time
from sklearn.linear_model import LogisticRegression

from kerasgreedy.errors import SpecError, Stopped
from kerasgreedy.runs.open_run import open_job, open_pipeline
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.train.entry_points import load_network, resume_run, train_spec

SPEC = "name: s\nblocks: [{conv: 6}, {conv: 8, downsample: average}]\nauxiliary_head: {pool_to: 1}\n"
RECIPE = """
name: convex
strategy: random_features
data: {dataset: digits, train_examples: 150, test_examples: 10, validation: 10}
training: {epochs: 600, batch_size: 32, solver: {name: fista, tolerance: 1e-6}, objective: squared_error,
           optimizer: {name: sgd, weight_decay: 0.1}, monitor: train_loss, keep: last}
"""
LASSO = ["training.optimizer.weight_decay=0", "training.regularizers=[{name: group_lasso, weight: 0.02}]"]


@pytest.fixture
def documents(tmp_path):
    (tmp_path / "s.yaml").write_text(SPEC)
    (tmp_path / "r.yaml").write_text(RECIPE)
    return tmp_path / "s.yaml", tmp_path / "r.yaml"


def solved(documents, tmp_path, *overrides):
    """The run; and for each head its features (n, d), kernel (d, 10) and bias, float64, and the labels (n,)."""
    run = train_spec(*documents, ["training.batch_size=96", *overrides], tmp_path / "run", quiet=True)
    folder = Workdir.open(run.workdir)
    pipeline, network = open_pipeline(open_job(folder, None), None, folder), load_network(run.workdir)
    heads, labels = [[], []], []
    for rows, images, label in pipeline.view("train", None, 35):
        kept, x = rows.numpy() >= 0, images
        labels.append(label.numpy()[kept])
        for found, block in zip(heads, network.blocks, strict=True):
            x = block(x, training=False)
            found.append(x.numpy().astype(float).mean((1, 2))[kept])
    found = []
    for number, features in enumerate(heads, start=1):
        arrays = network.arrays(f"head_{number}")
        kernel, bias = (arrays[f"head_{number}/dense_1/{key}"].astype(float) for key in ("kernel", "bias"))
        found.append((np.concatenate(features), kernel, bias))
    return run, found, np.concatenate(labels)


def fista_of(run):
    return run.results["phases"][0]["fista"]


def test_squared_error_with_decay_ends_at_the_closed_form(documents, tmp_path):
    """(A^T A / n + decay) w = A^T y / n for each head, A the features and a column of ones; 140 images are no multiple of 96."""
    run, heads, labels = solved(documents, tmp_path, "training.solver.tolerance=1e-7")
    assert fista_of(run)["converged"] and fista_of(run)["subgradient"] <= 1e-7
    assert run.results["phases"][0]["epochs"] == fista_of(run)["iterations"] < 600
    for features, kernel, bias in heads:
        a, y = np.column_stack([features, np.ones(len(features))]), np.eye(10)[labels]
        w = np.linalg.solve(a.T @ a / len(a) + 0.1 * np.eye(a.shape[1]), a.T @ y / len(a))
        np.testing.assert_allclose(np.vstack([kernel, bias]), w, atol=1e-5 * np.abs(w).max())


@pytest.mark.slow
def test_cross_entropy_with_decay_ends_at_the_optimum_of_scikit_learn(documents, tmp_path):
    """Its C is 1 / (n decay); it does not penalise the offset, so that here kernels alone are decayed."""
    sets = ["training.objective=cross_entropy", "training.optimizer.weight_decay=0", "training.solver.tolerance=1e-5",
            "training.regularizers=[{name: l2, weight: 0.2}]", "training.epochs=3000"]  # fmt: skip
    run, heads, labels = solved(documents, tmp_path, *sets)
    assert fista_of(run)["converged"]
    for features, kernel, bias in heads:
        other = LogisticRegression(C=1 / (0.2 * len(labels)), tol=1e-10, max_iter=10_000).fit(features, labels)

        def objective(kernel, bias, features=features):
            z = features @ kernel + bias
            return np.mean(np.log(np.exp(z).sum(1)) - z[range(len(z)), labels]) + 0.1 * np.sum(kernel**2)

        ours, theirs = objective(kernel, bias), objective(other.coef_.T, other.intercept_)
        assert abs(ours - theirs) < 1e-5 * theirs
        np.testing.assert_allclose(kernel, other.coef_.T, atol=1e-3 * np.abs(kernel).max())


@pytest.mark.slow
def test_group_lasso_meets_its_optimality_condition(documents, tmp_path):
    """For each class's column w of A^T (A w - y) / n = -weight w / |w|, and at most weight in norm where it is zero."""
    run, heads, labels = solved(documents, tmp_path, *LASSO, "training.epochs=3000")
    assert fista_of(run)["converged"]
    empty = 0
    for features, kernel, bias in heads:
        residual = features @ kernel + bias - np.eye(10)[labels]
        np.testing.assert_allclose(residual.mean(0), 0, atol=1e-5)  # of the bias, which is not penalised
        gradient = features.T @ residual / len(labels)
        norms = np.linalg.norm(kernel, axis=0)
        for column in range(10):
            if norms[column]:
                np.testing.assert_allclose(gradient[:, column], -0.02 * kernel[:, column] / norms[column], atol=2e-5)
            else:
                assert np.linalg.norm(gradient[:, column]) <= 0.02 + 1e-5
                empty += 1
    assert 0 < empty < 20


@pytest.mark.parametrize("at", some(12, slow=[3, 10]))
def test_stopped_and_resumed_equals_never_stopped(documents, tmp_path, monkeypatch, at):
    """In the middle of a gradient, after the last batch of an epoch, and in a later one; 4 batches an epoch."""
    sets = [*LASSO, "training.epochs=4", "checkpoint_minutes=100"]
    whole = train_spec(*documents, sets, tmp_path / "whole", quiet=True)
    stop_at(monkeypatch, at)
    with pytest.raises(Stopped):
        train_spec(*documents, sets, tmp_path / "run", quiet=True)
    monkeypatch.undo()
    done = resume_run(tmp_path / "run", quiet=True)
    same_weights(weights(done.workdir), weights(whole.workdir))
    assert without_time(done.workdir) == without_time(whole.workdir)
    assert done.results["phases"] == whole.results["phases"]


BAD = [
    (["strategy=greedy"], "training.solver.name: received 'fista', and phase trains block_1"),
    (["data.augment={horizontal_flip: true}", "data.augment_views=2"], "leave out data.augment"),
    (["training.regularizers=[{name: l1, weight: 1, form: subgradient}]"], r"regularizers\.0\.form: received 'subgradient'"),
    (["training.regularizers=[{name: group_lasso, weight: 1}, {name: l1, weight: 1}]"], "l1 followed by group_lasso"),
    (["training.solver={name: fista, tolerance: 2}"], "tolerance"),
    (["precision=mixed_bfloat16"], "allowed: float32"),
]


@pytest.mark.parametrize(("overrides", "message"), BAD)
def test_what_it_cannot_do_is_refused(documents, tmp_path, overrides, message):
    with pytest.raises(SpecError, match=message):
        train_spec(*documents, overrides, tmp_path / "run", quiet=True)


def test_heads_with_hidden_layers_are_no_convex_problem(documents, tmp_path):
    documents[0].write_text(SPEC.replace("{pool_to: 1}", "{pool_to: 1, hidden_layers: 1}"))
    with pytest.raises(SpecError, match="phase trains head_1/conv_1; allowed: heads of layers without weights"):
        train_spec(*documents, [], tmp_path / "run", quiet=True)
