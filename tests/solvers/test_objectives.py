"""The objective of a head, from the recipe to the figures; doors and plug-ins."""

import json
import subprocess
import sys
from typing import Literal

import numpy as np
import pytest
import tensorflow as tf
from conftest import PRUNED_SPEC, PRUNING_RECIPE, ROOT, same_weights, stop_at, weights, without_time

from kerasgreedy.errors import SpecError, Stopped
from kerasgreedy.nn.objectives import CrossEntropyLoss, SquaredErrorLoss
from kerasgreedy.reports.run_files import read_metrics
from kerasgreedy.spec.doors import Choice, Door, Named
from kerasgreedy.train.entry_points import load_network, resume_run, train_spec
from kerasgreedy.train.evaluating import evaluate_run

RNG = np.random.default_rng(3)
OUTPUTS, LABELS = RNG.normal(size=(7, 5)), RNG.integers(0, 5, 7)
BLOCK = tf.zeros((7, 1))


def one_hot(smoothing):
    return (1 - smoothing) * np.eye(5)[LABELS] + smoothing / 5


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["cross_entropy", "squared_error"])
def test_losses_and_gradients_by_their_formulas(kind, smoothing):
    """Gradients in the outputs: softmax - y, and f - y."""
    probabilities = np.exp(OUTPUTS) / np.exp(OUTPUTS).sum(1, keepdims=True)
    y = one_hot(smoothing)
    want, slope, cls = {
        "cross_entropy": (-(y * np.log(probabilities)).sum(1), probabilities - y, CrossEntropyLoss),
        "squared_error": (0.5 * np.square(OUTPUTS - y).sum(1), OUTPUTS - y, SquaredErrorLoss),
    }[kind]
    x = tf.constant(OUTPUTS, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = cls(label_smoothing=smoothing)(x, tf.constant(LABELS), BLOCK)
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(loss, x), slope, atol=1e-6)


def test_equal_outputs_lose_what_the_paper_says():
    np.testing.assert_allclose(SquaredErrorLoss()(tf.fill((7, 10), 0.1), tf.constant(LABELS), BLOCK), 0.45, rtol=1e-6)


@pytest.mark.parametrize("cls", [CrossEntropyLoss, SquaredErrorLoss])
def test_the_curvature_bounds_every_second_derivative(cls):
    """And is reached: cross entropy with two classes at equal outputs, squared error everywhere."""

    def curvature(outputs):
        x = tf.constant(outputs, tf.float32)[None]
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = cls()(x, tf.constant([0]), BLOCK)
            slope = inner.gradient(loss, x)
        return np.linalg.eigvalsh(outer.jacobian(slope, x).numpy()[0, :, 0]).max()

    found = [curvature(RNG.normal(0, 2, 4)) for _ in range(5)] + [curvature([0.0, 0.0, -40.0])]
    assert max(found) == pytest.approx(cls.curvature, abs=1e-5)


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents")
    (folder / "small.yaml").write_text(PRUNED_SPEC)
    (folder / "recipe.yaml").write_text(PRUNING_RECIPE)
    return folder / "small.yaml", folder / "recipe.yaml"


SQUARED = ["training.objective=squared_error", "training.head_objectives={head_1: cross_entropy}", "training.keep=best",
           "training.monitor=validation_loss", "training.optimizer.learning_rate=0.02"]  # fmt: skip


@pytest.fixture(scope="module")
def squared(documents, tmp_path_factory):
    return train_spec(*documents, SQUARED, tmp_path_factory.mktemp("squared") / "run", quiet=True)


def test_every_figure_is_of_the_heads_own_objective(squared):
    """The loss of each depth, computed again from the network's outputs on the test images."""
    network = load_network(squared.workdir)
    from kerasgreedy.runs.open_run import open_job, open_pipeline
    from kerasgreedy.runs.workdir import Workdir

    pipeline = open_pipeline(open_job(Workdir.open(squared.workdir), None), None, Workdir.open(squared.workdir))
    sums, count = np.zeros(3), 0
    for images, labels, weight in pipeline.evaluation("test", 16):
        for i, outputs in enumerate(network.logits(images)):
            f, y = outputs.numpy().astype(float), np.eye(10)[labels]
            each = -(y * (f - np.log(np.exp(f).sum(1, keepdims=True)))).sum(1) if i == 0 else 0.5 * np.square(f - y).sum(1)
            sums[i] += (weight.numpy() * each).sum()
        count += weight.numpy().sum()
    np.testing.assert_allclose([depth["loss"] for depth in squared.results["depths"]], sums / count, rtol=1e-4)
    assert [depth.get("objective") for depth in squared.results["depths"]] == [None, "squared error", "squared error"]
    again = evaluate_run(squared.workdir)
    assert again["depths"] == squared.results["depths"]
    assert "| cross entropy / squared error |" in (squared.workdir / "results.md").read_text()


def test_logs_name_it_and_the_best_point_is_the_one_of_least_loss(squared):
    records = [record for record in read_metrics(squared.workdir) if record["split"] == "validation"]
    assert {(record["head"], record.get("objective")) for record in records} == {
        ("head_1", None), ("head_2", "squared_error"), ("head_3", "squared_error")}  # fmt: skip
    for index, entry in enumerate(squared.results["phases"]):
        if entry.get("best"):
            losses = {r["epoch"]: r["loss"] for r in records if r["phase"] == index}
            assert entry["best"]["epoch"] == min(losses, key=losses.get)


