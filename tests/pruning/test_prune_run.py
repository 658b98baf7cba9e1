"""Filters that are removed inside training, and from finished runs: what is left, what is written, and going on after a kill."""

import hashlib
import json
import shlex
import signal
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import PRUNED_SPEC, PRUNING_RECIPE, same_weights, some, spec_of, two_devices, weights, without_time

from kerasgreedy.cli import main as cli
from kerasgreedy.errors import Stopped
from kerasgreedy.graph.architecture import architecture
from kerasgreedy.network.evaluation import Evaluator
from kerasgreedy.runs.open_run import open_job, open_pipeline
from kerasgreedy.runs.state import RunState
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.spec.load import load_spec
from kerasgreedy.train import loop, performing
from kerasgreedy.train.entry_points import load_network, resume_run, train_spec
from kerasgreedy.train.evaluating import evaluate_run
from kerasgreedy.train.progress import Reporter
from kerasgreedy.train.prune_run import prune_run

STAGES = ["block_1", "prune_block_1", "fine_tune_block_1", "block_2", "prune_block_2", "fine_tune_block_2",
          "block_3", "prune_block_3", "fine_tune_block_3", "replace_head", "final_head"]  # fmt: skip
TWO_BLOCKS = "name: two\nblock_defaults: {batch_norm: true}\nblocks: [{conv: 4}, {conv: 6, downsample: average}]\n"
SHORT = ["replace_head=null", "training.epochs=1"]


@pytest.fixture
def inputs(tmp_path):
    """The spec and the recipe of `pruned`, on disk."""
    spec, recipe = tmp_path / "small.yaml", tmp_path / "pruning.yaml"
    spec.write_text(PRUNED_SPEC)
    recipe.write_text(PRUNING_RECIPE)
    return spec, recipe


@pytest.fixture
def two_blocks(inputs):
    inputs[0].write_text(TWO_BLOCKS)
    return inputs


@pytest.fixture(scope="module")
def end_to_end(tmp_path_factory):
    """A finished run that never pruned, of the last head only."""
    folder = tmp_path_factory.mktemp("end_to_end")
    (folder / "two.yaml").write_text(TWO_BLOCKS)
    (folder / "recipe.yaml").write_text(PRUNING_RECIPE)
    overrides = [*SHORT, "prune=null", "strategy=end_to_end"]
    return train_spec(folder / "two.yaml", folder / "recipe.yaml", overrides, folder / "run", quiet=True)


def entries(run):
    return {entry["phase"]: entry for entry in run.results["phases"]}


def widths(network):
    return [shape[-1] for shape in (block.output_shape for block in network.architecture.blocks)]


def batch_of(workdir, part):
    """All normalised images and labels of a part, in float32."""
    folder = Workdir.open(workdir)
    job = open_job(folder, None)
    batches = [[t.numpy() for t in batch] for batch in open_pipeline(job, None, folder).evaluation(part, 8)]
    images, labels, keep = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return images[keep > 0], labels[keep > 0]


def contents(folder):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_stages_in_order_and_what_they_leave(pruned):
    assert [entry["phase"] for entry in pruned.results["phases"]] == STAGES
    done = entries(pruned)
    assert done["prune_block_1"]["filters"] == {"block_1/conv_1": [4, 2]}
    assert done["prune_block_2"]["filters"] == {"block_2/conv_1": [6, 3], "block_3/conv_2": [6, 3]}
    assert done["prune_block_3"]["filters"] == {"block_3/conv_1": [5, 3]}
    # Convolution, scale and offset, and the head on 4 x 4 places: 9 x 4 + 8 + (64 + 1) x 10 before.
    assert done["prune_block_1"]["parameters"] == [36 + 8 + 650, 18 + 4 + 330]
    assert done["prune_block_1"]["multiply_adds"] == [64 * 36 + 640, 64 * 18 + 320]
    # The new last head has a convolution 3 -> 3 at 4 x 4 places more; `pool_to` is that of the old one.
    grown = np.subtract(*done["replace_head"]["multiply_adds"][::-1])
    assert grown == 16 * 9 * 3 * 3 and not done["replace_head"]["epochs"]
    assert widths(pruned.network) == [2, 3, 3]
    assert pruned.results["epochs"] == 3 * (2 + 1) + 1
    assert {"before", "after"} == set(pruned.results["pruned"])
    assert pruned.results["pruned"]["after"]["parameters"] == pruned.results["parameters"]
    whole = architecture(spec_of(PRUNED_SPEC).value, (8, 8, 1), 10)
    assert pruned.results["pruned"]["before"]["multiply_adds"] == whole.multiply_adds


