"""Where exports are written: a version appears whole or not at all, once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tensorflow as tf
from conftest import ROOT
from exports import tree

import kerasgreedy as kg
from kerasgreedy.errors import InputError, WorkdirError
from kerasgreedy.export.export_run import MOST_VERSION, Export, _version
from kerasgreedy.files import plain_path


@pytest.mark.slow
def test_a_kill_leaves_the_old_version_whole(finished, tmp_path):
    out = tmp_path / "out"
    first = kg.export_run(finished.workdir, out, quiet=True)
    before = tree(out / "1")
    process = subprocess.Popen([sys.executable, "-m", "kerasgreedy", "export", str(finished.workdir), str(out), "-q"], cwd=ROOT)
    ends = time.monotonic() + 120
    while not list(out.glob(".kerasgreedy-*/new/variables")) and process.poll() is None and time.monotonic() < ends:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert tree(out / "1") == before and not (out / "2").exists() and list(out.glob(".kerasgreedy-*"))
    assert kg.export_run(finished.workdir, out, quiet=True)["version"] == 2
    assert sorted(path.name for path in out.iterdir()) == ["1", "2"] and first["version"] == 1


def test_a_full_disk_leaves_nothing(finished, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kerasgreedy.export.export_run.write_warm_up", full)
    with pytest.raises(WorkdirError, match="the disk is full"):
        kg.export_run(finished.workdir, tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()  # nor the folder of versions, which was made for it


@pytest.mark.slow
def test_an_export_at_an_odd_path(finished, tmp_path):
    done = kg.export_run(finished.workdir, tmp_path / "a[b] {c}*", kg.Export(formats=("keras", "tflite")), quiet=True)
    assert Path(done["out"]) == tmp_path / "a[b] {c}*/1" and done["difference"] < 1e-5
    with plain_path(Path(done["out"])) as place:
        loaded = tf.saved_model.load(str(place))
    assert loaded.signatures["logits"](images=tf.zeros((2, 8, 8, 1), tf.uint8))["logits"].shape == (2, 10)
    assert sorted(path.name for path in (tmp_path / "a[b] {c}*").iterdir()) == ["1"]


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
