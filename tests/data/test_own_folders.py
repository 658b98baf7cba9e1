"""Folders as people have them: not divided, with other things inside."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from kerasgreedy.data.catalog import describe, inapplicable
from kerasgreedy.data.folders import is_divided, open_folder
from kerasgreedy.data.info import Known
from kerasgreedy.data.loaders import open_data
from kerasgreedy.errors import DataError
from kerasgreedy.spec.recipe import Data


def fill(folder, counts, size=(6, 6)):
    """Class folders with so many images each."""
    for shade, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", size, (shade * 40, index, 0)).save(folder / name / f"{index:03}.png")
    return folder


def drawn(folder, share=0.2, **settings):
    return open_folder(str(folder), Data(dataset="folder", test=share, **settings), Known(), counting=True)


def names(folder):
    return {split: [file.name for file in files] for split, files in folder.splits.items()}


def test_each_class_gives_its_share(tmp_path):
    """20 % of 10, 5, 2, 3 and 1 images: 2, 1, 1 (at least one), 1 and none (the only one trains)."""
    folder = drawn(fill(tmp_path, {"a": 10, "b": 5, "c": 2, "d": 3, "e": 1}))
    found = {split: np.bincount([file.label for file in files], minlength=5).tolist() for split, files in folder.splits.items()}
    assert found == {"train": [8, 4, 1, 2, 1], "test": [2, 1, 1, 1, 0]} and folder.class_names == ("a", "b", "c", "d", "e")
    assert not set(names(folder)["train"]) & set(names(folder)["test"])
    assert names(folder)["train"] == sorted(names(folder)["train"])


def test_the_draw_is_that_of_the_documented_rule(tmp_path):
    """The two of ten whose SHA-256 of `seed/class/name` is least."""
    fill(tmp_path, {"a": 10, "b": 10})
    for seed in (0, 5):
        rank = sorted((hashlib.sha256(f"{seed}/a/{i:03}.png".encode()).hexdigest(), f"a/{i:03}.png") for i in range(10))
        chosen = [name for name in names(drawn(tmp_path, test_seed=seed))["test"] if name.startswith("a/")]
        assert sorted(chosen) == sorted(name for _, name in rank[:2])
    assert names(drawn(tmp_path)) == names(drawn(tmp_path)) != names(drawn(tmp_path, test_seed=5))


def test_new_images_move_few_of_the_old(tmp_path):
    fill(tmp_path, {"a": 50, "b": 50})
    before = set(names(drawn(tmp_path))["test"])
    for index in range(50, 60):
        Image.new("RGB", (6, 6)).save(tmp_path / "a" / f"{index:03}.png")
    after = set(names(drawn(tmp_path))["test"])
    # Of the 60, 12 test: where k of the ten new ones are among them, at most k - 2 of the ten old ones went back.
    new = {name for name in after if name.startswith("a/05")}
    assert len(after) == 22 and len(before - after) == max(len(new) - 2, 0)
    assert {name for name in before if name.startswith("b/")} == {name for name in after if name.startswith("b/")}


def test_train_alone_is_divided_too(tmp_path):
    fill(tmp_path / "train", {"a": 5, "b": 5})
    assert names(drawn(tmp_path))["test"] == sorted(n for n in names(drawn(tmp_path))["test"] if n.startswith("train/"))
    assert [len(files) for files in drawn(tmp_path).splits.values()] == [8, 2]


def test_classes_called_train_and_plane(tmp_path):
    folder = drawn(fill(tmp_path, {"train": 5, "plane": 5}))
    assert folder.class_names == ("plane", "train") and len(folder.splits["train"]) == 8


@pytest.mark.parametrize(
    ("layout", "share", "words"),
    [
        (("a", "b"), None, "no folder 'train' and no folder 'test' .*the 2 classes .a, b. for testing: --set data.test=0.2"),
        (("train/a", "train/b"), None, "no folder 'test'.* inside.*2 classes in train .a, b.*--set data.test=0.2"),
        (("train/a", "train/b", "val/a", "val/b"), None, "rename 'val', or draw a fifth of train with --set data.test=0.2"),
        (("train/a", "train/b", "test/a", "test/b"), 0.2, "it has test images of its own.*leave data.test out"),
        (("a",), 0.2, "holds 1 class folder"),
        (("test/a", "test/b"), None, "no folder 'train' inside"),
        (("train/a", "train/b", "test"), None, "no folder 'test' with a folder for each class inside.*--set data.test=0.2"),
        ((), 0.2, "holds 0 class folder.s. .it holds nothing."),
    ],
)  # fmt: skip
def test_what_is_said_of_other_layouts(layout, share, words, tmp_path):
    fill(tmp_path, dict.fromkeys(layout, 2))
    with pytest.raises(DataError, match=words):
        open_folder(str(tmp_path), Data(dataset="folder", test=share), Known())


def test_one_image_a_class_leaves_none_to_test_on(tmp_path):
    with pytest.raises(DataError, match="no image to test on"):
        drawn(fill(tmp_path, {"a": 1, "b": 1}))


def test_a_share_is_for_folders_only():
    assert inapplicable(Data(dataset="digits", test=0.2), "digits")[0] == "test"


def test_what_is_passed_over_is_counted_and_the_first_named(tmp_path):
    fill(tmp_path, {"cat": 3, "dog": 3})
    (tmp_path / "cat" / "notes.txt").write_text("x")
    (tmp_path / "cat" / "0.heic").write_bytes(b"x")
    (tmp_path / "cat" / ".hidden.png").write_bytes(b"x")
    (tmp_path / "cat" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "cat" / "._000.png").write_bytes(b"x")
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"x")
    fill(tmp_path / "dog", {"raw": 2})
    (tmp_path / "dog" / "gone.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "birds").symlink_to(tmp_path / "nowhere")
    (tmp_path / "readme.md").write_text("x")
    fill(tmp_path, {".cache": 4})
    lost = drawn(tmp_path).passed_over
    assert lost.counts == {
        "of no image ending": 2, "hidden": 5, "in folders within class folders": 2, "links that lead nowhere": 2,
        "beside the class folders": 1,
    }  # fmt: skip
    assert lost.first == ".cache"
    assert lost.words.startswith("passed over 12 file(s): ") and lost.words.endswith("; the first is .cache")


def test_folders_beside_train_and_test_are_counted(tmp_path):
    for split in ("train", "test"):
        fill(tmp_path / split, {"a": 2, "b": 2})
    fill(tmp_path / "validation", {"a": 3})
    lost = open_folder(str(tmp_path), Data(dataset="folder"), Known(), counting=True).passed_over
    assert lost.counts == {"beside the class folders": 3} and lost.first == "validation"


def test_a_run_keeps_to_its_images(call, tmp_path):
    """What was drawn stands in run.json; a file that nobody reads changes nothing, an image more is refused."""
    folder = fill(tmp_path / "pets", {"cat": 12, "dog": 12}, (8, 8))
    (tmp_path / "spec.yaml").write_text("name: s\ninput_shape: [8, 8, 3]\nblocks: [{conv: 4}]\nauxiliary_head: {pool_to: 2}\n")
    sets = ["-s", f"data.dataset=folder:{folder}", "-s", "data.test=0.25", "-s", "data.image_size=8", "-s", "training.epochs=1"]
    sets += ["-s", "training.batch_size=4"]
    (folder / "cat" / "note.txt").write_text("x")
    code, _, err = call(f"train {tmp_path}/spec.yaml {' '.join(sets)} -w {tmp_path}/run --json")
    assert code == 0, err
    assert f"folder:{folder}: passed over 1 file(s): 1 of no image ending; the first is cat/note.txt" in err
    facts = json.loads((tmp_path / "run/run.json").read_text())["data"]
    assert len(facts["test_files"]) == 6 == facts["test_examples"] and facts["reading"] == 2 and "passed_over" not in facts
    assert sorted(json.loads((tmp_path / "run/data_files.json").read_text())) == sorted(
        f"{name}/{index:03}.png" for name in ("cat", "dog") for index in range(12)
    )
    (folder / "cat" / "another.txt").write_text("x")
    assert call(f"evaluate {tmp_path}/run")[0] == 0
    Image.new("RGB", (8, 8)).save(folder / "cat" / "new.png")
    code, _, err = call(f"evaluate {tmp_path}/run")
    assert code == 2 and "changed since the run began" in err


def test_runs_of_versions_before_read_as_they_did(tmp_path):
    """Pictures as they are stored, and no endings that were unknown then."""
    for split in ("train", "test"):
        fill(tmp_path / split, {"a": 2, "b": 2}, (6, 4))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "train/a/turned.jpg", exif=exif.tobytes())
    Image.new("RGB", (6, 4)).save(tmp_path / "train/a/new.webp")
    data = Data(dataset=f"folder:{tmp_path}")
    assert (describe(data).train_examples, describe(data).image_shape) == (6, (None, None, 3))
    old = describe(data, Known(reading=1))
    assert (old.train_examples, old.image_shape, old.reading) == (5, (4, 6, 3), 1)
    train, _ = open_data(data, old, (4, 6), 3)
    assert train.size == 5


def test_test_images_without_classes_are_passed_over(tmp_path):
    """As competitions have them: nobody says what is on them."""
    fill(tmp_path / "train", {"a": 5, "b": 5})
    fill(tmp_path, {"test": 3})
    folder = drawn(tmp_path)
    assert [len(files) for files in folder.splits.values()] == [8, 2] and folder.passed_over.counts == {
        "beside the class folders": 3
    }
    assert not is_divided(str(tmp_path))


def test_a_link_to_itself_is_no_fault(tmp_path):
    fill(tmp_path, {"a": 5, "b": 5})
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert drawn(tmp_path).passed_over.counts == {"links that lead nowhere": 1}
