"""One mask for a batch (eq. 41), the beta that a warm-up leaves, and connections that no active path crosses: against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import some, two_devices
from masked import Images, Masked, same_conv

from kerasgreedy.graph.supports import Unit
from kerasgreedy.solvers.alternation.betas import estimate_betas, smallest_left_out
from kerasgreedy.solvers.alternation.connections import used_connections
from kerasgreedy.solvers.alternation.support import Estimated, Shared
from kerasgreedy.spec.solver_settings import Alternation
from kerasgreedy.spec.training import Sgd

RNG = np.random.default_rng(21)
X = RNG.normal(size=(8, 8, 8, 2)).astype(np.float32)
LABELS = RNG.integers(0, 3, 8).astype(np.int32)
START = np.random.default_rng(1).bit_generator.state


@pytest.fixture(autouse=True)
def same_draws():
    """Whatever ran before in this process."""
    RNG.bit_generator.state = START


ONE = "[{conv: 4, use_bias: false}]"
TWO = "[{conv: 4}, {conv: 5, stride: 2}]"


def block(net, x=X, support=None):
    """The output of the first block under the batch's mask."""
    return net.network.run("block_1", tf.constant(x), False, support or net.shared(len(x))).numpy()


def preactivations(net, x=X):
    return same_conv(x, net.kernels()["block_1/conv_1/kernel"].numpy())


@pytest.mark.parametrize(
    ("solver", "in_mask"),
    [
        ("{beta: 0.5}", lambda x, q: (x**2).mean(0) > 0.5),
        ("{beta: 4.0, beta_of: batch}", lambda x, q: (x**2).sum(0) > 4.0),
        ("{beta: 0.9, rule: energy}", lambda x, q: (q**2).mean(0) > 0.9),
        ("{beta: 0.09, vote: majority}", lambda x, q: (x**2 > 0.09).sum(0) > 4),
        ("{vote: majority}", lambda x, q: (q > 0).sum(0) > 4),
        ("{beta: 0.25, vote: majority, rule: energy}", lambda x, q: (np.abs(q) > 0.5).sum(0) > 4),
    ],
)
@pytest.mark.parametrize("under", ["linear", "activation"])
def test_a_batch_shares_the_mask_of_the_formula(solver, in_mask, under):
    net = Masked(ONE, solver.replace("{", f"{{mode: batch, under_mask: {under}, "))
    q = preactivations(net)
    x = np.maximum(q, 0)
    mask = in_mask(x, q)
    assert 0.1 < mask.mean() < 0.9
    z = block(net)
    np.testing.assert_array_equal((z != 0).any(0), mask & ((q if under == "linear" else x) != 0).any(0))
    np.testing.assert_allclose(z, (q if under == "linear" else x) * mask, rtol=1e-4, atol=1e-5)


def test_masked_layers_are_linear_by_default_for_examples_and_not_for_a_batch():
    for mode, under in (("instance", "linear"), ("batch", "activation")):
        left, given = (Masked(ONE, f"{{mode: {mode}, beta: 0.5{more}}}") for more in ("", f", under_mask: {under}"))
        np.testing.assert_array_equal(block(left, support=left.shared(8)), block(given, support=given.shared(8)))
        assert (block(left) < 0).any() == (mode == "instance")


def test_beta_of_an_example_does_not_depend_on_the_batch_size():
    """Every image twice: the same mean, twice the sum."""
    twice = np.concatenate([X, X])
    net = Masked(ONE, "{mode: batch, beta: 0.5}")
    np.testing.assert_array_equal(block(net, twice)[:8], block(net))
    betas = [Masked(ONE, "{mode: batch, beta: 4, beta_of: batch}", f"training.batch_size={n}").plan.beta for n in (8, 16)]
    assert betas == [0.5, 0.25]


