"""Dense, sparse, dense: masks against NumPy, what they hold at zero, and runs that stop and go on."""

import dataclasses
import signal

import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY_RECIPE, TINY_SPEC, recipe_of, same_weights, some, spec_of, two_devices, weights, without_time

from kerasgreedy.errors import SpecError, Stopped
from kerasgreedy.graph.architecture import architecture
from kerasgreedy.network.build import Network
from kerasgreedy.plan.compile import compile_plan
from kerasgreedy.plan.preparation import prepare
from kerasgreedy.runs.checkpoint import CheckpointStore
from kerasgreedy.solvers.masks import Masks, smallest_masked
from kerasgreedy.solvers.schedules import make_optimizer
from kerasgreedy.solvers.step import TrainStep
from kerasgreedy.spec.sparsity import ConstantSparsity
from kerasgreedy.spec.training import Sgd
from kerasgreedy.train import loop
from kerasgreedy.train.entry_points import resume_run, train_spec
from kerasgreedy.train.progress import Reporter

RNG = np.random.default_rng(4)
IMAGES = RNG.normal(size=(16, 8, 8, 1)).astype(np.float32)
LABELS = RNG.integers(0, 10, 16).astype(np.int32)
NO_DROPOUT = TINY_SPEC.replace(", {dropout: 0.25}", "")
LINEAR = "name: s\nblocks: [{flatten: true}]\nauxiliary_head: {}\n"
# 128 images in batches of 32: 4 steps an epoch, 8 in the sparse phase.
DECAY = (
    "dsd.schedule={name: polynomial_decay, initial_sparsity: 0.1, final_sparsity: 0.5, begin_step: 1, end_step: 5, frequency: 2}"
)


def once(share):
    return ConstantSparsity(name="constant_sparsity", target_sparsity=share, begin_step=0, end_step=0)


def setup(spec=NO_DROPOUT, schedule=None, strategy=None, settings=None, rate=0.05):
    """Network, masks and step of a sparse phase on batches of 16."""
    strategy = strategy or tf.distribute.get_strategy()
    document = spec_of(spec).value.model_copy(update={"input_shape": [8, 8, 1], "classes": 10})
    arch = architecture(document)
    phase = compile_plan(document, recipe_of(TINY_RECIPE, "strategy=dsd").value)[1]
    settings = settings or Sgd()
    training = phase.training.model_copy(update={"optimizer": settings, "batch_size": 16})
    phase = dataclasses.replace(phase, training=training)
    with strategy.scope():
        network = Network(arch, seed=5)
        optimizer = make_optimizer(settings, np.array([rate], np.float32))
    masks = Masks(network, phase.trains, schedule or once(0.4), strategy)
    return network, masks, TrainStep(network, phase, optimizer, strategy, more=[masks])


def arrays_of(network):
    return {key: value for name in network.names for key, value in network.arrays(name).items()}


def chosen(kernel, share):
    """By sorting: True for all but the round(share * size) smallest magnitudes."""
    kept = np.ones(kernel.size, bool)
    kept[np.argsort(np.abs(kernel).ravel(), kind="stable")[: round(share * kernel.size)]] = False
    return kept.reshape(kernel.shape)


def test_the_smallest_are_masked_and_ties_go_by_position():
    everything = np.ones((3, 3, 4, 5), bool)
    for share in (0.01, 0.3, 0.5, 0.99):
        kernel = RNG.normal(size=everything.shape).astype(np.float32)
        np.testing.assert_array_equal(smallest_masked(kernel, everything, share), chosen(kernel, share))
    ties = np.array([[2, -1, 1], [1, -2, 0]], np.float32)
    everything = np.ones(ties.shape, bool)
    np.testing.assert_array_equal(smallest_masked(ties, everything, 0.5), [[1, 0, 0], [1, 1, 0]])
    np.testing.assert_array_equal(smallest_masked(ties, everything, 0.05), everything)  # round(0.3) = 0
    assert smallest_masked(ties, everything, 0.99).sum() == 1  # never the whole kernel


def test_what_is_pruned_stays_pruned():
    kernel = np.array([0, 0.5, 0, 0.1, -3, 0], np.float32)  # a zero that was not pruned stands before those that were
    kept = np.array([1, 1, 0, 1, 1, 0], bool)
    np.testing.assert_array_equal(smallest_masked(kernel, kept, 0.33), kept)
    np.testing.assert_array_equal(smallest_masked(kernel, kept, 0.5), [0, 1, 0, 1, 1, 0])
    np.testing.assert_array_equal(smallest_masked(kernel, kept, 0.1), kept)  # a falling schedule brings none back


