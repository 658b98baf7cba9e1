"""The package around positive hard thresholding: training, removal of filters, identity start, finishing."""

from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
from conftest import TINY_RECIPE, same_weights, some, spec_of, two_devices
from networks import check_equal, network_of, random_removal, shaken
from one_step import IMAGES, LABELS, setup

from kerasgreedy.errors import InputError
from kerasgreedy.export.tfmot.finish_run import Finish, finish_run
from kerasgreedy.export.tfmot.twin import make_twin
from kerasgreedy.graph.architecture import architecture
from kerasgreedy.graph.coupling import find_coupling
from kerasgreedy.network.build import Network
from kerasgreedy.network.identity import start_as_identity
from kerasgreedy.network.surgery import remove_filters
from kerasgreedy.nn.activations import PositiveHardThreshold
from kerasgreedy.plan.strategies import identity_obstacle
from kerasgreedy.train.entry_points import load_network, train_spec

RNG = np.random.default_rng(7)
HARD = "activation: positive_hard_threshold"

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


@pytest.mark.parametrize("strategy", some(*STRATEGIES[:2], slow=STRATEGIES[2:]))
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


@pytest.mark.slow
@pytest.mark.parametrize("precision", some("mixed_bfloat16", slow=["float32"]))
def test_a_fixed_beta_of_0_trains_as_relu_bit_for_bit(tmp_path, precision):
    """But for rounding where TensorFlow fuses a trained convolution, its bias and a relu into one kernel: without AVX-512."""
    exact = "avx512f" in Path("/proc/cpuinfo").read_text()
    sets = ["strategy=deep_supervision", f"precision={precision}"]
    one, two = (train(tmp_path, name, name, 0.0, sets=sets).network for name in ("relu", "positive_hard_threshold"))
    for name in one.names:
        ours, theirs = one.arrays(name), {k: v for k, v in two.arrays(name).items() if "activation" not in k}
        if exact:
            same_weights(ours, theirs)
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            np.testing.assert_allclose(theirs[key], value, atol=3e-6 if precision == "float32" else 3e-2, err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("learn", some("warm_up", slow=["surrogate"]))
def test_a_step_moves_thresholds_and_two_replicas_agree(learn):
    """Hardened between two steps, in the same graph: beta stands still from then on; momentum may still move the unread bias."""
    tiny = TINY % ("positive_hard_threshold", 0.1, "channel", learn)
    key = f"block_1/activation_1/{'beta' if learn == 'surrogate' else 'bias'}"
    found = []
    warm = ["training.solver={name: alternation, mode: batch, warm_up_epochs: 1}"] if learn == "warm_up" else []
    for strategy in (tf.distribute.get_strategy(), two_devices()):
        with strategy.scope():
            network, _, step = setup("end_to_end", tiny, strategy=strategy, rate=0.01, more=warm)
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


@pytest.mark.slow
@pytest.mark.parametrize("learn", some("warm_up", slow=["surrogate"]))
def test_thresholds_are_trained_saved_and_pruned_with_their_filters(tmp_path, learn):
    sets = ["prune={keep: 0.5, fine_tune: {epochs: 1}}"]
    if learn == "warm_up":
        sets.append("training.solver={name: alternation, mode: batch, warm_up_epochs: 1}")
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


@pytest.mark.slow
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
