"""The benchmarks measure what they say: the same function in both frameworks, and the counts against hand-made ones."""

import importlib.util
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT, some

sys.path.insert(0, str(ROOT))  # the benchmarks are run from the checkout and not installed

from benchmarks.costs import END_TO_END, Work
from benchmarks.figures import Machine, harmonic_mean, line_fit, spread
from benchmarks.specs import architecture_of, deep_spec, open_spec

needs_torch = pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="pip install -e '.[bench]'")


def tiny(name):
    """A shipped SimCNN with a few filters, on images of 8x8."""
    return {**open_spec(name, 4), "input_shape": [8, 8, 3]}


@needs_torch
@pytest.mark.parametrize("name", some(slow=["simcnn_k1_cifar", "simcnn_k3_cifar"]))
def test_our_step_and_pytorch_s_give_the_same_losses_at_every_depth(name):
    from benchmarks.throughput import check

    spec = tiny(name)
    result = check(spec, range(1, len(spec["blocks"]) + 1), batch=16)
    assert result["same"] is True
    for row in result["depths"]:
        losses = row["ours"]
        assert row["difference"] <= 1e-4 and len(losses) == 20
        assert losses[16] < losses[0] - 1e-3  # the same batch, 16 steps later


@needs_torch
@pytest.mark.slow
def test_the_check_sees_a_missing_weight_decay():
    from benchmarks.throughput import check

    result = check(tiny("simcnn_k3_cifar"), [2], 16, {"learning_rate": 1e-4, "weight_decay": 0.0})
    assert result["same"] is False


def test_multiply_adds_of_a_step_by_hand():
    """k = 1, 4 filters, images 8x8x3, head: mean to 2x2, 10 classes."""
    arch = architecture_of(deep_spec(3, 4, 8, k=1))
    first, other, head = 8 * 8 * 9 * 3 * 4, 8 * 8 * 9 * 4 * 4, 2 * 2 * 4 * 10
    assert Work.of(arch, 1).multiply_adds == 2 * first + 3 * head  # no gradient of the images
    assert Work.of(arch, 3).multiply_adds == first + other + 2 * other + 3 * head
    assert Work.of(arch, 3, cached=True).multiply_adds == 2 * other + 3 * head
    assert Work.of(arch, END_TO_END).multiply_adds == 2 * first + 3 * 2 * other + 3 * head


def test_stored_activations_by_hand():
    """k = 1: input, output of relu, pooled vector. k = 3: inputs of conv and batch norm, outputs of relu, counted once."""
    flat = architecture_of(deep_spec(3, 4, 8, k=1))
    image, map_, pooled = 8 * 8 * 3, 8 * 8 * 4, 2 * 2 * 4
    assert Work.of(flat, 1).stored_bytes("float32") == 4 * (image + map_ + pooled)
    assert Work.of(flat, 3).stored_bytes("float32") == 4 * (map_ + map_ + pooled)
    assert Work.of(flat, END_TO_END).stored_bytes("mixed_bfloat16") == 2 * (image + 3 * map_ + pooled)
    normed = architecture_of(deep_spec(3, 4, 8, k=3))
    wide, pooled = 8 * 8 * 8, 2 * 2 * 8
    # block: input, before batch norm, after relu; two hidden layers the same but for their input; pooled, normed
    assert Work.of(normed, 2).stored_bytes("float32", 2) == 2 * (3 * map_ + 2 * 2 * wide + pooled + pooled)


@needs_torch
@pytest.mark.slow
def test_convex_steps_are_the_same_everywhere_and_are_timed():
    from benchmarks.convex import check, measure
    from benchmarks.convex_problem import Problem

    problem = Problem(side=10, channels=2, classes=3, gates=5, kernel=3, stride=2, batch=20, part=5, learning_rate=0.1)
    names = ["ours", "ours, naive", "torch", "torch, naive"]
    found = check(problem, names)
    assert found["same"] is True and found["losses"]["ours"][-2] < found["losses"]["ours"][0] - 1e-3
    rows = measure(problem, names, rounds=2, steps=1)["contenders"]
    assert list(rows) == names and all(row["gflops"] > 0 for row in rows.values())


