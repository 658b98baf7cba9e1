"""Runs of convex heads on digits, and the problem that they solve."""

import numpy as np
import pytest
from conftest import same_weights, stop_at, weights, without_time

from kerasgreedy.errors import Stopped
from kerasgreedy.runs.open_run import open_job, open_pipeline
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.train.entry_points import load_network, resume_run, train_spec

FISTA = """
name: convex
strategy: convex
data: {dataset: digits, train_examples: 150, test_examples: 10, validation: 0}
training: {epochs: 500, batch_size: 150, solver: {name: fista, tolerance: 1e-9, gap: 1e-4}, objective: squared_error,
           regularizers: [{name: group_lasso, weight: 0.02}], monitor: train_loss}
"""


def solving(tmp_path):
    """What runs a spec with a recipe, each in a folder of its own."""

    def run(spec, recipe, *overrides, folder="run", **more):
        (tmp_path / "s.yaml").write_text(spec)
        (tmp_path / "r.yaml").write_text(recipe)
        return train_spec(tmp_path / "s.yaml", tmp_path / "r.yaml", list(overrides), tmp_path / folder, quiet=True, **more)

    return run


def fista_of(run):
    return run.results["phases"][-1]["fista"]


def problem(run):
    """Sums of gated patches (n, h * gates), one-hot labels (n, 10) and filters (h, gates, 10), float64."""
    folder = Workdir.open(run.workdir)
    pipeline, network = open_pipeline(open_job(folder, None), None, folder), load_network(run.workdir)
    gated, last = network.component("head_1").layers[-2:]
    sums, labels = [], []
    for rows, images, label in pipeline.view("train", None, 50):
        real = rows.numpy() >= 0
        sums.append(np.asarray(gated(images), np.float64)[real])
        labels.append(label.numpy()[real])
    sums = np.concatenate(sums)
    return sums.reshape(len(sums), -1), np.eye(10)[np.concatenate(labels)], np.asarray(last.kernel, np.float64)


def check_resumed(solve, monkeypatch, at, spec, recipe, *sets):
    """Stopped at a step and resumed, a run is the one that was never stopped: weights, log and entries."""
    whole = solve(spec, recipe, *sets, folder="whole")
    stop_at(monkeypatch, at)
    with pytest.raises(Stopped):
        solve(spec, recipe, *sets)
    monkeypatch.undo()
    done = resume_run(whole.workdir.parent / "run", quiet=True)
    same_weights(weights(done.workdir), weights(whole.workdir))
    assert without_time(done.workdir) == without_time(whole.workdir)
    assert done.results["phases"] == whole.results["phases"]
