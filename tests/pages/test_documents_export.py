"""docs/export.md, docs/formats.md and docs/finishing.md, block by block: files and what they answer."""

import base64
import hashlib
import json
import re
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
import tf_keras
from PIL import Image
from stand_ins import picture

import kerasgreedy as kg

SIGNATURES = {
    "serving_default": ({"images"}, {"probabilities", "top_ids", "top_probabilities"}),
    "serve": ({"images"}, {"probabilities", "top_ids", "top_probabilities", "top_names"}),
    "serve_encoded": ({"image_bytes"}, {"probabilities", "top_ids", "top_probabilities", "top_names"}),
    "logits": ({"images"}, {"logits"}),
    "ensemble": ({"images"}, {"logits", "probabilities"}),
    **{f"depth_{depth}": ({"images"}, {"logits", "probabilities"}) for depth in range(1, 5)},
    "features": ({"images"}, {f"block_{n}_{kind}" for n in range(1, 5) for kind in ("map", "pooled")}),
    "anytime": ({"images", "threshold"}, {"probabilities", "confidence", "depth"}),
}


class HubLayer(tf_keras.layers.Layer):
    """What `hub.KerasLayer` does with a reusable SavedModel; tests/consumers has the real one."""

    def __init__(self, handle, trainable, input_shape):
        super().__init__(trainable=trainable, input_shape=input_shape)
        self.model = tf.saved_model.load(handle)
        self._trainable_weights = list(self.model.trainable_variables) if trainable else []
        for loss in self.model.regularization_losses:
            self.add_loss(loss)

    def call(self, inputs, training=False):
        return self.model(inputs, training=training)


def put_hub(page):
    hub = types.ModuleType("tensorflow_hub")
    hub.load, hub.KerasLayer = tf.saved_model.load, HubLayer
    page.patch.setitem(sys.modules, "tensorflow_hub", hub)


def files_of_a_version(page, version):
    named = re.findall(r"`([^`]+)`", " ".join(re.findall(r"^\| (`.*?) \|", page.section("# Export"), re.M)))
    assert {"saved_model.pb", "assets/model_card.md", "model_int8.tflite"} <= set(named)
    for name in named:
        assert any((version / folder / name).exists() for folder in ("", "assets")) or name in (
            ".json",
            "model_float16.tflite",
        ), name
    assert (version / "assets/class_names.txt").read_text().split() == list("0123456789")
    sealed = json.loads((version / "export.json").read_text())
    for name, digest in sealed["files"].items():
        assert hashlib.sha256((version / name).read_bytes()).hexdigest() == digest
    return sealed


@pytest.mark.slow
def test_page_export(page):
    Path("photos").mkdir()
    for label in (1, 2):
        Image.fromarray(picture(label)).save(f"photos/{label}.png")
    _, exported, predicted = page.commands("kerasgreedy train simcnn_k3_cifar", width=None)
    version = Path("exports/digits/1")
    assert "photos/1.png" in predicted.out and "photos/2.png" in predicted.out and exported.code == 0
    sealed = files_of_a_version(page, version)
    model = tf.saved_model.load(str(version))
    assert set(sealed["signatures"]) == set(model.signatures) == set(SIGNATURES)
    for name, (inputs, outputs) in SIGNATURES.items():
        signature = model.signatures[name]
        assert (set(signature.structured_input_signature[1]), set(signature.structured_outputs)) == (inputs, outputs), name

    answer = page.python("import tensorflow as tf")["answer"]
    assert answer["top_names"].shape == (1, 5) and len(answer["top_probabilities"][0]) == 5  # --top-k sets k (5)
    command_line(page, model)
    rest(page, model)
    fine_tuning(page, version)

    page.python("import kerasgreedy as kg")
    assert page.names["done"]["out"] == "exports/digits/2" and page.names["done"]["difference"] < 1e-5
    page.says("the next export becomes `exports/digits/2/`")
    assert Path("exports/digits/2/model.onnx").stat().st_size
    predictions(page)