@needs_torch
@pytest.mark.slow
def test_surfaces_are_the_same_everywhere_and_are_timed():
    from benchmarks.landscape import check, measure
    from benchmarks.landscape_problem import Problem

    problem = Problem(side=8, channels=2, widths=(3, 4), classes=3, images=20)
    assert problem.multiply_adds == 64 * 3 * 2 * 9 + 16 * 4 * 3 * 9 + 4 * 3
    names = ["ours", "model.evaluate", "torch"]
    found = check(problem, names)
    assert found["same"] is True and len(set(found["losses"]["ours"])) == 5
    rows = measure(problem, names, rounds=2, steps=1)["contenders"]
    assert list(rows) == names and all(row["gflops"] > 0 for row in rows.values())


def test_multiply_adds_of_a_convex_step_by_hand():
    """16 patches of 18 numbers, 5 gates, 3 classes."""
    from benchmarks.convex_problem import Problem

    problem = Problem(side=9, channels=2, classes=3, gates=5, kernel=3, stride=2)
    assert (problem.patches, problem.length) == (16, 18)
    assert problem.multiply_adds("summed") == 2 * 16 * 5 * 18 + 2 * 5 * 18 * 3
    assert problem.multiply_adds("naive") == 16 * 5 * 18 + 2 * 16 * 5 * 18 * 3


def test_statistics():
    assert harmonic_mean([1.0, 3.0]) == 1.5
    assert spread(range(11)) == {"median": 5.0, "p10": 1.0, "p90": 9.0}
    fit = line_fit([32, 64, 128], [5 + 0.5 * n for n in (32, 64, 128)])
    np.testing.assert_allclose([fit["slope"], fit["constant"]], [0.5, 5])


POOLED = {  # 180 and 27 units, and a pool of 45 outputs whose window has 9 places: 4 bits each
    "name": "pooled",
    "input_shape": [6, 6, 3],
    "blocks": [{"layers": [{"conv": 5}, {"max_pool": 3, "stride": 2, "padding": "same"}]}, {"conv": 3}],
    "auxiliary_head": {"pool_to": 3},
}


def test_room_of_masks_by_hand():
    """Each layer, and each bit of a pool's places, begins a new byte."""
    from benchmarks.alternation import room

    sizes = room(POOLED, 50_000)
    stored = {"layers": 2, "units": 207, "bytes_an_image": 23 + 4, "bytes": 27 * 50_000, "float32_bytes": 4 * 207 * 50_000}
    pools = {"layers": 3, "units": 252, "bytes_an_image": 27 + 4 * 6, "bytes": 51 * 50_000, "float32_bytes": 4 * 252 * 50_000}
    assert sizes == {"stored": {**stored, "ratio": 4 * 207 / 27}, "stored-pools": {**pools, "ratio": 4 * 252 / 51}}
    assert list(room({**POOLED, "blocks": [{"conv": 5}]}, 10)) == ["stored"]


def test_masked_steps_are_timed_beside_plain_ones():
    from benchmarks.alternation import measure, ratios

    ways = ["stored-pools", "shared", "shared-majority"]
    found = measure(POOLED, ways, batch=4, precision="float32", rounds=2, steps=1, stored=20)
    assert list(found["step"]) == ways and list(found["refresh"]) == ways[:1] and list(found["seconds"]) == ["plain", *ways]
    assert all(clock > 0 and len(pairs) == 2 for pairs in found["seconds"].values() for clock, _ in pairs)
    own = ratios([(3.0, 1.0), (4.0, 4.0), (2.0, 3.0)], [(2.0, 1.0), (2.0, 2.0), (2.0, 1.0)])
    assert own["clock"] == {"median": 1.5, "least": 1.0, "most": 2.0}
    assert own["processors"] == {"median": 2.0, "least": 1.0, "most": 3.0}


