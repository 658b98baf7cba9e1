"""The rules of classes hold for data sets of every kind, sizes are looked at, and images are drawn class by class."""

import json
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf
from conftest import recipe_of, same_weights, spec_of, unsealed, weights, without_time
from PIL import Image
from test_data import write_idx
from test_tfds import settings

from kerasgreedy.data.arrays import ImageArrays, check_classes
from kerasgreedy.data.catalog import describe
from kerasgreedy.data.loaders import open_data
from kerasgreedy.data.parts import divide_at_random, divide_by_class
from kerasgreedy.data.pipeline import Pipeline
from kerasgreedy.data.splits import ArraySplit, TfdsSplit
from kerasgreedy.errors import DataError, Stopped
from kerasgreedy.plan.preparation import prepare
from kerasgreedy.runs import start_from as starting
from kerasgreedy.runs.open_run import data_facts
from kerasgreedy.spec.augmentation import Augment
from kerasgreedy.spec.recipe import Data
from kerasgreedy.train import entry_points as runs
from kerasgreedy.train.entry_points import resume_run, train_spec
from kerasgreedy.train.progress import Reporter

LABELS = {
    "one class": ([0, 0, 0], [0, 0], "the labels are of 1 class; allowed: 2 or more"),
    "from 1": ([1, 2, 1], [2, 1], r"the labels start at 1, so class '0' .label 0. has no image; subtract 1 from them"),
    "only in test": ([0, 1, 0], [2, 1], r"class '2' .label 2. is in test but not in train; allowed: a training image of each"),
    "a gap": ([0, 1, 3], [0, 1], r"class '2' .label 2. has no training image"),
    "0 only in test": ([1, 2, 1], [0, 1], r"class '0' .label 0. is in test but not in train"),
}  # fmt: skip


@pytest.mark.parametrize("kind", LABELS)
def test_npz_files_and_arrays_are_refused_when_they_are_described(kind, tmp_path):
    train, test, message = LABELS[kind]
    images = [np.zeros((len(labels), 8, 8, 1), np.uint8) for labels in (train, test)]
    np.savez(tmp_path / "a.npz", x_train=images[0], y_train=train, x_test=images[1], y_test=test)
    with pytest.raises(DataError, match=f"a.npz: {message}"):
        describe(Data(dataset=f"npz:{tmp_path}/a.npz"))
    with pytest.raises(DataError, match=f"arrays: {message}"):
        ImageArrays((images[0], train), (images[1], test)).info()


def test_labels_from_1_beside_names_say_so():
    images = np.zeros((4, 8, 8, 1), np.uint8)
    with pytest.raises(DataError, match="a label is 2; allowed: 0 to 1; they start at 1: subtract 1"):
        ImageArrays((images, [1, 2, 1, 2]), (images, [1, 2, 1, 2]), ["cat", "dog"]).info()


@pytest.mark.parametrize("labels", [np.arange(20) % 9, np.zeros(20, int), np.arange(20) % 9 + 1])
def test_idx_files_are_refused_when_they_are_opened(labels, tmp_path):
    for stem in ("train", "t10k"):
        write_idx(tmp_path / f"{stem}-images-idx3-ubyte", np.zeros((20, 28, 28), np.uint8))
        write_idx(tmp_path / f"{stem}-labels-idx1-ubyte", labels.astype(np.uint8))
    data = Data(dataset="mnist", data_dir=str(tmp_path))
    empty = int(np.setdiff1d(np.arange(10), labels)[0])
    with pytest.raises(DataError, match=f"mnist: .*class '{empty}' .label {empty}. has no"):
        open_data(data, describe(data), (28, 28), 1)


@pytest.mark.parametrize("name", ["even_images", "odd_images"])
def test_copies_of_tfds_are_refused_when_they_are_opened(name, prepared, tmp_path):
    """Held in memory and streamed."""
    shutil.copytree(prepared / name, tmp_path / name)
    names = next((tmp_path / name).rglob("features.json"))
    names.write_text(names.read_text().replace('"numClasses": "3"', '"numClasses": "4"'))
    (names.parent / "label.labels.txt").write_text("cat\ndog\nowl\nyak\n")
    data = settings(name, tmp_path)
    with pytest.raises(DataError, match=r"class 'yak' .label 3. has no training image"):
        open_data(data, describe(data), (8, 8), 3)


