"""Exports: the endpoints give what the run gives, the object can be trained on, a version appears whole or not at all."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, some
from exports import BRANCHED, THRESHOLDED, noise, softmax64, trained, tree

import kerasgreedy as kg
from kerasgreedy.data.loaders import open_data
from kerasgreedy.errors import Diverged, InputError
from kerasgreedy.export import export_run, verify
from kerasgreedy.export.endpoints import Endpoints
from kerasgreedy.export.export_run import Export
from kerasgreedy.graph.architecture import architecture
from kerasgreedy.network.build import Network


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """The shared finished run, exported as it is by default."""
    out = tmp_path_factory.mktemp("exported") / "model"
    return kg.export_run(finished.workdir, out, quiet=True)


@pytest.fixture(scope="module")
def loaded(exported):
    return tf.saved_model.load(exported["out"])


@pytest.mark.slow
def test_images_of_the_data_set_score_as_in_the_run(finished, exported, loaded):
    """Through uint8 images, top-1 of every depth and of the vote on the run's own test images."""
    spec, recipe = (kg.load_spec(finished.workdir / "spec.yaml"), kg.load_recipe(finished.workdir / "recipe.yaml"))
    job = kg.prepare(spec, recipe)
    _, test = open_data(job.recipe.data, job.data, job.architecture.input_shape[:2], 1)
    chosen = np.sort(np.random.default_rng((0, 4)).permutation(test.size)[:50])
    images, labels = tf.constant(test.images[chosen]), test.labels[chosen]
    for entry in finished.results["depths"]:
        logits = loaded.signatures[f"depth_{entry['depth']}"](images=images)["logits"].numpy()
        assert (logits.argmax(1) == labels).mean() == pytest.approx(entry["top1"], abs=1e-9)
        loss = -np.log(softmax64(logits)[np.arange(50), labels]).mean()
        assert loss == pytest.approx(entry["loss"], rel=1e-5)
    vote = loaded.signatures["ensemble"](images=images)["logits"].numpy()
    assert (vote.argmax(1) == labels).mean() == pytest.approx(finished.results["ensemble"]["top1"], abs=1e-9)


def test_the_answer_lists_the_best_classes(loaded, finished):
    images = noise(finished.network)
    served = loaded.signatures["serve"](images=images)
    logits = loaded.signatures["depth_3"](images=images)["logits"].numpy()
    expected = softmax64(logits)
    np.testing.assert_allclose(served["probabilities"].numpy(), expected, atol=1e-6)
    order = np.argsort(-expected, 1)[:, :5]
    np.testing.assert_array_equal(served["top_ids"].numpy(), order)
    np.testing.assert_allclose(served["top_probabilities"].numpy(), np.take_along_axis(expected, order, 1), atol=1e-6)
    assert [name.decode() for name in served["top_names"].numpy()[0]] == [str(i) for i in order[0]]
    assert set(loaded.signatures["serving_default"](images=images)) == {"probabilities", "top_ids", "top_probabilities"}


def test_vote_by_hand(loaded, finished):
    """2^j z_j over their sum: weights 1/7, 2/7, 4/7."""
    images = noise(finished.network)
    z = [loaded.signatures[f"depth_{d}"](images=images)["logits"].numpy() for d in (1, 2, 3)]
    vote = loaded.signatures["ensemble"](images=images)["logits"].numpy()
    np.testing.assert_allclose(vote, (z[0] + 2 * z[1] + 4 * z[2]) / 7, atol=1e-5)


def test_features_of_every_block(loaded, finished):
    images = noise(finished.network)
    features = {key: value.numpy() for key, value in loaded.signatures["features"](images=images).items()}
    assert set(features) == {f"block_{d}_{what}" for d in (1, 2, 3) for what in ("map", "pooled")}
    for depth in (1, 2, 3):
        pooled = features[f"block_{depth}_map"].astype(np.float64).mean((1, 2))
        np.testing.assert_allclose(features[f"block_{depth}_pooled"], pooled, atol=1e-5)
    np.testing.assert_allclose(loaded(tf.constant(images / 255, tf.float32)), features["block_3_pooled"], atol=1e-5)


