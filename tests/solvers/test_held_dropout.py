"""Dropout under masks: drawn anew, held as part of the support, or off."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY_RECIPE, recipe_of, same_weights, some, spec_of, stop_at, two_devices, weights, without_time
from keras import layers

from kerasgreedy.errors import PlanError, SpecError, Stopped
from kerasgreedy.graph.architecture import architecture
from kerasgreedy.graph.supports import Unit, layout
from kerasgreedy.network.build import Network
from kerasgreedy.plan.preparation import prepare
from kerasgreedy.solvers.alternation.support import Estimated, Held, drawn_places, pack
from kerasgreedy.spec.solver_settings import Alternation
from kerasgreedy.train.entry_points import resume_run, train_spec

SPEC = "name: d\nblocks: [[{conv: 4}, {dropout: 0.5}], [{dropout: 0.25}, {conv: 5, downsample: max}]]\n"
PLAIN = "name: d\nblocks: [{conv: 4}]\n"
HELD = "training.solver={name: alternation, warm_up_epochs: 1, refresh: 2, dropout: held}"
SETS = ["strategy=end_to_end", "training.epochs=5", "training.keep=last", "data.augment={pad_crop: 1}", "data.augment_views=2"]


@pytest.fixture
def train(files, tmp_path):
    def run(name, *sets, spec=SPEC, **more):
        files[0].write_text(spec)
        return train_spec(*files, [*SETS, *sets], tmp_path / name, quiet=True, **more)

    return run


def test_patterns_are_of_their_rate_and_belong_to_the_example():
    """The same for an example whoever stands beside it; others for another layer, refresh and view."""
    unit = Unit((6, 6, 8), 0, 1, 0.3)
    rows = np.arange(40)

    def patterns(rows, seed=(3, 0, 1, 0), key="block_1/dropout_1"):
        return drawn_places(tf.constant(rows, tf.int64), tf.constant(seed, tf.int32))(key, unit).numpy()

    first = patterns(rows)
    assert abs(first.mean() - 0.7) < 4 * np.sqrt(0.21 / first.size)
    np.testing.assert_array_equal(patterns(rows[[7, 3]]), first[[7, 3]])
    assert len({pattern.tobytes() for pattern in first}) == 40
    others = patterns(rows, (3, 0, 3, 0)), patterns(rows, (3, 0, 1, 1)), patterns(rows, key="block_2/dropout_1")
    for other in (*others, patterns(rows, (4, 0, 1, 0)), patterns(rows, (3, 1, 1, 0))):
        assert abs((other == first).mean() - 0.58) < 0.02  # of independent ones


def test_under_held_patterns_by_hand():
    """z = x / (1 - rate) where the pattern lets it through, else 0; the masks behind it are estimated under it."""
    arch = architecture(spec_of(SPEC).value, (4, 4, 1), 3)
    network = Network(arch)
    units = layout(arch.blocks, pools=False, drops=True)
    assert [unit.rate for unit in units.values()] == [None, 0.5, 0.25, None]
    settings = Alternation(name="alternation", dropout="held")
    betas = {key: tf.constant(0.0) for key, unit in units.items() if unit.is_mask}
    rows = tf.range(3, dtype=tf.int64)
    draw = drawn_places(rows, tf.constant([1, 0, 0, 0]))
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 1)).astype(np.float32)
    estimated = Estimated(units, settings, betas, draw)
    names = [block.name for block in arch.blocks]

    def through(instead):
        y = tf.constant(x)
        for name in names:
            y = network.run(name, y, True, instead)
        return y.numpy()

    once = through(estimated)
    held = Held(units, settings, estimated.bits())
    np.testing.assert_allclose(through(held), once, atol=1e-6)
    np.testing.assert_array_equal(through(held), through(held))  # nothing is drawn in training either
    kernels = [network.arrays(name)[f"{name}/conv_1/kernel"] for name in names]
    relu = np.maximum(tf.nn.conv2d(x, kernels[0], 1, "SAME"), 0)
    dropped = np.where(draw("block_1/dropout_1", units["block_1/dropout_1"]), relu / 0.5, 0)
    again = np.where(draw("block_2/dropout_1", units["block_2/dropout_1"]), dropped / 0.75, 0)
    pooled = again.reshape(3, 2, 2, 2, 2, 4).max(axis=(2, 4))
    np.testing.assert_allclose(once, np.maximum(tf.nn.conv2d(pooled, kernels[1], 1, "SAME"), 0), atol=1e-5)
    assert estimated.bits().shape[1] == sum(unit.bytes for unit in units.values())


def test_off_leaves_it_out_and_drawn_does_not():
    units = {"a/relu": Unit((2,), 0)}
    x = tf.constant([[1.0, 2.0]])
    for dropout, expected in (("drawn", None), ("off", x)):
        held = Held(units, Alternation(name="alternation", dropout=dropout), pack(tf.constant([[True, False]])))
        received = held("a/dropout", layers.Dropout(0.5), x)
        assert received is expected


@pytest.mark.slow
@pytest.mark.parametrize("mode", some("instance", slow=["batch"]))
def test_off_from_the_start_is_a_network_without_dropout(train, mode):
    solver = f"training.solver={{name: alternation, mode: {mode}, warm_up_epochs: 0, dropout: DROPOUT}}"
    off = train("off", solver.replace("DROPOUT", "off"))
    without = train("without", solver.replace(", dropout: DROPOUT", ""), spec=SPEC.replace("0.5", "0.0").replace("0.25", "0.0"))
    for key, value in weights(without.workdir).items():
        if "seed" not in key:
            np.testing.assert_array_equal(weights(off.workdir)[key], value, err_msg=key)
    drawn = train("drawn", solver.replace("DROPOUT", "drawn"))
    assert any(np.any(weights(drawn.workdir)[key] != value) for key, value in weights(off.workdir).items() if "kernel" in key)


@pytest.mark.slow
def test_stopped_under_held_patterns_and_resumed_equals_never_stopped(train, tmp_path, monkeypatch):
    """In the second epoch of a hold, so that its masks and patterns are made again; on disk they are read again."""
    whole = train("whole", HELD)
    for name, store in (("memory", "memory"), ("disk", "disk")):
        stop_at(monkeypatch, 10)
        with pytest.raises(Stopped):
            train(name, HELD, f"training.solver.store={store}")
        monkeypatch.undo()
        run = resume_run(tmp_path / name, quiet=True)
        same_weights(weights(run.workdir), weights(whole.workdir))
        assert without_time(run.workdir) == without_time(whole.workdir)
    losses = [r["loss"] for r in without_time(whole.workdir) if r["split"] == "train"]
    assert len(losses) == 5 and np.isfinite(losses).all()


@pytest.mark.slow
def test_two_devices_equal_one(train):
    one, two = train("one", HELD, "training.solver.warm_up_epochs=0"), None
    two = train("two", HELD, "training.solver.warm_up_epochs=0", strategy=two_devices())
    for key, value in weights(one.workdir).items():
        if "seed" not in key:
            np.testing.assert_allclose(weights(two.workdir)[key], value, atol=3e-5, err_msg=key)


@pytest.mark.parametrize(
    ("solver", "spec", "message"),
    [
        ("{name: alternation, mode: batch, dropout: held}", SPEC, "made anew in each step; allowed: drawn, off"),
        (
            "{name: alternation, warm_up_epochs: 1, dropout: off}",
            "name: d\nblocks: [{conv: 4}]\n",
            "nothing that trains has dropout; leave it out",
        ),
        ("{name: alternation, dropout: none}", SPEC, "allowed: 'drawn', 'held' or 'off'"),
    ],
)
def test_what_is_refused(solver, spec, message):
    with pytest.raises((SpecError, PlanError), match=message):
        prepare(spec_of(spec), recipe_of(TINY_RECIPE, *SETS, f"training.solver={solver}"))
