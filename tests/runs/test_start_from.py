"""What a run may start from, and which heads count as trained."""

import numpy as np
import pytest
from conftest import TINY_RECIPE, TINY_SPEC, recipe_of, same_weights, some, spec_of

from kerasgreedy.errors import InputError, SpecError
from kerasgreedy.network.build import build_network
from kerasgreedy.plan.preparation import prepare
from kerasgreedy.train.entry_points import train_spec
from kerasgreedy.train.evaluating import evaluate_run
from kerasgreedy.train.prune_run import prune_run


def start(files, tmp_path, source, *overrides):
    return train_spec(*files, [f"start_from={source}", *overrides], tmp_path / "run", quiet=True)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["seed=3"], "split the same data otherwise.*give seed=0 as there, or data.validation=0"),
        (["data.validation=40"], "give data.validation=32 as there"),
        (["blocks.0.kernel_size=5"], "block_1 differs between"),
        (["blocks.0.activation=gelu"], "block_1 differs between"),
        (["block_defaults.batch_norm_epsilon=1e-3"], "block_1 differs between"),
        (["blocks.1=[{conv: 6, downsample: average}]"], "block_2 differs between"),
    ],
)
def test_another_network_or_split_is_refused(overrides, message, finished, files, tmp_path):
    with pytest.raises(InputError, match=message):
        start(files, tmp_path, finished.workdir, *overrides)
    assert not (tmp_path / "run").exists()


def test_another_rate_of_dropout_is_no_other_network(finished, files, tmp_path):
    """With no epoch to speak of: a rate that moves nothing."""
    overrides = ["blocks.1.1.dropout=0.1", "training.optimizer.learning_rate=1e-30", "training.optimizer.weight_decay=0"]
    done = start(files, tmp_path, finished.workdir, *overrides, "training.epochs=1", "training.keep=best")
    for name in ("head_1", "head_3"):
        kernels = {k: v for k, v in done.network.arrays(name).items() if k.endswith("kernel")}
        same_weights(kernels, {k: finished.network.arrays(name)[k] for k in kernels})


def test_starting_as_the_identity_would_overwrite():
    with pytest.raises(SpecError, match="'identity' would overwrite the weights of start_from"):
        recipe_of(TINY_RECIPE, "start_from=x", "training.init=identity")


@pytest.mark.slow
def test_heads_that_were_never_trained_are_not_pruned_by(files, tmp_path):
    end_to_end = train_spec(*files, ["strategy=end_to_end", "training.epochs=1"], tmp_path / "e2e", quiet=True)
    with pytest.raises(InputError, match="prune.heads: head_1 was not trained by that run; trained: head_3"):
        prune_run(end_to_end.workdir, keep=0.5, heads="all", epochs=0, out=tmp_path / "out", quiet=True)
    pruned = prune_run(end_to_end.workdir, keep=0.5, epochs=0, out=tmp_path / "out", quiet=True)
    assert [entry["depth"] for entry in pruned.results["depths"]] == [3]
    assert [entry["depth"] for entry in evaluate_run(tmp_path / "out")["depths"]] == [3]


def test_a_fresh_head_is_not_trained_until_its_phase_begins():
    recipe = recipe_of(TINY_RECIPE, "replace_head={head: {width: 3}}")
    job = prepare(spec_of(TINY_SPEC), recipe)
    assert [stage.name for stage in job.phases] == ["block_1", "block_2", "block_3", "replace_head", "final_head"]
    assert [job.trained_depths(begun) for begun in range(6)] == [[], [1], [1, 2], [1, 2, 3], [1, 2], [1, 2, 3]]


@pytest.mark.parametrize(
    ("head", "path", "message"),
    [
        ("{width: 3}", "replace_head.head", "the present head is given as 'layers'"),
        ("{hidden_layers: 0, width: 3}", "replace_head.head.width", "there is no hidden layer"),
        ("{layers: [{conv: 8, padding: valid, kernel_size: 99}]}", "replace_head.head", "does not fit"),
    ],
)
def test_a_head_that_cannot_be_is_refused_at_its_place(head, path, message):
    spec = spec_of(TINY_SPEC + "final_head: {layers: [{global_avg_pool: true}]}\n")
    with pytest.raises(SpecError) as caught:
        prepare(spec, recipe_of(TINY_RECIPE, f"replace_head={{head: {head}}}"))
    (problem,) = caught.value.problems
    assert problem.path == path and message in problem.message and problem.where.startswith("--set replace_head=")


