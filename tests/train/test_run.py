"""Whole runs: results, resume, early stopping, divergence, own arrays."""

import json

import numpy as np
import pytest
import tensorflow as tf
from conftest import same_weights, some, two_devices, weights

from kerasgreedy.data.arrays import ImageArrays
from kerasgreedy.data.pipeline import Pipeline
from kerasgreedy.errors import DataError, Diverged
from kerasgreedy.reports.run_files import read_metrics, read_run
from kerasgreedy.train import loop
from kerasgreedy.train.entry_points import load_network, resume_run, train_spec
from kerasgreedy.train.evaluating import evaluate_run


def test_a_run_leaves_what_a_person_and_a_program_need(finished):
    names = {path.name for path in finished.workdir.iterdir()}
    assert names >= {"spec.yaml", "recipe.yaml", "run.json", "plan.json", "metrics.jsonl", "tensorboard", "checkpoints",
                     "results.json", "results.md", "plots", "model.keras"}  # fmt: skip
    for plot in ("accuracy_by_depth.png", "loss.png"):
        assert (finished.workdir / "plots" / plot).read_bytes().startswith(b"\x89PNG")
    facts = json.loads((finished.workdir / "run.json").read_text())
    assert facts["versions"]["tensorflow"] == tf.__version__ and facts["seed"] == 0
    assert facts["data"]["train_images"] == 128 and len(facts["data"]["class_names"]) == 10
    results = read_run(finished.workdir).results
    assert [d["depth"] for d in results["depths"]] == [1, 2, 3] and results["examples"] == 50
    assert [p["phase"] for p in results["phases"]] == ["block_1", "block_2", "block_3"]
    assert list(finished.workdir.rglob("events.out.tfevents*"))


def test_evaluate_gives_the_figures_of_the_run_and_agrees_with_numpy(finished):
    scores = evaluate_run(finished.workdir)
    assert scores["depths"] == finished.results["depths"] and scores["ensemble"] == finished.results["ensemble"]
    network = load_network(finished.workdir)
    from kerasgreedy.data.catalog import describe
    from kerasgreedy.data.loaders import open_data
    from kerasgreedy.spec.load import load_recipe

    data = load_recipe(finished.workdir / "recipe.yaml").value.data
    pipe = Pipeline(*open_data(data, describe(data), (8, 8), 1), data, (8, 8), 0)
    x, y, w = (
        np.concatenate(parts)[:50] for parts in zip(*[[t.numpy() for t in b] for b in pipe.evaluation("test", 25)], strict=True)
    )
    assert w.all()
    logits = [z.numpy().astype(np.float64) for z in network.logits(x)]
    vote = sum(2**j * z for j, z in enumerate(logits, start=1)) / 14
    for z, got in zip([*logits, vote], [*scores["depths"], scores["ensemble"]], strict=True):
        order = np.argsort(-z, axis=1)
        logs = z - np.log(np.exp(z).sum(1, keepdims=True))
        assert got["top1"] == pytest.approx((order[:, 0] == y).mean())
        assert got["top5"] == pytest.approx((order[:, :5] == y[:, None]).any(1).mean())
        assert got["loss"] == pytest.approx(-logs[range(50), y].mean(), rel=1e-5)


def test_the_kept_point_is_the_best_on_validation(finished):
    for index, entry in enumerate(finished.results["phases"]):
        records = [r for r in read_metrics(finished.workdir) if r["phase"] == index and r["split"] == "validation"]
        best = max(records, key=lambda r: (r["accuracy"], -r["loss"]))
        assert entry["best"]["epoch"] == best["epoch"]
    last = evaluate_run(finished.workdir, "validation")["depths"][-1]
    assert (last["top1"], -last["loss"]) == pytest.approx(finished.results["phases"][-1]["best"]["score"], rel=1e-6)


def test_the_saved_keras_model_takes_raw_images(finished):
    import keras

    model = keras.models.load_model(finished.workdir / "model.keras")
    raw = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1)).astype(np.float32)
    network = finished.network
    mean, deviation = network.facts.normalization
    outputs = model(raw)
    for depth, z in enumerate(network.logits((raw - mean) / deviation), start=1):
        np.testing.assert_allclose(outputs[f"depth_{depth}"], z, rtol=1e-4, atol=1e-5)


def test_training_again_from_the_written_documents_gives_the_same(finished, tmp_path):
    again = train_spec(finished.workdir / "spec.yaml", finished.workdir / "recipe.yaml", workdir=tmp_path / "again", quiet=True)
    same_weights(weights(again.workdir), weights(finished.workdir))


NO_DROPOUT = ["blocks.1=[{conv: 6, downsample: invertible}]", "training.keep=last", "training.optimizer.learning_rate=0.01"]


@pytest.mark.slow
def test_two_devices_give_the_run_of_one_batch_norm_included(files, tmp_path):
    one = train_spec(*files, NO_DROPOUT, tmp_path / "one", quiet=True)
    two = train_spec(*files, NO_DROPOUT, tmp_path / "two", strategy=two_devices(), quiet=True)
    expected = weights(one.workdir)
    for key, value in weights(two.workdir).items():
        np.testing.assert_allclose(value, expected[key], atol=1e-5, err_msg=key)
    assert two.results["examples"] == 50
    again = evaluate_run(two.workdir, strategy=two_devices())
    assert [d["loss"] for d in again["depths"]] == pytest.approx([d["loss"] for d in two.results["depths"]], abs=1e-7)