def test_time_of_ended_children_is_not_taken_for_company():
    """A child that works for two seconds is ours; what is left is others', who may be there."""
    machine, start = Machine(), time.monotonic()
    work = "import time\nend = time.process_time() + 2\nwhile time.process_time() < end: pass"
    subprocess.run([sys.executable, "-c", work], check=True)
    facts = machine.facts()
    elapsed = time.monotonic() - start
    assert 0 <= facts["cores_used_by_others"] * elapsed <= os.cpu_count() * elapsed - 1.5
    assert facts["numpy"] == np.__version__


def record(phase, epoch, head, accuracy, time, split="validation"):
    return {"phase": phase, "epoch": epoch, "head": head, "accuracy": accuracy, "time": time, "split": split}


def test_time_to_an_accuracy_counts_the_epochs_of_all_phases():
    from benchmarks.end_to_accuracy import timeline

    path = [
        record(0, 1, "head_1", 0.9, 101.0, split="train"),
        record(0, 1, "head_1", 0.3, 102.0),
        record(0, 2, "head_1", 0.4, 104.0),
        record(1, 0, "head_2", 0.9, 104.5),  # the start of a phase, before it trained
        record(1, 1, "head_2", 0.6, 107.0),
        record(1, 2, "head_2", 0.5, 109.0),
    ]
    found = timeline(path, 100.0, 0.5)
    assert found["reached"] == {"seconds": 7.0, "epochs": 3, "head": "head_2", "accuracy": 0.6} == found["best"]
    assert timeline(path, 100.0, 0.7)["reached"] is None
    together = [record(0, 1, "head_1", 0.3, 102.0), record(0, 1, "head_2", 0.6, 102.0)]
    assert timeline(together, 100.0, 0.5)["reached"]["epochs"] == 1