def test_the_plan_said_the_sizes_beforehand(pruned):
    plan = json.loads((pruned.workdir / "plan.json").read_text())
    assert [stage["name"] for stage in plan] == STAGES
    done = entries(pruned)
    for stage in plan:
        if stage["action"] == "prune":
            assert stage["planned"] == done[stage["name"]]["filters"]


def test_what_is_written_is_the_last_network(pruned):
    written = load_spec(pruned.workdir / "pruned_spec.yaml").value
    loaded = load_network(pruned.workdir)
    assert architecture(written) == pruned.network.architecture == loaded.architecture
    assert architecture(load_spec(pruned.workdir / "spec.yaml").value).blocks[0].output_shape == (8, 8, 4)
    for name in loaded.names:
        same_weights(loaded.arrays(name), pruned.network.arrays(name))
    scores = evaluate_run(pruned.workdir)
    assert scores["depths"] == pruned.results["depths"] and scores["ensemble"] == pruned.results["ensemble"]
    raw = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1)).astype(np.float32)
    outputs = keras.models.load_model(pruned.workdir / "model.keras")(raw)
    mean, deviation = loaded.facts.normalization
    for depth, z in enumerate(loaded.logits((raw - mean) / deviation), start=1):
        np.testing.assert_allclose(outputs[f"depth_{depth}"], z, rtol=1e-4, atol=1e-5)


def chained(monkeypatch, folder, start):
    """Runs `start`, then resumes, killed each time at the next place; gives the networks before and after a removal."""
    seen = {}

    def die_after(target, name, when):
        original = getattr(target, name)

        def dying(self, *arguments, **more):
            original(self, *arguments, **more)
            if when(self, *arguments):
                raise SystemError("killed")

        monkeypatch.setattr(target, name, dying)

    def stop(self, phase, keep_best, more, original=RunState.finish_phase):
        original(self, phase, keep_best, more)
        if phase.name == "block_2":
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(RunState, "finish_phase", stop)
    with pytest.raises(Stopped, match="stopped by SIGTERM before prune_block_2; saved"):
        start()
    monkeypatch.undo()
    seen["before"] = load_network(folder)
    for target, name, when in [
        (Reporter, "action", lambda self, action: True),  # right before it
        (Workdir, "keep", lambda self, files: any(name.startswith("pruning/") for name in files)),  # it is done, and not saved
        (loop.Loop, "_save", lambda self, changed: self.state.position.kept[-1]["phase"] == "prune_block_2"),
        (Reporter, "step", lambda self, phase, epoch, step, *rest: (phase.name, step) == ("fine_tune_block_2", 2)),
        (Reporter, "step", lambda self, phase, epoch, step, *rest: (phase.name, step) == ("fine_tune_block_2", 3)),
        (loop.Loop, "_save", lambda self, changed: self.state.position.kept[-1]["phase"] == "replace_head"),
        (Reporter, "step", lambda self, phase, epoch, step, *rest: (phase.name, step) == ("final_head", 3)),
    ]:
        monkeypatch.setattr(loop.Loop, "_save_is_due", lambda self: True)  # after every step
        die_after(target, name, when)
        with pytest.raises(SystemError, match="killed"):
            resume_run(folder, quiet=True)
        monkeypatch.undo()
        if name == "_save" and "after" not in seen:
            seen["after"] = load_network(folder)
    return seen


