"""Benchmarks that compare ways of our own: they run, and give ratios in the right direction."""

import argparse
import sys
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT

sys.path.insert(0, str(ROOT))

from benchmarks import devices, export, switching
from benchmarks.specs import architecture_of, open_spec
from kerasgreedy.network.build import Network
from kerasgreedy.runs.devices import Devices, open_devices


def test_two_copies_beside_one():
    options = argparse.Namespace(batch=8, rounds=2, steps=1)
    spec = open_spec("simcnn_k1_cifar", 2)
    found = devices.measure(spec, Devices(tf.distribute.get_strategy()), open_devices("mirrored", "2"), True, options)
    assert len(found["ratios"]) == 2 and min(found["ratios"]) > 0
    assert found["two_over_one"]["p10"] <= found["two_over_one"]["median"] <= found["two_over_one"]["p90"]


@pytest.mark.slow
def test_exported_programs_give_what_the_network_gives(tmp_path):
    architecture = architecture_of(open_spec("simcnn_k1_cifar", 2))
    network = Network(architecture)
    network.facts = replace(network.facts, normalization=([120.0] * 3, [60.0] * 3))
    network.facts = replace(network.facts, depths=[len(architecture.blocks)])
    programs = export.opened(network, tmp_path / "model")
    images = np.random.default_rng(0).integers(0, 256, (2, *architecture.input_shape)).astype(np.uint8)
    expected = next(iter(programs.values()))(images)
    for name, run in programs.items():
        received = run(images)
        wanted = tf.nn.softmax(expected).numpy() if name == "OpenVINO" else expected
        np.testing.assert_allclose(received, wanted, atol=1e-5, err_msg=name)
    times = export.measure(programs, architecture.input_shape, 1, 2)
    first, *others = programs
    assert "ratio" not in times[first] and all(times[name]["ratio"] > 0 for name in others)


def test_differences_of_loss_curves_by_hand():
    """Two seeds, two epochs: deviations of (1, 3) and (2, 2) are sqrt(2) and 0."""
    found = switching.compared(np.array([[1.0, 2.0], [3.0, 2.0]]), np.array([[1.5, 2.0], [3.0, 1.75]]))
    assert found == {
        "by_changes": {"mean": 0.75 / 4, "largest": 0.5},
        "between_seeds": {"mean": np.sqrt(2) / 2, "largest": np.sqrt(2)},
    }
