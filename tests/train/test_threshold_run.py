"""Runs that remove what a structured penalty made small: figures, resume, devices, commands, bad input."""

import json
import shlex
import sys

import numpy as np
import pytest
from conftest import same_weights, some, stop_at, two_devices, weights

from kerasgreedy.cli import main as cli
from kerasgreedy.errors import KerasgreedyError, Stopped
from kerasgreedy.graph.architecture import architecture
from kerasgreedy.kernel_groups import gone_of
from kerasgreedy.reports.run_files import read_metrics
from kerasgreedy.reports.threshold_plot import draw_thresholds, sweeps_of
from kerasgreedy.spec.load import load_spec
from kerasgreedy.train import performing_threshold
from kerasgreedy.train.entry_points import resume_run, train_spec
from kerasgreedy.train.prune_run import threshold_run

SPEC = """
name: s
block_defaults: {batch_norm: true}
blocks:
  - {conv: 6}
  - {residual: [{conv: 6}, {conv: 6, activation: linear}]}
  - {residual: [{conv: 8, stride: 2}, {conv: 8, activation: linear}], shortcut: pad}
final_head: {layers: [{global_avg_pool: true}]}
"""
RECIPE = """
name: r
data: {dataset: digits, train_examples: 160, test_examples: 40, validation: 64}
strategy: end_to_end
training:
  {epochs: 2, batch_size: 16, optimizer: {name: sgd, learning_rate: 0.05, momentum: 0.9},
   regularizers: [{name: nested_group_lasso, weight: 0.02, groups: rings}]}
threshold: {multiply_adds: 0.6, fine_tune: {epochs: 1}}
"""


@pytest.fixture
def documents(tmp_path):
    (tmp_path / "s.yaml").write_text(SPEC)
    (tmp_path / "r.yaml").write_text(RECIPE)
    return tmp_path / "s.yaml", tmp_path / "r.yaml"


def entry_of(run, name="threshold"):
    return next(entry for entry in run.results["phases"] if entry["phase"] == name)


@pytest.mark.slow
def test_figures_are_those_of_the_network_that_is_left(documents, tmp_path):
    run = train_spec(*documents, [], tmp_path / "run", quiet=True)
    entry = entry_of(run)
    left = architecture(load_spec(run.workdir / "pruned_spec.yaml").value)
    assert entry["multiply_adds"][1] == left.multiply_adds == run.results["multiply_adds"] == entry["target"][1]
    assert left.multiply_adds <= entry["target"][0] == int(0.6 * entry["multiply_adds"][0])
    details = json.loads((run.workdir / "thresholds/threshold.json").read_text())
    for layer, filters in details["norms"].items():
        gone = [gone_of(norms, entry["tau"]) for norms in filters]
        if layer not in entry["emptied"] and not any(layer.split("/")[0] in body for body in entry["bodies"]):
            assert entry["filters"][layer] == [len(filters), sum(count < len(filters[0]) for count in gone)]
    adds = [row["multiply_adds"] for row in details["sweep"]]
    assert adds == sorted(adds, reverse=True) and details["sweep"][0]["kernels"] > details["sweep"][-1]["kernels"]
    assert all(0 <= row["accuracy"] <= 1 for row in details["sweep"])
    record = [r for r in read_metrics(run.workdir) if "sparsity" in r][-1]
    layer = record["sparsity"]["block_2/conv_1"]
    assert layer["kernels"] == layer["of"] == 6 and layer["multiply_adds"] == 64 * 6 * sum(
        int(side) ** 2 * count for side, count in layer["sides"].items()
    )
    drawn = draw_thresholds(sweeps_of(run.workdir)).axes
    heights = drawn[0].lines[0].get_ydata()
    np.testing.assert_allclose(heights, [100 * row["accuracy"] for row in details["sweep"]])


