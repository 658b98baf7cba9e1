"""Positive hard thresholding: the layer against NumPy in float64, its settings, what it counts."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import spec_of, two_devices

from kerasgreedy.errors import SpecError
from kerasgreedy.graph.architecture import architecture
from kerasgreedy.network.build import Network
from kerasgreedy.network.latency import weights_bytes
from kerasgreedy.nn.activations import PositiveHardThreshold
from kerasgreedy.spec.load import as_plain
from kerasgreedy.spec.model import ModelSpec

RNG = np.random.default_rng(7)
MAP = RNG.normal(size=(6, 5, 4, 3)).astype(np.float32)
VECTOR = RNG.normal(size=(9, 3)).astype(np.float32)
THREE = np.array([-0.2, 0.0, 0.3])
HARD = "activation: positive_hard_threshold"
POLICIES = {"float32": 1e-6, "mixed_bfloat16": 1e-2, "mixed_float16": 1e-3}


def built(like=MAP, beta=0.1, **options):
    layer = PositiveHardThreshold(beta, **options)
    layer.build(like.shape)
    return layer


def gradients(layer, q, dy, *variables):
    """y, dy-weighted gradients of q and of variables; as a training step takes them."""
    q, dy = tf.cast(q, layer.compute_dtype), tf.cast(dy, layer.compute_dtype)

    @tf.function
    def run(q, dy):
        with tf.GradientTape() as tape:
            tape.watch(q)
            y = layer(q)
        return y, tape.gradient(y, [q, *(v.value for v in variables)], output_gradients=dy)

    y, found = run(q, dy)
    assert all(g is not None for g in found)
    return y, *found


def rounded(values, layer):
    """As the layer's dtype has them, in float64."""
    return tf.cast(tf.cast(tf.constant(values, tf.float32), layer.compute_dtype), tf.float64).numpy()


@pytest.mark.parametrize("x", [MAP, VECTOR], ids=["map", "vector"])
@pytest.mark.parametrize("beta", [-0.4, 0.0, 0.25])
def test_it_passes_what_is_above_beta_as_it_is(x, beta):
    layer = built(x, beta)
    expected = np.where(x > np.float32(beta), x, np.float32(0))
    np.testing.assert_array_equal(layer(x), expected)
    np.testing.assert_array_equal(layer.supported(x), x > np.float32(beta))
    _, dq = gradients(layer, x, np.full_like(x, 3))
    np.testing.assert_array_equal(dq, 3 * (x > np.float32(beta)))
    assert layer.trainable_variables == [] and len(layer.variables) == 1


def test_by_hand_at_the_edges():
    q = np.array([[0.5, 0.50001, -1.0, np.inf, -np.inf, np.nan]], np.float32)
    y = built(q, 0.5)(q).numpy()
    np.testing.assert_array_equal(y, [[0, np.float32(0.50001), 0, np.inf, 0, np.nan]])
    assert not np.signbit(y[0, :5]).any()
    assert not built(q, 0.5).supported(q)[0, 0] and built(q, 0.5).supported(q)[0, 1]


