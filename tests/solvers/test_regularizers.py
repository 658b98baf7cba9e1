"""Penalties on kernels: values and maps by formulas, one step by hand, and exact zeros that stay in every way of training."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from conftest import recipe_of, same_weights, some, spec_of, stop_at, two_devices, weights, without_time

from kerasgreedy.errors import SpecError, Stopped
from kerasgreedy.graph.architecture import architecture
from kerasgreedy.network.build import Network
from kerasgreedy.nn.penalties import AbsoluteSum, SquaredNorm
from kerasgreedy.nn.structured import GroupNorms
from kerasgreedy.plan.compile import compile_plan
from kerasgreedy.reports.run_files import read_metrics
from kerasgreedy.solvers.schedules import make_optimizer
from kerasgreedy.solvers.step import TrainStep
from kerasgreedy.spec.regularizers import matches
from kerasgreedy.train.entry_points import resume_run, train_spec

RNG = np.random.default_rng(5)
KERNEL = RNG.normal(size=(3, 3, 2, 6)).astype(np.float32)
KERNEL[..., 1] *= 0.01  # a filter that is nearly nothing
KERNEL[..., 2] = 0
NORMS = np.sqrt(np.square(KERNEL.astype(float)).sum((0, 1, 2)))
SETTINGS = SimpleNamespace(weight=0.7, norm="l2", squared=False)
PENALTIES = {
    "l2": (SquaredNorm, 0.35 * np.square(KERNEL.astype(float)).sum(), 0.7 * KERNEL),
    "l1": (AbsoluteSum, 0.7 * np.abs(KERNEL.astype(float)).sum(), 0.7 * np.sign(KERNEL)),
    "group_lasso": (GroupNorms, 0.7 * NORMS.sum(), 0.7 * KERNEL / np.where(NORMS, NORMS, 1)),
}


@pytest.mark.parametrize("name", PENALTIES)
def test_values_and_subgradients(name):
    cls, value, gradient = PENALTIES[name]
    penalty = cls(SETTINGS)
    kernels = {"a/b": tf.constant(KERNEL), "a/c": tf.constant(2 * KERNEL)}
    np.testing.assert_allclose(penalty.value({"a/b": kernels["a/b"]}), value, rtol=1e-5)
    np.testing.assert_allclose(penalty.gradients(kernels)["a/b"], gradient, atol=1e-6)


@pytest.mark.parametrize(("cls", "zeros"), [(AbsoluteSum, None), (GroupNorms, 2)])
def test_proximal_maps_minimise_what_they_say(cls, zeros):
    """u = prox(w) beats 2,000 points around it in |u - w|^2 / 2 + rate * value(u), in float64."""
    penalty, rate = cls(SETTINGS), tf.constant(0.5, tf.float64)
    w = tf.constant(KERNEL, tf.float64)

    def cost(u):
        return float(tf.reduce_sum(tf.square(u - w)) / 2 + rate * penalty.value({"a": tf.constant(u)}))

    found = penalty.proximal(w, rate).numpy()
    least = cost(found)
    for scale in (1e-4, 1e-2, 1, 10):
        for _ in range(500):
            assert cost(found + scale * RNG.normal(size=found.shape) * (RNG.random(found.shape) < 0.2)) >= least
    if zeros:
        assert (np.abs(found).sum((0, 1, 2)) == 0).sum() == zeros
        np.testing.assert_allclose(found[..., 0], KERNEL[..., 0] * (1 - 0.35 / NORMS[0]), rtol=1e-6)


@pytest.mark.parametrize(
    ("which", "expected"),
    [("all", [1, 1, 1, 1]), ("blocks", [1, 1, 0, 0]), ("heads", [0, 0, 1, 1]), ("hidden", [1, 1, 1, 0]),
     (["block_1/*"], [1, 0, 0, 0]), (["*/dense_1"], [0, 0, 0, 1])],
)  # fmt: skip
def test_whose_kernels(which, expected):
    layers = [("block_1/conv_1", 0, 0), ("block_2/conv_1", 0, 0), ("head_1/conv_1", 1, 0), ("head_1/dense_1", 1, 1)]
    assert [matches(which, *layer) for layer in layers] == [bool(flag) for flag in expected]


TEXT = "name: s\nblocks: [{conv: 3}]\nauxiliary_head: {pool_to: 1}\n"
RECIPE = "name: r\ndata: {dataset: digits}\ntraining: {epochs: 1, batch_size: 8, optimizer: {name: sgd, learning_rate: 0.3}}\n"
IMAGES, LABELS = RNG.normal(size=(8, 4, 4, 1)).astype(np.float32), np.arange(8, dtype=np.int32) % 3


def stepped(regularizers, steps, strategy=None, precision="float32", more=()):
    """Kernels before and after some steps: conv (3, 3, 1, 3) and dense (3, 3)."""
    spec = spec_of(TEXT).value.model_copy(update={"input_shape": [4, 4, 1], "classes": 3})
    settings = [f"training.regularizers={regularizers}", "strategy=end_to_end", f"precision={precision}", *more]
    (phase,) = compile_plan(spec, recipe_of(RECIPE, *settings).value, (32, 0))
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        network = Network(architecture(spec), seed=1)
        network.compute_in(precision)
        rates = np.array([0.3], np.float32)
        step = TrainStep(network, phase, make_optimizer(phase.training.optimizer, rates, precision), strategy)
    kernels = lambda: {k: v for n in network.names for k, v in network.arrays(n).items() if k.endswith("kernel")}  # noqa: E731
    first = kernels()
    for _ in range(steps):
        (batch,) = strategy.experimental_distribute_dataset(tf.data.Dataset.from_tensors((IMAGES, LABELS)).unbatch().batch(8))
        step(*batch)
    return first, kernels()


@pytest.mark.parametrize("devices", [1, 2])
def test_a_subgradient_is_added_once_whatever_the_number_of_devices(devices):
    """The first step of SGD moves by -0.3 times it more than without."""
    strategy = two_devices() if devices == 2 else None
    _, plain = stepped("[]", 1, strategy)
    before, after = stepped("[{name: group_lasso, weight: 0.1, form: subgradient, of: heads}]", 1, strategy)
    for key, kernel in before.items():
        norms = np.sqrt(np.square(kernel).sum(tuple(range(kernel.ndim - 1))))
        moved = -0.3 * 0.1 * kernel / norms if key.startswith("head") else 0 * kernel
        np.testing.assert_allclose(after[key] - plain[key], moved, atol=1e-6)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_the_proximal_map_is_taken_after_the_optimiser(precision, devices):
    """At ten times the step's rate, which momentum 0.9 makes of a gradient, of what the optimiser made.

    Weights that it makes zero are zero on both devices.
    """
    strategy = two_devices() if devices == 2 else None
    _, plain = stepped("[]", 1, strategy, precision)
    _, after = stepped("[{name: l1, weight: 0.04}]", 1, strategy, precision)
    for key, kernel in plain.items():
        np.testing.assert_allclose(after[key], np.sign(kernel) * np.maximum(np.abs(kernel) - 0.12, 0), atol=1e-6)
    _, many = stepped("[{name: group_lasso, weight: 0.9}]", 6, strategy, precision)
    for kernel in many.values():
        assert (np.abs(kernel).reshape(-1, kernel.shape[-1]).sum(0) == 0).all()


@pytest.fixture
def documents(tmp_path):
    (tmp_path / "s.yaml").write_text("name: s\nblock_defaults: {batch_norm: true}\nblocks: [{conv: 6}, {conv: 6}]\n")
    (tmp_path / "r.yaml").write_text(
        "name: r\ndata: {dataset: digits, train_examples: 96, test_examples: 20, validation: 32}\n"
        "training: {epochs: 2, batch_size: 16, optimizer: {name: sgd, learning_rate: 0.1},\n"
        "  regularizers: [{name: group_lasso, weight: 4.0, of: blocks}, {name: l2, weight: 0.01, of: heads}]}\n"
    )
    return tmp_path / "s.yaml", tmp_path / "r.yaml"


@pytest.mark.parametrize(
    "sets", some([], slow=[["strategy=dsd", "dsd={schedule: {name: constant_sparsity, target_sparsity: 0.5, begin_step: 2}}"]])
)
def test_zeros_and_figures_of_a_run_and_the_same_after_a_stop(documents, tmp_path, monkeypatch, sets):
    whole = train_spec(*documents, sets, tmp_path / "whole", quiet=True)
    arrays = weights(whole.workdir)
    kernels = {key: value for key, value in arrays.items() if key.endswith("conv_1/kernel")}
    gone = [np.abs(value).sum((0, 1, 2)) == 0 for value in kernels.values()]
    assert any(flags.any() for flags in gone) and all(np.isfinite(value).all() for value in arrays.values())
    last = [record for record in read_metrics(whole.workdir) if record["split"] == "train"][-1]
    norms = sum(np.sqrt(np.square(value.astype(float)).sum((0, 1, 2))).sum() for key, value in kernels.items()
                if sets or key.startswith("block_2"))  # fmt: skip
    dense = arrays["head_2/dense_1/kernel"].astype(float)
    assert last["penalty"] == pytest.approx(4.0 * norms + 0.005 * np.square(dense).sum(), rel=1e-5)
    stop_at(monkeypatch, 5)
    with pytest.raises(Stopped):
        train_spec(*documents, sets, tmp_path / "run", quiet=True)
    monkeypatch.undo()
    done = resume_run(tmp_path / "run", quiet=True)
    same_weights(weights(done.workdir), arrays)
    assert without_time(done.workdir) == without_time(whole.workdir)


BAD = [
    ("[{name: l1}]", "weight: required key is missing"),
    ("[{name: l1, weight: 0}]", "weight: received 0"),
    ("[{name: l3, weight: 1}]", "received 'l3'; allowed: l2, l1, group_lasso"),
    ("[{name: l2, weight: 1, form: proximal}]", "unknown key with name 'l2'; it goes with name: l1 or group_lasso"),
    ("{name: l2, weight: 1}", "list"),
    ("[{name: l1, weight: 1, of: ['block_7/*']}]", "no layer .* allowed: block_1/conv_1, block_2/conv_1, head_1/dense_1"),
]


@pytest.mark.parametrize(("written", "message"), BAD)
def test_what_is_no_regularizer_is_refused(documents, tmp_path, written, message):
    with pytest.raises(SpecError, match=message):
        train_spec(*documents, [f"training.regularizers={written}"], tmp_path / "run", quiet=True)