def test_a_loaded_network_takes_raw_images_like_the_saved_model(finished):
    import keras

    raw = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 1)).astype(np.float32)
    saved = keras.models.load_model(finished.workdir / "model.keras")(raw)
    loaded = load_network(finished.workdir).model()
    assert all(layer.trainable for layer in loaded.layers)
    for key, value in loaded(raw).items():
        np.testing.assert_allclose(value, saved[key], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(resume_run(finished.workdir, quiet=True).network.model()(raw)[key], saved[key], atol=1e-4)


def test_the_model_of_a_run_holds_only_the_heads_that_were_trained(files, tmp_path):
    run = train_spec(*files, ["strategy=end_to_end", "ensemble.on=probabilities"], tmp_path / "run", quiet=True)
    assert set(run.network.model().output) == {"depth_3", "ensemble"} == set(load_network(run.workdir).model().output)
    assert run.network.model().get_layer("ensemble").on == "probabilities"


def test_data_that_changed_since_the_run_began_is_refused(tmp_path, files, monkeypatch):
    from data_files import make_folder

    make_folder(tmp_path / "images")
    spec, _ = files
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: r\ndata: {dataset: 'folder:images', validation: 2}\ntraining: {epochs: 1, batch_size: 4}\n")
    monkeypatch.chdir(tmp_path)
    run = train_spec(spec, recipe, workdir="run", quiet=True)
    monkeypatch.chdir("/")  # the recipe in the run folder does not depend on where it was started
    assert evaluate_run(tmp_path / "run")["examples"] == 4
    assert run.results["dataset"] == f"folder:{tmp_path / 'images'}"
    (tmp_path / "images/train/cat/0.png").rename(tmp_path / "images/train/cat/9.png")
    with pytest.raises(DataError, match="the data changed since the run began"):
        evaluate_run(tmp_path / "run")


@pytest.mark.parametrize("strategy", some("deep_supervision", "random_features", slow=["decoupled", "end_to_end"]))
def test_other_strategies_train_and_report_the_heads_they_train(files, tmp_path, strategy):
    run = train_spec(*files, [f"strategy={strategy}"], tmp_path / "run", quiet=True)
    expected = [3] if strategy == "end_to_end" else [1, 2, 3]
    assert [d["depth"] for d in run.results["depths"]] == expected
    assert {r["head"] for r in read_metrics(run.workdir)} == {f"head_{d}" for d in expected}


def test_early_stopping_ends_a_phase_after_its_patience(files, tmp_path):
    overrides = [
        "training.epochs=6",
        "training.early_stopping=1",
        "training.optimizer.learning_rate=1e-12",
        "strategy=end_to_end",
    ]
    run = train_spec(*files, overrides, tmp_path / "run", quiet=True)
    assert run.results["phases"][0]["epochs"] < 6
    assert run.results["phases"][0]["best"]["waited"] == 1


def test_divergence_keeps_the_last_good_state(files, tmp_path, monkeypatch):
    original = loop.Loop._absorb

    def absorb(self, phase, pending):
        if self.state.position.epoch == 1:
            pending[0].sums["head_1"] = tf.constant([float("nan"), 0.0])
        original(self, phase, pending)

    monkeypatch.setattr(loop.Loop, "_absorb", absorb)
    monkeypatch.setattr(loop, "SAVE_SHARE", 0)  # a checkpoint after every epoch
    with pytest.raises(
        Diverged, match="training diverged in phase block_1, epoch 2: the training loss of head_1 is nan"
    ) as caught:
        train_spec(*files, workdir=tmp_path / "run", quiet=True)
    assert caught.value.exit_code == 4
    monkeypatch.undo()
    assert all(np.isfinite(v).all() for v in weights(tmp_path / "run").values())
    assert evaluate_run(tmp_path / "run")["depths"][0]["depth"] == 1
    resume_run(tmp_path / "run", quiet=True)


def test_a_huge_rate_really_diverges(files, tmp_path):
    with pytest.raises(Diverged):
        train_spec(*files, ["training.optimizer.learning_rate=1e30"], tmp_path / "run", quiet=True)
    assert all(np.isfinite(v).all() for v in weights(tmp_path / "run").values())


def test_own_arrays_from_a_notebook(files, tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 96)[:, None]  # as keras.datasets gives them
    images = (rng.uniform(size=(96, 8, 8, 1)) * 0.2 + labels[:, :, None, None] * 0.4).clip(0, 1)
    data = ImageArrays((images[:64], labels[:64]), (images[64:], labels[64:]), np.array(["dark", "grey", "light"]))
    overrides = ["data={dataset: mine, validation: 0}", "training.keep=last", "training.epochs=4", "training.batch_size=16"]
    run = train_spec(*files, overrides, tmp_path / "run", data=data, quiet=True)
    assert run.results["ensemble"]["top1"] > 0.9 and run.results["dataset"] == "arrays"
    assert evaluate_run(run.workdir, data=data)["depths"] == run.results["depths"]
    assert load_network(run.workdir).architecture.classes == 3
    with pytest.raises(DataError, match="give them again"):
        evaluate_run(run.workdir)
