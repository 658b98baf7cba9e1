"""Cached features against computing them anew."""

import gc
import json
import math
import os
import signal
import weakref

import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY_RECIPE, TINY_SPEC, recipe_of, same_weights, some, spec_of, two_devices, weights, without_time

from kerasgreedy.errors import Stopped
from kerasgreedy.inputs import features, rows
from kerasgreedy.inputs.feature_store import FeatureStore, StoreFolder
from kerasgreedy.plan.preparation import prepare
from kerasgreedy.plan.stages import phases_of
from kerasgreedy.runs.devices import Devices
from kerasgreedy.train.entry_points import resume_run, train_spec
from kerasgreedy.train.progress import Reporter

PLAIN = ["data.augment={}", "training.epochs=3"]
VIEWS = ["data.augment_views=2", "training.epochs=3"]
BFLOAT16 = ["precision=mixed_bfloat16"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """(overrides) -> a run that nothing disturbed, made once."""
    folder, made = tmp_path_factory.mktemp("undisturbed"), {}
    (folder / "tiny.yaml").write_text(TINY_SPEC)
    (folder / "fast.yaml").write_text(TINY_RECIPE)

    def run(*overrides):
        if overrides not in made:
            place = folder / str(len(made))
            made[overrides] = train_spec(folder / "tiny.yaml", folder / "fast.yaml", overrides, place, quiet=True)
        return made[overrides]

    return run


def phases(*overrides, spec=TINY_SPEC):
    return prepare(spec_of(spec), recipe_of(TINY_RECIPE, *overrides)).phases


def test_the_plan_says_what_is_cached_with_bytes_and_why():
    """160 - 32 training and 32 validation images; block 1 gives 8x8x4, block 2 4x4x6."""
    first, second, third = phases(*VIEWS)
    assert (first.cache.store, first.prefix) == ("none", 0) and "no frozen block" in first.cache.reason
    assert (second.cache.store, second.cache.views, second.cache.dtype) == ("memory", 2, "float32")
    assert second.cache.bytes == (2 * 128 + 32) * 8 * 8 * 4 * 4 and third.cache.bytes == (2 * 128 + 32) * 4 * 4 * 6 * 4
    assert second.cache.reason == "0.3 MB fit into cache.memory_gb 4"
    assert phases(*VIEWS, "cache.dtype=bfloat16")[1].cache.bytes * 2 == second.cache.bytes
    assert phases(*VIEWS, *BFLOAT16)[1].cache.dtype == "bfloat16"
    assert phases(*VIEWS, *BFLOAT16, "prefix_precision=float32")[1].cache.dtype == "float32"
    watching = phases(*VIEWS, "training.monitor=train_loss", "data.validation=0")[1]
    assert watching.cache.bytes == (2 * 160 + 160) * 8 * 8 * 4 * 4
    assert second.as_dict()["cache"] == "memory" and second.as_dict()["cache_bytes"] == second.cache.bytes


@pytest.mark.parametrize(
    ("overrides", "store", "reason"),
    [
        (["training.epochs=3"], "none", "every epoch draws new views; data.augment_views would fix them"),
        (["data.augment_views=4", "training.epochs=3"], "none", "read each of 4 view"),
        ([*VIEWS, "cache.store=none"], "none", "cache.store is none"),
        ([*VIEWS, "cache.memory_gb=0.0001"], "disk", "0.1 MB do not fit into cache.memory_gb 0.0001"),
        ([*VIEWS, "cache={memory_gb: 0, disk_gb: 0}"], "none", "memory_gb 0 and 0.1 MB do not fit into cache.disk_gb 0"),
        ([*VIEWS, "cache={store: memory, memory_gb: 0}"], "none", "do not fit into cache.memory_gb 0"),
        ([*VIEWS, "cache.store=disk"], "disk", "fit into cache.disk_gb 20"),
        ([*VIEWS, "strategy=end_to_end"], "none", "no frozen block"),
        ([*VIEWS, "strategy=random_features"], "memory", "0.3 MB fit into"),
    ],
)
def test_when_nothing_is_cached_or_elsewhere(overrides, store, reason):
    cache = phases(*overrides)[-1].cache
    assert cache.store == store
    assert reason in cache.reason


def test_costs_of_a_cached_phase_leave_the_prefix_out():
    plain, cached = phases(*VIEWS, "cache.store=none")[2], phases(*VIEWS)[2]
    assert cached.training_multiply_adds == plain.training_multiply_adds - plain.prefix_multiply_adds
    assert cached.total_multiply_adds(10) == 10 * (3 * cached.training_multiply_adds + 2 * cached.prefix_multiply_adds)
    assert plain.total_multiply_adds(10) == 30 * plain.training_multiply_adds


def test_a_head_on_a_frozen_block_reads_what_that_gives():
    """Block 1 gives 8x8x4; block 3, frozen under a new head, 4x4x6."""
    (heads,) = phases(*VIEWS, "strategy=random_features")
    assert (heads.prefix, heads.cache.bytes) == (1, (2 * 128 + 32) * 8 * 8 * 4 * 4)
    *_, new = phases(*VIEWS, "replace_head={head: {hidden_layers: 0}}")
    assert (new.prefix, new.cache.bytes) == (3, (2 * 128 + 32) * 4 * 4 * 6 * 4)
    free = "name: free\nblocks: [{max_pool: 2}, {conv: 4}]\n"
    hinge = "training.regularizers=[{name: gate_hinge, weight: 0.1}]"
    costs = [phase.cache for phase in phases_of(phases(*VIEWS, "strategy=convex", hinge, spec=CONVEX))]
    assert [(cache.store, cache.bytes) for cache in costs] == [("none", 0), ("memory", (2 * 128 + 32) * 3 * 3 * 3 * 4)]
    sums = [phase.cache.bytes for phase in phases_of(phases(*VIEWS, "strategy=convex", spec=CONVEX))]
    assert sums == [(2 * 128 + 32) * 9 * 8 * 4, (2 * 128 + 32) * 27 * 8 * 4]  # of patches of 3x3 and 3x3x3, for 8 gates
    assert phases(*VIEWS, spec=free)[1].cache.reason == "they cost no multiply-adds"


CONVEX = """
name: stack
blocks:
  - {activation: linear}
  - [{conv: 3, kernel_size: 3, padding: valid, use_bias: false}, {avg_pool: 2}, {standardize: channels}]
auxiliary_head: {layers: [{gated_conv: 8, kernel_size: 3, class_separable: true}]}
"""
WATCHED = [*PLAIN, "training.monitor=train_loss"]


@pytest.mark.parametrize(
    ("overrides", "store"),
    some(
        (WATCHED, "disk"),
        slow=[
            ([*VIEWS, *BFLOAT16], "memory"),
            *((case, store) for case in (PLAIN, VIEWS) for store in ("memory", "disk")),
            ([*VIEWS, *BFLOAT16], "disk"), (WATCHED, "memory"),
        ],
    ),
)  # fmt: skip
def test_cached_gives_the_weights_of_recomputed_bit_for_bit(files, tmp_path, undisturbed, overrides, store):
    anew = undisturbed(*overrides, "cache.store=none")
    cached = train_spec(*files, [*overrides, f"cache.store={store}"], tmp_path / "cached", quiet=True)
    same_weights(weights(cached.workdir), weights(anew.workdir))
    assert without_time(cached.workdir) == without_time(anew.workdir)
    assert not (cached.workdir / "cache").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "spec"),
    some(
        ([*PLAIN, "replace_head={head: {hidden_layers: 0}}", "training.epochs=2"], TINY_SPEC),
        slow=[
            ([*VIEWS, "strategy=random_features"], TINY_SPEC),
            ([*VIEWS, "strategy=convex", "training.objective=squared_error"], CONVEX),
        ],
    ),
    ids=["replace_head", "random_features", "convex"],
)
def test_so_are_those_of_heads_on_frozen_blocks(files, tmp_path, overrides, spec):
    (tmp_path / "spec.yaml").write_text(spec)
    anew, cached = (
        train_spec(tmp_path / "spec.yaml", files[1], [*overrides, f"cache.store={store}"], tmp_path / store, quiet=True)
        for store in ("none", "memory")
    )
    same_weights(weights(cached.workdir), weights(anew.workdir))
    assert without_time(cached.workdir) == without_time(anew.workdir)


