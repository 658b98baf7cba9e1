"""Places that are written to: folders and files appear whole or not at all, at any path, and nothing of another's is touched."""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from exports import tree

from kerasgreedy.errors import WorkdirError
from kerasgreedy.files import new_folder, plain_path, plain_temporary, replacing, scratch_folder, sweep, write_atomically


def test_two_who_write_to_one_place_do_not_meet(tmp_path):
    with new_folder(tmp_path / "1") as beside:
        (beside / "first").write_text("whole")
        with pytest.raises(WorkdirError, match="another process is writing it"), new_folder(tmp_path / "1"):
            pass
        assert (beside / "first").is_file()
        with new_folder(tmp_path / "2") as other:
            (other / "second").write_text("too")
    assert tree(tmp_path) == {"1/first": b"whole", "2/second": b"too"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_what_a_kill_left_is_removed_and_nothing_else(tmp_path):
    """Whatever a user calls a file or folder, only an unlocked folder with our mark inside goes."""
    with scratch_folder(tmp_path / "0") as new:
        (new / "half").write_text("half")
        (new / "link").symlink_to(tmp_path)
        left = shutil.copytree(new.parent, tmp_path / ".kerasgreedy-left", symlinks=True)
    for name in (".1.new", ".kerasgreedy-mine", ".kerasgreedy-other", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "note").write_text("mine")
    (tmp_path / ".kerasgreedy-other/marker").write_text("a marker of another program")
    (tmp_path / ".kerasgreedy-link").symlink_to(tmp_path / "mine")
    (tmp_path / ".kerasgreedy-file").write_text("mine")
    before = tree(tmp_path)
    with new_folder(tmp_path / "1") as new:
        (new / "file").write_text("whole")
    assert not left.exists()
    expected = {**{key: value for key, value in before.items() if "-left" not in key}, "1/file": b"whole"}
    assert tree(tmp_path) == expected and (tmp_path / ".kerasgreedy-link").is_symlink()


PAIR = """
import sys, time
from pathlib import Path
from kerasgreedy.errors import WorkdirError
from kerasgreedy.files import new_folder, plain_path, plain_temporary, replacing, scratch_folder, sweep, write_atomically
out, text, start = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
time.sleep(max(0, start - time.time()))
try:
    with new_folder(out) as new:
        (new / "a").write_text(text)
        (new / "b").write_text(text)
except WorkdirError as error:
    sys.exit(f"{error}")
"""


def test_of_two_processes_that_write_to_one_place_one_wins(tmp_path):
    refused = []
    for number in range(20):
        start = str(time.time() + 0.25)
        command = [sys.executable, "-c", PAIR, tmp_path / str(number)]
        pair = [subprocess.Popen([*command, text, start], stderr=subprocess.PIPE, text=True, cwd=ROOT) for text in "xy"]
        said = [process.communicate(timeout=60)[1] for process in pair]
        assert sorted(process.returncode for process in pair) == [0, 1]
        winner = "xy"[[process.returncode for process in pair].index(0)]
        assert tree(tmp_path / str(number)) == {"a": winner.encode(), "b": winner.encode()}
        refused += [text for text in said if text]
    assert all("already exists" in text or "another process is writing it" in text for text in refused) and len(refused) == 20
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(map(str, range(20)))


def test_temporary_files_have_unique_names_and_are_swept(tmp_path):
    (tmp_path / "a.json").write_text("old")
    with pytest.raises(RuntimeError), replacing(tmp_path / "a.json") as one, replacing(tmp_path / "a.json", ".keras") as other:
        one.write_text("half")
        other.write_text("half")
        assert one != other and other.suffix == ".keras"
        raise RuntimeError
    assert tree(tmp_path) == {"a.json": b"old"}
    write_atomically(tmp_path / "a.json", b"new")
    for name in (".kerasgreedy-0a.tmp", ".kerasgreedy-0a.tmp.keras", "a.json.77.tmp", "mine.tmp", ".kerasgreedy-notes"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".kerasgreedy-0b.tmp").mkdir()
    sweep(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".kerasgreedy-0b.tmp", ".kerasgreedy-notes", "a.json", "mine.tmp"]
    assert (tmp_path / "a.json").read_bytes() == b"new"


# What TensorFlow takes for patterns, what shells mind, and bytes that are no UTF-8.
ODD = ["[", "a[b]", "q?", "s*", "{a,b}", "back\\slash", "dol$lar", "sp ace", "-dash", "\u00fcn\u00ef", "bad\udcff"]


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_tensorflow_saves_and_loads_at_any_path(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", None)
    folder = Path(name)
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder.absolute()))
    module = tf.Module()
    module.v = tf.Variable([1.5, 2.5])
    with plain_temporary(), plain_path(folder) as place:
        with tempfile.TemporaryDirectory() as below:
            tf.saved_model.save(module, below)
            np.testing.assert_array_equal(tf.saved_model.load(below).v, [1.5, 2.5])
        tf.saved_model.save(module, str(place / "model"))
        with tf.io.TFRecordWriter(str(place / "records")) as file:
            file.write(b"x")
        np.testing.assert_array_equal(tf.saved_model.load(str(place / "model")).v, [1.5, 2.5])
    assert {path.name for path in folder.iterdir()} >= {"model", "records"}
    assert tempfile.gettempdir() == str(folder.absolute())


@pytest.mark.parametrize(("error", "said"), [
    (OSError(28, "No space left on device"), "the disk is full"),
    (OSError(27, "File too large"), "a file may not grow that large"),
    (OSError(13, "Permission denied"), r"cannot be written \(Permission denied\)"),
    (tf.errors.ResourceExhaustedError(None, None, "x; No space left on device"), "the disk is full"),
    (RuntimeError("unable to flush: errno = 27, error message = 'File too large'"), "a file may not grow that large"),
])  # fmt: skip
def test_what_keeps_a_folder_from_being_written_is_one_line(error, said, tmp_path):
    with pytest.raises(WorkdirError, match=f"^{tmp_path}/1: {said}[^\n]*$"), new_folder(tmp_path / "1") as new:
        (new / "half").write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_fault_that_is_not_of_the_disk_stays_what_it_is(tmp_path):
    with pytest.raises(KeyError), new_folder(tmp_path / "1"):
        raise KeyError("x")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_taken_meanwhile_is_left_alone(tmp_path):
    with pytest.raises(WorkdirError, match="already exists"), new_folder(tmp_path / "1") as beside:
        (beside / "mine").write_text("x")
        (tmp_path / "1").mkdir()
        (tmp_path / "1/theirs").write_text("y")
    assert tree(tmp_path) == {"1/theirs": b"y"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1"]


def test_folders_that_were_made_for_nothing_go_again(tmp_path):
    (tmp_path / "mine").mkdir()
    for place in ("mine/1", "new/deep/1"):
        with pytest.raises(RuntimeError, match="as if"), new_folder(tmp_path / place):
            raise RuntimeError("as if")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    with new_folder(tmp_path / "new/deep/1") as beside:
        (beside / "file").write_text("whole")
    assert tree(tmp_path) == {"new/deep/1/file": b"whole"}
