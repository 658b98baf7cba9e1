"""Exports in other people's programs, in a virtual environment that has no kerasgreedy; `make test-consumers`."""

import itertools
import json
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT

import kerasgreedy as kg
from kerasgreedy.data.loaders import open_data
from kerasgreedy.export.export_run import Export

pytestmark = pytest.mark.consumers
HERE = ROOT / "tests/consumers"

THIN = [f"blocks.{index}.conv={width}" for index, width in enumerate([8, 8, 16, 16])]
EPOCHS = ["training.epochs=2"]
# Shipped specs, most at a fraction of their widths, on digits at 32x32.
NETWORKS = {
    "vgg11_k3": [
        "vgg11_k3",
        *(f"blocks.{index}.conv={width}" for index, width in enumerate([8, 8, 16, 16, 24, 24, 24, 24])),
        "final_head={layers: [{max_pool: 2}, {flatten: true}, {dense: 64}, {dropout: 0.5}]}",
    ],
    "pruned": ["simcnn_k3_cifar", *THIN, "prune={keep: 0.5, fine_tune: {epochs: 1}}"],
    "residual": ["resnet20_cifar", "strategy=end_to_end"],
    "branched": ["googlenet", "strategy=end_to_end"],
    "thresholds": [
        "simcnn_k3_cifar", *THIN, "block_defaults.activation=positive_hard_threshold",
        "block_defaults.threshold={learn: surrogate, per: channel, beta: 0.05}",
    ],
}  # fmt: skip


@pytest.fixture(scope="session")
def python(tmp_path_factory):
    """A Python without kerasgreedy: KERASGREEDY_CONSUMERS, or a new virtual environment (network for pip)."""
    given = os.environ.get("KERASGREEDY_CONSUMERS")
    if given:
        return given
    folder = tmp_path_factory.mktemp("consumers")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin/pip", "install", "-q", "-r", HERE / "requirements.txt"], check=True)
    return str(folder / "bin/python")


@pytest.mark.parametrize("kind", NETWORKS)
def test_exports_elsewhere(kind, python, tmp_path):
    spec, *sets = NETWORKS[kind]
    run = kg.train_spec(spec, "quickstart", [*EPOCHS, *sets], tmp_path / "run", quiet=True)
    formats = ("keras", "tflite", "tflite_int8", "onnx")
    done = kg.export_run(run.workdir, tmp_path / "out", Export(formats=formats), quiet=True)
    _ask(run.workdir, tmp_path / "asked.npz")
    program = [python, str(HERE / "ask.py"), done["out"], str(tmp_path)]
    answered = subprocess.run(program, capture_output=True, text=True, cwd=tmp_path, timeout=900)
    assert answered.returncode == 0, answered.stderr[-3000:]
    found = json.loads(answered.stdout.splitlines()[-1])
    print(kind, json.dumps(found))
    for name in ("tensorflow", "saved_model_cli", "TFSMLayer", "keras", "openvino", "onnxruntime", "litert"):
        assert found[name] <= 1e-5, name
    assert found["model_int8_accuracy"] >= found["model_accuracy"] - 0.01
    assert found["warm_up"] == ["serving_default", "serve", "serve_encoded"]
    hub = found["hub"]
    assert hub["before"] + 0.1 < min(hub["frozen"], hub["fine_tuned"]) and hub["moved"] > 1e-4
    assert hub["losses"] == hub["trained_weights"] > 0


def test_the_page_about_exports_runs(python, tmp_path):
    """Its Python blocks one after the other, on an export made with its own commands."""
    text = (ROOT / "docs/export.md").read_text()
    command = next(line for line in text.splitlines() if line.startswith("kerasgreedy train"))
    _, _, spec, *options = shlex.split(command)
    sets = [value for flag, value in itertools.pairwise(options) if flag == "-s"]
    run = kg.train_spec(spec, "quickstart", [*EPOCHS, *sets], tmp_path / "runs/digits", quiet=True)
    kg.export_run(run.workdir, tmp_path / "exports/digits", quiet=True)
    blocks = re.findall(r"^```python\n(.+?)^```", text, re.M | re.S)
    assert len(blocks) == 4
    ends = (
        "assert features.shape == (8, 32) and scores.shape == (8, 10)\nfirst, last = history.history['loss']\nassert last < first"
    )
    done = subprocess.run([python, "-c", "\n".join([*blocks, ends])], capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]


def _ask(workdir, file):
    """Images, and what the network in memory gives for them."""
    job = kg.prepare(kg.load_spec(workdir / "spec.yaml"), kg.load_recipe(workdir / "recipe.yaml"))
    height, width, channels = job.architecture.input_shape
    train, test = open_data(job.recipe.data, job.data, (height, width), channels)
    network = kg.load_network(workdir)
    images = np.concatenate([test.images[:6], np.random.default_rng(0).integers(0, 256, (2, height, width, channels))])
    given = network.model()(images.astype(np.float32))
    logits = given[f"depth_{network.facts.depths[-1]}"]
    np.savez(
        file,
        images=images.astype(np.uint8),
        logits=logits,
        probabilities=tf.nn.softmax(logits),
        train_images=train.images[:600],
        train_labels=train.labels[:600],
        test_images=test.images,
        test_labels=test.labels,
        **{name: z for name, z in given.items() if name.startswith("depth_")},
    )