def test_good_labels_pass():
    check_classes(np.array([0, 1, 2]), np.array([1]), ["a", "b", "c"], "x")


# Sizes


def a_folder(root, sides):
    """Two classes; `sides` of the training images of each, then of the test image."""
    for split, part in (("train", sides[:-1]), ("test", sides[-1:])):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for index, side in enumerate(part):
                Image.new("RGB", (side, 8)).save(root / split / name / f"{index:03}.png")
    return Data(dataset=f"folder:{root}")


@pytest.mark.parametrize("sides", [[8] * 300 + [9, 8], [8, 8, 9], [9] + [8] * 5], ids=["late", "test", "first"])
def test_a_folder_has_a_size_only_if_all_its_files_have_it(sides, tmp_path):
    assert describe(a_folder(tmp_path / "odd", sides)).image_shape == (None, None, 3)
    assert describe(a_folder(tmp_path / "even", [8] * 4)).image_shape == (8, 8, 3)


def test_splits_of_two_sizes_have_none(tmp_path):
    images = {"x_train": np.zeros((4, 8, 8, 1), np.uint8), "x_test": np.zeros((4, 9, 8, 1), np.uint8)}
    np.savez(tmp_path / "a.npz", **images, y_train=np.arange(4) % 2, y_test=np.arange(4) % 2)
    assert describe(Data(dataset=f"npz:{tmp_path}/a.npz")).image_shape == (None, None, 1)
    own = ImageArrays((images["x_train"], np.arange(4) % 2), (images["x_test"], np.arange(4) % 2))
    assert own.info().image_shape == (None, None, 1)
    for stem, side in (("train", 28), ("t10k", 20)):
        write_idx(tmp_path / f"{stem}-images-idx3-ubyte", np.zeros((10, side, side), np.uint8))
        write_idx(tmp_path / f"{stem}-labels-idx1-ubyte", np.arange(10, dtype=np.uint8))
    assert describe(Data(dataset="mnist", data_dir=str(tmp_path))).image_shape == (None, None, 1)


def test_a_run_of_before_sizes_were_looked_at_goes_on(tmp_path, capsys):
    """Its run.json has the size of the first images, and its spec the size that it was trained at."""
    data = a_folder(tmp_path / "images", [8, 8, 9, 8])
    files = tmp_path / "s.yaml", tmp_path / "r.yaml"
    files[0].write_text("name: s\ninput_shape: [8, 8, 3]\nblocks: [{conv: 2}]\n")
    files[1].write_text(f"name: r\ndata: {{dataset: '{data.dataset}', validation: 5}}\ntraining: {{epochs: 1, batch_size: 1}}\n")
    run = train_spec(*files, workdir=tmp_path / "run", quiet=True)
    # Of six images of two classes one is left to train on, which is said once.
    assert capsys.readouterr().err.count("1 of 2 classes have no training image: only 1 image(s) are left for training") == 1
    as_before(run.workdir, image_shape=[8, 8, 3])
    assert len(validating(run.workdir)) == 5


# Split by class


def counts(labels, examples, classes):
    return np.bincount(labels[examples], minlength=classes)


