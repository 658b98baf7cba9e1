"""Solver `alternation` in every plan: strategies, caches, accumulation, precisions, devices, and a sparse phase by masks."""

import signal

import numpy as np
import pytest
from conftest import recipe_of, same_weights, some, two_devices, weights, without_time
from masked import Images, Masked
from sklearn.datasets import load_digits
from test_alternation import BATCH, PLAIN, RECIPE, refreshes, run, watched  # noqa: F401 (a fixture)

from kerasgreedy.errors import SpecError, Stopped
from kerasgreedy.solvers.alternation import alternation
from kerasgreedy.solvers.alternation.connections import used_connections
from kerasgreedy.solvers.alternation.support import Estimated
from kerasgreedy.solvers.masks import Masks
from kerasgreedy.train import loop
from kerasgreedy.train.entry_points import resume_run
from kerasgreedy.train.progress import Reporter

SHORT = ["training.epochs=3", "training.keep=last"]
EACH = "training.solver={name: alternation, warm_up_epochs: 1, refresh: 1, store: memory}"
TUNED = "prune={keep: 0.5, fine_tune: {epochs: 2, solver: {name: alternation, warm_up_epochs: 0, refresh: 1, store: memory}}}"


@pytest.mark.parametrize(
    ("overrides", "expected", "masked"),
    some(
        (["strategy=greedy"], [(0, 1), (0, 2), (1, 1), (1, 2)], 16),
        (["strategy=end_to_end", "training.accumulation=4", "training.optimizer=adam"], [(0, 1), (0, 2)], 8),
        slow=[
            (["strategy=random_features"], [(0, 1), (0, 2)], 8),
            (["strategy=end_to_end", TUNED], [(0, 1), (0, 2), (2, 0), (2, 1)], 16),
            (["strategy=dsd", "dsd.dense={epochs: 1}"], [(0, 1), (0, 2)], 8),
            (["strategy=greedy", "precision=mixed_bfloat16", "training.accumulation=2"], [(0, 1), (0, 2), (1, 1), (1, 2)], 16),
            (["strategy=decoupled"], [(0, 1), (0, 2)], 8),
            (["strategy=deep_supervision", "training.optimizer=adam"], [(0, 1), (0, 2)], 8),
            (["strategy=greedy", TUNED], [(0, 1), (0, 2), (2, 0), (2, 1), (3, 1), (3, 2), (5, 0), (5, 1)], 32),
        ],
    ),
    ids=str,
)
def test_every_step_runs_under_the_masks_of_the_last_refresh(watched, tmp_path, overrides, expected, masked):  # noqa: F811
    """4 steps an epoch; fine-tuning and the sparse phase are plain where they name no solver."""
    steps, _ = watched
    done = run(tmp_path / "one", EACH, *SHORT, *overrides, spec=PLAIN)
    assert refreshes(done) == expected and len(steps) == masked
    found = [(i, epoch) for i, p in enumerate(done.results["phases"]) for epoch in p.get("alternation", {}).get("refreshes", [])]
    assert found == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("solver", "store"),
    some((EACH.replace("memory", "disk"), "disk"), slow=[(BATCH, "memory"), (EACH, "memory")]),
)
def test_cached_features_give_the_weights_of_images(tmp_path, solver, store):
    """Masks on disk lie beside the features."""
    one, two = (run(tmp_path / s, solver, *SHORT, "strategy=greedy", f"cache.store={s}", spec=PLAIN) for s in ("none", store))
    same_weights(weights(one.workdir), weights(two.workdir))
    assert without_time(one.workdir) == without_time(two.workdir)
    assert not (two.workdir / "cache").exists()


@pytest.mark.slow
def test_beta_is_chosen_on_a_view_that_the_cache_holds_after_a_resume(tmp_path, monkeypatch):
    """The second phase resumes at its last epoch, the first under masks: its cache holds view 1 only."""
    solver = BATCH.replace("warm_up_epochs: 1", "warm_up_epochs: 3")
    more = [solver, "strategy=greedy", "training.epochs=4", "training.keep=last"]
    whole = run(tmp_path / "whole", *more, spec=PLAIN)

    def stop(self, phase, epoch, *rest):
        if (phase.index, epoch) == (1, 3):
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Reporter, "epoch", stop)
    with pytest.raises(Stopped):
        run(tmp_path / "part", *more, spec=PLAIN)
    monkeypatch.undo()
    part = resume_run(tmp_path / "part/run", quiet=True)
    same_weights(weights(part.workdir), weights(whole.workdir))
    assert part.results["phases"] == whole.results["phases"]