def test_a_signal_while_an_action_looks_at_validation_data(tmp_path, monkeypatch):
    (tmp_path / "small.yaml").write_text(PRUNED_SPEC)
    (tmp_path / "pruning.yaml").write_text(PRUNING_RECIPE)
    looks = []

    class Signalled(Evaluator):
        def __call__(self, batches, seen=None):
            looks.append(1)
            signal.raise_signal(signal.SIGTERM)
            return super().__call__(batches, seen)

    monkeypatch.setattr(performing, "Evaluator", Signalled)
    with pytest.raises(Stopped, match="stopped by SIGTERM before prune_block_1; saved"):
        train_spec(tmp_path / "small.yaml", tmp_path / "pruning.yaml", workdir=tmp_path / "run", quiet=True)
    assert len(looks) == 1 and load_network(tmp_path / "run").architecture.heads


@pytest.fixture(scope="module")
def killed(tmp_path_factory, pruned):
    """The run of `pruned` again, killed at eight places, and its network before and after the second removal."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "small.yaml").write_text(PRUNED_SPEC)
    (folder / "pruning.yaml").write_text(PRUNING_RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        run = folder / "run"
        seen = chained(patch, run, lambda: train_spec(folder / "small.yaml", folder / "pruning.yaml", workdir=run, quiet=True))
    return resume_run(run, quiet=True), seen["before"], seen["after"]


def test_killed_around_a_removal_and_resumed_equals_never_killed(pruned, killed):
    run = killed[0]
    same_weights(weights(run.workdir), weights(pruned.workdir))
    assert without_time(run.workdir) == without_time(pruned.workdir)
    assert run.results["phases"] == pruned.results["phases"] and run.results["depths"] == pruned.results["depths"]
    for name in ("pruned_spec.yaml", "pruning/prune_block_2.json", "plan.json"):
        assert (run.workdir / name).read_bytes() == (pruned.workdir / name).read_bytes()


def test_the_weakest_filters_are_gone_by_a_formula_of_its_own(pruned, killed):
    """Block 2 ends in its convolution's feature map: mean_n |mean_space(z dC/dz)| at head 2."""
    before = killed[1]
    images, labels = batch_of(pruned.workdir, "train")
    assert len(images) == 96
    z = before.component("block_2")(before.component("block_1")(images, training=False), training=False)
    with tf.GradientTape() as tape:
        tape.watch(z)
        logits = before.component("head_2")(z, training=False)
        loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    products = (z * tape.gradient(loss, z)).numpy().astype(np.float64)
    scores = np.abs(products.mean((1, 2))).mean(0)
    written = json.loads((pruned.workdir / "pruning/prune_block_2.json").read_text())
    group = written["groups"]["block_2/conv_1"]
    assert written["importance"] == "taylor_activation" and group["places"] == ["block_2/conv_1", "block_3/conv_2"]
    np.testing.assert_allclose(group["scores"], scores / np.linalg.norm(scores), rtol=1e-4)
    kept = sorted(np.argsort(scores)[3:])
    assert np.flatnonzero(group["kept"]).tolist() == kept


def test_what_stays_keeps_its_weights_bit_for_bit(pruned, killed):
    _, before, after = killed
    kept = np.flatnonzero(
        json.loads((pruned.workdir / "pruning/prune_block_2.json").read_text())["groups"]["block_2/conv_1"]["kept"]
    )
    same_weights(after.arrays("block_1"), before.arrays("block_1"))  # frozen
    same_weights(pruned.network.arrays("block_1"), before.arrays("block_1"))
    same_weights(after.arrays("head_1"), before.arrays("head_1"))
    old, new = before.arrays("block_2"), after.arrays("block_2")
    same_weights(new, {key: value[..., kept] for key, value in old.items()})
    same_weights(pruned.network.arrays("block_2"), new)  # fine-tuning and later phases leave it alone
    rows = np.concatenate([place * 6 + kept for place in range(16)])  # of a head that flattens 4 x 4 places
    old, new = before.arrays("head_2"), after.arrays("head_2")
    same_weights(new, {key: value[rows] if key.endswith("kernel") else value for key, value in old.items()})
    third = before.arrays("block_3")["block_3/conv_1/kernel"]
    np.testing.assert_array_equal(after.arrays("block_3")["block_3/conv_1/kernel"], third[:, :, kept])


