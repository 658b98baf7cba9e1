"""Early exit: the curve by hand, on a real run, and what it costs."""

import json
import shutil
import signal

import numpy as np
import pytest
from conftest import without_time
from PIL import Image

import kerasgreedy
from kerasgreedy.analysis.anytime import NEVER, THRESHOLDS, anytime_of, exit_costs, exit_curve
from kerasgreedy.errors import InputError, Stopped, WorkdirError
from kerasgreedy.reports.anytime_plot import plot_anytime
from kerasgreedy.runs.open_run import open_job, open_pipeline, trained_network
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.train.entry_points import resume_run, train_spec
from kerasgreedy.train.evaluating import evaluate_run
from kerasgreedy.train.progress import Reporter

# Images of 8x8x1: convolution 1 -> 4, head 4 -> 4 and dense 2*2*4 -> 10; at 4x4 16 -> 6; twice 6 -> 6; heads 6 -> 6 and dense.
BLOCKS = [64 * 9 * 4, 16 * 9 * 16 * 6, 2 * 16 * 9 * 6 * 6]
HEADS = [64 * 9 * 4 * 4 + 160, 16 * 9 * 6 * 6 + 240, 16 * 9 * 6 * 6 + 240]
ALONE = [sum(BLOCKS[:depth]) + HEADS[depth - 1] for depth in (1, 2, 3)]
TOGETHER = [sum(BLOCKS[:depth]) + sum(HEADS[:depth]) for depth in (1, 2, 3)]

CONFIDENCE = [[0.9, 0.5, 0.6], [0.4, 0.8, 0.3], [0.3, 0.2, 0.1], [0.6, 0.95, 1.0]]
RIGHT = [[True, False, True], [False, True, False], [False, False, True], [False, True, True]]


@pytest.fixture(scope="module")
def result(finished):
    return anytime_of(finished.workdir)


def test_curve_by_hand():
    """Depths 1, 2 and 4; leaving there costs 10, 25 and 60."""
    points = exit_curve(CONFIDENCE, RIGHT, [1, 2, 4], [10, 25, 60], [0.0, 0.6, 0.9, NEVER])
    assert [point["threshold"] for point in points] == [0.0, 0.6, 0.9, NEVER]
    # At 0.6 the first and the last image leave at depth 1 (0.6 is enough), the second at 2; the third is sure nowhere.
    # At 0.9 the last leaves at 2, and the second goes to the end, where it is wrong.
    assert [point["top1"] for point in points] == [0.25, 0.75, 0.75, 0.75]
    assert [point["depth"] for point in points] == [1, (1 + 2 + 4 + 1) / 4, (1 + 4 + 4 + 2) / 4, 4]
    assert [point["multiply_adds"] for point in points] == [10, (10 + 25 + 60 + 10) / 4, (10 + 60 + 60 + 25) / 4, 60]
    shares = [[leaving["share"] for leaving in point["exits"]] for point in points]
    assert shares == [[1, 0, 0], [0.5, 0.25, 0.25], [0.25, 0.25, 0.5], [0, 0, 1]]
    assert [[leaving["top1"] for leaving in point["exits"]] for point in points] == [
        [0.25, None, None], [0.5, 1, 1], [1, 1, 0.5], [None, None, 0.75]
    ]  # fmt: skip
    assert [leaving["depth"] for leaving in points[0]["exits"]] == [1, 2, 4]


def test_curve_image_by_image():
    """A large random table against a loop over images."""
    rng = np.random.default_rng(0)
    sure, right = rng.random((500, 4), np.float32), rng.random((500, 4)) < 0.6
    costs = [3.0, 5.0, 9.0, 20.0]
    for point in exit_curve(sure, right, [1, 2, 3, 5], costs, [0.1, 0.5, 0.77, 0.99]):
        exits = [next((i for i in range(4) if row[i] >= point["threshold"]), 3) for row in sure.tolist()]
        assert point["top1"] == pytest.approx(sum(right[n][i] for n, i in enumerate(exits)) / 500, abs=1e-12)
        assert point["multiply_adds"] == pytest.approx(sum(costs[i] for i in exits) / 500, abs=1e-12)
        assert point["depth"] == pytest.approx(sum([1, 2, 3, 5][i] for i in exits) / 500, abs=1e-12)


def test_certainty_in_float32():
    """The threshold is rounded as the confidence is; 1 lets out what is 1 after rounding, `never` nothing."""
    sure = [[np.float32(0.9), 0.0], [1 - 1e-9, 0.0], [1 - 1e-7, 0.0]]
    right = [[True, False]] * 3
    points = exit_curve(sure, right, [1, 2], [1, 2], [0.9, 1.0, NEVER])
    assert [point["exits"][0]["share"] for point in points] == [1, pytest.approx(1 / 3), 0]
    assert [point["top1"] for point in points] == [1, pytest.approx(1 / 3), 0]


