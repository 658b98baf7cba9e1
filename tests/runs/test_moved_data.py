"""A run whose data moved, and other images of the same classes."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from kerasgreedy.errors import InputError
from kerasgreedy.runs.changed_settings import absolute_places, moved_data
from kerasgreedy.runs.open_run import _may_move
from kerasgreedy.runs.start_from import stored_info
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.spec.source import parse_value
from kerasgreedy.train.entry_points import resume_run, train_spec
from kerasgreedy.train.evaluating import evaluate_run

SPEC = "name: s\ninput_shape: [8, 8, 3]\nblocks: [{conv: 4}, {conv: 4}]\nauxiliary_head: {pool_to: 2}\n"
RECIPE = """name: r
data: {{dataset: "folder:{0}", test: 0.25, validation: 2, image_size: 8}}
training: {{epochs: 2, batch_size: 4, optimizer: {{name: sgd, learning_rate: 0.05}}}}
"""


def fill(folder, names=("cat", "dog", "owl"), count=8, seed=0):
    """Noise of a different mean for each class."""
    draw = np.random.default_rng(seed)
    for level, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = draw.integers(0, 60, (8, 8, 3)) + 60 * level
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture
def run(tmp_path):
    """A finished run on a folder that is not divided."""
    fill(tmp_path / "pets")
    (tmp_path / "s.yaml").write_text(SPEC)
    (tmp_path / "r.yaml").write_text(RECIPE.format(tmp_path / "pets"))
    return train_spec(tmp_path / "s.yaml", tmp_path / "r.yaml", workdir=tmp_path / "run", quiet=True)


def test_a_moved_folder_is_found_again_and_compared(run, tmp_path, capfd):
    before = evaluate_run(run.workdir)
    moved = (tmp_path / "pets").rename(tmp_path / "animals")
    with pytest.raises(InputError, match="no such folder.*If the data lie elsewhere now: train --resume RUN --data PLACE"):
        evaluate_run(run.workdir)
    for place in (str(moved), f"folder:{moved}"):
        assert evaluate_run(run.workdir, data_at=place) == before
        assert evaluate_run(run.workdir, "validation", data_at=place)["examples"] == 2
    assert "own images" not in capfd.readouterr().err
    assert "changes" not in json.loads((run.workdir / "run.json").read_text())
    # `--resume` of a finished run writes it down.
    resume_run(run.workdir, quiet=True, data_at=str(moved))
    assert evaluate_run(run.workdir) == before
    assert [change["set"] for change in json.loads((run.workdir / "run.json").read_text())["changes"]] == [
        [f'data.dataset="folder:{moved}"']
    ]


def test_a_run_goes_on_with_moved_data_to_the_same_weights(run, tmp_path):
    whole = train_spec(tmp_path / "s.yaml", tmp_path / "r.yaml", ["training.epochs=1"], workdir=tmp_path / "one", quiet=True)
    begun = tmp_path / "begun"
    shutil.copytree(whole.workdir, begun)
    (tmp_path / "pets").rename(tmp_path / "animals")
    longer = resume_run(begun, quiet=True, overrides=["training.epochs=3"], data_at=str(tmp_path / "animals"))
    assert longer.results["phases"][-1]["epochs"] == 3 and whole.results["phases"][-1]["epochs"] == 1
    assert resume_run(begun, quiet=True).results == longer.results  # both are written down


def test_contents_that_changed_are_not_the_runs_own(run, tmp_path, capfd):
    moved = (tmp_path / "pets").rename(tmp_path / "animals")
    Image.new("RGB", (8, 8)).save(moved / "cat" / "0.png")
    with pytest.raises(InputError, match="contents changed since the run began"):
        resume_run(run.workdir, quiet=True, data_at=str(moved))
    found = evaluate_run(run.workdir, data_at=str(moved))
    # Others are measured on, but for those that the run was trained on: 18 of 24, one of which is another now.
    tested = json.loads((run.workdir / "run.json").read_text())["data"]["test_files"]
    assert found["examples"] == 6 + ("cat/0.png" not in tested) and found["data"] == str(moved)
    said = capfd.readouterr().err
    assert "does not hold the run's own images" in said and "that the run was trained on" in said


def test_other_images_are_measured_by_the_names_of_their_classes(run, tmp_path):
    """Two of the three classes, in a folder of their own and as train and test; labels by name, checked against the network."""
    other = fill(tmp_path / "new", ("cat", "owl"), 5, seed=7)
    (other / "owl").rename(other / "x")
    (other / "x").rename(other / "owl")
    found = evaluate_run(run.workdir, data_at=str(other), details=tmp_path / "details")
    model = run.network.model()
    right, counts = 0, np.zeros((3, 3), int)
    for name, label in (("cat", 0), ("owl", 2)):
        pixels = np.stack([np.asarray(Image.open(other / name / f"{index}.png"), np.float32) for index in range(5)])
        given = np.asarray(list(model(pixels).values())[1]).argmax(-1)
        right += (given == label).sum()
        np.add.at(counts[label], given, 1)
    assert found["examples"] == 10 and found["depths"][-1]["top1"] == pytest.approx(right / 10)
    assert found["confusion"] == counts.tolist()
    assert [entry["images"] for entry in found["classes"]] == [5, 0, 5]
    divided = tmp_path / "divided"
    shutil.copytree(other, divided / "test")
    shutil.copytree(other / "cat", divided / "train" / "cat")
    shutil.copytree(other / "owl", divided / "train" / "owl")
    assert evaluate_run(run.workdir, data_at=str(divided))["depths"] == found["depths"]


def test_details_are_the_figures_of_the_evaluation(run, tmp_path):
    found = evaluate_run(run.workdir, details=tmp_path / "d")
    counts = np.array(found["confusion"])
    assert counts.sum() == found["examples"] == 6
    assert np.trace(counts) / 6 == pytest.approx(found["depths"][-1]["top1"])
    assert [entry["right"] for entry in found["classes"]] == np.diag(counts).tolist()
    assert len(found["mistakes"]) == 6 - np.trace(counts)
    sure = [entry["probability"] for entry in found["mistakes"]]
    assert sure == sorted(sure, reverse=True)
    rows = (tmp_path / "d/confusion.csv").read_text().splitlines()
    assert rows[0] == "label,cat,dog,owl" and rows[1] == ",".join(["cat", *map(str, counts[0])])
    evaluate_run(run.workdir, details=tmp_path / "d")  # replaced
    (tmp_path / "d/mine.txt").write_text("x")
    with pytest.raises(InputError, match="holds something else than details"):
        evaluate_run(run.workdir, details=tmp_path / "d")


def test_strange_classes_are_refused(run, tmp_path):
    fill(tmp_path / "new", ("cat", "dogs"))
    with pytest.raises(InputError, match="holds the class 'dogs', which the run does not know; did you mean 'dog'"):
        evaluate_run(run.workdir, data_at=str(tmp_path / "new"))


@pytest.mark.parametrize(
    ("dataset", "place", "expected"),
    [
        ("folder:a", "b", 'data.dataset="folder:{}/b"'), ("folder:a", "folder:b", 'data.dataset="folder:{}/b"'),
        ("npz:a.npz", "b.npz", 'data.dataset="npz:{}/b.npz"'), ("mnist", "idx", 'data.data_dir="{}/idx"'),
        ("mnist_rotated", "idx", 'data.data_dir="{}/idx"'), ("tfds:beans", "copies", 'data.data_dir="{}/copies"'),
        ("folder:a", "b\U0001f4f7", 'data.dataset="folder:{}/b\U0001f4f7"'),
    ],
)  # fmt: skip
def test_where_data_can_move(dataset, place, expected, tmp_path, monkeypatch):
    """Written down so that they are found from any folder, and so that YAML reads the same."""
    monkeypatch.chdir(tmp_path)
    assert moved_data(dataset, place) == expected.format(tmp_path)
    assert parse_value(moved_data(dataset, place).partition("=")[2]).endswith(place.removeprefix("folder:"))
    if dataset.startswith("folder"):
        assert absolute_places(["data.dataset=folder:b"]) == [f'data.dataset="folder:{tmp_path}/b"']


@pytest.mark.parametrize(("dataset", "place"), [("digits", "x"), ("folder:a", "npz:b"), ("mnist", "folder:b")])
def test_where_data_cannot_move(dataset, place):
    with pytest.raises(InputError, match="--data"):
        moved_data(dataset, place)


def test_a_run_started_from_knows_moved_images_as_its_own(run, tmp_path):
    """Else images that it was trained on would validate."""
    moved = (tmp_path / "pets").rename(tmp_path / "animals")
    sets = [f"data.dataset=folder:{moved}", f"start_from={run.workdir}", "data.validation=4"]
    with pytest.raises(InputError, match="split the same data otherwise"):
        train_spec(tmp_path / "s.yaml", tmp_path / "r.yaml", sets, workdir=tmp_path / "more", quiet=True)


def test_images_that_were_trained_on_are_never_measured_as_new(run, tmp_path, capfd):
    """A folder that grew is not the run's own any more; what is left of it are the test images and the new ones."""
    Image.new("RGB", (8, 8), (200, 0, 0)).save(tmp_path / "pets" / "owl" / "new.png")
    found = evaluate_run(run.workdir, data_at=str(tmp_path / "pets"))
    assert found["examples"] == 7 and "left out 18 image(s) that the run was trained on" in capfd.readouterr().err
    shutil.copytree(tmp_path / "pets", tmp_path / "again")
    for name in json.loads((run.workdir / "run.json").read_text())["data"]["test_files"]:
        (tmp_path / "again" / name).unlink()
    (tmp_path / "again" / "owl" / "new.png").unlink()
    with pytest.raises(InputError, match="no image is left to measure on"):
        evaluate_run(run.workdir, data_at=str(tmp_path / "again"))


