"""`kerasgreedy data`: what it prints, its JSON, and the contact sheet."""

import json

import numpy as np
import pytest
from PIL import Image
from test_named import fake_copy, npz, write_mnist

from kerasgreedy.data import sheet
from kerasgreedy.data.overview import VIEWS, overview, recipe_for
from kerasgreedy.data.splits import PictureSplit


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "no_tfds"))


def last(out):
    return json.loads(out.splitlines()[-1])


def images_of(root, sizes=((10, 6),), counts=(("train", (5, 3)), ("test", (2, 1)))):
    rng = np.random.default_rng(4)
    for split, of_class in counts:
        for name, count in zip(("cat", "dog"), of_class, strict=True):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                shape = (*sizes[i % len(sizes)], 3)
                Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8)).save(root / split / name / f"{i}.png")
    return root


def test_list(command, tmp_path):
    write_mnist(tmp_path, 4, 2)
    fake_copy(tmp_path, "cifar100", {"train": 30, "test": 10})
    code, out, err = command("data", "list", "--data-dir", tmp_path)
    assert (code, err) == (0, "") and "1,281,167 + 50,000" in out and "npz:PATH" in out
    listed = {entry["name"]: entry for entry in last(command("data", "list", "--data-dir", tmp_path, "--json")[1])["sets"]}
    here = {name for name, entry in listed.items() if entry["here"]}
    idx = {name for name in listed if "mnist" in name}  # the files of Fashion-MNIST have the same names
    assert here == {"digits", "cifar100", *idx}
    assert listed["cifar100"]["here"] == str(tmp_path / "cifar100/1.2.3") and listed["mnist_rotated"]["here"] == str(tmp_path)
    assert listed["svhn"]["classes"] == 10 and listed["svhn"]["image_shape"] == [32, 32, 3]


def test_show_counts_and_figures(command, tmp_path):
    root = images_of(tmp_path / "pets")
    code, out, _ = command("data", "show", f"folder:{root}")
    assert code == 0 and "cat" in out and "contact sheet: pets.png" in out
    code, out, _ = command("data", "show", f"folder:{root}", "--json", "-o", "deep/a.png")
    facts = last(out)
    assert facts["splits"]["train"] == {"images": 8, "per_class": {"cat": 5, "dog": 3}}
    assert facts["splits"]["test"]["per_class"] == {"cat": 2, "dog": 1} and facts["image_shape"] == [10, 6, 3]
    pixels = np.concatenate([np.asarray(Image.open(file)).reshape(-1, 3) for file in (root / "train").glob("*/*.png")])
    np.testing.assert_allclose(facts["mean"], pixels.mean(0), atol=1e-3)
    np.testing.assert_allclose(facts["deviation"], pixels.std(0), atol=1e-3)
    assert facts["output"] == "deep/a.png" and Image.open("deep/a.png").format == "PNG"


def test_show_of_many_classes_prints_the_extremes(command, tmp_path):
    labels = np.repeat(np.arange(60), [7] + [2] * 58 + [1])
    pictures = np.zeros((len(labels), 4, 4, 1), np.uint8)
    npz(tmp_path / "many.npz", x_train=pictures, y_train=labels, x_test=pictures, y_test=labels)
    code, out, _ = command("data", "show", f"npz:{tmp_path / 'many.npz'}", "--json")
    counts = last(out)["splits"]["train"]["per_class"]
    assert code == 0 and len(counts) == 60 and (counts["0"], counts["1"], counts["59"]) == (7, 2, 1)
    out = command("data", "show", f"npz:{tmp_path / 'many.npz'}", "-o", "b.png")[1]
    rows = {line.split("│")[1].strip(): line.split("│")[2].strip() for line in out.splitlines() if line.count("│") == 4}
    assert (rows["smallest class"], rows["median class"], rows["largest class"], rows["all"]) == ("1", "2", "7", "124")


def test_views_are_those_of_the_recipe(tmp_path):
    root = images_of(tmp_path / "pets")
    chosen = recipe_for(f"folder:{root}", None, ["data.augment.pad_crop=2", "data.augment.horizontal_flip=true", "seed=3"])
    seen = overview(chosen)
    assert seen.views.shape == (8, VIEWS, 10, 6, 3) and list(seen.view_labels) == [0] * 5 + [1] * 3
    kinds = set()
    for original, views in zip(seen.originals, seen.views, strict=True):
        padded = np.pad(original, ((2, 2), (2, 2), (0, 0)))
        cuts = {}
        for top in range(5):
            for left in range(5):
                window = padded[top : top + 10, left : left + 6]
                cuts[window.tobytes()], cuts[window[:, ::-1].tobytes()] = (top, left, 0), (top, left, 1)
        kinds |= {cuts[view.tobytes()] for view in views}
    assert len(kinds) > 20  # the rows are changed in different ways
    files = {np.asarray(Image.open(file)).tobytes() for file in (root / "train").glob("*/*.png")}
    assert {original.tobytes() for original in seen.originals} <= files
    assert list(seen.tested_labels) == [0, 0, 1]
    plain = overview(recipe_for(f"folder:{root}", None, []))
    assert all((view == original).all() for original, views in zip(plain.originals, plain.views, strict=True) for view in views)