@pytest.fixture
def photographs(tmp_path):
    """Two classes of noise, 40 and 10 images of each."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 10)):
        for name in ("cat", "dog"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)).save(folder / f"{number:02}.png")
    return tmp_path / "images"


def test_a_linked_part_holds_the_first_images_of_each_class(photographs, tmp_path):
    from benchmarks.runs import linked_part

    part = linked_part(photographs, tmp_path / "part", 60, None)
    assert sorted(file.name for file in (part / "train/dog").iterdir()) == [f"{number:02}.png" for number in range(30)]
    assert len(list((part / "test/cat").iterdir())) == 10
    assert (part / "train/cat/07.png").read_bytes() == (photographs / "train/cat/07.png").read_bytes()


@needs_torch
def test_the_pytorch_script_splits_as_we_do(photographs):
    from benchmarks.torch_images import Images, OwnDraws
    from kerasgreedy.data.catalog import describe
    from kerasgreedy.data.loaders import open_data
    from kerasgreedy.data.pipeline import Pipeline
    from kerasgreedy.spec.recipe import Data

    data = Data(dataset=f"folder:{photographs}", validation=0.25)
    train, test = open_data(data, describe(data), (32, 32), 3)
    ours, theirs = Pipeline(train, test, data, (32, 32), seed=3), Images(photographs, 0.25, 3, OwnDraws(3))
    for part, (images, labels) in (("train", theirs.train), ("validation", theirs.validation)):
        np.testing.assert_array_equal(images, train.images[ours.parts[part]])
        np.testing.assert_array_equal(labels, train.labels[ours.parts[part]])
    np.testing.assert_allclose(theirs.mean, ours.mean, rtol=1e-4)
    np.testing.assert_allclose(theirs.deviation, ours.deviation, rtol=1e-4)


BATCHES = """
import sys
from pathlib import Path
import numpy as np
import torch
from benchmarks.torch_images import Images, OurDraws
images = Images(Path(sys.argv[1]), 0.25, 3, OurDraws(3))
batches = list(images.training(2, 1, 16, torch.contiguous_format))
np.savez(sys.argv[2], x=torch.stack([x for x, _ in batches]).permute(0, 1, 3, 4, 2), y=torch.stack([y for _, y in batches]))
"""


@needs_torch
def test_paired_batches_of_pytorch_are_ours(photographs, tmp_path):
    """Order, crops, flips and normalisation, pixel by pixel, of an epoch in the middle of a run."""
    from kerasgreedy.data.catalog import describe
    from kerasgreedy.data.loaders import open_data
    from kerasgreedy.data.pipeline import Pipeline
    from kerasgreedy.spec.recipe import Data

    file = tmp_path / "batches.npz"
    subprocess.run([sys.executable, "-c", BATCHES, str(photographs), str(file)], cwd=ROOT, check=True)
    augment = {"pad_crop": 4, "horizontal_flip": True}
    data = Data(dataset=f"folder:{photographs}", validation=0.25, augment=augment)
    pipeline = Pipeline(*open_data(data, describe(data), (32, 32), 3), data, (32, 32), seed=3)
    ours = list(pipeline.training(2, 1, 16).as_numpy_iterator())
    with np.load(file) as theirs:
        assert len(theirs["x"]) == len(ours) == 3
        for (images, labels), x, y in zip(ours, theirs["x"], theirs["y"], strict=True):
            np.testing.assert_array_equal(labels, y)
            np.testing.assert_allclose(images, x, atol=1e-3)


SPREADS = """
import json, sys
from benchmarks.specs import architecture_of, open_spec
from benchmarks.torch_simcnn import SimCNN, SimCNNNet
net = SimCNNNet(SimCNN.of(architecture_of(open_spec("simcnn_k1_cifar", 32))), initializer=sys.argv[1])
parts = {"block_3/conv_1": net.blocks[2][1], "head_3/dense_1": net.heads[2][-1]}
found = {f"{name}/{kind}": value for name, layer in parts.items() for kind, value in zip(("kernel", "bias"), layer.parameters())}
print(json.dumps({key: [float(value.std()), float(value.abs().max())] for key, value in found.items()}))
"""


@needs_torch
@pytest.mark.parametrize("initializer", ["pytorch", "he_normal"])
def test_both_sides_of_a_parity_begin_alike(initializer):
    """Deviation and bound of a convolution and a classifier; with he_normal the deviation of the convolution, see SimCNNNet."""
    from benchmarks.specs import open_spec, resolved
    from kerasgreedy.graph.architecture import architecture
    from kerasgreedy.network.build import Network

    done = subprocess.run([sys.executable, "-c", SPREADS, initializer], cwd=ROOT, capture_output=True, text=True, check=True)
    theirs = json.loads(done.stdout)
    spec = open_spec("simcnn_k1_cifar", 32)
    spec.setdefault("block_defaults", {})["initializer"] = initializer
    network = Network(architecture(resolved(spec)))
    ours = {key: network.arrays(key.partition("/")[0])[key] for key in theirs}
    conv = "block_3/conv_1/kernel"
    assert ours[conv].std() == pytest.approx(theirs[conv][0], rel=0.02)
    if initializer == "pytorch":
        assert ours["head_3/dense_1/kernel"].std() == pytest.approx(theirs["head_3/dense_1/kernel"][0], rel=0.05)
        assert all(np.abs(ours[key]).max() == pytest.approx(bound, rel=0.3) for key, (_, bound) in theirs.items())


def test_parity_of_means_by_hand():
    from benchmarks.parity import rows

    runs = {"ours": {"0": [50.0, 60.0], "1": [54.0, 60.0]}, "torch": {"0": [51.0, 58.0], "1": [51.0, 62.0]}}
    one, two = rows({"top1": runs})
    assert one["ours"] == (52.0, pytest.approx(8**0.5)) and one["torch"] == (51.0, 0.0)
    assert one["from_torch"] == (1.0, pytest.approx(2.0))  # the root of 8 / 2
    assert two["from_torch"] == (0.0, pytest.approx(2.0))
    assert "from_paired" not in one
    pairs = {"1": [53.0, 60.5], "2": [0.0, 0.0], "0": [50.0, 60.5]}  # differences 1 and 0; -0.5 twice
    one, two = rows({"top1": {**runs, "paired": pairs}})
    assert one["from_paired"] == (0.5, pytest.approx(0.5)) and two["from_paired"] == (-0.5, 0.0)
    assert one["from_torch"] == (1.0, pytest.approx(2.0))


@needs_torch
@pytest.mark.slow
def test_seeds_are_added_to_a_table_of_parity(photographs, tmp_path, monkeypatch, capsys):
    from benchmarks import parity

    out = tmp_path / "parity.json"
    words = ["--data", str(photographs), "--width", "2", "--epochs", "1", "--batch", "16", "--train-examples", "60"]
    for seeds, sides in (("1", "ours,torch"), ("0,1", "ours,torch,paired")):
        monkeypatch.setattr(
            sys, "argv", ["parity", *words, "--test-examples", "20", "--out", str(out), "--seeds", seeds, "--sides", sides]
        )
        parity.main()
        found = json.loads(out.read_text())["top1"]
        assert list(found) == sides.split(",") and all(sorted(runs) == seeds.split(",") for runs in found.values())
        assert all(len(depths) == 5 for depths in found["ours"].values())
    printed = capsys.readouterr().out
    assert printed.count("difference of the means") == 2 and printed.count("difference of pairs") == 1
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--batch", "8"])
    with pytest.raises(SystemExit, match="is of batch 16, and not 8"):
        parity.main()


@needs_torch
@pytest.mark.slow
def test_paired_runs_have_the_same_losses(photographs, tmp_path):
    """Epoch by epoch, in all phases and over drops of the rate; what is apart is the order of sums in float32."""
    from benchmarks.parity import AS_PYTORCH, INITIALIZER, start
    from benchmarks.runs import Setting, run

    setting = Setting("simcnn_k1_cifar", photographs, epochs=4, every=2, batch=8, width=4, seed=1, initializer=INITIALIZER)
    run(setting.ours(tmp_path / "ours", extra=AS_PYTORCH), tuned=False)
    first = start("simcnn_k1_cifar", 4, photographs, 1, tmp_path / "start.npz")
    run(setting.torch(tmp_path / "torch", paired=first), tuned=True)
    losses = {}
    for side in ("ours", "torch"):
        records = [json.loads(line) for line in (tmp_path / side / "metrics.jsonl").read_text().splitlines()]
        losses[side] = [r["loss"] for r in records if r["split"] == "train" and r["epoch"]]
    assert len(losses["ours"]) == 20 and losses["ours"][3] != pytest.approx(losses["ours"][0], abs=1e-3)
    assert losses["torch"] == pytest.approx(losses["ours"], abs=2e-4)


@needs_torch
@pytest.mark.slow
def test_a_whole_run_of_both(photographs, tmp_path):
    """Both commands work, evaluate after every epoch of every phase, and give a score for each depth."""
    from benchmarks.runs import Setting, run

    setting = Setting("simcnn_k1_cifar", photographs, epochs=2, every=1, batch=16, keep="best", width=2)
    for name, command in (("ours", setting.ours(tmp_path / "ours", views=1)), ("torch", setting.torch(tmp_path / "torch"))):
        run(command, tuned=name == "torch")
        records = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        epochs = [(r["phase"], r["epoch"]) for r in records if r["split"] == "validation" and r["epoch"]]
        assert epochs == [(phase, epoch) for phase in range(5) for epoch in (1, 2)]
        scores = json.loads((tmp_path / name / "results.json").read_text())["depths"]
        assert [score["depth"] for score in scores] == [1, 2, 3, 4, 5]
        assert all(0 <= score["top1"] <= 1 for score in scores)
