"""Runs of solver `alternation`: what is stored, when it is estimated anew, strategies, kills, devices, pruned connections."""

import signal

import numpy as np
import pytest
from conftest import same_weights, some, weights, without_time
from masked import Images, Masked

from kerasgreedy.errors import Stopped
from kerasgreedy.inputs.feature_store import StoreFolder
from kerasgreedy.solvers.alternation.alternation import AlternationSolver
from kerasgreedy.solvers.alternation.held_masks import HeldMasks
from kerasgreedy.solvers.schedules import make_optimizer
from kerasgreedy.solvers.solver import Task
from kerasgreedy.train.entry_points import resume_run, train_spec
from kerasgreedy.train.progress import Reporter

SPEC = """
name: small
block_defaults: {activation: positive_hard_threshold, threshold: {beta: 0.05, learn: warm_up, per: channel}}
blocks:
  - {conv: 3, batch_norm: true}
  - [{dropout: 0.25}, {conv: 4, downsample: max}]
auxiliary_head: {hidden_layers: 1, pool_to: 2}
"""
# 64 images in batches of 16: 4 steps an epoch.
RECIPE = """
name: fast
strategy: end_to_end
data: {dataset: digits, train_examples: 80, test_examples: 20, validation: 16, augment: {pad_crop: 1}, augment_views: 2}
training: {epochs: 5, batch_size: 16, optimizer: {name: sgd, learning_rate: 0.05, weight_decay: 5e-4}, keep: best}
"""
INSTANCE = "training.solver={name: alternation, warm_up_epochs: 1, refresh: 2, hold_pools: true, store: memory}"
DISK = INSTANCE.replace("memory", "disk")
BATCH = "training.solver={name: alternation, mode: batch, warm_up_epochs: 1, hold_pools: true}"
PLAIN = SPEC.replace(", {dropout: 0.25}", "").replace(
    "[{dropout: 0.25}, {conv: 4, downsample: max}]", "{conv: 4, downsample: max}"
)


def run(folder, *overrides, spec=SPEC, strategy=None):
    folder.mkdir(exist_ok=True)
    (folder / "small.yaml").write_text(spec)
    (folder / "fast.yaml").write_text(RECIPE)
    return train_spec(folder / "small.yaml", folder / "fast.yaml", overrides, folder / "run", strategy=strategy, quiet=True)


