"""Folders with files that cannot be read: `data.corrupt: skip` leaves them out, says so, and keeps to it."""

import json

import numpy as np
import pytest
from conftest import some
from PIL import Image

from kerasgreedy.data.catalog import describe
from kerasgreedy.data.loaders import open_data, without_unreadable
from kerasgreedy.data.splits import ArraySplit, FileSplit
from kerasgreedy.errors import DataError
from kerasgreedy.spec.augmentation import Augment
from kerasgreedy.spec.recipe import Data
from kerasgreedy.train.entry_points import load_network, resume_run, train_spec
from kerasgreedy.train.evaluating import evaluate_run

BAD = ("test/dog/1.png", "train/cat/0.png", "train/dog/3.png")
CROP = Augment(random_resized_crop=True)


@pytest.fixture
def folder(tmp_path):
    """Two classes of 8 training and 3 test images of 8x8; three files cannot be read, each in its own way."""
    rng = np.random.default_rng(0)
    root = tmp_path / "images"
    for split, count in (("train", 8), ("test", 3)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)).save(root / split / name / f"{i}.png")
    (root / BAD[0]).write_bytes(b"")
    (root / BAD[1]).write_bytes(b"no image")
    (root / BAD[2]).write_bytes((root / BAD[2]).read_bytes()[:90])  # the header is whole
    return root


@pytest.mark.parametrize(("augment", "kind"), [(Augment(), ArraySplit), (CROP, FileSplit)], ids=["in_memory", "streamed"])
def test_what_cannot_be_read_is_found_and_left_out(folder, augment, kind):
    data = Data(dataset=f"folder:{folder}", corrupt="skip", augment=augment)
    assert describe(data).train_examples == 16  # before it was looked for them
    found = without_unreadable(data, 3)
    assert sorted(found.skipped or ()) == sorted(BAD)
    info = describe(data, found)
    assert (info.train_examples, info.test_examples, info.image_shape) == (14, 5, (8, 8, 3))
    assert sorted(info.skipped) == sorted(BAD)
    train, test = open_data(data, info, (8, 8), 3)
    assert isinstance(train, kind) and list(train.labels) == [0] * 7 + [1] * 7 and list(test.labels) == [0, 0, 0, 1, 1]
    read = [image for _, image, _ in train.batches(np.arange(14), 1, False)]
    wanted = [np.asarray(Image.open(folder / f"train/{name}/{i}.png")) for name, i in (("cat", 1), ("dog", 0), ("dog", 4))]
    for index, image in zip((0, 7, 10), wanted, strict=True):
        np.testing.assert_array_equal(np.squeeze(read[index]), image)


def test_error_is_the_default_and_names_the_file(folder):
    data = Data(dataset=f"folder:{folder}")
    with pytest.raises(DataError, match="train/cat/0.png: not a readable image"):
        describe(data)
    (folder / BAD[1]).unlink()
    with pytest.raises(DataError, match="test/dog/1.png: not a readable image"):  # the heads of all files are read
        describe(data)
    (folder / BAD[0]).unlink()
    with pytest.raises(DataError, match="train/dog/3.png: not a readable image"):
        open_data(data, describe(data), (8, 8), 3)


RECIPE = "name: r\ndata: {{dataset: 'folder:{}', corrupt: {}, validation: 4{}}}\ntraining: {{epochs: 1, batch_size: 5}}\n"


@pytest.mark.parametrize("more", some("", slow=[", augment: {random_resized_crop: true}"]), ids=["in_memory", "streamed"])
def test_a_run_says_it_once_records_it_and_keeps_to_it(folder, files, tmp_path, capsys, more):
    recipe = tmp_path / "skip.yaml"
    recipe.write_text(RECIPE.format(folder, "skip", more))
    run = train_spec(files[0], recipe, workdir=tmp_path / "run", quiet=True)
    err = capsys.readouterr().err
    assert err.count("left out 3 unreadable image file(s):") == 1 and BAD[1] in err
    facts = json.loads((run.workdir / "run.json").read_text())["data"]
    assert sorted(facts["skipped"]) == sorted(BAD)
    assert [facts[f"{part}_images"] for part in ("train", "validation", "test")] == [10, 4, 5]
    assert run.results["examples"] == 5
    # A file that can be read by now stays out; one that was left out may go.
    (folder / BAD[1]).write_bytes((folder / "train/cat/1.png").read_bytes())
    (folder / BAD[2]).unlink()
    assert evaluate_run(run.workdir)["depths"] == run.results["depths"]
    assert evaluate_run(run.workdir, "train")["examples"] == 10
    assert load_network(run.workdir).facts.depths == [1, 2, 3]
    (run.workdir / "results.json").unlink()
    assert resume_run(run.workdir, quiet=True).results["depths"] == run.results["depths"]
    # A file that breaks later is an error: leaving it out would change the examples.
    (folder / "train/dog/5.png").write_bytes(b"broken")
    with pytest.raises(DataError, match="train/dog/5.png: not a readable image"):
        evaluate_run(run.workdir, "train")
    (folder / "train/dog/5.png").unlink()
    with pytest.raises(DataError, match="the data changed"):
        evaluate_run(run.workdir)


def test_a_class_or_a_split_without_a_readable_image_is_an_error(folder, files, tmp_path):
    recipe = tmp_path / "skip.yaml"
    recipe.write_text(RECIPE.format(folder, "skip", ""))
    for name in ("cat", "dog"):
        for i in range(3):
            (folder / f"test/{name}/{i}.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no readable image in .*test/<class>/"):
        train_spec(files[0], recipe, workdir=tmp_path / "run", quiet=True)
    (folder / "test/dog/1.png").write_bytes((folder / "train/dog/0.png").read_bytes())
    for i in range(8):
        (folder / f"train/cat/{i}.png").write_bytes((folder / "train/dog/0.png").read_bytes()[:90])
    with pytest.raises(DataError, match="class 'cat' has no readable training image"):
        train_spec(files[0], recipe, workdir=tmp_path / "run", quiet=True)
    for i in range(8):
        (folder / f"train/cat/{i}.png").write_bytes(b"x")
    with pytest.raises(DataError, match="class 'cat' has no readable training image"):
        train_spec(files[0], recipe, workdir=tmp_path / "run", quiet=True)
    for path in folder.glob("*/*/*.png"):
        path.write_bytes(b"x")
    with pytest.raises(DataError, match="images: none of its 22 images can be read"):
        train_spec(files[0], recipe, workdir=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_nothing_unreadable_is_recorded_as_nothing(folder, files, tmp_path, capsys):
    for name in BAD:
        (folder / name).unlink()
    recipe = tmp_path / "skip.yaml"
    recipe.write_text(RECIPE.format(folder, "skip", ""))
    run = train_spec(files[0], recipe, workdir=tmp_path / "run", quiet=True)
    assert "left out" not in capsys.readouterr().err
    assert json.loads((run.workdir / "run.json").read_text())["data"]["skipped"] == []
    assert evaluate_run(run.workdir)["examples"] == 5
