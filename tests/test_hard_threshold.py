"""Positive hard thresholding: the layer against NumPy in float64, its settings, and the package around it."""

import math

import keras
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
from conftest import TINY_RECIPE, same_weights, spec_of, two_devices
from test_finish import network_of
from test_removal import check_equal, random_removal, shaken
from test_step import IMAGES, LABELS, setup

from kerasgreedy.analysis.latency import weights_bytes
from kerasgreedy.build import Network
from kerasgreedy.errors import InputError, SpecError
from kerasgreedy.export.finish_run import Finish, finish_run
from kerasgreedy.export.twin import make_twin
from kerasgreedy.nn.activations import PositiveHardThreshold
from kerasgreedy.pruning.groups import find_coupling
from kerasgreedy.pruning.removal import remove_filters
from kerasgreedy.spec.architecture import architecture
from kerasgreedy.spec.load import as_plain
from kerasgreedy.spec.model import ModelSpec
from kerasgreedy.train.identity import start_as_identity
from kerasgreedy.train.plan import identity_obstacle
from kerasgreedy.train.run import load_network, train_spec

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


# The rest of the package.

TINY = """
name: tiny
block_defaults: {batch_norm: true, activation: %s, threshold: {beta: %s, per: %s, learn: %s}}
blocks:
  - {conv: 4}
  - {conv: 6, downsample: invertible}
  - {residual: [{conv: 6}, {conv: 6, activation: linear}]}
auxiliary_head: {hidden_layers: 1, width: 1x, batch_norm: true}
"""


def train(tmp_path, name, activation, beta, per="layer", learn="fixed", sets=()):
    spec, recipe = tmp_path / "s.yaml", tmp_path / "r.yaml"
    spec.write_text(TINY % (activation, beta, per, learn))
    recipe.write_text(TINY_RECIPE)
    return train_spec(spec, recipe, list(sets), tmp_path / name, quiet=True)


