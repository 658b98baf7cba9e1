"""Support masks: their bits and sizes, the linear network that they leave, and steps under them against plain steps."""

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf
from conftest import recipe_of, same_weights, some, spec_of, two_devices
from masked import Masked, same_conv

from kerasgreedy.plan.preparation import prepare
from kerasgreedy.solvers.alternation.support import pack, unpack
from kerasgreedy.solvers.step import phase_logits
from kerasgreedy.spec.training import Adam, Sgd

RNG = np.random.default_rng(7)
X, Y = (RNG.normal(size=(8, 8, 8, 2)).astype(np.float32) for _ in range(2))
LABELS = RNG.integers(0, 3, 8).astype(np.int32)
CHAIN = "[{conv: 4, use_bias: false}, {conv: 5, stride: 2, use_bias: false}]"
RELU, HARD, SOFT, BELOW = (
    "{activation: relu}",
    "{activation: positive_hard_threshold, threshold: {beta: 0.1}}",
    "{activation: positive_hard_threshold, threshold: {beta: 0.25}}",
    "{activation: positive_hard_threshold, threshold: {beta: -0.1}}",
)
BATCH_NORM = "{batch_norm: true}"
# name -> blocks, block_defaults; bias-free, and linear in each kernel where no path goes around it.
NETS = {
    "relu": (CHAIN, RELU),
    "hard": (CHAIN, HARD),
    "below": (CHAIN, BELOW),
    "average": ("[{conv: 4, use_bias: false}, [{avg_pool: 2}, {conv: 3, use_bias: false}, {avg_pool: 3, stride: 2}]]", RELU),
    "invertible": ("[{conv: 4, use_bias: false}, {conv: 5, downsample: invertible, use_bias: false}]", HARD),
}
AROUND = {
    "residual": ("[{conv: 4, use_bias: false}, {residual: [{conv: 3, use_bias: false}, {conv: 4, use_bias: false}]}]", BELOW),
    "branches": ("[{branches: [[{conv: 3, use_bias: false}], [{conv: 2, kernel_size: 1, use_bias: false}]]}, {conv: 4}]", RELU),
    "batch_norm": ("[{conv: 4}, {residual: [{conv: 4}, {conv: 4, activation: linear}]}]", BATCH_NORM),
}
POOLS = {
    "valid": ("[{conv: 4, use_bias: false}, [{max_pool: 2}, {conv: 3, use_bias: false}]]", RELU),
    "same": ("[[{conv: 4, use_bias: false, activation: linear}, {max_pool: 3, stride: 2, padding: same}], {conv: 3}]", HARD),
    "padded": ("[{conv: 4, use_bias: false}, [{max_pool: 3, stride: 2, padding: 1}, {conv: 3, use_bias: false}]]", RELU),
    "downsample": ("[{conv: 4, use_bias: false}, {conv: 3, downsample: max, use_bias: false}]", BELOW),
}
TOLERANCE = {"rtol": 2e-5, "atol": 2e-5}


@pytest.mark.parametrize("shape", [(1,), (7,), (8,), (9,), (4, 4, 1), (3, 5, 2), (16,), (2, 2, 5)])
def test_bits_come_back(shape):
    """Byte i holds element k * width + i in its bit k, so that n elements take ceil(n / 8) bytes."""
    mask = RNG.random((5, *shape)) > 0.5
    size = math.prod(shape)
    width = (size + 7) // 8
    bits = pack(tf.reshape(tf.constant(mask), (5, size)))
    assert bits.dtype == tf.uint8 and bits.shape == (5, width)
    np.testing.assert_array_equal(unpack(bits, shape), mask)
    flat = mask.reshape(5, size)
    for element in range(size):
        plane, byte = divmod(element, width)
        np.testing.assert_array_equal(bits.numpy()[:, byte] >> plane & 1, flat[:, element])


