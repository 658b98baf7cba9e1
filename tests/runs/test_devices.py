"""Copies of the network on several devices, and what `--devices` and TF_CONFIG may say."""

import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY_SPEC, recipe_of, some, two_devices
from one_step import arrays_of, setup

from kerasgreedy.data.distributed import distributed
from kerasgreedy.data.parts import sharded_rows
from kerasgreedy.errors import InputError
from kerasgreedy.network.build import Network
from kerasgreedy.nn.batch_norm import FusedBatchNormalization
from kerasgreedy.nn.dropout import ReplicaDropout
from kerasgreedy.runs.devices import Devices, check_tf_config, open_devices, own_devices
from kerasgreedy.spec.training import Adam, Sgd
from kerasgreedy.train import signals
from kerasgreedy.train.signals import StopRequest

NO_DROPOUT = TINY_SPEC.replace("{dropout: 0.25}", "{activation: relu}")
NO_NORM = NO_DROPOUT.replace("batch_norm: true", "batch_norm: false")
STEPS = 20


def train(strategy_name, spec, settings, strategy=None, clip=None, synchronized=True, batch=16, more=()):
    """Weights and sums after 20 steps at a small rate."""
    network, _, step = setup(
        strategy_name, spec, strategy=strategy, settings=settings, rate=0.003, decay=1e-3, batch=batch,
        clip=clip, synchronized=synchronized, more=more,
    )  # fmt: skip
    rng = np.random.default_rng(9)
    sums = []
    for _ in range(STEPS):
        data = (rng.normal(size=(batch, 8, 8, 1)).astype(np.float32), rng.integers(0, 10, batch).astype(np.int32))
        if strategy is not None:
            dataset = tf.data.Dataset.from_tensors(data).unbatch().batch(batch)
            (data,) = list(strategy.experimental_distribute_dataset(dataset))
        sums.append(np.concatenate([v.numpy() for v in step(*data).values()]))
    return arrays_of(network), np.array(sums)


SGD, ADAM = Sgd(weight_decay=0), Adam(name="adam")
OFTEN = [("greedy", True, SGD), ("end_to_end", False, ADAM)]
EVERY = [
    (name, norm, settings) for name in ("greedy", "decoupled", "end_to_end") for norm in (True, False) for settings in (SGD, ADAM)
]


@pytest.mark.parametrize(("strategy_name", "norm", "settings"), some(*OFTEN, slow=[case for case in EVERY if case not in OFTEN]))
def test_two_devices_equal_one(strategy_name, norm, settings):
    """Synchronised batch norm, clipping (at a norm that most gradients pass), coupled decay, an odd batch."""
    spec = NO_DROPOUT if norm else NO_NORM
    batch = 16 if norm else 15  # 8 and 7
    one, sums_one = train(strategy_name, spec, settings, clip=0.5, batch=batch)
    two, sums_two = train(strategy_name, spec, settings, two_devices(), clip=0.5, batch=batch)
    np.testing.assert_allclose(sums_two, sums_one, rtol=1e-5)
    for key, value in one.items():
        np.testing.assert_allclose(two[key], value, atol=1e-5, err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy_name", "settings"),
    some(
        ("greedy", SGD),
        slow=[("end_to_end", ADAM), ("greedy", ADAM), ("end_to_end", SGD), ("decoupled", SGD), ("decoupled", ADAM)],
    ),
)
def test_two_devices_without_synchronised_batch_norm_equal_one_that_accumulates(strategy_name, settings):
    """Halves of the batch, each by its own statistics: at the same time on two devices, one after the other on one.

    Moving statistics differ: two steps of the mean's own against one towards the mean of both.
    """
    halves = ("training.accumulation=2",)
    one, sums_one = train(strategy_name, NO_DROPOUT, settings, clip=0.5, more=halves)
    two, sums_two = train(strategy_name, NO_DROPOUT, settings, two_devices(), clip=0.5, synchronized=False)
    np.testing.assert_allclose(sums_two, sums_one, rtol=1e-5)
    compared = [key for key in one if "moving_" not in key]
    assert any("gamma" in key for key in compared)
    for key in compared:
        np.testing.assert_allclose(two[key], one[key], atol=1e-5, err_msg=key)