def test_one_step_of_unmasked_weights_is_the_formula():
    """The forward pass sees the pruned kernel; w <- mask * (w - rate * (g + decay w)); the bias is not masked."""
    network, masks, step = setup(LINEAR, settings=Sgd(momentum=0.9, weight_decay=0.01), rate=0.1)
    w, b = (network.arrays("head_1")[f"head_1/dense_1/{n}"].astype(np.float64) for n in ("kernel", "bias"))
    kept = chosen(w, 0.4)
    x = IMAGES.reshape(16, -1).astype(np.float64)
    vw, vb = np.zeros_like(w), np.zeros_like(b)
    w = w * kept
    for number in range(3):
        z = x @ w + b
        p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
        g = (p - np.eye(10)[LABELS]) / 16
        vw, vb = 0.9 * vw - 0.1 * (x.T @ g + 0.01 * w), 0.9 * vb - 0.1 * (g.sum(0) + 0.01 * b)
        w, b = (w + vw) * kept, b + vb
        masks.before(number)
        step(IMAGES, LABELS)
        found = network.arrays("head_1")
        np.testing.assert_allclose(found["head_1/dense_1/kernel"], w, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found["head_1/dense_1/bias"], b, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(found["head_1/dense_1/kernel"] == 0, ~kept)
    assert not np.signbit(found["head_1/dense_1/kernel"][~kept]).any()


@pytest.mark.parametrize("devices", [1, 2])
def test_every_kernel_and_nothing_else_is_zero_after_each_step(devices):
    strategy = two_devices() if devices == 2 else None
    network, masks, step = setup(settings=Sgd(momentum=0.9, nesterov=True, weight_decay=5e-3), strategy=strategy)
    before = arrays_of(network)
    masked = set(masks.arrays())
    trained = {key for key in before if key.endswith("kernel") and not key.startswith(("head_1", "head_2"))}
    assert masked == trained and any("dense" in key for key in masked)
    for number in range(4):
        masks.before(number)
        if devices == 1:
            step(IMAGES, LABELS)
        else:
            batches = tf.data.Dataset.from_tensors((IMAGES, LABELS)).unbatch().batch(16, drop_remainder=True)
            step(*next(iter(strategy.experimental_distribute_dataset(batches))))
        now = arrays_of(network)
        for key in masked:
            np.testing.assert_array_equal(now[key] == 0, ~chosen(before[key], 0.4), err_msg=key)
    for key, value in now.items():
        if key not in masked and key.split("/")[0] not in ("head_1", "head_2") and "seed" not in key:
            assert np.count_nonzero(value) == value.size and not np.array_equal(value, before[key]), key
    if devices == 2:
        for kernel in (layer.kernel for layer in network.blocks[0].layers if hasattr(layer, "kernel")):
            copies = [np.asarray(copy) for copy in kernel.value.values]
            np.testing.assert_array_equal(copies[0], copies[1])


def test_without_masks_the_step_is_that_of_before():
    """A mask that keeps everything moves no bit."""
    results = []
    for share in (None, 0.0):
        network, masks, step = setup(schedule=once(share or 0.0))
        if share is None:
            step._masks = None
        for number in range(3):
            masks.before(number)
            step(IMAGES, LABELS)
        results.append(arrays_of(network))
    same_weights(*results)


def test_the_plan():
    job = prepare(spec_of(TINY_SPEC), recipe_of(TINY_RECIPE, "strategy=dsd", "dsd={sparsity: 0.25, sparse: {epochs: 3}}"))
    trains = ("block_1", "block_2", "block_3", "head_3")
    assert [(p.name, p.trains, p.frozen, p.losses, p.stop_gradient) for p in job.phases] == [
        (name, trains, (), ("head_3",), False) for name in ("dense", "sparse", "dense_again")
    ]
    assert [p.index for p in job.phases] == [0, 1, 2] and [p.epochs for p in job.phases] == [2, 3, 2]
    assert [p.init for p in job.phases] == ["fresh", "trained", "trained"]
    assert [p.training.optimizer.learning_rate for p in job.phases] == [0.05, 0.05, pytest.approx(0.005)]
    assert [p.training.optimizer.weight_decay for p in job.phases] == [5e-4] * 3
    dense, sparse, again = (p.sparsity for p in job.phases)
    assert dense is None and again is None and [sparse(t) for t in range(3)] == [(True, 0.25), (False, 0.25), (False, 0.25)]
    assert job.phases[1].as_dict()["sparsity"]["target_sparsity"] == 0.25 and job.phases[0].as_dict()["sparsity"] is None
    given = prepare(spec_of(TINY_SPEC), recipe_of(TINY_RECIPE, "strategy=dsd", "dsd.dense={optimizer: adam, epochs: 1}"))
    assert given.phases[1].sparsity(0) == (True, 0.3)
    assert given.phases[2].training.optimizer.learning_rate == 1e-3 and given.phases[2].epochs == 1


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A dsd run with a schedule, its files, and at each step's end: phase, epoch, step -> share of zeros in the kernels."""
    folder = tmp_path_factory.mktemp("dsd")
    (folder / "tiny.yaml").write_text(TINY_SPEC)
    (folder / "fast.yaml").write_text(TINY_RECIPE)
    files = folder / "tiny.yaml", folder / "fast.yaml", ["strategy=dsd", DECAY]
    seen = {}
    original = loop.Loop._save_is_due

    def look(self):
        position, network = self.state.position, self.state.network
        kernels = [value for key, value in arrays_of(network).items() if key.endswith("conv_1/kernel") and "block_3" in key]
        seen[position.phase, position.epoch, position.step] = [np.mean(kernel == 0) for kernel in kernels]
        return original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Loop, "_save_is_due", look)
        done = train_spec(*files, workdir=folder / "run", quiet=True)
    return files, done, seen