def test_accuracies_around_a_removal_are_those_of_the_networks(pruned, killed):
    images, labels = batch_of(pruned.workdir, "validation")
    assert len(images) == 32
    said = entries(pruned)["prune_block_2"]["validation"]
    for network, scores in zip(killed[1:], (said["before"], said["after"]), strict=True):
        logits = network.logits(images)[1].numpy().astype(np.float64)
        logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        assert scores["top1"] == (logits.argmax(1) == labels).mean()
        assert scores["loss"] == pytest.approx(-logs[range(32), labels].mean(), rel=1e-5)


@pytest.mark.slow
def test_cached_features_and_recomputed_ones_give_the_same_run(two_blocks, tmp_path):
    """Between the rounds, what is cached is older than the network."""
    overrides = ["prune.rounds=2", "prune.fine_tune.epochs=2", "replace_head=null"]
    cached = train_spec(*two_blocks, overrides, tmp_path / "cached", quiet=True)
    plan = json.loads((cached.workdir / "plan.json").read_text())
    assert [stage["name"] for stage in plan if stage["cache"] == "memory"] == [
        "fine_tune_block_1_1",
        "fine_tune_block_1_2",
        "block_2",
        "fine_tune_block_2_1",
        "fine_tune_block_2_2",
    ]
    run = train_spec(*two_blocks, [*overrides, "cache.store=none"], tmp_path / "run", quiet=True)
    same_weights(weights(run.workdir), weights(cached.workdir))
    assert without_time(run.workdir) == without_time(cached.workdir)
    assert run.results["phases"] == cached.results["phases"]


@pytest.mark.slow
def test_two_devices_remove_the_same_filters(two_blocks, tmp_path):
    overrides = ["training.keep=last", "training.optimizer.learning_rate=0.01", *SHORT]
    one = train_spec(*two_blocks, overrides, tmp_path / "one", quiet=True)
    two = train_spec(*two_blocks, overrides, tmp_path / "two", strategy=two_devices(), quiet=True)
    names = sorted(path.name for path in (one.workdir / "pruning").iterdir())
    assert names == ["prune_block_1.json", "prune_block_2.json"]
    for name in names:
        first, second = (json.loads((run.workdir / "pruning" / name).read_text())["groups"] for run in (one, two))
        assert {key: group["kept"] for key, group in first.items()} == {key: group["kept"] for key, group in second.items()}
    expected = weights(one.workdir)
    for key, value in weights(two.workdir).items():
        np.testing.assert_allclose(value, expected[key], atol=1e-5, err_msg=key)


@pytest.mark.slow
def test_bfloat16_training_prunes_and_goes_on(two_blocks, tmp_path):
    run = train_spec(*two_blocks, ["precision=mixed_bfloat16", "training.epochs=1"], tmp_path / "run", quiet=True)
    assert widths(run.network) == [2, 3]
    assert {value.dtype for value in weights(run.workdir).values() if value.dtype.kind == "f"} == {np.dtype("float32")}
    assert all(np.isfinite(depth["loss"]) for depth in run.results["depths"])
    assert evaluate_run(run.workdir)["depths"] == run.results["depths"]


