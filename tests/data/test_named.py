"""Named data sets: their table, where they are looked for, npz files, and the variants of MNIST."""

import gzip
import json
import struct
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, TINY_RECIPE, TINY_SPEC, recipe_of, spec_of

from kerasgreedy.data import variants
from kerasgreedy.data.catalog import describe, here, to_fetch
from kerasgreedy.data.listing import list_sets
from kerasgreedy.data.loaders import open_data
from kerasgreedy.data.named import BY_TFDS, NAMED
from kerasgreedy.errors import DataError, SpecError
from kerasgreedy.plan.preparation import prepare
from kerasgreedy.spec.recipe import Data
from kerasgreedy.train.entry_points import train_spec
from kerasgreedy.train.evaluating import evaluate_run

PAPERS = {
    "digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "svhn", "imagenet", "caltech101", "mnist_basic", "mnist_rotated",
    "mnist_random_background", "mnist_image_background", "mnist_rotated_image_background",
}  # fmt: skip
IDX = {"train": "train", "test": "t10k"}


@pytest.fixture(autouse=True)
def no_copies(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "no_tfds"))


def opened(data, size=(28, 28), channels=1):
    return open_data(data, describe(data), size, channels)


def write_idx(path, array):
    content = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)


def write_mnist(folder, train, test, order=None):
    """idx files of random images; the same images in another order with `order`."""
    rng = np.random.default_rng(5)
    images, labels = (
        rng.integers(0, 256, (train + test, 28, 28), dtype=np.uint8),
        rng.integers(0, 10, train + test, dtype=np.uint8),
    )
    images[:, :6] = images[:, -6:] = 0
    places = np.arange(train + test) if order is None else order
    for split, part in (("train", places[:train]), ("test", places[train:])):
        write_idx(folder / f"{IDX[split]}-images-idx3-ubyte", images[part])
        write_idx(folder / f"{IDX[split]}-labels-idx1-ubyte", labels[part])
    return images, labels


def fake_copy(root, name, splits, shape=(32, 32, 3), classes=("cat", "dog")):
    """The files by which a prepared TFDS copy is known, without its images."""
    folder = root / name / "1.2.3"
    folder.mkdir(parents=True)
    sizes = [{"name": split, "shardLengths": [str(count)]} for split, count in splits.items()]
    (folder / "dataset_info.json").write_text(json.dumps({"splits": sizes}))
    image = {"image": {"shape": {"dimensions": [str(side) for side in shape]}}}
    features = {"image": image, "label": {"classLabel": {"numClasses": str(len(classes))}}}
    (folder / "features.json").write_text(json.dumps({"featuresDict": {"features": features}}))
    (folder / "label.labels.txt").write_text("\n".join(classes) + "\n")
    return folder


def test_every_data_set_of_the_papers_has_a_name():
    assert set(NAMED) == PAPERS
    assert BY_TFDS["svhn_cropped"] is NAMED["svhn"] and BY_TFDS["imagenet2012"] is NAMED["imagenet"]
    for name, entry in NAMED.items():
        assert len(entry.names) == entry.classes and entry.train > 0 < entry.test and entry.about, name
    assert [NAMED[name].train for name in ("cifar10", "svhn", "imagenet")] == [50_000, 73_257, 1_281_167]
    variants_ = [entry for name, entry in NAMED.items() if name.startswith("mnist_")]
    assert len(variants_) == 5 and {(entry.train, entry.test) for entry in variants_} == {(12_000, 50_000)}


@pytest.mark.parametrize("name", sorted(PAPERS - {"digits", "fashion_mnist"}))
def test_a_set_that_is_not_here_says_how_to_have_it(name, tmp_path):
    with pytest.raises(DataError, match="data prepare") as caught:
        describe(Data(dataset=name))
    for part in (name, "data.download=true", "data.data_dir", str(tmp_path / "no_tfds")):
        assert part in str(caught.value)
    info = describe(Data(dataset=name, download=True))  # facts of the table, before anything is fetched
    assert (info.train_examples, info.classes) == (NAMED[name].train, NAMED[name].classes)
    assert to_fetch(Data(dataset=name)) == NAMED[name].tfds


