"""Where exports are written: a version appears whole or not at all, once."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from exports import tree

import kerasgreedy as kg
from kerasgreedy.errors import InputError, WorkdirError
from kerasgreedy.export.export_run import MOST_VERSION, Export, _version
from kerasgreedy.files import new_folder


def test_a_kill_leaves_the_old_version_whole(finished, tmp_path):
    out = tmp_path / "out"
    first = kg.export_run(finished.workdir, out, quiet=True)
    before = tree(out / "1")
    process = subprocess.Popen([sys.executable, "-m", "kerasgreedy", "export", str(finished.workdir), str(out), "-q"], cwd=ROOT)
    ends = time.monotonic() + 120
    while not (out / ".2.new/variables").exists() and process.poll() is None and time.monotonic() < ends:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert tree(out / "1") == before and not (out / "2").exists() and (out / ".2.new").exists()
    assert kg.export_run(finished.workdir, out, quiet=True)["version"] == 2
    assert sorted(path.name for path in out.iterdir()) == ["1", "2"] and first["version"] == 1


def test_a_full_disk_leaves_nothing(finished, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kerasgreedy.export.export_run.write_warm_up", full)
    with pytest.raises(WorkdirError, match="the disk is full"):
        kg.export_run(finished.workdir, tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()  # nor the folder of versions, which was made for it


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


def test_folders_that_were_made_for_nothing_go_again(tmp_path):
    (tmp_path / "mine").mkdir()
    for place in ("mine/1", "new/deep/1"):
        with pytest.raises(RuntimeError, match="as if"), new_folder(tmp_path / place):
            raise RuntimeError("as if")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    with new_folder(tmp_path / "new/deep/1") as beside:
        (beside / "file").write_text("whole")
    assert tree(tmp_path) == {"new/deep/1/file": b"whole"}


def test_what_a_kill_left_is_written_over(tmp_path):
    left = tmp_path / ".1.new"
    (left / "variables").mkdir(parents=True)
    (left / "variables/old").write_text("half")
    (left / "link").symlink_to(tmp_path)
    with new_folder(tmp_path / "1") as beside:
        (beside / "new").write_text("whole")
    assert tree(tmp_path) == {"1/new": b"whole"}


def test_a_place_that_is_taken_meanwhile_is_left_alone(tmp_path):
    with pytest.raises(WorkdirError, match="already exists"), new_folder(tmp_path / "1") as beside:
        (beside / "mine").write_text("x")
        (tmp_path / "1").mkdir()
        (tmp_path / "1/theirs").write_text("y")
    assert tree(tmp_path) == {"1/theirs": b"y"}
    assert not (tmp_path / ".1.new").exists()


def test_numbers_of_versions(tmp_path):
    assert _version(tmp_path / "none", None) == 1
    for name in ("01", "7", "latest", ".8.new"):
        (tmp_path / name).mkdir()
    assert _version(tmp_path, None) == 8 and _version(tmp_path, 3) == 3
    for taken, place in ((1, "01"), (7, "7")):
        with pytest.raises(WorkdirError, match=f"/{place}: already exists; give another --version"):
            _version(tmp_path, taken)
    (tmp_path / str(MOST_VERSION)).mkdir()
    with pytest.raises(WorkdirError, match="holds a version of 9223372036854775807; allowed: up to"):
        _version(tmp_path, None)
    with pytest.raises(InputError, match="version: received 9223372036854775808; allowed: 1 to 9223372036854775807"):
        Export(version=MOST_VERSION + 1).check()
