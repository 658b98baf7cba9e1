"""Masks that are recorded while an epoch trains (`estimate: live_epoch`)."""

from itertools import pairwise

import numpy as np
import pytest
import tensorflow as tf
from conftest import recipe_of, same_weights, some, spec_of, stop_at, two_devices, weights, without_time
from masked import same_conv

from kerasgreedy.errors import PlanError, SpecError, Stopped
from kerasgreedy.plan.preparation import prepare
from kerasgreedy.solvers.alternation.held_masks import RecordedMasks
from kerasgreedy.solvers.alternation.support import unpack
from kerasgreedy.solvers.step import TrainStep
from kerasgreedy.train.entry_points import resume_run, train_spec

PLAIN = "name: p\nblocks: [{conv: 4}]\n"
FULL = """
name: f
block_defaults: {batch_norm: true}
blocks: [[{conv: 4}, {dropout: 0.5}], [{dropout: 0.25}, {conv: 5, downsample: max}]]
"""
# 64 images in batches of 15: 4 steps an epoch, which leave out 4 images.
RECIPE = """
name: fast
strategy: end_to_end
data: {dataset: digits, train_examples: 80, test_examples: 20, validation: 16}
training: {epochs: 6, batch_size: 15, optimizer: {name: sgd, learning_rate: 0.05, weight_decay: 5e-4}, keep: last}
"""
LIVE = "training.solver={name: alternation, warm_up_epochs: 1, refresh: 2, estimate: live_epoch}"
HELD = LIVE.replace("}", ", dropout: held}")


@pytest.fixture
def train(tmp_path):
    def run(name, *sets, spec=FULL, **more):
        (tmp_path / "spec.yaml").write_text(spec)
        (tmp_path / "recipe.yaml").write_text(RECIPE)
        return train_spec(tmp_path / "spec.yaml", tmp_path / "recipe.yaml", sets, tmp_path / name, quiet=True, **more)

    return run


