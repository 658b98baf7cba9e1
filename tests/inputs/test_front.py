"""Fixed layers at the start of a head that trains: what they give is kept instead of what the head stands on."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf
from conftest import recipe_of, same_weights, some, spec_of, stop_at, two_devices, weights
from convex_runs import solving
from layer_kinds import SPECS, exported
from networks import GATED_HEAD as HEAD
from networks import TWO_LAYER as SPEC

from kerasgreedy.analysis.run_time import time_plan
from kerasgreedy.errors import Stopped
from kerasgreedy.graph.architecture import architecture
from kerasgreedy.inputs.feature_store import FeatureStore, StoreFolder
from kerasgreedy.inputs.features import FeatureInput, StaleFeatures
from kerasgreedy.network.build import Network
from kerasgreedy.network.walk import StartPoint
from kerasgreedy.plan.caching import fixed_front
from kerasgreedy.plan.preparation import prepare
from kerasgreedy.plan.stages import phases_of
from kerasgreedy.runs.devices import Devices
from kerasgreedy.runs.open_run import open_pipeline
from kerasgreedy.spec.doors import Named
from kerasgreedy.spec.load import load
from kerasgreedy.spec.objective_settings import CrossEntropy, OutputObjective, SquaredError
from kerasgreedy.train.entry_points import resume_run

STACK = f"""
name: stack
blocks:
  - activation: linear
  - [{{conv: 5, kernel_size: 3, use_bias: false}}, {{standardize: channels}}]
