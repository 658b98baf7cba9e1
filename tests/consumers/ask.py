"""Asks an exported version through other people's programs, in a process that has no kerasgreedy.

Arguments: the version's folder, and a folder with `asked.npz`: `images` (uint8), `logits` and `probabilities` that the network
in memory gives for them, `depth_<n>` logits, `train_images`, `train_labels`, `test_images`, `test_labels`. Prints one JSON
object: largest difference of each program, relative to the largest logit or 1, and accuracies.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import tensorflow as tf


def apart(received, expected):
    received = np.asarray(received)
    assert received.shape == expected.shape, (received.shape, expected.shape)
    return float(np.abs(received - expected).max() / max(1.0, np.abs(expected).max()))


def tensorflow_(folder, asked):
    model = tf.saved_model.load(str(folder))
    found = apart(model.signatures["logits"](images=asked["images"])["logits"], asked["logits"])
    for name in asked.files:
        if name.startswith("depth_"):
            found = max(found, apart(model.signatures[name](images=asked["images"])["logits"], asked[name]))
    one = np.concatenate([model.signatures["logits"](images=image[None])["logits"] for image in asked["images"]])
    return max(found, apart(one, asked["logits"]))


def command_line(folder, asked):
    """`saved_model_cli run`."""
    with tempfile.TemporaryDirectory() as place:
        np.save(f"{place}/images.npy", asked["images"])
        program = Path(sys.executable).with_name("saved_model_cli")
        arguments = ["run", "--dir", folder, "--tag_set", "serve", "--signature_def", "logits", "--outdir", place]
        subprocess.run([program, *arguments, "--inputs", f"images={place}/images.npy"], check=True, capture_output=True)
        return apart(np.load(f"{place}/logits.npy"), asked["logits"])


def keras_(folder, asked):
    import keras

    layer = keras.layers.TFSMLayer(str(folder), call_endpoint="logits")
    inputs = keras.Input(asked["images"].shape[1:], dtype="uint8")
    model = keras.Model(inputs, layer(inputs)["logits"])
    return apart(model.predict(asked["images"], verbose=0), asked["logits"])


def keras_file(folder, asked):
    import keras

    model = keras.models.load_model(folder / "model.keras")
    given = model(asked["images"].astype(np.float32))
    return max(apart(given[name], asked[name]) for name in asked.files if name.startswith("depth_"))


def openvino(folder, asked):
    import openvino as ov

    compiled = ov.Core().compile_model(ov.convert_model(folder), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return apart(compiled({"images": asked["images"]})["probabilities"], asked["probabilities"])


def onnx(folder, asked):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    return apart(session.run(["logits"], {"images": asked["images"].astype(np.float32)})[0], asked["logits"])


def lite(file, images):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file))
    run = interpreter.get_signature_runner()
    kind = run.get_input_details()["images"]["dtype"]
    return np.concatenate([run(images=image[None].astype(kind))["logits"] for image in images])


def hub_(folder, asked):
    """Accuracy on test images of a linear classifier on the features: before, with frozen features, and fine-tuned."""
    import tensorflow_hub as hub
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    train, test = ((asked[f"{part}_images"] / np.float32(255), asked[f"{part}_labels"]) for part in ("train", "test"))
    features = hub.KerasLayer(str(folder), trainable=True, input_shape=train[0].shape[1:])
    model = tf_keras.Sequential([features, tf_keras.layers.Dense(10)])
    result = {"losses": len(model.losses), "trained_weights": len(model.trainable_variables) - 2}
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def fit(name, epochs, optimizer, trainable):
        features.trainable = trainable
        model.compile(optimizer, loss, ["accuracy"])
        if epochs:
            model.fit(*train, batch_size=32, epochs=epochs, verbose=0)
        result[name] = model.evaluate(*test, verbose=0)[1]

    fit("before", 0, tf_keras.optimizers.SGD(), False)
    fit("frozen", 10, tf_keras.optimizers.Adam(0.02), False)
    frozen = [value.numpy() for value in features.weights]
    fit("fine_tuned", 6, tf_keras.optimizers.SGD(0.01, 0.9), True)
    result["moved"] = float(max(np.abs(a - b.numpy()).max() for a, b in zip(frozen, features.weights, strict=True)))
    return result


def serving(folder):
    """The requests that TensorFlow Serving would warm up with, by its own messages, answered."""
    from tensorflow_serving.apis import prediction_log_pb2

    model = tf.saved_model.load(str(folder))
    names = []
    for record in tf.data.TFRecordDataset(str(folder / "assets.extra/tf_serving_warmup_requests")):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        model.signatures[request.model_spec.signature_name](**inputs)
        names.append(request.model_spec.signature_name)
    return names


def main(folder, asked):
    assert importlib.util.find_spec("kerasgreedy") is None
    test, labels = asked["test_images"], asked["test_labels"]
    result = {
        "tensorflow": tensorflow_(folder, asked),
        "saved_model_cli": command_line(folder, asked),
        "TFSMLayer": keras_(folder, asked),
        "keras": keras_file(folder, asked),
        "openvino": openvino(folder, asked),
        "onnxruntime": onnx(folder, asked),
        "litert": apart(lite(folder / "model.tflite", asked["images"]), asked["logits"]),
        "hub": hub_(folder, asked),
        "warm_up": serving(folder),
    }
    for name in ("model", "model_int8"):
        result[f"{name}_accuracy"] = float((lite(folder / f"{name}.tflite", test).argmax(1) == labels).mean())
    print(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), np.load(f"{sys.argv[2]}/asked.npz"))
