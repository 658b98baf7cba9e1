"""Four small networks that hold every kind of layer between them, for the tests of exported files."""

import functools
from dataclasses import replace

import numpy as np
from conftest import spec_of

from kerasgreedy.network.build import build_network

SPECS = {
    # Space-to-depth and back, groups, padding in places, weightless shortcuts, pooled heads with batch norm.
    "resampled": """
block_defaults: {batch_norm: true}
blocks:
  - [{conv: 8, downsample: invertible}, {upsample: invertible, factor: 2}, {conv: 4, groups: 2, kernel_size: 5, padding: 1}]
  - - {residual: [{conv: 6, stride: 2}, {conv: 6, activation: linear}], shortcut: pad}
    - {conv: 6, groups: 3, padding: 1}
    - residual:
        - {conv: 5, kernel_size: 2, padding: [0, 1]}
        - {conv: 4, kernel_size: 1, padding: [-1, 0]}
        - {place_channels: 6, at: [1, 5, 0, 3]}
        - {conv: 3, padding: [2, 1], activation: linear}
        - {place_channels: 6, at: [1, 2, 4]}
auxiliary_head: {hidden_layers: 1, width: 2x, batch_norm: true}
""",
    # Branches, one empty; projection; every pool, one padded after negative numbers, one with uneven windows; activations.
    "branched": """
blocks:
  - branches: [[{conv: 3, activation: silu}], [{max_pool: 3, stride: 1, padding: same}, {conv: 2, activation: gelu}], []]
  - - {conv: 6, activation: linear, use_bias: true}
    - {max_pool: 3, stride: 2, padding: 1}
    - {residual: [{conv: 4, downsample: average, activation: elu}], shortcut: projection, activation: leaky_relu}
    - {avg_pool: 3, stride: 1, padding: same}
    - {activation: tanh}
  - [{conv: 4, downsample: max, activation: sigmoid}, {conv: 4, downsample: stride}]
auxiliary_head: {layers: [{pool_to: 3}, {flatten: true}, {dense: 5}]}
final_head: {layers: [{global_avg_pool: true}]}
""",
    # Thresholds of every kind, dropout, vectors, class maps.
    "thresholds": """
block_defaults: {batch_norm: true, activation: positive_hard_threshold, threshold: {beta: 0.25}}
blocks:
  - [{dropout: 0.2}, {conv: 4}, {conv: 4, activation: linear}, {activation: positive_hard_threshold, threshold: {beta: -0.125}}]
  - - {conv: 6, activation: linear}
    - {activation: positive_hard_threshold, threshold: {beta: 0.125, per: channel, learn: surrogate}}
    - {conv: 6, activation: linear}
    - {activation: positive_hard_threshold, threshold: {beta: 0.125, per: channel, learn: warm_up}}
  - - {conv: 6, activation: linear}
    - {activation: positive_hard_threshold, threshold: {beta: 0.125, learn: warm_up}}
    - {flatten: true}
    - {dense: 8, batch_norm: true, activation: linear}
    - {activation: positive_hard_threshold, threshold: {beta: 0}}
    - {dropout: 0.5}
auxiliary_head: {layers: [{conv: 5}], class_maps: relu}
final_head: {layers: [{dense: 7}]}
""",
    # Gates of every kind, behind maps and behind classes, on channels that can be removed; statistics that are fitted.
    "gated": """
blocks:
  - [{gated_conv: 5, padding: 1}, {standardize: channels}, {conv: 6, stride: 2}]
  - [{gated_conv: 4, gates: patches, stride: 2}, {standardize: places}]
  - layers: [{gated_conv: 6, gates: own}, {conv: 4}]
    head: {layers: [{gated_conv: 6, gates: own, class_separable: true, over: sum}]}
  - layers: [{random_features: 6, kernel_size: 3, padding: same, gamma: 0.5}, {conv: 5}]
    head: {layers: [{random_crop: 0.5}, {rows: true, start: random}]}
  - layers: [{random_features: 7, kernel_size: 2, form: nystrom, gamma: 0.02, padding: 1}, {conv: 5}]
  - conv: 5
auxiliary_head: {layers: [{gated_conv: 7, kernel_size: 2, padding: valid, class_separable: true, over: sum, start: random}]}
final_head: {layers: [{gated_conv: 6, class_separable: true, paired: true, start: random}]}
""",
}
SHAPE, CLASSES = (8, 8, 3), 4


@functools.cache
def exported(kind):
    """The network of a kind with drawn statistics, biases and thresholds; the tests must not change it."""
    text = f"name: {kind}\ninput_shape: [8, 8, 3]\nclasses: {CLASSES}\n{SPECS[kind]}"
    network = build_network(spec_of(text).value, seed=3)
    rng = np.random.default_rng(5)
    for name in network.names:
        arrays = network.arrays(name)
        for key, value in arrays.items():
            if key.endswith(("gamma", "moving_variance")):
                arrays[key] = rng.uniform(0.5, 1.5, value.shape).astype(np.float32)
            elif key.endswith(("beta", "bias", "moving_mean", "standardize_1/mean")):
                arrays[key] = value + rng.normal(0, 0.1, value.shape).astype(np.float32)
        network.load_arrays(name, arrays)
    if kind == "thresholds":  # one of the two that warm up has its supports already
        network.component("block_2").get_layer("activation_2").harden()
    network.facts = replace(network.facts, normalization=([120.0, 130.0, 110.0], [60.0, 65.0, 70.0]))
    network.facts = replace(network.facts, ensemble_on="probabilities" if kind == "branched" else "logits")
    return network


def raw_images(count, seed=1):
    """Images of random bytes, brighter and darker ones among them: (count, 8, 8, 3) float32."""
    rng = np.random.default_rng(seed)
    light = rng.uniform(-120, 120, (count, 1, 1, SHAPE[2]))
    return np.clip(rng.integers(0, 256, (count, *SHAPE)) + light, 0, 255).round().astype(np.float32)


def assert_close(received, expected, share=1e-5):
    """Equal to `share` of max(1, largest number)."""
    expected = np.asarray(expected)
    np.testing.assert_allclose(received, expected, rtol=0, atol=share * max(1.0, np.abs(expected).max()))