@pytest.mark.parametrize(
    "overrides",
    some(
        slow=[
            ((EACH.replace("refresh: 1", "refresh: 1, hold_pools: true"), "strategy=end_to_end"),),
            ((BATCH, "strategy=end_to_end"),),
            (
                (
                    "dsd={sparse: {solver: {name: alternation, mode: batch, warm_up_epochs: 1}}, dense: {epochs: 1}}",
                    "strategy=dsd",
                ),
            ),
        ],
    ),
)
def test_a_run_on_two_devices_equals_one(tmp_path, overrides):
    """With synchronised batch norm. Thresholds of the warm-up, masks, beta and pruned connections are those of both."""
    more = [*SHORT, "training.epochs=2", *overrides, "training.optimizer.learning_rate=0.005"]
    one, two = (run(tmp_path / name, *more, spec=PLAIN, strategy=s) for name, s in (("one", None), ("two", two_devices())))
    first, second = weights(one.workdir), weights(two.workdir)
    for key, value in first.items():
        np.testing.assert_allclose(second[key], value, atol=1e-5, err_msg=key)
    assert refreshes(one) == refreshes(two) != []
    betas = [[p["alternation"]["beta"] for p in done.results["phases"] if "alternation" in p] for done in (one, two)]
    assert betas[0] == [pytest.approx(beta, rel=1e-4) for beta in betas[1]]


DENSE = """
name: dense
blocks: [[{flatten: true}, {dense: 24}, {dense: 12}]]
auxiliary_head: {}
"""


@pytest.mark.parametrize(("mode", "beta"), [("instance", 0.4), ("batch", 0.2)])
def test_a_sparse_phase_prunes_what_its_masks_leave_unused(tmp_path, monkeypatch, mode, beta):
    """A pixel that is black in all training images carries nothing. Pruned weights are zero from the first masks to the end of
    the phase, and the others are not; then they are trained again.
    """
    seen, held = {}, []
    original, hold = loop.Loop._save_is_due, Masks.hold

    def look(self):
        position = self.state.position
        seen[position.phase, position.epoch, position.step] = self.state.network.arrays("block_1")
        return original(self)

    def note(self, kept):
        held.append(kept)
        return hold(self, kept)

    monkeypatch.setattr(loop.Loop, "_save_is_due", look)
    monkeypatch.setattr(Masks, "hold", note)
    monkeypatch.setattr(loop.Watch, "score", lambda self, looks: (-len(seen), 0.0))  # scores only fall
    solver = f"{{name: alternation, mode: {mode}, warm_up_epochs: 1, beta: {beta}}}"
    sparse = f"dsd={{sparse: {{solver: {solver}, epochs: 3}}, dense: {{epochs: 1}}}}"
    data = "data={dataset: digits, train_examples: 80, test_examples: 20, validation: 16, normalize: unit}"
    done = run(tmp_path / "one", "strategy=dsd", sparse, "training.epochs=1", data, spec=DENSE)
    (kept,) = held
    phases = done.results["phases"]
    pruned = {key: ~mask for key, mask in kept.items() if key.startswith("block_1")}
    black = load_digits().images.reshape(-1, 64).max(0) == 0
    assert black.sum() == 3 and pruned["block_1/dense_1/kernel"][black].all()
    for key, mask in pruned.items():
        assert 0.02 < mask.mean() < 0.98, key
        for (phase, epoch, step), arrays in seen.items():
            if phase == 1 and epoch >= 1:
                np.testing.assert_array_equal(arrays[key] == 0, mask, err_msg=f"{key} {epoch} {step}")
            elif phase < 2:
                assert np.count_nonzero(arrays[key]) == mask.size
        assert np.any(seen[2, 0, 4][key][mask] != 0), key
    share = 1 - sum(mask.sum() for mask in kept.values()) / sum(mask.size for mask in kept.values())
    assert phases[1]["alternation"]["pruned"] == pytest.approx(share) and phases[1]["alternation"]["refreshes"] == [1]
    # A point of the sparse phase counts once its masks are there: of scores that only fall, the first after that is its best.
    assert [phase["best"]["epoch"] for phase in phases] == [0, 2, 0]


