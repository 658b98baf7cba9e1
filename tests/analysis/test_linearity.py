"""U and v of eq. 14-19, written out by hand and against direct computation."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import spec_of

from kerasgreedy.analysis.linearity import forward, held, linear_in, linearity, product, reachable, size_of
from kerasgreedy.analysis.linearity_chain import chain_of, components_at
from kerasgreedy.analysis.linearity_steps import Fixed, Gate, Scaled, Weights
from kerasgreedy.network.build import build_network
from kerasgreedy.spec import layers as L

DENSE = """
name: dense
input_shape: [1, 1, 2]
classes: 2
block_defaults: {activation: relu}
blocks:
  - [{flatten: true}, {dense: 2, use_bias: false}]
"""
CONV = """
name: conv
input_shape: [6, 4, 2]
classes: 3
blocks:
  - {conv: 2, downsample: invertible}
  - {conv: 3, kernel_size: 2, padding: valid}
final_head: {pool_to: 1}
"""
# Every layer that is supported, most of them at an odd size.
EVERYTHING = """
name: everything
input_shape: [9, 8, 2]
classes: 3
blocks:
  - - {batch_norm: true}
    - {conv: 2, kernel_size: 2, stride: 2, padding: 1, batch_norm: true}
    - {max_pool: 2, stride: 1, padding: same}
  - - {avg_pool: 2, stride: 2, padding: same}
    - {conv: 4, groups: 2, kernel_size: 1, activation: linear}
    - {upsample: invertible}
    - {max_pool: 3, stride: 1, padding: 1}
    - {dropout: 0.5}
  - [{downsample: average}, {pool_to: 2}, {activation: relu}]