def test_views_are_those_of_all_phases_and_come_in_turn(files, tmp_path):
    from kerasgreedy.data.catalog import describe
    from kerasgreedy.data.loaders import open_data
    from kerasgreedy.data.pipeline import Pipeline

    data = recipe_of(TINY_RECIPE, "data.augment_views=2").value.data
    pipe = Pipeline(*open_data(data, describe(data), (8, 8), 1), data, (8, 8), seed=0)

    def epoch(phase, number):
        rows = pipe.rows(phase, number, 8)
        images = np.concatenate([x for x, _ in pipe.training(phase, number, 32)])
        return images[np.argsort(rows)]

    np.testing.assert_array_equal(epoch(0, 0), epoch(1, 2))
    assert not np.array_equal(epoch(0, 0), epoch(0, 1))
    whole = {int(r): x for rows, xs, _ in pipe.view("train", 1, 50) for r, x in zip(rows.numpy(), xs.numpy(), strict=True)}
    np.testing.assert_array_equal([whole[r] for r in range(128)], epoch(0, 1))
    assert -1 in whole and len(whole) == 129


@pytest.mark.slow
def test_less_precise_features_change_little(files, tmp_path, undisturbed):
    exact = undisturbed(*PLAIN, "cache.store=none")
    rounded = train_spec(*files, [*PLAIN, "cache.dtype=bfloat16"], tmp_path / "rounded", quiet=True)
    one, two = weights(exact.workdir), weights(rounded.workdir)
    same = [key for key in one if key.startswith(("block_1", "head_1"))]
    same_weights({k: one[k] for k in same}, {k: two[k] for k in same})
    kernel = one["block_3/conv_1/kernel"]
    assert 0 < np.linalg.norm(kernel - two["block_3/conv_1/kernel"]) < 0.1 * np.linalg.norm(kernel)