def test_masks_are_those_of_the_weights_of_each_step(train, monkeypatch):
    """In float64, for every image of a batch; those that an epoch leaves out are of the weights that it ended with."""
    seen, completed = [], []
    step, complete = TrainStep.result, RecordedMasks._pass

    def expected(network, x):
        kernel, bias = (network.arrays("block_1")[f"block_1/conv_1/{part}"] for part in ("kernel", "bias"))
        return same_conv(x, kernel) + bias

    def compared(bits, q):
        sure = np.abs(q) > 1e-6  # rounding decides the others
        np.testing.assert_array_equal(unpack(tf.constant(bits[:, : q[0].size // 8]), q.shape[1:]).numpy()[sure], (q > 0)[sure])

    def result(self, batch, number):
        q = expected(self._network, batch[0].numpy())
        done = step(self, batch, number)
        if done.recorded != ():
            compared(done.recorded.numpy(), q)
            seen.extend(batch[2].numpy())
        return done

    def passed(self, store, view, there):
        images = {row: x for rows, xs, _ in self._source.view(view) for row, x in zip(rows.numpy(), xs.numpy(), strict=True)}
        left_out = np.flatnonzero(~there)
        yield from complete(self, store, view, there)
        compared(store.take(np.array(left_out)), expected(self._network, np.stack([images[row] for row in left_out])))
        completed.append(set(left_out))

    monkeypatch.setattr(TrainStep, "result", result)
    monkeypatch.setattr(RecordedMasks, "_pass", passed)
    done = train("run", LIVE, spec=PLAIN)
    first, second = seen[:60], seen[60:]
    for recorded, left_out in zip((first, second), completed, strict=True):
        assert len(set(recorded)) == 60 and set(recorded) | left_out == set(range(64))
    assert done.results["phases"][0]["alternation"]["refreshes"] == [1, 4]
    records = without_time(done.workdir)
    assert [r.get("masks", False) for r in records if r["split"] == "train"] == [False, False, True, True, False, True]
    assert [r["epoch"] for r in records if r["split"] == "refresh"] == [1, 4]


def test_what_counts_is_what_masks_were_held_for(train):
    """A hold lasts until the loss under its own masks has stopped falling; no point is kept but of epochs under held masks."""
    plateau = LIVE.replace("refresh: 2", "patience: 1, min_decrease: 0.9")
    done = train("run", plateau, "training.keep=best", "training.monitor=train_loss")
    (phase,) = done.results["phases"]
    assert phase["alternation"]["refreshes"] == [1, 4] and phase["best"]["epoch"] in (3, 4, 6)


def test_the_epoch_that_records_is_plain_descent_with_a_relu(train):
    # The steps of the third epoch, under masks, are too small to see.
    optimizer = "training.optimizer={name: sgd, learning_rate: 0.05, momentum: 0}"
    steps = "training.epochs=3", optimizer, "training.schedule={name: step, factor: 1e-9, at: [2]}"
    live, plain = train("live", LIVE, *steps), train("plain", *steps)
    trained = {key: value for key, value in weights(plain.workdir).items() if "moving" not in key}
    for key, value in trained.items():
        np.testing.assert_allclose(weights(live.workdir)[key], value, rtol=1e-6, atol=1e-7, err_msg=key)


# In an epoch that records, while masks are held, and at the end of the next epoch that records.
STOPS = (6, 10, 20)


@pytest.mark.parametrize(("solver", "store"), some(slow=[(HELD, "memory"), (HELD, "disk"), (LIVE, "memory")]))
def test_stopped_and_resumed_equals_never_stopped(train, tmp_path, monkeypatch, solver, store):
    whole = train("whole", solver)
    stop_at(monkeypatch, STOPS[0])
    with pytest.raises(Stopped):
        train("stopped", solver, f"training.solver.store={store}")
    monkeypatch.undo()
    for before, after in pairwise(STOPS):
        stop_at(monkeypatch, after - before)
        with pytest.raises(Stopped):
            resume_run(tmp_path / "stopped", quiet=True)
        monkeypatch.undo()
    run = resume_run(tmp_path / "stopped", quiet=True)
    same_weights(weights(run.workdir), weights(whole.workdir))
    assert without_time(run.workdir) == without_time(whole.workdir)


@pytest.mark.parametrize(
    ("at", "override", "estimated"),
    some(
        (10, "training.optimizer.learning_rate=0.01", 1),
        slow=[
            (10, "training.optimizer={name: adam, learning_rate: 1e-3}", 1),
            (6, "training.optimizer={name: adam, learning_rate: 1e-3}", 0),
            (10, "training.clip_norm=1", 1),
            (10, "training.monitor=train_loss", 0),
            (10, "training.epochs=7", 0),
        ],
    ),
)
def test_goes_on_with_other_settings(train, tmp_path, monkeypatch, at, override, estimated):
    """The recorded epoch cannot be trained again with them: masks that are missing are estimated, by weights that are known."""
    stop_at(monkeypatch, at)
    with pytest.raises(Stopped):
        train("stopped", LIVE)
    monkeypatch.undo()
    fills, original = [], RecordedMasks._fill_store
    monkeypatch.setattr(RecordedMasks, "_fill_store", lambda self, *more: (fills.append(1), original(self, *more))[1])
    run = resume_run(tmp_path / "stopped", quiet=True, overrides=[override])
    assert len(fills) == estimated
    assert run.results["phases"][0]["alternation"]["refreshes"] == [1, 4]
    assert all(np.isfinite(value).all() for value in weights(run.workdir).values())


@pytest.mark.slow
def test_two_devices_equal_one(train):
    # Without a warm-up, whose dropout each device draws on its own.
    sets = HELD.replace("warm_up_epochs: 1", "warm_up_epochs: 0"), "training.batch_size=16", "training.epochs=4"
    one, two = train("one", *sets), train("two", *sets, strategy=two_devices())
    for key, value in weights(one.workdir).items():
        if "seed" not in key:
            np.testing.assert_allclose(weights(two.workdir)[key], value, atol=3e-5, err_msg=key)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["training.solver={name: alternation, mode: batch, estimate: live_epoch}"], "mode 'batch' has no use for it"),
        ([LIVE, "data.augment={horizontal_flip: true}", "data.augment_views=2"], "received 'live_epoch' with 2 views"),
        ([LIVE, "training.accumulation=3"], "leave out accumulation, or use pass"),
        ([LIVE, "training.epochs=2"], "received 1 and one that records them; of 2 epochs none would be left for masks"),
        ([LIVE.replace("live_epoch", "live")], "received 'live'; allowed: 'pass' or 'live_epoch'"),
        (
            ["strategy=dsd", "dsd={sparse: {solver: {name: alternation, warm_up_epochs: 0, estimate: live_epoch}}}"],
            "in a sparse phase, which prunes before it trains; allowed: pass",
        ),
    ],
)
def test_what_is_refused(sets, message):
    with pytest.raises((SpecError, PlanError), match=message):
        prepare(spec_of(PLAIN), recipe_of(RECIPE, *sets))
