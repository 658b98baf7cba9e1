"""Where descent with penalties comes to rest, and what several penalties do together."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY_RECIPE, recipe_of, spec_of
from one_step import arrays_of, setup
from sklearn.datasets import load_digits

from kerasgreedy.graph.architecture import architecture
from kerasgreedy.graph.makers import makers
from kerasgreedy.graph.penalised import entering
from kerasgreedy.graph.tree import leaves
from kerasgreedy.kernel_groups import levels
from kerasgreedy.network.build import build_network
from kerasgreedy.nn.structured import Entering, RelaxedCost
from kerasgreedy.plan.compile import compile_plan
from kerasgreedy.solvers.sparsity_figures import sparsity_of
from kerasgreedy.spec.regularizers import Complexity
from kerasgreedy.spec.training import Sgd

POOLED = "final_head: {layers: [{global_avg_pool: true}]}\n"
LINEAR = "name: lin\nblocks:\n  - {avg_pool: 1}\nfinal_head: {layers: [{flatten: true}]}\n"
RESIDUAL = """
name: r
blocks:
  - {conv: 4}
  - {residual: [{conv: 4}, {conv: 4, activation: linear}]}
  - {residual: [{conv: 4}, {conv: 4, activation: linear}]}
final_head: {layers: [{global_avg_pool: true}]}
"""


@pytest.mark.parametrize(
    ("form", "settings"),
    [
        ("proximal", {"momentum": 0.0}),
        ("proximal", {"momentum": 0.9}),
        ("proximal", {"momentum": 0.8, "nesterov": True}),
        ("proximal", {"momentum": 0.9, "momentum_form": "pytorch"}),
        ("subgradient", {"momentum": 0.9}),
    ],
)
def test_the_weight_is_the_factor_in_what_is_minimised_whatever_the_momentum(form, settings):
    """At rest the gradient of the loss is -weight times w / |w| of each filter that is left; cross entropy is convex in these."""
    weight = 0.05
    digits = load_digits()
    images, labels = (digits.images[:200, ..., None] / 16).astype(np.float32), digits.target[:200].astype(np.int32)
    penalty = f"training.regularizers=[{{name: group_lasso, weight: {weight}, form: {form}, of: all}}]"
    network, _, step = setup(
        "end_to_end", spec=LINEAR, more=(penalty,), settings=Sgd(**settings), rate=0.5 * (1 - settings["momentum"]), batch=200
    )
    for _ in range(1500):
        step(tf.constant(images), tf.constant(labels))
    arrays = {key.split("/")[-1]: value.astype(np.float64) for key, value in arrays_of(network).items() if "dense" in key}
    kernel, flat = arrays["kernel"], images.reshape(200, -1).astype(np.float64)
    odds = np.exp(flat @ kernel + arrays["bias"])
    wrong = odds / odds.sum(1, keepdims=True) - np.eye(10)[labels]
    slope, norms = flat.T @ wrong / 200, np.sqrt(np.square(kernel).sum(0))
    left = norms > 1e-3
    assert left.sum() >= 3
    found = -(slope * kernel).sum(0)[left] / norms[left]
    np.testing.assert_allclose(found, weight, rtol=0.05)


def test_maps_of_several_penalties_are_taken_from_entries_to_whole_filters():
    """The map of l1 + group lasso is the soft threshold first (Simon et al. 2013), whichever stands first in the recipe."""
    one, two = "{name: group_lasso, weight: 0.3, of: all}", "{name: l1, weight: 0.2, of: all}"
    found = []
    for penalties in ([one, two], [two, one], []):
        sets = (f"training.regularizers=[{', '.join(penalties)}]",)
        network, _, step = setup("end_to_end", spec=LINEAR, more=sets, settings=Sgd(momentum=0.0), rate=0.5, batch=16)
        images = np.random.default_rng(0).normal(size=(16, 8, 8, 1)).astype(np.float32)
        step(tf.constant(images), tf.constant(np.arange(16, dtype=np.int32) % 10))
        found.append(
            next(value for key, value in arrays_of(network).items() if key.endswith("dense_1/kernel")).astype(np.float64)
        )
    soft = np.sign(found[2]) * np.maximum(np.abs(found[2]) - 0.1, 0)
    norms = np.sqrt(np.square(soft).sum(0))
    expected = soft * np.maximum(1 - np.divide(0.15, norms, out=np.ones_like(norms), where=norms > 0), 0)
    assert np.abs(expected).max() > 0
    for kernel in found[:2]:
        np.testing.assert_allclose(kernel, expected, atol=1e-6)


def layers_of(text):
    arch = architecture(spec_of(text).value.model_copy(update={"input_shape": [8, 8, 1], "classes": 10}))
    return arch, [f"{block.name}/{node.name}" for block in arch.blocks for node in leaves(block.nodes) if "conv" in node.name]


def test_a_channel_is_made_by_what_stands_before_it():
    arch, keys = layers_of(RESIDUAL)
    made = makers(arch, keys)
    stem, first, second = (lambda i: ("block_1/conv_1", i)), (lambda i: ("block_2/conv_2", i)), (lambda i: ("block_3/conv_2", i))
    assert made["block_1/conv_1"] == ((),)  # the image's channel
    assert made["block_2/conv_1"] == tuple((stem(i),) for i in range(4))
    assert made["block_2/conv_2"] == tuple((("block_2/conv_1", i),) for i in range(4))
    assert made["block_3/conv_1"] == tuple((stem(i), first(i)) for i in range(4))
    assert made["head_3/dense_1"] == tuple((stem(i), first(i), second(i)) for i in range(4))
    # Where a side of a sum is there anyway, so is the sum.
    assert makers(arch, [key for key in keys if key != "block_1/conv_1"])["block_3/conv_1"] == ((),) * 4


@pytest.mark.parametrize("groups", [4, 2])
def test_groups_make_their_own_channels(groups):
    text = f"name: d\nblocks:\n  - [{{conv: 4, kernel_size: 1}}, {{conv: 4, groups: {groups}}}, {{conv: 6, kernel_size: 1}}]\n"
    arch, keys = layers_of(text + "final_head: {layers: [{global_avg_pool: true}]}\n")
    made = makers(arch, keys)
    assert made["block_1/conv_3"] == tuple((("block_1/conv_2", i),) for i in range(4))
    assert made["block_1/conv_2"] == tuple((("block_1/conv_1", i),) for i in range(4))


def test_channels_that_nothing_fills_are_not_counted():
    body = "{residual: [{conv: 2}, {conv: 5, activation: linear}], shortcut: pad}"
    arch, keys = layers_of(f"name: p\nblocks: [{{conv: 2}}, {body}, {{conv: 3}}]\n{POOLED}")
    made = makers(arch, keys)["block_3/conv_1"]
    own = tuple((("block_2/conv_2", i),) for i in range(5))
    assert made == tuple(((("block_1/conv_1", i),) if i < 2 else ()) + own[i] for i in range(5))
    arch, keys = layers_of(f"name: q\nblocks: [[{{conv: 2}}, {{place_channels: 4, at: [0, 3]}}], {{conv: 3}}]\n{POOLED}")
    assert makers(arch, keys)["block_2/conv_1"] == ((("block_1/conv_1", 0),), (("block_1/conv_1", 1),))


def test_complexity_of_a_residual_network_by_hand():
    """(34) where nothing enters the first body: its first layer costs nothing, whatever is added to the sum later."""
    arch, keys = layers_of(RESIDUAL)
    rng = np.random.default_rng(0)
    kernels = {key: rng.normal(size=(3, 3, 1 if key == "block_1/conv_1" else 4, 4)) for key in keys}
    kernels["block_1/conv_1"][:] = 0
    penalty = RelaxedCost(Complexity(name="complexity", weight=1.0))
    penalty.entering = {key: Entering(*facts) for key, facts in entering(arch, keys).items()}
    size = {key: np.square(penalty._size.sums(tf.constant(kernel)).numpy()).sum() for key, kernel in kernels.items()}
    norm = {key: np.sqrt(np.square(kernel).sum((0, 1, 2))) for key, kernel in kernels.items()}
    expected = 64 * (
        norm["block_2/conv_1"].sum() * size["block_2/conv_2"]
        + norm["block_2/conv_2"].sum() * size["block_3/conv_1"]  # the stem's channels are zero
        + norm["block_3/conv_1"].sum() * size["block_3/conv_2"]
    )
    given = {key: tf.constant(kernel) for key, kernel in kernels.items()}
    assert float(penalty.value(given)) == pytest.approx(expected, rel=1e-6)


def test_figures_of_penalties_that_share_a_network():
    """Three of four filters of the first layer are zero: the second one reads one channel, whoever penalises the first."""
    text = "name: t\nblocks: [{conv: 4}, {conv: 4}]\nfinal_head: {layers: [{global_avg_pool: true}]}\n"
    spec = spec_of(text).value.model_copy(update={"input_shape": [8, 8, 1], "classes": 10})
    network = build_network(spec, seed=0)
    arrays = network.arrays("block_1")
    arrays["block_1/conv_1/kernel"][..., :3] = 0
    network.load_arrays("block_1", arrays)
    whole = "{name: group_lasso, weight: 0.1, of: hidden}"
    apart = [
        f"{{name: {name}, weight: 0.1, of: ['{block}/*']}}"
        for name, block in (("group_lasso", "block_1"), ("nested_group_lasso", "block_2"))
    ]
    for penalties in ([whole], apart, apart[::-1]):
        sets = ["strategy=end_to_end", f"training.regularizers=[{', '.join(penalties)}]"]
        found = sparsity_of(compile_plan(spec, recipe_of(TINY_RECIPE, *sets).value)[0], network)["sparsity"]
        assert found["block_1/conv_1"]["kernels"] == 1 and found["block_2/conv_1"]["kernels"] == 4
        assert found["block_2/conv_1"]["multiply_adds"] == 64 * 1 * 4 * 9


@pytest.mark.parametrize("penalty", ["group_lasso", "nested_group_lasso"])
def test_kernels_times_their_scales_by_differences(penalty):
    """One step moves both by -rate times the derivative of weight * Omega(kernel * scale), (30), taken in float64."""
    text = f"name: b\nblocks: [{{conv: 3, batch_norm: true}}]\n{POOLED}"
    regularizer = f"{{name: {penalty}, weight: 0.2, form: subgradient, 'on': scaled_kernel, of: hidden}}"
    images = np.random.default_rng(0).normal(size=(16, 8, 8, 1)).astype(np.float32)
    labels, after = np.arange(16, dtype=np.int32) % 10, []
    for more in (f"[{regularizer}]", "[]"):
        network, _, step = setup(
            "end_to_end", spec=text, more=(f"training.regularizers={more}",), settings=Sgd(momentum=0.0), rate=0.5
        )
        arrays = network.arrays("block_1")
        gamma = next(key for key in arrays if key.endswith("gamma"))
        arrays[gamma] = np.array([0.5, -1.5, 2.0], np.float32)
        network.load_arrays("block_1", arrays)
        step(tf.constant(images), tf.constant(labels))
        after.append(network.arrays("block_1"))
    nested = penalty.startswith("nested")
    masks = [np.array(levels(3, "half_rings")) <= number for number in (1, 2, 3)] if nested else [np.ones((3, 3), bool)]

    def omega(kernel, scale):
        product = kernel * scale
        return 0.2 * sum(np.sqrt(np.square(product[mask]).sum((0, 1))).sum() for mask in masks)

    for key in ("block_1/conv_1/kernel", gamma):
        moved = (after[0][key].astype(np.float64) - after[1][key]).reshape(-1)
        for index in range(moved.size):
            ends = []
            for sign in (1, -1):
                values = {name: arrays[name].astype(np.float64).copy() for name in ("block_1/conv_1/kernel", gamma)}
                values[key].reshape(-1)[index] += sign * 1e-6
                ends.append(omega(values["block_1/conv_1/kernel"], values[gamma]))
            assert moved[index] == pytest.approx(-0.5 * (ends[0] - ends[1]) / 2e-6, abs=2e-5), (key, index)