@pytest.mark.slow
@pytest.mark.parametrize(("store", "at"), some(("disk", 27), slow=[("memory", 14), ("memory", 27), ("disk", 14)]))
def test_stopped_and_resumed_equals_never_stopped(files, tmp_path, undisturbed, monkeypatch, store, at):
    """In the second phase and in the third: the resumed process starts its cache from images, the undisturbed one did not."""
    overrides = [*VIEWS, f"cache.store={store}", "cache.dtype=bfloat16"]
    whole = undisturbed(*VIEWS, "cache.dtype=bfloat16")
    calls = []

    def step(self, *arguments):
        calls.append(1)
        if len(calls) == at:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Reporter, "step", step)
    with pytest.raises(Stopped):
        train_spec(*files, overrides, tmp_path / "part", quiet=True)
    monkeypatch.undo()
    assert (tmp_path / "part/cache").exists() == (store == "disk")
    part = resume_run(tmp_path / "part", quiet=True)
    same_weights(weights(part.workdir), weights(whole.workdir))
    assert without_time(part.workdir) == without_time(whole.workdir)


@pytest.mark.slow
@pytest.mark.parametrize("damage", some("flip", slow=["none", "seal", "cut", "label"]))
def test_a_cache_on_disk_is_used_again_if_it_is_whole(files, tmp_path, undisturbed, monkeypatch, capsys, damage):
    overrides = [*VIEWS, "cache.store=disk"]
    whole = undisturbed(*VIEWS)
    filled = []
    monkeypatch.setattr(
        Reporter, "step", lambda self, phase, *a: signal.raise_signal(signal.SIGTERM) if phase.index == 1 else None
    )
    with pytest.raises(Stopped):
        train_spec(*files, overrides, tmp_path / "part", quiet=True)
    monkeypatch.undo()
    file = tmp_path / "part/cache/phase_2/train_1.bin"
    content = bytearray(file.read_bytes())
    assert len(content) == 128 * 8 * 8 * 4 * 4
    content[5000] ^= damage == "flip"
    file.write_bytes(content[: 1000 if damage == "cut" else None])
    if damage == "seal":
        file.with_suffix(".json").write_text("{")
    if damage == "label":  # which the features' own checksum would not show
        seal = json.loads(file.with_suffix(".json").read_text())
        seal["labels"][3] = (seal["labels"][3] + 1) % 10
        file.with_suffix(".json").write_text(json.dumps(seal))
    original = FeatureStore.put
    monkeypatch.setattr(FeatureStore, "put", lambda self, rows, *a: (filled.append(self), original(self, rows, *a)))
    part = resume_run(tmp_path / "part", quiet=True)
    second = {store._file.name for store in filled if store._file.parent.name == "phase_2"}
    assert second == (set() if damage == "none" else {"train_1.bin"})
    assert (f"passed over a damaged cache file: {file}: damaged (" in capsys.readouterr().err) == (damage != "none")
    same_weights(weights(part.workdir), weights(whole.workdir))


