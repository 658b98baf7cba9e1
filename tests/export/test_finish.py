"""Quantising and clustering a trained run: the twin, the files, what is refused."""

import gzip
import json
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
from command_line import run_cli
from networks import network_of

from kerasgreedy.errors import Diverged, InputError
from kerasgreedy.export.lite import open_tflite
from kerasgreedy.export.tfmot import finishing
from kerasgreedy.export.tfmot.finish_run import Finish, finish_run
from kerasgreedy.export.tfmot.finishing import FineTuning
from kerasgreedy.export.tfmot.twin import check_twin, copy_back, make_twin
from kerasgreedy.runs.open_run import open_job, open_pipeline
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.spec.training import Sgd
from kerasgreedy.train.entry_points import load_network

BLOCKS = {
    "invertible": "[{conv: 8, downsample: invertible}, {downsample: invertible}, {upsample: invertible, factor: 4}, {conv: 3}]",
    "projection": "{residual: [{conv: 6, stride: 2}, {conv: 6, activation: linear}], shortcut: projection}",
    "pad": "{residual: [{conv: 6, stride: 3}, {conv: 6, activation: linear}], shortcut: pad}",
    "branches": "{branches: [[{conv: 3}], [{max_pool: 3, stride: 1, padding: same}, {conv: 2}], []]}",
    "vector": "[{flatten: true}, {dense: 5, batch_norm: true}, {dropout: 0.5}, {batch_norm: true}, {activation: tanh}]",
    "adaptive": "[{conv: 4, kernel_size: 2, padding: valid}, {max_pool: 3, stride: 2, padding: 1}, {pool_to: 3}]",
    "groups": "[{conv: 8, groups: 4, kernel_size: 5, stride: 2, padding: 1}, {conv: 4, groups: 2}]",
    "pools": "[{conv: 4, downsample: average}, {avg_pool: 3, padding: same}, {batch_norm: true}, {global_avg_pool: true}]",
    "activations": "[{activation: silu}, {activation: gelu}, {conv: 4, activation: leaky_relu}, {conv: 4, activation: sigmoid}]",
}


@pytest.mark.parametrize("method", ["quantize", "cluster"])
@pytest.mark.parametrize("kind", BLOCKS)
def test_twin_equals_the_network(kind, method):
    network = network_of(BLOCKS[kind])
    x = np.random.default_rng(1).normal(0, 2, (5, 8, 8, 3)).astype(np.float32)
    for depth in (1, 2):
        twin = make_twin(network, depth, method)
        expected = network.logits(x, [depth])[0].numpy()
        np.testing.assert_allclose(twin(x, training=False).numpy(), expected, atol=1e-5 * max(1, np.abs(expected).max()))


def test_a_twin_that_differs_is_refused_until_its_weights_are_copied_back():
    network = network_of(BLOCKS["projection"])
    twin = make_twin(network, 2, "cluster")
    for layer in ("block_2.conv_1", "head_2.batch_norm_2"):
        weights = twin.get_layer(layer).get_weights()
        twin.get_layer(layer).set_weights([weight + 0.125 for weight in weights])
    with pytest.raises(InputError, match="twin gives other logits than the network .* nothing was written"):
        check_twin(twin, network, 2, seed=0)
    before = network.arrays("block_2") | network.arrays("head_2")
    copy_back(twin, network, 2)
    check_twin(twin, network, 2, seed=0)
    for key, value in (network.arrays("block_2") | network.arrays("head_2")).items():
        moved = 0.125 if "block_2/conv_1" in key or "head_2/batch_norm_2" in key else 0.0
        np.testing.assert_array_equal(value, before[key] + np.float32(moved), err_msg=key)


ELU = "block_2, layer activation_1: TFMOT cannot quantise the activation 'elu'; cluster works with it"
LOWEST = "block_2, layer max_pool_1: max_pool with padding 1 .*; write padding: same"
REFUSED = [
    ("{conv: 4, activation: elu}", ["quantize"], ELU),
    ("[{conv: 4, activation: linear}, {max_pool: 3, padding: 1}]", ["quantize", "cluster"], LOWEST),
]


@pytest.mark.parametrize(("block", "methods", "message"), REFUSED)
def test_what_cannot_be_done_is_refused_before_training(block, methods, message):
    for method in ("quantize", "cluster"):
        if method in methods:
            with pytest.raises(InputError, match=message):
                make_twin(network_of(block), 2, method)
        else:
            make_twin(network_of(block), 2, method)


def weight_of(weights, ending):
    (found,) = [variable.numpy() for variable in weights if variable.name.split(":")[0].endswith(ending)]
    return found


