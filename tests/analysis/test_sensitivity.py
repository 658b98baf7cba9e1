"""Accuracy against removed filters: right at every point, and nothing is left changed."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from conftest import same_weights, two_devices, weights
from PIL import Image

from kerasgreedy.analysis.sensitivity import ALL, Probe, sensitivity_of
from kerasgreedy.errors import CheckpointError, InputError, WorkdirError
from kerasgreedy.network.build import Network
from kerasgreedy.network.surgery import remove_filters, silenced
from kerasgreedy.reports.sensitivity_plot import plot_sensitivity, write_sensitivity
from kerasgreedy.runs.open_run import open_job, open_pipeline, trained_network
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.train.entry_points import train_spec
from kerasgreedy.train.evaluating import evaluate_run

BATCH = 32


@pytest.fixture(scope="module")
def result(finished):
    return sensitivity_of(finished.workdir, ["magnitude_l2", "taylor_activation"], [0.5, 0.25], images=64)


@pytest.fixture(scope="module")
def opened(finished):
    """Job, network, pipeline and strategy of the run."""
    folder = Workdir.open(finished.workdir)
    job, network = trained_network(folder, open_job(folder, None))
    return job, network, open_pipeline(job, None, folder), tf.distribute.get_strategy()


def curve_of(result, criterion, component):
    (curve,) = [c for c in result["curves"] if (c["criterion"], c["component"]) == (criterion, component)]
    return curve["points"]


def by_hand(network, spec, coupling, removed, pipeline):
    """top1 and loss at the last head of the really smaller network, with NumPy, one batch at a time; its parameters."""
    smaller, _ = remove_filters(network, spec, coupling, removed)
    right = loss = count = 0.0
    for images, labels, given in pipeline.evaluation("validation", BATCH).as_numpy_iterator():
        logits = np.asarray(smaller.logits(images, [3])[0], np.float64)
        of_label = logits[np.arange(len(logits)), labels]
        right += ((logits.argmax(1) == labels) * given).sum()
        loss += ((np.log(np.exp(logits).sum(1)) - of_label) * given).sum()
        count += given.sum()
    arch = smaller.architecture
    components = [*arch.blocks, arch.heads[-1]]
    return right / count, loss / count, [sum(getattr(c, key) for c in components) for key in ("parameters", "multiply_adds")]


def test_what_it_says(result, finished):
    assert set(result) == {
        "workdir", "spec", "depth", "part", "examples", "ranking", "losses", "images", "baseline", "curves", "skipped"
    }  # fmt: skip
    assert (result["spec"], result["depth"], result["part"], result["examples"]) == ("tiny", 3, "validation", 32)
    assert result["losses"] == ["head_1", "head_2", "head_3"]  # greedy: every head is trained
    keys = {"share", "filters_removed", "filters", "parameters_share", "multiply_adds_share", "top1", "loss"}
    assert all(set(point) == keys for curve in result["curves"] for point in curve["points"])
    names = [(curve["criterion"], curve["component"]) for curve in result["curves"]]
    components = ["block_1", "block_3", "head_3", ALL]
    assert names == [(criterion, name) for criterion in ("magnitude_l2", "taylor_activation") for name in components]
    # Of block_1 (4 filters) a quarter and a half; block_3 alone: its first convolution, 6; both convolutions of a sum: 6 + 6.
    counts = {name: [(p["share"], p["filters_removed"], p["filters"]) for p in curve_of(result, "magnitude_l2", name)]
              for name in components}  # fmt: skip
    assert counts["block_1"] == [(0.25, 1, 4), (0.5, 2, 4)]
    assert counts["block_3"] == counts["head_3"] == [(0.25, 1, 6), (0.5, 3, 6)]
    assert counts[ALL] == [(0.25, 1 + 2 + 1 + 1, 28), (0.5, 2 + 6 + 3 + 3, 28)]
    (skipped,) = result["skipped"]
    assert skipped["component"] == "block_2" and "summed with those of block_3" in skipped["reason"]


def test_baseline_is_that_of_evaluate(result, finished):
    last = evaluate_run(finished.workdir, "validation")["depths"][-1]
    assert result["baseline"]["top1"] == last["top1"]
    assert result["baseline"]["loss"] == pytest.approx(last["loss"], abs=1e-6)


@pytest.mark.parametrize("component", ["block_1", "block_3", ALL])
def test_a_point_is_the_really_smaller_network(result, opened, component):
    """The weakest half by the l2 norm of the kernels, worked out here, removed for real."""
    job, network, pipeline, strategy = opened
    probe = Probe(network, job.spec, strategy, pipeline.evaluation("validation", BATCH))
    groups, _ = probe.selections([component])
    removed = set()
    for group in groups[component]:
        norms = []
        for item in group.items:
            kernels = [network.arrays(f.place[0])["/".join((*f.place, "kernel"))][..., f.index] for f in item.filters]
            norms.append(np.sqrt(sum((kernel.astype(np.float64) ** 2).sum() for kernel in kernels)))
        removed |= {group.items[i].label for i in np.argsort(norms)[: len(norms) // 2]}
    top1, loss, costs = by_hand(network, job.spec, probe.coupling, removed, pipeline)
    whole = by_hand(network, job.spec, probe.coupling, frozenset(), pipeline)[2]
    point = curve_of(result, "magnitude_l2", component)[-1]
    assert point["top1"] == pytest.approx(top1, abs=1e-6) and point["loss"] == pytest.approx(loss, abs=1e-6)
    shares = [point["parameters_share"], point["multiply_adds_share"]]
    assert shares == pytest.approx([now / before for now, before in zip(costs, whole, strict=True)])
    assert point["multiply_adds_share"] < 1 and point["loss"] != result["baseline"]["loss"]


def test_costs_worked_out_by_hand(result):
    """Images of 8x8x1; convolutions 1 -> 4 at 8x8, at 4x4 16 -> 6, twice 6 -> 6 and the head's 6 -> 6; then dense 24 -> 10."""
    whole = 64 * 9 * 4 + 16 * 9 * (16 * 6 + 3 * 6 * 6) + 240
    point = curve_of(result, "magnitude_l2", "block_1")[-1]  # 2 of 4 filters are left: 1 -> 2 and 8 -> 6
    assert point["multiply_adds_share"] == pytest.approx((64 * 9 * 2 + 16 * 9 * (8 * 6 + 3 * 6 * 6) + 240) / whole)
    point = curve_of(result, "magnitude_l2", "block_3")[-1]  # 6 -> 3 -> 6
    assert point["multiply_adds_share"] == pytest.approx((64 * 9 * 4 + 16 * 9 * (16 * 6 + 2 * 3 * 6 + 6 * 6) + 240) / whole)
    # Weights: block_1 9 + 2 a filter, block_2's kernel 9 * 4 * 6 for each of its inputs, of 44 + 876 + 672 + 598 in all.
    assert curve_of(result, "magnitude_l2", "block_1")[-1]["parameters_share"] == pytest.approx(1 - (2 * 11 + 2 * 4 * 54) / 2190)