@pytest.mark.slow
def test_later_phases_are_filled_from_the_cache_before(files, tmp_path, undisturbed, monkeypatch):
    expected = weights(undisturbed(*VIEWS).workdir)
    firsts = []
    original = features.FeatureInput._forward
    monkeypatch.setattr(features.FeatureInput, "_forward", lambda self, first: firsts.append(first) or original(self, first))
    train_spec(*files, VIEWS, tmp_path / "one", quiet=True)
    assert firsts == [0, 0, 0, 1, 1, 1]
    firsts.clear()
    # 288 rows of 1,024 and of 384 bytes fit each, but not together.
    alone = train_spec(*files, [*VIEWS, "cache={store: memory, memory_gb: 0.0003}"], tmp_path / "two", quiet=True)
    assert firsts == [0] * 6
    same_weights(weights(alone.workdir), expected)


@pytest.mark.slow
def test_no_room_after_all_means_recomputing(files, tmp_path, undisturbed, monkeypatch, capsys):
    calls, original = [], rows.os.posix_fallocate

    def full(*arguments):
        calls.append(1)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        original(*arguments)

    monkeypatch.setattr(rows.os, "posix_fallocate", full)
    monkeypatch.setattr(
        Reporter, "step", lambda self, phase, *a: seen.append((tmp_path / "run/cache").exists()) if phase.index else None
    )
    seen = []
    run = train_spec(*files, [*VIEWS, "cache.store=disk"], tmp_path / "run", quiet=True)
    assert "no room for the cache" in capsys.readouterr().err
    assert seen and not any(seen), "what was made before the disk was full must go: the checkpoint needs the room"
    monkeypatch.undo()
    same_weights(weights(run.workdir), weights(undisturbed(*VIEWS).workdir))


def test_stopped_while_filling(files, tmp_path, undisturbed, monkeypatch):
    monkeypatch.setattr(Reporter, "images_done", lambda *arguments: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Stopped, match="in phase block_2, epoch 1"):
        train_spec(*files, VIEWS, tmp_path / "part", quiet=True)
    monkeypatch.undo()
    part = resume_run(tmp_path / "part", quiet=True)
    same_weights(weights(part.workdir), weights(undisturbed(*VIEWS).workdir))


@pytest.mark.slow  # two devices, and caches, are compared with one in many other tests
def test_two_devices_share_a_cache(files, tmp_path):
    overrides = [
        *VIEWS,
        "blocks.1=[{conv: 6, downsample: invertible}]",
        "training.keep=last",
        "training.optimizer.learning_rate=0.01",
    ]
    one = train_spec(*files, overrides, tmp_path / "one", quiet=True)
    two = train_spec(*files, overrides, tmp_path / "two", strategy=two_devices(), quiet=True)
    expected = weights(one.workdir)
    for key, value in weights(two.workdir).items():
        np.testing.assert_allclose(value, expected[key], atol=1e-5, err_msg=key)


@pytest.mark.slow
def test_features_of_an_ended_phase_leave_memory(files, tmp_path, monkeypatch):
    """TensorFlow holds on to the Python functions of data sets; the stores must not hang on them."""
    alive: list[weakref.ref] = []
    original = FeatureStore.__init__
    monkeypatch.setattr(FeatureStore, "__init__", lambda self, *a: (alive.append(weakref.ref(self)), original(self, *a))[1])
    seen = {}

    def look(self, phase, epoch, step, *arguments):
        if epoch + 1 < phase.epochs or step > 1:
            return  # a collection takes a second where many tests have run before
        gc.collect()
        seen[phase.index] = sum(store() is not None for store in alive)

    monkeypatch.setattr(Reporter, "step", look)
    train_spec(*files, VIEWS, tmp_path / "run", quiet=True)
    assert seen == {0: 0, 1: 3, 2: 3}
    gc.collect()
    assert not any(store() for store in alive)