def test_an_objective_is_logged_for_its_own_head_alone(documents, tmp_path):
    """One phase that trains all heads: what one of them minimises is not said of those behind it."""
    sets = ["strategy=decoupled", "prune=null", "training.epochs=1", "training.head_objectives={head_2: squared_error}"]
    run = train_spec(*documents, sets, tmp_path / "run", quiet=True)
    for split in ("train", "validation"):
        found = {(r["head"], r.get("objective")) for r in read_metrics(run.workdir) if r["split"] == split}
        assert found == {("head_1", None), ("head_2", "squared_error"), ("head_3", None)}


def test_importance_is_about_the_phases_objective(documents, tmp_path, squared):
    """Scores of a head under squared error are those of its gradient, not of cross entropy's."""
    from kerasgreedy.graph.coupling import find_coupling
    from kerasgreedy.pruning.importance import importance

    network = load_network(squared.workdir)
    groups = [find_coupling(network.architecture).group("block_2/conv_1")]
    images, labels = RNG.normal(size=(6, *network.architecture.input_shape)).astype(np.float32), np.arange(6)
    batch = tf.data.Dataset.from_tensors((images, labels, np.ones(6, np.float32)))
    found = importance(network, groups, "taylor_activation", batch, ["head_2"], tf.distribute.get_strategy(), 0)
    x = network.blocks[0](images, training=False)
    with tf.GradientTape() as tape:
        z = network.blocks[1](x, training=False)
        tape.watch(z)
        loss = tf.reduce_sum(0.5 * tf.square(network.heads[1](z, training=False) - np.eye(10)[labels]))
    slope = tape.gradient(loss, z)
    want = np.abs(np.mean((z * slope).numpy().astype(float), axis=(1, 2))).mean(0)
    np.testing.assert_allclose(found["block_2/conv_1"], want, rtol=1e-4)


@pytest.mark.slow
def test_resumed_equals_never_stopped(documents, squared, tmp_path, monkeypatch):
    stop_at(monkeypatch, 11)
    with pytest.raises(Stopped):
        train_spec(*documents, SQUARED, tmp_path / "run", quiet=True)
    monkeypatch.undo()
    done = resume_run(tmp_path / "run", quiet=True)
    same_weights(weights(done.workdir), weights(squared.workdir))
    assert without_time(done.workdir) == without_time(squared.workdir)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "training.objective=squared_eror",
            "received 'squared_eror'; allowed: cross_entropy, squared_error; did you mean 'squar",
        ),
        ("training.objective={name: squared_error, weight: 2}", "unknown key"),
        ("training.objective=3", "received 3; allowed: cross_entropy, squared_error, or a mapping with `name`"),
        ("training.head_objectives={head_9: squared_error}", "there is no such head; allowed: head_1, head_2, head_3"),
    ],
)
def test_what_is_no_objective_is_refused(documents, tmp_path, override, message):
    with pytest.raises(SpecError, match=message.replace("(", r"\(")):
        train_spec(*documents, [override], tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


class Small(Named):
    """Nothing."""

    name: Literal["small"] = "small"


def test_a_door_refuses_a_name_twice():
    door = Door("things", [Choice("a:B", Small)])
    with pytest.raises(ValueError, match="things: the name 'small' is taken by a:B"):
        door.add_settings(Choice("c:D", Small))
    with pytest.raises(ValueError, match="Named: needs a field"):
        door.add_settings(Choice("c:D", Named))


def kerasgreedy(*arguments, plugins=True):
    named = ["--plugin", str(ROOT / "tests/plugins/margin.py")] if plugins else []
    command = [sys.executable, "-m", "kerasgreedy", *named, *map(str, arguments)]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests/plugins'}", "PATH": "/usr/bin:/bin", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.mark.slow
def test_a_plug_in_adds_an_objective(documents, tmp_path):
    """Without a line in the package: named on the command line, checked, trained, resumed, evaluated."""
    spec, recipe = documents
    sets = ["-s", "training.objective={name: margin, by: 0.5, activity: 0.01}", "-s", "prune=null", "-s", "replace_head=null"]
    refused = kerasgreedy("plan", spec, "-r", recipe, *sets, plugins=False)
    assert refused.returncode == 2 and "received 'margin'; allowed: cross_entropy, squared_error" in refused.stderr
    odd = kerasgreedy("plan", spec, "-r", recipe, "-s", "training.objective={name: margin, bye: 1}")
    assert odd.returncode == 2 and "unknown key; did you mean 'by'?" in odd.stderr
    done = kerasgreedy("train", spec, "-r", recipe, *sets, "-w", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    depths = json.loads(done.stdout.splitlines()[-1])["depths"]
    assert {depth["objective"] for depth in depths} == {"squared hinge"}
    again = kerasgreedy("evaluate", tmp_path / "run", "--json")
    assert json.loads(again.stdout.splitlines()[-1])["depths"] == depths
    assert "margin" in kerasgreedy("schema", "recipe").stdout


def test_a_plug_in_that_fails_is_one_line(tmp_path):
    (tmp_path / "bad.py").write_text("1 / 0")
    for named, message in [("bad.py", "ZeroDivisionError"), ("none.py", "no such file"), ("no_such_module_x", "No module named")]:
        command = [sys.executable, "-m", "kerasgreedy", "--plugin", named, "data", "list"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, timeout=60)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr, done.stderr
