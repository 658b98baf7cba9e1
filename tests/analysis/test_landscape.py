"""Losses on lines and planes: right at each point, the same again, and what was measured is not measured twice."""

import csv
import json
import re
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import weights
from PIL import Image
from pydantic import ValidationError

from kerasgreedy.analysis.analysis import Ledger
from kerasgreedy.analysis.curvature import eigenvalues, trace
from kerasgreedy.analysis.landscape import surface
from kerasgreedy.analysis.running import analyse
from kerasgreedy.analysis.subject import run_subject
from kerasgreedy.errors import InputError, WorkdirError
from kerasgreedy.network.parameters import Parameters
from kerasgreedy.network.points import Points
from kerasgreedy.runs.holding import held
from kerasgreedy.spec.analyses_of_layers import Explain, Separability, Transfer, Visualize, WeightSizes
from kerasgreedy.spec.analyses_of_loss import Connect, Curvature, Landscape
from kerasgreedy.spec.analysis_door import ANALYSES
from kerasgreedy.train.entry_points import train_spec
from kerasgreedy.train.evaluating import evaluate_run

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def quadratic():
    """1/2 |X w - y|^2 / n in float64: Hessian X^T X / n."""
    x, y = RNG.normal(size=(40, 5)) * [3, 1, 1, 0.5, 0.1], RNG.normal(size=40)
    model = keras.Sequential([keras.Input((5,), dtype="float64"), keras.layers.Dense(1, use_bias=False, dtype="float64")])
    return Points(model, x, y, lambda out, label: tf.square(out[:, 0] - label) / 2), x, y


def test_surface_of_a_quadratic(quadratic):
    points, x, y = quadratic
    theta = points.parameters.read()
    directions, axes = RNG.normal(size=(2, 5)), [np.linspace(-1, 1, 5), np.linspace(-2, 1, 4)]
    losses, _ = surface(points, theta, directions, axes)
    for i, j in np.ndindex(5, 4):
        w = theta + axes[0][i] * directions[0] + axes[1][j] * directions[1]
        assert losses[i, j] == pytest.approx(((x @ w - y) ** 2).mean() / 2, rel=1e-12)


def test_spectrum_of_a_quadratic(quadratic):
    points, x, _ = quadratic
    hessian = x.T @ x / 40
    values = np.linalg.eigvalsh(hessian)
    for theta in (points.parameters.read(), np.ones(5)):
        found = eigenvalues(points, theta, 10, 1e-9)
        assert found.converged
        assert (found.largest, found.smallest) == pytest.approx((values[-1], values[0]), rel=1e-9)
        mean, error = trace(points, theta, 200)
        assert abs(mean - np.trace(hessian)) < 4 * error


def test_results_that_are_there_are_taken(quadratic, tmp_path):
    points, *_ = quadratic
    theta = points.parameters.read()
    direction, axis = np.ones(5), [np.linspace(-1, 1, 7)]
    whole, _ = surface(points, theta, [direction], axis)
    file = tmp_path / "measured.jsonl"
    surface(points, theta, [direction], axis, ledger=Ledger(file))
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:3]) + lines[3][:9])  # killed while the fourth was written
    asked = []
    evaluate = points.evaluate
    points.evaluate = lambda *given: asked.append(1) or evaluate(*given)
    counts = {"did": 0, "known": 0}

    def count(key):
        return lambda number: counts.__setitem__(key, counts[key] + number)

    again, _ = surface(points, theta, [direction], axis, ledger=Ledger(file), did=count("did"), known=count("known"))
    del points.evaluate
    assert np.array_equal(again, whole) and len(asked) == 4 and counts == {"did": 4, "known": 3}
    file.write_bytes(b"what\n")
    with pytest.raises(WorkdirError, match="damaged"):
        Ledger(file)


def test_a_loss_that_is_not_finite_is_no_number(quadratic, tmp_path):
    points, *_ = quadratic
    theta = points.parameters.read()
    file = tmp_path / "measured.jsonl"
    losses, _ = surface(points, theta, [np.full(5, 1e200)], [[0.0, 1.0]], ledger=Ledger(file))
    assert np.isfinite(losses[0]) and np.isnan(losses[1])
    assert np.isnan(surface(points, theta, [np.full(5, 1e200)], [[0.0, 1.0]], ledger=Ledger(file))[0][1])


