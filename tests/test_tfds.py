"""TFDS sets from a prepared copy that the test makes itself, without a network."""

import time

import numpy as np
import pytest
from conftest import TINY_SPEC

from kerasgreedy.data.catalog import describe
from kerasgreedy.data.pipeline import Pipeline
from kerasgreedy.data.source import ArraySource, TfdsSource, open_data
from kerasgreedy.errors import DataError
from kerasgreedy.spec.recipe import Augment, Data
from kerasgreedy.train.run import train_spec

COUNTS = {"train": 40, "test": 12}


def pixels(split: str, index: int, side: int) -> np.ndarray:
    return np.random.default_rng((len(split), index)).integers(0, 256, (side, side, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Two sets: `even_images`, all 8x8, and `odd_images`, of different sizes."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")

    def make(name: str, shape: tuple[int | None, int | None, int], sides: tuple[int, ...]) -> None:
        def info(self):
            features = tfds.features.FeaturesDict(
                {"image": tfds.features.Image(shape=shape), "label": tfds.features.ClassLabel(names=["cat", "dog", "owl"])}
            )
            return tfds.core.DatasetInfo(builder=self, features=features)

        def split_generators(self, _):
            return {split: self._generate_examples(split) for split in COUNTS}

        def generate(self, split):
            for i in range(COUNTS[split]):
                yield i, {"image": pixels(split, i, sides[i % len(sides)]), "label": i % 3}

        builder = type(
            name.title().replace("_", ""),
            (tfds.core.GeneratorBasedBuilder,),
            {"VERSION": tfds.core.Version("1.0.0"), "_info": info, "_split_generators": split_generators,
             "_generate_examples": generate, "__module__": __name__},
        )  # fmt: skip
        builder(data_dir=str(folder)).download_and_prepare()

    make("even_images", (8, 8, 3), (8,))
    make("odd_images", (None, None, 3), (8, 11, 14))
    return folder


def settings(name, folder, **more):
    return Data(dataset=f"tfds:{name}", data_dir=str(folder), **more)


def test_facts_are_read_without_tfds(prepared):
    info = describe(settings("even_images", prepared))
    assert (info.image_shape, info.class_names) == ((8, 8, 3), ("cat", "dog", "owl"))
    assert (info.train_examples, info.test_examples) == (40, 12)
    assert describe(settings("odd_images", prepared)).image_shape == (None, None, 3)


def test_a_small_set_is_held_in_memory(prepared):
    train, test = open_data(settings("even_images", prepared), (8, 8), 3)
    assert isinstance(train, ArraySource) and (train.size, test.size) == (40, 12)
    wanted = {pixels("train", i, 8).tobytes(): i % 3 for i in range(40)}
    assert {image.tobytes(): label for image, label in zip(train.images, train.labels, strict=True)} == wanted


def test_images_of_many_sizes_are_streamed_in_a_seeded_order(prepared):
    data = settings("odd_images", prepared, validation=10, test_resize=9, augment=Augment(random_resized_crop=True))
    sources = open_data(data, (8, 8), 3)
    assert all(isinstance(source, TfdsSource) for source in sources)
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


def test_a_run_on_a_prepared_copy(prepared, tmp_path):
    (tmp_path / "s.yaml").write_text(TINY_SPEC)
    (tmp_path / "r.yaml").write_text(
        f"name: r\ndata: {{dataset: 'tfds:even_images', data_dir: '{prepared}'}}\ntraining: {{epochs: 1, batch_size: 12}}\n"
    )
    run = train_spec(tmp_path / "s.yaml", tmp_path / "r.yaml", workdir=tmp_path / "run", quiet=True)
    assert run.results["examples"] == 12 and run.network.architecture.classes == 3


def test_what_cannot_be_had_is_said_within_seconds(tmp_path):
    start = time.monotonic()
    with pytest.raises(DataError, match="tfds:cifar10: no prepared copy below"):
        describe(settings("cifar10", tmp_path))
    with pytest.raises(DataError, match="did you mean 'cifar100'"):
        describe(settings("cifar1000", tmp_path))
    assert time.monotonic() - start < 5