def test_the_cache_of_a_head_only_phase_may_be_asked_for():
    recipe = recipe_of(
        TINY_RECIPE, "strategy=compress", "start_from=x", "data.augment={}", "cache.store=memory", "training.keep=last",
        "prune={keep: 0.5, fine_tune: {trains: head, epochs: 4}}"
    )  # fmt: skip
    job = prepare(spec_of(TINY_SPEC), recipe, begins=False)
    assert job.phases[1].name == "fine_tune" and job.phases[1].cache.used


STRATEGIES = ["greedy", "decoupled", "end_to_end", "deep_supervision", "random_features", "dsd"]


@pytest.mark.parametrize("strategy", some("greedy", slow=[each for each in STRATEGIES if each != "greedy"]))
def test_blocks_of_another_run_stay_and_what_stands_behind_them_trains(strategy, finished, files, tmp_path):
    """On a network whose third block is another one."""
    overrides = ["start_blocks=2", f"strategy={strategy}", "training.epochs=1", "blocks.2={conv: 5}"]
    done = start(files, tmp_path, finished.workdir, *overrides)
    for name in ("block_1", "block_2"):
        same_weights(done.network.arrays(name), finished.network.arrays(name))
    before = build_network(spec_of(TINY_SPEC, "blocks.2={conv: 5}", "input_shape=[8, 8, 1]", "classes=10").value, seed=0)
    for name in ("block_3", "head_3"):
        now, then = done.network.arrays(name), before.arrays(name)
        moved = [key for key in now if key.endswith("kernel") and np.abs(now[key] - then[key]).max() > 1e-4]
        assert bool(moved) == (name == "head_3" or strategy != "random_features"), name
    assert [entry["depth"] for entry in done.results["depths"]] == [3]


def test_taken_blocks_are_cached_and_convex_stacks_begin_behind_them():
    blocks = "[{conv: 4}, {random_features: 5}, [{conv: 5, use_bias: false}, {max_pool: 2}]]"
    head = "{layers: [{gated_conv: 4, class_separable: true}]}"
    spec = spec_of(f"name: s\nblocks: {blocks}\nauxiliary_head: {head}\n")
    sets = ["start_from=x", "start_blocks=1", "strategy=convex", "data.augment={}"]
    job = prepare(spec, recipe_of(TINY_RECIPE, *sets), begins=False)
    assert [stage.name for stage in job.phases] == ["fit_block_2", "block_2", "filters_block_3", "fit_block_3", "block_3"]
    assert job.phases[0].layers == ("block_2/random_features_1", "head_2/gated_conv_1")
    assert (job.phases[1].prefix, job.phases[1].init, job.phases[1].frozen) == (2, "fresh", ("block_1", "block_2"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["start_blocks=1"], "start_blocks: there is no start_from; leave it out"),
        (["start_from=x", "start_blocks=3"], "received 3; the network has 3, and one has to be left to train; allowed: up to 2"),
        (
            ["start_from=x", "start_blocks=1", "prune={keep: 0.5}"],
            "prune: start_blocks leaves the blocks of that run as they are",
        ),
        (["start_from=x", "start_blocks=1", "strategy=compress", "prune={keep: 0.5}"], "strategy: start_blocks leaves"),
    ],
)
def test_blocks_that_cannot_be_taken(overrides, message):
    with pytest.raises(SpecError, match=message):
        prepare(spec_of(TINY_SPEC), recipe_of(TINY_RECIPE, *overrides), begins=False)


def test_other_blocks_are_refused(finished, files, tmp_path):
    with pytest.raises(InputError, match="start_from: block_2 differs between"):
        start(files, tmp_path, finished.workdir, "start_blocks=2", "blocks.1={conv: 6}")