auxiliary_head: {{layers: [{HEAD}]}}
"""
RECIPE = """
name: convex
strategy: convex
data: {dataset: digits, train_examples: 160, test_examples: 20, validation: 32}
training: {epochs: 3, batch_size: 32, objective: squared_error, optimizer: {name: sgd, learning_rate: 2e-3}}
"""
FISTA = ["training.solver={name: fista, gap: 1e-6}", "training.regularizers=[{name: group_lasso, weight: 0.01}]"]


@pytest.fixture
def trained(tmp_path):
    solve = solving(tmp_path)
    return lambda spec, *overrides, **more: solve(spec, RECIPE, *overrides, **more)


def close(run, other):
    stored = weights(other.workdir)
    for key, value in weights(run.workdir).items():
        np.testing.assert_allclose(value, stored[key], rtol=1e-4, atol=1e-6, err_msg=key)


def caches(spec, *overrides):
    return [phase.cache for phase in phases_of(prepare(spec_of(spec), recipe_of(RECIPE, *overrides)).phases)]


def test_the_plan_says_what_is_kept_and_what_a_step_costs_then():
    """6 gates on 9 patches of 3x3x1: sums of 9 x 6 numbers, 2 * 9 * 9 * 6 multiply-adds; then 54 for each of ten classes."""
    (phase,) = phases_of(prepare(spec_of(SPEC), recipe_of(RECIPE)).phases)
    assert phase.cache.front == ("head_1/gated_conv_1",)
    assert (phase.cache.store, phase.cache.bytes) == ("memory", 160 * 54 * 4)
    assert phase.prefix_multiply_adds == 2 * 9 * 9 * 6 and phase.multiply_adds == 2 * 9 * 9 * 6 + 540
    assert phase.training_multiply_adds == 3 * 540
    assert phase.total_multiply_adds(128) == 128 * (3 * 3 * 540 + 2 * 9 * 9 * 6)
    assert phase.notes()[-1].startswith("frozen blocks and head_1/gated_conv_1 of phase 2 are cached: 0.0 MB fit")
    (anew,) = phases_of(prepare(spec_of(SPEC), recipe_of(RECIPE, "cache.store=none")).phases)
    assert anew.prefix_multiply_adds == 0 and anew.training_multiply_adds == 3 * 540 + 2 * 9 * 9 * 6


def test_on_disk_only_where_that_is_asked_for():
    (cache,) = caches(SPEC, "cache.memory_gb=0")
    assert not cache.used and not cache.front
    assert cache.reason == (
        "they cost no multiply-adds; with head_1/gated_conv_1: 0.0 MB fit into cache.disk_gb 20; "
        "0.0 MB do not fit into cache.memory_gb 0"
    )
    (cache,) = caches(SPEC, "cache.store=disk")
    assert cache.store == "disk" and cache.front


@pytest.mark.parametrize(
    ("spec", "sets", "front"),
    [
        (SPEC, [], ("gated_conv_1",)),
        (SPEC, FISTA, ("gated_conv_1",)),
        (SPEC, ["training.objective=cross_entropy", "training.solver={name: averaged, steps: 6, every: 2}"], ("gated_conv_1",)),
        (SPEC, ["training.regularizers=[{name: group_lasso, weight: 0.01}]"], ("gated_conv_1",)),
        (SPEC.replace("separable: true", "separable: true, paired: true"),
         ["training.regularizers=[{name: gate_hinge, weight: 0.1}]"], ()),
        (SPEC.replace("separable: true", "separable: true, gates: own"), [], ()),
        (SPEC.replace(HEAD, "{gated_conv: 6, kernel_size: 3}, {flatten: true}"), [], ()),
        (SPEC.replace(HEAD, "{random_crop: 0.75}, {rows: true}"), [], ()),
        (SPEC.replace(HEAD, "{avg_pool: 2}, {flatten: true}"), [], ()),
        (SPEC.replace(HEAD, "{dropout: 0.5}, " + HEAD), [], ()),
        (SPEC.replace(HEAD, "{random_features: 5, kernel_size: 3, gamma: 1}, {avg_pool: 2}, {flatten: true}"), [],
         ("random_features_1",)),
        (SPEC.replace(HEAD, "{random_features: 5, kernel_size: 3, gamma: 1}, {random_crop: 0.5}, {rows: true}"), [],
         ("random_features_1",)),
    ],
)  # fmt: skip
def test_which_layers_stay_the_same(spec, sets, front):
    """Not those behind something drawn or trained, nor where a penalty looks at patches."""
    (cache,) = caches(spec, *sets)
    assert cache.front == tuple(f"head_1/{name}" for name in front)


def test_an_objective_of_a_plug_in_may_look_at_the_block():
    """Whether it does is not known; what does not say so gets what the head stands on."""
    assert issubclass(CrossEntropy, OutputObjective) and issubclass(SquaredError, OutputObjective)
    assert not issubclass(Named, OutputObjective)
    head = architecture(spec_of(SPEC).value, (8, 8, 1), 10).heads[0]
    training = recipe_of(RECIPE).value.training
    assert [node.name for node in fixed_front(head, training)] == ["gated_conv_1"]
    assert fixed_front(head, training.model_copy(update={"objective": Named(name="mine")})) == ()


@pytest.mark.parametrize(
    ("spec", "sets"),
    some(
        (SPEC, []),
        (STACK, [*FISTA, "cache.store=disk"]),
        slow=[
            (STACK, ["cache.store=disk"]),
            (SPEC, FISTA),
            (SPEC, ["training.accumulation=4", "training.monitor=train_loss", "training.keep=best"]),
            (SPEC, ["training.objective=cross_entropy", "training.solver={name: averaged, steps: 6, every: 2}"]),
            (STACK, ["data.augment={pad_crop: 1}", "data.augment_views=2"]),
            (STACK, ["precision=mixed_bfloat16"]),
        ],
    ),
)
def test_kept_gives_what_computing_anew_gives(trained, spec, sets):
    """Up to the order in which the products of batches of other sizes are added up."""
    anew = trained(spec, *[each for each in sets if not each.startswith("cache")], "cache.store=none", folder="anew")
    kept = trained(spec, *sets, folder="kept")
    close(kept, anew)


def test_rounding_to_half_is_small(trained):
    anew, kept = trained(SPEC, "cache.store=none", folder="anew"), trained(SPEC, "cache.dtype=bfloat16", folder="kept")
    one, other = (weights(run.workdir)["head_1/class_separable_1/kernel"] for run in (anew, kept))
    apart = np.linalg.norm(one - other) / np.linalg.norm(one)
    assert 0 < apart < 2**-8


@pytest.mark.slow
def test_two_devices_keep_the_same(trained):
    one, two = trained(SPEC, folder="one"), trained(SPEC, folder="two", strategy=two_devices())
    close(two, one)


def test_a_run_that_was_stopped_goes_on(trained, monkeypatch):
    whole = trained(STACK, folder="whole")
    stop_at(monkeypatch, 6)
    with pytest.raises(Stopped):
        trained(STACK)
    monkeypatch.undo()
    done = resume_run(whole.workdir.parent / "run", quiet=True)
    same_weights(weights(done.workdir), weights(whole.workdir))


def test_what_a_stage_has_kept_is_given_back_before_the_next_keeps_more_than_the_limit(trained, monkeypatch):
    """Also by a solver that is held in a cycle: no garbage collection is waited for. 160 images, 54 and 270 numbers each."""
    alive, before = [], []
    original = FeatureStore.__init__

    def noted(self, *arguments):
        before.append(sum(store() is not None for store in alive))
        alive.append(weakref.ref(self))
        original(self, *arguments)

    monkeypatch.setattr(FeatureStore, "__init__", noted)
    gc.disable()
    try:
        trained(STACK, *FISTA, "training.epochs=2", "cache={memory_gb: 1.9e-4}")
    finally:
        gc.enable()
    assert before == [0, 1, 0, 1]


def test_other_gates_make_what_is_kept_stale(tmp_path):
    (tmp_path / "s.yaml").write_text(SPEC)
    (tmp_path / "r.yaml").write_text(RECIPE)
    job = prepare(*load(tmp_path / "s.yaml", tmp_path / "r.yaml", []))
    network, (phase,) = Network(job.architecture), phases_of(job.phases)
    source = FeatureInput(phase, network, open_pipeline(job, None), Devices(tf.distribute.get_strategy()), StoreFolder(tmp_path))
    source.open(range(1), ["validation"])
    list(source.fill(None))
    assert source.start == StartPoint(1, ("head_1/gated_conv_1",))
    assert next(iter(source.training(0, 0)))[0].shape == (32, 9, 6)
    variables = network.variables("head_1")
    variables["head_1/class_separable_1/kernel"].assign_add(np.ones((9, 6, 10), np.float32))
    assert next(iter(source.training(0, 0))) is not None
    variables["head_1/gated_conv_1/kernel"].assign_add(np.ones((3, 3, 1, 6), np.float32))
    with pytest.raises(StaleFeatures):
        source.training(0, 0)


def test_what_is_timed_starts_behind_it():
    (timing,) = time_plan(prepare(spec_of(SPEC), recipe_of(RECIPE)))
    assert timing.steps == 4 * 3 and timing.step_seconds > 0


@pytest.mark.parametrize("kind", list(SPECS))
def test_a_component_takes_of_16_bits_what_its_layers_need(kind):
    """As if all of it had been brought to 32 bits first, for every kind of layer."""
    network = exported(kind)
    for name in network.names:
        shape = network.architecture.components[name].input_shape
        x = tf.cast(np.random.default_rng(3).normal(size=(3, *shape)), tf.bfloat16)
        short, whole = network.run(name, x, False), network.component(name)(tf.cast(x, tf.float32), training=False)
        assert short.dtype == whole.dtype
        np.testing.assert_array_equal(short, whole, err_msg=name)
