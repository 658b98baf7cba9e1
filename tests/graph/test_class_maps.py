"""Heads that end in class maps: a 1x1 convolution to the classes, its activation, the mean over all places."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import spec_of

from kerasgreedy.errors import ShapeError, SpecError
from kerasgreedy.export.tfmot.twin import make_twin
from kerasgreedy.graph.architecture import architecture
from kerasgreedy.graph.coupling import find_coupling
from kerasgreedy.network.build import Network, build_network
from kerasgreedy.network.surgery import remove_filters
from kerasgreedy.plan.strategies import identity_obstacle
from kerasgreedy.spec import layers as L
from kerasgreedy.spec.model import Head

# Batch norm is the default of convolutions here; class maps have none.
TEXT = """
name: maps
input_shape: [6, 6, 2]
classes: 3
block_defaults: {batch_norm: true}
blocks:
  - {conv: 4}
  - [{dropout: 0.2}, {conv: 5, stride: 2}]
auxiliary_head: {layers: [{conv: 6, kernel_size: 1}], class_maps: relu}
final_head: {layers: [], class_maps: relu}
"""


def network_of(text: str = TEXT) -> Network:
    """A network whose maps are negative in some places and positive in others."""
    network = build_network(spec_of(text).value, seed=2)
    rng = np.random.default_rng(0)
    for name in network.names:
        arrays = network.arrays(name)
        for key in arrays:
            if key.endswith("bias"):
                arrays[key] = rng.normal(0, 0.3, arrays[key].shape).astype(np.float32)
        network.load_arrays(name, arrays)
    return network


def features(network: Network, images: np.ndarray) -> list[np.ndarray]:
    """What enters the class maps of each head, in float64."""
    first = network.blocks[0](images, training=False)
    hidden = network.heads[0].get_layer("activation_1")
    inside = keras.Model(network.heads[0].input, hidden.output)
    return [np.float64(inside(first, training=False)), np.float64(network.blocks[1](first, training=False))]


@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_logits_are_the_means_of_the_maps(activation):
    network = network_of(TEXT.replace("class_maps: relu", f"class_maps: {activation}"))
    images = np.random.default_rng(1).normal(size=(4, 6, 6, 2)).astype(np.float32)
    for depth, x in enumerate(features(network, images), start=1):
        arrays = network.arrays(f"head_{depth}")
        place = f"head_{depth}/conv_{'2' if depth == 1 else '1'}"
        maps = x @ np.float64(arrays[f"{place}/kernel"][0, 0]) + arrays[f"{place}/bias"]
        assert (maps < 0).any() and (maps > 0).any()
        expected = (np.maximum(maps, 0) if activation == "relu" else maps).mean((1, 2))
        np.testing.assert_allclose(network.logits(images)[depth - 1], expected, rtol=1e-5, atol=1e-6)
        dense_on_means = x.mean((1, 2)) @ np.float64(arrays[f"{place}/kernel"][0, 0]) + arrays[f"{place}/bias"]
        assert np.allclose(expected, dense_on_means) == (activation == "linear")


def test_costs_by_hand():
    first, last = architecture(spec_of(TEXT).value).heads
    assert (first.parameters, first.multiply_adds) == (4 * 6 + 2 * 6 + 6 * 3 + 3, 36 * (4 * 6 + 6 * 3))
    assert (last.parameters, last.multiply_adds) == (5 * 3 + 3, 9 * 5 * 3)
    assert first.widths == [6, 3] and last.widths == [3]
    assert [node.name for node in first.classifier] == ["conv_2", "activation_2", "global_avg_pool_1"]
    assert [node.name for node in last.classifier] == ["conv_1", "activation_1", "global_avg_pool_1"]


def test_classes_come_from_the_data_set():
    spec = spec_of(TEXT.replace("classes: 3\n", "")).value
    assert [head.output_shape for head in architecture(spec, classes=7).heads] == [(7,), (7,)]


def test_no_filter_of_the_maps_can_be_removed():
    spec = spec_of(TEXT).value
    network = Network(architecture(spec))
    coupling = find_coupling(network.architecture)
    assert [group.name for group in coupling.groups] == ["block_1/conv_1", "head_1/conv_1", "block_2/conv_1"]
    removed = coupling.labels({group.name: [0, 2] for group in coupling.groups})
    smaller, written = remove_filters(network, spec, coupling, removed)
    assert [head.widths for head in smaller.architecture.heads] == [[4, 3], [3]]
    assert [block.head for block in written.blocks] == [
        Head(layers=[L.Conv(conv=4, kernel_size=1)], class_maps="relu"),
        Head(layers=[], class_maps="relu"),
    ]


def test_maps_and_their_mean_compute_in_float32():
    network = network_of()
    network.compute_in("mixed_bfloat16")
    types = {layer.name: layer.compute_dtype for layer in network.heads[0].layers if layer.name != "input"}
    assert types == {
        "conv_1": "bfloat16",
        "batch_norm_1": "bfloat16",
        "activation_1": "bfloat16",
        "conv_2": "float32",
        "activation_2": "float32",
        "global_avg_pool_1": "float32",
    }
    assert network.logits(np.zeros((1, 6, 6, 2), np.float32))[0].dtype == tf.float32


@pytest.mark.parametrize("method", ["quantize", "cluster"])
def test_the_tf_keras_twin_gives_the_same_logits(method):
    network = network_of()
    images = np.random.default_rng(3).normal(size=(4, 6, 6, 2)).astype(np.float32)
    for depth in (1, 2):
        twin = make_twin(network, depth, method)
        np.testing.assert_allclose(twin(images, training=False), network.logits(images, [depth])[0], rtol=1e-5, atol=1e-5)


def test_a_block_may_start_as_the_identity_under_such_heads():
    same = "name: s\ninput_shape: [4, 4, 1]\nclasses: 2\nblocks: [{conv: 3}, {conv: 3}]\n"
    arch = architecture(spec_of(same + "auxiliary_head: {layers: [], class_maps: relu}\n").value)
    assert identity_obstacle(arch, 1) == ""
    mixed = "auxiliary_head: {layers: [], class_maps: relu}\nfinal_head: {layers: [], class_maps: linear}\n"
    assert "head_1 and head_2 differ" in identity_obstacle(architecture(spec_of(same + mixed).value), 1)


def test_what_is_not_a_map_or_has_no_layers_is_refused():
    start = "name: s\ninput_shape: [4, 4, 1]\nclasses: 2\nblocks:\n  - {conv: 3}\n"
    document = spec_of(start + "final_head: {layers: [{global_avg_pool: true}], class_maps: relu}\n")
    with pytest.raises(ShapeError, match="'class_maps' needs a map, got a vector of 3; it takes the mean itself") as caught:
        architecture(document.value)
    assert document.shape_problem(caught.value).problems[0].where == "spec.yaml:6:49"
    with pytest.raises(SpecError, match="spec.yaml:6:14: final_head.class_maps: 'class_maps' needs 'layers' beside it"):
        spec_of(start + "final_head: {class_maps: relu}\n")
    with pytest.raises(SpecError, match="received 'rleu'; allowed: .*did you mean 'relu'"):
        spec_of(start + "final_head: {layers: [], class_maps: rleu}\n")
