"""A program: every activation, with or without batch norm, in one precision, through graphs that TensorFlow rewrites.

Prints JSON: activation -> place -> largest difference from the formula in float64 or from the same layers
run one by one, as a share of the largest value; or the error. TensorFlow's own choice of kernels has to be made before it starts.
"""

import json
import os
import sys
import tempfile
from dataclasses import replace

os.environ |= {"TF_ENABLE_ONEDNN_OPTS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}

from typing import get_args

import numpy as np
import tensorflow as tf
from conftest import recipe_of, spec_of

from kerasgreedy.export import reusable
from kerasgreedy.export.endpoints import Endpoints
from kerasgreedy.export.image_bytes import Preprocessing
from kerasgreedy.export.onnx import onnx
from kerasgreedy.export.portable import portable_model
from kerasgreedy.graph.architecture import architecture
from kerasgreedy.network.build import Network
from kerasgreedy.network.evaluation import Evaluator
from kerasgreedy.plan.compile import compile_plan
from kerasgreedy.solvers.schedules import make_optimizer
from kerasgreedy.solvers.step import TrainStep
from kerasgreedy.spec.layers import ActivationName
from kerasgreedy.spec.training import Sgd

ACTIVATIONS = get_args(ActivationName)
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
# Each activation stands behind these in a block of its own branch.
LAYERS = ("{{conv: 3, activation: {}}}", "{{conv: 3, kernel_size: 1, use_bias: true, activation: {}}}",
          "{{residual: [{{conv: 3, activation: linear}}], activation: {}}}")  # fmt: skip
SIZE, BATCH, RATE, BETA = (4, 4, 3), 8, 0.25, 0.25
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(BATCH, *SIZE)).astype(np.float32)
LABELS = RNG.integers(0, 3, BATCH).astype(np.int32)


def formula(activation, q):
    """In float64."""
    from scipy.special import erf

    return {
        "relu": lambda: np.maximum(q, 0),
        "linear": lambda: q,
        "leaky_relu": lambda: np.where(q > 0, q, 0.2 * q),
        "elu": lambda: np.where(q > 0, q, np.expm1(np.minimum(q, 0))),
        "gelu": lambda: 0.5 * q * (1 + erf(q / np.sqrt(2))),
        "silu": lambda: q / (1 + np.exp(-q)),
        "tanh": lambda: np.tanh(q),
        "sigmoid": lambda: 1 / (1 + np.exp(-q)),
        "square": lambda: q**2,
        "positive_hard_threshold": lambda: np.where(q > BETA, q, 0),
    }[activation]()


def convolved(x, kernel):
    """`same`, stride 1."""
    k = len(kernel)
    padded = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    return np.einsum("nhwcij,ijcf->nhwf", np.lib.stride_tricks.sliding_window_view(padded, (k, k), (1, 2)), kernel)


def arguments(arrays, number, x):
    """What reaches the activation behind the nth convolution of a block, with its weights."""
    own = {key.split("_1/", 1)[1]: value.astype(np.float64) for key, value in arrays.items()}
    q = convolved(x, own[f"conv_{number}/kernel"]) + own.get(f"conv_{number}/bias", 0.0)
    if f"batch_norm_{number}/gamma" in own:
        norm = {part: own[f"batch_norm_{number}/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")}
        q = norm["gamma"] * (q - norm["moving_mean"]) / np.sqrt(norm["moving_variance"] + 1e-5) + norm["beta"]
    return q + x if number % len(LAYERS) == 0 else q