@pytest.mark.parametrize("at", some(slow=[5, 13, 15]))
def test_stopped_and_resumed_equals_never_stopped(documents, tmp_path, monkeypatch, at):
    whole = train_spec(*documents, [], tmp_path / "whole", quiet=True)
    stop_at(monkeypatch, at)
    with pytest.raises(Stopped):
        train_spec(*documents, [], tmp_path / "run", quiet=True)
    monkeypatch.undo()
    again = resume_run(tmp_path / "run", quiet=True)
    same_weights(weights(again.workdir), weights(whole.workdir))
    assert entry_of(again) == entry_of(whole)


@pytest.mark.slow
def test_two_devices_equal_one(documents, tmp_path):
    """In what is kept, and up to rounding in the weights."""
    sets = ["training.epochs=1", "sync_batch_norm=true"]
    one = train_spec(*documents, sets, tmp_path / "one", quiet=True)
    two = train_spec(*documents, [*sets, "distribute=mirrored"], tmp_path / "two", strategy=two_devices(), quiet=True)
    assert entry_of(one)["filters"] == entry_of(two)["filters"] and entry_of(one)["sides"] == entry_of(two)["sides"]
    for key, value in weights(one.workdir).items():
        np.testing.assert_allclose(weights(two.workdir)[key], value, atol=2e-3)


@pytest.mark.slow
def test_blocks_that_are_trained_one_by_one(documents, tmp_path):
    """Greedy: each block after its phase; later blocks read what is left, from a cache as well."""
    sets = ["strategy=greedy", "training.epochs=1", "data.augment={}", "threshold={multiply_adds: 0.7, sizes: branches}"]
    cached = train_spec(*documents, [*sets, "cache.store=memory"], tmp_path / "cached", quiet=True)
    plain = train_spec(*documents, [*sets, "cache.store=none"], tmp_path / "plain", quiet=True)
    same_weights(weights(cached.workdir), weights(plain.workdir))
    names = [entry["phase"] for entry in plain.results["phases"]]
    assert names == ["block_1", "threshold_block_1", "block_2", "threshold_block_2", "block_3", "threshold_block_3"]
    assert all(entry["multiply_adds"][1] < entry["multiply_adds"][0] for entry in plain.results["phases"] if "tau" in entry)


