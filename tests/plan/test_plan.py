"""What each strategy compiles to."""

import pytest
from conftest import TINY_RECIPE, TINY_SPEC, recipe_of, spec_of

from kerasgreedy.errors import DataError, SpecError
from kerasgreedy.plan.preparation import prepare

BLOCKS, HEADS = ("block_1", "block_2", "block_3"), ("head_1", "head_2", "head_3")


def plan(*overrides, spec=TINY_SPEC):
    return prepare(spec_of(spec), recipe_of(TINY_RECIPE, *overrides))


def test_greedy_trains_one_block_and_its_head_after_the_other():
    phases = plan().phases
    assert [(p.trains, p.frozen, p.losses) for p in phases] == [
        (("block_1", "head_1"), (), ("head_1",)),
        (("block_2", "head_2"), ("block_1",), ("head_2",)),
        (("block_3", "head_3"), ("block_1", "block_2"), ("head_3",)),
    ]
    assert all(p.epochs == 2 and p.init == "fresh" and p.solver == "sgd" and not p.cache.used for p in phases)


@pytest.mark.parametrize(
    ("strategy", "trains", "frozen", "losses", "stop"),
    [
        ("decoupled", BLOCKS + HEADS, (), HEADS, True),
        ("end_to_end", (*BLOCKS, "head_3"), (), ("head_3",), False),
        ("deep_supervision", BLOCKS + HEADS, (), HEADS, False),
        ("random_features", HEADS, BLOCKS, HEADS, True),
    ],
)
def test_one_phase_strategies(strategy, trains, frozen, losses, stop):
    (phase,) = plan(f"strategy={strategy}").phases
    assert (phase.trains, phase.frozen, phase.losses, phase.stop_gradient) == (trains, frozen, losses, stop)


def test_costs_of_a_phase():
    job = plan()
    blocks, heads = job.architecture.blocks, job.architecture.heads
    second = job.phases[1]
    trained = blocks[1].multiply_adds + heads[1].multiply_adds
    assert second.parameters == blocks[1].parameters + heads[1].parameters
    assert second.multiply_adds == blocks[0].multiply_adds + trained
    assert second.training_multiply_adds == blocks[0].multiply_adds + 3 * trained


def test_identity_start_where_it_can_be_and_a_reason_where_not():
    text = "name: s\nblocks: [{conv: 4}, {conv: 4}, {conv: 8}, {conv: 8, downsample: average}, [{conv: 8}, {conv: 8}]]\n"
    phases = plan("training.init=identity", spec=text).phases
    assert [p.init for p in phases] == ["fresh", "identity", "fresh", "fresh", "fresh"]
    assert [p.init_reason for p in phases[2:]] == [
        "block_3 maps 8x8x4 to 8x8x8",
        "block_4 is not one convolution with an activation",
        "block_5 is not one convolution with an activation",
    ]


def test_sizes_of_the_parts_and_the_input():
    job = plan("data.image_size=[12, 16]")
    assert job.architecture.input_shape == (12, 16, 1)
    assert (job.train_images, job.validation_images, job.test_images) == (128, 32, 50)
    assert job.spec.input_shape == [12, 16, 1] and job.spec.classes == 10
    whole = prepare(spec_of(TINY_SPEC), recipe_of("name: r\ndata: {dataset: digits}\ntraining: {epochs: 1}\n"))
    assert (whole.train_images, whole.validation_images, whole.test_images) == (1293, 144, 360)


def test_what_does_not_fit_is_said_at_its_place():
    with pytest.raises(
        SpecError, match=r"--set data.image_size=9: data.image_size: received 9x9, but the spec fixes input_shape 8x8x1"
    ):
        plan("data.image_size=9", spec=TINY_SPEC + "input_shape: [8, 8, 1]\n")
    with pytest.raises(SpecError, match=r"spec.yaml:8:1: classes: the spec has 7 classes and data set 'digits' has 10"):
        plan(spec=TINY_SPEC.strip() + "\nclasses: 7\n")
    with pytest.raises(SpecError, match="received 1000; only 128 images are left for training"):
        plan("training.batch_size=1000")
    with pytest.raises(DataError, match="did you mean 'cifar10'"):
        plan("data.dataset=cifar-10")
    with pytest.raises(
        SpecError, match="--set data.corrupt=skip: data.corrupt: received 'skip', which is for the files of folder"
    ):
        plan("data.corrupt=skip")


def test_a_phase_trains_otherwise_where_it_says_so():
    phases = plan("phases={block_2: {epochs: 7, optimizer: {name: sgd, learning_rate: 0.5}}, block_3: {keep: last}}").phases
    assert [phase.epochs for phase in phases] == [2, 7, 2]
    assert [phase.training.optimizer.learning_rate for phase in phases] == [0.05, 0.5, 0.05]
    assert [phase.training.optimizer.weight_decay for phase in phases] == [5e-4, 0, 5e-4]  # a whole optimizer
    assert [phase.training.keep for phase in phases] == ["best", "best", "last"]


@pytest.mark.parametrize(
    ("strategy", "name", "message"),
    [
        ("greedy", "block_4", "phases.block_4: the strategy has no such phase; allowed: block_1, block_2, block_3"),
        ("end_to_end", "block_1", "allowed: end_to_end"),
        ("dsd", "sparse", "allowed: dense"),
    ],
)
def test_changes_of_no_phase_are_refused(strategy, name, message):
    with pytest.raises(SpecError, match=message):
        plan(f"strategy={strategy}", f"phases={{{name}: {{epochs: 1}}}}")


def test_changes_of_a_phase_are_checked_as_training_is():
    with pytest.raises(SpecError, match="phases.block_1.batch_size: received 3; .* training.accumulation 2"):
        recipe_of(TINY_RECIPE, "training.accumulation=2", "phases={block_1: {batch_size: 3}}")