@pytest.mark.parametrize(
    ("strategy", "stages", "depths"),
    some(
        ("end_to_end", ["end_to_end"], [2]),
        ("random_features", ["random_features"], [1, 2]),
        slow=[
            ("deep_supervision", ["deep_supervision"], [1, 2]),
            ("decoupled", ["decoupled"], [1, 2]),
            ("dsd", ["dense", "sparse", "dense_again"], [2]),
        ],
    ),
)
def test_other_strategies_prune_after_training(two_blocks, tmp_path, strategy, stages, depths):
    run = train_spec(*two_blocks, [*SHORT, f"strategy={strategy}", "prune.keep=3"], tmp_path / "run", quiet=True)
    assert [entry["phase"] for entry in run.results["phases"]] == [*stages, "prune", "fine_tune"]
    assert widths(run.network) == [3, 3] == widths(load_network(run.workdir))
    assert entries(run)["prune"]["filters"] == {"block_1/conv_1": [4, 3], "block_2/conv_1": [6, 3]}
    assert [scores["depth"] for scores in evaluate_run(run.workdir)["depths"]] == depths
    fine_tune = json.loads((run.workdir / "plan.json").read_text())[-1]
    heads = [f"head_{depth}" for depth in depths]
    assert fine_tune["losses"] == heads
    assert fine_tune["trains"] == (heads if strategy == "random_features" else ["block_1", "block_2", *heads])


def test_training_goes_on_from_the_pruned_network(pruned, inputs, tmp_path, monkeypatch):
    def look(self):
        assert widths(self.state.network) == [2, 3, 3]
        for name in self.state.network.names:
            same_weights(self.state.network.arrays(name), pruned.network.arrays(name))
        raise SystemError("seen")

    monkeypatch.setattr(loop.Loop, "run", look)
    overrides = ["prune=null", "replace_head=null", f"start_from={pruned.workdir}", "strategy=end_to_end", "seed=7"]
    overrides += ["data.validation=0", "training.keep=last"]  # images of another split are not new to these weights
    with pytest.raises(SystemError, match="seen"):
        train_spec(pruned.workdir / "pruned_spec.yaml", inputs[1], overrides, tmp_path / "run", quiet=True)
    monkeypatch.undo()
    done = resume_run(tmp_path / "run", quiet=True)
    facts = [json.loads((folder / "run.json").read_text())["normalization"] for folder in (done.workdir, pruned.workdir)]
    assert facts[0] == facts[1]
    assert widths(done.network) == [2, 3, 3]


def test_pruning_a_finished_run_leaves_it_alone(end_to_end, tmp_path, monkeypatch):
    before = contents(end_to_end.workdir)
    run = prune_run(end_to_end.workdir, keep=0.5, rounds=2, epochs=1, out=tmp_path / "half", quiet=True)
    assert contents(end_to_end.workdir) == before
    assert [entry["phase"] for entry in run.results["phases"]] == ["prune_1", "fine_tune_1", "prune_2", "fine_tune_2"]
    assert [entries(run)[f"prune_{i}"]["filters"] for i in (1, 2)] == [
        {"block_1/conv_1": [4, 3], "block_2/conv_1": [6, 5]},
        {"block_1/conv_1": [3, 2], "block_2/conv_1": [5, 3]},
    ]
    assert [scores["depth"] for scores in run.results["depths"]] == [2]
    first = entries(run)["prune_1"]["validation"]["before"]
    assert first["top1"] == evaluate_run(end_to_end.workdir, "validation")["depths"][0]["top1"]

    def die(self, changed, original=loop.Loop._save):
        original(self, changed)
        if self.state.position.kept[-1:] and self.state.position.kept[-1]["phase"] == "fine_tune_1":
            raise SystemError("killed")

    monkeypatch.setattr(loop.Loop, "_save", die)
    with pytest.raises(SystemError, match="killed"):  # between the rounds
        prune_run(end_to_end.workdir, keep=0.5, rounds=2, epochs=1, out=tmp_path / "again", quiet=True)
    monkeypatch.undo()
    same_weights(weights(resume_run(tmp_path / "again", quiet=True).workdir), weights(run.workdir))
    least = prune_run(run.workdir, keep=1, epochs=0, out=tmp_path / "least", quiet=True)  # of what is pruned already
    assert widths(least.network) == [1, 1]