@pytest.mark.slow
def test_images_of_several_sizes_are_streamed_and_shown_at_the_usual_size(command, tmp_path):
    root = images_of(tmp_path / "pets", sizes=((10, 6), (30, 40)))
    (root / "train/dog/0.png").write_bytes((root / "train/dog/1.png").read_bytes())  # the first ones differ
    crop = ["-s", "data.augment.random_resized_crop=true"]
    code, out, _ = command("data", "show", f"folder:{root}", "--json", *crop, "-s", "data.test_resize=150")
    assert code == 0 and last(out)["shown_size"] == [128, 128] and last(out)["image_shape"] == [None, None, 3]
    seen = overview(recipe_for(f"folder:{root}", None, ["data.augment.random_resized_crop=true", "data.image_size=[12, 8]"]))
    assert seen.originals.shape == (8, 12, 8, 3) and len({view.tobytes() for view in seen.views[0]}) > 2
    split = PictureSplit([np.zeros((3, 4, 1), np.uint8), np.ones((5, 2, 1), np.uint8)], np.array([1, 0], np.int32))
    got = [(int(index), image.shape, int(label)) for index, image, label in split.batches(np.array([1, 0]), 1, False)]
    assert got == [(1, (5, 2, 1), 0), (0, (3, 4, 1), 1)]


def test_show_leaves_out_what_cannot_be_read_if_asked_to(command, tmp_path):
    root = images_of(tmp_path / "pets")
    (root / "train/cat/2.png").write_bytes(b"x")
    code, out, err = command("data", "show", f"folder:{root}", "--json", "-s", "data.corrupt=skip")
    assert code == 0 and "left out 1 unreadable image file(s): train/cat/2.png" in err
    assert last(out)["skipped"] == ["train/cat/2.png"] and last(out)["splits"]["train"]["per_class"]["cat"] == 4


def test_the_sheet_holds_the_pictures_at_their_places(tmp_path):
    root = images_of(tmp_path / "pets")
    seen = overview(recipe_for(f"folder:{root}", None, ["data.augment.horizontal_flip=true"]))
    drawn = np.asarray(sheet.draw_sheet(seen))
    scale = round(sheet.CELL / 10)
    wanted = [seen.originals[1], *seen.views[1], seen.tested[2]]
    for image in wanted:
        large = image.repeat(scale, 0).repeat(scale, 1)
        corner = np.argwhere((drawn[: -large.shape[0], : -large.shape[1]] == large[0, 0]).all(-1))
        height, width = large.shape[:2]
        assert any((drawn[y : y + height, x : x + width] == large).all() for y, x in corner)
    assert sheet.sheet_path("tfds:cats/small", None).name == "cats_small.png"
    assert sheet.sheet_path("npz:/a/b.npz", None).name == "b.png"


def test_long_class_names_and_other_channels_are_drawn(tmp_path):
    names = np.array(["a very long name of a class " * 3, "кошка"])
    pictures = np.random.default_rng(0).integers(0, 256, (6, 200, 90, 4), dtype=np.uint8)
    labels = np.arange(6) % 2
    npz(tmp_path / "a.npz", x_train=pictures, y_train=labels, x_test=pictures, y_test=labels, class_names=names)
    drawn = sheet.draw_sheet(overview(recipe_for(f"npz:{tmp_path / 'a.npz'}", None, [])))
    assert drawn.width == 2 * sheet.MARGIN + sheet.NAMES + 8 * (65 + sheet.GAP) + 2 * sheet.GAP  # 200 pixels become 144


def test_prepare_says_where_it_is(command, tmp_path):
    assert command("data", "prepare", "digits")[1].startswith("digits: nothing needs to be done: it is in scikit-learn (1,437")
    write_mnist(tmp_path, 4, 2)
    code, out, _ = command("data", "prepare", "mnist", "--data-dir", tmp_path, "--json")
    facts = {"image_shape": [28, 28, 1], "classes": 10, "train": 4, "test": 2}
    assert code == 0 and last(out) == {"dataset": "mnist", "place": str(tmp_path), "fetched": False, **facts}
    folder = fake_copy(tmp_path, "cifar10", {"train": 30, "test": 10})
    for name in ("cifar10", "tfds:cifar10"):
        facts = last(command("data", "prepare", name, "--data-dir", tmp_path, "--json")[1])
        assert (facts["place"], facts["fetched"], facts["classes"]) == (str(folder), False, 2)
    root = images_of(tmp_path / "pets")
    assert f"it is in {root}" in command("data", "prepare", f"folder:{root}")[1]


def test_prepare_fetches_what_is_not_here(command, tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    class Builder:
        def download_and_prepare(self):
            print("Downloading ...")
            fake_copy(tmp_path / "t", "mnist", {"train": 60_000, "test": 10_000}, (28, 28, 1), tuple("0123456789"))

    asked = []
    monkeypatch.setattr(tfds, "builder", lambda name, data_dir: asked.append((name, data_dir)) or Builder())
    code, out, err = command("data", "prepare", "mnist_rotated", "--data-dir", "t")
    assert code == 0 and asked == [("mnist", "t")] and "Downloading" in err
    assert out == "mnist_rotated: prepared in t/mnist/1.2.3 (12,000 training and 50,000 test images)\n"
    assert "nothing needs to be done" in command("data", "prepare", "mnist", "--data-dir", "t")[1] and len(asked) == 1