def test_costs_by_hand(finished):
    arch = finished.network.architecture
    assert exit_costs(arch, [1, 2, 3]) == (ALONE, TOGETHER)
    # Only the heads at 1 and 3 are trained: that at 2 is not asked, but its block is on the way.
    assert exit_costs(arch, [1, 3]) == ([ALONE[0], ALONE[2]], [TOGETHER[0], sum(BLOCKS) + HEADS[0] + HEADS[2]])
    assert arch.multiply_adds == ALONE[-1]


def test_what_it_says(result, finished):
    assert set(result) == {"workdir", "spec", "part", "examples", "depths", "ensemble", "points"}
    assert (result["spec"], result["part"], result["examples"]) == ("tiny", "test", 50)
    assert [point["threshold"] for point in result["points"]] == list(THRESHOLDS)
    assert set(result["points"][0]) == {"threshold", "top1", "depth", "multiply_adds", "multiply_adds_share", "exits"}
    assert [entry["multiply_adds"] for entry in result["depths"]] == ALONE
    assert [entry["multiply_adds_share"] for entry in result["depths"]] == [cost / ALONE[-1] for cost in ALONE]
    assert result["ensemble"]["multiply_adds"] == TOGETHER[-1] and result["ensemble"]["on"] == "logits"
    for point in result["points"]:
        shares = [leaving["share"] for leaving in point["exits"]]
        assert sum(shares) == pytest.approx(1)
        assert point["multiply_adds"] == pytest.approx(np.dot(shares, TOGETHER))
        assert point["multiply_adds_share"] == pytest.approx(np.dot(shares, TOGETHER) / ALONE[-1])


def test_both_ends_are_the_first_and_the_last_depth(result, finished):
    """All of 50 images in batches of 32, the fill-up not counted."""
    scores = evaluate_run(finished.workdir)
    assert [entry["top1"] for entry in result["depths"]] == [entry["top1"] for entry in scores["depths"]]
    assert result["ensemble"]["top1"] == scores["ensemble"]["top1"]
    first, last = result["points"][0], result["points"][-1]
    assert (first["threshold"], first["top1"], first["depth"]) == (0, scores["depths"][0]["top1"], 1)
    assert (last["threshold"], last["top1"], last["depth"]) == (NEVER, scores["depths"][2]["top1"], 3)
    assert (first["multiply_adds"], last["multiply_adds"]) == (TOGETHER[0], TOGETHER[-1])


def test_run_against_numpy(finished):
    """Probabilities in float64, image by image, at thresholds that no confidence is near."""
    folder = Workdir.open(finished.workdir)
    job, network = trained_network(folder, open_job(folder, None))
    sure, right = [], []
    for images, labels, given in open_pipeline(job, None, folder).evaluation("validation", 7).as_numpy_iterator():
        logits = np.stack([np.asarray(z, np.float64) for z in network.logits(images)], 1)[given > 0]
        powers = np.exp(logits)
        sure += (powers / powers.sum(-1, keepdims=True)).max(-1).tolist()
        right += (logits.argmax(-1) == labels[given > 0, None]).tolist()
    ordered = np.sort(np.ravel(sure))
    middles = [float((ordered[i] + ordered[i + 1]) / 2) for i in (20, 48, 70)]  # of 32 * 3
    result = anytime_of(finished.workdir, "validation", thresholds=middles[::-1], batch_size=9)
    assert (result["examples"], [point["threshold"] for point in result["points"]]) == (32, middles)
    assert [entry["confidence"] for entry in result["depths"]] == pytest.approx(np.mean(sure, 0).tolist(), abs=1e-6)
    for point in result["points"]:
        exits = [next((i for i in range(3) if row[i] >= point["threshold"]), 2) for row in sure]
        assert [leaving["share"] for leaving in point["exits"]] == [exits.count(i) / 32 for i in range(3)]
        assert point["top1"] == sum(right[n][i] for n, i in enumerate(exits)) / 32


@pytest.mark.slow
def test_pruned_run_costs_what_is_left(pruned):
    result = anytime_of(pruned.workdir, thresholds=[0, NEVER])
    arch = pruned.network.architecture
    scores = evaluate_run(pruned.workdir)["depths"]
    assert [entry["top1"] for entry in result["depths"]] == [entry["top1"] for entry in scores]
    assert [point["top1"] for point in result["points"]] == [scores[0]["top1"], scores[-1]["top1"]]
    # 2 of 4 filters of block_1 are left, and its head is 4x4x2 -> 10; the last head is the new one.
    assert result["depths"][0]["multiply_adds"] == 64 * 9 * 2 + 320
    assert result["depths"][-1]["multiply_adds"] == arch.multiply_adds
    assert result["points"][-1]["multiply_adds"] == arch.multiply_adds + sum(head.multiply_adds for head in arch.heads[:-1])