def test_a_budget_for_a_finished_greedy_run(pruned, tmp_path):
    """All heads count in importance, the last in the budget; its own hidden layer loses filters too."""
    whole = pruned.network.architecture
    cost = sum(block.multiply_adds for block in whole.blocks) + whole.heads[-1].multiply_adds
    run = prune_run(pruned.workdir, multiply_adds=0.7, epochs=1, fine_tune="head", out=tmp_path / "run", quiet=True)
    entry = entries(run)["prune"]
    assert entry["multiply_adds"][0] == cost and entry["multiply_adds"][1] <= 0.7 * cost
    assert [scores["depth"] for scores in run.results["depths"]] == [1, 2, 3]
    with_less = run.network.architecture
    assert entry["multiply_adds"][1] == sum(b.multiply_adds for b in with_less.blocks) + with_less.heads[-1].multiply_adds


@pytest.mark.slow
def test_a_schedule_of_tfmot(end_to_end, tmp_path):
    """0.5 (1 - (1 - t/2)^3) = 0.4375 and 0.5: of 4 filters 2.25 and 2 stay, of 6 filters 3.375 and 3."""
    tfmot = pytest.importorskip("tensorflow_model_optimization")
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.5, begin_step=0, end_step=2, frequency=1)
    run = prune_run(end_to_end.workdir, schedule=schedule, epochs=0, out=tmp_path / "run", quiet=True)
    assert [entry["filters"] for entry in run.results["phases"]] == [
        {"block_1/conv_1": [4, 2], "block_2/conv_1": [6, 3]},
        {"block_1/conv_1": [2, 2], "block_2/conv_1": [3, 3]},
    ]


def test_an_accuracy_limit_on_a_finished_run(end_to_end, tmp_path):
    """A limit of 99 points takes all but one filter of each layer; and pruning follows what silent channels gave."""
    run = prune_run(end_to_end.workdir, accuracy_drop=0.99, epochs=0, out=tmp_path / "run", quiet=True)
    assert widths(run.network) == [1, 1]
    tight = prune_run(end_to_end.workdir, accuracy_drop=0.04, epochs=0, out=tmp_path / "tight", quiet=True)
    scores = entries(tight)["prune"]["validation"]
    assert scores["after"]["top1"] >= scores["before"]["top1"] - 0.04


def test_the_command(end_to_end, tmp_path, monkeypatch, capsys):
    before = contents(end_to_end.workdir)
    command = (
        f"prune {end_to_end.workdir} -w {tmp_path / 'run'} --keep 2 --epochs 1 --importance magnitude_l2 --devices 2 -q --json"
    )
    monkeypatch.setattr(sys, "argv", ["kerasgreedy", *shlex.split(command)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed["workdir"] == str(tmp_path / "run")
    assert Workdir.open(tmp_path / "run").facts()["devices"] == {"replicas": 2, "workers": 1}
    assert printed["phases"][0]["filters"] == {"block_1/conv_1": [4, 2], "block_2/conv_1": [6, 2]}
    assert contents(end_to_end.workdir) == before
    kernel = end_to_end.network.arrays("block_1")["block_1/conv_1/kernel"]
    strongest = sorted(np.argsort(np.square(kernel.astype(np.float64)).sum((0, 1, 2)))[2:])
    group = json.loads((tmp_path / "run/pruning/prune.json").read_text())["groups"]["block_1/conv_1"]
    assert np.flatnonzero(group["kept"]).tolist() == strongest
    spec = load_spec(tmp_path / "run/pruned_spec.yaml").value
    assert [block.output_shape[-1] for block in architecture(spec).blocks] == [2, 2]
