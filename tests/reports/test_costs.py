"""Costs: bytes of the weights, latency, `summary` of one and of two, costs in reports."""

import json

import numpy as np
import pytest
import tensorflow as tf
from command_line import run_cli
from conftest import REAL_TIMING, TINY_SPEC, spec_of

from kerasgreedy.errors import InputError, WorkdirError
from kerasgreedy.graph.architecture import architecture
from kerasgreedy.network import latency
from kerasgreedy.network.build import Network, build_network
from kerasgreedy.reports import costs
from kerasgreedy.reports.run_files import RunRecord, read_run
from kerasgreedy.reports.tables import compare_rows, results_markdown

TWO_BLOCKS = """
name: two
input_shape: [4, 4, 1]
classes: 3
block_defaults: {batch_norm: true}
blocks: [{conv: 2}, [{conv: 3}, {dropout: 0.5}]]
"""
NARROW = TWO_BLOCKS.replace("two", "narrow").replace("conv: 2", "conv: 1")
# One filter less: 9 + 2 instead of 18 + 4 weights, 27 + 6 instead of 54 + 6; head 4 * 3 values to 3 classes, with bias, in both.
PARAMETERS = {"two": 22 + 60 + 39, "narrow": 11 + 33 + 39}
BYTES = {"two": 4 * (121 + 4 + 6), "narrow": 4 * (83 + 2 + 6)}  # and the moving statistics of 2 + 3, of 1 + 3 filters
MULTIPLY_ADDS = {"two": 16 * (18 + 54) + 36, "narrow": 16 * (9 + 27) + 36}


@pytest.fixture(autouse=True)
def real_timing(monkeypatch):
    """Here the constants count."""
    for name, value in REAL_TIMING.items():
        monkeypatch.setattr(latency, name, value)


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Works in a folder that holds both specs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.yaml").write_text(TWO_BLOCKS)
    (tmp_path / "narrow.yaml").write_text(NARROW)
    return lambda *arguments: run_cli(monkeypatch, capsys, *arguments)


