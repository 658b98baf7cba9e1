"""TFDS sets from a prepared copy that the test makes itself, without a network."""

import shutil
import time

import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY_SPEC
from conftest import tfds_pixels as pixels

from kerasgreedy.data.augment import whole_image
from kerasgreedy.data.catalog import describe
from kerasgreedy.data.loaders import open_data
from kerasgreedy.data.overview import overview, recipe_for
from kerasgreedy.data.pipeline import Pipeline, read_rows
from kerasgreedy.data.splits import ArraySplit, TfdsSplit
from kerasgreedy.errors import DataError
from kerasgreedy.spec.augmentation import Augment
from kerasgreedy.spec.recipe import Data
from kerasgreedy.train.entry_points import train_spec
from kerasgreedy.train.evaluating import evaluate_run


def settings(name, folder, **more):
    return Data(dataset=f"tfds:{name}", data_dir=str(folder), **more)


def test_facts_are_read_without_tfds(prepared):
    info = describe(settings("even_images", prepared))
    assert (info.image_shape, info.class_names) == ((8, 8, 3), ("cat", "dog", "owl"))
    assert (info.train_examples, info.test_examples) == (40, 12)
    assert describe(settings("odd_images", prepared)).image_shape == (None, None, 3)


def test_a_small_set_is_held_in_memory(prepared):
    data = settings("even_images", prepared)
    train, test = open_data(data, describe(data), (8, 8), 3)
    assert isinstance(train, ArraySplit) and (train.size, test.size) == (40, 12)
    wanted = {pixels("train", i, 8).tobytes(): i % 3 for i in range(40)}
    assert {image.tobytes(): label for image, label in zip(train.images, train.labels, strict=True)} == wanted


def test_images_of_many_sizes_are_streamed_in_a_seeded_order(prepared):
    data = settings("odd_images", prepared, validation=10, test_resize=9, augment=Augment(random_resized_crop=True))
    sources = open_data(data, describe(data), (8, 8), 3)
    assert all(isinstance(source, TfdsSplit) for source in sources)
    pipeline = Pipeline(*sources, data, (8, 8), seed=0)

    def epoch(number):
        return [(x.numpy(), y.numpy()) for x, y in pipeline.training(0, number, 6)]

    one, again, other = epoch(0), epoch(0), epoch(1)
    assert len(one) == 5 == pipeline.steps(6)
    for (x, y), (x2, y2) in zip(one, again, strict=True):
        np.testing.assert_array_equal(x, x2)
        np.testing.assert_array_equal(y, y2)
    assert any(not np.array_equal(y, y2) for (_, y), (_, y2) in zip(one, other, strict=True))
    validation = [w.numpy().sum() for _, _, w in pipeline.evaluation("validation", 4)]
    assert sum(validation) == 10
    rest = [(x.numpy(), y.numpy()) for x, y in pipeline.training(0, 0, 6, first_step=2)]
    assert len(rest) == 3
    for (x, y), (x2, y2) in zip(rest, one[2:], strict=True):
        np.testing.assert_array_equal(x, x2)
        np.testing.assert_array_equal(y, y2)


def test_some_rows_are_read_at_the_network_s_size(prepared):
    """Of a copy whose images have many sizes, and of one in memory, each in its place."""
    rows = np.array([3, 4, 11])
    for name, kind in (("odd_images", TfdsSplit), ("even_images", ArraySplit)):
        data = settings(name, prepared)
        _, test = open_data(data, describe(data), (8, 8), 3)
        assert isinstance(test, kind)
        found = read_rows(test, rows, (8, 8), name)
        order = np.argsort(
            list(test.batches(np.arange(12), 1, False).map(lambda index, *_: tf.reshape(index, ())).as_numpy_iterator())
        )
        every = [image.numpy() for _, image, _ in test.batches(np.arange(12), 1, False)]
        wanted = [whole_image(np.squeeze(every[order[row]]), (8, 8)) for row in rows]
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, np.stack(wanted))
    assert read_rows(test, rows[:0], (8, 8), name).shape == (0, 8, 8, 3)


def test_a_run_on_a_prepared_copy(prepared, tmp_path):
    (tmp_path / "s.yaml").write_text(TINY_SPEC)
    (tmp_path / "r.yaml").write_text(
        f"name: r\ndata: {{dataset: 'tfds:even_images', data_dir: '{prepared}'}}\ntraining: {{epochs: 1, batch_size: 12}}\n"
    )
    run = train_spec(tmp_path / "s.yaml", tmp_path / "r.yaml", workdir=tmp_path / "run", quiet=True)
    assert run.results["examples"] == 12 and run.network.architecture.classes == 3