@pytest.mark.parametrize("times", [1, 2])
def test_ranges_of_activations_start_at_what_the_float_network_shows(times):
    """In a process's second model too, where Keras gives the layers of TFMOT other names."""
    import tensorflow_model_optimization as tfmot

    network = network_of("{conv: 4, activation: linear}", "{layers: [{global_avg_pool: true}]}")
    twin = make_twin(network, 1, "quantize")
    model = tfmot.quantization.keras.quantize_model(twin)
    batches = np.random.default_rng(0).normal(0, 9, (2, 6, 8, 8, 3)).astype(np.float32)
    data = tf.data.Dataset.from_tensor_slices((np.zeros((2, 6)), batches, np.zeros((2, 6))))
    finishing._set_ranges(model, twin, SimpleNamespace(view=lambda *_: data), 6)
    first, last = model.layers[1].weights, model.layers[-1].weights  # Keras numbers the layer's name in a process's later models
    np.testing.assert_allclose(weight_of(first, "_max"), batches.max((1, 2, 3, 4)).mean(), rtol=1e-5)
    np.testing.assert_allclose(weight_of(first, "_min"), batches.min((1, 2, 3, 4)).mean(), rtol=1e-5)
    logits = np.stack([network.logits(batch, [1])[0] for batch in batches])
    np.testing.assert_allclose(weight_of(last, "post_activation_max"), np.maximum(logits.max((1, 2)), 0).mean(), rtol=1e-4)


def test_each_image_of_a_file_is_normalised():
    import tf_keras

    images = tf_keras.Input((2, 2, 1))
    model = tf_keras.Model(images, tf_keras.layers.Flatten()(images))
    raw = np.array([[[[0.0], [255.0]], [[3.0], [7.0]]]], np.float32)
    logits = open_tflite(finishing.to_tflite(model, ([3.0], [2.0])))(raw)
    np.testing.assert_allclose(logits, [[-1.5, 126.0, 0.0, 2.0]], rtol=1e-6)


def test_quantize(finished, tmp_path, monkeypatch, capsys):
    options = ["--method", "quantize", "--epochs", 1, "--depth", 2, "--learning-rate", 0.001, "--json"]
    code, out, err = run_cli(monkeypatch, capsys, "finish", finished.workdir, tmp_path / "q", *options)
    assert code == 0 and "epoch 1/1: loss" in err
    results = json.loads(out.splitlines()[-1])
    assert {**json.loads((tmp_path / "q/results.json").read_text()), "out": str(tmp_path / "q")} == results
    assert sorted(path.name for path in (tmp_path / "q").iterdir()) == ["model.tflite", "results.json"]
    assert results["before"]["top1"] == finished.results["depths"][1]["top1"]
    content = (tmp_path / "q/model.tflite").read_bytes()
    assert results["file_bytes"] == len(content) and results["examples"] == 50

    # The file on raw images, beside the float network on the same ones.
    folder = Workdir.open(finished.workdir)
    pipeline = open_pipeline(open_job(folder, None), None, folder)
    _, images, labels = next(iter(pipeline.view("test", None, 50)))
    raw = images.numpy() * pipeline.deviation + pipeline.mean
    logits = open_tflite(content)(raw)
    top1 = (logits.argmax(1) == labels.numpy()).mean()
    assert results["after"]["top1"] == pytest.approx(top1)
    likelihood = logits[np.arange(50), labels] - np.log(np.exp(logits.astype(float)).sum(1))
    assert results["after"]["loss"] == pytest.approx(-likelihood.mean(), rel=1e-5)
    expected = load_network(finished.workdir).model([2])(raw)["depth_2"].numpy()
    assert np.corrcoef(logits.ravel(), expected.ravel())[0, 1] > 0.95

    interpreter = tf.lite.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    kernels = [
        d for d in interpreter.get_tensor_details() if len(d["shape"]) == 4 and np.prod(d["shape"][1:]) in (9, 36, 54, 144)
    ]
    assert kernels and {d["dtype"] for d in kernels if d["shape"][0] in (4, 6)} == {np.int8}


@pytest.mark.slow
def test_cluster(finished, tmp_path):
    settings = Finish("cluster", epochs=1, clusters=5)
    results = finish_run(finished.workdir, tmp_path / "c", settings, quiet=True)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["model.keras", "results.json", "weights.safetensors"]
    content = (tmp_path / "c/weights.safetensors").read_bytes()
    arrays = safetensors.numpy.load(content)
    kernels = {key: len(set(array.ravel().tolist())) for key, array in arrays.items() if key.endswith("kernel")}
    assert results["distinct_values"] == kernels and set(kernels.values()) == {5} and len(kernels) == 6
    assert {key.split("/")[0] for key in arrays} == {"block_1", "block_2", "block_3", "head_3"}

    network = load_network(finished.workdir)
    before = {
        k: v for name in ("block_1", "block_2", "block_3", "head_3") for k, v in network.arrays(name).items() if k in arrays
    }
    assert results["gzip_bytes_before"] == len(gzip.compress(b"".join(v.tobytes() for v in before.values()), mtime=0))
    assert results["gzip_bytes_after"] < 0.8 * results["gzip_bytes_before"]
    assert results["weights_bytes"] == sum(4 * array.size for array in before.values())

    # The written model is the network of the written weights, and any network takes them.
    for name in ("block_1", "block_2", "block_3", "head_3"):
        network.load_arrays(name, network.arrays(name) | {k: v for k, v in arrays.items() if k.startswith(f"{name}/")})
    raw = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1)).astype(np.float32)
    written = keras.models.load_model(tmp_path / "c/model.keras")(raw)
    np.testing.assert_allclose(written["depth_3"], network.model([3])(raw)["depth_3"], atol=1e-6)

    again = finish_run(finished.workdir, tmp_path / "again", settings, quiet=True)
    assert again == results and (tmp_path / "again/weights.safetensors").read_bytes() == content


