"""Memory: what a step needs at least, what is free, and what is said when there is not enough."""

import math
import subprocess
import sys

import pytest
import tensorflow as tf
from conftest import ROOT, TINY_RECIPE, TINY_SPEC, recipe_of, same_weights, some, spec_of, weights

from kerasgreedy.data import memory
from kerasgreedy.errors import InputError, WorkdirError
from kerasgreedy.plan import batch_sizes as batches
from kerasgreedy.plan.batch_sizes import Need, check_batches, least_memory
from kerasgreedy.plan.preparation import prepare
from kerasgreedy.solvers.step import TrainStep
from kerasgreedy.train.entry_points import resume_run, train_spec


def job(*overrides, spec=TINY_SPEC):
    return prepare(spec_of(spec), recipe_of(TINY_RECIPE, *overrides))


SMALL = """
name: small
block_defaults: {batch_norm: true}
blocks: [{conv: 4}, {conv: 6, downsample: invertible}]
auxiliary_head: {pool_to: 2}
"""


@pytest.mark.parametrize(("overrides", "index", "workers", "expected"), [
    ([], 0, 1, (2 * 4 * 8 * 8 * 4 * 16, 16)),  # two float32 maps of block 1
    (["training.accumulation=4"], 0, 1, (4 * 8 * 8 * 4 * 16, 16)),  # 2 of 4 images are less than 1 of 16 in evaluation
    (["training.accumulation=2"], 0, 2, (4 * 8 * 8 * 4 * 8, 8)),  # each worker evaluates 8 at a time
    (["precision=mixed_bfloat16"], 0, 1, (2 * 2 * 8 * 8 * 4 * 16, 16)),
    (["cache.store=none"], 1, 1, (4 * 8 * 8 * 4 * 16, 16)),  # the frozen block's map; 2 maps of 4x4x6 are less
])  # fmt: skip
def test_the_least_memory_of_a_phase_by_hand(overrides, index, workers, expected):
    made = job("training.batch_size=16", *overrides, spec=SMALL)
    need = least_memory(made.architecture, made.phases[index], workers)
    assert (need.bytes, need.images) == expected
    assert need.shape == (8, 8, 4) and need.layer.startswith("block_1/")


def test_a_batch_that_cannot_fit_is_refused_before_anything_is_made(files, tmp_path, monkeypatch):
    need = least_memory(job().architecture, job().phases[0])
    monkeypatch.setattr(batches, "available_memory", lambda: need.bytes - 1.0)
    message = rf"phase block_1 would hold 0\.\d MB at once for {need.layer} alone \(8x8x4, {need.images} images at a time\)"
    with pytest.raises(InputError, match=message):
        train_spec(*files, workdir=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    check_batches(job(), 1, 1, on_cpu=False)  # a GPU's memory is its own
    monkeypatch.setattr(batches, "available_memory", lambda: float(need.bytes))
    check_batches(job(), 1, 1, on_cpu=True)


def test_behind_a_linear_layer_nothing_is_kept():
    """One tensor of 300 outputs for 16 images, or two where an activation follows."""
    for activation, factor, layer in (("linear", 1, "dense_1"), ("relu", 2, "activation_1")):
        head = f"layers: [{{flatten: true}}, {{dense: 300, activation: {activation}}}, {{dense: 10, activation: linear}}]"
        made = job("training.batch_size=16", spec=f"name: s\nblocks: [{{conv: 1}}]\nauxiliary_head: {{{head}}}")
        need = least_memory(made.architecture, made.phases[0])
        assert need == Need(4 * 300 * 16 * factor, f"head_1/{layer}", (300,), 16)


OUT_OF_MEMORY = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


@pytest.mark.slow
@pytest.mark.parametrize("error", some(OUT_OF_MEMORY, slow=[MemoryError()]))
def test_memory_that_runs_out_in_training_is_said_and_loses_nothing(error, files, tmp_path, monkeypatch):
    original, calls = TrainStep.__call__, []

    def step(self, *batch):
        calls.append(1)
        if len(calls) == 7:
            raise error
        return original(self, *batch)

    monkeypatch.setattr(TrainStep, "__call__", step)
    with pytest.raises(
        WorkdirError, match=r"out of memory; what was saved before is whole in .*A smaller training.batch_size"
    ) as told:
        train_spec(*files, workdir=tmp_path / "part", quiet=True)
    assert told.value.exit_code == 2
    monkeypatch.undo()
    whole = train_spec(*files, workdir=tmp_path / "whole", quiet=True)
    same_weights(weights(resume_run(tmp_path / "part", quiet=True).workdir), weights(whole.workdir))


@pytest.mark.parametrize(("limit", "current", "expected"), [
    ("1000000\n", "400000\n", 700000.0),  # 100,000 of those in use can go
    ("max\n", "400000\n", math.inf), ("300000\n", "500000\n", 0.0), ("", "", math.inf),
])  # fmt: skip
def test_memory_of_a_container(limit, current, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    for name, text in ("memory.max", limit), ("memory.current", current), ("memory.stat", "anon 7\ninactive_file 100000\n"):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "_MACHINE", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemTotal: 3000 kB\nMemAvailable:    2000 kB\n")
    assert memory.available_memory() == min(expected, 2000 * 1024.0)
    (tmp_path / "meminfo").unlink()
    assert memory.available_memory() == expected


def test_a_limit_of_the_process_counts():
    """`ulimit -v` in kilobytes: what is left of it, below what the machine has."""
    program = "from kerasgreedy.data.memory import available_memory; print(available_memory())"
    command = f"ulimit -v 3000000; {sys.executable} -c '{program}'"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, cwd=ROOT)
    assert 2e9 < float(done.stdout) < 3.072e9
