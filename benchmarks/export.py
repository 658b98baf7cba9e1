"""Latency and throughput of an exported network in TensorFlow, OpenVINO, ONNX Runtime and TFLite, beside the Keras model.

    python -m benchmarks.export --spec simcnn_k3_cifar --json

One process holds all of them; they take turns in every round and each ratio is taken within a round. Weights are random, images
are noise, float32 throughout, all threads of the machine. What is timed is a call with a NumPy array of raw bytes (Keras and
TFLite: of floats, as they take them) to logits or probabilities in NumPy.
"""

import importlib.util
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.figures import Machine, conclude, grouped_bars, new_figure, parser, put_table, say
from benchmarks.specs import architecture_of, open_spec
from kerasgreedy.export import reusable
from kerasgreedy.export.endpoints import Endpoints
from kerasgreedy.export.image_bytes import Preprocessing
from kerasgreedy.export.lite import tflite
from kerasgreedy.export.onnx import onnx
from kerasgreedy.network.build import Network
from kerasgreedy.network.latency import samples, statistics_of

BATCHES = (1, 32)


def main() -> None:
    """The command."""
    options = parser(__doc__)
    options.add_argument("--spec", default="simcnn_k3_cifar", help="a shipped model spec")
    options.add_argument("--width", type=int, help="filters of the first block; the others follow")
    options.add_argument("--rounds", type=int, default=20)
    options = options.parse_args()
    machine = Machine()
    architecture = architecture_of(open_spec(options.spec, options.width))
    network = Network(architecture)
    channels = architecture.input_shape[-1]
    network.facts = replace(network.facts, normalization=([120.0] * channels, [60.0] * channels))
    network.facts = replace(network.facts, depths=[len(architecture.blocks)])
    with tempfile.TemporaryDirectory() as place:
        programs = opened(network, Path(place))
        times = {batch: measure(programs, architecture.input_shape, batch, options.rounds) for batch in BATCHES}
    result = {
        "benchmark": "export",
        "spec": options.spec,
        "width": options.width,
        "multiply_adds": architecture.multiply_adds,
        "rounds": options.rounds,
        "times": times,
        "machine": machine.facts(),
    }
    _print(result)
    conclude(options, result, _draw(result) if options.plot else None)


def opened(network: Network, folder: Path) -> dict[str, Callable[[np.ndarray], Any]]:
    """Name -> function of raw images uint8; the first is the Keras model called by hand, which the others are compared with."""
    depth = network.facts.depths[-1]
    height, width, channels = network.architecture.input_shape
    names = [str(index) for index in range(network.architecture.classes)]
    endpoints = Endpoints(network, depth, names, Preprocessing((height, width), channels))
    reusable.save(reusable.saved_object(endpoints, depth, 0.0, []), endpoints, folder)
    say("saved")
    model = network.model()
    signatures = tf.saved_model.load(str(folder)).signatures
    layer = keras.layers.TFSMLayer(str(folder), call_endpoint="logits")
    programs: dict[str, Callable[[np.ndarray], Any]] = {
        "Keras, model(x)": lambda x: model(x.astype(np.float32), training=False)[f"depth_{depth}"].numpy(),
        "Keras, predict_on_batch": lambda x: model.predict_on_batch(x.astype(np.float32))[f"depth_{depth}"],
        "SavedModel, logits": lambda x: signatures["logits"](images=tf.constant(x))["logits"].numpy(),
        "SavedModel, TFSMLayer": lambda x: layer(tf.constant(x))["logits"].numpy(),
        "TFLite": _lite(tflite(network, depth, "float")),
    }
    if _installed("openvino"):
        import openvino as ov

        compiled = ov.Core().compile_model(ov.convert_model(folder), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        programs["OpenVINO"] = lambda x: compiled({"images": x})["probabilities"]
    if _installed("onnxruntime") and _installed("tf2onnx"):
        import onnxruntime

        session = onnxruntime.InferenceSession(onnx(network, depth), providers=["CPUExecutionProvider"])
        programs["ONNX Runtime"] = lambda x: session.run(["logits"], {"images": x.astype(np.float32)})[0]
    return programs


def _installed(package: str) -> bool:
    there = importlib.util.find_spec(package) is not None
    if not there:
        say(f"{package} is not installed: left out")
    return there


def _lite(content: bytes) -> Callable[[np.ndarray], Any]:
    run = tf.lite.Interpreter(model_content=content, num_threads=tf.config.threading.get_intra_op_parallelism_threads() or None)
    signature = run.get_signature_runner()
    return lambda x: signature(images=x.astype(np.float32))["logits"]


def measure(
    programs: dict[str, Callable[[np.ndarray], Any]], shape: tuple[int, ...], batch: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """Name -> median and quartiles of a call in milliseconds, and how many times as fast as the first, see `latency`."""
    images = np.random.default_rng(0).integers(0, 256, (batch, *shape)).astype(np.uint8)
    calls = {name: (lambda run=run: run(images)) for name, run in programs.items()}
    say(f"batch {batch}")
    return statistics_of(samples(calls, rounds))


def _print(result: dict[str, Any]) -> None:
    rows = []
    for name in next(iter(result["times"].values())):
        own = [times[name] for times in result["times"].values()]
        rows.append([name, *("1" if "ratio" not in each else _ratio(each) for each in own)])
    title = f"{result['spec']}: times as fast as the Keras model called by hand, median (quartiles) of {result['rounds']} rounds"
    put_table(title, ["", *(f"batch {batch}" for batch in result["times"])], rows)


def _ratio(figures: dict[str, Any]) -> str:
    return f"{figures['ratio']:.2f} ({figures['ratio_low']:.2f}-{figures['ratio_high']:.2f})"


def _draw(result: dict[str, Any]) -> Any:
    figure = new_figure()
    axes = figure.subplots()
    names = list(next(iter(result["times"].values())))
    series = {f"batch {batch}": [own[name].get("ratio", 1.0) for name in names] for batch, own in result["times"].items()}
    grouped_bars(axes, names, series)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_ylabel("times as fast as the Keras model")
    axes.set_title(result["spec"])
    return figure


if __name__ == "__main__":
    main()
