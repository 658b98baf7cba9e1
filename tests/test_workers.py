"""Several worker processes on loopback: the weights of one, only the chief writes, and what is said when one is lost."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, weights

from kerasgreedy.cli import workers as launcher
from kerasgreedy.reports.records import read_metrics

HERE = Path(__file__).parent / "workers"
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


def near(one, two, atol=1e-5):
    assert one.keys() == two.keys()
    for key, value in one.items():
        np.testing.assert_allclose(two[key], value, atol=atol, err_msg=key)


def test_two_workers_equal_one_process(tmp_path):
    """Greedy, decoupled, end to end; with and without batch norm; SGD and Adam; clipping on: 20 steps."""
    sys.path.insert(0, str(HERE))
    from steps import weights_after

    addresses = [f"127.0.0.1:{port}" for port in launcher._free_ports(2)]
    processes = []
    for index in range(2):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        processes.append(subprocess.Popen(
            [sys.executable, str(HERE / "steps.py"), str(tmp_path / "two.npz")],
            env={**ENVIRONMENT, "TF_CONFIG": json.dumps(config)}, stderr=subprocess.PIPE, text=True,
        ))  # fmt: skip
    one = weights_after(tf.distribute.get_strategy())
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
    assert files == {path.name for path in (tmp_path / "one").iterdir()}
    assert len(list((tmp_path / "two/tensorboard").iterdir())) == 1


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
    ends = time.monotonic() + 120
    while not (log.exists() and log.read_text().count("\n") > 6) and time.monotonic() < ends:
        time.sleep(0.05)
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
    ends = time.monotonic() + 120
    while not (log.exists() and log.read_text().count("\n") > 6) and time.monotonic() < ends:
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    second = next(pid for pid in children if '"index": 1' in Path(f"/proc/{pid}/environ").read_text())
    os.kill(int(second), signal.SIGKILL)
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
    seals, ends = tmp_path / "run/cache/phase_2", time.monotonic() + 120
    while not list(seals.glob("*.json")) and time.monotonic() < ends:
        time.sleep(0.05)
    time.sleep(1)
    for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(pid), signal.SIGKILL)
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


@pytest.mark.parametrize(("arguments", "message"), [
    (["--workers", "2", "--distribute", "mirrored"], "goes with --distribute multi_worker"),
    (["--workers", "0"], "greater than or equal to 1"),
    (["--workers", "2", "-s", "training.batch_size=33"], "cannot be divided equally"),
    (["--distribute", "mirored"], "did you mean 'mirrored'"),
    (["--devices", "TPU:0"], "allowed: a number, or names"),
])  # fmt: skip
def test_bad_options_are_one_clear_error(arguments, message, tmp_path):
    answer = run(*command(tmp_path, "run", *arguments))
    assert answer.returncode == 2 and message in answer.stderr and "Traceback" not in answer.stderr, answer.stderr[-2000:]
    assert not (tmp_path / "run").exists()


def test_a_cluster_that_is_named_already(tmp_path):
    config = {"cluster": {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}, "task": {"type": "worker", "index": 5}}
    environment = {**ENVIRONMENT, "TF_CONFIG": json.dumps(config)}
    for more, message in (["--workers", "2"], "TF_CONFIG names one already"), (["--distribute", "multi_worker"], "worker 0 to 1"):
        answer = subprocess.run(
            command(tmp_path, "run", *more), capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60
        )
        assert answer.returncode == 2 and message in answer.stderr, answer.stderr[-2000:]


def test_the_chief_that_cannot_start_ends_the_others(tmp_path):
    """The run folder is taken: the chief says so, and nobody waits for ever."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/note").write_text("mine")
    answer = run(*command(tmp_path, "run", "--workers", "2"), timeout=120)
    assert answer.returncode == 2 and "already exists and is not empty" in answer.stderr, answer.stderr[-2000:]