@pytest.mark.parametrize(
    ("per_class", "limit", "validation", "held", "used"),
    [
        # 10 of 100 images in shares of 5, 3, 2; then of 20 images 4 are held.
        ([50, 30, 20], 100, 10, [5, 3, 2], [50, 30, 20]),
        ([50, 30, 20], 20, 4, [2, 1, 1], [10, 6, 4]),
        # 0.25 * (7, 2, 1) = 1.75, 0.5, 0.25 of 2.5, so 3: 1, 0, 0 and two more for the largest remainders.
        ([7, 2, 1], 10, 3, [2, 1, 0], [7, 2, 1]),
        # Every class keeps a training image: of 3, 1, 1 only the first can give.
        ([3, 1, 1], 5, 2, [2, 0, 0], [3, 1, 1]),
        # A limit leaves every class an image: 6 * (98, 1, 1) / 100 = 5.88, 0.06, 0.06.
        ([98, 1, 1], 6, 0, [0, 0, 0], [4, 1, 1]),
        # It cannot be: 3 images of 4 classes for training.
        ([2, 2, 2, 2], 8, 5, [2, 1, 1, 1], [2, 2, 2, 2]),
        ([5, 0, 5], 4, 2, [1, 0, 1], [2, 0, 2]),
    ],
)  # fmt: skip
def test_shares_of_classes_by_hand(per_class, limit, validation, held, used):
    rng = np.random.default_rng(3)
    labels = rng.permutation(np.repeat(np.arange(len(per_class)), per_class)).astype(np.int32)
    order = rng.permutation(len(labels))
    train, validate = divide_by_class(order, labels, limit, validation)
    assert len(train) + len(validate) == limit and len(validate) == validation
    assert not set(train) & set(validate) and list(train) == sorted(train) and list(validate) == sorted(validate)
    found = counts(labels, validate, len(per_class))
    if validation == 5:  # which class gives the odd one does not matter
        found = np.sort(found)[::-1]
    assert found.tolist() == held
    assert (counts(labels, train, len(per_class)) + counts(labels, validate, len(per_class))).tolist() == used
    # Within a class those that come first in the order validate.
    place = np.argsort(order)
    for label in range(len(per_class)):
        ours, theirs = (place[part[labels[part] == label]] for part in (validate, train))
        assert not len(ours) or not len(theirs) or ours.max() < theirs.min()


def test_totals_are_as_they_were_and_classes_keep_their_share():
    rng = np.random.default_rng(0)
    for _ in range(200):
        labels = rng.choice(int(rng.integers(1, 12)), int(rng.integers(2, 90))).astype(np.int32)
        limit = int(rng.integers(1, len(labels) + 1))
        validation = int(rng.integers(0, limit))
        order = rng.permutation(len(labels))
        ours, theirs = divide_by_class(order, labels, limit, validation), divide_at_random(order, limit, validation)
        assert [len(part) for part in ours] == [len(part) for part in theirs] == [limit - validation, validation]
        present = np.unique(labels)
        if limit - validation >= len(present):
            assert np.array_equal(np.unique(labels[ours[0]]), present)


def pipeline(labels, by_class=True, **more):
    labels = np.asarray(labels)
    split = ArraySplit(np.zeros((len(labels), 2, 2, 1), np.uint8), labels)
    return Pipeline(split, split, Data(dataset="own", **more), (2, 2), seed=5, by_class=by_class)


def test_the_seed_decides_and_older_runs_keep_their_draw():
    labels = np.arange(60) % 3
    one, two = pipeline(labels, validation=12), pipeline(labels, validation=12)
    np.testing.assert_array_equal(one.parts["validation"], two.parts["validation"])
    assert np.bincount(labels[one.parts["validation"]]).tolist() == [4, 4, 4] and one.notices == ()
    old = pipeline(labels, by_class=False, validation=12, train_examples=40)
    order = np.random.default_rng((5, 1)).permutation(60)[:40]  # as it was before
    np.testing.assert_array_equal(old.parts["validation"], np.sort(order[:12]))
    np.testing.assert_array_equal(old.parts["train"], np.sort(order[12:]))
    assert not old.by_class and old.notices == ()


def test_a_class_without_training_images_is_said():
    few = pipeline(np.arange(40) % 20, validation=0, train_examples=15)
    assert few.notices == ("own: 5 of 20 classes have no training image: only 15 image(s) are left for training",)


def test_labels_that_cost_too_much_are_not_read(prepared, monkeypatch):
    """A streamed copy of more than 20 GB is split as before, which is said; its labels are not looked at."""
    data = settings("odd_images", prepared, validation=10, normalize="unit", augment=Augment(random_resized_crop=True))
    info = describe(data)
    sources = open_data(data, info, (8, 8), 3)
    whole = Pipeline(*sources, data, (8, 8), seed=0)
    assert whole.by_class and np.bincount(sources[0].labels[whole.parts["validation"]]).tolist() == [4, 3, 3]
    monkeypatch.setattr(TfdsSplit, "MOST_BYTES", 100)
    monkeypatch.setattr(TfdsSplit, "labels", property(lambda _: pytest.fail("read")))
    split = Pipeline(*open_data(data, info, (8, 8), 3), data, (8, 8), seed=0)
    assert not split.by_class and "tfds:odd_images: validation images are drawn from all alike" in split.notices[0]
    np.testing.assert_array_equal(split.parts["validation"], np.sort(np.random.default_rng((0, 1)).permutation(40)[:10]))
    alone = data.model_copy(update={"validation": 0})
    assert Pipeline(*open_data(alone, info, (8, 8), 3), alone, (8, 8), seed=0).notices == ()