def command_line(page, model):
    """`saved_model_cli run`, as the page writes it."""
    from tensorflow.python.tools import saved_model_cli

    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    np.save("images.npy", images)
    words = re.search(r"`(saved_model_cli run .*?)`", page.text, re.S)[1].replace("'", "").split()
    page.patch.setattr(sys, "argv", [*words, "--outdir", "."])
    with pytest.raises(SystemExit) as end:
        saved_model_cli.main()
    assert not end.value.code
    np.testing.assert_allclose(np.load("logits.npy"), model.signatures["logits"](images=images)["logits"], atol=1e-5)


def rest(page, model):
    """The request of TensorFlow Serving's REST interface, with a file in the place of its dots, answered by the signature."""
    content = Path("photos/1.png").read_bytes()
    body = re.search(r'`(\{"signature_name".*?)`', page.text, re.S)[1].replace("...", base64.b64encode(content).decode())
    request = json.loads(body)
    (instance,) = request["instances"]
    inputs = {name: tf.constant([base64.b64decode(value["b64"])]) for name, value in instance.items()}
    pixels = np.asarray(Image.open("photos/1.png"))[None]
    answer = model.signatures[request["signature_name"]](**inputs)
    np.testing.assert_allclose(answer["probabilities"], model.signatures["serve"](images=pixels)["probabilities"], atol=1e-5)