def test_clipping_by_hand():
    """One step of plain SGD: the weights move by rate * clip along the gradient, and by rate * gradient below the norm."""
    moves = {}
    for clip in (None, 0.1, 1e6):
        network, _, step = setup("end_to_end", NO_NORM, settings=Sgd(momentum=0.0), rate=0.1, clip=clip)
        before = arrays_of(network)
        rng = np.random.default_rng(0)
        step(rng.normal(size=(16, 8, 8, 1)).astype(np.float32), rng.integers(0, 10, 16).astype(np.int32))
        after = arrays_of(network)
        moves[clip] = np.concatenate([(after[key] - before[key]).ravel().astype(np.float64) for key in sorted(before)])
    length = np.linalg.norm(moves[None])
    assert length > 0.1 * 0.1
    np.testing.assert_allclose(moves[1e6], moves[None], atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(moves[0.1]), 0.1 * 0.1, rtol=1e-3)
    np.testing.assert_allclose(moves[0.1] / np.linalg.norm(moves[0.1]), moves[None] / length, atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 3, 2, 4), (8, 4)], ids=["map", "vector"])
def test_each_device_normalises_its_share_and_statistics_stay_the_same_everywhere(shape):
    """Against NumPy: outputs by the statistics of each half, moving ones by the mean of both halves' statistics."""
    x = np.random.default_rng(0).normal(2, 3, shape).astype(np.float32)
    strategy = two_devices()
    with strategy.scope():
        layer = FusedBatchNormalization(momentum=0.9, epsilon=1e-5)
        layer.build((None, *shape[1:]))
    data = tf.data.Dataset.from_tensors(x).unbatch().batch(8)
    (batch,) = list(strategy.experimental_distribute_dataset(data))
    run = tf.function(lambda b: strategy.run(lambda z: layer(z, training=True), args=(b,)))
    outputs = [value.numpy() for value in strategy.experimental_local_results(run(batch))]
    axes = tuple(range(len(shape) - 1))
    means, variances = [], []
    for half, output in zip((x[:4], x[4:]), outputs, strict=True):
        half = half.astype(np.float64)
        means.append(half.mean(axes))
        variances.append(half.var(axes))
        np.testing.assert_allclose(output, (half - means[-1]) / np.sqrt(variances[-1] + 1e-5), atol=1e-4)
    for variable, start, found in ((layer.moving_mean, 0.0, means), (layer.moving_variance, 1.0, variances)):
        expected = 0.9 * start + 0.1 * np.mean(found, 0)
        for copy in strategy.experimental_local_results(variable.value):
            np.testing.assert_allclose(copy.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_batch_norm_by_share_differs_from_that_of_the_global_batch():
    """So that the option is not read and ignored."""
    whole, _ = train("end_to_end", NO_DROPOUT, Sgd(), two_devices())
    shares, _ = train("end_to_end", NO_DROPOUT, Sgd(), two_devices(), synchronized=False)
    assert max(np.abs(whole[key] - shares[key]).max() for key in whole) > 1e-3


def test_each_device_drops_others_and_a_restored_state_drops_the_same():
    """On one device as Keras does; on two, masks of rate 0.4 that differ between devices and between calls."""
    x = np.ones((2, 4000), np.float32)
    ours, stock = ReplicaDropout(0.4, seed=3), keras.layers.Dropout(0.4, seed=3)
    np.testing.assert_array_equal(ours(x, training=True), stock(x, training=True))
    np.testing.assert_array_equal(ours(x, training=False), x)
    strategy = two_devices()
    with strategy.scope():
        layer = ReplicaDropout(0.4, seed=3)
    data = tf.data.Dataset.from_tensors(x).unbatch().batch(2)
    (batch,) = list(strategy.experimental_distribute_dataset(data))
    run = tf.function(lambda b: strategy.run(lambda z: layer(z, training=True), args=(b,)))
    state = layer.seed_generator.state
    calls, before = [], state.numpy()
    for call in range(3):
        if call == 2:
            state.assign(before)
        calls.append([value.numpy()[0] for value in strategy.experimental_local_results(run(batch))])
    np.testing.assert_array_equal(calls[2], calls[0])
    masks = np.array([mask for each in calls[:2] for mask in each]) > 0
    assert np.unique(np.array(calls)).tolist() == pytest.approx([0, 1 / 0.6])
    np.testing.assert_allclose(masks.mean(1), 0.6, atol=0.04)
    for one, two in itertools.combinations(masks, 2):  # independent: both keep a place with 0.36
        np.testing.assert_allclose((one & two).mean(), 0.36, atol=0.04)


def test_when_batch_norm_is_synchronised():
    for overrides, replicas, expected in [
        ((), 1, False),
        (("training.batch_size=64",), 2, False),  # 32 each
        (("training.batch_size=62",), 2, True),
        (("training.batch_size=128", "training.accumulation=4"), 2, True),  # 16 at a time
        (("training.batch_size=64", "sync_batch_norm=true"), 2, True),
        (("training.batch_size=8", "sync_batch_norm=false"), 2, False),
        (("training.batch_size=8", "sync_batch_norm=true"), 1, False),
    ]:
        recipe = recipe_of("name: r\ndata: {dataset: digits}\ntraining: {epochs: 1}\n", *overrides)
        assert recipe.value.synchronizes(replicas) is expected, (overrides, replicas)


def test_rows_of_shards_by_hand():
    """Seven rows, batches of 4 for 2 workers: the first half of each batch holds even rows, the second odd ones."""
    assert sharded_rows(7, 4, 2).tolist() == [0, 2, 1, 3, 4, 6, 5, -1]
    assert sharded_rows(7, 4, 1).tolist() == [0, 1, 2, 3, 4, 5, 6, -1]
    assert sharded_rows(5, 4, 2).tolist() == [0, 2, 1, 3, 4, -1, -1, -1]


@pytest.mark.parametrize(("received", "message"), [
    ("0", "allowed: 1 to 64"), ("TPU:0", "allowed: a number, or names"), ("GPU:0", "there is no GPU:0"),
    ("CPU:0,CPU:0", "different devices"), ("CPU:x", "allowed: a number"), ("7", "any more"), ("", "allowed: a number"),
])  # fmt: skip
def test_devices_that_cannot_be(received, message):
    tf.constant(0)  # TensorFlow has begun
    with pytest.raises(InputError, match=message):
        open_devices("mirrored", received)


def test_devices_that_are_there():
    here = open_devices("none", "2")
    assert (here.replicas, here.workers, here.chief) == (2, 1, True)
    assert open_devices("none", "CPU:1").replicas == 1
    assert open_devices("none").strategy is tf.distribute.get_strategy()
    assert open_devices("multi_worker").workers == 1  # no TF_CONFIG
    assert Devices.of(tf.distribute.get_strategy()).agree(True, False) == (True, False)


def test_what_looks_at_a_run_joins_no_cluster(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", json.dumps(GOOD))
    assert own_devices("multi_worker").workers == 1
    with pytest.raises(InputError, match="with several workers names GPUs only"):
        open_devices("multi_worker", "CPU:1")


A, B = "127.0.0.1:29181", "127.0.0.1:29182"
GOOD = {"cluster": {"worker": [A, B]}, "task": {"type": "worker", "index": 1}}


@pytest.mark.parametrize(("change", "message"), [
    ("{", "cannot be used"), ("[]", "cannot be used"), ({"cluster": 3}, "cannot be used"), ({"task": {}}, "cannot be used"),
    ({"task": {"type": "worker", "index": 2}}, "worker 0 to 1"), ({"task": {"type": "ps", "index": 0}}, "received task ps 0"),
    ({"cluster": {"worker": [A], "ps": [B]}}, "received 'ps'"), ({"cluster": {"worker": [A, A]}}, "each once"),
    ({"cluster": {"worker": ["a", B]}}, "received 'a'"), ({"cluster": {"chief": [A, B]}}, "more than one chief"),
])  # fmt: skip
def test_a_bad_tf_config_is_one_clear_error(change, message):
    text = change if isinstance(change, str) else json.dumps({**GOOD, **change})
    with pytest.raises(InputError, match=message):
        check_tf_config(text)
    check_tf_config(json.dumps(GOOD))


def test_networks_remember_how_they_normalise():
    network = setup("greedy", NO_DROPOUT)[0]
    assert isinstance(network, Network) and network.synchronized


def test_how_often_workers_ask_each_other(monkeypatch):
    """After the first step; then after each tenth while steps are short on the chief, and after each where they are not."""
    clock = [100.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: clock[0])
    answers = []

    class Two(Devices):
        def agree(self, *flags):
            answers.append(flags)
            return flags

    asked = signals.Asked(StopRequest(), Two(tf.distribute.get_strategy(), 0, 2))
    taken = []
    for step in range(1, 41):
        clock[0] += 5.0 if step == 1 or step > 30 else 0.1
        if asked.is_time(step):
            taken.append(step)
            assert asked.after_step(step == 20) == (False, step == 20)
    assert taken == [1, 2, 10, 20, 30, 40] and [flags[2] for flags in answers] == [True, False, False, False, False, True]
    assert asked.is_time(41)


def test_batches_are_not_tuned_while_they_are_read():
    """The tuner's thread sleeps for twice as long each time, and the end of an epoch would wait until it wakes up."""
    data = tf.data.Dataset.range(4).batch(2)
    assert data.options().autotune.enabled is not False  # TensorFlow's default is to tune
    assert distributed(tf.distribute.get_strategy(), data).options().autotune.enabled is False