def test_layout_and_bytes_by_hand():
    """8x8x3 = 192 units: 24 bytes. 8x8x5 = 320: 40. Max of 3x3 at 3x3x5 = 45 units, 4 bits for 9 places: 4 x 6. 3x3x2: 3."""
    blocks = "[{conv: 3}, [{conv: 5}, {max_pool: 3, stride: 3, padding: same}, {conv: 2}]]"
    net = Masked(blocks, "{hold_pools: true}")
    places = {key: (unit.shape, unit.offset, unit.planes, unit.bytes) for key, unit in net.units.items()}
    assert places == {
        "block_1/activation_1": ((8, 8, 3), 0, 1, 24),
        "block_2/activation_1": ((8, 8, 5), 24, 1, 40),
        "block_2/max_pool_1": ((3, 3, 5), 64, 4, 24),
        "block_2/activation_2": ((3, 3, 2), 88, 1, 3),
    }
    assert net.row_bytes == 91 and net.bits(X).shape == (8, 91)
    assert list(Masked(blocks).units) == ["block_1/activation_1", "block_2/activation_1", "block_2/activation_2"]
    halved = Masked("[{conv: 3, downsample: max}]", "{hold_pools: true}").units.values()
    assert [(unit.shape, unit.offset, unit.planes) for unit in halved] == [((4, 4, 2), 0, 2), ((4, 4, 3), 8, 1)]


def test_the_plan_states_the_size():
    """digits 8x8x1: 8x8x3 = 192 -> 24 bytes, 4x4x5 = 80 -> 10, a head's 4x4x7 = 112 -> 14: 48 an image, 384 units."""
    spec = spec_of(
        "name: s\nblocks: [{conv: 3}, {conv: 5, stride: 2}]\nauxiliary_head: {hidden_layers: 1, width: 7, pool_to: 2}\n"
    )
    text = "name: r\ndata: {dataset: digits, train_examples: 130, validation: 30}\ntraining: {epochs: 9, batch_size: 10}\n"
    overrides = "strategy=end_to_end", "training.solver=alternation"
    plan = prepare(spec, recipe_of(text, *overrides)).phases[0].solver_plan
    assert (plan.layers, plan.units, plan.row_bytes, plan.images, plan.views) == (3, 384, 48, 100, 1)
    assert plan.bytes == 4800 and plan.as_dict()["alternation"]["bytes"] == 4800 and plan.store == "memory"
    assert "48 bytes an image, 0.0 MB in memory for 100 images (as float32: 0.2 MB)" in str(plan)
    views = "data.augment={horizontal_flip: true}", "data.augment_views=3"
    seen = prepare(spec, recipe_of(text, *overrides, *views)).phases[0].solver_plan
    assert seen.bytes == 3 * 4800 and "100 images x 3 views (as float32: 0.5 MB)" in str(seen)
    small = prepare(spec, recipe_of(text, *overrides, "training.solver={name: alternation, memory_gb: 4.7e-6}"))
    assert small.phases[0].solver_plan.store == "disk"


def outputs(net, bits):
    """The function of the network under given masks, in inference mode."""
    return lambda x: net.logits(x, net.held(bits))


@pytest.mark.parametrize("name", [*NETS, *AROUND])
def test_given_masks_the_network_is_linear(name):
    """F(ax + by) = a F(x) + b F(y) without biases; with biases and batch norm F(x + y) - F(y) does not depend on y."""
    blocks, defaults = (NETS | AROUND)[name]
    for biases in (False, True):
        net = Masked(blocks, defaults=defaults)
        net = net.random_biases() if biases else net
        bits = net.bits(X)
        f = outputs(net, bits)
        np.testing.assert_array_equal(f(X), net.logits(X))  # at the weights and images of the masks, nothing has changed
        zero = f(np.zeros_like(X))
        if not biases:
            np.testing.assert_array_equal(zero, 0)
        np.testing.assert_allclose(f(2 * X - 3 * Y) - zero, 2 * (f(X) - zero) - 3 * (f(Y) - zero), **TOLERANCE)
        np.testing.assert_allclose(f(X + Y) - f(Y), f(X) - zero, **TOLERANCE)
        assert np.abs(net.logits(X + Y) - net.logits(X) - net.logits(Y) + net.logits(np.zeros_like(X))).max() > 1e-2


@pytest.mark.parametrize("name", [*NETS, *AROUND])
def test_given_masks_the_network_is_linear_in_each_kernel(name):
    """With the other kernels fixed: along a line through two kernels always; F(K = 0) = 0 too where no path goes around."""
    blocks, defaults = (NETS | AROUND)[name]
    net = Masked(blocks, defaults=defaults).random_biases() if name in AROUND else Masked(blocks, defaults=defaults)
    f = outputs(net, net.bits(X))
    assert len(net.kernels()) == {"residual": 4, "branches": 4, "batch_norm": 4}.get(name, 3)
    for kernel in net.kernels().values():
        one = kernel.numpy()
        two = one + RNG.normal(size=one.shape).astype(np.float32) * one.std()

        def at(value, kernel=kernel):
            kernel.assign(value)
            return f(X)

        first, second = at(one), at(two)
        np.testing.assert_allclose(at(1.5 * one - 0.5 * two), 1.5 * first - 0.5 * second, **TOLERANCE)
        if name in NETS:
            np.testing.assert_allclose(at(2 * one - 3 * two), 2 * first - 3 * second, **TOLERANCE)
        kernel.assign(one)