def test_anytime_leaves_at_the_first_head_that_is_sure(loaded, finished):
    images = noise(finished.network, 12)
    every = np.stack([softmax64(loaded.signatures[f"depth_{d}"](images=images)["logits"]) for d in (1, 2, 3)])
    sure = every.max(-1)
    threshold = float(np.float32(np.median(sure[0])) + 1e-4)
    left = np.array([next((d for d in range(3) if sure[d, i] >= threshold), 2) for i in range(12)])
    assert len(set(left)) > 1
    given = loaded.signatures["anytime"](images=tf.constant(images), threshold=tf.constant(threshold))
    np.testing.assert_array_equal(given["depth"], left + 1)
    np.testing.assert_allclose(given["probabilities"], every[left, np.arange(12)], atol=1e-6)
    np.testing.assert_allclose(given["confidence"], sure[left, np.arange(12)], atol=1e-6)


def test_anytime_does_not_run_what_no_image_needs(exported, finished):
    """NaN in the last head's weights changes nothing for those who have left before it."""
    again = tf.saved_model.load(exported["out"])
    kernel = [v for v in again.other_variables if v.shape.rank == 2 and v.shape[-1] == 10][-1]
    kernel.assign(tf.fill(kernel.shape, np.nan))
    images = tf.constant(noise(finished.network))
    early = again.signatures["anytime"](images=images, threshold=tf.constant(0.0))
    assert np.isfinite(early["probabilities"].numpy()).all()
    assert not np.isfinite(again.signatures["anytime"](images=images, threshold=tf.constant(2.0))["probabilities"]).all()


def test_the_object_follows_the_convention_for_reusable_models(exported, finished):
    loaded = tf.saved_model.load(exported["out"])
    network, decay = finished.network, 5e-4
    trained_weights = [v for name in ("block_1", "block_2", "block_3") for v in network.component(name).trainable_variables]
    assert len(loaded.trainable_variables) == len(trained_weights)
    total = sum(float(loss()) for loss in loaded.regularization_losses)
    squares = sum((np.asarray(v, np.float64) ** 2).sum() for v in trained_weights)
    assert total == pytest.approx(decay / 2 * squares, rel=1e-5)
    images = tf.constant(np.random.default_rng(3).random((8, *network.architecture.input_shape)), tf.float32)
    moving = [v for v in loaded.variables if not v.trainable and v.dtype == tf.float32]
    before = [v.numpy() for v in moving]
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(loaded(images, training=True) ** 2)
    gradients = tape.gradient(value, list(loaded.trainable_variables))
    assert all(g is not None and np.isfinite(g).all() for g in gradients)
    assert all(np.abs(v.numpy() - b).max() > 0 for v, b in zip(moving, before, strict=True))
    loaded(images, training=False)
    kept = [v.numpy() for v in moving]
    assert all((a == b.numpy()).all() for a, b in zip(kept, moving, strict=True))


def test_heads_that_were_not_trained_stay_out(tmp_path):
    """End to end trains the last head alone: the file holds the weights of two blocks and that head."""
    run = trained(tmp_path / "e2e", THRESHOLDED, "strategy=end_to_end", "auxiliary_head={hidden_layers: 1, width: 64}")
    done = kg.export_run(run.workdir, tmp_path / "out", quiet=True)
    assert "depth_2" in done["signatures"] and "depth_1" not in done["signatures"]
    network = kg.load_network(run.workdir)
    kept = [variable for name in ("block_1", "block_2", "head_2") for variable in network.component(name).variables]
    variables = dict(tf.train.list_variables(f"{done['out']}/variables/variables"))
    stored = [shape for name, shape in variables.items() if name.startswith(("variables/", "other_variables/"))]
    assert sorted(map(list, stored)) == sorted(list(variable.shape) for variable in kept)


@pytest.mark.parametrize("kind", some("pruned", slow=["branched", "thresholded"]))
def test_other_networks(kind, request, tmp_path):
    """`export` compares every endpoint by itself; here the answer is compared with `evaluate`'s own network once more."""
    if kind == "pruned":
        run = request.getfixturevalue("pruned")
    else:
        run = trained(tmp_path / kind, {"branched": BRANCHED, "thresholded": THRESHOLDED}[kind])
    done = kg.export_run(run.workdir, tmp_path / "out", Export(answer="ensemble", features_depth=1), quiet=True)
    assert done["difference"] < 1e-5
    network = kg.load_network(run.workdir)
    images = noise(network)
    expected = network.model()(tf.constant(images, tf.float32))["ensemble"]
    received = tf.saved_model.load(done["out"]).signatures["logits"](images=images)["logits"]
    np.testing.assert_allclose(received, expected, atol=1e-5)


