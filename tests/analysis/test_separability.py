"""Probes and transfer against scikit-learn by hand."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from kerasgreedy.analysis.running import analyse
from kerasgreedy.analysis.separability import answers, cnn_head, few_shot, fit, per_class
from kerasgreedy.analysis.subject import run_subject
from kerasgreedy.errors import DataError, InputError
from kerasgreedy.graph.rules import adaptive_windows
from kerasgreedy.spec.analyses_of_layers import Separability, Transfer


def pooled(maps, side=2):
    """Means over windows, by hand."""
    height, width = (list(adaptive_windows(size, min(side, size))) for size in maps.shape[1:3])
    cells = [maps[:, a:b, c:d].mean((1, 2)) for a, b in height for c, d in width]
    return np.stack(cells, 1).reshape(len(maps), -1)


def outputs(subject, images, depth):
    x = images
    for block in subject.parts.network.blocks[:depth]:
        x = block(x, training=False)
    return np.asarray(x)


@pytest.fixture(scope="module")
def probed(two_runs, tmp_path_factory):
    settings = Separability(examples=120, kinds=["linear", "cnn1"], epochs=1, width=4)
    return analyse(settings, two_runs, tmp_path_factory.mktemp("probe") / "out", quiet=True)


@pytest.mark.slow
def test_a_linear_probe_is_one_classifier_a_class(two_runs, probed):
    """One logistic regression for each class against the rest, on standardised means of 2x2; the surest answers."""
    subject = run_subject(two_runs[1])
    train, test = subject.sample("train", 120), subject.sample("test", 10**6)
    rows = probed.figures["runs"][1]["depths"]
    assert [row["depth"] for row in rows] == [0, 1, 2, 3]
    for depth in (0, 2):
        x, z = (pooled(outputs(subject, sample.images, depth).astype(np.float32)) for sample in (train, test))
        mean, deviation = x.mean(0, np.float64), x.std(0, dtype=np.float64)
        deviation[deviation == 0] = 1
        x, z = ((side - mean) / deviation for side in (x, z))
        classes = np.unique(train.labels)
        sure = [LogisticRegression(max_iter=1000).fit(x, train.labels == c).decision_function(z) for c in classes]
        by_hand = (classes[np.argmax(sure, 0)] == test.labels).mean()
        assert rows[depth]["linear"]["test"] == pytest.approx(by_hand, abs=1.5 / len(test.labels))
        assert rows[depth]["linear"]["converged"]


@pytest.mark.slow
def test_what_a_probe_writes(probed, two_runs):
    (table,) = probed.tables
    assert table.header == ["run", "classifier", "0", "1", "2", "3", "converged"] and len(table.rows) == 4
    assert [file.name for file in probed.files] == ["probe.json", "probe.csv", "probe.png"]
    assert np.array(Image.open(probed.files[2])).std() > 5
    for run in probed.figures["runs"]:
        assert run["train"] == 120 and run["test"] == 50
        assert all(0 <= row["cnn1"][side] <= 1 for row in run["depths"] for side in ("train", "test"))


def test_a_cnn_head_learns_what_a_linear_one_cannot():
    """Whether two neighbours have the same sign; the draw depends on the seed alone."""
    rng = np.random.default_rng(0)
    images = rng.choice([-1.0, 1.0], (400, 2, 2, 1)).astype(np.float32)
    labels = (images[:, 0, 0, 0] * images[:, 0, 1, 0] > 0).astype(np.int32)
    scores = {}
    for layers in (0, 1):
        head = cnn_head((2, 2, 1), 2, layers, 16, seed=1)
        fit(head, (images, labels), 40, 0.1, 0)
        scores[layers] = (answers(head, images) == labels).mean()
    assert scores[1] > 0.95 and scores[0] < 0.7
    again = cnn_head((2, 2, 1), 2, 1, 16, seed=1)
    fit(again, (images, labels), 40, 0.1, 0)
    assert (answers(again, images) == labels).mean() == scores[1]


def test_few_shot_is_pca_and_multinomial_regression():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 20)) * 2
    y, t = np.repeat(np.arange(3), 15), np.repeat(np.arange(3), [10, 30, 60])
    x, z = (5 * (centres[labels] + rng.normal(size=(len(labels), 20))) + 7 for labels in (y, t))
    found = few_shot((x, y), (z, t), components=6)
    assert found["components"] == 6 and found["converged"]
    mean = x.mean(0)
    scale = np.sqrt(((x - mean) ** 2).mean())
    turned = np.linalg.svd((x - mean) / scale, full_matrices=False)[2][:6]
    own = LogisticRegression(max_iter=5000, tol=1e-8).fit((x - mean) / scale @ turned.T, y)
    given = own.predict((z - mean) / scale @ turned.T)
    by_hand = np.mean([(given[t == c] == c).mean() for c in range(3)])
    assert found["accuracy"] == pytest.approx(by_hand, abs=0.02)
    assert few_shot((x, y), (z, t), components=500)["components"] == 20
    assert PCA(6).fit(x).components_.shape == turned.shape


def test_accuracy_counts_each_class_once():
    assert per_class(np.array([0, 0, 0, 1, 0]), np.array([0, 0, 0, 1, 1])) == pytest.approx(0.75)


@pytest.fixture
def other_data(tmp_path):
    """Three classes of colour photographs of several sizes."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 9), ("test", 3)):
        for number, name in enumerate(["dark", "middle", "light"]):
            folder = tmp_path / "other" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(80 * number, 80 * number + 90, (9 + i, 12, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "other"


@pytest.mark.slow
def test_transfer_to_a_folder_of_other_sizes(two_runs, other_data, tmp_path):
    settings = Transfer(data=f"folder:{other_data}", per_class=4, splits=3, tuned_splits=1, epochs=2)
    found = analyse(settings, two_runs[:1], tmp_path / "out", quiet=True)
    figures = found.figures
    assert (figures["classes"], figures["images"], figures["tested"]) == (3, 36, 24)
    (run,) = figures["runs"]
    assert [row["depth"] for row in run["depths"]] == [1, 2, 3]
    assert figures["pixels"][0] > 0.9  # brightness is enough
    assert all(0.3 < row[key][0] <= 1 for row in run["depths"] for key in ("trained", "untrained"))
    assert len(run["scratch"]) == len(run["tuned"]) == 2
    assert [file.name for file in found.files] == ["transfer.json", "transfer.csv", "transfer.png"]
    # Other images under the same name are measured anew.
    for file in (other_data / "train/light").iterdir():
        Image.fromarray(np.zeros((9, 12, 3), np.uint8)).save(file)
    again = analyse(settings, two_runs[:1], tmp_path / "out", quiet=True)
    assert again.figures["pixels"] != figures["pixels"]


def test_classes_can_be_left_out():
    """The other images and labels stay as they were, numbered anew."""
    from kerasgreedy.analysis.transfer import _without

    labels, names = np.array([2, 0, 1, 2, 1]), ("ant", "background_google", "bass")
    rows, numbers, left = _without(["background_google"], labels, names)
    assert (rows.tolist(), numbers.tolist(), left) == ([0, 1, 3], [1, 0, 1], ["ant", "bass"])
    assert _without([], labels, names)[0].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="received 'background'; allowed: names of classes; did you mean 'background_google'"):
        _without(["background"], labels, names)
    with pytest.raises(InputError, match="leaves 1 of 3 classes"):
        _without(["ant", "bass"], labels, names)


def test_images_that_do_not_fit_into_memory_give_the_same(two_runs, other_data, tmp_path, monkeypatch):
    """And of files only those are decoded that some division has."""
    from kerasgreedy.data import loaders, splits

    settings = Transfer(
        data=f"folder:{other_data}", leave_out=["middle"], per_class=2, splits=2, test_examples=3, tuned_splits=0, components=2
    )
    held = analyse(settings, two_runs[:1], tmp_path / "held", quiet=True).figures
    read = []
    decode = splits.read_image
    monkeypatch.setattr(splits, "read_image", lambda file, *more: read.append(file) or decode(file, *more))
    monkeypatch.setattr(loaders, "IN_MEMORY_BYTES", 0)
    streamed = analyse(settings, two_runs[:1], tmp_path / "streamed", quiet=True).figures
    assert streamed["pixels"] == held["pixels"] and streamed["runs"] == held["runs"]
    assert 7 <= len(read) <= 14 and len(set(read)) == len(read) and not any("middle" in file for file in read)
    next((other_data / "test/dark").iterdir()).write_bytes(b"no image")
    whole = settings.model_copy(update={"test_examples": None})
    with pytest.raises(DataError, match="test/dark/.*: not a readable image"):
        analyse(whole, two_runs[:1], tmp_path / "broken", quiet=True)


def test_divisions_are_by_class_and_do_not_meet(two_runs, other_data, tmp_path):
    from kerasgreedy.analysis.transfer import TransferAnalysis

    labels = np.repeat(np.arange(3), [9, 12, 30])
    splits = TransferAnalysis(Transfer(data="digits", per_class=5, splits=4))._splits(labels, ["a", "b", "c"])
    for train, test in splits:
        assert np.bincount(labels[train]).tolist() == [5, 5, 5] and not set(train) & set(test)
        assert len(test) == len(labels) - 15
    assert len({tuple(train) for train, _ in splits}) == 4
    with pytest.raises(InputError, match=r"--per-class: received 12; allowed: fewer than 12, .* class 'dark'"):
        analyse(Transfer(data=f"folder:{other_data}", per_class=12), two_runs[:1], tmp_path / "out", quiet=True)


def test_the_commands(two_runs, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(f"probe {two_runs[0]} --examples 60 --kinds linear --depth 3 --out here --json")
    assert code == 0 and json.loads(out.splitlines()[-1])["kinds"] == ["linear"]
    code, out, _ = call(f"transfer {two_runs[0]} --data digits --leave-out 0 --leave-out 7 --per-class 3 --splits 2 --out there")
    assert code == 0 and "raw pixels" in out and "layer 3" in out and "digits without 0, 7, 8 classes" in " ".join(out.split())
    for command, message in (
        (f"probe {two_runs[0]} --kinds liner", "received 'liner'; allowed: 'linear', 'cnn1' or 'cnn2'"),
        (f"transfer {two_runs[0]}", "--data: required key is missing"),
        (f"transfer {two_runs[0]} --data nowhere --out x", "nowhere"),
    ):
        code, _, err = call(command)
        assert code == 2 and message in err, err
