"""Checkpoints on disk: content, fall-back, clean-up, faults of the disk."""

import errno
import json
import os

import numpy as np
import pytest

from kerasgreedy.errors import CheckpointError, WorkdirError
from kerasgreedy.files import write_atomically
from kerasgreedy.runs.checkpoint import CheckpointStore

GROUPS = ["a", "b"]


def arrays(value: float) -> dict[str, np.ndarray]:
    return {"w": np.full((2, 3), value, np.float32), "n": np.array(7, np.int64), "s": np.array([1, 2], np.uint32)}


def filled(tmp_path, saves=2) -> CheckpointStore:
    store = CheckpointStore(tmp_path / "c")
    store.save({"step": 0}, {"a": arrays(0), "b": arrays(100)}, GROUPS)
    for step in range(1, saves):
        store.save({"step": step}, {"a": arrays(step)}, GROUPS)
    return store


def test_what_is_saved_comes_back_exactly(tmp_path):
    filled(tmp_path)
    snapshot, faults = CheckpointStore(tmp_path / "c").load()
    assert faults == [] and snapshot.meta == {"step": 1}
    for group, value in (("a", 1), ("b", 100)):
        for key, expected in arrays(value).items():
            got = snapshot.arrays[group][key]
            np.testing.assert_array_equal(got, expected)
            assert got.dtype == expected.dtype and got.shape == expected.shape


def test_unchanged_groups_are_not_written_again_and_old_ones_are_removed(tmp_path):
    filled(tmp_path, saves=6)
    assert sorted(path.name for path in (tmp_path / "c").glob("*.json")) == ["000004.json", "000005.json", "000006.json"]
    assert len(list((tmp_path / "c/objects").iterdir())) == 4  # b once, a in three versions


def test_nothing_saved_yet(tmp_path):
    assert CheckpointStore(tmp_path / "none").load() == (None, [])


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "manifest", "manifest_truncated"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path, damage):
    filled(tmp_path)
    newest = tmp_path / "c/000002.json"
    digest = json.loads(json.loads(newest.read_text())["body"])["objects"]["a"]
    target = tmp_path / f"c/objects/{digest}.safetensors"
    content = bytearray(target.read_bytes())
    if damage == "truncate":
        target.write_bytes(content[:-5])
    elif damage == "flip":
        content[-3] ^= 1
        target.write_bytes(content)
    elif damage == "remove":
        target.unlink()
    elif damage == "manifest":
        newest.write_text(newest.read_text().replace('\\"step\\": 1', '\\"step\\": 9'))
    else:
        newest.write_bytes(newest.read_bytes()[:40])
    store = CheckpointStore(tmp_path / "c")
    snapshot, faults = store.load()
    assert snapshot.meta == {"step": 0} and len(faults) == 1
    assert "damaged" in faults[0] or "cannot be read" in faults[0]
    store.save({"step": 5}, {"a": arrays(5)}, GROUPS)
    assert CheckpointStore(tmp_path / "c").load()[0].meta == {"step": 5}


def test_no_whole_checkpoint_is_an_error(tmp_path):
    filled(tmp_path)
    for path in (tmp_path / "c/objects").iterdir():
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="no whole checkpoint is left"):
        CheckpointStore(tmp_path / "c").load()


def test_a_full_disk_keeps_what_was_there(tmp_path, monkeypatch):
    store = filled(tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WorkdirError, match="the disk is full; what was saved before is whole"):
        store.save({"step": 2}, {"a": arrays(2)}, GROUPS)
    monkeypatch.undo()
    assert not list((tmp_path / "c").rglob("*.tmp"))
    assert CheckpointStore(tmp_path / "c").load()[0].meta == {"step": 1}


def test_leftovers_of_a_killed_write_do_no_harm(tmp_path):
    store = filled(tmp_path)
    (tmp_path / "c/000003.json.99.tmp").write_text("half")
    (tmp_path / "c/objects/feed.safetensors.99.tmp").write_bytes(b"half")
    assert CheckpointStore(tmp_path / "c").load()[0].meta == {"step": 1}
    store.save({"step": 2}, {"a": arrays(2)}, GROUPS)
    assert not list((tmp_path / "c").rglob("*.tmp"))


def test_atomic_write_replaces_whole_files_only(tmp_path, monkeypatch):
    target = tmp_path / "f"
    write_atomically(target, b"old")

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError):
        write_atomically(target, b"new")
    monkeypatch.undo()
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]