@pytest.mark.slow
def test_workers_fill_together_and_keep_features_all_or_none(files, tmp_path, undisturbed, monkeypatch, capsys):
    """Another worker may lack the file that this one has, or the room: they walk through the same batches all the same."""
    monkeypatch.setattr(
        Reporter, "step", lambda self, phase, *a: signal.raise_signal(signal.SIGTERM) if phase.index == 1 else None
    )
    with pytest.raises(Stopped):
        train_spec(*files, [*VIEWS, "cache.store=disk"], tmp_path / "run", quiet=True)
    monkeypatch.undo()
    filled, asked = [], []

    def agree(self, *flags):
        """Another worker has none of the three files of the second phase, and no room for those of the third."""
        asked.append(flags)
        no_room = len(opened) == 2 and opened.pop()
        return tuple(flag or len(flags) == 3 or bool(no_room) for flag in flags)

    opened, original, put = [], features.FeatureInput.open, FeatureStore.put
    monkeypatch.setattr(features.FeatureInput, "open", lambda self, *a: (original(self, *a), opened.append(1)))
    monkeypatch.setattr(FeatureStore, "put", lambda self, rows, *a: (filled.append(self), put(self, rows, *a)))
    monkeypatch.setattr(Devices, "agree", agree)
    run = resume_run(tmp_path / "run", quiet=True)
    assert {store._file.name for store in filled} == {"train_0.bin", "train_1.bin", "validation_None.bin"}
    assert (False, False, False) in asked, "this worker's own files were whole"
    assert capsys.readouterr().err.count("no room for the cache (of another worker)") == 1
    same_weights(weights(run.workdir), weights(undisturbed(*VIEWS).workdir))


def test_a_file_of_another_number_of_workers_is_no_damaged_one(tmp_path):
    """Of 5 rows, 3 workers hold 2 each as 4 workers do."""
    file = tmp_path / "train_0.bin"
    store = FeatureStore(5, (2,), "float32", file, {"part": "train"}, shards=4)
    store.put(np.array([0, 4]), np.ones((2, 2), np.float32), np.zeros(2, np.int32))
    store.finish()
    assert FeatureStore(5, (2,), "float32", file, {"part": "train"}, shards=4).filled
    other = FeatureStore(5, (2,), "float32", file, {"part": "train"}, shards=3)
    assert not other.filled and other.fault == f"a cache file of other weights, images or workers: {file}"


@pytest.mark.slow
def test_an_unfilled_memory_cache_gives_way(files, tmp_path, undisturbed, monkeypatch, capsys):
    monkeypatch.setattr(features, "available_memory", lambda: 1000.0)
    run = train_spec(*files, VIEWS, tmp_path / "run", quiet=True)
    assert "no room for the cache (0.3 MB of memory are not free)" in capsys.readouterr().err
    same_weights(weights(run.workdir), weights(undisturbed(*VIEWS).workdir))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_store_gives_back_what_was_put(tmp_path, dtype):
    values = np.random.default_rng(0).normal(size=(10, 3, 2)).astype(np.float32)
    kept = tf.cast(values, dtype)
    raw = kept.numpy() if dtype == "float32" else tf.bitcast(kept, tf.uint16).numpy()
    for file in (None, tmp_path / "x" / "f.bin"):
        store = FeatureStore(10, (3, 2), dtype, file, {"of": "this"})
        order = np.array([3, 1, -1, 0, 2, 4, 5, 6, 7, 8, 9, -1])
        store.put(order, raw[np.maximum(order, 0)], np.maximum(order, 0).astype(np.int32))
        store.finish()
        rows = np.array([9, 0, 9, 4])
        np.testing.assert_array_equal(store.take(rows), raw[rows])
        assert store.take(rows).ctypes.data % 64 == 0 and list(store.labels) == list(range(10))
        for rows in (np.arange(10), np.array([4, 5, 6, 0, 1, 9, 9, 8, -1]), np.zeros(0, int), np.array([10**6])):
            np.testing.assert_array_equal(store.take(rows), raw[np.clip(rows, 0, 9)])
    again = FeatureStore(10, (3, 2), dtype, tmp_path / "x" / "f.bin", {"of": "this"})
    assert again.filled and list(again.labels) == list(range(10))
    os.truncate(tmp_path / "x" / "f.bin", 40)
    with pytest.raises(OSError, match="f.bin is shorter than it was"):
        again.take(np.array([9]))
    assert not FeatureStore(10, (3, 2), dtype, tmp_path / "x" / "f.bin", {"of": "that"}).filled
    StoreFolder(tmp_path / "x").keep_only()
    assert not (tmp_path / "x").exists() and math.prod(raw.shape) == 60