def test_runs_that_are_trained_in_part(tmp_path, files, monkeypatch):
    place = {"phase": 0}

    def stop(self, phase, epoch, *rest):
        if (phase.index, epoch) == (place["phase"], 1):
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Reporter, "epoch", stop)
    with pytest.raises(Stopped):
        train_spec(*files, workdir=tmp_path / "run", quiet=True)
    with pytest.raises(InputError, match=r"only one depth \(1\) is trained so far; go on with it: train --resume"):
        anytime_of(tmp_path / "run")
    place["phase"] = 1
    with pytest.raises(Stopped):
        resume_run(tmp_path / "run", quiet=True)
    result = anytime_of(tmp_path / "run")
    assert [entry["depth"] for entry in result["depths"]] == [1, 2]
    assert result["points"][-1]["multiply_adds"] == TOGETHER[1] and result["depths"][-1]["multiply_adds_share"] == 1


@pytest.mark.slow
def test_one_depth_and_empty_part(tmp_path, files):
    run = train_spec(*files, ["strategy=end_to_end", "training.epochs=1"], tmp_path / "whole", quiet=True).workdir
    message = r"nothing to exit from: only one depth \(3\) is trained in this run; strategies greedy, decoupled"
    with pytest.raises(InputError, match=message):
        anytime_of(run)
    run = train_spec(*files, ["strategy=decoupled", "training.epochs=1", "data.validation=0", "training.keep=last"],
                     tmp_path / "all", quiet=True).workdir  # fmt: skip
    with pytest.raises(InputError, match="part 'validation' holds no images; allowed: train, test"):
        anytime_of(run, "validation")
    assert anytime_of(run, "train", thresholds=[0.5])["examples"] == 160


FAULTS = [
    ({"thresholds": [0.5, 1.01]}, "thresholds: received 1.01; allowed: numbers from 0 to 1, and 'never'; no image leaves"),
    ({"thresholds": [-0.1]}, "thresholds: received -0.1; allowed: numbers from 0 to 1, and 'never'$"),
    ({"thresholds": [float("nan")]}, "thresholds: received nan"),
    ({"thresholds": ["nevr"]}, "thresholds: received 'nevr'.*did you mean 'never'"),
    ({"thresholds": []}, "thresholds: received none"),
    ({"part": "tests"}, "part: received 'tests'; allowed: test, validation, train; did you mean 'test'"),
    ({"batch_size": 0}, "batch_size: received 0; allowed: 1 or more"),
]


@pytest.mark.parametrize(("arguments", "message"), FAULTS)
def test_bad_arguments(finished, arguments, message):
    with pytest.raises(InputError, match=message):
        kerasgreedy.anytime_of(finished.workdir, **arguments)


def test_thresholds_are_sorted_and_counted_once(finished):
    result = anytime_of(finished.workdir, thresholds=[NEVER, 1, 0.5, 0, 0.5, NEVER])
    assert [point["threshold"] for point in result["points"]] == [0, 0.5, 1, NEVER]


def test_picture(result, tmp_path):
    assert plot_anytime(result, tmp_path / "new" / "curve.png") == tmp_path / "new" / "curve.png"
    image = Image.open(tmp_path / "new" / "curve.png")
    assert image.format == "PNG" and len(set(image.convert("RGB").getdata())) > 50
    with pytest.raises(InputError, match="is a folder"):
        plot_anytime(result, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="cannot be written"):
        plot_anytime(result, tmp_path / "file" / "curve.png")


def test_command(command, finished, result, tmp_path):
    picture = tmp_path / "curve.png"
    before = without_time(finished.workdir), sorted(finished.workdir.rglob("*"))
    code, out, _ = command("anytime", finished.workdir, "--plot", picture, "--json")
    assert code == 0 and Image.open(picture).format == "PNG"
    assert json.loads(out.splitlines()[-1]) == {**result, "plot": str(picture)}
    assert before == (without_time(finished.workdir), sorted(finished.workdir.rglob("*")))
    wanted = ("--threshold", "0.5", "--threshold", "never,0", "--part", "validation", "--batch-size", 16)
    code, out, _ = command("anytime", finished.workdir, *wanted, "--plot", picture)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    assert [row[0] for row in rows] == ["0", "0.5", "never", "depth 1", "depth 2", "depth 3", "ensemble of logits"]
    last = evaluate_run(finished.workdir, "validation")["depths"][2]["top1"]
    assert rows[2] == [
        "never",
        f"{100 * last:.2f}",
        "46.7k",
        f"{100 * TOGETHER[2] / ALONE[2]:.1f}",
        "3.00",
        "0.0",
        "0.0",
        "100.0",
    ]
    assert rows[5][1:4] == [f"{100 * last:.2f}", "31.9k", "100.0"]
    assert "depth 3 alone" in out and f"picture: {picture}" in out
    copy = shutil.copytree(finished.workdir, tmp_path / "copy")
    assert command("anytime", copy, "--threshold", "0.5")[0] == 0
    assert Image.open(copy / "plots" / "anytime.png").format == "PNG"
    for bad, message in ((("--threshold", "half"), "--threshold: received 'half'"), (("--threshold", "2"), "received 2;"),
                         (("--plot", tmp_path), "is a folder"), (("--plot", "x.pdf"), "a name that ends in .png"),
                         (("--part", "tset"), "did you mean 'test'")):  # fmt: skip
        code, _, err = command("anytime", finished.workdir, *bad)
        assert code == 2 and message in err
