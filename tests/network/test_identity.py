"""Prop. 3.1: a block that starts as the identity repeats the risk before it, and the kept point is never worse."""

import numpy as np
import pytest
from conftest import spec_of

from kerasgreedy.network.build import build_network
from kerasgreedy.network.identity import start_as_identity
from kerasgreedy.reports.run_files import read_metrics
from kerasgreedy.train.entry_points import train_spec

RNG = np.random.default_rng(4)
SPEC = """
name: s
block_defaults: {batch_norm: %s}
blocks: [{conv: 5}, {conv: 5}, {conv: 5, kernel_size: 5}]
auxiliary_head: {hidden_layers: 1, width: 6, batch_norm: %s}
"""


@pytest.mark.parametrize("batch_norm", ["true", "false"])
def test_identity_repeats_the_logits_of_the_head_before(batch_norm):
    network = build_network(spec_of(SPEC % (batch_norm, batch_norm)).value, (8, 8, 1), 10)
    for name in ("block_1", "head_1"):
        arrays = {key: RNG.uniform(0.5, 1.5, value.shape).astype(np.float32) * np.sign(value + 0.1)
                  if value.dtype == np.float32 and "variance" not in key else value
                  for key, value in network.arrays(name).items()}  # fmt: skip
        network.load_arrays(name, arrays)
    start_as_identity(network, 1)
    start_as_identity(network, 2)
    first, second, third = network.logits(RNG.normal(size=(9, 8, 8, 1)).astype(np.float32))
    scale = np.abs(first).max()
    np.testing.assert_allclose(second / scale, first / scale, atol=1e-5)
    np.testing.assert_allclose(third / scale, first / scale, atol=1e-5)


def test_the_risk_never_rises_from_block_to_block(tmp_path):
    spec, recipe = tmp_path / "s.yaml", tmp_path / "r.yaml"
    spec.write_text(SPEC % ("false", "false"))
    recipe.write_text(
        "name: r\ndata: {dataset: digits, train_examples: 160, test_examples: 50, validation: 0}\n"
        "training: {epochs: 2, batch_size: 32, optimizer: {learning_rate: 0.05}, keep: best, monitor: train_loss, "
        "init: identity}\n"
    )
    run = train_spec(spec, recipe, workdir=tmp_path / "run", quiet=True)
    exact = [r for r in read_metrics(run.workdir) if r["split"] == "train_exact"]
    start = {r["phase"]: r["loss"] for r in exact if r["epoch"] == 0}
    kept = {phase: min(r["loss"] for r in exact if r["phase"] == phase) for phase in start}
    assert start[1] == pytest.approx(kept[0], rel=1e-5)
    assert start[2] == pytest.approx(kept[1], rel=1e-5)
    assert kept[2] <= kept[1] * (1 + 1e-6) <= kept[0] * (1 + 2e-6)