def test_a_finished_run_and_the_command(documents, tmp_path, monkeypatch, capsys):
    run = train_spec(*documents, ["training.regularizers=[]", "threshold={tau: 0}"], tmp_path / "run", quiet=True)
    before = {path: path.read_bytes() for path in sorted(run.workdir.rglob("*.json"))}
    tried = threshold_run(run.workdir, tau=1.0, groups="half_rings", sizes="branches", epochs=0, quiet=True)
    assert tried.workdir.name == "run-thresholded" and entry_of(tried)["tau"] == 1.0
    assert {path: path.read_bytes() for path in before} == before
    command = f"threshold {run.workdir} --multiply-adds 0.5 --round-to 2 --epochs 1 -w {tmp_path / 'two'} -q --json"
    monkeypatch.setattr(sys, "argv", ["kerasgreedy", *shlex.split(command)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    results = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert results["multiply_adds"] <= 0.5 * run.results["multiply_adds"]
    assert results["phases"][0]["filters"]["block_1/conv_1"][1] % 2 == 0


def test_a_number_of_multiply_adds_for_every_block_leaves_those_that_have_less(documents, tmp_path):
    """The first block is under it from the start, the second one is not: no reason to end the run."""
    spec = tmp_path / "two.yaml"
    spec.write_text("name: t\nblocks: [{conv: 4}, {conv: 8}]\nauxiliary_head: {layers: [{global_avg_pool: true}]}\n")
    sets = ["strategy=greedy", "training.epochs=1", "threshold={multiply_adds: 8000, groups: kernel}"]
    run = train_spec(spec, documents[1], sets, tmp_path / "run", quiet=True)
    one, two = entry_of(run, "threshold_block_1"), entry_of(run, "threshold_block_2")
    assert one["tau"] < 0 and one["filters"] == {"block_1/conv_1": [4, 4]}
    assert one["news"][0] == "nothing goes: there are no more multiply-adds than were asked for"
    assert two["tau"] >= 0 and two["target"][1] <= 8000 < two["multiply_adds"][0]


def test_sums_keep_filters_of_zeros(documents, tmp_path):
    """The same tau leaves the same filters; where zeros stay, more multiply-adds and nothing to put in place."""
    trained = train_spec(*documents, ["training.epochs=1", "threshold=null"], tmp_path / "trained", quiet=True).workdir
    how = {"groups": "kernel", "epochs": 0, "quiet": True}
    first = threshold_run(trained, multiply_adds=0.6, **how, out=tmp_path / "placed")
    placed = entry_of(first)
    second = threshold_run(trained, tau=placed["tau"], **how, sums="zeros", out=tmp_path / "zeros")
    kept = entry_of(second)
    assert placed["filters"] == kept["filters"] and placed["zeros"] == []
    assert kept["zeros"] and set(kept["zeros"]) <= set(kept["filters"])
    specs = [(each.workdir / "pruned_spec.yaml").read_text() for each in (first, second)]
    assert "place_channels" in specs[0] and "place_channels" not in specs[1]
    assert placed["multiply_adds"][1] < kept["multiply_adds"][1] < kept["multiply_adds"][0]
    np.testing.assert_allclose(*(each.results["depths"][-1]["loss"] for each in (first, second)), rtol=1e-5)
    within = entry_of(threshold_run(trained, multiply_adds=0.6, **how, sums="zeros", out=tmp_path / "budget"))
    assert within["multiply_adds"][1] <= within["target"][0] and within["tau"] >= placed["tau"]


def _trained(documents, tmp_path, spec):
    documents[0].write_text(spec)
    sets = ["training.epochs=1", "training.regularizers=[]", "threshold=null"]
    return train_spec(*documents, sets, tmp_path / "trained", quiet=True).workdir


def test_zeros_are_there_though_nothing_is_rewritten(documents, tmp_path):
    """Of one layer of a sum, all of whose zeros stay."""
    trained = _trained(documents, tmp_path, SPEC)
    how = {"of": ["block_2/conv_2"], "groups": "kernel", "epochs": 0, "quiet": True, "out": tmp_path / "zeros"}
    kernel = weights(trained)["block_2/conv_2/kernel"]
    tau = float(np.median(np.sqrt(np.square(kernel).sum((0, 1, 2)))))
    run = threshold_run(trained, tau=tau, sums="zeros", **how)
    entry, left = entry_of(run), weights(run.workdir)
    assert entry["zeros"] == ["block_2/conv_2"] and entry["multiply_adds"][0] == entry["multiply_adds"][1]
    assert entry["filters"] == {"block_2/conv_2": [6, 3]}
    gone = np.sqrt(np.square(kernel).sum((0, 1, 2))) <= tau
    np.testing.assert_array_equal(left["block_2/conv_2/kernel"], np.where(gone, 0, kernel))
    np.testing.assert_array_equal(left["block_1/conv_1/kernel"], weights(trained)["block_1/conv_1/kernel"])
    placed = threshold_run(trained, tau=tau, **{**how, "out": tmp_path / "placed"})
    np.testing.assert_allclose(*(each.results["depths"][-1]["loss"] for each in (run, placed)), rtol=1e-5)
    np.testing.assert_allclose(entry["validation"]["after"]["loss"], entry_of(placed)["validation"]["after"]["loss"], rtol=1e-5)
    assert entry["validation"]["after"]["loss"] != entry["validation"]["before"]["loss"]


def test_margins_that_cannot_be_cropped_are_zero(documents, tmp_path):
    """Of a convolution in groups, whose kernels keep their side."""
    blocks = "{conv: 6}, {conv: 6, groups: 6, kernel_size: 5}, {conv: 8, kernel_size: 1}"
    trained = _trained(documents, tmp_path, f"name: s\nblocks: [{blocks}]\nfinal_head: {{layers: [{{global_avg_pool: true}}]}}\n")
    kernel = weights(trained)["block_2/conv_1/kernel"]
    of = {"of": ["block_2/conv_1"], "groups": "rings", "norm": "l2", "epochs": 0, "quiet": True}
    run = threshold_run(trained, tau=float(np.sqrt(np.square(kernel).sum((0, 1, 2))).min()) * 0.999, **of, out=tmp_path / "out")
    entry, left = entry_of(run), weights(run.workdir)["block_2/conv_1/kernel"]
    assert entry["held"] == ["block_2/conv_1"]
    changed = [f for f in range(6) if not np.array_equal(left[..., f], kernel[..., f])]
    assert changed and all(not left[[0, -1]][..., f].any() and not left[:, [0, -1], :, f].any() for f in changed)
    assert entry["validation"]["after"] != entry["validation"]["before"]


def test_nothing_goes_where_what_is_zero_costs_too_much(documents, tmp_path, monkeypatch):
    monkeypatch.setattr(performing_threshold._Thresholding, "_accuracy", lambda self, tau: 0.0)
    run = train_spec(*documents, ["training.epochs=1", "threshold={accuracy_drop: 0.01}"], tmp_path / "run", quiet=True)
    entry = entry_of(run)
    assert entry["tau"] == -1 and entry["multiply_adds"][0] == entry["multiply_adds"][1]
    assert "would cost more accuracy" in entry["news"][0]


def test_zeros_of_scales_are_counted(documents, tmp_path):
    sets = ["training.regularizers=[{name: group_lasso, weight: 3, on: scale, of: hidden}]", "threshold={tau: 0, sizes: padded}"]
    entry = entry_of(train_spec(*documents, sets, tmp_path / "run", quiet=True))
    kernels = {
        "block_1/conv_1": 9 * 1,
        "block_2/conv_1": 9 * 6,
        "block_2/conv_2": 9 * 6,
        "block_3/conv_1": 9 * 6,
        "block_3/conv_2": 9 * 8,
    }
    details = json.loads((tmp_path / "run/thresholds/threshold.json").read_text())["norms"]
    zero = sum(kernels[layer] * sum(norm == [0.0] for norm in norms) for layer, norms in details.items())
    total = sum(kernels[layer] * len(norms) for layer, norms in details.items())
    assert entry["zero_share"] == pytest.approx(zero / total) and zero


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["threshold={}"], "nothing says how much is removed; give one of tau, accuracy_drop, multiply_adds"),
        (["threshold={tau: 1, multiply_adds: 0.5}"], "received tau and multiply_adds"),
        (["threshold={multiply_adds: 0.5, sizes: measured}"], "allowed: branches, padded"),
        (["threshold={accuracy_drop: 0.1}", "data.validation=0", "training.monitor=train_loss"], "needs data.validation above 0"),
        (["threshold={tau: 1, on: scale, groups: rings}"], "a scale has no places"),
        (
            [
                "threshold={tau: 1, groups: rings}",
                "training.regularizers=[{name: group_lasso, weight: 1, on: scale, of: hidden}]",
            ],
            "which has no places; allowed: kernel",
        ),
        (["threshold={tau: 1, of: ['head_*']}"], "is no layer that can lose a kernel; allowed: block_1/conv_1"),
        (["threshold={tau: 1}", "prune={keep: 0.5}"], "'prune' and 'threshold' exclude each other"),
        (["threshold={multiply_adds: 10}"], "nearest: "),
        (["threshold={multiply_adds: 100000000}"], "allowed: fewer"),
        (["threshold={tau: 1}", "block_defaults.activation=sigmoid"], "makes something of 0"),
        (["threshold={tau: 1, on: scale}", "block_defaults.batch_norm=false"], "needs a batch norm right after each layer"),
        (["training.regularizers=[{name: group_lasso, weight: 1, on: scaled_kernel}]"], "no proximal map"),
        (["training.regularizers=[{name: complexity, weight: 1, form: proximal}]"], "subgradient"),
        (["training.regularizers=[{name: nested_group_lasso, weight: 1, groups: ring}]"], "did you mean 'rings'"),
    ],
)
def test_bad_input(documents, tmp_path, sets, message):
    with pytest.raises(KerasgreedyError) as error:
        train_spec(*documents, ["training.epochs=1", *sets], tmp_path / "run", quiet=True)
    assert message in str(error.value)