def refreshes(done):
    return [(r["phase"], r["epoch"]) for r in without_time(done.workdir) if r["split"] == "refresh"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """(overrides) -> a run that nothing disturbed, made once."""
    folder, made = tmp_path_factory.mktemp("undisturbed"), {}

    def get(*overrides):
        if overrides not in made:
            made[overrides] = run(folder / str(len(made)), *overrides)
        return made[overrides]

    return get


def equal(one, two):
    same_weights(weights(one.workdir), weights(two.workdir))
    assert without_time(one.workdir) == without_time(two.workdir)
    assert one.results["phases"] == two.results["phases"]


@pytest.fixture
def watched(monkeypatch):
    """Compares the masks of every masked step with those that the weights of the last refresh give for the images as seen.

    Collects the number of such steps, and how far the masks of two views differ.
    """
    steps, views = [], []
    original = AlternationSolver.step

    def step(self, batch, number):
        if self.masked:
            x, labels, bits = batch
            with self.held._network.holding(self.held.weights):
                _, again, _ = self.held._estimating(np.arange(len(labels)), x, labels)
            np.testing.assert_array_equal(bits, again)
            assert 0 < np.mean(bits) < 255
            steps.append(len(labels))
            if len(self.held._stores) == 2:
                views.append(
                    np.mean(
                        np.not_equal(*(self.held._stores[view].take(np.arange(len(self.held._stores[0]))) for view in (0, 1)))
                    )
                )
        return original(self, batch, number)

    monkeypatch.setattr(AlternationSolver, "step", step)
    return steps, views


@pytest.mark.slow
@pytest.mark.parametrize("overrides", some((DISK,), slow=[(INSTANCE,)]), ids=["disk", "memory"])
def test_stored_masks_are_those_of_the_view_as_seen(undisturbed, watched, tmp_path, overrides):
    """Epochs 1, 3 see view 1, epochs 2, 4 view 0; masks of the other view, or of newer weights, would differ."""
    steps, views = watched
    done = run(tmp_path / "watched", overrides)
    assert steps == [16] * 16 and min(views) > 0.1
    assert refreshes(done) == [(0, 1), (0, 3)]
    entry = done.results["phases"][0]["alternation"]
    assert entry["refreshes"] == [1, 3] and set(entry["beta"].values()) == {0.0} and len(entry["beta"]) == 3
    masked = [r.get("masks", False) for r in without_time(done.workdir) if r["split"] == "train"]
    assert masked == [False] + [True] * 4
    assert not (done.workdir / "cache").exists()
    equal(done, undisturbed(INSTANCE))


def test_thresholds_of_the_warm_up_are_fixed_by_the_first_masks(undisturbed):
    """Trained as a bias up to then; from then on the threshold is what the bias was."""
    arrays = {
        key: value
        for key, value in weights(undisturbed(BATCH).workdir).items()
        if "/hard_threshold" in key or "/activation" in key
    }
    hard = [value for key, value in arrays.items() if key.endswith("/hard") and not key.startswith("head_1")]
    assert len(hard) == 3 and all(value == 1 for value in hard)
    for key, value in arrays.items():
        if key.endswith("/beta") and not key.startswith("head_1"):
            assert np.abs(value - 0.05).max() > 1e-4, key


def solver_of(folder, settings, store=None):
    """A solver on 32 images, not yet begun."""
    net = Masked("[{conv: 2, kernel_size: 1}]", settings.replace("{", "{warm_up_epochs: 1, ", 1), "training.epochs=99")
    optimizer = make_optimizer(net.phase.training.optimizer, np.array([0.1], np.float32))
    images = np.random.default_rng(2).normal(size=(32, 8, 8, 2)).astype(np.float32)
    solver = AlternationSolver(Task(net.phase, net.network, optimizer, net.strategy, Images(images), StoreFolder(folder)))
    if store:
        solver.load_arrays(store)
    return solver


@pytest.mark.parametrize(
    ("settings", "losses", "expected"),
    [
        # Warm-up; 1.0 is the best, 0.9 is no tenth below it, 0.89 is, 0.85 twice is not: masks anew, and all begins again.
        ("{patience: 2, min_decrease: 0.1}", [9, 1.0, 0.9, 0.89, 0.85, 0.85, 2.0, 2.0, 2.0, 1.0, 1.0], [1, 6, 9]),
        ("{patience: 1, min_decrease: 0}", [0, 1.0, 0.99, 0.98, 0.98, 3.0, 2.0], [1, 5]),
        ("{patience: 2, min_decrease: 0.1, hold_at_most: 3}", [1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05], [1, 4, 7]),
        ("{refresh: 1}", [1, 1, 1, 1], [1, 2, 3]),
        ("{refresh: 3}", [1, 1, 1, 1, 1, 1, 1, 1], [1, 4, 7]),
        ("{mode: batch, beta: 0}", [1, 1, 1, 1], [1]),
    ],
)
def test_when_masks_are_estimated_anew(tmp_path, settings, losses, expected):
    """By hand-made losses; a solver that is loaded from the state of another goes on as that one would."""
    solver, other, seen = solver_of(tmp_path, settings), None, []
    for epoch, loss in enumerate(losses):
        other = solver_of(tmp_path, settings, solver.arrays()) if epoch == 4 else None
        for one in filter(None, (solver, other)):
            list(one.prepare(epoch, 0))
        assert solver.masked == (epoch >= 1)
        assert other is None or other.events(epoch) == solver.events(epoch)
        if solver.events(epoch) == ["refresh"]:
            seen.append(epoch)
        solver = other or solver
        solver.end(loss)
    assert seen == expected


CONFIGS = {"memory": (INSTANCE,), "disk": (DISK,), "batch": (BATCH,)}


@pytest.mark.parametrize(
    ("config", "at"),
    some(
        ("disk", 8),  # between views
        # Right after a refresh, after the second; in the warm-up, in the middle of the next view; in the middle.
        slow=[("memory", 5), ("batch", 11), ("memory", 2), ("memory", 10), ("disk", 6), ("disk", 13), ("batch", 3), ("batch", 5)],
    ),
)
def test_stopped_at_a_step_and_resumed_equals_never_stopped(undisturbed, tmp_path, monkeypatch, config, at):
    steps = []

    def step(self, *arguments):
        steps.append(1)
        if len(steps) == at:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Reporter, "step", step)
    with pytest.raises(Stopped, match="stopped by SIGTERM"):
        run(tmp_path / "part", *CONFIGS[config])
    monkeypatch.undo()
    equal(resume_run(tmp_path / "part/run", quiet=True), undisturbed(*CONFIGS[config]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "at", "how"),
    some(
        ("disk", 10, "kill"),
        slow=[("memory", 6, "stop"), ("batch", 1, "stop"), ("memory", 2, "stop"), ("memory", 2, "kill"),
              ("memory", 6, "kill"), ("disk", 10, "stop"), ("batch", 1, "kill")],
    ),
)  # fmt: skip
def test_stopped_or_killed_while_masks_are_estimated(undisturbed, tmp_path, monkeypatch, config, at, how):
    """4 batches a view: in the first refresh, in the second view, in the second refresh; and again after resuming."""
    seen = []

    def done(self, *arguments):
        seen.append(1)
        if len(seen) in (at, at + 2):
            if how == "kill":
                raise SystemError("killed")
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Reporter, "images_done", done)
    error = Stopped if how == "stop" else SystemError
    with pytest.raises(error):
        run(tmp_path / "part", *CONFIGS[config])
    with pytest.raises(error):
        resume_run(tmp_path / "part/run", quiet=True)
    monkeypatch.undo()
    done = resume_run(tmp_path / "part/run", quiet=True)
    equal(done, undisturbed(*CONFIGS[config]))
    assert refreshes(done) == ([(0, 1)] if config == "batch" else [(0, 1), (0, 3)])