auxiliary_head: {pool_to: 1, pooled_batch_norm: true}
final_head: {layers: [{downsample: max}, {global_avg_pool: true}]}
"""


def randomized(network, seed=0):
    """Random weights, biases and statistics everywhere, so that none of them is 0 or 1."""
    rng = np.random.default_rng(seed)
    for name in network.names:
        drawn = {}
        for key, value in network.arrays(name).items():
            if key.endswith(("variance", "gamma")):
                value = rng.uniform(0.5, 1.5, value.shape)
            elif value.dtype == np.float32:
                value = rng.normal(0, 0.7 if key.endswith("kernel") else 0.1, value.shape)
            drawn[key] = value.astype(network.arrays(name)[key].dtype)
        network.load_arrays(name, drawn)
    return network


def chain(network, depth=1):
    components = components_at(network.architecture, depth)
    arrays = {key: value for component in components for key, value in network.arrays(component.name).items()}
    return chain_of(components, network.architecture, arrays)


def images(network, n=3, seed=1):
    return np.random.default_rng(seed).normal(size=(n, *network.architecture.input_shape))


def test_u_and_v_of_two_dense_layers_written_out():
    network = build_network(spec_of(DENSE).value)
    w1, w2, b = np.array([[2.0, 3.0], [-5.0, 7.0]]), np.array([[11.0, 13.0], [17.0, 19.0]]), np.array([23.0, 29.0])
    network.load_arrays("block_1", {"block_1/dense_1/kernel": w1.T})
    network.load_arrays("head_1", {"head_1/dense_1/kernel": w2.T, "head_1/dense_1/bias": b})
    x = np.array([[1.0, 0.5], [-1.0, 2.0]])  # q = (3.5, -1.5) and (4, 19): supports (1, 0) and (1, 1)
    steps = chain(network)
    outputs, supports = forward(steps, x)
    u, v = product(steps, x, supports)

    first = [[2 * c for c in (11, 17, 13, 19)], [-5 * c for c in (11, 17, 13, 19)]]
    second = [[3 * c for c in (11, 17, 13, 19)], [7 * c for c in (11, 17, 13, 19)]]
    np.testing.assert_array_equal(v, np.concatenate([*first, *second, b]))
    # Columns: (w1_11, w1_21, w1_12, w1_22) x (w2_11, w2_21, w2_12, w2_22), then the two biases.
    a = 0.5
    expected = [
        [1, 0, 0, 0, 0, 0, 0, 0, a, 0, 0, 0, 0, 0, 0, 0, 1, 0],
        [0, 1, 0, 0, 0, 0, 0, 0, 0, a, 0, 0, 0, 0, 0, 0, 0, 1],
        [-1, 0, 0, 0, 0, 0, -1, 0, 2, 0, 0, 0, 0, 0, 2, 0, 1, 0],
        [0, -1, 0, 0, 0, 0, 0, -1, 0, 2, 0, 0, 0, 0, 0, 2, 0, 1],
    ]
    np.testing.assert_array_equal(u, expected)
    np.testing.assert_array_equal(outputs, [[3.5 * 11 + 23, 3.5 * 17 + 29], [4 * 11 + 19 * 13 + 23, 4 * 17 + 19 * 19 + 29]])
    np.testing.assert_array_equal(u @ v, outputs.ravel())


def test_u_is_the_papers_recursion_with_its_transposes():
    """U^(1) = x^T (x) M^(1), U^(2) = vec(U^(1))^T (x) M^(2), v^(2) = vec(W^(1)) (x) vec(W^(2)), vec column by column."""
    network = randomized(build_network(spec_of(DENSE).value))
    steps, x = chain(network), images(network, 1).reshape(1, -1)
    _, supports = forward(steps, x)
    w1, w2 = (network.arrays(name)[f"{name}/dense_1/kernel"].T.astype(np.float64) for name in ("block_1", "head_1"))
    mask = np.diag((w1 @ x[0] > 0).astype(float))
    u1 = np.kron(x, mask)
    u2 = np.kron(u1.ravel(order="F")[None], np.eye(2))
    u, v = product(steps, x, supports)
    np.testing.assert_array_equal(u[:, :16], u2)
    np.testing.assert_array_equal(v[:16], np.kron(w1.ravel(order="F"), w2.ravel(order="F")))


def direct_convolution(x, kernel, stride, before, out, groups):
    """Loops over places, taps and channels; x (height, width, channels)."""
    result = np.zeros(out)
    each_in, each_out = kernel.shape[2], out[2] // groups
    for row, column, filter_ in np.ndindex(*out):
        for dy, dx, channel in np.ndindex(*kernel.shape[:3]):
            y, x_ = row * stride + dy - before[0], column * stride + dx - before[1]
            if 0 <= y < x.shape[0] and 0 <= x_ < x.shape[1]:
                taken = x[y, x_, filter_ // each_out * each_in + channel]
                result[row, column, filter_] += taken * kernel[dy, dx, channel, filter_]
    return result


@pytest.mark.parametrize(
    ("options", "stride", "before"),
    [
        ("kernel_size: 3", 1, (1, 1)),
        ("kernel_size: 3, stride: 2", 2, (0, 1)),  # `same` on 6 x 5: 1 place of padding below, 1 at each side
        ("kernel_size: 2, padding: valid, stride: 2", 2, (0, 0)),
        ("kernel_size: 2, padding: 1, groups: 2", 1, (1, 1)),
    ],
)
def test_the_toeplitz_matrix_of_a_convolution_equals_direct_convolution(options, stride, before):
    text = f"name: c\ninput_shape: [6, 5, 2]\nclasses: 2\nblocks: [{{conv: 4, {options}}}]\nfinal_head: {{pool_to: 1}}"
    network = randomized(build_network(spec_of(text).value))
    layer, x = chain(network)[0], images(network)
    kernel = network.arrays("block_1")["block_1/conv_1/kernel"].astype(np.float64)
    bias = network.arrays("block_1")["block_1/conv_1/bias"].astype(np.float64)
    out = network.architecture.blocks[0].output_shape
    expected = np.stack([direct_convolution(image, kernel, stride, before, out, 2 // kernel.shape[2]) + bias for image in x])
    toeplitz = layer.full()
    w = toeplitz.free.reshape(layer.height, layer.width, order="F")
    np.testing.assert_allclose(x.reshape(3, -1) @ w.T + toeplitz.biases, expected.reshape(3, -1), rtol=0, atol=1e-13)
    np.testing.assert_allclose(layer.apply(x.reshape(3, -1), None), expected.reshape(3, -1), rtol=0, atol=1e-13)


def test_sharing_weights_is_a_product_with_zeros_and_ones():
    """U of kernels = U of matrices (T (x) T), vec(W) = T k."""
    network = randomized(build_network(spec_of(CONV, "input_shape=[4, 2, 1]", "blocks.1.kernel_size=1").value))
    steps, x = chain(network, 2), images(network, 2).reshape(2, -1)
    _, supports = forward(steps, x)
    full = [step.full() if isinstance(step, Weights) else step for step in steps]
    kernels, matrices = product(steps, x, supports)[0], product(full, x, supports)[0]
    shared = np.ones((1, 1))
    for step in steps:
        if isinstance(step, Weights):
            t = np.zeros((step.height * step.width, step.free.size))
            t[step.columns * step.height + step.rows, step.entries] = 1
            shared = np.kron(shared, t)
    np.testing.assert_allclose(kernels[:, : shared.shape[1]], matrices[:, : len(shared)] @ shared, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("text", "depth"), [(CONV, 1), (CONV, 2), (EVERYTHING, 1), (EVERYTHING, 3), (DENSE, 1)])
def test_u_v_is_the_network_with_biases_and_batch_norm(text, depth):
    network = randomized(build_network(spec_of(text).value))
    found = linearity(network, images(network), depth)
    assert found["product"]["relative"] < 1e-14
    assert found["keras"]["relative"] < 1e-5
    assert found["supports"][0]["share"] < 1 and all(support["share"] > 0 for support in found["supports"])
    steps, x = chain(network, depth), images(network).reshape(3, -1)
    outputs, supports = forward(steps, x)
    np.testing.assert_allclose(outputs, network.logits(images(network).astype(np.float32), [depth])[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(held(steps, x, supports), outputs)
    assert found["outputs"] == outputs.size == 3 * network.architecture.classes


def test_what_is_said_beforehand_of_the_size_is_the_size():
    network = randomized(build_network(spec_of(CONV).value))
    for weights in ("kernel", "matrix"):
        found = linearity(network, images(network, 1), 1, weights)
        size = size_of(components_at(network.architecture, 1), 1, weights)
        assert size["columns"] == found["columns"] + found["bias_columns"] and size["entries"] == found["entries"]
        assert found["bytes"] == 8 * found["entries"] and found["product"]["relative"] < 1e-14
    # block_1: 3x3 kernels, 8 channels to 2 on 3x2 places; means of 2x2 places; 8 to 3 classes.
    assert size["columns"] == (48 * 12 + 12) * 24 + 3
    assert size_of(components_at(network.architecture, 1), 5, "kernel")["entries"] == 5 * 3 * ((9 * 8 * 2 + 2) * 24 + 3)


def test_columns_on_no_path():
    """Weights into unit i and out of unit j are multiplied by nothing unless i = j: h in h^2 products are on a path."""
    network = randomized(build_network(spec_of(DENSE, "blocks.0.1.dense=3").value))
    assert reachable(chain(network), 2).tolist() == [
        i == j for _ in range(2) for i in range(3) for j in range(3) for _ in "ab"
    ] + [
        True,
        True,
    ]
    found = linearity(network, images(network, 40))["bounds"]
    assert found["no_path_columns"] == 2 * (9 - 3) * 2 and found["rank"] == 12 and found["lambda2_min"] == 0
    assert not found["holds"] and "24 of 36 products lie on no path" in found["verdict"]


def hard(threshold, shape):
    return Gate("hard", np.resize(np.asarray(threshold, float), shape))


def test_hard_thresholds_pass_q_and_not_q_minus_beta():
    """One layer of two units with thresholds 1 and -1, worked out by hand."""
    network = build_network(spec_of(DENSE).value)
    network.load_arrays("block_1", {"block_1/dense_1/kernel": np.eye(2)})
    network.load_arrays("head_1", {"head_1/dense_1/kernel": np.eye(2), "head_1/dense_1/bias": np.zeros(2)})
    first, _, last = chain(network)
    steps, x = [first, hard([1, -1], 2), last], np.array([[0.9, -0.9], [1.1, -1.1]])
    outputs, supports = forward(steps, x)
    np.testing.assert_array_equal(outputs, [[0, -0.9], [1.1, 0]])
    np.testing.assert_array_equal(supports[1], [[False, True], [True, False]])
    u, v = product(steps, x, supports)
    np.testing.assert_allclose(u @ v, outputs.ravel(), rtol=1e-15)


def test_hard_threshold_layers_read_their_beta():
    """One number for each channel, at every place; a layer that warms up subtracts its bias (eq. 7)."""
    network = build_network(spec_of(CONV).value)
    component = components_at(network.architecture, 1)[0]
    layer = L.Activation.model_construct(activation="positive_hard_threshold")
    nodes = tuple(replace(node, layer=layer) if isinstance(node.layer, L.Activation) else node for node in component.nodes)
    component, name = replace(component, nodes=nodes), "block_1/activation_1"
    arrays = network.arrays("block_1")
    beta = np.array([0.5, -0.25])
    z = np.random.default_rng(0).normal(size=(4, 3 * 2 * 2))
    (gate,) = chain_of([component], network.architecture, {**arrays, f"{name}/beta": beta})[2:]
    np.testing.assert_array_equal(gate.support(z), z > np.tile(beta, 6))
    warm = {f"{name}/beta": np.zeros(()), f"{name}/bias": beta, f"{name}/hard": np.zeros(())}
    passed, _ = forward(chain_of([component], network.architecture, {**arrays, **warm})[2:], z)
    np.testing.assert_allclose(passed, np.maximum(z - np.tile(beta, 6), 0), rtol=0, atol=1e-15)
    hardened = {f"{name}/beta": beta, f"{name}/bias": beta, f"{name}/hard": np.ones(())}
    (gate,) = chain_of([component], network.architecture, {**arrays, **hardened})[2:]
    np.testing.assert_array_equal(gate.threshold, np.tile(beta, 6))


@pytest.mark.parametrize("threshold", ["{beta: 0.3}", "{beta: -0.2, per: channel}", "{beta: 0.1, learn: warm_up}"])
def test_networks_with_hard_thresholds(threshold):
    pytest.importorskip("kerasgreedy.nn.activations")
    text = CONV.replace("blocks:", f"block_defaults: {{activation: positive_hard_threshold, threshold: {threshold}}}\nblocks:")
    network = build_network(spec_of(text).value, seed=2)
    found = linearity(network, images(network, 6), 2)
    assert found["product"]["relative"] < 1e-14 and found["keras"]["relative"] < 1e-5
    assert all(0 < support["share"] < 1 for support in found["supports"]) and len(found["supports"]) == 2


def test_linear_in_the_input_and_in_each_layers_weights():
    network = randomized(build_network(spec_of(EVERYTHING).value))
    found = linearity(network, images(network), 2)
    names = ["input", "block_1/conv_1", "block_2/conv_1", "head_2/dense_1"]
    assert [entry["of"] for entry in found["linear_in"]] == names
    assert all(entry["relative"] < 1e-12 for entry in found["linear_in"])
    # It is the held supports that make it so: with supports that follow the weights it is off by a lot.
    network = randomized(build_network(spec_of(CONV).value))
    steps, x = chain(network, 1), images(network).reshape(3, -1)
    free = [FollowingGate(step.name, step.threshold) if isinstance(step, Gate) else step for step in steps]
    _, supports = forward(steps, x)
    followed = linear_in(free, x, supports, np.random.default_rng(0))
    assert followed[0]["relative"] > 0.01 and followed[1]["relative"] > 0.01 > 1e-12 > followed[-1]["relative"]


class FollowingGate(Gate):
    def apply(self, z, support):
        return z * self.support(z)


def test_fixed_maps_keep_what_they_are():
    """Means of windows that overlap a border count the places inside only; batch norm is scale and shift."""
    mean = Fixed(np.array([0, 0, 1]), np.array([0, 1, 2]), np.array([0.5, 0.5, 1.0]))
    np.testing.assert_array_equal(mean.apply(np.array([[1.0, 3.0, 5.0]]), None), [[2.0, 5.0]])
    scaled = Scaled(np.array([2.0, 3.0]), np.array([0.0, 1.0]))
    np.testing.assert_array_equal(scaled.apply(np.array([[1.0, 1.0]]), None), [[2.0, 4.0]])
    np.testing.assert_array_equal(scaled.lift(np.array([[1.0, 1.0]]), None), [[2.0, 3.0], [0.0, 1.0]])