def test_a_prepared_copy_is_found_under_the_plain_name(tmp_path):
    folder = fake_copy(tmp_path, "svhn_cropped", {"train": 30, "test": 10, "extra": 9}, classes=tuple("0123456789"))
    info = describe(Data(dataset="svhn", data_dir=str(tmp_path)))
    assert (info.dataset, info.train_examples, info.test_examples, info.classes) == ("svhn", 30, 10, 10)
    assert info.origin == "TFDS copy svhn_cropped 1.2.3" and here("svhn", str(tmp_path)) == str(folder)
    (tmp_path / "svhn_cropped/1.10.0").mkdir()
    for kept in folder.iterdir():
        (tmp_path / "svhn_cropped/1.10.0" / kept.name).write_bytes(kept.read_bytes())
    assert here("svhn", str(tmp_path)).endswith("1.10.0")  # newer than 1.2.3
    fake_copy(tmp_path, "imagenet2012", {"train": 30, "validation": 7, "test": 5}, shape=(-1, -1, 3))
    info = describe(Data(dataset="imagenet", data_dir=str(tmp_path)))
    assert (info.image_shape, info.test_examples, info.class_names) == ((None, None, 3), 7, ("cat", "dog"))


def test_a_plain_name_plans_without_tensorflow(tmp_path):
    fake_copy(tmp_path, "cifar10", {"train": 500, "test": 100}, classes=tuple("abcdefghij"))
    program = (
        "import sys\nfrom kerasgreedy.cli.main import main\n"
        "sys.argv = ['kerasgreedy', 'plan', 'simcnn_k3_cifar', '-r', 'cifar10_greedy', '--json', "
        f"'-s', 'data.data_dir={tmp_path}']\n"
        "try:\n    main()\nfinally:\n    print([m for m in ('tensorflow', 'numpy', 'tensorflow_datasets') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60)
    first, heavy = done.stdout.strip().splitlines()
    assert heavy == "[]" and json.loads(first)["train_images"] == 450, done.stderr


def test_what_only_tfds_has_may_be_cut_and_what_is_held_may_not(tmp_path):
    fake_copy(tmp_path, "cifar10", {"train": 500, "test": 100}, classes=tuple("abcdefghij"))
    place = f"data.data_dir={tmp_path}"
    prepare(spec_of(TINY_SPEC), recipe_of(TINY_RECIPE, "data.dataset=cifar10", place, "data.test_resize=40"))
    with pytest.raises(SpecError, match="test_resize: 'digits' is held in memory"):
        prepare(spec_of(TINY_SPEC), recipe_of(TINY_RECIPE, "data.test_resize=9"))


def test_mnist_from_idx_files_and_never_from_half_of_them(tmp_path):
    images, labels = write_mnist(tmp_path, 30, 12)
    data = Data(dataset="mnist", data_dir=str(tmp_path))
    train, test = opened(data)
    np.testing.assert_array_equal(train.images[..., 0], images[:30])
    np.testing.assert_array_equal(test.labels, labels[30:])
    assert describe(data).class_names == tuple("0123456789") and describe(data).origin == "idx files"
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"mnist: .*t10k-labels-idx1-ubyte \(or .gz\) not found; allowed: all four"):
        describe(data)
    assert [entry["here"] for entry in list_sets(str(tmp_path)) if entry["name"] == "mnist"] == [None]


# Variants of MNIST