def test_a_kernel_of_no_more_weights_than_clusters_is_only_trained(finished, tmp_path):
    results = finish_run(finished.workdir, tmp_path / "c", Finish("cluster", epochs=1, clusters=50, depth=1), quiet=True)
    assert results["distinct_values"]["block_1/conv_1/kernel"] == 36  # 3 * 3 * 1 * 4
    assert results["distinct_values"]["head_1/conv_1/kernel"] <= 50


BAD = [
    (["--method", "quantise"], "method: received 'quantise'; allowed: quantize, cluster; did you mean 'quantize'?"),
    (["--method", "cluster", "--epochs", 0], "epochs: received 0; allowed: 1 or more"),
    (["--method", "cluster", "--clusters", 1], "clusters: received 1; allowed: 2 or more"),
    (["--method", "quantize", "--clusters", 4], "clusters: belongs to method 'cluster'"),
    (["--method", "cluster", "--learning-rate", -1], "learning_rate: received -1.0; allowed: a positive number"),
    (["--method", "cluster", "--learning-rate", "nan"], "learning_rate: received nan; allowed: a positive number"),
    (["--method", "cluster", "--depth", 4], "depth: received 4; trained depths of this run: 1, 2, 3"),
]


@pytest.mark.parametrize(
    ("options", "message"), BAD, ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else ""
)
def test_bad_input(finished, tmp_path, monkeypatch, capsys, options, message):
    code, out, err = run_cli(monkeypatch, capsys, "finish", finished.workdir, tmp_path / "new", *options)
    assert (code, out) == (2, "") and message in err
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_refused_before_training(finished, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/new: cannot be written"):
        finish_run(finished.workdir, tmp_path / "file/new", Finish("cluster", epochs=1000), quiet=True)


def test_nothing_is_written_over_and_a_run_folder_is_needed(finished, tmp_path, monkeypatch, capsys):
    (tmp_path / "old").mkdir()
    code, _, err = run_cli(monkeypatch, capsys, "finish", finished.workdir, tmp_path / "old", "--method", "cluster")
    assert code == 2 and "already exists; give another OUT" in err
    code, _, err = run_cli(monkeypatch, capsys, "finish", tmp_path / "none", tmp_path / "new", "--method", "cluster")
    assert code == 2 and "no such run folder" in err


def test_a_missing_package_is_named(finished, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_model_optimization", None)
    with pytest.raises(InputError, match="pip install 'tensorflow-model-optimization>=0.8'"):
        finish_run(finished.workdir, tmp_path / "new", Finish("cluster"), quiet=True)


def test_a_layer_that_tfmot_did_not_cluster_is_refused(finished, tmp_path, monkeypatch):
    import tensorflow_model_optimization as tfmot

    monkeypatch.setattr(tfmot.clustering.keras, "cluster_weights", lambda layer, **_: None)
    with pytest.raises(InputError, match=r"block_1\.conv_1: TFMOT did not cluster this layer; nothing was trained"):
        finish_run(finished.workdir, tmp_path / "new", Finish("cluster"), quiet=True)
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_no_longer_finite_writes_nothing(finished, tmp_path):
    with pytest.raises(Diverged, match="nothing was written"):
        finish_run(finished.workdir, tmp_path / "new", Finish("cluster", epochs=1, learning_rate=1e30, depth=1), quiet=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_ranges_that_tflite_cannot_take_are_a_divergence(finished, monkeypatch):
    """One step at a rate of 1e30: the loss before it was finite, and the weights are still numbers."""

    def step(model, *_):
        for weight in model.trainable_weights:
            weight.assign(tf.fill(weight.shape, 1e30))

    monkeypatch.setattr(finishing, "_fine_tune", step)
    monkeypatch.setattr(finishing, "_set_ranges", lambda *_: None)
    with pytest.raises(Diverged, match="TFLite cannot take what the fine-tuning made of the weights; nothing was written"):
        finishing.quantize(finished.network, 1, None, FineTuning(1, 1e30, Sgd(), 32, 0, 0, print))


@pytest.mark.parametrize("value", [1e30, np.inf, np.nan])
def test_a_twin_whose_logits_are_not_finite_is_refused(value):
    network = network_of(BLOCKS["pad"])
    twin = make_twin(network, 1, "cluster")
    for weight in twin.trainable_weights:
        weight.assign(tf.fill(weight.shape, value))
    with pytest.raises(Diverged, match="not finite everywhere"):
        check_twin(twin, network, 1, 0)