SPEC = "name: s\nblocks: [{conv: 2}]\n"
RECIPE = """
name: r
data: {dataset: digits, train_examples: 90, test_examples: 20, validation: 30}
training: {epochs: 2, batch_size: 20}
"""


def as_before(workdir, **more):
    """Makes a run folder look like one of before images were drawn class by class."""
    unsealed(workdir)
    facts = json.loads((workdir / "run.json").read_text())
    data = {key: value for key, value in facts["data"].items() if key != "split"}
    (workdir / "run.json").write_text(json.dumps({**facts, "data": {**data, **more}}))


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """A run of before: finished, and another one that was stopped after 5 of its 6 steps."""
    folder = tmp_path_factory.mktemp("older")
    (folder / "s.yaml").write_text(SPEC)
    (folder / "r.yaml").write_text(RECIPE)
    real, seen = runs.start_job, []

    def step(self, *arguments):
        seen.append(1)
        if len(seen) == 6 + 5:
            signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "start_job", lambda *a: runs.replace(real(*a), by_class=False))
        patch.setattr(Reporter, "step", step)
        train_spec(folder / "s.yaml", folder / "r.yaml", workdir=folder / "whole", quiet=True)
        with pytest.raises(Stopped):
            train_spec(folder / "s.yaml", folder / "r.yaml", workdir=folder / "half", quiet=True)
    for name in ("whole", "half"):
        as_before(folder / name)
    return folder


def validating(workdir):
    """The examples that a run validates with, as it is opened."""
    folder = runs.Workdir.open(workdir)
    return runs.open_pipeline(runs.open_job(folder, None), None, folder).parts["validation"]


def test_an_older_run_goes_on_with_its_own_split(older):
    drawn = np.sort(np.random.default_rng((0, 1)).permutation(1437)[:30])
    np.testing.assert_array_equal(validating(older / "half"), drawn)
    done = resume_run(older / "half", quiet=True)
    same_weights(weights(done.workdir), weights(older / "whole"))
    assert without_time(done.workdir) == without_time(older / "whole")
    np.testing.assert_array_equal(validating(older / "half"), drawn)


def test_what_starts_from_an_older_run_splits_as_it_did(older, tmp_path):
    files = older / "s.yaml", older / "r.yaml"
    run = train_spec(*files, [f"start_from={older / 'whole'}", "training.epochs=1"], tmp_path / "new", quiet=True)
    assert json.loads((run.workdir / "run.json").read_text())["data"]["split"] == "random"
    np.testing.assert_array_equal(validating(run.workdir), validating(older / "whole"))
    # Without validation images there is nothing to keep apart.
    job = prepare(spec_of(SPEC), recipe_of(RECIPE, f"start_from={older / 'whole'}", "data.validation=0"))
    assert starting.check_start_run(job).by_class
    fresh = prepare(spec_of(SPEC), recipe_of(RECIPE, f"start_from={run.workdir}"))
    assert fresh.by_class and not starting.check_start_run(fresh).by_class


def test_a_plan_counts_as_the_pipeline_does():
    job = prepare(spec_of(SPEC), recipe_of(RECIPE))
    train, test = open_data(job.recipe.data, job.data, (8, 8), 1)
    made = Pipeline(train, test, job.recipe.data, (8, 8), 0)
    assert [len(made.parts[part]) for part in ("train", "validation", "test")] == [60, 30, 20]
    assert (job.train_images, job.validation_images, job.test_images) == (60, 30, 20)
    assert job.by_class and data_facts(job)["split"] == "by_class"
    assert np.bincount(train.labels[made.parts["validation"]]).tolist() == [3] * 10
    assert tf.reduce_sum(tf.concat([weight for *_, weight in made.evaluation("validation", 16)], 0)) == 30