def test_a_plain_name_opens_a_copy(prepared, tmp_path):
    """A copy is known by its folder; its own files keep the name that they were made with."""
    shutil.copytree(prepared / "even_images", tmp_path / "cifar10")
    data = Data(dataset="cifar10", data_dir=str(tmp_path))
    info = describe(data)
    assert (info.class_names, info.origin) == (("cat", "dog", "owl"), "TFDS copy cifar10 1.0.0")
    train, _ = open_data(data, info, (8, 8), 3)
    assert {image.tobytes() for image in train.images} == {pixels("train", i, 8).tobytes() for i in range(40)}
    shutil.copytree(prepared / "even_images", tmp_path / "fashion_mnist")  # no idx files here: the copy is taken
    train, test = open_data(Data(dataset="fashion_mnist", data_dir=str(tmp_path)), info, (8, 8), 3)
    assert isinstance(train, ArraySplit) and (train.size, test.size) == (40, 12)


def test_a_run_names_the_copy_it_was_trained_on(prepared, tmp_path):
    shutil.copytree(prepared / "even_images", tmp_path / "cifar10")
    (tmp_path / "s.yaml").write_text(TINY_SPEC)
    (tmp_path / "r.yaml").write_text(
        f"name: r\ndata: {{dataset: cifar10, data_dir: '{tmp_path}'}}\ntraining: {{epochs: 1, batch_size: 12}}\n"
    )
    run = train_spec(tmp_path / "s.yaml", tmp_path / "r.yaml", workdir=tmp_path / "run", quiet=True)
    assert evaluate_run(run.workdir)["depths"] == run.results["depths"]
    shutil.move(tmp_path / "cifar10/1.0.0", tmp_path / "cifar10/1.1.0")  # another version may hold another order
    with pytest.raises(DataError, match="origin was TFDS copy cifar10 1.0.0 and is TFDS copy cifar10 1.1.0"):
        evaluate_run(run.workdir)


def test_an_overview_of_a_streamed_copy(prepared):
    sets = [f"data.data_dir={prepared}", "data.test_resize=9", "data.image_size=8", "data.augment.random_resized_crop=true"]
    seen = overview(recipe_for("tfds:odd_images", None, sets))
    assert list(seen.train_counts) == [14, 13, 13] and list(seen.test_counts) == [4, 4, 4]
    assert seen.views.shape == (8, 7, 8, 8, 3) and list(seen.view_labels) == [0, 0, 0, 1, 1, 1, 2, 2]
    assert len(seen.tested) == 12
    plain = overview(recipe_for("tfds:even_images", None, sets[:1]))  # held in memory
    made = {pixels("train", i, 8).tobytes(): i % 3 for i in range(40)}
    assert [made[image.tobytes()] for image in plain.originals] == list(plain.view_labels)


def test_what_is_fetched_is_described_by_its_copy(prepared, tmp_path, monkeypatch):
    """The table knows no class names of CIFAR-10; the run folder must hold those of the copy, or resuming would refuse it."""
    import tensorflow_datasets as tfds

    class Builder:
        def download_and_prepare(self):
            shutil.copytree(prepared / "even_images", tmp_path / "t/cifar10")

    monkeypatch.setattr(tfds, "builder", lambda name, data_dir: Builder())
    (tmp_path / "s.yaml").write_text(TINY_SPEC)
    (tmp_path / "r.yaml").write_text(
        f"name: r\ndata: {{dataset: cifar10, data_dir: '{tmp_path}/t', download: true}}\n"
        "training: {epochs: 1, batch_size: 12}\n"
    )
    run = train_spec(tmp_path / "s.yaml", tmp_path / "r.yaml", workdir=tmp_path / "run", quiet=True)
    assert run.network.architecture.classes == 3 and evaluate_run(run.workdir)["depths"] == run.results["depths"]


def test_what_cannot_be_had_is_said_within_seconds(tmp_path):
    start = time.monotonic()
    with pytest.raises(DataError, match="tfds:cifar10: no prepared copy below"):
        describe(settings("cifar10", tmp_path))
    with pytest.raises(DataError, match="did you mean 'cifar100'"):
        describe(settings("cifar1000", tmp_path))
    assert time.monotonic() - start < 5