@pytest.mark.parametrize("x", [MAP, VECTOR], ids=["map", "vector"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("per", ["layer", "channel"])
def test_surrogate_gradient_is_the_formula(per, policy, x):
    """dy/dbeta = -q s'((q - beta) / width) / width with s' = s (1 - s); dy/dq = 1[q > beta]."""
    layer = built(x, per=per, learn="surrogate", width=0.2, dtype=policy)
    beta = THREE if per == "channel" else np.array(0.3)
    layer.beta.assign(beta)
    weight = RNG.normal(size=x.shape)
    y, dq, dbeta = gradients(layer, x, weight, layer.beta)
    q, dy, limit = rounded(x, layer), rounded(weight, layer), rounded(beta, layer)
    assert y.dtype == dq.dtype == layer.compute_dtype and dbeta.dtype == tf.float32
    np.testing.assert_array_equal(tf.cast(y, tf.float64), np.where(q > limit, q, 0))
    np.testing.assert_array_equal(tf.cast(dq, tf.float64), np.where(q > limit, dy, 0))
    s = 1 / (1 + np.exp(-(q - beta) / 0.2))
    expected = (dy * -q * s * (1 - s) / 0.2).sum(axis=tuple(range(x.ndim - 1)) if per == "channel" else None)
    np.testing.assert_allclose(dbeta, expected, rtol=1e-4, atol=1e-4)
    assert [v.path for v in layer.trainable_variables] == [layer.beta.path]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("per", ["layer", "channel"])
def test_warm_up_is_a_relu_with_a_bias_and_hardening_keeps_its_support(per, policy):
    layer = built(per=per, learn="warm_up", dtype=policy)
    assert [v.path for v in layer.trainable_variables] == [layer.bias.path]
    np.testing.assert_array_equal(layer.bias, np.float32(0.1) * np.ones(layer.bias.shape))
    bias = THREE if per == "channel" else np.array(0.3)
    layer.bias.assign(bias)
    weight = RNG.normal(size=MAP.shape)
    q, dy, limit = rounded(MAP, layer), rounded(weight, layer), rounded(bias, layer)
    axes = (0, 1, 2) if per == "channel" else None
    y, dq, dbias = gradients(layer, MAP, weight, layer.bias)
    np.testing.assert_allclose(tf.cast(y, tf.float64), np.maximum(q - limit, 0), atol=3 * POLICIES[policy])
    np.testing.assert_array_equal(tf.cast(dq, tf.float64), np.where(q > limit, dy, 0))
    np.testing.assert_allclose(dbias, -np.where(q > limit, dy, 0).sum(axes), rtol=1e-5, atol=1e-4)
    supported = layer.supported(tf.cast(MAP, layer.compute_dtype))
    np.testing.assert_array_equal(supported, tf.cast(y, tf.float64) > 0)

    layer.harden()
    np.testing.assert_array_equal(layer.beta, layer.bias)
    y, dq, dbias = gradients(layer, MAP, weight, layer.bias)
    np.testing.assert_array_equal(tf.cast(y, tf.float64), np.where(q > limit, q, 0))
    np.testing.assert_array_equal(tf.cast(dq, tf.float64), np.where(q > limit, dy, 0))
    np.testing.assert_array_equal(dbias, np.zeros(layer.bias.shape))
    np.testing.assert_array_equal(layer.supported(tf.cast(MAP, layer.compute_dtype)), supported)
    layer.bias.assign(bias + 1)
    layer.harden()
    np.testing.assert_array_equal(layer.beta, np.float32(bias))


def test_one_graph_is_both_before_and_after_hardening():
    with two_devices().scope():
        layer = built(beta=0.25, learn="warm_up")
        run = tf.function(lambda q: layer(q))
        soft = run(MAP)
        layer.harden()
        hard = run(MAP)
    assert run.experimental_get_tracing_count() == 1
    np.testing.assert_allclose(soft, np.maximum(MAP - 0.25, 0), atol=1e-7)
    np.testing.assert_array_equal(hard, np.where(MAP > 0.25, MAP, 0))


@pytest.mark.parametrize("learn", ["fixed", "surrogate"])
def test_hardening_what_is_hard_changes_nothing(learn):
    layer = built(learn=learn)
    layer.harden()
    np.testing.assert_array_equal(layer(MAP), MAP * layer.supported(MAP).numpy())
    np.testing.assert_array_equal(layer.shift(), 0)


def test_thresholds_learn_in_float32_where_q_is_in_16_bits():
    """Each of 4,096 equal terms: added in bfloat16 they would stop at 256."""
    layer = PositiveHardThreshold(0.0, learn="warm_up", dtype="mixed_bfloat16")
    q = np.ones((4096, 1), np.float32)
    layer.build(q.shape)
    *_, dbias = gradients(layer, q, q, layer.bias)
    assert float(dbias) == -4096


@pytest.mark.parametrize("learn", ["fixed", "warm_up", "surrogate"])
@pytest.mark.parametrize("per", ["layer", "channel"])
def test_it_survives_saving_and_tells_its_output_shape(per, learn, tmp_path):
    layer = PositiveHardThreshold(-0.5, per=per, learn=learn, width=0.3)
    images = keras.Input(MAP.shape[1:])
    model = keras.Model(images, layer(images))
    (layer.beta if layer.bias is None else layer.bias).assign(THREE if per == "channel" else 0.3)
    layer.harden()
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(MAP), model(MAP))
    np.testing.assert_array_equal(again.layers[1].beta, layer.beta)
    assert again.layers[1].get_config() == layer.get_config()
    assert layer.compute_output_shape((None, 5, 4, 3)) == (None, 5, 4, 3)


@pytest.mark.parametrize(("options", "message"), [
    ({"per": "unit"}, "per: received 'unit'; allowed: 'layer', 'channel'"),
    ({"learn": "soft"}, "learn: received 'soft'; allowed: 'fixed', 'warm_up', 'surrogate'"),
    ({"width": 0.0}, "width: received 0.0; allowed: a number above 0"),
])  # fmt: skip
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PositiveHardThreshold(**options)


# Settings.


def layers_of(text):
    """The thresholds of a spec's blocks, as they are lowered."""
    arch = architecture(spec_of(f"name: s\ninput_shape: [8, 8, 2]\nclasses: 3\n{text}").value)
    return [n.layer.threshold for block in arch.blocks for n in block.nodes if getattr(n.layer, "threshold", None)]


def test_a_layer_of_its_own_overrides_key_by_key():
    found = layers_of(
        f"block_defaults: {{{HARD}, threshold: {{beta: 0.2, per: channel, learn: surrogate, width: 0.5}}}}\nblocks:\n"
        "  - {conv: 4}\n"
        f"  - [{{conv: 4, activation: linear}}, {{{HARD}, threshold: {{beta: -1}}}}]\n"
        f"  - [{{conv: 4, activation: relu}}, {{{HARD}, threshold: {{learn: fixed}}}}]\n"
    )
    plain = [threshold.model_dump() for threshold in found]
    assert plain == [
        {"beta": 0.2, "per": "channel", "learn": "surrogate", "width": 0.5},
        {"beta": -1.0, "per": "channel", "learn": "surrogate", "width": 0.5},
        {"beta": 0.2, "per": "channel", "learn": "fixed", "width": None},
    ]


BAD = [
    ("block_defaults: {threshold: {width: 0.2}}\n", "4:30: block_defaults.threshold.width",
     "'width' belongs to learn: surrogate; received learn: fixed"),
    ("block_defaults: {threshold: {learn: surrogat}}\n", "4:30: block_defaults.threshold.learn", "did you mean 'surrogate'"),
    ("block_defaults: {threshold: {beta: .inf}}\n", "4:30: block_defaults.threshold.beta", "received inf; allowed: a finite"),
    ("block_defaults: {threshold: {bta: 1}}\n", "4:30: block_defaults.threshold.bta", "did you mean 'beta'"),
    ("block_defaults: {threshold: {learn: surrogate, width: 0}}\n", "4:48: block_defaults.threshold.width", "received 0"),
    ("blocks: [[{conv: 2}, {activation: relu, threshold: {beta: 1}}]]\n", "4:41: blocks.0.1.threshold",
     "'threshold' belongs to activation: positive_hard_threshold; received activation: relu"),
    ("blocks: [{conv: 2, activation: positive_hard}]\n", "4:20: blocks.0.activation",
     "did you mean 'positive_hard_threshold'"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "place", "message"), BAD)
def test_bad_settings_say_where(text, place, message):
    more = "" if text.startswith("blocks") else "blocks: [{conv: 2}]\n"
    with pytest.raises(SpecError) as error:
        spec_of(f"name: s\ninput_shape: [8, 8, 2]\nclasses: 3\n{text}{more}")
    assert place in str(error.value) and message in str(error.value)


COUNTED = """
name: s
input_shape: [8, 8, 2]
classes: 3
block_defaults: {batch_norm: true, activation: positive_hard_threshold, threshold: {per: %s, learn: %s}}
blocks: [{conv: 4}, {residual: [{conv: 5}, {conv: 4, activation: linear}]}, [{flatten: true}, {dense: 6}]]
auxiliary_head: {hidden_layers: 1}
"""
# Thresholds of block_1 (4), block_2 (5, and 4 after the sum), block_3 (6 units), and head_3 (6): 25 channels in 5 layers.
SIZES = {"layer": 5, "channel": 25}


@pytest.mark.parametrize("learn", ["fixed", "warm_up", "surrogate"])
@pytest.mark.parametrize("per", ["layer", "channel"])
def test_counts_are_those_of_keras_and_of_hand(per, learn):
    spec = spec_of(COUNTED % (per, learn)).value
    assert ModelSpec.model_validate(as_plain(spec)) == spec
    plain = architecture(spec_of(COUNTED % (per, learn), "block_defaults.activation=relu").value)
    arch = architecture(spec)
    network = Network(arch)
    trained = {"fixed": 0, "warm_up": SIZES[per], "surrogate": SIZES[per]}[learn]
    kept = {"fixed": SIZES[per], "warm_up": SIZES[per] + 5, "surrogate": 0}[learn]
    assert arch.parameters == plain.parameters + trained
    assert arch.weights_bytes == weights_bytes(network) == plain.weights_bytes + 4 * (trained + kept)
    for component in arch.components.values():
        model = network.component(component.name)
        assert sum(math.prod(v.shape) for v in model.trainable_variables) == component.parameters


def test_an_infinite_argument_adds_nothing_to_the_gradient_of_a_trained_threshold():
    layer = PositiveHardThreshold(0.5, learn="surrogate", width=0.2)
    q = tf.constant([[-np.inf, 0.4, 2.0]], tf.float32)
    layer.build(q.shape)
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(layer(q))
    s = 1 / (1 + np.exp(-(np.array([0.4, 2.0]) - 0.5) / 0.2))
    expected = -(np.array([0.4, 2.0]) * s * (1 - s)).sum() / 0.2
    np.testing.assert_allclose(tape.gradient(y, layer.beta.value), expected, rtol=1e-5)