STRATEGIES = ["greedy", "decoupled", "end_to_end", "deep_supervision", "random_features", "dsd"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_trains_with_it(tmp_path, strategy):
    sets = [f"strategy={strategy}", "training.epochs=1"]
    if strategy == "dsd":
        sets.append("dsd={schedule: {name: constant_sparsity, target_sparsity: 0.5, begin_step: 0, end_step: 1}}")
    run = train(tmp_path, "run", "positive_hard_threshold", 0.1, sets=sets)
    network = load_network(run.workdir)
    for name in network.names:
        same_weights(network.arrays(name), run.network.arrays(name))
        thresholds = [v for key, v in network.arrays(name).items() if "activation" in key]
        assert thresholds and all(value == np.float32(0.1) for value in thresholds)
    images = RNG.normal(size=(7, 8, 8, 1)).astype(np.float32)
    passed = network.blocks[0](images).numpy()
    assert ((passed == 0) | (passed > 0.1)).all() and (passed > 0.1).any() and (passed == 0).any()
    raw = RNG.integers(0, 256, (5, 8, 8, 1)).astype(np.float32)
    saved = keras.models.load_model(run.workdir / "model.keras")
    np.testing.assert_array_equal(saved(raw)["ensemble"], network.model(saved_depths(saved))(raw)["ensemble"])


def saved_depths(model):
    return [int(name.removeprefix("depth_")) for name in model.output if name != "ensemble"]


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_a_fixed_beta_of_0_trains_as_relu_bit_for_bit(tmp_path, precision):
    sets = ["strategy=deep_supervision", f"precision={precision}"]
    one, two = (train(tmp_path, name, name, 0.0, sets=sets).network for name in ("relu", "positive_hard_threshold"))
    for name in one.names:
        same_weights(one.arrays(name), {k: v for k, v in two.arrays(name).items() if "activation" not in k})


@pytest.mark.parametrize("learn", ["warm_up", "surrogate"])
def test_a_step_moves_thresholds_and_two_replicas_agree(learn):
    """Hardened between two steps, in the same graph: beta stands still from then on; momentum may still move the unread bias."""
    tiny = TINY % ("positive_hard_threshold", 0.1, "channel", learn)
    key = f"block_1/activation_1/{'beta' if learn == 'surrogate' else 'bias'}"
    found = []
    for strategy in (tf.distribute.get_strategy(), two_devices()):
        with strategy.scope():
            network, _, step = setup("end_to_end", tiny, strategy=strategy, rate=0.01)
        batch = strategy.experimental_distribute_dataset(tf.data.Dataset.from_tensors((IMAGES, LABELS)).unbatch().batch(16))
        step(*next(iter(batch)))
        first = network.arrays("block_1")
        assert (first[key] != np.float32(0.1)).all()
        with strategy.scope():
            for name in network.names:
                for layer in network.component(name).layers:
                    if isinstance(layer, PositiveHardThreshold):
                        layer.harden()
        step(*next(iter(batch)))
        second = network.arrays("block_1")
        assert (second["block_1/conv_1/kernel"] != first["block_1/conv_1/kernel"]).any()
        if learn == "warm_up":
            np.testing.assert_array_equal(second["block_1/activation_1/beta"], first[key])
            assert second["block_1/activation_1/hard"] == 1
        found.append(second)
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("learn", ["warm_up", "surrogate"])
def test_thresholds_are_trained_saved_and_pruned_with_their_filters(tmp_path, learn):
    sets = ["prune={keep: 0.5, fine_tune: {epochs: 1}}"]
    run = train(tmp_path, "run", "positive_hard_threshold", 0.1, "channel", learn, sets)
    trained = "beta" if learn == "surrogate" else "bias"
    arrays = load_network(run.workdir).arrays("block_1")
    same_weights(arrays, run.network.arrays("block_1"))
    threshold = arrays[f"block_1/activation_1/{trained}"]
    assert threshold.shape == (2,) and (threshold != np.float32(0.1)).all()


EVERYTHING = """
name: everything
input_shape: [8, 8, 3]
classes: 5
block_defaults: {batch_norm: true, activation: positive_hard_threshold, threshold: {beta: 0.1, per: %s, learn: %s}}
blocks:
  - {conv: 8}
  - [{conv: 8, downsample: invertible, batch_norm: false}, {upsample: invertible}, {conv: 8, groups: 2}]
  - [{downsample: invertible}, {activation: positive_hard_threshold, threshold: {beta: -0.1, per: channel}}, {conv: 6}]
  - {residual: [{conv: 16, activation: linear}], shortcut: pad}
  - [{branches: [[{conv: 4}], [{conv: 5}, {conv: 3}], []]}, {activation: positive_hard_threshold}]
  - [{conv: 9}, {flatten: true}, {activation: positive_hard_threshold}, {dense: 12, batch_norm: true}]
auxiliary_head: {hidden_layers: 1, width: 2x, batch_norm: true}
"""


@pytest.mark.parametrize("learn", ["fixed", "warm_up", "surrogate"])
@pytest.mark.parametrize("per", ["layer", "channel"])
def test_removed_equals_masked(per, learn):
    check_equal(spec_of(EVERYTHING % (per, learn)).value, seed=1)


def test_thresholds_of_the_filters_that_stay_are_theirs():
    spec = spec_of(EVERYTHING % ("channel", "warm_up")).value
    network = Network(architecture(spec))
    shaken(network, 3)
    coupling = find_coupling(network.architecture)
    removed = random_removal(coupling, 3)
    smaller, _ = remove_filters(network, spec, coupling, coupling.labels(removed))
    gone = removed["block_1/conv_1"]
    assert 0 < len(gone) < 8
    for name in ("beta", "bias"):
        key = f"block_1/activation_1/{name}"
        np.testing.assert_array_equal(smaller.arrays("block_1")[key], np.delete(network.arrays("block_1")[key], gone))
    key = "block_1/activation_1/hard"
    assert smaller.arrays("block_1")[key] == network.arrays("block_1")[key]


IDENTITY = """
name: s
input_shape: [8, 8, 2]
classes: 3
blocks:
  - [{conv: 5, activation: linear}, {%s}]
  - [{conv: 5, activation: linear}, {%s}]
"""


def hard(**settings):
    inside = ", ".join(f"{key}: {value}" for key, value in settings.items())
    return f"{HARD}, threshold: {{{inside}}}"


@pytest.mark.parametrize(("first", "second", "allowed"), [
    (hard(beta=0.3), hard(beta=0.3), True),
    (hard(beta=0.3), hard(beta=0.1), True),
    (hard(beta=0.3), "activation: relu", True),
    ("activation: relu", hard(beta=0), True),
    ("activation: relu", hard(beta=0.1), False),
    (hard(beta=0.1), hard(beta=0.3), False),
    (hard(beta=-0.1), hard(beta=-0.1), False),
    (hard(beta=0.1), hard(beta=0.1, per="channel"), False),
    (hard(beta=0.1, learn="surrogate"), hard(beta=0.1), False),
    (hard(beta=0.1), hard(beta=0.1, learn="warm_up"), False),
    ("activation: elu", hard(beta=0), False),
])  # fmt: skip
def test_a_block_starts_as_the_identity_where_its_threshold_changes_nothing(first, second, allowed):
    network = Network(architecture(spec_of(IDENTITY % (first, second)).value))
    obstacle = identity_obstacle(network.architecture, 1)
    assert (not obstacle) == allowed
    assert allowed or "block_1 and block_2 must end in relu, or in positive_hard_threshold with the same one fixed" in obstacle
    if allowed:
        start_as_identity(network, 1)
        one, two = network.logits(RNG.normal(size=(9, 8, 8, 2)).astype(np.float32))
        np.testing.assert_array_equal(one, two)


def test_the_twin_for_clustering_has_its_thresholds():
    network = network_of(f"[{{conv: 4, {HARD}}}, {{conv: 5, activation: linear}}, {{{hard(per='channel', learn='warm_up')}}}]")
    layers = [network.component("block_2").get_layer(f"activation_{number}") for number in (1, 2)]
    layers[0].beta.assign(0.2)
    layers[1].bias.assign(np.linspace(-0.3, 0.5, 5))
    x = np.random.default_rng(1).normal(0, 2, (5, 8, 8, 3)).astype(np.float32)
    for _ in range(2):
        expected = network.logits(x, [2])[0].numpy()
        twin = make_twin(network, 2, "cluster")
        np.testing.assert_allclose(twin(x, training=False).numpy(), expected, atol=1e-5 * max(1, np.abs(expected).max()))
        layers[1].harden()
    with pytest.raises(
        InputError, match="block_2, layer activation_1: TFMOT cannot quantise positive_hard_threshold .*cluster works"
    ):
        make_twin(network, 2, "quantize")


def test_clustering_a_run_leaves_its_thresholds(tmp_path):
    """Trained per channel, and not trained further."""
    sets = ["strategy=end_to_end", "training.epochs=1", "training.keep=last"]
    run = train(tmp_path, "run", "positive_hard_threshold", 0.1, "channel", "surrogate", sets)
    results = finish_run(run.workdir, tmp_path / "out", Finish("cluster", epochs=1, clusters=5), quiet=True)
    assert set(results["distinct_values"].values()) == {5}
    stored = safetensors.numpy.load_file(tmp_path / "out/weights.safetensors")
    thresholds = {key: value for key, value in run.network.arrays("block_1").items() if "activation" in key}
    assert thresholds and (thresholds["block_1/activation_1/beta"] != np.float32(0.1)).any()
    same_weights(thresholds, {key: stored[key] for key in thresholds})


def test_the_twin_of_a_threshold_of_0_is_a_relu_for_both_methods():
    network = network_of(f"{{conv: 4, {HARD}}}")
    network.component("block_2").get_layer("activation_1").beta.assign(0)
    for method in ("quantize", "cluster"):
        assert make_twin(network, 2, method).get_layer("block_2.activation_1").get_config()["activation"] == "relu"
