"""Runs that stop, die or are damaged, and go on."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from conftest import same_weights, some, stop_at, two_devices, weights, without_time

from kerasgreedy.errors import InputError, Stopped, WorkdirError
from kerasgreedy.network.evaluation import Evaluator
from kerasgreedy.runs.checkpoint import CheckpointStore
from kerasgreedy.runs.devices import Devices
from kerasgreedy.runs.holding import held
from kerasgreedy.train import loop, results
from kerasgreedy.train.entry_points import resume_run, train_spec
from kerasgreedy.train.evaluating import evaluate_run
from kerasgreedy.train.progress import Reporter
from kerasgreedy.train.records import Records

NO_DROPOUT = ["blocks.1=[{conv: 6, downsample: invertible}]", "training.keep=last", "training.optimizer.learning_rate=0.01"]


@pytest.mark.parametrize("at", some(14, slow=[1, 3, 6, 9, 23]))
def test_stopped_at_any_step_and_resumed_equals_never_stopped(finished, files, tmp_path, monkeypatch, at):
    """24 steps in all. A SIGTERM saves inside the epoch; weights, slots, random state and metrics end bit for bit equal."""
    stop_at(monkeypatch, at)
    with pytest.raises(Stopped, match="stopped by SIGTERM"):
        train_spec(*files, workdir=tmp_path / "run", quiet=True)
    monkeypatch.undo()
    done = resume_run(tmp_path / "run", quiet=True)
    same_weights(weights(done.workdir), weights(finished.workdir))
    assert without_time(done.workdir) == without_time(finished.workdir)
    assert done.results["depths"] == finished.results["depths"]


@pytest.mark.parametrize(("what", "count"), some(("record", 5), slow=[("step", 7), ("save", 1), ("save", 4), ("finish", 1)]))
def test_dying_anywhere_and_resumed_equals_never_stopped(finished, files, tmp_path, monkeypatch, what, count):
    """The process dies without a word: in a step, before a save, after a log line, before the results."""
    target, name = {
        "step": (Reporter, "step"),
        "save": (loop.Loop, "_save"),
        "record": (Records, "scores"),
        "finish": (loop.Loop, "run"),
    }[what]
    original, calls = getattr(target, name), []

    def die(self, *arguments, **more):
        calls.append(1)
        if len(calls) > count or what == "finish":
            if what in ("record", "finish"):
                original(self, *arguments, **more)
            raise SystemError("killed")
        return original(self, *arguments, **more)

    monkeypatch.setattr(target, name, die)
    with pytest.raises(SystemError):
        train_spec(*files, workdir=tmp_path / "run", quiet=True)
    monkeypatch.undo()
    done = resume_run(tmp_path / "run", quiet=True)
    same_weights(weights(done.workdir), weights(finished.workdir))
    assert without_time(done.workdir) == without_time(finished.workdir)


def test_resuming_a_finished_run_changes_nothing(finished):
    before = (finished.workdir / "results.json").read_bytes()
    assert resume_run(finished.workdir, quiet=True).results == finished.results
    assert (finished.workdir / "results.json").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("at", some(2, slow=[1, 4]))
def test_stopped_during_an_evaluation_and_resumed_equals_never_stopped(finished, files, tmp_path, monkeypatch, at):
    """The first evaluation is that of the start of phase 1; at 2 and 4 an epoch's steps are done and saved."""
    original, calls = Evaluator.__call__, []

    def look(self, batches, seen=None):
        calls.append(1)
        if len(calls) == at:
            signal.raise_signal(signal.SIGTERM)
        return original(self, batches, seen)

    monkeypatch.setattr(Evaluator, "__call__", look)
    with pytest.raises(Stopped, match="stopped by SIGTERM"):
        train_spec(*files, workdir=tmp_path / "run", quiet=True)
    assert len(calls) == at
    monkeypatch.undo()
    done = resume_run(tmp_path / "run", quiet=True)
    same_weights(weights(done.workdir), weights(finished.workdir))
    assert without_time(done.workdir) == without_time(finished.workdir)