def fine_tuning(page, version):
    """TF-Hub's convention, tf_keras and Keras 3."""
    put_hub(page)
    names = page.python("import numpy as np")
    images = names["images"] = names["images"][:64]
    names["labels"] = names["labels"][:64]
    model = tf.saved_model.load(str(version))
    assert names["features"].shape == (8, 32) and len(model.regularization_losses) == len(model.trainable_variables) < len(
        model.variables
    )
    bytes_ = np.round(images[:8] * 255).astype(np.uint8)
    maps = model.signatures["features"](images=bytes_)["block_4_map"]
    np.testing.assert_allclose(model(bytes_ / np.float32(255)), tf.reduce_mean(maps, [1, 2]), atol=1e-4)
    decay = 5e-4  # of quickstart
    np.testing.assert_allclose(
        [loss() for loss in model.regularization_losses],
        [decay / 2 * float(tf.reduce_sum(v * v)) for v in model.trainable_variables],
        rtol=1e-4,
    )

    before = [v.numpy() for v in model.trainable_variables]
    first, last = page.python("import tf_keras")["history"].history["loss"]
    moved = page.names["layer"].trainable_weights
    assert last < first and max(np.abs(a - b).max() for a, b in zip(before, moved, strict=True)) > 1e-6

    names = page.python("import keras")
    assert names["scores"].shape == (8, 10)
    page.says("as a layer with frozen weights")
    blocks, probe = names["blocks"], names["probe"]
    assert [v.shape for v in probe.trainable_variables] == [(16, 10), (10,)]
    before = [np.array(v) for v in blocks.weights]
    probe.compile(keras.optimizers.SGD(0.1, 0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    probe.fit(bytes_, names["labels"][:8], epochs=1, verbose=0)
    for value, old in zip(blocks.weights, before, strict=True):
        np.testing.assert_array_equal(value, old)


def predictions(page):
    """A bad file is named, the others answered, exit code 2."""
    Path("photos/3.png").write_bytes(b"nothing")
    done = page.run("kerasgreedy", "predict", "exports/digits", "photos", "--json")
    assert done.code == 2 and set(done.json) >= {"predictions", "faults"} and "photos/3.png" in done.err
    assert [set(row) for row in done.json["predictions"]] == [{"file", "classes"}] * 2
    assert set(done.json["predictions"][0]["classes"][0]) == {"name", "id", "probability"}
    assert [row["file"] for row in done.json["faults"]] == ["photos/3.png"] and set(done.json["faults"][0]) == {"file", "error"}


TRAIN = (
    "kerasgreedy train simcnn_k3_cifar -s blocks.0.conv=16 -s blocks.1.conv=16 -s blocks.2.conv=32 -s blocks.3.conv=32 "
    "-w runs/digits"
)


@pytest.mark.slow
def test_page_formats(page):
    page.command(TRAIN, width=None)
    network = kg.load_network("runs/digits")
    images = np.stack([picture(label) for label in range(10)])
    expected = {name: np.array(z) for name, z in network.model()(images.astype(np.float32)).items()}

    def near(received, name, to=1e-5):
        assert np.abs(received - expected[name]).max() <= to * max(1, np.abs(expected[name]).max())

    content = page.python("from kerasgreedy.export.lite", network=network, images=images)["content"]
    Path("model.onnx").write_bytes(content)
    names = page.python("import keras")
    assert names["model"] is not None and set(names["model"].output) == set(expected)
    layers = [layer.name for layer in names["model"].layers]
    page.says("# block_1.conv_1, block_1.batch_norm_1, ...")
    assert {"block_1.conv_1", "block_1.batch_norm_1"} <= set(layers)
    near(names["logits"], "ensemble")
    near(names["model"](images.astype(np.float32))["depth_4"], "depth_4")
    assert all(type(layer).__module__.startswith("keras.") for layer in names["model"].layers)

    litert = types.ModuleType("ai_edge_litert.interpreter")
    litert.Interpreter = tf.lite.Interpreter  # the page: or tf.lite.Interpreter
    page.patch.setitem(sys.modules, "ai_edge_litert", types.ModuleType("ai_edge_litert"))
    page.patch.setitem(sys.modules, "ai_edge_litert.interpreter", litert)
    from kerasgreedy.export.lite import tflite

    Path("model.tflite").write_bytes(tflite(network, 4, "float"))
    page.says("A TFLite file opens with n = 1")
    (opened,) = tf.lite.Interpreter("model.tflite").get_input_details()
    assert opened["shape"].tolist() == [1, 32, 32, 3] and opened["dtype"] == np.float32
    near(page.python("from ai_edge_litert", images=images.astype(np.float32))["logits"], "depth_4")
    details = tf.lite.Interpreter(model_content=tflite(network, 4, "int8", calibration=images)).get_input_details()
    assert details[0]["dtype"] == np.uint8
    near(page.python("import onnxruntime")["logits"], "ensemble")


@pytest.mark.slow
def test_page_finishing(page):
    _, quantized, clustered = page.commands(
        "kerasgreedy train simcnn_k3_cifar", {1: ["--epochs", "1", "--depth", "1"], 2: ["--epochs", "1"]}, None
    )
    results = [json.loads(Path("runs", name, "results.json").read_text()) for name in ("k3-int8", "k3-16")]
    for found in results:
        assert set(found["before"]) == set(found["after"]) >= {"top1", "top5", "loss"} and found["examples"] == 20
    assert (quantized.code, clustered.code) == (0, 0)
    interpreter = tf.lite.Interpreter("runs/k3-int8/model.tflite")
    runner = interpreter.get_signature_runner()
    (taken,), (given,) = runner.get_input_details().values(), runner.get_output_details().values()
    assert (
        taken["dtype"] == given["dtype"] == np.float32
        and list(taken["shape"]) == [1, 32, 32, 3]
        and list(given["shape"]) == [1, 10]
    )
    names = page.python("import numpy as np")
    assert names["logits"].shape == (1, 10) and names["image"].shape == tuple(taken["shape"])
    kernels = {key: value for key, value in names["arrays"].items() if key.endswith("kernel")}
    assert "block_1/conv_1/kernel" in kernels and max(len(np.unique(value)) for value in kernels.values()) <= 16
    keras_file = keras.models.load_model("runs/k3-16/model.keras")
    image = np.asarray(picture(5))[None].astype(np.float32)
    np.testing.assert_allclose(names["network"].model()(image)["depth_4"], keras_file(image)["depth_4"], atol=1e-5)
    assert set(keras_file.output) == {"depth_4", "ensemble"}
    assert safetensors.numpy.load_file("runs/k3-16/weights.safetensors").keys() == names["arrays"].keys()