@pytest.mark.slow
def test_stopped_again_while_masks_of_a_begun_epoch_are_estimated(undisturbed, tmp_path, monkeypatch):
    """Stopped after step 2 of epoch 2, and when its masks are computed again from the weights of epoch 1's start."""
    seen = []

    def stop(self, phase, *place):
        seen.append(place)
        if place[:2] == (2, 2) or (len(place) == 3 and len(seen) > 20):
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Reporter, "step", stop)
    monkeypatch.setattr(Reporter, "images_done", stop)
    with pytest.raises(Stopped, match="epoch 3, step 2; saved"):
        run(tmp_path / "part", INSTANCE)
    seen += [()] * 21
    with pytest.raises(Stopped, match="epoch 3, step 2; saved"):
        resume_run(tmp_path / "part/run", quiet=True)
    assert seen[-1] == ("estimating masks", 16, 64)
    monkeypatch.undo()
    equal(resume_run(tmp_path / "part/run", quiet=True), undisturbed(INSTANCE))


@pytest.mark.parametrize("damage", some("bits", slow=[None, "seal", "cut"]))
def test_masks_on_disk_are_read_again_only_if_they_are_whole(undisturbed, tmp_path, monkeypatch, damage):
    steps, fills = [], []
    original = HeldMasks._fill_store

    def step(self, *arguments):
        steps.append(1)
        if len(steps) == 11:
            signal.raise_signal(signal.SIGTERM)

    def fill(self, store, view):
        fills.append(view)
        return original(self, store, view)

    monkeypatch.setattr(Reporter, "step", step)
    monkeypatch.setattr(HeldMasks, "_fill_store", fill)
    with pytest.raises(Stopped):
        run(tmp_path / "part", DISK)
    assert fills == [1, 0]
    (file,) = (tmp_path / "part/run/cache").rglob("masks_0.bin")
    content = bytearray(file.read_bytes())
    if damage == "bits":
        content[100] ^= 4
        file.write_bytes(content)
    elif damage == "cut":
        file.write_bytes(content[:-3])
    elif damage == "seal":
        file.with_suffix(".json").write_text("{")
    done = resume_run(tmp_path / "part/run", quiet=True)
    assert fills[2:] == ([0] if damage else []) + [1, 0]
    equal(done, undisturbed(DISK))