@pytest.mark.parametrize(
    ("pool", "side", "padding"),
    [("max_pool: 2", 2, 0), ("max_pool: 3, stride: 2, padding: same", 3, 0), ("max_pool: 3, stride: 2, padding: 1", 3, 1)],
)
def test_a_batch_shares_the_places_of_a_max_pool(pool, side, padding):
    """Each window takes the place with the largest mean square; where all are off, one of the map and not of its padding."""
    net = Masked(f"[[{{conv: 4, use_bias: false}}, {{{pool}}}]]", "{mode: batch, under_mask: linear, beta: 0, hold_pools: true}")
    x = X.copy()
    x[:, :3] = x[:, 6:] = 0  # nothing is on up there and down there
    z = block(net, x)
    q = preactivations(net, x)
    value = np.pad(q * (np.maximum(q, 0) ** 2).any(0), ((0, 0), (padding, 1), (padding, 1), (0, 0)))
    for row, column, channel in np.ndindex(4, 4, 4):
        window = value[:, 2 * row : 2 * row + side, 2 * column : 2 * column + side, channel].reshape(8, -1)
        expected = window[:, np.argmax((window**2).mean(0))]
        np.testing.assert_allclose(z[:, row, column, channel], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("energy", "share", "beta"),
    [
        ([4, 1, 3, 2], 0.5, 2),
        ([4, 1, 3, 2], 0.25, 3),
        ([4, 1, 3, 2], 0, 4),
        ([4, 1, 3, 2], 1, 0),
        ([3, 3, 1, 3], 0.5, 3),  # three share the second place: none of them is in
        ([3, 3, 1, 3], 0.75, 1),
        ([0, 0, 5, 0], 0.5, 0),  # one of the two is off: the mask takes what is on
        ([2, 1, 3], 0.5, 1),  # round(1.5) = 2
        ([4, 1, 3, 2], 0.1, 3),  # round(0.4) = 0, but a layer is not closed while something in it is active
    ],
)
def test_beta_by_hand(energy, share, beta):
    assert float(smallest_left_out(tf.constant(energy, tf.float32), share)) == beta


def chosen(net, images, batch_size=8):
    """What `estimate_betas` returns, and what it shows."""
    work = estimate_betas(net.network, net.phase, net.units, net.settings, Images(images, batch_size), None)
    shown = []
    while True:
        try:
            shown.append(next(work))
        except StopIteration as end:
            return end.value, shown


def shares_of(net, x, betas):
    """Layer -> share of its units in the mask of a batch, from the output of a network of one convolution a block."""
    support = net.shared(len(x), {key: tf.constant(beta) for key, beta in betas.items()})
    first = net.network.run("block_1", tf.constant(x), False, support)
    second = net.network.run("block_2", first, False, support)
    return [np.mean((z.numpy() != 0).any(0)) for z in (first, second)]


def test_the_share_in_a_batchs_mask_is_the_share_of_active_units():
    """8 x 8 x 4 and 4 x 4 x 5 units; the second layer's energies are those under the mask of the first."""
    net = Masked(TWO, "{mode: batch}").random_biases()
    betas, shown = chosen(net, X)
    assert net.plan.beta == "warm_up" and shown == [("choosing beta", 8, 8)] and list(betas) == list(net.units)
    first = net.network.blocks[0](X).numpy()
    second = net.network.blocks[1](first).numpy()
    expected = [round(np.mean(first > 0) * 256) / 256, round(np.mean(second > 0) * 80) / 80]
    assert shares_of(net, X, betas) == expected
    q = same_conv(X, net.kernels()["block_1/conv_1/kernel"].numpy()) + net.variables()["block_1/conv_1/bias"]
    energy = np.sort((np.maximum(q, 0) ** 2).mean(0).ravel())[::-1]
    np.testing.assert_allclose(betas["block_1/activation_1"], energy[round(np.mean(q > 0) * 256)], rtol=1e-4)


def test_beta_is_the_mean_over_whole_batches_and_over_parts_with_accumulation():
    """20 images in batches of 8: two, and 4 left over; with accumulation 2 four parts of 4."""
    images = RNG.normal(size=(20, 8, 8, 2)).astype(np.float32)
    whole, parts = Masked(ONE, "{mode: batch}"), Masked(ONE, "{mode: batch}", "training.accumulation=2")
    q = np.maximum(preactivations(whole, images), 0)[:16]
    for net, size in ((whole, 8), (parts, 4)):
        (beta,), shown = list(chosen(net, images)[0].values()), chosen(net, images)[1]
        share = np.mean(q > 0)
        energies = [np.sort((q[i : i + size] ** 2).mean(0).ravel())[::-1] for i in range(0, 16, size)]
        np.testing.assert_allclose(beta, np.mean([energy[round(share * 256)] for energy in energies]), rtol=1e-4)
        assert [done for _, done, _ in shown] == list(range(size, 17, size)) and shown[-1][2] == 16


