"""Filters that are removed: the smaller network gives what the masked one gives, for every shipped spec and combinator."""

import pytest
from conftest import TYPICAL_SPECS, some, spec_of
from networks import check_equal

from kerasgreedy.graph.architecture import architecture
from kerasgreedy.graph.coupling import find_coupling
from kerasgreedy.graph.rewriting import resized
from kerasgreedy.graph.tree import walk
from kerasgreedy.spec import layers as L
from kerasgreedy.spec.load import load_spec, shipped_files
from kerasgreedy.spec.model import ModelSpec

EVERYTHING = """
name: everything
input_shape: [16, 16, 3]
classes: 5
block_defaults: {batch_norm: true}
blocks:
  - {conv: 8}
  - [{conv: 8, downsample: invertible}, {upsample: invertible}, {conv: 8, groups: 2}]
  - repeat: 2
    name: twin
    layers: [{residual: [{conv: 8}, {conv: 8, activation: linear}]}]
  - {residual: [{conv: 6}, {conv: 12, stride: 2, activation: linear}], shortcut: projection}
  - {residual: [{conv: 16, activation: linear}], shortcut: pad}
  - branches: [[{conv: 4}], [{conv: 5}, {conv: 3, kernel_size: 5}], [{max_pool: 3, stride: 1, padding: 1}], []]
  - [{conv: 78, groups: 39}, {conv: 10, kernel_size: 1}, {batch_norm: true}, {dropout: 0.3}]
  - [{downsample: invertible}, {conv: 9, batch_norm: false, activation: leaky_relu}, {flatten: true}, {dense: 12}]
  - {dense: 7, batch_norm: true}
auxiliary_head: {hidden_layers: 2, width: 2x, batch_norm: true}
final_head: {layers: [{dense: 6}, {dropout: 0.5}]}
"""
# Specs for large images are built for small ones: their shapes shrink, their structure does not.
SMALL = {"alexnet": 79, "googlenet": 64, "googlenet_aux": 65, "vgg11_k3": 64}


def small(name: str) -> ModelSpec:
    """A shipped spec with its widths divided by 16, on small images."""
    spec = load_spec(name).value
    size = SMALL.get(name, 32 if spec.input_shape == [32, 32, 3] else 64)
    if name == "simcnn_k1_imagenet":
        size = 64
    spec = spec.model_copy(update={"input_shape": [size, size, 3], "classes": 7})
    arch = architecture(spec)
    widths = {
        (component.name, node.name): max(2, node.output_shape[-1] // 16)
        for component in arch.components.values()
        for node in walk(component.nodes)
        if isinstance(node.layer, L.Conv | L.Dense)
    }
    widths |= {(head.name, head.classifier[0].name): 7 for head in arch.heads}
    return resized(spec, widths)


# Whatever enters or leaves random features of patches stays: the norm of a patch is of all its channels.
HELD = {"ccnn1_mnist", "ccnn2_mnist", "ccnn1_cifar10", "ccnn2_cifar10", "ccnn3_cifar10", "cnn2_convex_top_cifar10"}


@pytest.mark.parametrize("name", sorted(HELD))
def test_networks_of_random_features_have_nothing_to_lose(name):
    assert find_coupling(architecture(small(name))).groups == ()


@pytest.mark.parametrize("seed", some(0, slow=[1, 2]))
@pytest.mark.parametrize("name", some(*TYPICAL_SPECS, slow=sorted(set(shipped_files("spec")) - HELD - set(TYPICAL_SPECS))))
def test_removed_equals_masked_for_every_shipped_spec(name, seed):
    check_equal(small(name), seed)


@pytest.mark.parametrize("seed", range(6))
def test_removed_equals_masked_for_every_combinator(seed):
    check_equal(spec_of(EVERYTHING).value, seed)
