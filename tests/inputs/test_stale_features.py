"""Features belong to the blocks that made them: whatever changes a block, nothing reads what it gave before."""

import inspect

import numpy as np
import pytest
import tensorflow as tf
from conftest import same_weights, weights, without_time

from kerasgreedy.errors import SpecError
from kerasgreedy.inputs import features
from kerasgreedy.inputs.feature_store import StoreFolder
from kerasgreedy.inputs.features import FeatureInput, PhaseInput, StaleFeatures
from kerasgreedy.network.build import Network
from kerasgreedy.plan import actions
from kerasgreedy.plan.preparation import prepare
from kerasgreedy.plan.stages import phases_of
from kerasgreedy.runs.devices import Devices
from kerasgreedy.runs.open_run import open_pipeline
from kerasgreedy.spec.load import load
from kerasgreedy.spec.strategy_names import STRATEGIES
from kerasgreedy.train.entry_points import train_spec

SPEC = """
name: three
block_defaults: {batch_norm: true}
blocks: [{conv: 4}, [{conv: 4}, {dropout: 0.25}], {conv: 4, downsample: average}]
auxiliary_head: {pool_to: 2}
"""
RECIPE = """
name: cached
data: {dataset: digits, train_examples: 96, test_examples: 32, validation: 32}
training: {epochs: 2, batch_size: 32, optimizer: {name: sgd, learning_rate: 0.1}}
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stale")
    (folder / "three.yaml").write_text(SPEC)
    (folder / "cached.yaml").write_text(RECIPE)
    return folder / "three.yaml", folder / "cached.yaml"


@pytest.fixture(params=["memory", "disk"])
def filled(request, files, tmp_path):
    """The features of the last phase, and the network that made them."""
    job = prepare(*load(*files, [f"cache.store={request.param}"]))
    network, phase = Network(job.architecture), job.phases[-1]
    assert (phase.prefix, phase.cache.store) == (2, request.param)
    pipeline, devices = open_pipeline(job, None), Devices(tf.distribute.get_strategy())
    source = FeatureInput(phase, network, pipeline, devices, StoreFolder(tmp_path))
    source.open(range(2), ["validation"])
    assert [done for done, _ in source.fill(None)][-1] == 96
    return source, network


READ = {"training": (0, 0), "indexed": (1, 0), "view": (None,), "evaluation": ("validation",)}


def test_every_way_to_read_is_known():
    """A method that hands out batches, and is not in `READ`, would not be asked below."""
    hands_out = [name for name, f in inspect.getmembers(PhaseInput, inspect.isfunction)
                 if "Dataset" in str(inspect.signature(f).return_annotation)]  # fmt: skip
    assert sorted(hands_out) == sorted(READ)


def test_nothing_is_read_after_any_variable_of_the_prefix_has_changed(filled):
    """Weights, moving statistics and random state, one after the other; and the precision that they are computed in."""
    source, network = filled
    for name, place in READ.items():
        assert next(iter(getattr(source, name)(*place))) is not None
    variables = [v for block in network.blocks[:2] for layer in block.layers for v in layer.variables]
    assert len(variables) == 2 * 5 + 1  # kernel, gamma, beta, mean, variance of each, and the state of the dropout
    for variable in variables:
        before = variable.numpy()
        variable.assign(before + np.ones((), before.dtype))
        for name, place in READ.items():
            with pytest.raises(StaleFeatures):
                getattr(source, name)(*place)
        assert not source.holds(("train", None), network)
        variable.assign(before)
        assert source.holds(("train", None), network)
    network.compute_in("mixed_bfloat16", ["block_2"])
    assert not source.holds(("train", None), network)
    assert not source.holds(("train", 0), network)  # nothing is there under that name at all


def test_what_comes_after_the_prefix_may_change(filled):
    source, network = filled
    kernel = network.variables("block_3")["block_3/conv_1/kernel"]
    kernel.assign(kernel + 1)
    assert next(iter(source.training(0, 0)))[0].shape == (32, 8, 8, 4)


LINEAR = "{conv: 3, kernel_size: 3, use_bias: false}, {standardize: channels}"
GATED = "{gated_conv: 6, kernel_size: 3, padding: valid, class_separable: true, gates: patches}"
STACK = [
    f"blocks=[{{activation: linear}}, [{LINEAR}], [{LINEAR}, {{avg_pool: 2}}]]",
    f"auxiliary_head={{layers: [{GATED}]}}",
    "convex={rectify: true}",
    "training.optimizer.learning_rate=1e-3",
]


def recipes():
    """Strategy and removal in every combination that is allowed; no name of an action is written here."""
    more = {
        "plain": [],
        "rounds": ["prune={keep: 0.5, rounds: 2, fine_tune: {epochs: 2, trains: head}, components: [block_1]}"],
        "all": ["prune={keep: 0.6, rounds: 2, ranking: global, fine_tune: {epochs: 2, trains: all}}"],
        "small": ["threshold={multiply_adds: 0.6, fine_tune: {epochs: 2, trains: head}}"],
        "head": ["prune={multiply_adds: 0.7}", "replace_head={head: {hidden_layers: 1, width: 3}, training: {epochs: 2}}"],
    }
    return [*((strategy, name, sets) for strategy in STRATEGIES.names for name, sets in more.items()), ("convex", "stack", STACK)]


# The way in which it once went wrong; the rest takes minutes.
QUICK = {("end_to_end", "rounds")}


def cases():
    return [pytest.param(*each, id="-".join(each[:2]), marks=() if each[:2] in QUICK else pytest.mark.slow) for each in recipes()]


@pytest.mark.parametrize(("strategy", "name", "sets"), cases())
def test_cached_phases_see_what_recomputed_ones_see(files, start, strategy, name, sets, tmp_path):
    """The run with a cache is the run without, bit for bit, for every strategy and action."""
    sets = [f"strategy={strategy}", *sets, *([f"start_from={start}"] if strategy == "compress" else [])]
    if strategy in ("greedy", "random_features", "compress") or "head" in name:
        sets += ["training.epochs=2"]
    try:
        job = prepare(*load(*files, sets))
    except SpecError:
        pytest.skip("not a recipe")
    if not any(phase.cache.used for phase in phases_of(job.phases)):
        pytest.skip("nothing is cached")
    runs = [train_spec(*files, [*sets, f"cache.store={store}"], tmp_path / store, quiet=True) for store in ("none", "auto")]
    same_weights(*(weights(run.workdir) for run in runs))
    assert without_time(runs[0].workdir) == without_time(runs[1].workdir)


@pytest.fixture(scope="module")
def start(files, tmp_path_factory):
    """A run to start from."""
    place = tmp_path_factory.mktemp("start") / "run"
    return train_spec(*files, ["strategy=deep_supervision", "training.epochs=1"], place, quiet=True).workdir


@pytest.mark.slow
def test_the_comparison_would_find_it(files, tmp_path, monkeypatch):
    """Without the digest, features of block 1 as it was fill the cache of the phase after its pruning."""
    monkeypatch.setattr(features, "prefix_digest", lambda network, blocks: "")
    sets = ["strategy=end_to_end", *next(sets for _, name, sets in recipes() if name == "rounds")]
    runs = [train_spec(*files, [*sets, f"cache.store={store}"], tmp_path / store, quiet=True) for store in ("none", "auto")]
    with pytest.raises(AssertionError):
        same_weights(*(weights(run.workdir) for run in runs))


def test_every_action_is_in_some_of_these_recipes(files, start):
    kinds = set()
    for strategy, _, sets in recipes():
        try:
            job = prepare(
                *load(*files, [f"strategy={strategy}", *sets, *([f"start_from={start}"] if strategy == "compress" else [])])
            )
        except SpecError:
            continue
        kinds |= {type(stage) for stage in job.phases}
    assert set(actions.Action.__subclasses__()) <= kinds