def test_details_of_others_do_not_take_the_place_of_the_runs_own(run, tmp_path):
    before = (run.workdir / "evaluation/test/details.json").read_text()
    fill(tmp_path / "new photos", ("cat", "owl"), 5, seed=7)
    found = evaluate_run(run.workdir, data_at=str(tmp_path / "new photos"), details=True)
    assert found["details"] == str(run.workdir / "evaluation/other_new_photos")
    assert json.loads((run.workdir / "evaluation/other_new_photos/details.json").read_text())["data"] == str(
        tmp_path / "new photos"
    )
    assert (run.workdir / "evaluation/test/details.json").read_text() == before
    assert evaluate_run(run.workdir, details=True)["details"] == str(run.workdir / "evaluation/test")


def test_names_that_are_numbers_are_names_in_a_folder(tmp_path):
    fill(tmp_path / "pets", ("1", "2", "3"))
    (tmp_path / "s.yaml").write_text(SPEC)
    (tmp_path / "r.yaml").write_text(RECIPE.format(tmp_path / "pets"))
    done = train_spec(tmp_path / "s.yaml", tmp_path / "r.yaml", workdir=tmp_path / "run", quiet=True)
    fill(tmp_path / "new", ("0", "1"), 3, seed=5)
    with pytest.raises(InputError, match="holds the class '0', which the run does not know"):
        evaluate_run(done.workdir, data_at=str(tmp_path / "new"))


def test_another_set_of_the_same_files_is_no_moved_one(run, tmp_path):
    """Variants of MNIST are made from the same files: it is the name that says which images they are."""
    facts = json.loads((run.workdir / "run.json").read_text())["data"]
    assert _may_move(facts["dataset"], "folder:elsewhere") and _may_move("npz:a", "npz:b")
    assert (
        not _may_move("mnist_basic", "mnist_rotated") and not _may_move("folder:a", "npz:a") and not _may_move("tfds:a", "tfds:b")
    )


def test_runs_of_versions_before_are_known_as_such(run):
    """Their facts do not say how files are read; wherever the run is opened, that is as they are stored."""
    folder = Workdir.open(run.workdir)
    facts = {key: value for key, value in folder.facts().items() if key != "sha256"}
    del facts["data"]["reading"]
    folder.write("run.json", json.dumps(facts))
    assert stored_info(folder).reading == 1 and not stored_info(folder).known.upright