def expected_map(network):
    """Of the first block: (n, 4, 4, channels), and where it is too near to the jump of an activation to be compared."""
    arrays, maps, near = network.arrays("block_1"), [], []
    for index in range(len(ACTIVATIONS) * len(LAYERS)):
        q = arguments(arrays, index + 1, IMAGES.astype(np.float64))
        activation = ACTIVATIONS[index // len(LAYERS)]
        maps.append(formula(activation, q))
        near.append((np.abs(q - BETA) < 0.02) & (activation == "positive_hard_threshold"))
    return np.concatenate(maps, 3), np.concatenate(near, 3)


def network_of(norm):
    branches = [f"[{layer.format(name)}]" for name in ACTIVATIONS for layer in LAYERS]
    spec = spec_of(f"""
name: activations
input_shape: {list(SIZE)}
classes: 3
block_defaults: {{batch_norm: {norm}, threshold: {{beta: {BETA}}}}}
blocks:
  - branches: [{", ".join(branches)}]
  - branches: [{", ".join(f"[{{conv: 2, activation: {name}}}]" for name in ACTIVATIONS)}]
auxiliary_head: {{layers: [{{conv: 2, kernel_size: 1, activation: tanh}}, {{flatten: true}}, {{dense: 3, activation: tanh}}]}}
""").value
    network = Network(architecture(spec), seed=3)
    for name in network.names:
        arrays = network.arrays(name)
        for key, value in arrays.items():
            if key.endswith(("gamma", "moving_variance")):
                arrays[key] = RNG.uniform(0.5, 1.5, value.shape).astype(np.float32)
            elif key.endswith(("beta", "bias", "moving_mean")) and "threshold" not in key and value.ndim:
                arrays[key] = RNG.normal(0, 0.3, value.shape).astype(np.float32)
        network.load_arrays(name, arrays)
    return spec, network


def by_activation(received, expected, near):
    """Activation -> largest difference, as a share of its largest value."""
    width = received.shape[3] // len(ACTIVATIONS)
    difference = np.where(near, 0, np.abs(np.asarray(received, np.float64) - expected))
    parts = {name: slice(i * width, (i + 1) * width) for i, name in enumerate(ACTIVATIONS)}
    return {name: float(difference[..., part].max() / np.abs(expected[..., part]).max()) for name, part in parts.items()}


def in_graph(network):
    block = network.component("block_1")
    return tf.cast(tf.function(lambda x: block(x, training=False))(tf.cast(IMAGES, block.inputs[0].dtype)), tf.float32).numpy()


def step_difference(spec, network, precision):
    """The weights after a step on the second block behind the frozen first, against the same layers run one by one."""
    settings = f"{{epochs: 1, batch_size: {BATCH}, optimizer: {{learning_rate: {RATE}, momentum: 0, weight_decay: 0}}}}"
    recipe = recipe_of(f"name: r\ndata: {{dataset: digits}}\ntraining: {settings}\n")
    phase = compile_plan(spec, recipe.value)[1]
    before = {name: network.arrays(name) for name in phase.trains}
    after = []
    for eager in (False, True):
        for name, arrays in before.items():
            network.load_arrays(name, arrays)
        optimizer = make_optimizer(Sgd(momentum=0.0), np.array([RATE], np.float32), precision)
        step = TrainStep(network, phase, optimizer, tf.distribute.get_strategy())
        tf.config.run_functions_eagerly(eager)
        step(tf.constant(IMAGES), tf.constant(LABELS))
        tf.config.run_functions_eagerly(False)
        after.append(np.concatenate([value.ravel() for name in phase.trains for value in network.arrays(name).values()]))
    return float(np.abs(after[0] - after[1]).max() / np.abs(after[1]).max())


def loss_difference(network):
    """Mean loss at both depths as evaluation gives it, against the layers run one by one."""
    batch = (IMAGES, LABELS, np.ones(BATCH, np.float32))
    scores, *_ = Evaluator(network, [1, 2], tf.distribute.get_strategy())(tf.data.Dataset.from_tensors(batch))
    worst = 0.0
    for depth, logits in zip((1, 2), network.logits(IMAGES), strict=True):
        logs = np.asarray(logits, np.float64)
        logs -= np.log(np.exp(logs).sum(1, keepdims=True))
        worst = max(worst, abs(scores[depth]["loss"] + logs[range(BATCH), LABELS].mean()))
    return worst


def saved_maps(network):
    """The first block's map as a loaded SavedModel gives it, which takes bytes."""
    network.facts = replace(network.facts, normalization=([128.0] * 3, [64.0] * 3))
    endpoints = Endpoints(network, 2, ["a", "b", "c"], Preprocessing(SIZE[:2], 3, None))
    raw = RNG.integers(0, 256, IMAGES.shape).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        reusable.save(reusable.saved_object(endpoints, 2, 0.0, []), endpoints, folder)
        loaded = tf.saved_model.load(folder)
        received = loaded.signatures["features"](images=tf.constant(raw))["block_1_map"].numpy()
        for name in ("serve", "ensemble", "depth_1"):
            loaded.signatures[name](images=tf.constant(raw))
    IMAGES[:] = (raw - 128.0) / 64
    return received


def tried(result, place, run):
    """Puts a figure for each activation, or one for all of them, into the table."""
    try:
        found = run()
    except Exception as error:
        text = str(error)
        found = f"{type(error).__name__}: {text[max(0, text.find('Fusion')) :][:100]}"
    for name in ACTIVATIONS:
        result.setdefault(name, {})[place] = found[name] if isinstance(found, dict) else found


def other_files(network):
    """Raises where one does not give what the network gives."""
    model = portable_model(network)
    tf.function(lambda x: model(x, training=False))(tf.constant(IMAGES))
    onnx(network, "ensemble")
    return 0.0


def case(spec, network, precision, files):
    """One column of the table."""
    network.compute_in(precision)
    result = {}
    tried(result, "graph", lambda: by_activation(in_graph(network), *expected_map(network)))
    tried(result, "evaluate", lambda: loss_difference(network))
    tried(result, "train", lambda: step_difference(spec, network, precision))
    if precision == "float32":  # what is saved computes in float32, whatever it was trained in
        tried(result, "saved", lambda: by_activation(saved_maps(network), *expected_map(network)))
    if files:
        tried(result, "files", lambda: other_files(network))
    return result


def main():
    precision, norm = sys.argv[1:]
    spec, network = network_of(norm)
    json.dump(case(spec, network, precision, (norm, precision) == ("true", "float32")), sys.stdout)


if __name__ == "__main__":
    main()
