"""Settings that would train something else than they seem to say."""

import pytest
from conftest import TINY_RECIPE, recipe_of, spec_of

from kerasgreedy.cli import main as cli
from kerasgreedy.errors import InputError, SpecError
from kerasgreedy.plan.batch_sizes import check_batch, check_batches, whole_shares
from kerasgreedy.plan.preparation import prepare
from kerasgreedy.spec.load import load
from kerasgreedy.spec.source import parse_value

# What `--set key=TEXT` means: the whole text, or an error.
VALUES = {
    "npz:run #2.npz": "npz:run #2.npz",
    "folder:/a/b #1": "folder:/a/b #1",
    "#x": "#x",
    "a\nb": "a\nb",
    "5 # five": "5 # five",
    "x#y": "x#y",
    "5": 5,
    "5e-4": 5e-4,
    "true": True,
    "null": None,
    "": None,
    "  x ": "x",
    "'a #b' ": "a #b",
    "[1,\n 2]": [1, 2],
    "{a: 1, b: x}": {"a": 1, "b": "x"},
    '"q" # c': SpecError,
    "[1, 2] # c": SpecError,
    "{a: b #c}": SpecError,
    "a: 1": SpecError,
}


@pytest.mark.parametrize("text", VALUES)
def test_an_override_is_taken_whole_or_refused(text):
    wanted = VALUES[text]
    if wanted is SpecError:
        with pytest.raises(SpecError):
            parse_value(text)
    else:
        assert parse_value(text) == wanted and type(parse_value(text)) is type(wanted)


def test_a_data_set_with_a_hash_in_its_name(tmp_path):
    """Not the one whose name ends before it."""
    with pytest.raises(InputError, match=r"npz:.*run #2.npz: no such file"):
        prepare(*load("simcnn_k3_cifar", None, [f"data.dataset=npz:{tmp_path}/run #2.npz"]))


@pytest.mark.parametrize("layer", ["{conv: 4, activation: null}", "[{flatten: true}, {dense: 4, activation: ~}]",
                                   "{residual: [{conv: 4}], activation: null, shortcut: projection}"])  # fmt: skip
def test_no_activation_is_written_linear(layer):
    """Keras users mean linear; left out it means the default."""
    with pytest.raises(SpecError, match=r"activation: received null; allowed: linear for none, or leave it out"):
        spec_of(f"name: s\nblocks: [{layer}]\n")
    written = layer.replace("null", "linear").replace("~", "linear")
    assert spec_of(f"name: s\nblocks: [{written}]\n").value.blocks[0].layers[-1].activation == "linear"
    with pytest.raises(SpecError, match="activation: received null"):
        spec_of("name: s\nblocks: [{conv: 4}]\n", "blocks.0.activation=null")


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_a_warm_up_ends_within_its_phase(schedule):
    more = ", every: 1, factor: 0.5" if schedule == "step" else ""
    sets = [f"training.schedule={{name: {schedule}, warmup_epochs: 2{more}}}"]
    assert recipe_of(TINY_RECIPE, *sets).value.training.schedule.warmup_epochs == 2 == recipe_of().value.training.epochs
    message = r"received a warm-up of 2 epochs; the phase has 1; allowed: up to these"
    with pytest.raises(SpecError, match=f"training.schedule.warmup_epochs: {message}"):
        recipe_of(TINY_RECIPE, *sets, "training.epochs=1")
    with pytest.raises(SpecError, match=f"prune.fine_tune: {message}"):
        recipe_of(TINY_RECIPE, *sets, "prune={keep: 0.5, fine_tune: {epochs: 1}}")


NORMED = "name: s\ninput_shape: [{side}, {side}, 1]\nblock_defaults: {{batch_norm: true}}\nblocks: [{block}]\n"


@pytest.mark.parametrize(
    ("side", "block", "sets", "replicas", "place"),
    [
        (1, "{conv: 4, kernel_size: 1}", ["training.batch_size=1"], 1, "block_1/batch_norm_1"),
        (8, "[{conv: 4}, {flatten: true}, {dense: 4, batch_norm: true}]", ["training.batch_size=1"], 1, "block_1/batch_norm_2"),
        (8, "{conv: 4, kernel_size: 8, padding: valid}", ["training.accumulation=32"], 1, "block_1/batch_norm_1"),
        (
            8,
            "{conv: 4, kernel_size: 8, padding: valid}",
            ["training.batch_size=2", "sync_batch_norm=false"],
            2,
            "block_1/batch_norm_1",
        ),
        (8, "{conv: 4, kernel_size: 8, padding: valid}", ["training.batch_size=2", "sync_batch_norm=true"], 2, None),
        (8, "{conv: 4, kernel_size: 8, padding: valid}", ["training.batch_size=2"], 1, None),
        (8, "{conv: 4}", ["training.batch_size=1"], 1, None),
    ],
)
def test_batch_norm_over_a_single_value(side, block, sets, replicas, place):
    """Its mean is the value, its variance 0: it gives its offset, whatever comes in."""
    spec = spec_of(NORMED.format(side=side, block=block))
    sets = [*sets, f"data.image_size={side}", "data.augment={}"]
    job = prepare(spec, recipe_of(TINY_RECIPE, *sets))
    if place is None:
        return check_batches(job, replicas, 1, on_cpu=False)
    with pytest.raises(InputError, match=f"training.batch_size: phase block_1 would normalise {place} .* over 1 image"):
        check_batches(job, replicas, 1, on_cpu=False)


def test_every_device_gets_a_share():
    """ceil(b / n) images on each of the first: nothing is left for the last where ceil(b / n) (n - 1) >= b."""
    for replicas in range(1, 9):
        for batch in range(1, 70):
            share = -(-batch // replicas)
            shares = [max(0, min(share, batch - share * device)) for device in range(replicas)]
            assert sum(shares) == batch and whole_shares(batch, replicas) % replicas == 0
            assert batch <= whole_shares(batch, replicas) < batch + replicas
            if min(shares):
                check_batch(batch, replicas)
            else:
                with pytest.raises(InputError, match=f"batch size {batch} does not reach {replicas} devices") as error:
                    check_batch(batch, replicas)
                check_batch(whole_shares(batch, replicas), replicas)
                least = int(str(error.value).partition("any number from ")[2].split()[0])
                assert all(-(-b // replicas) * (replicas - 1) < b for b in range(least, least + 20))


def test_a_block_named_as_another_stage_is():
    spec = spec_of("name: s\nblocks: [{conv: 4}, {name: prune_block_1, layers: [{conv: 4}]}]\n")
    recipe = recipe_of(TINY_RECIPE, "prune={keep: 0.5}")
    with pytest.raises(SpecError, match="a block is named 'prune_block_1', as another stage of the plan is; rename the block"):
        prepare(spec, recipe)
    assert prepare(spec, recipe_of()).phases[1].name == "prune_block_1"


def test_plan_refuses_a_start_that_train_refuses(finished, monkeypatch, capsys):
    """Another network than the run's."""

    def code(*arguments):
        monkeypatch.setattr("sys.argv", ["kerasgreedy", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, capsys.readouterr().err

    own, recipe = finished.workdir / "spec.yaml", finished.workdir / "recipe.yaml"
    start = ["--set", f"start_from={finished.workdir}"]
    assert code("plan", own, "-r", recipe, *start)[0] == 0
    failed, said = code("plan", own, "-r", recipe, *start, "--set", "blocks.0.layers.0.conv=5")
    assert failed == 2 and "start_from: block_1 differs between" in said