@pytest.fixture
def run_folder(tmp_path):
    """What `summary` reads of a run that was pruned."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "spec.yaml").write_text(TWO_BLOCKS)
    (folder / "pruned_spec.yaml").write_text(NARROW)
    (folder / "model.keras").write_bytes(b"x" * 4321)
    return folder


@pytest.fixture
def timings(monkeypatch):
    """Injected seconds of a call: before 20 ms always; after 10 ms at first and then, at batch 32, 20, 25 and 20 ms."""
    given = iter([[0.01, 0.01, 0.01], [0.02, 0.025, 0.02]])

    def samples(calls, rounds):
        values = dict.fromkeys(calls, [0.02] * 3)
        return values if len(calls) == 1 else {**values, "after": next(given)}

    monkeypatch.setattr(latency, "samples", samples)


def cells(out):
    """First cell -> the others, of a table on the terminal."""
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines() if line.startswith("│")]
    return {row[0]: row[1:] for row in rows}


def test_weights_bytes_by_hand():
    network = build_network(spec_of(TWO_BLOCKS).value)
    assert latency.weights_bytes(network) == BYTES["two"] == 524
    assert latency.weights_bytes(network, depth=1) == 4 * (18 + 8 + 2 * 2 * 2 * 3 + 3)
    with pytest.raises(InputError, match="network 'two': received depth 3; allowed: 1 to 2"):
        latency.weights_bytes(network, depth=3)


def test_bytes_counted_without_tensorflow_are_those_of_the_variables():
    arch = architecture(spec_of(TINY_SPEC).value, (8, 8, 1), 10)  # a residual block, heads with batch norm
    network = Network(arch)
    arrays = [array for name in (*(block.name for block in arch.blocks), "head_3") for array in network.arrays(name).items()]
    expected = sum(4 * array.size for name, array in arrays if "seed_generator" not in name)
    assert arch.weights_bytes == latency.weights_bytes(network) == expected
    assert [block.widths for block in arch.blocks] == [[4], [6], [6, 6]] and arch.heads[-1].widths == [6, 10]


def test_statistics_of_injected_timings():
    figures = latency.statistics_of({"a": [0.010, 0.020, 0.030], "b": [0.005, 0.020, 0.010]})
    assert figures["a"] == pytest.approx({"median_ms": 20, "low_ms": 15, "high_ms": 25, "rounds": 3})
    # Rounds give 2, 1 and 3: their median is 2, as the ratio of the medians, but it need not be.
    expected = {"median_ms": 10, "low_ms": 7.5, "high_ms": 15, "rounds": 3, "ratio": 2, "ratio_low": 1.5, "ratio_high": 2.5}
    assert figures["b"] == pytest.approx(expected)
    noisy = latency.statistics_of({"a": [0.010, 0.040, 0.010, 0.040], "b": [0.005, 0.020, 0.005, 0.020]})
    assert [noisy["b"][key] for key in ("ratio", "ratio_low", "ratio_high")] == pytest.approx([2, 2, 2])
    assert latency.statistics_of({"a": [0.5]})["a"] == {"median_ms": 500, "low_ms": 500, "high_ms": 500, "rounds": 1}


class Machine:
    """A clock that only calls move on; remembers their order."""

    def __init__(self, **seconds):
        self.now, self.order = 0.0, ""
        self.calls = {name: lambda name=name: self.run(name, seconds[name]) for name in seconds}

    def run(self, name, seconds):
        self.now += seconds
        self.order += name

    def samples(self, rounds=None):
        return latency.samples(self.calls, rounds, lambda: self.now)


def test_networks_take_turns_and_fast_ones_are_repeated():
    machine = Machine(a=0.125, b=0.03125)
    assert machine.samples(3) == {"a": [0.125] * 3, "b": [0.03125] * 3}
    assert machine.order == "aaa" + "bbb" + "abb" * 3  # warm-up, then 0.05 seconds are two calls of b


@pytest.mark.parametrize("seconds, rounds", [(0.125, 20), (0.5, 8), (2.0, 5)])
def test_rounds_are_bounded_by_time(seconds, rounds):
    machine = Machine(a=seconds)
    assert len(machine.samples()["a"]) == rounds and machine.now == (rounds + 3) * seconds


def test_latency_of_real_networks(monkeypatch):
    monkeypatch.setattr(latency, "SAMPLE_SECONDS", 0.001)
    networks = {name: build_network(spec_of(text).value) for name, text in (("two", TWO_BLOCKS), ("narrow", NARROW))}
    result = latency.measure_latency(networks, (1, 4), rounds=3)
    assert list(result) == ["two", "narrow"] and all(list(figures) == ["1", "4"] for figures in result.values())
    for name, batches in result.items():
        for entry in batches.values():
            assert 0 < entry["low_ms"] <= entry["median_ms"] <= entry["high_ms"] and entry["rounds"] == 3
            assert ("ratio" in entry) == (name == "narrow")
    assert json.loads(json.dumps(result)) == result


def test_what_is_timed_is_the_head_at_the_depth_in_inference_mode_and_float32(monkeypatch):
    seen = []
    monkeypatch.setattr(latency, "samples", lambda calls, rounds: seen.extend(c() for c in calls.values()) or {"n": [1.0]})
    network = build_network(spec_of(TWO_BLOCKS).value)
    network.compute_in("mixed_bfloat16")
    for depth in (None, 1):
        latency.measure_latency({"n": network}, [5], depth=depth)
    images = tf.random.stateless_normal((5, 4, 4, 1), seed=(0, 0))
    for got, expected in zip(seen, reversed(network.logits(images)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert network.blocks[0].compute_dtype == "float32"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"batch_sizes": [1, 0]}, "batch size 0; allowed: 1 or more"),
        ({"rounds": 0}, "rounds 0; allowed: 1 or more"),
        ({"depth": 9}, "network 'n': received depth 9; allowed: 1 to 2"),
        ({"networks": {}}, "received no network"),
    ],
)
def test_measuring_refuses_what_cannot_be(arguments, message):
    networks = {"n": build_network(spec_of(TWO_BLOCKS).value)}
    with pytest.raises(InputError, match=message):
        latency.measure_latency(**{"networks": networks, **arguments})


def test_summary_of_two_specs(command):
    code, out, _ = command("summary", "two.yaml", "narrow.yaml")
    assert code == 0 and "before: two.yaml, after: narrow.yaml" in out and "faster" not in out
    table = cells(out)
    assert table["block_1"][:2] == ["2", "1"] and table["block_2"][:2] == ["3", "3"] and table["final head"][:2] == ["3", "3"]
    assert table["parameters"] == ["121", "83", "1.46x"]
    assert table["multiply-adds"] == ["1.2k", "612", "1.94x"]  # 1188 and 612
    assert table["weights, float32"] == ["524B", "364B", "1.44x"]
    both = json.loads(command("summary", "two.yaml", "narrow.yaml", "--json")[1])
    for role, name in (("before", "two"), ("after", "narrow")):
        side = both[role]
        assert (side["name"], side["place"]) == (name, f"{name}.yaml") and "latency" not in side
        figures = [side[key] for key in ("parameters", "multiply_adds", "weights_bytes")]
        assert figures == [PARAMETERS[name], MULTIPLY_ADDS[name], BYTES[name]]
    assert both["before"]["widths"] == {"block_1": [2], "block_2": [3], "head_2": [3]}
    assert both["ratio"] == pytest.approx({"parameters": 121 / 83, "multiply_adds": 1188 / 612, "weights_bytes": 524 / 364})


def test_blocks_of_one_side_only_and_overrides_for_both(command, tmp_path):
    (tmp_path / "one.yaml").write_text("name: one\ninput_shape: [4, 4, 1]\nblocks: [{layers: [{conv: 5}], name: stem}]\n")
    code, out, _ = command("summary", "two.yaml", "one.yaml", "-s", "classes=7")
    table = cells(out)
    assert code == 0 and table["block_1 / stem"][:2] == ["2", "5"] and table["block_2"][:2] == ["3", "-"]
    assert table["final head"][:2] == ["7", "7"]


def test_summary_measures_one(command, monkeypatch):
    monkeypatch.setattr(latency, "SAMPLE_SECONDS", 0.0001)
    plain = json.loads(command("summary", "two.yaml", "--json")[1])
    code, out, err = command("summary", "two.yaml", "--measure", "--json")
    figures = json.loads(out.splitlines()[-1])
    assert code == 0 and "measuring" in err and len(out.splitlines()) == 1
    assert set(figures) - set(plain) == {"weights_bytes", "latency"} and figures["weights_bytes"] == 524
    assert {key: figures[key] for key in plain} == plain and set(figures["latency"]) == {"1", "32"}
    assert set(figures["latency"]["32"]) == {"median_ms", "low_ms", "high_ms", "rounds"}


def test_summary_measured_in_words(command, timings):
    out = command("summary", "two.yaml", "--measure")[1]
    assert "weights: 524B in float32 (blocks and final head)" in out
    assert "latency at batch 1: 20.0 (20.0-20.0) ms, median and quartiles of 3 rounds" in out


def test_summary_says_where_the_second_is_not_faster(command, timings):
    out = command("summary", "two.yaml", "narrow.yaml", "--measure")[1]
    table = cells(out)
    assert table["ms at batch 1"] == ["20.0 (20.0-20.0)", "10.0 (10.0-10.0)", "2.00x, 2.00-2.00"]
    # Ratios of the rounds: 1, 0.8, 1.
    assert table["ms at batch 32"] == ["20.0 (20.0-20.0)", "20.0 (20.0-22.5)", "1.00x, 0.90-1.00"]
    assert out.splitlines()[-1] == "not faster at batch 32 (1.00x, 0.90-1.00)" and "not faster at batch 1 " not in out


def test_a_pruned_run_alone_is_before_and_after(command, run_folder):
    code, out, _ = command("summary", "run")
    assert code == 0 and "before: run/spec.yaml, after: run/pruned_spec.yaml" in out
    assert cells(out)["parameters"] == ["121", "83", "1.46x"]
    assert out.splitlines()[-1] == "run/model.keras: 4.3kB, with every trained head"
    both = json.loads(command("summary", run_folder, "--json")[1])
    assert both["after"]["model_file_bytes"] == 4321 and "model_file_bytes" not in both["before"]


def test_beside_another_a_run_is_its_network_now(command, run_folder):
    both = json.loads(command("summary", "two.yaml", "run", "--json")[1])
    assert (both["before"]["name"], both["after"]["name"]) == ("two", "narrow")
    (run_folder / "pruned_spec.yaml").unlink()
    both = json.loads(command("summary", "run", "narrow.yaml", "--json")[1])
    assert (both["before"]["name"], both["after"]["name"]) == ("two", "narrow")
    assert both["before"]["model_file_bytes"] == 4321


def test_a_run_that_was_not_pruned_is_one_summary(command, finished):
    figures = json.loads(command("summary", finished.workdir, "--json")[1])
    assert figures["parameters"] == finished.results["parameters"] and "before" not in figures
    assert figures["model_file_bytes"] == (finished.workdir / "model.keras").stat().st_size > finished.results["weights_bytes"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["two.yaml", "narrow.yaml", "two.yaml"], "unexpected extra argument"),
        (["two.yaml", "empty"], "empty: a folder, but not a run folder (no spec.yaml); allowed: a spec or a run folder"),
        (["two.yaml", "open.yaml"], "spec 'open' leaves input_shape to the data set"),
        (["two.yaml", "vgg61"], "no shipped spec of that name; did you mean"),
        (["two.yaml", "narrow.yaml", "-s", "blocks.0.conv=0"], "received 0"),
    ],
)
def test_bad_input(command, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "open.yaml").write_text("name: open\nblocks: [{conv: 2}]\n")
    code, out, err = command("summary", *arguments)
    assert (code, out) == (2, "") and message in err and "Traceback" not in err


def test_a_run_reports_the_bytes_of_the_deployed_network(finished):
    assert finished.results["weights_bytes"] == latency.weights_bytes(finished.network)
    assert f"weights of {finished.results['weights_bytes'] / 1000:.1f}kB" in (finished.workdir / "results.md").read_text()
    rows = dict(compare_rows([read_run(finished.workdir)])[1])
    assert rows["weights, float32"] == f"{finished.results['weights_bytes'] / 1000:.1f}kB"


PRUNED = {
    "before": {
        "parameters": 2000,
        "multiply_adds": 3_000_000,
        "weights_bytes": 8200,
        "latency": {
            "1": {"median_ms": 4.0, "low_ms": 3.9, "high_ms": 4.2},
            "32": {"median_ms": 60.0, "low_ms": 59.0, "high_ms": 61.0},
        },
    },
    "after": {
        "parameters": 1000,
        "multiply_adds": 1_500_000,
        "weights_bytes": 4100,
        "latency": {
            "1": {"median_ms": 4.08, "low_ms": 4.0, "high_ms": 4.3, "ratio": 0.98, "ratio_low": 0.95, "ratio_high": 1.01},
            "32": {"median_ms": 40.0, "low_ms": 39.0, "high_ms": 41.0, "ratio": 1.5},
        },
    },
}


def test_results_show_before_and_after_pruning(finished):
    text = results_markdown({**finished.results, "pruned": PRUNED})
    for row in (
        "| parameters | 2,000 | 1,000 | 2.00x |",
        "| multiply-adds | 3.0M | 1.5M | 2.00x |",
        "| weights, float32 | 8.2kB | 4.1kB | 2.00x |",
        "| ms at batch 1 | 4.00 (3.90-4.20) | 4.08 (4.00-4.30) | 0.98x, 0.95-1.01 |",
        "| ms at batch 32 | 60.0 (59.0-61.0) | 40.0 (39.0-41.0) | 1.50x |",
    ):
        assert row in text.splitlines()
    assert "The pruned network is not faster at batch 1 (0.98x, 0.95-1.01)." in text and "faster at batch 32" not in text
    assert "pruning" not in results_markdown(finished.results)


def test_compare_shows_before_and_after_pruning(finished):
    pruned = RunRecord(finished.workdir / "pruned", {**finished.results, "pruned": PRUNED}, [])
    old = RunRecord(finished.workdir / "old", {k: v for k, v in finished.results.items() if k != "weights_bytes"}, [])
    header, rows = compare_rows([pruned, old])
    table = {row[0]: row[1:] for row in rows}
    assert header == ["", "pruned", "old"]
    assert table["parameters"][0] == "2.0k -> 1.0k" and table["multiply-adds"][0] == "3.0M -> 1.5M"
    assert table["weights, float32"] == ["8.2kB -> 4.1kB", "-"]
    assert table["ms at batch 1"] == ["4.00 -> 4.08, not faster (0.98x, 0.95-1.01)", "-"]
    assert table["ms at batch 32"] == ["60.0 -> 40.0 (1.50x)", "-"]


@pytest.mark.parametrize(
    "change, what",
    [
        ({"after": {}}, "before"),
        ({**PRUNED, "after": {**PRUNED["after"], "parameters": 0}}, "pruned.after.parameters is missing"),
        (
            {**PRUNED, "after": {**PRUNED["after"], "latency": {"1": {"median_ms": 1}}}},
            "pruned.after.latency.1.low_ms is missing",
        ),
        ({**PRUNED, "after": {**PRUNED["after"], "latency": {"one": {}}}}, "invalid literal"),
        ("much", "string indices"),
    ],
)
def test_damaged_costs_are_one_clear_error(finished, tmp_path, change, what):
    (tmp_path / "results.json").write_text(json.dumps({**finished.results, "pruned": change}))
    with pytest.raises(WorkdirError, match=f"damaged .*{what}"):
        read_run(tmp_path)


def test_words_for_ratios():
    assert costs.not_faster({"ratio": 1.1}) is None and costs.not_faster({}) is None
    assert costs.not_faster({"ratio": 1.09}, " at batch 1") == "not faster at batch 1 (1.09x)"
    noisy = {"ratio": 1.23, "ratio_low": 0.83, "ratio_high": 1.77}
    assert costs.not_faster(noisy, " at batch 1") == "not surely faster at batch 1 (1.23x, 0.83-1.77)"
    assert costs.not_faster({**noisy, "ratio_low": 1.02}) is None
    slow = {"ratio": 0.8, "ratio_low": 0.75, "ratio_high": 0.85}
    assert costs.not_faster(slow, " at batch 32") == "not faster at batch 32 but slower (0.80x, 0.75-0.85)"


def test_figures_for_people():
    values = [0.2134, 4.307, 42.07, 1204.4]
    assert [costs.milliseconds(value) for value in values] == ["0.213", "4.31", "42.1", "1,204"]
    assert [costs.bytes_text(value) for value in (None, 524, 22_044_104)] == ["-", "524B", "22.0MB"]