@pytest.mark.slow
def test_two_devices_stop_and_resume(files, tmp_path, monkeypatch):
    """Stopped in the second phase, where a frozen batch norm's statistics must come back on both devices."""
    whole = train_spec(*files, NO_DROPOUT, tmp_path / "whole", strategy=two_devices(), quiet=True)

    def stop(self, phase, epoch, step, *rest):
        if (phase.index, epoch, step) == (1, 0, 2):
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Reporter, "step", stop)
    with pytest.raises(Stopped):
        train_spec(*files, NO_DROPOUT, tmp_path / "part", strategy=two_devices(), quiet=True)
    monkeypatch.undo()
    shutil.copytree(tmp_path / "part", tmp_path / "fewer")
    fewer = resume_run(tmp_path / "fewer", quiet=True)  # on one device: the curves differ by rounding
    for one, two in zip(without_time(fewer.workdir), without_time(whole.workdir), strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-3) and (one["epoch"], one["split"]) == (
            two["epoch"],
            two["split"],
        )
    part = resume_run(tmp_path / "part", strategy=two_devices(), quiet=True)
    for key, value in weights(whole.workdir).items():
        np.testing.assert_allclose(weights(part.workdir)[key], value, atol=1e-6, err_msg=key)
    # A batch of one is filled up for the second device, with an image that does not count.
    alone, both = (evaluate_run(part.workdir, strategy=s, batch_size=1) for s in (None, two_devices()))
    assert both["examples"] == alone["examples"] == 50
    assert both["ensemble"]["loss"] == pytest.approx(alone["ensemble"]["loss"], rel=1e-5)


def test_an_unfinished_run_reports_the_heads_that_moved(finished, files, tmp_path, monkeypatch):
    original = loop.Loop._epoch

    def die(self, phase):
        if phase.index == 1:
            raise SystemError("killed")
        return original(self, phase)

    monkeypatch.setattr(loop.Loop, "_epoch", die)
    with pytest.raises(SystemError):
        train_spec(*files, workdir=tmp_path / "run", quiet=True)
    monkeypatch.undo()
    scores = evaluate_run(tmp_path / "run")
    assert [d["depth"] for d in scores["depths"]] == [1]
    assert scores["ensemble"]["top1"] == scores["depths"][0]["top1"] == finished.results["depths"][0]["top1"]


