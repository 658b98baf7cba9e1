"""Killing the process with SIGKILL at random moments and resuming ends in the weights of an undisturbed run."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT, weights

from kerasgreedy.reports.records import read_metrics
from kerasgreedy.train.checkpoint import CheckpointStore

KILLS = 10


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "kerasgreedy", "train", *map(str, arguments), "-q"],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process, timeout=300):
    _, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err


@pytest.mark.slow
def test_ten_kills_at_random_moments_lose_nothing(files, tmp_path):
    spec, recipe = files
    arguments = (spec, "-r", recipe, "-s", "training.epochs=8", "-s", "data.image_size=16", "-s", "checkpoint_minutes=0.02")
    undisturbed = tmp_path / "undisturbed"
    begun = time.monotonic()
    end(start(*arguments, "-w", undisturbed))
    length = time.monotonic() - begun
    expected, rng = weights(undisturbed), random.Random(0)
    landed = set()
    for number in range(KILLS):
        workdir = tmp_path / f"killed_{number}"
        process = start(*arguments, "-w", workdir)
        # Moments are spread over the run, with some chance in each tenth; start-up is among them.
        time.sleep(length * (number + rng.random()) / KILLS)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if workdir.exists():
            snapshot, _ = CheckpointStore(workdir / "checkpoints").load()
            landed.add(snapshot.meta["phase"] if snapshot else -1)
            end(start("--resume", workdir))
        else:  # killed before the run folder was there: nothing was begun
            end(start(*arguments, "-w", workdir))
        got = weights(workdir)
        assert got.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(got[key], value, err_msg=f"kill {number}: {key}")
        assert [(r["phase"], r["epoch"], r["split"], r["loss"]) for r in read_metrics(workdir)] == [
            (r["phase"], r["epoch"], r["split"], r["loss"]) for r in read_metrics(undisturbed)
        ]
    assert len(landed) >= 3, f"the kills fell into {landed} only"