def test_a_run_follows_the_schedule_and_ends_dense(undisturbed):
    """Refreshed before steps 1, 3 and 5, with 0.1, then 0.5 - 0.4 / 8, then 0.5; steps are counted from 1 in the log here."""
    _, done, seen = undisturbed
    shares = [seen[1, step // 4, step % 4 + 1] for step in range(8)]
    size = 3 * 3 * 6 * 6
    expected = [0, *[round(0.1 * size)] * 2, *[round(0.45 * size)] * 2, *[round(0.5 * size)] * 3]
    assert [[round(share * size) for share in step] for step in shares] == [[count] for count in expected]
    assert all(share == 0 for epoch in range(2) for step in range(1, 5) for share in seen[0, epoch, step] + seen[2, epoch, step])
    kept = done.results["phases"]
    assert [phase["phase"] for phase in kept] == ["dense", "sparse", "dense_again"]
    # The schedule is through after step 5: only the second epoch's end may be the sparse phase's best point.
    assert kept[1]["best"]["epoch"] == 2


@pytest.mark.slow
def test_the_last_phase_starts_from_the_zeros(undisturbed, tmp_path, monkeypatch):
    """Pruned weights are zero before its first step and have moved after it; kept weights start where they ended.

    Scores only fall here, so that the sparse phase ends with the first point that counts: it must have the final sparsity.
    """
    files, _, _ = undisturbed
    states, scores, ends = [], [], []

    def worse(self, figures):
        scores.append(len(scores))
        return -len(scores), 0.0

    def note(self):
        if self.state.position.phase == 2 and self.state.position.step == 1 and len(states) == 1:
            states.append(arrays_of(self.state.network))
            raise SystemError("enough")
        return False

    original = loop.Loop._start

    def start(self, phase, evaluator):
        if phase.index == 2:
            ends.extend(entry["best"]["epoch"] for entry in self.state.position.kept)
            states.append(arrays_of(self.state.network))
        return original(self, phase, evaluator)

    monkeypatch.setattr(loop.Loop, "_save_is_due", note)
    monkeypatch.setattr(loop.Loop, "_start", start)
    monkeypatch.setattr(loop.Watch, "score", worse)
    with pytest.raises(SystemError):
        train_spec(*files, workdir=tmp_path / "run", quiet=True)
    assert ends == [0, 2]
    before, after = states
    for key, value in before.items():
        if key.endswith("kernel") and not key.startswith(("head_1", "head_2")):
            zeros = value == 0
            assert zeros.sum() == round(0.5 * value.size), key
            assert np.any(after[key][zeros] != 0), key
            assert np.abs(after[key] - value).max() < 0.1, key


@pytest.mark.parametrize("at", some(14, slow=[8, 9, 10, 12, 16, 17]))
def test_stopped_at_any_step_and_resumed_equals_never_stopped(undisturbed, tmp_path, monkeypatch, at):
    """8 steps a phase: at the sparse phase's start, before and after refreshes, at an epoch's end, in the last phase."""
    files, done, _ = undisturbed
    steps = []

    def step(self, *arguments):
        steps.append(1)
        if len(steps) == at:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Reporter, "step", step)
    with pytest.raises(Stopped):
        train_spec(*files, workdir=tmp_path / "run", quiet=True)
    monkeypatch.undo()
    if at in (9, 10, 14):
        masks = CheckpointStore(tmp_path / "run/checkpoints").load()[0].arrays["extra/masks"]
        assert all(value.dtype == np.uint8 for value in masks.values())
        assert len(masks) == 6 and (min(value.mean() for value in masks.values()) < 1) == (at > 9)
    again = resume_run(tmp_path / "run", quiet=True)
    same_weights(weights(again.workdir), weights(done.workdir))
    assert without_time(again.workdir) == without_time(done.workdir)
    assert again.results["phases"] == done.results["phases"]


@pytest.mark.slow
def test_two_devices_equal_one(tmp_path):
    (tmp_path / "tiny.yaml").write_text(
        "name: tiny\nblock_defaults: {batch_norm: true}\nblocks: [{conv: 4}]\nauxiliary_head: {}\n"
    )
    (tmp_path / "fast.yaml").write_text(TINY_RECIPE)
    decay = DECAY.replace("end_step: 5", "end_step: 3")
    overrides = ["strategy=dsd", decay, "training.keep=last", "training.epochs=1", "training.optimizer.learning_rate=0.005"]
    runs = [
        train_spec(tmp_path / "tiny.yaml", tmp_path / "fast.yaml", overrides, tmp_path / name, strategy=strategy, quiet=True)
        for name, strategy in (("one", None), ("two", two_devices()))
    ]
    one, two = (weights(run.workdir) for run in runs)
    for key, value in one.items():
        np.testing.assert_allclose(two[key], value, atol=2e-5, err_msg=key)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dsd.sparsity=0"], r"--set dsd.sparsity=0: dsd.sparsity: received 0; allowed: greater than 0"),
        (["dsd.sparsity=1"], r"dsd.sparsity: received 1; allowed: less than 1"),
        (["dsd.sparsity=1.5"], r"dsd.sparsity: received 1.5; allowed: less than 1"),
        (["dsd.sparsity=-0.1"], r"dsd.sparsity: received -0.1; allowed: greater than 0"),
        (["dsd.sparsty=0.1"], r"dsd.sparsty: unknown key; did you mean 'sparsity'"),
        (["dsd.sparsity=0.3", DECAY], "dsd.sparsity: 'sparsity' and 'schedule' exclude each other"),
        ([DECAY.replace("_decay", "_deca")], "dsd.schedule.name: received 'polynomial_deca'; .* did you mean 'polynomial_decay'"),
        (
            [DECAY.replace("end_step: 5", "end_step: 0")],
            r"dsd.schedule.end_step: received 0; allowed: more than 1 \(begin_step\)",
        ),
        ([DECAY.replace("end_step: 5", "end_step: 6")], "the last active step would be 5, with a sparsity of 0.4968"),
        ([DECAY.replace("final_sparsity: 0.5", "final_sparsity: 0.05")], r"received 0.05; allowed: 0.1 \(initial_sparsity\)"),
        ([DECAY.replace("end_step: 5", "end_step: 9")], "end_step: received 9; the sparse phase has 8 steps, the last is 7"),
        (["dsd.schedule={name: constant_sparsity, target_sparsity: 0, begin_step: 0}"], "target_sparsity: received 0; nothing"),
        (["dsd.schedule={name: constant_sparsity, target_sparsity: 0.1, begin_step: 8}"], "begin_step: received 8; the sparse"),
        (["dsd.sparse.batch_size=129"], "dsd.sparse.batch_size: received 129; only 128 images are left for training"),
        (["training.accumulation=8", "dsd.dense.batch_size=36"], "dsd.dense.batch_size: received 36; it cannot be divided by"),
        (["training.keep=last", "dsd.sparse.keep=best", "data.validation=0"], "needs data.validation above 0"),
        (["strategy=greedy", "dsd={}"], "dsd: strategy 'greedy' has no sparse phase; leave it out"),
        (["prefix_precision=mixed_bfloat16"], "strategy 'dsd' freezes nothing; leave it out"),
        (["training.init=identity"], "which strategy 'dsd' does not do; allowed: fresh"),
    ],
)
def test_bad_input_is_named(overrides, message):
    with pytest.raises(SpecError, match=message):
        prepare(spec_of(TINY_SPEC), recipe_of(TINY_RECIPE, "strategy=dsd", *overrides))