def test_a_difference_is_refused_and_nothing_is_written(finished, tmp_path, monkeypatch):
    kg.export_run(finished.workdir, tmp_path / "out", quiet=True)
    usual = Endpoints.normalized
    monkeypatch.setattr(Endpoints, "normalized", lambda self, images: usual(self, images) * 1.001)
    with pytest.raises(InputError, match=r"exported model gives another .* than the network .*nothing was written"):
        kg.export_run(finished.workdir, tmp_path / "out", quiet=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["1"]


@pytest.mark.parametrize(("key", "value"), [("block_2/conv_1/kernel", np.inf), ("head_1/dense_1/bias", np.nan)])
def test_a_network_that_has_diverged_is_not_exported(key, value, finished, tmp_path, monkeypatch):
    usual = export_run.trained_network

    def diverged(*arguments):
        job, network = usual(*arguments)
        variable = network.variables(key.split("/")[0])[key]
        variable.assign(np.full(variable.shape, value, np.float32))
        return job, network

    monkeypatch.setattr(export_run, "trained_network", diverged)
    with pytest.raises(Diverged, match=r"what the network gives \(.*\) is not finite everywhere: the training has diverged"):
        kg.export_run(finished.workdir, tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


def test_every_endpoint_is_compared(finished, tmp_path, monkeypatch):
    seen = []
    usual = verify._difference
    monkeypatch.setattr(verify, "_difference", lambda what, a, b: seen.append(what) or usual(what, a, b))
    done = kg.export_run(finished.workdir, tmp_path / "out", quiet=True)
    for name, parts in done["signatures"].items():
        for key in parts["outputs"]:
            assert key == "top_names" or any(what.startswith(name) and what.endswith(f", {key}") for what in seen), (name, key)
    assert "__call__, features" in seen


def test_card_and_assets(exported, finished):
    assets = {path.name: path for path in Path(exported["out"], "assets").iterdir()}
    assert set(assets) == {"class_names.txt", "model_card.json", "model_card.md", "spec.yaml", "recipe.yaml"}
    assert assets["class_names.txt"].read_text().split() == list("0123456789")
    card = json.loads(assets["model_card.json"].read_text())
    arch = finished.network.architecture
    by_hand = arch.blocks[0].multiply_adds + arch.blocks[1].multiply_adds + arch.heads[1].multiply_adds
    assert card["depths"][1]["multiply_adds"] == by_hand
    assert card["depths"][1]["top1"] == finished.results["depths"][1]["top1"]
    assert card["data"]["licence"] == "CC BY 4.0" and card["test_images"] == 50
    everything = [*arch.blocks, *arch.heads]
    assert card["ensemble"]["multiply_adds"] == sum(part.multiply_adds for part in everything)
    assert card["ensemble"]["parameters"] == sum(part.parameters for part in everything)
    assert card["ensemble"]["top1"] == finished.results["ensemble"]["top1"]
    text = assets["model_card.md"].read_text()
    assert f"{by_hand:,}" in text and "CC BY 4.0" in text and "images 8 x 8 x 1" in text
    content = b"".join(tree(Path(exported["out"])).values())
    assert str(finished.workdir.parent).encode() not in content and str(ROOT).encode() not in content
    again = kg.prepare(kg.load_spec(assets["spec.yaml"]), kg.load_recipe(assets["recipe.yaml"]))
    assert again.architecture.parameters == arch.parameters


def test_heads_that_are_all_sure_are_no_reason_to_refuse():
    """Then no threshold lies between their confidences by more than rounding."""
    sure = {f"depth_{depth}": {"probabilities": np.array([[1 - 6e-8 * depth, 0]], np.float32)} for depth in (0, 1)}
    assert verify._thresholds(sure) == [0.0, 2.0]
    sure["depth_1"]["probabilities"][0, 0] = 0.5
    assert verify._thresholds(sure) == pytest.approx([0.0, 0.75, 2.0])


def test_warm_up_requests_hold_images(exported):
    """Read back without TensorFlow Serving's package, field by field."""
    file = f"{exported['out']}/assets.extra/tf_serving_warmup_requests"
    tensor_proto = type(tf.make_tensor_proto(0))
    records = [record.numpy() for record in tf.data.TFRecordDataset(file)]
    found = []
    for record in records:
        ((six, log),) = fields(record)
        ((one, request),) = fields(log)
        assert (six, one) == (6, 1)
        spec = dict(fields(request))[1]
        entry = dict(fields(dict(fields(request))[2]))
        tensor = tf.make_ndarray(tensor_proto.FromString(entry[2]))
        found.append((dict(fields(spec))[3].decode(), entry[1].decode(), tensor.shape))
    assert found == [
        ("serving_default", "images", (1, 8, 8, 1)), ("serve", "images", (1, 8, 8, 1)), ("serve_encoded", "image_bytes", (1,)),
    ]  # fmt: skip


def fields(message):
    """Length-delimited fields of a protobuf message."""

    def varint(at):
        value = shift = 0
        while True:
            byte = message[at]
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                return value, at

    result, at = [], 0
    while at < len(message):
        key, at = varint(at)
        size, at = varint(at)
        assert key & 7 == 2
        result.append((key >> 3, message[at : at + size]))
        at += size
    return result


@pytest.mark.slow
def test_free_size_equals_a_network_built_at_that_size(finished, tmp_path):
    done = kg.export_run(finished.workdir, tmp_path / "out", Export(free_size=True), quiet=True)
    network = kg.load_network(finished.workdir)
    spec = kg.load_spec(finished.workdir / "spec.yaml").value
    larger = Network(architecture(spec.model_copy(update={"input_shape": [12, 18, 1]})))
    for name in network.names:
        larger.load_arrays(name, network.arrays(name))
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 18, 1)).astype(np.uint8)
    mean, deviation = (np.asarray(part, np.float32) for part in network.facts.normalization)
    expected = larger.logits((images.astype(np.float32) - mean) / deviation)
    model = tf.saved_model.load(done["out"])
    for depth in (1, 2, 3):
        np.testing.assert_allclose(model.signatures[f"depth_{depth}"](images=images)["logits"], expected[depth - 1], atol=1e-5)
    for shape in ((1, 9, 8, 1), (1, 1, 1, 1), (1, 4096, 4096, 1)):  # not divided by 2, too small, too large
        with pytest.raises(tf.errors.InvalidArgumentError):
            model.signatures["logits"](images=tf.zeros(shape, tf.uint8))