@pytest.fixture(scope="module")
def plane(two_runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("plane") / "out"
    return out, analyse(Landscape(points=5, examples=100, span=0.5), two_runs, out, quiet=True)


def test_the_centre_is_the_evaluated_loss(two_runs):
    """On all test images: what `evaluate` says, to float32."""
    found = analyse(Landscape(along="line", points=3, part="test"), two_runs, two_runs[0].parent / "line", quiet=True).figures
    assert found["parts"] == ["test"] and found["statistics"] == "moving"
    for run, workdir in zip(found["runs"], two_runs, strict=True):
        (scores,) = evaluate_run(workdir)["depths"]
        assert run["axes"] == [[-1.0, 0.0, 1.0]] and run["test"]["examples"] == 50
        assert run["test"]["losses"][1] == pytest.approx(scores["loss"], rel=1e-6)
        assert run["test"]["accuracies"][1] == pytest.approx(scores["top1"], abs=1e-7)
        assert run["test_error"] == pytest.approx(1 - scores["top1"])


def test_each_point_is_the_network_with_these_weights(two_runs, plane):
    """The stored directions, put into the network's variables by hand."""
    out, finding = plane
    stored = np.load(out / "directions_1.npz")
    subject = run_subject(two_runs[1])
    sample = subject.sample("train", 100)
    run = finding.figures["runs"][1]
    parameters = Parameters(subject.model)
    np.testing.assert_array_equal(stored["theta"], parameters.read())
    for direction in (stored["d1"], stored["d2"]):
        for own, wanted in zip(parameters.filter_norms(direction), parameters.filter_norms(stored["theta"]), strict=True):
            if own is not None:
                np.testing.assert_allclose(own, wanted, rtol=1e-6)
    for i, j in ((0, 0), (2, 2), (4, 1)):
        theta = stored["theta"] + run["axes"][0][i] * stored["d1"] + run["axes"][1][j] * stored["d2"]
        for variable, tensor in zip(subject.model.trainable_variables, parameters.tensors, strict=True):
            variable.assign(tensor.of(theta))
        logits = np.asarray(subject.model(sample.images, training=False)[0], np.float64)
        loss = np.log(np.exp(logits).sum(1)) - logits[np.arange(100), sample.labels]
        assert run["train"]["losses"][i][j] == pytest.approx(loss.mean(), rel=1e-5)


def test_the_same_again_and_on_two_devices(two_runs, plane, tmp_path):
    _, finding = plane
    settings = Landscape(points=5, examples=100, span=0.5)
    again = analyse(settings, two_runs, tmp_path / "again", quiet=True).figures
    assert again == finding.figures  # bit for bit
    both = analyse(settings, two_runs, tmp_path / "both", devices="2", quiet=True).figures
    for one, two in zip(finding.figures["runs"], both["runs"], strict=True):
        np.testing.assert_allclose(two["train"]["losses"], one["train"]["losses"], rtol=1e-5)


def test_files(plane):
    out, finding = plane
    assert [file.name for file in finding.files] == ["landscape.json", "landscape.csv", "landscape.png", "surface.png"]
    assert json.loads((out / "landscape.json").read_text()) == finding.figures
    rows = list(csv.reader((out / "landscape.csv").read_text().splitlines()))
    assert rows[0][0] == "network" and [row[0] for row in rows[1:]] == ["one", "two"]
    assert all(np.array(Image.open(out / name)).std() > 5 for name in ("landscape.png", "surface.png"))


def test_runs_stay_as_they_are(two_runs, tmp_path):
    def files():
        return {path: path.read_bytes() for path in two_runs[0].rglob("*") if path.is_file() and "analyses" not in path.parts}

    before = files()
    analyse(Landscape(along="line", points=3, examples=20), two_runs[:1], quiet=True)
    assert files() == before
    assert (two_runs[0] / "analyses/landscape/landscape.png").is_file()


def test_results_of_other_settings_or_weights_stay(two_runs, tmp_path):
    few = Landscape(along="line", points=3, examples=20)
    out = tmp_path / "out"
    analyse(few, two_runs[:1], out, quiet=True)
    with pytest.raises(WorkdirError, match=r"other settings \(points 3, received 5\); --out another folder, or --overwrite"):
        analyse(Landscape(along="line", points=5, examples=20), two_runs[:1], out, quiet=True)
    with pytest.raises(WorkdirError, match="other weights"):
        analyse(few, two_runs[1:], out, quiet=True)
    found = analyse(Landscape(along="line", points=5, examples=20), two_runs[:1], out, overwrite=True, quiet=True).figures
    assert len(found["runs"][0]["train"]["losses"]) == 5
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    with pytest.raises(WorkdirError, match="holds no results of an analysis"):
        analyse(few, two_runs[:1], tmp_path / "mine", overwrite=True, quiet=True)


def test_the_line_between_two_runs(two_runs, tmp_path):
    """At both ends the runs themselves, in between the mean of the weights; batch norm re-estimated on training images."""
    found = analyse(Landscape(along="between", points=9), two_runs, tmp_path / "a", quiet=True).figures
    (run,) = found["runs"]
    axis = run["axes"][0]
    np.testing.assert_allclose([axis[0], axis[-1]], [-0.5, 1.5])
    assert 0.0 in axis and 1.0 in axis and 0.5 in axis
    assert found["parts"] == ["train", "test"] and found["statistics"] == "reestimated"
    one = run_subject(two_runs[0])
    train, test = one.sample("train", 1000), one.sample("test", 1000)
    points = {part: Points(one.model, s.images, s.labels, one.losses) for part, s in (("train", train), ("test", test))}
    theta, other = points["train"].parameters.read(), Parameters(run_subject(two_runs[1]).model).read()
    for place in (0.0, 0.5, 1.0):
        at = theta + np.float32(place) * (other - theta)
        statistics = points["train"].statistics(at)
        for part in ("train", "test"):
            expected = points[part].evaluate([at], [statistics])[0][0]
            assert run[part]["losses"][axis.index(place)] == pytest.approx(expected, rel=1e-4)
    # The end is the second run with its own statistics re-estimated, near what it is evaluated to.
    second = run_subject(two_runs[1])
    own = Points(second.model, train.images, train.labels, second.losses)
    expected = own.evaluate([other], [own.statistics(other)])[0][0]
    assert run["train"]["losses"][axis.index(1.0)] == pytest.approx(expected, rel=1e-4)
    with pytest.raises(InputError, match="needs two, the first at 0 and the second at 1; received 1"):
        analyse(Landscape(along="between"), two_runs[:1], tmp_path / "c", quiet=True)
    assert not list((tmp_path / "c").iterdir())  # nothing is left that would stand in the way


@pytest.mark.parametrize("points", [3, 5, 11, 51])
def test_axes_between_reach_as_far_as_asked(two_runs, points):
    from kerasgreedy.analysis.landscape import _between

    subjects = [run_subject(run) for run in two_runs]
    for span in (0.2, 0.5, 3.0):
        (axis,) = _between(subjects, Landscape(along="between", points=points, span=span)).axes
        assert len(axis) == points and axis == sorted(axis) and {0.0, 1.0} <= set(axis)
        if points > 10:
            np.testing.assert_allclose([axis[0], axis[-1]], [-span, 1 + span])


@pytest.mark.parametrize("words", ["objective", "layers", "data set"])
def test_weights_that_mean_something_else_have_no_line(two_runs, tmp_path, words):
    """Shapes alone are not enough."""
    changes = {"objective": "training.objective=squared_error", "layers": "blocks.0.activation=tanh"}
    change = changes.get(words, f"data.dataset=npz:{tmp_path / 'other.npz'}")
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 8, 8), np.uint8), np.arange(60, dtype=np.uint8) % 10
    np.savez(tmp_path / "other.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    few = ["training.epochs=1", "training.batch_size=8", "data.train_examples=40", "data.validation=5", "data.test_examples=20"]
    base = two_runs[0].parent
    sets = [change, "strategy=end_to_end", *few]
    train_spec(base / "tiny.yaml", base / "fast.yaml", sets, tmp_path / "other", quiet=True)
    expected = "of several kinds" if words == "objective" else f"differ in their {words}"
    with pytest.raises(InputError, match=expected):
        analyse(Landscape(along="between"), [two_runs[0], tmp_path / "other"], tmp_path / "line", quiet=True)
    with pytest.raises(InputError, match=f"differ in their {words}"):
        analyse(Connect(), [two_runs[0], tmp_path / "other"], tmp_path / "connect", quiet=True)


def test_the_path_of_training(two_runs, tmp_path):
    found = analyse(Landscape(along="path", points=6, examples=50), two_runs[:1], tmp_path / "out", quiet=True).figures
    (run,) = found["runs"]
    assert [place[0] for place in run["path"]] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(run["path"][-1][1:], 0, atol=1e-5)
    assert 0.5 < sum(run["variance"]) <= 1 + 1e-9
    for axis, places in zip(run["axes"], np.array(run["path"])[:, 1:].T, strict=True):
        margin = 0.2 * np.ptp(places)
        np.testing.assert_allclose([axis[0], axis[-1]], [places.min() - margin, places.max() + margin])


def test_a_path_that_changed_is_measured_anew(two_runs, tmp_path):
    """Fewer kept points make other axes: losses of the old places are not those of the new ones."""
    run = tmp_path / "run"
    shutil.copytree(two_runs[0], run)
    settings = Landscape(along="path", points=3, examples=30)
    analyse(settings, [run], tmp_path / "out", quiet=True)
    for epoch in (1, 2):
        (run / f"kept/phase_000_epoch_{epoch:06d}.safetensors").unlink()
    (run / "kept/phase_000_epoch_000000.safetensors").unlink()
    again = analyse(settings, [run], tmp_path / "out", quiet=True).figures
    fresh = analyse(settings, [run], tmp_path / "fresh", quiet=True).figures
    assert again == fresh


def test_a_folder_in_use_is_left_alone(two_runs, tmp_path):
    """A second process, even with --overwrite, neither deletes nor renames what the first one measures."""
    out = tmp_path / "out"
    analyse(Landscape(along="line", points=3, examples=20), two_runs[:1], out, quiet=True)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with held(out), pytest.raises(WorkdirError, match="another process is analysing into this folder"):
        analyse(Landscape(along="line", points=5, examples=20), two_runs[:1], out, overwrite=True, quiet=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_overwriting_leaves_nothing_of_before(two_runs, tmp_path):
    out = tmp_path / "out"
    analyse(Landscape(points=3, examples=20), two_runs[:1], out, quiet=True)
    assert (out / "surface.png").is_file()
    analyse(Landscape(along="line", points=3, examples=20), two_runs[:1], out, overwrite=True, quiet=True)
    assert not (out / "surface.png").exists()
    (out / "analysis.json").write_text("{")
    with pytest.raises(WorkdirError, match="damaged"):
        analyse(Landscape(along="line", points=3, examples=20), two_runs[:1], out, quiet=True)
    analyse(Landscape(along="line", points=3, examples=20), two_runs[:1], out, overwrite=True, quiet=True)


@pytest.mark.parametrize(
    ("settings", "given", "needed"),
    [
        (Landscape, {"along": "path", "seed": 1}, "--along plane or line"),
        (Curvature, {"span": 2.0}, "--surface"),
        (Connect, {"form": "bezier", "beads": 5}, "--form string"),
        (Separability, {"width": 3}, "--kinds cnn1 or cnn2"),
        (Transfer, {"data": "digits", "epochs": 3}, "--tuned-splits"),
        (Explain, {"methods": ["occlusion"], "steps": 3}, "--methods integrated_gradients"),
        (Visualize, {"what": "classes", "layer": "block_1/conv_1"}, "--what filters or maximize or activations"),
    ],
)
def test_options_that_cannot_act_are_refused(settings, given, needed):
    with pytest.raises(ValidationError, match=f"acts with {needed} only"):
        settings.model_validate(given)


def test_every_condition_names_fields_and_their_values():
    for cls in ANALYSES.classes:
        for key, (other, values) in cls.acts_with.items():
            assert {key, other} <= set(cls.model_fields)
            allowed = set(re.findall(r"'(\w+)'", str(cls.model_fields[other].annotation)))
            assert values is None or set(values) < allowed, (cls, key)


def test_a_run_that_kept_nothing_has_no_path(finished, tmp_path):
    with pytest.raises(InputError, match="train with keep_checkpoints: 20 in the recipe"):
        analyse(Landscape(along="path"), [finished.workdir], tmp_path / "out", quiet=True)


@pytest.mark.slow
def test_curvature_of_runs(two_runs, tmp_path):
    settings = Curvature(examples=101, batches=2, steps=30, draws=3, surface=3, tolerance=1e-3)
    found = analyse(settings, two_runs[:1], tmp_path / "out", quiet=True)
    (run,) = found.figures["runs"]
    assert run["examples"] == 100 and len(run["parts"]) == 2
    subject = run_subject(two_runs[0])
    sample = subject.sample("train", 101)
    points = Points(subject.model, sample.images[50:100], sample.labels[50:100], subject.losses)
    theta = points.parameters.read()
    ends = eigenvalues(points, theta, 30, 1e-3)
    assert run["parts"][1]["largest"] == pytest.approx(ends.largest, rel=1e-3)
    # The largest eigenvalue is the largest curvature along any direction; its vector reaches it.
    vector = ends.vectors[:, 0].astype(np.float32)
    assert vector @ points.hessian_product(theta, vector) == pytest.approx(ends.largest, rel=1e-2)
    values = [part["largest"] for part in run["parts"]]
    assert run["largest"] == pytest.approx([np.mean(values), np.std(values)])
    plane = run["plane"]
    whole = Points(subject.model, sample.images[:100], sample.labels[:100], subject.losses, 50)
    assert plane["largest"][1][1] == pytest.approx(eigenvalues(whole, theta, 30, 1e-3).largest, rel=1e-3)
    assert 0 <= plane["negative_share"] <= 1
    assert [file.name for file in found.files][-2:] == ["curvature.png", "convexity.png"]


def test_the_commands(two_runs, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, two = two_runs
    code, out, err = call(f"landscape {one} {two} --along line --points 3 --examples 20 --out here --json")
    assert code == 0
    found = json.loads(out.splitlines()[-1])
    assert found["analysis"] == "landscape" and found["settings"]["points"] == 3 and len(found["files"]) == 3
    code, out, err = call(f"curvature {one} --examples 20 --steps 5 --draws 0 --out there")
    assert code == 0 and "its error" in out and "there/curvature.json" in out
    for command, message in (
        (f"landscape {one} --points 4", "--points: received 4; allowed: an odd number"),
        (f"landscape {one} --along lines", "--along: received 'lines'; allowed: 'plane', 'line', 'between' or 'path'"),
        (f"landscape {one} --depth 1", "depth: received 1; allowed: a trained one"),
        (f"curvature {one} --examples 2 --batches 3", "--examples: received 2; allowed: batches (3) or more"),
        ("landscape nowhere", "nowhere"),
    ):
        code, out, err = call(command)
        assert code == 2 and message in err and out == "", err


def test_weights_of_runs(two_runs, tmp_path):
    found = analyse(WeightSizes(bins=11, reach=0.25), two_runs, tmp_path / "out", quiet=True)
    assert [file.name for file in found.files] == ["weights.json", "weights.csv", "weights.png"]
    for run, workdir in zip(found.figures["runs"], two_runs, strict=True):
        stored = weights(workdir)
        names = [name for name in stored if name.endswith("/kernel") and name.startswith(("block_", "head_3/"))]
        kernels = np.concatenate([stored[name].ravel() for name in names]).astype(np.float64)
        assert run["weights"] == kernels.size and run["norm"] == pytest.approx(
            np.linalg.norm(kernels.astype(np.float64)), rel=1e-6
        )
        assert run["histogram"] == np.histogram(kernels, np.linspace(-0.25, 0.25, 12))[0].tolist()
        assert run["above"]["0.5"] == pytest.approx((np.abs(kernels) > 0.5).mean())
        assert [entry["epoch"] for entry in run["norms"]] == [1, 2, 3, 4]
        trained = run_subject(workdir).model.trainable_variables
        norm = np.sqrt(sum(np.square(keras.ops.convert_to_numpy(v), dtype=np.float64).sum() for v in trained))
        assert run["norms"][-1]["norm"] == pytest.approx(norm, rel=1e-5)


@pytest.mark.slow
def test_a_path_where_heads_at_all_depths_trained_together(two_runs, tmp_path):
    """Kept files hold every head; those at other depths do not matter, and a smaller depth has its path too."""
    base = two_runs[0].parent
    sets = ["strategy=deep_supervision", "keep_checkpoints=3", "training.epochs=2", "training.keep=last"]
    train_spec(base / "tiny.yaml", base / "fast.yaml", sets, tmp_path / "run", quiet=True)
    for depth in (2, 3):
        settings = Landscape(along="path", points=3, examples=20, depth=depth)
        found = analyse(settings, [tmp_path / "run"], tmp_path / str(depth), quiet=True).figures
        assert [place[0] for place in found["runs"][0]["path"]] == [0, 1, 2]