def test_stopped_during_the_test_evaluation(finished, files, tmp_path, monkeypatch):
    original = results.score
    monkeypatch.setattr(results, "score", lambda *a, **more: (signal.raise_signal(signal.SIGTERM), original(*a, **more)))
    with pytest.raises(Stopped, match="stopped by SIGTERM before the results were written; training is done and saved"):
        train_spec(*files, workdir=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run/results.json").exists()
    monkeypatch.undo()
    done = resume_run(tmp_path / "run", quiet=True)
    same_weights(weights(done.workdir), weights(finished.workdir))
    assert done.results["depths"] == finished.results["depths"]


def test_workers_that_see_different_checkpoints_go_no_further(finished, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(Devices, "same", lambda self, text: asked.append(text))
    run = tmp_path / "run"
    shutil.copytree(finished.workdir, run)
    newest = sorted((run / "checkpoints").glob("*.json"))[-1]
    with pytest.raises(InputError, match="the workers see different checkpoints; all of them have to share this folder"):
        resume_run(run, quiet=True)
    assert asked == [json.loads(newest.read_text())["sha256"]]


@pytest.mark.slow
def test_a_damaged_object_is_written_again_by_the_resumed_run(finished, files, tmp_path, monkeypatch):
    """Training is deterministic: after the fall-back the same content, with the same name, has to replace the bad file."""
    monkeypatch.setattr(loop.Loop, "_save_is_due", lambda self: False)
    monkeypatch.setattr(
        Reporter, "epoch", lambda self, phase, epoch, *a: signal.raise_signal(signal.SIGTERM) if epoch == 2 else None
    )
    with pytest.raises(Stopped):
        train_spec(*files, workdir=tmp_path / "run", quiet=True)
    monkeypatch.undo()
    folder = tmp_path / "run/checkpoints"
    newest = sorted(folder.glob("*.json"))[-1]
    digest = json.loads(json.loads(newest.read_text())["body"])["objects"]["network/block_1"]
    path = folder / f"objects/{digest}.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    done = resume_run(tmp_path / "run", quiet=True)
    same_weights(weights(done.workdir), weights(finished.workdir))


def test_a_damaged_object_that_nobody_read_is_written_again(tmp_path):
    """The manifest is damaged, so its objects are not looked at; the same contents come again after the fall-back."""
    arrays = {"w": np.arange(3, dtype=np.float32)}
    store = CheckpointStore(tmp_path)
    store.save({}, {"a": {"w": np.zeros(3, np.float32)}}, ["a"])
    store.save({}, {"a": arrays}, ["a"])
    newest = json.loads((tmp_path / "000002.json").read_text())
    path = tmp_path / f"objects/{json.loads(newest['body'])['objects']['a']}.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    (tmp_path / "000002.json").write_text("{")
    store = CheckpointStore(tmp_path)
    assert len(store.load()[1]) == 1
    store.save({"again": True}, {"a": arrays}, ["a"])
    snapshot, faults = CheckpointStore(tmp_path).load()
    assert snapshot.meta == {"again": True} and faults == []
    np.testing.assert_array_equal(snapshot.arrays["a"]["w"], arrays["w"])


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("spec.yaml", "0.25", "0.35"),
        ("recipe.yaml", "learning_rate: 0.05", "learning_rate: 0.04"),
        ("run.json", '"seed": 0', '"seed": 1'),
    ],
)
def test_a_digit_that_changed_in_what_the_run_began_with_is_refused(finished, tmp_path, file, old, new):
    run = Path(shutil.copytree(finished.workdir, tmp_path / "run"))
    text = (run / file).read_text()
    assert old in text
    (run / file).write_text(text.replace(old, new))
    with pytest.raises(WorkdirError, match=f"{file}: (not what the run began with|damaged)"):
        resume_run(run, quiet=True)


def test_metrics_that_were_cut_off_are_said_and_do_not_stop_the_run(finished, tmp_path, capsys):
    run = Path(shutil.copytree(finished.workdir, tmp_path / "run"))
    (run / "results.json").unlink()
    whole = (run / "metrics.jsonl").read_bytes()
    (run / "metrics.jsonl").write_bytes(whole[: len(whole) // 2])
    done = resume_run(run, quiet=True)
    assert f"metrics.jsonl: damaged ({len(whole) - len(whole) // 2:,} bytes are missing)" in capsys.readouterr().err
    left = (run / "metrics.jsonl").read_bytes()
    assert left and whole.startswith(left) and left.endswith(b"\n")
    assert done.results["depths"] == finished.results["depths"]


def test_what_a_killed_write_left_is_removed(finished, tmp_path):
    run = Path(shutil.copytree(finished.workdir, tmp_path / "run"))
    (run / "results.json.7.tmp").write_text("half")
    resume_run(run, quiet=True)
    assert not list(run.glob("*.tmp"))


@pytest.mark.slow
def test_early_stopping_and_resume(files, tmp_path, monkeypatch):
    overrides = ["training.epochs=5", "training.early_stopping=2", "training.optimizer={name: adam, learning_rate: 0.01}"]
    whole = train_spec(*files, overrides, tmp_path / "whole", quiet=True)
    calls = []

    def stop(self, *arguments):
        calls.append(1)
        if len(calls) == 9:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Reporter, "step", stop)
    with pytest.raises(Stopped):
        train_spec(*files, overrides, tmp_path / "part", quiet=True)
    monkeypatch.undo()
    part = resume_run(tmp_path / "part", quiet=True)
    same_weights(weights(part.workdir), weights(whole.workdir))
    assert part.results["phases"] == whole.results["phases"]


def test_a_folder_in_use_is_left_alone(finished):

    with held(finished.workdir), pytest.raises(WorkdirError, match="another process is training"):
        resume_run(finished.workdir, quiet=True)
