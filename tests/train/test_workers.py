"""Several worker processes on loopback: the weights of one, only the chief writes, and what is said when one is lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, some, weights

from kerasgreedy.cli import workers as launcher
from kerasgreedy.errors import WorkdirError
from kerasgreedy.reports.run_files import read_metrics
from kerasgreedy.runs import workdir
from kerasgreedy.runs.worker_folder import worker_folder

HERE = ROOT / "tests/workers"
ENVIRONMENT = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
SPEC = """
name: tiny
block_defaults: {batch_norm: true}
blocks:
  - {conv: 4}
  - {conv: 6, downsample: invertible}
auxiliary_head: {pool_to: 2, batch_norm: true}
"""
RECIPE = """
name: fast
data: {dataset: digits, train_examples: 160, test_examples: 50, validation: 32}
training: {epochs: 2, batch_size: 32, optimizer: {name: sgd, learning_rate: 0.05, weight_decay: 5e-4}}
"""


def command(folder, name, *more):
    """The command line of a run of the small network."""
    folder.mkdir(exist_ok=True)
    (folder / "s.yaml").write_text(SPEC)
    (folder / "r.yaml").write_text(RECIPE)
    words = [sys.executable, "-m", "kerasgreedy", "train", folder / "s.yaml", "-r", folder / "r.yaml", "-w", folder / name, "-q"]
    return [str(word) for word in (*words, *more)]


def run(*words, timeout=300):
    return subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT, timeout=timeout
    )


def done(*words):
    answer = run(*words)
    assert answer.returncode == 0, answer.stderr[-3000:]
    return answer


def wait_until(condition, seconds=120):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.05)


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def near(one, two, atol=1e-5):
    assert one.keys() == two.keys()
    for key, value in one.items():
        np.testing.assert_allclose(two[key], value, atol=atol, err_msg=key)


@pytest.mark.parametrize("which", some(slow=["some", "all"]))
def test_two_workers_equal_one_process(tmp_path, which):
    """Greedy, decoupled, end to end; batch norm of the global batch, by share, none; SGD and Adam; clipping on: 20 steps."""
    sys.path.insert(0, str(HERE))
    from steps import KINDS, SOME, weights_after

    addresses = [f"127.0.0.1:{port}" for port in launcher._free_ports(2)]
    processes = []
    for index in range(2):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        processes.append(subprocess.Popen(
            [sys.executable, str(HERE / "steps.py"), str(tmp_path / "two.npz"), which],
            env={**ENVIRONMENT, "TF_CONFIG": json.dumps(config)}, stderr=subprocess.PIPE, text=True,
        ))  # fmt: skip
    one = weights_after(tf.distribute.get_strategy(), KINDS if which == "all" else SOME)
    for process in processes:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err[-3000:]
    with np.load(tmp_path / "two.npz") as arrays:
        near(one, dict(arrays))


def test_a_run_of_two_workers_is_that_of_one_and_only_the_chief_writes(tmp_path):
    without = ("-s", "cache.store=none")  # with a cache each worker keeps to its share of the images: another order
    done(*command(tmp_path, "one", *without))
    done(*command(tmp_path, "two", *without, "--workers", "2"))
    near(weights(tmp_path / "one"), weights(tmp_path / "two"))
    one, two = (read_metrics(tmp_path / name) for name in ("one", "two"))
    places = ("phase", "epoch", "split", "head")
    assert [[r[key] for key in places] for r in one] == [[r[key] for key in places] for r in two]
    np.testing.assert_allclose([r["loss"] for r in two], [r["loss"] for r in one], rtol=1e-4)
    results = json.loads((tmp_path / "two/results.json").read_text())
    assert results["examples"] == 50 and results["depths"][0].keys() == {"depth", "top1", "top5", "loss"}
    files = {path.name for path in (tmp_path / "two").iterdir()}
    assert files == {path.name for path in (tmp_path / "one").iterdir()} - {"evaluation"}
    assert {path.name: len(list(path.iterdir())) for path in (tmp_path / "two/tensorboard").iterdir()} == {
        "train": 1,
        "validation": 1,
    }


@pytest.mark.slow
def test_sigterm_saves_on_all_workers_and_any_number_goes_on(tmp_path):
    """The launcher passes the signal on; exit code 3; then one worker goes on from there."""
    process = subprocess.Popen(
        command(tmp_path, "run", "-s", "training.epochs=400", "--workers", "2"),
        cwd=ROOT,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "run/metrics.jsonl"
    wait_until(lambda: log.exists() and log.read_text().count("\n") > 6)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 3, err[-2000:]
    stopped = weights(tmp_path / "run")
    answer = run(sys.executable, "-m", "kerasgreedy", "evaluate", tmp_path / "run", "--json")
    assert answer.returncode == 0, answer.stderr[-2000:]
    for arguments in ((), ("--devices", "2")):
        resumed = subprocess.Popen(
            [sys.executable, "-m", "kerasgreedy", "train", "--resume", str(tmp_path / "run"), *arguments],
            cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        lines = []
        for line in resumed.stderr:
            lines.append(line)
            if "epoch" in line and "loss" in line:
                break
        resumed.send_signal(signal.SIGTERM)
        resumed.communicate(timeout=90)
        assert resumed.returncode == 3 and any("resumed at" in line for line in lines), lines
    assert any((weights(tmp_path / "run")[key] != value).any() for key, value in stopped.items())


@pytest.mark.slow
def test_a_lost_worker_ends_the_run_with_a_message_and_a_usable_checkpoint(tmp_path):
    words = command(tmp_path, "run", "-s", "training.epochs=400", "--workers", "2")
    process = subprocess.Popen(words, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run/metrics.jsonl"
    wait_until(lambda: log.exists() and log.read_text().count("\n") > 6)
    os.kill(second_worker(process.pid), signal.SIGKILL)
    _, err = process.communicate(timeout=150)
    assert process.returncode == 3 and "a worker was lost" in err and "train --resume" in err, err[-3000:]
    answer = run(sys.executable, "-m", "kerasgreedy", "evaluate", tmp_path / "run", "--json")
    assert answer.returncode == 0, answer.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("more", [
    ("cache.store=disk",), ("training.solver={name: alternation, warm_up_epochs: 1, refresh: 100, store: disk}",),
], ids=["cache", "masks"])  # fmt: skip
def test_what_only_the_chief_has_left_on_disk_is_computed_together(more, tmp_path):
    """All are killed in the second phase: the chief's files are still there, the other's went with its temporary folder."""
    words = command(tmp_path, "run", *(w for text in (*more, "training.epochs=60") for w in ("-s", text)), "--workers", "2")
    process = subprocess.Popen(words, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    seals = tmp_path / "run/cache/phase_2"
    wait_until(lambda: list(seals.glob("*.json")))
    time.sleep(1)
    for pid in children(process.pid):
        os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert list(seals.glob("*.json")), "there is nothing left that the other lacks"
    answer = run(sys.executable, "-m", "kerasgreedy", "train", "--resume", tmp_path / "run", "--workers", "2")
    assert answer.returncode == 0 and "resumed at phase 2" in answer.stderr, answer.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("more", [
    ["cache.store=disk", "training.epochs=3"],
    ["training.solver={name: alternation, warm_up_epochs: 1, refresh: 1, store: memory}", "training.epochs=3"],
    ["training.solver={name: alternation, warm_up_epochs: 1, mode: batch}", "training.epochs=3"],
    ["prune={keep: 0.5, fine_tune: {epochs: 1}}", "cache.store=none"],
    ["strategy=dsd", "training.epochs=3"],
], ids=["cache", "instance-masks", "batch-masks", "prune", "dsd"])  # fmt: skip
def test_every_kind_of_run_with_two_workers(more, tmp_path):
    """It ends, scores like one process, and prunes the same filters; caches and masks hold each worker's share."""
    sets = [word for text in more for word in ("-s", text)]
    done(*command(tmp_path, "one", *sets))
    done(*command(tmp_path, "two", *sets, "--workers", "2"))
    one, two = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two"))
    assert abs(one["depths"][-1]["loss"] - two["depths"][-1]["loss"]) < 0.15
    if "prune" in more[0]:
        near(weights(tmp_path / "one"), weights(tmp_path / "two"), atol=1e-4)
    again = run(sys.executable, "-m", "kerasgreedy", "train", "--resume", tmp_path / "two", "--workers", "2")
    assert again.returncode == 0 and "already done" in again.stderr, again.stderr[-2000:]