@pytest.mark.parametrize("name", POOLS)
def test_max_pools_are_linear_only_while_they_are_held(name):
    blocks, defaults = POOLS[name]
    for held in (True, False):
        net = Masked(blocks, f"{{hold_pools: {str(held).lower()}}}", defaults=defaults)
        f = outputs(net, net.bits(X))
        np.testing.assert_array_equal(f(X), net.logits(X))
        error = np.abs(f(2 * X - 3 * Y) - 2 * f(X) + 3 * f(Y)).max()
        assert error < 2e-5 if held else error > 1e-2, (held, error)


@pytest.mark.parametrize(("solver", "defaults"), [("{}", RELU), ("{}", HARD), ("{}", BELOW), ("{beta: 0.09}", RELU)])
def test_masks_and_masked_logits_against_numpy(solver, defaults):
    """m = 1[q > threshold] (eq. 12), with a beta 1[x^2 > beta] (eq. 38); then W3 M2 W2 M1 W1 y (eq. 13) on other images."""
    threshold = {RELU: 0.0, HARD: 0.1, BELOW: -0.1}[defaults] if solver == "{}" else 0.3
    net = Masked("[{conv: 4, use_bias: false}, {conv: 5, use_bias: false}]", solver, defaults=defaults)
    one, two, last = (kernel.numpy() for kernel in net.kernels().values())
    bits = net.bits(X)
    q, masks = X, []
    for kernel in (one, two):
        q = same_conv(q, kernel)
        assert np.abs(q - threshold).min() > 1e-7
        masks.append(q > threshold)
        q = q * masks[-1]
    stored = [bits[:, unit.offset : unit.offset + unit.bytes] for unit in net.units.values()]
    for part, mask in zip(stored, masks, strict=True):
        planes = np.concatenate([part >> plane & 1 for plane in range(8)], axis=1)
        np.testing.assert_array_equal(planes.astype(bool), mask.reshape(8, -1))
    z = same_conv(same_conv(Y, one) * masks[0], two) * masks[1]
    np.testing.assert_allclose(net.logits(Y, net.held(bits)), z.mean((1, 2)) @ last, rtol=1e-4, atol=1e-5)


def test_zero_passes_a_negative_threshold_and_no_other():
    """Eq. 12 at q = 0, which a black corner of an image gives."""
    for defaults, inside in ((BELOW, True), (RELU, False), (HARD, False)):
        bits = Masked("[{conv: 8, kernel_size: 1}]", defaults=defaults).bits(np.zeros_like(X))
        np.testing.assert_array_equal(bits, 255 if inside else 0)


def trained(net, masked, optimizer, steps=6):
    """Weights after some steps on batches of images, with the masks of each batch estimated before its step."""
    step = net.step(masked, optimizer)
    rng = np.random.default_rng(11)
    for _ in range(steps):
        x, labels = rng.normal(size=X.shape).astype(np.float32), rng.integers(0, 3, 8).astype(np.int32)
        step(x, labels, *([net.bits(x)] if masked else []))
    return net.variables()


MOVING = Sgd(learning_rate=0.05, momentum=0.9, weight_decay=1e-3)