def bilinear_turn(image, angle):
    """The rotation by its definition: output at y (from the centre) = input at R y, by hand from four neighbours."""
    height, width = image.shape
    result = np.zeros(image.shape)
    for row in range(height):
        for column in range(width):
            down, right = row - (height - 1) / 2, column - (width - 1) / 2
            y = np.cos(angle) * down + np.sin(angle) * right + (height - 1) / 2
            x = -np.sin(angle) * down + np.cos(angle) * right + (width - 1) / 2
            if 0 <= y <= height - 1 and 0 <= x <= width - 1:
                top, left = min(int(y), height - 2), min(int(x), width - 2)
                a, b = y - top, x - left
                corner = image[top : top + 2, left : left + 2].astype(float)
                result[row, column] = np.array([1 - a, a]) @ corner @ np.array([1 - b, b])
    return result


def blob(rng, count):
    images = np.zeros((count, 28, 28), np.uint8)
    images[:, 8:20, 10:18] = rng.integers(0, 256, (count, 12, 8))
    return images


def test_rotation_is_bilinear_by_the_drawn_angle():
    images = blob(np.random.default_rng(0), 6)
    angles = variants.draw_angles(6)
    turned = variants.rotate(images, angles)
    for image, angle, got in zip(images, angles, turned, strict=True):
        wanted = bilinear_turn(image, angle)
        assert np.abs(got - wanted).max() <= 0.51  # rounding
        assert abs(float(got.sum()) - image.sum()) < 0.03 * image.sum()  # nothing leaves the frame
    quarter = variants.rotate(images, np.full(6, np.pi / 2))
    np.testing.assert_array_equal(quarter, np.rot90(images, 1, axes=(1, 2)))


def test_angles_and_noise_are_uniform_and_fixed():
    angles, noise = variants.draw_angles(20_000), variants.draw_noise((200, 28, 28))
    assert angles.min() >= 0 and angles.max() < 2 * np.pi and abs(angles.mean() - np.pi) < 0.05
    assert abs(angles.std() - 2 * np.pi / np.sqrt(12)) < 0.02
    counts = np.bincount(noise.ravel(), minlength=256)
    assert len(counts) == 256 and abs(counts / noise.size - 1 / 256).max() < 0.0006
    np.testing.assert_array_equal(variants.draw_angles(5), angles[:5])


def test_patches_are_windows_of_the_photographs_with_texture():
    patches = variants.draw_patches((40, 28, 28))
    assert (patches.std((1, 2)) >= variants.TEXTURE).all()
    photographs = variants.load_photographs()
    windows = [np.lib.stride_tricks.sliding_window_view(picture, (28, 28)) for picture in photographs]
    for patch in patches[:6]:
        rows = [np.argwhere((window[:, :, 0] == patch[0]).all(-1)) for window in windows]
        assert any((windows[i][y, x] == patch).all() for i in range(2) for y, x in rows[i])
    np.testing.assert_array_equal(variants.draw_patches((40, 28, 28)), patches)


@pytest.mark.parametrize("name", [name for name in NAMED if name.startswith("mnist_")])
def test_a_variant_is_what_its_name_says(name):
    rng = np.random.default_rng(2)
    images, labels = blob(rng, 60), rng.integers(0, 10, 60)
    (train, y), (test, z) = variants.make_variant(name, images, labels, 20, 30)
    assert train.shape == (20, 28, 28, 1) and test.shape == (30, 28, 28, 1) and train.dtype == np.uint8
    order = variants.draw_order(images, labels)[:50]
    np.testing.assert_array_equal(np.concatenate([y, z]), labels[order])
    digits = images[order]
    if "rotated" in name:
        digits = variants.rotate(digits, variants.draw_angles(50))
    got = np.concatenate([train, test])[..., 0]
    if name == "mnist_random_background":
        noise = variants.draw_noise(digits.shape)
        np.testing.assert_array_equal(got, np.where(noise > digits, noise, digits))
    elif name.endswith("image_background"):
        patches = variants.draw_patches(digits.shape)
        np.testing.assert_array_equal(got, np.where(patches > digits, patches, digits))
    else:
        np.testing.assert_array_equal(got, digits)
    other = rng.permutation(60)  # the images in another order are the same data set
    np.testing.assert_array_equal(variants.make_variant(name, images[other], labels[other], 20, 30)[0][0], train)


