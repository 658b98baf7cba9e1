"""Bad input to pruning: exit code 2, one clear error, and no run folder; what can be known beforehand is said by the plan."""

import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from command_line import assert_clear
from conftest import unsealed

from kerasgreedy.data.arrays import ImageArrays
from kerasgreedy.errors import InputError
from kerasgreedy.train import loop
from kerasgreedy.train.entry_points import train_spec
from kerasgreedy.train.prune_run import prune_run

pytestmark = pytest.mark.usefixtures("place")

BLOCKS = "{conv: 4}, {conv: 6, batch_norm: true}"
DATA = "dataset: digits, train_examples: 64, test_examples: 20, validation: 16"


class Bad(NamedTuple):
    id: str
    prune: str  # the section, or empty
    expected: tuple[str, ...]
    blocks: str = BLOCKS
    more: str = ""  # further sections of the recipe
    data: str = DATA


GREEDY = [
    Bad(
        "keep_nothing", "keep: 0", (":4:9: prune.keep: received 0;", "a share above 0 and below 1, or a whole number of filters")
    ),
    Bad("keep_all", "keep: 1.0", (":4:9: prune.keep: received 1.0; allowed: a share above 0 and below 1",)),
    Bad("keep_negative", "keep: -1", (":4:9: prune.keep: received -1; allowed: a share",)),
    Bad("keep_one_and_a_half", "keep: 1.5", (":4:9: prune.keep: received 1.5; allowed: a share",)),
    Bad("keep_truth", "keep: true", (":4:9: prune.keep: received true; allowed: a share",)),
    Bad("keep_text", "keep: half", (":4:9: prune.keep: received 'half'; allowed: a share",)),
    Bad("keep_nan", "keep: .nan", (":4:9: prune.keep: received nan; allowed: a share",)),
    Bad(
        "keep_too_many", "keep: 6", ("prune.keep: received 6", "no layer that is pruned has more than 4 filters; allowed: 1 to 3")
    ),
    Bad(
        "budget_past_all",
        "multiply_adds: 1.5",
        ("prune.multiply_adds: received 1.5; allowed: a share", "number of multiply-adds"),
    ),
    # Block 1: 64 x 9 x 4; with one filter a quarter.
    Bad(
        "budget_too_large",
        "multiply_adds: 20000",
        ("prune.multiply_adds: received 20,000; there are 2,304 already; allowed: fewer",),
    ),
    Bad("budget_too_small", "multiply_adds: 500", ("received 500;", "nearest: 576 multiply-adds, 0.25 of 2,304 in block_1")),
    Bad(
        "budget_share_too_small", "multiply_adds: 0.1", ("received 0.1;", "nearest: 576 multiply-adds, 0.25 of 2,304 in block_1")
    ),
    Bad("drop_zero", "accuracy_drop: 0", ("prune.accuracy_drop: received 0; allowed: greater than 0",)),
    Bad("drop_one", "accuracy_drop: 1", ("prune.accuracy_drop: received 1; allowed: less than 1",)),
    Bad(
        "drop_unwatched",
        "accuracy_drop: 0.1",
        (":4:9: prune.accuracy_drop: needs data.validation above 0",),
        more="",
        data="dataset: digits, validation: 0",
    ),
    Bad(
        "drop_of_no_image",
        "accuracy_drop: 0.1",
        ("data.validation: received 0.0001, which is no image of 1437; prune.accuracy_drop needs some",),
        data="dataset: digits, validation: 0.0001",
    ),
    Bad(
        "no_amount",
        "rounds: 2",
        ("nothing says how much is removed; give one of keep, multiply_adds, accuracy_drop, schedule, zeros",),
    ),
    Bad("two_amounts", "keep: 2, multiply_adds: 0.5", ("received keep and multiply_adds; give one of",)),
    Bad("importance", "keep: 2, importance: taylor_activatoin", ("received 'taylor_activatoin'", "?taylor_activation")),
    Bad("ranking", "keep: 2, ranking: globl", ("received 'globl'; allowed: 'layer' or 'global'", "?global")),
    Bad("key", "keep: 2, finetune: {epochs: 1}", ("prune.finetune: unknown key", "?fine_tune")),
    Bad("component", "keep: 2, components: [blok_1]", ("prune.components: received 'blok_1'", "?block_1")),
    Bad("component_unlike", "keep: 2, components: [x]", ("received 'x'; allowed: block_1, block_2, head_1, head_2",)),
    Bad("component_without_filters", "keep: 2, components: [head_1]", ("received 'head_1', which has no filters that can be",)),
    Bad("components_empty", "keep: 2, components: []", ("prune.components: received []; allowed: a list of at least 1",)),
    Bad("nothing_to_remove", "keep: 2", ("no block has filters that can be removed",), blocks="{max_pool: 2}, {max_pool: 2}"),
    Bad(
        "residual_alone",
        "keep: 2",
        ("block_2: its filters are summed with those of block_1 and cannot be removed alone", "prune them together", "one phase"),
        blocks="{conv: 8}, {residual: [{conv: 8, activation: linear}]}",
    ),
    Bad("no_scale", "keep: 2, importance: batch_norm_scale", ("prune.importance: ", "block_1/conv_1 has none", "magnitude_l2")),
    Bad(
        "no_scale_later",
        "keep: 0.5, importance: batch_norm_scale, ranking: global",
        ("block_2/conv_1 has none",),
        blocks="{conv: 4, batch_norm: true}, {conv: 6}",
    ),
    Bad(
        "rounds_and_schedule",
        "rounds: 2, schedule: {name: constant_sparsity, target_sparsity: 0.5, begin_step: 0}",
        ("prune.rounds: a schedule has its own rounds; leave it out",),
    ),
    Bad("rounds_and_drop", "rounds: 2, accuracy_drop: 0.1", ("prune.rounds: accuracy_drop says how far one round goes",)),
    Bad("no_rounds", "keep: 2, rounds: 0", ("prune.rounds: received 0; allowed: greater than or equal to 1",)),
    Bad(
        "schedule_idle",
        "schedule: {name: polynomial_decay, initial_sparsity: 0, final_sparsity: 0.5, begin_step: 0, end_step: 4}",
        ("prune.schedule.end_step: received 4; the last active step would be 0", "a multiple of frequency (100)"),
    ),
    Bad("schedule_name", "schedule: {name: polynomal_decay}", ("prune.schedule", "polynomal_decay", "?polynomial_decay")),
    Bad(
        "schedule_of_nothing",
        "schedule: {name: constant_sparsity, target_sparsity: 0, begin_step: 0}",
        ("prune.schedule.target_sparsity: received 0; nothing would be pruned",),
    ),
    Bad(
        "number_of_all",
        "keep: 2, ranking: global",
        ("prune.ranking: 'global' ranks filters across layers", "give a share in keep"),
    ),
    Bad("heads", "keep: 2, heads: all", ("prune.heads: strategy 'greedy' has its own heads; leave it out",)),
    Bad("no_images", "keep: 2, images: 0", ("prune.images: received 0; allowed: greater than or equal to 1",)),
    Bad(
        "fine_tune_batch",
        "keep: 2, fine_tune: {batch_size: 4096}",
        ("prune.fine_tune.batch_size: received 4096; only 48 images are left for training",),
    ),
    Bad("fine_tune_trains", "keep: 2, fine_tune: {trains: heads}", ("prune.fine_tune.trains: received 'heads'", "?head")),
    Bad(
        "random_blocks",
        "keep: 2, fine_tune: {trains: all}",
        ("strategy 'random_features' never trains blocks; allowed: head",),
        more="strategy: random_features\n",
    ),
    Bad("unseen_head", "keep: 2, components: [head_1]", ("received 'head_1'",), more="strategy: end_to_end\n"),
    Bad(
        "compress_alone",
        "",
        ("strategy 'compress' needs 'prune', 'threshold' or 'replace_head'", "needs 'start_from'"),
        more="strategy: compress\n",
    ),
    Bad(
        "compress_what",
        "keep: 2",
        ("strategy: strategy 'compress' needs 'start_from', the run folder",),
        more="strategy: compress\n",
    ),
    Bad("new_head_key", "", ("replace_head.head.widht", "?width"), more="replace_head: {head: {widht: 3}}\n"),
    Bad(
        "new_head_batch",
        "",
        ("replace_head.training.batch_size: received 4096; only 48",),
        more="replace_head: {head: {width: 3}, training: {batch_size: 4096}}\n",
    ),
]