def second_worker(launcher_pid):
    """Its process id, when it is there."""
    for pid in children(launcher_pid):
        if '"index": 1' in Path(f"/proc/{pid}/environ").read_text():
            return pid
    raise AssertionError("no second worker")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["chief is killed", "terminal is closed", "launcher is killed"])
def test_nobody_is_left_behind_and_the_run_goes_on(what, tmp_path):
    words = command(tmp_path, "run", "-s", "training.epochs=400", "--workers", "2")
    process = subprocess.Popen(words, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run/metrics.jsonl"
    wait_until(lambda: log.exists() and log.read_text().count("\n") > 6)
    workers = children(process.pid)
    (chief,) = set(workers) - {second_worker(process.pid)}
    if what == "chief is killed":
        os.kill(chief, signal.SIGKILL)
        _, err = process.communicate(timeout=150)
        assert process.returncode == 3, err[-2000:]
        assert "the first worker was ended by SIGKILL" in err and "train --resume" in err
    else:
        os.kill(process.pid, signal.SIGHUP if what == "terminal is closed" else signal.SIGKILL)
        process.communicate(timeout=90)
        assert process.returncode == (3 if what == "terminal is closed" else -9)
    wait_until(
        lambda: (
            not any(Path(f"/proc/{pid}/stat").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text() for pid in workers)
        )
    )
    answer = run(sys.executable, "-m", "kerasgreedy", "evaluate", tmp_path / "run", "--json")
    assert answer.returncode == 0, answer.stderr[-2000:]


@pytest.mark.slow
def test_workers_on_different_folders_end_before_they_train(tmp_path):
    """The second one's newest manifest is damaged: it would go on from another step than the chief."""
    done(*command(tmp_path, "run", "-s", "cache.store=none"))
    for name in ("results.json", "results.md"):
        (tmp_path / "run" / name).unlink()
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    sorted((tmp_path / "other/checkpoints").glob("*.json"))[-1].write_text("{")
    addresses = [f"127.0.0.1:{port}" for port in launcher._free_ports(2)]
    processes = []
    for index, name in enumerate(("run", "other")):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        processes.append(subprocess.Popen(
            [sys.executable, "-m", "kerasgreedy", "train", "--resume", str(tmp_path / name), "--distribute", "multi_worker"],
            env={**ENVIRONMENT, "TF_CONFIG": json.dumps(config)}, cwd=ROOT, stderr=subprocess.PIPE, text=True,
        ))  # fmt: skip
    for index, process in enumerate(processes):
        _, err = process.communicate(timeout=120)
        assert process.returncode == 2 and "the workers see different checkpoints" in err, err[-2000:]
        assert ("passed over a damaged checkpoint" in err) == (index == 1)
        assert f"waiting for all workers: {', '.join(addresses)}" in err


def test_the_launcher_names_the_run_as_one_process_would(tmp_path, monkeypatch):
    """From the documents with their overrides: a recipe may lack what `--set` gives."""
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: r\ndata: {dataset: digits}\n")
    commands = []
    monkeypatch.setattr(launcher, "_run", lambda command, workers: commands.append((command, workers)) or 0)
    monkeypatch.setattr(
        sys, "argv", ["kerasgreedy", "train", "vgg11_k3", "-r", str(recipe), "-s", "recipe.name=other", "--workers=3"]
    )
    sets = ["training.epochs=1", "recipe.name=other"]
    assert launcher.launch(3, "vgg11_k3", str(recipe), sets, None, None, None) == 0
    ((words, workers),) = commands
    assert workers == 3 and "--workers=3" not in words and words[-2:] == ["--distribute", "multi_worker"]
    assert words[words.index("--workdir") + 1].startswith("runs/vgg11_k3-other-")


def test_folders_of_killed_workers_are_removed(tmp_path, monkeypatch):
    """Those whose lock nobody holds, once it is old enough to be held."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name, age in (("abandoned", 100), ("new", 0)):
        (tmp_path / f"kerasgreedy-worker-{name}").mkdir()
        lock = tmp_path / f"kerasgreedy-worker-{name}/.lock"
        lock.touch()
        os.utime(lock, (time.time() - age,) * 2)
    with worker_folder() as held:
        (held / "big").write_bytes(b"x")
        os.utime(held / ".lock", (time.time() - 100,) * 2)
        with worker_folder() as other:
            assert {path.name.removeprefix("kerasgreedy-worker-") for path in tmp_path.iterdir()} == {
                "new", *(place.name.removeprefix("kerasgreedy-worker-") for place in (held, other)),
            }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["kerasgreedy-worker-new"]


def test_a_worker_that_does_not_see_the_run_folder_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(workdir, "SIGHT_SECONDS", 0.0)
    with (
        pytest.raises(WorkdirError, match="does not see the chief's run folder"),
        workdir.Workdir(tmp_path / "run").private_copy(),
    ):
        pass


@pytest.mark.parametrize(("arguments", "message"), some(
    (["--workers", "2", "--distribute", "mirrored"], "goes with --distribute multi_worker"),
    (["--workers", "0"], "greater than or equal to 1"),
    (["--distribute", "mirored"], "did you mean 'mirrored'"),
    (["--workers", "2", "--resume", "somewhere"], "cannot stand beside SPEC, --recipe, --workdir"),
    slow=[
        (["--workers", "2", "-s", "training.batch_size=33"], "cannot be divided equally"),
        (["--devices", "TPU:0"], "allowed: a number, or names"),
    ],
))  # fmt: skip
def test_bad_options_are_one_clear_error(arguments, message, tmp_path):
    answer = run(*command(tmp_path, "run", *arguments))
    assert answer.returncode == 2 and message in answer.stderr and "Traceback" not in answer.stderr, answer.stderr[-2000:]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_cluster_that_is_named_already(tmp_path):
    config = {"cluster": {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}, "task": {"type": "worker", "index": 5}}
    environment = {**ENVIRONMENT, "TF_CONFIG": json.dumps(config)}
    for more, message in (["--workers", "2"], "TF_CONFIG names one already"), (["--distribute", "multi_worker"], "worker 0 to 1"):
        answer = subprocess.run(
            command(tmp_path, "run", *more), capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60
        )
        assert answer.returncode == 2 and message in answer.stderr, answer.stderr[-2000:]


@pytest.mark.slow
def test_the_chief_that_cannot_start_ends_the_others(tmp_path):
    """The run folder is taken: the chief says so, and nobody waits for ever."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/note").write_text("mine")
    answer = run(*command(tmp_path, "run", "--workers", "2"), timeout=120)
    assert answer.returncode == 2 and "already exists and is not empty" in answer.stderr, answer.stderr[-2000:]