def test_weights_are_as_before(opened):
    job, network, pipeline, strategy = opened
    before = {name: network.arrays(name) for name in network.names}
    probe = Probe(network, job.spec, strategy, pipeline.evaluation("validation", BATCH))
    groups, _ = probe.selections([ALL])
    scores = probe.scores("random", groups, None, 0)
    probe.point(0.5, groups[ALL], scores, "global")
    assert all(same_weights(arrays, network.arrays(name)) is None for name, arrays in before.items())
    labels = probe.weakest(0.5, groups[ALL], scores, "layer")
    with pytest.raises(RuntimeError), silenced(network, probe.coupling, labels):
        assert not network.arrays("block_3")["block_3/conv_2/kernel"].all()  # a fault in between
        raise RuntimeError
    assert all(same_weights(arrays, network.arrays(name)) is None for name, arrays in before.items())


def test_run_folder_is_not_touched(finished):
    before = weights(finished.workdir), {path: path.stat().st_mtime_ns for path in finished.workdir.rglob("*")}
    sensitivity_of(finished.workdir, "random", [0.5], components=["head_3"])
    same_weights(before[0], weights(finished.workdir))
    assert before[1] == {path: path.stat().st_mtime_ns for path in finished.workdir.rglob("*")}


def test_global_ranking_takes_the_weakest_of_all(opened):
    """Scores of each group are divided by their l2 norm first, as the recipe's `prune` does."""
    job, network, pipeline, strategy = opened
    probe = Probe(network, job.spec, strategy, pipeline.evaluation("validation", BATCH))
    groups = probe.selections([ALL])[0][ALL]
    scores = {item.label: float(i + 1) for group in groups for i, item in enumerate(group.items)}
    entries = []
    for group in groups:
        norm = np.sqrt(sum((i + 1) ** 2 for i in range(len(group.items))))
        entries += [((i + 1) / norm, item.label) for i, item in enumerate(group.items)]
    size = len(entries)  # 4 + 6 + 6 + 6: the filters of a sum go together
    assert size == 22
    entries.sort()
    assert probe.weakest(0.5, groups, scores, "global") == {label for _, label in entries[: size // 2]}


def test_unfinished_run_counts_up_to_its_deepest_head(opened):
    """block_3 is not trained yet: what block_2 loses may go out of it too, and nothing behind head_2 is scored or counted."""
    job, _, pipeline, strategy = opened
    network = Network(job.architecture, seed=4)
    network.facts = replace(network.facts, depths=[1, 2])
    probe = Probe(network, job.spec, strategy, pipeline.evaluation("validation", BATCH))
    groups, skipped = probe.selections(None)
    assert (probe.depth, probe.losses, skipped) == (2, ["head_1", "head_2"], [])
    assert list(groups) == ["block_1", "block_2", "head_2", ALL]
    scores = probe.scores("taylor_weight", groups, pipeline.evaluation("train", BATCH, 32), 0)
    point = probe.point(0.5, groups["block_2"], scores, "layer")
    assert (point["filters_removed"], point["filters"]) == (3, 6)
    # Left: block_1 4 * 9 + 8, block_2 144 * 3 + 6, head_2 3 inputs: 27 * 6 kernel, two batch norms of 6, dense 24 * 10 + 10.
    assert point["parameters_share"] == pytest.approx((44 + 438 + 27 * 6 + 24 + 250) / (44 + 876 + 598))
    removed = probe.weakest(0.5, groups["block_2"], scores, "layer")
    smaller, _ = remove_filters(network, job.spec, probe.coupling, removed)
    scored = Probe(smaller, job.spec, strategy, pipeline.evaluation("validation", BATCH))(frozenset())
    assert point["loss"] == pytest.approx(scored["loss"], abs=1e-6) and point["top1"] == scored["top1"]


def test_two_devices_give_the_same(result, finished):
    """Silent channels are silent, and weights restored, on every device."""
    both = sensitivity_of(finished.workdir, "magnitude_l2", [0.25, 0.5], components=["block_1"], strategy=two_devices())
    for one, two in zip(curve_of(result, "magnitude_l2", "block_1"), both["curves"][0]["points"], strict=True):
        assert two == pytest.approx(one, abs=1e-6)
    assert both["baseline"] == pytest.approx(result["baseline"], abs=1e-6)


def test_fewer_images(finished):
    result = sensitivity_of(finished.workdir, ["random"], [0.5], "test", components=["head_3"], examples=20)
    assert (result["examples"], result["part"]) == (20, "test")
    assert (20 * result["baseline"]["top1"]) % 1 == pytest.approx(0, abs=1e-6)


FAULTS = [
    ({"importance": ["taylor_activaton"]}, "importance: received 'taylor_activaton'.*did you mean 'taylor_activation'"),
    ({"importance": []}, "importance: received none"),
    (
        {"components": ["block_9"]},
        "components: received 'block_9'; allowed: block_1, block_2, block_3, head_3, all; did you mean",
    ),
    ({"components": ["head_1"]}, "components: received 'head_1'"),  # says nothing at the last head
    ({"components": ["block_2"]}, "block_2: its filters are summed with those of block_3"),
    ({"shares": [0.5, 1.0]}, "shares: received 1; allowed: above 0 and below 1"),
    ({"shares": [0.0]}, "shares: received 0; allowed"),
    ({"shares": [float("nan")]}, "shares: received nan"),
    ({"shares": []}, "shares: received none"),
    ({"part": "tests"}, "part: received 'tests'; allowed: test, validation, train; did you mean 'test'"),
    ({"ranking": "globl"}, "ranking: received 'globl'.*did you mean 'global'"),
    ({"images": 0}, "images: received 0; allowed: 1 or more"),
    ({"examples": -1}, "examples: received -1"),
]


@pytest.mark.parametrize(("arguments", "message"), FAULTS)
def test_bad_arguments(finished, arguments, message):
    with pytest.raises(InputError, match=message):
        sensitivity_of(finished.workdir, **arguments)


def test_runs_that_cannot_be_used(tmp_path, files):
    with pytest.raises(WorkdirError, match="no such run folder"):
        sensitivity_of(tmp_path / "nowhere")
    run = train_spec(*files, ["strategy=end_to_end", "training.epochs=1", "data.validation=0", "training.keep=last"],
                     tmp_path / "run", quiet=True).workdir  # fmt: skip
    with pytest.raises(InputError, match="part 'validation' holds no images; allowed: train, test"):
        sensitivity_of(run)
    result = sensitivity_of(run, ["random"], [0.5], "test", components=["head_3"])
    assert result["losses"] == ["head_3"] and len(result["curves"]) == 1
    for path in (run / "checkpoints").rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(CheckpointError, match="nothing is trained yet"):
        sensitivity_of(run, part="test")


def test_files_and_picture(result, tmp_path):
    for name, criteria in (("one", ["magnitude_l2"]), ("two", ["magnitude_l2", "taylor_activation"])):
        part = {**result, "curves": [curve for curve in result["curves"] if curve["criterion"] in criteria]}
        data, picture = write_sensitivity(tmp_path / name, part)
        assert json.loads(data.read_text()) == part and Image.open(picture).format == "PNG"
        assert sorted(path.name for path in (tmp_path / name).rglob("*")) == ["plots", "sensitivity.json", "sensitivity.png"]
    old = picture.read_bytes()
    write_sensitivity(tmp_path / "two", {**part, "curves": part["curves"][:1]})  # files that are there are replaced
    assert len(json.loads(data.read_text())["curves"]) == 1 and picture.read_bytes() != old
    data.write_text('{"curves": [{}]}')
    with pytest.raises(WorkdirError, match="damaged"):
        plot_sensitivity(tmp_path / "two")
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="is a file; allowed: a folder"):
        write_sensitivity(tmp_path / "file", result)


def test_command(command, finished, tmp_path):
    wanted = ("--importance", "random,magnitude_l1", "--importance", "apoz", "--shares", "0.5,.25", "--components", "block_1,all")
    arguments = ("sensitivity", finished.workdir, *wanted, "--images", 40, "--out", tmp_path / "out")
    code, out, err = command(*arguments, "--json")
    answer = json.loads(out.splitlines()[-1])
    assert code == 0 and {curve["criterion"] for curve in answer["curves"]} == {"random", "magnitude_l1", "apoz"}
    assert [point["share"] for point in answer["curves"][0]["points"]] == [0.25, 0.5]
    assert answer["files"] == [str(tmp_path / "out/sensitivity.json"), str(tmp_path / "out/plots/sensitivity.png")]
    assert len([line for line in err.splitlines() if "top-1" in line]) == 6 and "random, block_1: top-1" in err
    code, out, _ = command("sensitivity", finished.workdir, "--shares", "0.5", "--out", tmp_path / "out")
    assert code == 0 and "not alone: block_2" in out and "-50 %" in out
    rows = [line.split("│")[1:5] for line in out.splitlines() if line.startswith("│")]
    assert [row[0].strip() for row in rows][-1] == ALL
    assert [float(row[3]) for row in rows[:-1]] == sorted(float(row[3]) for row in rows[:-1])  # what loses most comes first
    for bad, message in ((("--shares", "half"), "--shares: received 'half'"), (("--shares", "1.5"), "shares: received 1.5"),
                         (("--out", finished.workdir / "run.json"), "is a file")):  # fmt: skip
        code, _, err = command("sensitivity", finished.workdir, *bad)
        assert code == 2 and message in err
    assert not (finished.workdir / "sensitivity.json").exists()


@pytest.mark.slow
def test_two_devices_measure_what_one_does(finished):
    one, two = (
        sensitivity_of(finished.workdir, ["taylor_activation"], [0.5], components=["block_1"], devices=devices)
        for devices in (None, "2")
    )
    assert two["baseline"]["top1"] == one["baseline"]["top1"] and two["baseline"]["loss"] == pytest.approx(
        one["baseline"]["loss"]
    )
    (point_one,), (point_two,) = (found["curves"][0]["points"] for found in (one, two))
    assert point_two["top1"] == point_one["top1"] and point_two["loss"] == pytest.approx(point_one["loss"], rel=1e-5)