def write(case: Bad) -> None:
    Path("s.yaml").write_text(f"name: s\nblocks: [{case.blocks}]\n")
    prune = f"prune: {{{case.prune}}}\n" if case.prune else ""
    training = "training: {epochs: 1, batch_size: 8}\n"
    Path("x.yaml").write_text(f"name: r\ndata: {{{case.data}}}\n{training}{prune}{case.more}")


def nothing_is_left() -> None:
    assert sorted(path.name for path in Path().iterdir() if path.is_dir()) == []


@pytest.mark.parametrize("case", GREEDY, ids=lambda case: case.id)
def test_the_plan_refuses_what_cannot_be_done(case, call):
    write(case)
    assert_clear(*call("plan s.yaml -r x.yaml"), case.expected)


@pytest.mark.parametrize("case", [case for case in GREEDY if case.id in ("keep_too_many", "no_scale", "residual_alone")], ids=str)
def test_training_refuses_it_too_and_leaves_no_folder(case, call):
    write(case)
    assert_clear(*call("train s.yaml -q -r x.yaml -w run"), case.expected)
    nothing_is_left()


class Use(NamedTuple):
    id: str
    command: str  # RUN is the finished run
    expected: tuple[str, ...]


PRUNE = "prune RUN -q -w run "
COMPRESS = "train RUN/pruned_spec.yaml -q -r x.yaml -w run -s start_from="
USES = [
    Use("keep_0", PRUNE + "--keep 0", ("prune.keep: received 0; allowed: a share above 0 and below 1",)),
    Use("keep_1.0", PRUNE + "--keep 1.0", ("prune.keep: received 1.0; allowed: a share above 0",)),
    Use("keep_-1", PRUNE + "--keep=-1", ("prune.keep: received -1; allowed: a share",)),
    Use("keep_1.5", PRUNE + "--keep 1.5", ("prune.keep: received 1.5; allowed: a share",)),
    Use("keep_text", PRUNE + "--keep half", ("--keep: received 'half'; allowed: a share such as 0.5, or a whole number",)),
    Use("keep_3", PRUNE + "--keep 3", ("received 3; no layer that is pruned has more than 3 filters; allowed: 1 to 2",)),
    Use("budget_1.5", PRUNE + "--multiply-adds 1.5", ("prune.multiply_adds: received 1.5; allowed: a share",)),
    Use("budget_1", PRUNE + "--multiply-adds 1", ("prune.multiply_adds: received 1;", "nearest: ", " multiply-adds, 0.")),
    Use("drop_0", PRUNE + "--accuracy-drop 0", ("prune.accuracy_drop: received 0.0; allowed: greater than 0",)),
    Use("drop_unwatched", PRUNE + "--accuracy-drop 0.1 -s data.validation=0", ("data.validation",)),
    Use("no_amount", PRUNE, ("prune: nothing says how much is removed; give one of keep, multiply_adds",)),
    Use("two_amounts", PRUNE + "--keep 2 --accuracy-drop 0.1", ("received keep and accuracy_drop; give one of keep",)),
    Use("importance", PRUNE + "--keep 2 --importance magnitude_l3", ("received 'magnitude_l3'", "?magnitude_l2")),
    Use("ranking", PRUNE + "--keep 0.5 --ranking layers", ("received 'layers'", "?layer")),
    Use("component", PRUNE + "--keep 2 -c block1", ("prune.components: received 'block1'", "?block_1")),
    Use("component_unseen", PRUNE + "--keep 2 --heads last -c head_1", ("received 'head_1'",)),
    Use("heads", PRUNE + "--keep 2 --heads first", ("prune.heads: received 'first'", "'last' or 'all'")),
    Use("fine_tune", PRUNE + "--keep 2 --fine-tune heads", ("received 'heads'", "?head")),
    Use("epochs", PRUNE + "--keep 2 --epochs=-1", ("epochs: received -1; allowed: 0 or more",)),
    Use("rounds", PRUNE + "--keep 2 --rounds 0", ("prune.rounds: received 0",)),
    Use("global", PRUNE + "--keep 2 --ranking global", ("'global' ranks filters across layers",)),
    Use("batch", PRUNE + "--keep 2 -s prune.fine_tune.batch_size=4096", ("received 4096; only 96 images",)),
    Use("no_run", "prune nosuch --keep 2", ("nosuch: no such run folder",)),
    Use("no_run_folder", "prune / --keep 2", ("/: not a run folder (run.json is missing)",)),
    Use("start_nowhere", COMPRESS + "nosuch", ("nosuch', which is no run folder; allowed: the folder of a finished run",)),
    Use("start_no_run", COMPRESS + "/", ("received '/', which is no run folder",)),
    Use(
        "start_of_other_spec",
        "train s.yaml -q -r x.yaml -w run -s start_from=RUN",
        ("start_from: block_1 differs between", "that run's network is described by", "pruned_spec.yaml"),
    ),
    Use(
        "start_of_old_spec", "train RUN/spec.yaml -q -r x.yaml -w run -s start_from=RUN", ("differs between", "pruned_spec.yaml")
    ),
]