@pytest.mark.parametrize(
    ("solver", "blocks"),
    some(
        ("{beta: 0.01, hold_pools: true}", "[{conv: 4, batch_norm: true}, [{max_pool: 3, stride: 2, padding: same}, {conv: 5}]]"),
        slow=[
            ("{beta: 0.2}", "[{conv: 4, batch_norm: true}, {conv: 5}]"),
            ("{beta: 8.0, beta_of: batch, rule: energy}", TWO),
            ("{vote: majority}", "[{conv: 4}, {residual: [{conv: 3}, {conv: 4, activation: linear}]}]"),
        ],
    ),
)
def test_two_devices_equal_one(solver, blocks):
    """The mask is that of the global batch: those of its halves differ."""
    results = []
    for strategy in (None, two_devices()):
        net = Masked(blocks, solver.replace("{", "{mode: batch, "), strategy=strategy)
        step = net.step(True, Sgd(learning_rate=0.02, momentum=0.9, weight_decay=1e-3))
        data = tf.data.Dataset.from_tensor_slices((np.concatenate([X, -X, X[::-1]]), np.tile(LABELS, 3))).repeat(2)
        for batch in net.strategy.experimental_distribute_dataset(data.batch(8, drop_remainder=True)):
            step(*batch)
        results.append(net.variables())
        if strategy is None:
            assert np.abs(block(net, X[:4]) - block(net)[:4]).max() > 0.01
    for key, value in results[0].items():
        np.testing.assert_allclose(results[1][key], value, atol=1e-5, err_msg=key)


def used(net, images, mode, parts=1):
    size = 8 // parts

    def support():
        return net.shared(size) if mode == "batch" else Estimated(net.units, net.settings, net.betas)

    work = used_connections(net.network, net.phase, Images(images), [None], support, mode == "batch")
    shown = []
    while True:
        try:
            shown.append(next(work))
        except StopIteration as end:
            return end.value, shown


