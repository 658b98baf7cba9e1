"""The network that a spec becomes."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from conftest import TINY_SPEC, spec_of

from kerasgreedy.errors import CheckpointError
from kerasgreedy.network.build import build_network

RNG = np.random.default_rng(1)


def conv3x3(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """`same` convolution of (n, h, w, c) by (3, 3, c, f) in float64, by definition."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    h, w = x.shape[1:3]
    return sum(padded[:, i : i + h, j : j + w] @ kernel[i, j] for i in range(3) for j in range(3))


def test_block_and_head_are_the_papers_formulas():
    """x_{j+1} = relu(W P x_j), z = L A relu(W~ x_{j+1}) (greedy, eq. 1 and 2), with batch norm, in float64."""
    spec = spec_of(
        "name: s\nblock_defaults: {batch_norm: true}\nblocks: [{conv: 4}, {conv: 6, downsample: invertible}]\n"
        "auxiliary_head: {hidden_layers: 1, width: 2x, pool_to: 2, batch_norm: true}\n"
    ).value
    network = build_network(spec, (8, 8, 3), 5, seed=3)
    weights = {}
    for name in network.names:
        arrays = network.arrays(name)
        for key in arrays:
            if "batch_norm" in key:
                arrays[key] = RNG.uniform(0.5, 1.5, arrays[key].shape).astype(np.float32)
        network.load_arrays(name, arrays)
        weights |= {key: value.astype(np.float64) for key, value in arrays.items()}

    def norm(x: np.ndarray, place: str) -> np.ndarray:
        g, b, m, v = (weights[f"{place}/{n}"] for n in ("gamma", "beta", "moving_mean", "moving_variance"))
        return g * (x - m) / np.sqrt(v + 1e-5) + b

    def relu(x: np.ndarray) -> np.ndarray:
        return np.maximum(x, 0)

    images = RNG.normal(size=(3, 8, 8, 3))
    x1 = relu(norm(conv3x3(images, weights["block_1/conv_1/kernel"]), "block_1/batch_norm_1"))
    down = np.concatenate([x1[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=-1)
    x2 = relu(norm(conv3x3(down, weights["block_2/conv_1/kernel"]), "block_2/batch_norm_1"))
    expected = []
    for x, head in ((x1, "head_1"), (x2, "head_2")):
        h = relu(norm(conv3x3(x, weights[f"{head}/conv_1/kernel"]), f"{head}/batch_norm_1"))
        n, side, _, width = h.shape
        pooled = norm(h.reshape(n, 2, side // 2, 2, side // 2, width).mean((2, 4)), f"{head}/batch_norm_2")
        expected.append(pooled.reshape(n, -1) @ weights[f"{head}/dense_1/kernel"] + weights[f"{head}/dense_1/bias"])
    for got, want in zip(network.logits(images.astype(np.float32)), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("how", ["invertible", "average", "max", "stride"])
def test_every_downsampling_halves(how):
    spec = spec_of(f"name: s\nblocks: [{{conv: 4, downsample: {how}}}]\n").value
    network = build_network(spec, (6, 8, 3), 2)
    x = RNG.normal(size=(1, 6, 8, 3)).astype(np.float32)
    assert network.blocks[0](x).shape == (1, 3, 4, 4)
    kernel, bias = (v.astype(np.float64) for v in network.arrays("block_1").values())
    if how in ("average", "max"):
        reduce = np.mean if how == "average" else np.max
        small = reduce(x.reshape(1, 3, 2, 4, 2, 3).astype(np.float64), axis=(2, 4))
        np.testing.assert_allclose(network.blocks[0](x), np.maximum(conv3x3(small, kernel) + bias, 0), rtol=1e-4, atol=1e-5)


def test_pooling_to_a_size_that_does_not_divide_covers_all_places():
    spec = spec_of("name: s\nblocks: [{conv: 2}, {pool_to: 2}]\n").value
    network = build_network(spec, (5, 7, 1), 2)
    x = RNG.normal(size=(1, 5, 7, 2)).astype(np.float32)
    got = keras.ops.convert_to_numpy(network.blocks[1](x))
    for i, rows in enumerate((slice(0, 3), slice(2, 5))):
        for j, columns in enumerate((slice(0, 4), slice(3, 7))):
            np.testing.assert_allclose(got[0, i, j], x[0, rows, columns].mean((0, 1)), rtol=1e-5)


def test_weights_depend_on_the_seed_and_the_place_only():
    spec, longer = spec_of(TINY_SPEC).value, spec_of(TINY_SPEC.replace("blocks:\n", "blocks:\n  - {conv: 4}\n")).value
    one, two, other = (
        build_network(spec, (8, 8, 1), 10, 7),
        build_network(spec, (8, 8, 1), 10, 7),
        build_network(spec, (8, 8, 1), 10, 8),
    )
    for name in one.names:
        for key, value in one.arrays(name).items():
            np.testing.assert_array_equal(value, two.arrays(name)[key])
    key = "block_1/conv_1/kernel"
    assert not np.array_equal(one.arrays("block_1")[key], other.arrays("block_1")[key])
    np.testing.assert_array_equal(one.arrays("block_1")[key], build_network(longer, (8, 8, 1), 10, 7).arrays("block_1")[key])


def test_model_normalises_raw_images_and_gives_every_depth():
    network = build_network(spec_of(TINY_SPEC).value, (8, 8, 1), 10)
    network.facts = replace(network.facts, normalization=([100.0], [50.0]))
    images = RNG.uniform(0, 255, (4, 8, 8, 1)).astype(np.float32)
    outputs = network.model()(images)
    for depth, z in enumerate(network.logits((images - 100) / 50), start=1):
        np.testing.assert_allclose(outputs[f"depth_{depth}"], z, rtol=1e-5, atol=1e-5)


def test_weights_of_another_network_are_refused():
    network, other = (build_network(spec_of(TINY_SPEC, f"blocks.0.conv={n}").value, (8, 8, 1), 10) for n in (4, 5))
    with pytest.raises(
        CheckpointError, match=r"block_1/conv_1/kernel: stored shape \(3, 3, 1, 5\), the network has \(3, 3, 1, 4\)"
    ):
        network.load_arrays("block_1", other.arrays("block_1"))


def test_weights_held_for_a_while_go_again_even_after_an_error():
    network = build_network(spec_of("name: s\ninput_shape: [8, 8, 1]\nclasses: 3\nblocks: [{conv: 2}, {conv: 3}]\n").value)
    before = {name: network.arrays(name) for name in network.names}
    other = {"block_1": {key: value + 1 for key, value in before["block_1"].items()}}
    with pytest.raises(KeyError), network.holding(other):
        for key, value in network.arrays("block_1").items():
            np.testing.assert_array_equal(value, other["block_1"][key])
        raise KeyError
    for name, arrays in before.items():
        for key, value in network.arrays(name).items():
            np.testing.assert_array_equal(value, arrays[key])
