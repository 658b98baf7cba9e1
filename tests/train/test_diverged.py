"""Figures that are not finite, wherever they arise: exit 4, the last good state kept, and a way on from there."""

import json

import numpy as np
import pytest
import tensorflow as tf
from conftest import same_weights, weights

from kerasgreedy.errors import CheckpointError, Diverged, InputError
from kerasgreedy.network.evaluation import Evaluator
from kerasgreedy.runs.workdir import CHANGED, Workdir
from kerasgreedy.solvers.alternation.support import Shared
from kerasgreedy.spec.load import load_recipe
from kerasgreedy.spec.solver_settings import Alternation
from kerasgreedy.strict_json import as_json, parse_json
from kerasgreedy.train.entry_points import load_network, resume_run, train_spec
from kerasgreedy.train.evaluating import evaluate_run

SPEC = "name: one\nblocks: [{conv: 4}]\n"
RECIPE = """
name: short
data: {dataset: digits, train_examples: 96, test_examples: 32, validation: 32}
training: {epochs: 2, batch_size: 32, optimizer: {name: sgd, learning_rate: 0.05}}
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "one.yaml").write_text(SPEC)
    (tmp_path / "short.yaml").write_text(RECIPE)
    return tmp_path / "one.yaml", tmp_path / "short.yaml"


def rate(value):
    return [f"training.optimizer.learning_rate={value}"]


@pytest.mark.parametrize("value", ["1e20", "1e36"])
@pytest.mark.parametrize("validation", ["32", "0"])
@pytest.mark.parametrize("epochs", [1, 2])
def test_overflow_that_only_an_evaluation_shows(files, tmp_path, value, validation, epochs):
    """A single step: its own loss is finite, the weights too, and what they give is not. With validation data and without."""
    sets = [*rate(value), f"data.validation={validation}", f"training.epochs={epochs}", "data.train_examples=64"]
    if validation == "32":
        sets.append("data.test_examples=8")
    with pytest.raises(Diverged, match=r"phase block_1, epoch 1: .*the (training )?loss of .* is (inf|nan)") as error:
        train_spec(*files, sets, tmp_path / "run", quiet=True)
    assert error.value.exit_code == 4
    assert not (tmp_path / "run/results.json").exists()
    assert all(np.isfinite(value).all() and np.abs(value).max() < 10 for value in weights(tmp_path / "run").values())


def test_a_diverged_run_goes_on_with_a_smaller_rate(files, tmp_path):
    """From the last good state; the same as a run that went on so from there, and written down in the run."""
    with pytest.raises(Diverged):
        train_spec(*files, rate("1e30"), tmp_path / "run", quiet=True)
    with pytest.raises(Diverged):  # as it was, it ends as it did
        resume_run(tmp_path / "run", quiet=True)
    done = resume_run(tmp_path / "run", quiet=True, overrides=[*rate("0.05"), "training.epochs=3"])
    folder = Workdir.open(tmp_path / "run")
    (change,) = folder.changes()
    assert change["set"] == [*rate("0.05"), "training.epochs=3"] and (change["phase"], change["epoch"]) == (0, 0)
    recipe = folder.documents()[1].value.training
    assert (recipe.epochs, recipe.optimizer.learning_rate) == (3, 0.05)
    assert load_recipe(tmp_path / "run" / CHANGED).value.training == recipe
    assert [entry["epochs"] for entry in done.results["phases"]] == [3]
    whole = train_spec(*files, [*rate("0.05"), "training.epochs=3"], tmp_path / "whole", quiet=True)  # diverged in its first step
    same_weights(weights(done.workdir), weights(whole.workdir))
    assert evaluate_run(done.workdir)["depths"] == done.results["depths"]


def test_another_kind_of_optimizer_begins_anew(files, tmp_path, monkeypatch, capsys):
    from kerasgreedy.train import loop

    original, seen = loop.Loop._after_epoch, []

    def stop(self, *rest):
        original(self, *rest)
        seen.append(self.state.position.epoch)
        self._save(rest[0].trains)
        raise Diverged("as if")

    monkeypatch.setattr(loop.Loop, "_after_epoch", stop)
    with pytest.raises(Diverged, match="as if"):
        train_spec(*files, [], tmp_path / "run", quiet=True)
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"with these changes the run would have other stages|cannot go on with another"):
        resume_run(tmp_path / "run", quiet=True, overrides=["strategy=end_to_end"])
    assert Workdir.open(tmp_path / "run").changes() == []
    done = resume_run(tmp_path / "run", overrides=["training.optimizer=adam"])
    assert "the optimiser is of another kind than before: it begins anew" in capsys.readouterr().err
    assert done.results["phases"][0]["epochs"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("training.batch_size=16", "cannot go on with another 'training.batch_size'"),
        ("blocks.0.conv=8", "cannot go on with another 'blocks.0.conv'"),
        ("seed=4", "cannot go on with another 'seed'; allowed: epochs, optimizer, schedule"),
        ("data.validation=8", "another 'data.validation'"),
        ("training.optimiser.learning_rate=1", "another 'training.optimiser.learning_rate'; did you mean"),
        ("training.optimizer.learning_rate=fast", "received 'fast'"),
        ("nonsense=1", "unknown key 'nonsense'"),
    ],
)
def test_what_may_not_change(finished, change, message):
    with pytest.raises(InputError, match=message):
        Workdir.open(finished.workdir).ask_for([change])


def test_start_from_an_unfinished_run_on_request(files, tmp_path):
    with pytest.raises(Diverged):
        train_spec(*files, rate("1e30"), tmp_path / "run", quiet=True)
    with pytest.raises(CheckpointError, match="is not finished; .* start_unfinished=true"):
        train_spec(*files, [f"start_from={tmp_path / 'run'}"], tmp_path / "next", quiet=True)
    sets = [f"start_from={tmp_path / 'run'}", "start_unfinished=true", "training.epochs=1"]
    done = train_spec(*files, sets, tmp_path / "next", quiet=True)
    assert done.results["phases"][0]["epochs"] == 1
    with pytest.raises(InputError, match="start_unfinished: there is no start_from; leave it out"):
        train_spec(*files, ["start_unfinished=true"], tmp_path / "other", quiet=True)


def test_a_finished_network_that_overflows_is_said_to(finished, tmp_path):
    network = load_network(finished.workdir)
    kernel = next(v for key, v in network.variables("head_2").items() if key.endswith("kernel"))
    kernel.assign(tf.fill(kernel.shape, 3e38))
    images = tf.data.Dataset.from_tensors((tf.ones((2, 8, 8, 1)), tf.constant([0, 1]), tf.ones(2)))
    with pytest.raises(Diverged, match="the loss of depth 2 is (inf|nan)"):
        Evaluator(network, [1, 2], tf.distribute.get_strategy())(images)
    assert Evaluator(network, [1], tf.distribute.get_strategy())(images)[0][1]["loss"] > 0


def test_an_infinite_value_under_a_mask_is_zero():
    """Not inf * 0: the vote of three leaves a unit out that is infinite for one."""
    settings = Alternation(name="alternation", mode="batch", vote="majority")
    shared = Shared({}, settings, {"key": tf.constant(0.0)}, 3)
    q = tf.constant([[np.inf, 1.0], [-1.0, 2.0], [-1.0, -3.0]])
    given = shared._masked("key", None, tf.keras.layers.ReLU(), q)
    np.testing.assert_array_equal(given, [[0, 1], [0, 2], [0, 0]])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_holds_finite_numbers_only(value):
    with pytest.raises(Diverged, match=r"depths.1.loss = -?(nan|inf) is not a finite number"):
        as_json({"depths": [{"loss": 1.0}, {"loss": value}]})
    assert parse_json(as_json({"a": [1.5, None, "x"]})) == {"a": [1.5, None, "x"]}
    for text in ('{"a": NaN}', '{"a": Infinity}', '{"a": 1e999}', json.dumps({"a": value})):
        with pytest.raises(ValueError, match="no finite number"):
            parse_json(text)


def test_recipes_bound_the_rate(files, tmp_path):
    with pytest.raises(InputError, match=r"training.optimizer.learning_rate: received 1e\+39"):
        train_spec(*files, rate("1e39"), tmp_path / "run", quiet=True)
