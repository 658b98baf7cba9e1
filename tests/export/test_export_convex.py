"""Exports of convex networks: the same logits, at other sizes too; and one clear error where a format cannot hold one."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import some

import kerasgreedy as kg
from kerasgreedy.errors import InputError
from kerasgreedy.export.export_run import Export
from kerasgreedy.export.tfmot.finish_run import Finish, finish_run
from kerasgreedy.graph.architecture import architecture
from kerasgreedy.network.build import Network

GATED = """
name: gated
blocks:
  - [{random_features: 6, kernel_size: 3}, {standardize: channels}]
final_head: {layers: [{gated_conv: 5, kernel_size: 3, padding: valid, class_separable: true, paired: true, start: random}]}
"""
ROWS = "name: rows\nblocks: [{random_features: 6, kernel_size: 3}]\nfinal_head: {layers: [{rows: true, start: random}]}\n"
RECIPE = """
name: r
strategy: convex
data: {dataset: digits, train_examples: 64, test_examples: 16, validation: 16}
training: {epochs: 1, batch_size: 16, optimizer: {name: sgd, learning_rate: 1e-3}}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("convex")
    (folder / "r.yaml").write_text(RECIPE)
    done = {}
    for name, text in (("gated", GATED), ("rows", ROWS)):
        (folder / f"{name}.yaml").write_text(text)
        done[name] = kg.train_spec(folder / f"{name}.yaml", folder / "r.yaml", [], folder / name, quiet=True).workdir
    return done


@pytest.mark.parametrize("name", some("gated", slow=["rows"]))
def test_the_savedmodel_and_stock_keras_give_the_logits_of_the_network(runs, tmp_path, name):
    done = kg.export_run(runs[name], tmp_path / "out", Export(formats=("keras", "tflite")), quiet=True)
    network = kg.load_network(runs[name])
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1)).astype(np.uint8)
    expected = np.asarray(network.model()(images.astype(np.float32), training=False)["depth_1"])
    model = tf.saved_model.load(done["out"])
    scale = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(model.signatures["logits"](images=images)["logits"], expected, atol=scale)
    assert {entry["format"] for entry in done["formats"]} == {"keras", "tflite"}


@pytest.mark.slow
def test_a_head_of_gates_takes_images_of_other_sizes_and_one_of_rows_does_not(runs, tmp_path):
    done = kg.export_run(runs["gated"], tmp_path / "out", Export(free_size=True), quiet=True)
    network = kg.load_network(runs["gated"])
    spec = kg.load_spec(runs["gated"] / "spec.yaml").value
    larger = Network(architecture(spec.model_copy(update={"input_shape": [11, 9, 1]})))
    for name in network.names:
        larger.load_arrays(name, network.arrays(name))
    images = np.random.default_rng(0).integers(0, 256, (2, 11, 9, 1)).astype(np.uint8)
    mean, deviation = (np.asarray(part, np.float32) for part in network.facts.normalization)
    expected = np.asarray(larger.logits((images.astype(np.float32) - mean) / deviation)[0])
    found = tf.saved_model.load(done["out"]).signatures["logits"](images=images)["logits"]
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    with pytest.raises(InputError, match="layer rows_1 of head_1 keeps something for each place of a map of 6x6x6"):
        kg.export_run(runs["rows"], tmp_path / "rows", Export(free_size=True), quiet=True)


def test_what_cannot_hold_one_says_so(runs, tmp_path):
    with pytest.raises(InputError, match="block_1/random_features_1 cannot be computed in int8"):
        kg.export_run(runs["gated"], tmp_path / "int8", Export(formats=("tflite_int8",)), quiet=True)
    for name in runs:
        with pytest.raises(InputError, match=r"block_1.*random_features"):
            finish_run(runs[name], tmp_path / f"{name}_finished", Finish("quantize"), quiet=True)
        assert not (tmp_path / f"{name}_finished").exists()