@pytest.mark.parametrize(
    ("blocks", "defaults", "solver", "plain"),
    [
        (CHAIN, RELU, "{}", RELU),
        (CHAIN, HARD, "{}", HARD),
        (CHAIN, BELOW, "{}", BELOW),
        ("[{conv: 4}, {residual: [{conv: 3}, {conv: 4, activation: linear}]}]", BELOW, "{}", BELOW),
        (CHAIN, RELU, "{beta: 0.0625}", SOFT),
        ("[{branches: [[{conv: 3}], [{conv: 2, kernel_size: 1}]]}, {conv: 4}]", RELU, "{beta: 0.0625}", SOFT),
        *((blocks, defaults, "{hold_pools: true}", defaults) for blocks, defaults in POOLS.values()),
    ],
)
@pytest.mark.parametrize("optimizer", some(MOVING, slow=[Adam(name="adam", learning_rate=1e-2)]), ids=["sgd", "adam"])
def test_masks_refreshed_every_step_equal_plain_steps(blocks, defaults, solver, plain, optimizer):
    """A solver's beta b makes a relu the hard threshold at sqrt(b), here 0.25. Bit for bit but for pools that overlap: their
    gradients are summed in another order.
    """
    rates = f"training.optimizer={{name: {optimizer.name}, learning_rate: {optimizer.learning_rate}}}"
    start = Masked(blocks, solver, rates, defaults=defaults)
    other = Masked(blocks, "{}", rates, defaults=plain)
    before = start.variables()
    one, two = trained(start, True, optimizer), trained(other, False, optimizer)
    shared = one.keys() & two.keys()  # relu has no threshold among its variables
    assert all(key.endswith(("kernel", "bias")) for key in shared) or plain == defaults
    for key in shared:
        atol = 1e-6 if "max_pool: 3" in blocks else 0
        np.testing.assert_allclose(one[key], two[key], rtol=0, atol=atol, err_msg=key)
        assert "beta" in key or not np.array_equal(one[key], before[key]), key


def test_stored_masks_are_those_of_old_weights():
    """After a step the network moves on, its masks do not: m' q' with the old m."""
    net = Masked(CHAIN)
    bits = net.bits(X)
    net.step(True, Sgd(learning_rate=0.3))(X, LABELS, bits)
    fresh = net.bits(X)
    assert np.mean(fresh != bits) > 0.05
    assert np.abs(net.logits(X, net.held(bits)) - net.logits(X)).max() > 1e-3
    np.testing.assert_array_equal(net.logits(X, net.held(fresh)), net.logits(X))


def test_under_mask_activation_only_removes():
    """z = m a(q): under all-ones bits the plain network; an infinite q outside of the support is zero too."""
    net = Masked(CHAIN, "{under_mask: activation}")
    ones = np.full((8, net.row_bytes), 255, np.uint8)
    np.testing.assert_array_equal(net.logits(Y, net.held(ones)), net.logits(Y))
    linear = Masked(CHAIN)
    assert np.abs(linear.logits(Y, linear.held(ones)) - linear.logits(Y)).max() > 1e-2
    for one in (net, linear):
        assert np.isfinite(one.logits(np.full_like(X, np.inf), one.held(0 * ones))).all()


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_in_16_bits_masks_are_those_of_the_activations(precision):
    for blocks, defaults in (*NETS.values(), *POOLS.values(), ("[[{activation: relu}, {conv: 4}]]", HARD)):
        net = Masked(blocks, "{hold_pools: true}", defaults=defaults, precision=precision)
        np.testing.assert_array_equal(net.logits(X, net.held(net.bits(X))), net.logits(X))


@pytest.mark.parametrize("blocks", [CHAIN, "[{conv: 4, batch_norm: true}, [{max_pool: 2}, {conv: 5}]]"])
def test_two_devices_equal_one_under_held_masks(blocks):
    results = []
    for strategy in (None, two_devices()):
        net = Masked(blocks, "{hold_pools: true}", strategy=strategy)
        step = net.step(True, MOVING)
        bits = [Masked(blocks, "{hold_pools: true}").bits(x) for x in (X, Y)]
        data = tf.data.Dataset.from_tensor_slices((np.stack([X, Y]), np.stack([LABELS] * 2), np.stack(bits))).repeat(3)
        for batch in net.strategy.experimental_distribute_dataset(data.unbatch().batch(8, drop_remainder=True)):
            step(*batch)
        results.append(net.variables())
    for key, value in results[0].items():
        np.testing.assert_allclose(results[1][key], value, atol=1e-5, err_msg=key)


def test_only_what_trains_is_masked_and_weights_stay_put():
    """Estimating and running under masks moves no variable; a frozen component keeps its own activation."""
    net = Masked("[{conv: 4, batch_norm: true}, [{dropout: 0.5}, {conv: 4}]]")
    before = net.variables()
    bits = net.bits(X)
    net.logits(X, net.held(bits))
    same_weights(net.variables(), before)
    seen = []

    def note(key, layer, q):
        seen.append(key)

    frozen = dataclasses.replace(net.phase, trains=("block_2", "head_2"), frozen=("block_1",))
    phase_logits(net.network, frozen, tf.constant(X), instead=note, training=False)
    assert {key.split("/")[0] for key in seen} == {"block_2", "head_2"} and "block_2/activation_1" in seen
