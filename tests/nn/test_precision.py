"""Fused batch norm against Keras's own, reduced precision, loss scaling, accumulation."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY_SPEC, some, two_devices, weights
from one_step import IMAGES, LABELS, NO_DROPOUT, arrays_of, setup

from kerasgreedy.errors import InputError
from kerasgreedy.graph.architecture import architecture
from kerasgreedy.network.build import Network
from kerasgreedy.nn.batch_norm import FusedBatchNormalization
from kerasgreedy.solvers.schedules import make_optimizer
from kerasgreedy.solvers.step import TrainStep
from kerasgreedy.spec.training import Sgd
from kerasgreedy.train.entry_points import train_spec
from kerasgreedy.train.evaluating import evaluate_run

RNG = np.random.default_rng(4)
MAP = RNG.normal(2, 3, (5, 4, 4, 6)).astype(np.float32)
NO_NORM = NO_DROPOUT.replace("batch_norm: true", "batch_norm: false")


def test_fused_batch_norm_is_the_formula():
    """y = gamma (x - m) / sqrt(v + e) + beta; moving <- 0.9 moving + 0.1 batch, with the variance over n, in float64."""
    layer = FusedBatchNormalization(momentum=0.9, epsilon=1e-3)
    layer.build(MAP.shape)
    gamma, beta = RNG.normal(size=6), RNG.normal(size=6)
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)
    x = MAP.astype(np.float64)
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    np.testing.assert_allclose(
        layer(MAP, training=True), gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(layer.moving_mean, 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * variance, rtol=1e-5)
    mean, variance = 0.1 * mean, 0.9 + 0.1 * variance
    np.testing.assert_allclose(layer(MAP), gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}], ids=str)
def test_fused_batch_norm_and_its_gradient_are_those_of_keras(policy, options):
    layers = [kind(dtype=policy, **options) for kind in (FusedBatchNormalization, keras.layers.BatchNormalization)]
    results = []
    for layer in layers:
        x = tf.constant(MAP)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            loss = tf.reduce_sum(tf.sin(tf.cast(y, tf.float32)))
        weights_ = [v.value for v in layer.trainable_variables]
        gradients = tape.gradient(loss, [x, *weights_])
        assert keras.backend.standardize_dtype(y.dtype) == keras.DTypePolicy(policy).compute_dtype
        assert {str(v.dtype) for v in layer.variables} == {"float32"}
        results.append([tf.cast(v, tf.float32).numpy() for v in (y, *gradients, *layer.variables, layer(x))])
    coarse = {"float32": 1e-4, "mixed_bfloat16": 2e-2, "mixed_float16": 3e-3}[policy]
    for fused, own in zip(*results, strict=True):
        np.testing.assert_allclose(fused, own, atol=coarse * max(1, np.abs(own).max()))


def test_frozen_vectors_and_masks_take_keras_own_way():
    layer = FusedBatchNormalization()
    vectors = MAP[:, 0, 0]
    np.testing.assert_allclose(layer(vectors, training=True).numpy().mean(0), 0, atol=1e-5)
    frozen = FusedBatchNormalization(trainable=False)
    frozen(MAP, training=True)
    np.testing.assert_array_equal(frozen.moving_mean, np.zeros(6))
    config = FusedBatchNormalization(momentum=0.8, name="x").get_config()
    assert FusedBatchNormalization.from_config(config).momentum == 0.8


def spec_network(spec=TINY_SPEC):
    from conftest import spec_of

    return Network(architecture(spec_of(spec).value, (8, 8, 1), 10), seed=5)


def test_a_network_changes_its_precision_and_keeps_its_weights():
    network = spec_network()
    exact = [z.numpy() for z in network.logits(IMAGES)]
    before = arrays_of(network)
    network.compute_in("mixed_bfloat16")
    assert network.blocks[0](IMAGES).dtype == tf.bfloat16
    for z, rounded in zip(exact, network.logits(IMAGES), strict=True):
        assert rounded.dtype == tf.float32
        assert 0 < np.abs(z - rounded).max() < 0.05 * np.abs(z).max() + 0.02
    for name in network.names:
        for key, variable in network.variables(name).items():
            assert "seed" in key or variable.dtype == "float32", key
            np.testing.assert_array_equal(variable, before[key])
    network.model()
    for z, again in zip(exact, network.logits(IMAGES), strict=True):
        np.testing.assert_array_equal(z, again)


@pytest.mark.parametrize(
    ("policy", "strategy"),
    some(
        ("mixed_bfloat16", two_devices), ("mixed_float16", None), slow=[("mixed_bfloat16", None), ("mixed_float16", two_devices)]
    ),
)
def test_reduced_precision_follows_float32_and_leaves_float32_state(policy, strategy):
    losses = {}
    for precision in ("float32", policy):
        network, phase, _ = setup("greedy", NO_DROPOUT, index=1, decay=1e-3, strategy=strategy and strategy())
        distributed = tf.distribute.get_strategy() if strategy is None else two_devices()
        with distributed.scope():
            network = Network(network.architecture, seed=5)
            network.compute_in(precision)
            optimizer = make_optimizer(Sgd(weight_decay=1e-3), np.array([0.05], np.float32), precision)
        step = TrainStep(network, phase, optimizer, distributed)
        batch = (IMAGES, LABELS)
        if strategy:
            (batch,) = list(distributed.experimental_distribute_dataset(tf.data.Dataset.from_tensors(batch).unbatch().batch(16)))
        losses[precision] = [float(step(*batch)["head_2"][0]) / 16 for _ in range(6)]
        slots = [v for v in optimizer.variables if "iteration" not in v.name and "counter" not in v.name]
        assert {str(v.dtype) for v in slots} == {"float32"}
    np.testing.assert_allclose(losses[policy], losses["float32"], rtol=0.03)
    assert losses[policy][-1] < losses[policy][0]


def test_the_scaled_loss_gives_the_update_of_the_unscaled_one():
    """In float32 arithmetic scaling by a power of two changes nothing, coupled decay included."""
    results = []
    for precision in ("float32", "mixed_float16"):
        network, phase, _ = setup("greedy", NO_DROPOUT, decay=1e-2)
        step = TrainStep(
            network,
            phase,
            make_optimizer(Sgd(), np.array([0.05], np.float32), precision),
            tf.distribute.get_strategy(),
        )
        for _ in range(3):
            step(IMAGES, LABELS)
        results.append(arrays_of(network))
    for key, value in results[0].items():
        np.testing.assert_allclose(results[1][key], value, rtol=1e-5, atol=1e-6, err_msg=key)


def test_an_overflowing_step_is_skipped_and_the_scale_halved():
    network, phase, _ = setup("greedy", NO_DROPOUT)
    optimizer = make_optimizer(Sgd(), np.array([0.05], np.float32), "mixed_float16")
    step = TrainStep(network, phase, optimizer, tf.distribute.get_strategy())
    optimizer.dynamic_scale.assign(3e38)
    before = [v.numpy() for v in step.variables]
    step(IMAGES * 100, LABELS)
    for variable, value in zip(step.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert float(optimizer.dynamic_scale.numpy()) == pytest.approx(1.5e38)


@pytest.mark.parametrize("strategy_name", ["greedy", "decoupled", "end_to_end"])
def test_accumulated_parts_give_the_update_of_the_whole_batch(strategy_name):
    results = []
    for parts in (1, 4):
        network, phase, _ = setup(strategy_name, NO_NORM, decay=1e-3)
        training = phase.training.model_copy(update={"accumulation": parts})
        from dataclasses import replace

        step = TrainStep(
            network,
            replace(phase, training=training),
            make_optimizer(Sgd(), np.array([0.05], np.float32)),
            tf.distribute.get_strategy(),
        )
        sums = [np.concatenate(list(map(np.asarray, step(IMAGES, LABELS).values()))) for _ in range(4)]
        results.append((arrays_of(network), sums))
    np.testing.assert_allclose(results[1][1], results[0][1], rtol=1e-5)
    for key, value in results[0][0].items():
        np.testing.assert_allclose(results[1][0][key], value, atol=1e-5, err_msg=key)


def test_accumulated_batch_norm_sees_a_part_at_a_time():
    """Two parts move the statistics twice: 0.81 m + 0.09 a + 0.1 b for batch means a and b of the parts."""
    from dataclasses import replace

    network, phase, _ = setup("greedy", NO_DROPOUT)
    phase = replace(phase, training=phase.training.model_copy(update={"accumulation": 2}))
    kernel = network.arrays("block_1")["block_1/conv_1/kernel"]
    step = TrainStep(network, phase, make_optimizer(Sgd(), np.array([0.0], np.float32)), tf.distribute.get_strategy())
    step(IMAGES, LABELS)
    a, b = (tf.nn.conv2d(IMAGES[part], kernel, 1, "SAME").numpy().mean((0, 1, 2)) for part in (slice(8), slice(8, 16)))
    moving = network.arrays("block_1")["block_1/batch_norm_1/moving_mean"]
    np.testing.assert_allclose(moving, 0.09 * a + 0.1 * b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "overrides",
    some(
        ["precision=mixed_bfloat16", "training.accumulation=4", "strategy=decoupled"],
        slow=[["precision=mixed_float16"], ["precision=mixed_bfloat16"], ["prefix_precision=mixed_bfloat16"]],
    ),
    ids=str,
)
def test_whole_runs_in_reduced_precision_leave_float32_models(finished, files, tmp_path, overrides):
    run = train_spec(*files, overrides, tmp_path / "run", quiet=True)
    assert {str(v.dtype) for k, v in weights(run.workdir).items() if "seed" not in k and "iteration" not in k} <= {
        "float32",
        "int32",
    }
    scores = evaluate_run(run.workdir)
    assert scores["depths"] == run.results["depths"]
    model = keras.models.load_model(run.workdir / "model.keras")
    raw = RNG.integers(0, 256, (5, 8, 8, 1)).astype(np.float32)
    assert model(raw)["depth_3"].dtype == tf.float32
    np.testing.assert_allclose(model(raw)["depth_3"], run.network.model()(raw)["depth_3"], atol=1e-5)
    plan = json.loads((run.workdir / "plan.json").read_text())
    assert plan[0]["precision"] == (overrides[0].split("=")[1] if overrides[0].startswith("precision") else "float32")
    if not overrides[0].startswith("precision"):
        key = "block_1/conv_1/kernel"  # the first block has no prefix: nothing of it may change
        np.testing.assert_array_equal(weights(run.workdir)[key], weights(finished.workdir)[key])


@pytest.mark.parametrize("spec", [NO_NORM, NO_DROPOUT], ids=["plain", "batch_norm"])
def test_accumulated_parts_on_two_devices_give_the_update_of_one(spec):
    """Examples are handed out so that a part holds the same ones on two devices as on one: batch norm sees a part at a time."""
    from dataclasses import replace

    two_parts = [*range(4), *range(8, 12), *range(4, 8), *range(12, 16)]
    results = []
    for strategy, order in ((tf.distribute.get_strategy(), range(16)), (two_devices(), two_parts)):
        network, phase, _ = setup("greedy", spec, decay=1e-3, strategy=strategy)
        phase = replace(phase, training=phase.training.model_copy(update={"accumulation": 2}))
        with strategy.scope():
            optimizer = make_optimizer(Sgd(), np.array([0.01], np.float32))
        step = TrainStep(network, phase, optimizer, strategy)
        batches = tf.data.Dataset.from_tensors((IMAGES[list(order)], LABELS[list(order)])).unbatch().batch(16)
        for batch in [*strategy.experimental_distribute_dataset(batches)] * 3:
            step(*batch)
        results.append(arrays_of(network))
    for key, value in results[0].items():
        np.testing.assert_allclose(results[1][key], value, atol=1e-5, err_msg=key)


def test_an_overflow_on_the_second_device_is_an_overflow():
    """Keras's loss scaling looks at the first replica only."""
    strategy = two_devices()
    network, phase, _ = setup("greedy", NO_NORM, strategy=strategy)
    with strategy.scope():
        optimizer = make_optimizer(Sgd(), np.array([0.05], np.float32), "mixed_float16")
    step = TrainStep(network, phase, optimizer, strategy)
    images = IMAGES.copy()
    images[8:] *= 1e30
    before = [keras.ops.convert_to_numpy(v) for v in step.variables]
    batches = tf.data.Dataset.from_tensors((images, LABELS)).unbatch().batch(16)
    (batch,) = list(strategy.experimental_distribute_dataset(batches))
    optimizer.dynamic_scale.assign(1e20)
    step(*batch)
    for variable, value in zip(step.variables, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)
    assert float(keras.ops.convert_to_numpy(optimizer.dynamic_scale)) == pytest.approx(0.5e20)


def test_parts_must_be_equal_on_all_devices(files, tmp_path):
    with pytest.raises(InputError, match="batch size 32 cannot be divided into 32 equal parts on 2 devices"):
        train_spec(*files, ["training.accumulation=32"], tmp_path / "run", strategy=two_devices(), quiet=True)