@pytest.mark.parametrize("case", USES, ids=lambda case: case.id)
def test_the_command_refuses_what_cannot_be_done(case, pruned, call):
    write(Bad("", "keep: 2", (), more="strategy: end_to_end\n"))
    assert_clear(*call(case.command.replace("RUN", str(pruned.workdir))), case.expected)
    nothing_is_left()


def test_a_run_folder_that_exists_is_refused(pruned, call):
    Path("run").mkdir()
    Path("run/note").write_text("mine")
    assert_clear(*call(f"prune {pruned.workdir} -q --keep 2 -w run"), ("run: already exists and is not empty", "--workdir"))
    assert [path.name for path in Path("run").iterdir()] == ["note"]


def test_the_current_folder_can_be_named(pruned, call, monkeypatch):
    """`prune .` writes beside it, under its name."""
    run = Path(shutil.copytree(pruned.workdir, "mine"))
    Path("mine-pruned").mkdir()
    Path("mine-pruned/note").write_text("mine")
    monkeypatch.chdir(run)
    assert_clear(*call("prune . -q --keep 2"), ("mine-pruned: already exists and is not empty",))


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that died in its second phase."""
    folder = tmp_path_factory.mktemp("unfinished")
    (folder / "s.yaml").write_text(f"name: s\nblocks: [{BLOCKS}]\n")
    (folder / "r.yaml").write_text(f"name: r\ndata: {{{DATA}}}\ntraining: {{epochs: 1, batch_size: 8}}\n")

    def die(self: Any, phase: Any, original: Any = loop.Loop._epoch) -> Any:
        if phase.index == 1:
            raise SystemError("killed")
        return original(self, phase)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemError):
        patch.setattr(loop.Loop, "_epoch", die)
        train_spec(folder / "s.yaml", folder / "r.yaml", workdir=folder / "run", quiet=True)
    return folder / "run"


def test_an_unfinished_run_is_neither_pruned_nor_started_from(unfinished, call):
    expected = (f"start_from: {unfinished}: this run is not finished; go on with it: train --resume {unfinished}",)
    assert_clear(*call(f"prune {unfinished} -q --keep 2 -w run"), expected)
    nothing_is_left()
    write(Bad("", "keep: 2", (), more=f"strategy: compress\nstart_from: {unfinished}\n"))
    assert_clear(*call("train s.yaml -q -r x.yaml -w run"), expected)
    nothing_is_left()


def test_a_run_whose_recipe_was_changed_is_refused(pruned, call):
    """The data are those that the run was trained on, or it is not pruned."""
    run = Path(shutil.copytree(pruned.workdir, "mine"))
    text = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(re.sub(r"train_examples: 128", "train_examples: 120", text))
    assert_clear(*call("prune mine -q --keep 2 -w run"), ("mine/recipe.yaml: not what the run began with",))
    unsealed(run)  # as folders of older versions are
    assert_clear(*call("prune mine -q --keep 2 -w run"), ("mine: the data changed since the run began (train_images was 96 and",))
    assert not Path("run").exists()


def test_arrays_have_to_be_given_again(tmp_path, call):
    rng = np.random.default_rng(0)
    data = ImageArrays(*((rng.integers(0, 256, (n, 8, 8, 1), np.uint8), rng.integers(0, 3, n)) for n in (24, 8)))
    write(Bad("", "", (), data="dataset: digits, validation: 0"))
    run = train_spec("s.yaml", "x.yaml", ["training.batch_size=8"], "mine", data, quiet=True)
    assert_clear(*call("prune mine -q --keep 2 -w run"), ("mine: this run was trained on arrays of its caller",))
    assert not Path("run").exists()
    done = prune_run(run.workdir, keep=2, epochs=0, out="run", data=data, quiet=True)
    assert [block.output_shape[-1] for block in done.network.architecture.blocks] == [2, 2]


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (0.5, "sparsity schedule: received 0.5; allowed: tfmot.sparsity.keras.ConstantSparsity or PolynomialDecay"),
        (np.random.default_rng(0), "sparsity schedule: received .*; allowed: tfmot"),
    ],
)
def test_a_schedule_that_is_none(pruned, schedule, message):
    with pytest.raises(InputError, match=message):
        prune_run(pruned.workdir, schedule=schedule, out="run", quiet=True)
    nothing_is_left()


def test_a_plan_that_can_be_done_says_so(call):
    """What is refused above is refused for its fault: the recipe around it is good, blocks without filters included."""
    write(Bad("", "keep: 2, fine_tune: {epochs: 1}", (), blocks="{conv: 4}, {max_pool: 2}, {conv: 6}"))
    code, out, err = call("plan s.yaml -r x.yaml --json")
    assert code == 0, err
    names = [phase["name"] for phase in json.loads(out.splitlines()[-1])["phases"]]
    assert names == ["block_1", "prune_block_1", "fine_tune_block_1", "block_2", "block_3", "prune_block_3", "fine_tune_block_3"]