@pytest.mark.parametrize("unused", ["filters", "weights"])
def test_other_readings_of_unused_connections_by_hand(tmp_path, monkeypatch, unused):
    """`filters`: units that are off, or reach none that is on, in more than half of the batches; `weights`: w^2."""
    expected, held = {}, []
    first_masks, hold = alternation.AlternationSolver._first_masks, Masks.hold

    def look(self, view):
        arrays = self._network.arrays("block_1")
        first, bias, second, shift = (arrays[f"block_1/dense_{n}/{part}"] for n in (1, 2) for part in ("kernel", "bias"))
        if unused == "weights":
            expected.update({"block_1/dense_1/kernel": first**2 > 0.01, "block_1/dense_2/kernel": second**2 > 0.01})
        else:
            times = np.zeros(24), np.zeros(12)
            for _, x, _ in self._source.view(None):
                a = np.maximum(x.numpy().reshape(16, -1) @ first + bias, 0)
                inside = (a**2).mean(0) > 0.05
                b = np.maximum((a * inside) @ second + shift, 0)
                beyond = (b**2).mean(0) > 0.05
                times[0][:] += inside & beyond.any()
                times[1][:] += beyond & inside.any()
            for n, (kernel, count) in enumerate(zip((first, second), times, strict=True), start=1):
                expected[f"block_1/dense_{n}/kernel"] = np.broadcast_to(count >= 2, kernel.shape)
        yield from first_masks(self, view)

    monkeypatch.setattr(alternation.AlternationSolver, "_first_masks", look)
    monkeypatch.setattr(Masks, "hold", lambda self, kept: (held.append(kept), hold(self, kept))[1])
    solver = "{name: alternation, mode: batch, warm_up_epochs: 0, beta: 0.05}"
    reading = f"unused: {unused}" + (", weight_beta: 0.01" if unused == "weights" else "")
    data = "data={dataset: digits, train_examples: 80, test_examples: 20, validation: 16, normalize: unit}"
    sparse = f"dsd={{{reading}, sparse: {{solver: {solver}}}}}"
    done = run(tmp_path / "one", "strategy=dsd", sparse, "training.epochs=1", data, spec=DENSE)
    (kept,) = held
    for key, mask in expected.items():
        np.testing.assert_array_equal(kept[key], mask, err_msg=key)
        assert 0 < mask.mean() < 1, key
    assert 0 < done.results["phases"][1]["alternation"]["pruned"] < 1


@pytest.mark.parametrize("parts", [1, 8])
def test_half_of_the_images_decide_which_filters_are_used(parts):
    """Nine images in batches of eight, one at a time or all together: fillers and short batches count as what they hold."""
    net = Masked("[{conv: 3, kernel_size: 1}]", "{beta: 1}", f"training.accumulation={parts}")
    kernel = np.zeros((1, 1, 2, 3), np.float32)
    kernel[0, 0, 0] = 1, 2, 4
    net.network.load_arrays("block_1", {**net.network.arrays("block_1"), "block_1/conv_1/kernel": kernel})
    images = np.zeros((9, 8, 8, 2), np.float32)
    images[:, 0, 0, 0] = np.linspace(0.2, 1.0, 9)  # that give more than 1: none, five, eight
    supports = lambda: Estimated(net.units, net.settings, net.betas)  # noqa: E731
    work = used_connections(net.network, net.phase, Images(images), [None], supports, False, most=True)
    with pytest.raises(StopIteration) as ended:
        while True:
            next(work)
    used = ended.value.value["block_1/conv_1/kernel"][0, 0, 0]
    assert used.tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{unused: filters}", "dsd.unused: is of alternation in the sparse phase"),
        ("{unused: weights, sparse: {solver: alternation}}", "dsd.unused: received 'weights', which needs weight_beta"),
        ("{weight_beta: 0.1, sparse: {solver: alternation}}", "dsd.weight_beta: is of unused: weights; leave it out"),
    ],
)
def test_readings_that_are_refused(section, message):
    with pytest.raises(SpecError, match=message):
        recipe_of(RECIPE, "strategy=dsd", f"dsd={section}")