def shared_by(values, mode, beta, size=8):
    """The masks of layer outputs before their activation (n, ...), by NumPy; of whole batches in mode `batch`."""
    x = np.maximum(values, 0)
    if mode == "instance":
        return x**2 > beta
    return np.concatenate([np.broadcast_to((p**2).mean(0) > beta, p.shape) for p in np.split(x, len(x) // size)])


@pytest.mark.parametrize(("mode", "parts"), [("instance", 1), ("batch", 1), ("batch", 2)])
def test_used_weights_of_a_dense_network(mode, parts):
    """A path is active where its pixel is not zero and its units are in the support; count all of them by hand."""
    beta = 1.0 if mode == "instance" else 0.8
    more = (f"training.accumulation={parts}",)
    net = Masked(
        "[[{flatten: true}, {dense: 6}, {dense: 5}]]", f"{{mode: {mode}, beta: {beta}}}", *more, head="auxiliary_head: {}"
    )
    arrays = net.variables()
    for layer, low in (("dense_1", [0, 0, -40, 0, 0, 0]), ("dense_2", [0, -9, 0, 0, 0])):
        arrays[f"block_1/{layer}/bias"] = np.array(low, np.float32)
    net.load(arrays)
    images = RNG.normal(size=(20, 8, 8, 2)).astype(np.float32) * (RNG.random((1, 8, 8, 2)) > 0.4)
    found, shown = used(net, images.astype(np.float32), mode, parts)
    assert shown[-1] == ("looking for unused connections", 20, 20) and len(shown) == 3
    kept = images[:16] if mode == "batch" else images
    one, two, out = (kernel.numpy().astype(np.float64) for kernel in net.kernels().values())
    pixels = kept.reshape(len(kept), -1).astype(np.float64)
    q1 = pixels @ one + arrays["block_1/dense_1/bias"]
    m1 = shared_by(q1, mode, beta, 8 // parts)
    q2 = (m1 * q1) @ two + arrays["block_1/dense_2/bias"]
    m2 = shared_by(q2, mode, beta, 8 // parts)
    up1 = m1 & m2.any(1, keepdims=True)  # something above it is in the support
    expected = [
        ((pixels != 0)[:, :, None] & up1[:, None, :]).any(0),
        (m1[:, :, None] & m2[:, None, :]).any(0),
        np.broadcast_to(m2.any(0)[:, None], out.shape),
    ]
    for (key, mask), want in zip(found.items(), expected, strict=True):
        np.testing.assert_array_equal(mask, want, err_msg=key)
    assert not expected[0][:, 2].any() and not expected[1][:, 1].any() and 0.1 < np.mean(expected[0]) < 0.7


@pytest.mark.parametrize("mode", ["instance", "batch"])
def test_used_weights_of_a_convolution(mode):
    """3x3 kernels on 8x8 images, the second with stride 2: a weight is used where a place of it is on an active path."""
    beta = 2.0
    net = Masked("[{conv: 4}, {conv: 3, kernel_size: 2, stride: 2}]", f"{{mode: {mode}, under_mask: linear, beta: {beta}}}")
    arrays = net.variables()
    arrays["block_1/conv_1/bias"][:] = [0, -30, 0, 0]
    arrays["block_2/conv_1/bias"][:] = [0, 0, -30]
    net.load(arrays)
    images = np.zeros((8, 8, 8, 2), np.float32)
    images[:, 6:, 6:, 0] = 2 * RNG.normal(size=(8, 2, 2))  # one corner of one channel
    found, _ = used(net, images, mode)
    one, two, _ = (kernel.numpy().astype(np.float64) for kernel in net.kernels().values())
    q1 = same_conv(images, one) + arrays["block_1/conv_1/bias"]
    m1 = shared_by(q1, mode, beta)
    z1 = (q1 * m1).reshape(8, 4, 2, 4, 2, 4)
    q2 = np.einsum("bipjqc,pqck->bijk", z1, two) + arrays["block_2/conv_1/bias"]
    m2 = shared_by(q2, mode, beta)
    first, second = np.zeros(one.shape, bool), np.zeros(two.shape, bool)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0))) != 0
    for n, i, j, k in zip(*np.nonzero(m2), strict=True):
        for p, q, c in np.ndindex(2, 2, 4):
            row, column = 2 * i + p, 2 * j + q
            if m1[n, row, column, c]:
                second[p, q, c, k] = True
                first[..., c] |= padded[n, row : row + 3, column : column + 3]
    np.testing.assert_array_equal(found["block_1/conv_1/kernel"], first)
    np.testing.assert_array_equal(found["block_2/conv_1/kernel"], second)
    np.testing.assert_array_equal(found["head_2/dense_1/kernel"], np.repeat(m2.any((0, 1, 2))[:, None], 3, 1))
    assert 0 < first.sum() < first.size / 2 and 0 < second.sum() < second.size and not first[..., 1].any()


@pytest.mark.parametrize(("weights", "kept"), [([1, 0, 0], [False, True, True]), ([0, 1, 0], [False, False, False])])
def test_what_is_infinite_outside_of_the_mask_or_in_a_filler_is_zero(weights, kept):
    """Energies over 4 are in: of the first image 1, inf, 9, of the second all at most 1; the other images are fillers."""
    settings = Alternation(name="alternation", mode="batch", rule="energy", under_mask="linear")
    q = np.array([[1.0, -np.inf, 3.0], [0.5, 1.0, 1.0], [np.inf, 1.0, 2.0]], np.float32)
    shared = Shared({"block_1/relu": Unit((3,), 0)}, settings, {"block_1/relu": 4.0}, 1.0, tf.constant(weights, tf.float32))
    np.testing.assert_array_equal(shared("block_1/relu", keras.layers.ReLU(), tf.constant(q)), np.where(kept, q, 0))