def test_free_size_is_refused_where_a_map_is_flattened(tmp_path):
    run = trained(tmp_path / "flat", BRANCHED, "auxiliary_head={layers: [{flatten: true}]}")
    with pytest.raises(InputError, match="layer flatten_1 of head_1 keeps something for each place of a map of 4x4x6"):
        kg.export_run(run.workdir, tmp_path / "out", Export(free_size=True), quiet=True)


def test_all_formats_beside_the_savedmodel(finished, tmp_path):
    """Their files, sizes and figures; top-1 of int8 on validation images against NumPy on the file's own logits."""
    pytest.importorskip("tf2onnx")
    formats = ("keras", "tflite", "tflite_float16", "tflite_int8", "onnx", "keras")
    done = kg.export_run(finished.workdir, tmp_path / "out", Export(formats=formats), quiet=True)
    entries = {entry["format"]: entry for entry in done["formats"]}
    assert list(entries) == list(formats[:5])
    for entry in entries.values():
        assert entry["bytes"] == (tmp_path / "out/1" / entry["file"]).stat().st_size
    int8 = entries["tflite_int8"]
    assert (int8["images"], int8["part"]) == (32, "validation") and abs(int8["top1"] - int8["top1_float"]) <= 2 / 32
    assert json.loads((tmp_path / "out/1/export.json").read_text())["formats"] == done["formats"]
    images = noise(finished.network)
    expected = tf.saved_model.load(done["out"]).signatures["logits"](images=images)["logits"]
    received = keras.models.load_model(tmp_path / "out/1/model.keras")(images.astype(np.float32))["depth_3"]
    np.testing.assert_allclose(received, expected, atol=1e-5)


@pytest.mark.slow
def test_a_format_that_differs_takes_the_whole_version_with_it(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("kerasgreedy.export.formats.tflite", lambda *_: (_ for _ in ()).throw(InputError("other logits")))
    with pytest.raises(InputError, match="other logits"):
        kg.export_run(finished.workdir, tmp_path / "out", Export(formats=("tflite",)), quiet=True)
    assert not (tmp_path / "out").exists()