def test_a_variant_of_the_full_size_from_idx_files(tmp_path):
    images, labels = write_mnist(tmp_path, 60_000, 10_000)
    data = Data(dataset="mnist_basic", data_dir=str(tmp_path))
    train, test = opened(data)
    assert (train.size, test.size) == (12_000, 50_000)
    where = {image.tobytes(): index for index, image in enumerate(images)}
    found = [where[image.tobytes()] for image in (*train.images, *test.images)]
    assert len(set(found)) == 62_000  # no image twice, in whichever split
    np.testing.assert_array_equal(labels[found], np.concatenate([train.labels, test.labels]))
    assert 0.1 < np.mean(np.array(found) >= 60_000) < 0.2  # from both splits of MNIST
    write_mnist(tmp_path, 100, 100)
    with pytest.raises(DataError, match="mnist_basic: needs 62,000 images of 28x28x1 of mnist; the copy here has 200"):
        describe(data)


# npz files


def npz(path, **more):
    rng = np.random.default_rng(1)
    arrays = {
        "x_train": rng.integers(0, 256, (40, 6, 5, 3), dtype=np.uint8), "y_train": np.arange(40) % 3,
        "x_test": rng.integers(0, 256, (9, 6, 5, 3), dtype=np.uint8), "y_test": np.arange(9)[:, None] % 3,
    }  # fmt: skip
    arrays = {key: value for key, value in {**arrays, **more}.items() if value is not None}
    np.savez_compressed(path, **arrays)
    return arrays


def test_npz(tmp_path):
    arrays = npz(tmp_path / "a.npz")
    data = Data(dataset=f"npz:{tmp_path / 'a.npz'}")
    info = describe(data)
    assert (info.image_shape, info.class_names, info.train_examples, info.test_examples) == ((6, 5, 3), ("0", "1", "2"), 40, 9)
    train, test = opened(data, (6, 5), 3)
    np.testing.assert_array_equal(train.images, arrays["x_train"])
    np.testing.assert_array_equal(test.labels, arrays["y_test"][:, 0])
    npz(tmp_path / "b.npz", class_names=np.array(["cat", "dog", "owl"]))
    assert describe(Data(dataset=f"npz:{tmp_path / 'b.npz'}")).class_names == ("cat", "dog", "owl")


def test_npz_of_grey_images_without_channels_and_of_shares(tmp_path):
    grey = np.arange(12).reshape(3, 2, 2) / 11
    npz(tmp_path / "a.npz", x_train=grey, y_train=np.arange(3), x_test=grey, y_test=np.arange(3))
    data = Data(dataset=f"npz:{tmp_path / 'a.npz'}")
    assert describe(data).image_shape == (2, 2, 1)
    np.testing.assert_array_equal(opened(data, (2, 2))[0].images[..., 0], np.round(grey * 255))


def test_a_run_on_an_npz_file_refuses_other_contents(files, tmp_path):
    npz(tmp_path / "a.npz")
    recipe = tmp_path / "npz.yaml"
    recipe.write_text(
        f"name: r\ndata: {{dataset: 'npz:{tmp_path}/a.npz', image_size: 8}}\ntraining: {{epochs: 1, batch_size: 12}}\n"
    )
    run = train_spec(files[0], recipe, workdir=tmp_path / "run", quiet=True)
    assert run.results["examples"] == 9 and evaluate_run(tmp_path / "run")["examples"] == 9
    npz(tmp_path / "a.npz", y_train=np.arange(40)[::-1] % 3)
    with pytest.raises(DataError, match=r"the data changed since the run began \(other contents\)"):
        evaluate_run(tmp_path / "run")
