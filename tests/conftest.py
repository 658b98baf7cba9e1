"""Two logical CPU devices for every test, configured before TensorFlow runs anything; small specs and recipes."""

import io
import json
import os
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as `import kerasgreedy` does, which comes after TensorFlow here

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from command_line import call, command, place  # noqa: F401 (fixtures)
from documents import page, shared  # noqa: F401 (fixtures)
from payloads import nothing_ran  # noqa: F401 (a fixture)
from PIL import Image

from kerasgreedy.network import latency
from kerasgreedy.pictures import write_picture
from kerasgreedy.reports.run_files import read_metrics
from kerasgreedy.runs.checkpoint import CheckpointStore
from kerasgreedy.spec.load import Document, check
from kerasgreedy.spec.model import ModelSpec
from kerasgreedy.spec.overrides import parse_override
from kerasgreedy.spec.recipe import Recipe
from kerasgreedy.spec.source import Source
from kerasgreedy.train import results
from kerasgreedy.train.progress import Reporter

ROOT = Path(__file__).resolve().parent.parent

TINY_SPEC = """
name: tiny
block_defaults: {batch_norm: true}
blocks:
  - {conv: 4}
  - [{conv: 6, downsample: invertible}, {dropout: 0.25}]
  - {residual: [{conv: 6}, {conv: 6, activation: linear}]}
auxiliary_head: {hidden_layers: 1, width: 1x, batch_norm: true}
"""

TINY_RECIPE = """
name: fast
data: {dataset: digits, train_examples: 160, test_examples: 50, validation: 32, augment: {pad_crop: 1, horizontal_flip: true}}
training: {epochs: 2, batch_size: 32, optimizer: {name: sgd, learning_rate: 0.05, weight_decay: 5e-4}, keep: best}
"""

PRUNED_SPEC = """
name: small
block_defaults: {batch_norm: true}
blocks:
  - {conv: 4}
  - {conv: 6, downsample: invertible}
  - {residual: [{conv: 5}, {conv: 6, activation: linear}]}
auxiliary_head: {pool_to: 4}
"""

PRUNING_RECIPE = """
name: pruning
data: {dataset: digits, train_examples: 128, test_examples: 40, validation: 32}
training: {epochs: 2, batch_size: 32, optimizer: {name: sgd, learning_rate: 0.1, weight_decay: 5e-4}}
prune: {keep: 0.5, fine_tune: {epochs: 1}}
replace_head: {head: {hidden_layers: 1, width: 3}, training: {epochs: 1}}
"""


def pytest_configure() -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


REAL_TIMING = {"ROUNDS": latency.ROUNDS, "SAMPLE_SECONDS": latency.SAMPLE_SECONDS}


@pytest.fixture(scope="session", autouse=True)
def quick_ends():
    """What a run ends with beside figures takes a moment: blank plots, and costs timed briefly.

    Tests of plots and of timing call these themselves; those of the documents, and of commands in processes of their own, get
    the real ones.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "ROUNDS", 6)
        patch.setattr(latency, "SAMPLE_SECONDS", 0.002)
        patch.setattr(results, "plot_run", blank_plots)
        yield


def blank_plots(folder: Path, found: dict) -> None:
    """A white pixel in the place of each picture."""
    pixel = io.BytesIO()
    Image.new("L", (1, 1), 255).save(pixel, "png")
    for name in ("accuracy_by_depth", "loss", *(["pruning"] if "pruned" in found else [])):
        write_picture(folder / "plots" / f"{name}.png", pixel.getvalue())


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A small spec and a fast recipe on disk."""
    spec, recipe = tmp_path / "tiny.yaml", tmp_path / "fast.yaml"
    spec.write_text(TINY_SPEC)
    recipe.write_text(TINY_RECIPE)
    return spec, recipe


def stop_at(monkeypatch, at: int) -> None:
    """A SIGTERM comes after so many steps of all; `monkeypatch.undo()` before going on."""
    seen = []

    def step(self, *arguments):
        seen.append(1)
        if len(seen) == at:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Reporter, "step", step)


# Specs of many layers that show of a walk over all specs what smaller ones do.
LARGE_SPECS = {
    "resnet152", "googlenet", "vgg16", "vgg19", "resnet110_cifar", "plain110_cifar", "resnet56_cifar", "plain56_cifar",
    *(f"{stem}x{k}_cifar" for stem in ("wide56", "plain56") for k in (2, 4, 8)),
}  # fmt: skip


# One or two of each family of shipped specs.
TYPICAL_SPECS = (
    "simcnn_k1_cifar", "simcnn_k3_imagenet", "vgg11_k3", "resnet18", "resnet20_cifar", "allcnn_c", "nin_cifar10", "alexnet",
    "googlenet_aux", "square_mnist", "convex_two_layer",
)  # fmt: skip


def some(*kept, slow=()):
    """Cases of one kind: some run always, and the others where `make test-slow` asks for them."""
    each = lambda case: case if isinstance(case, tuple) else (case,)  # noqa: E731
    return [*(pytest.param(*each(case)) for case in kept), *(pytest.param(*each(case), marks=pytest.mark.slow) for case in slow)]


def spec_of(text: str, *overrides: str) -> Document[ModelSpec]:
    """A model spec from YAML text."""
    return check(ModelSpec, Source(text, "spec.yaml"), [parse_override(o) for o in overrides])


def recipe_of(text: str = TINY_RECIPE, *overrides: str) -> Document[Recipe]:
    """A recipe from YAML text."""
    return check(Recipe, Source(text, "recipe.yaml"), [parse_override(o) for o in overrides])


def two_devices() -> tf.distribute.Strategy:
    """Two replicas on one CPU; the reduction that allows several strategies in one process."""
    reduce = tf.distribute.HierarchicalCopyAllReduce()
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=reduce)


def weights(workdir):
    snapshot, faults = CheckpointStore(workdir / "checkpoints").load()
    assert faults == []
    return {key: value for arrays in snapshot.arrays.values() for key, value in arrays.items()}


def same_weights(one, two):
    assert one.keys() == two.keys()
    for key, value in one.items():
        np.testing.assert_array_equal(value, two[key], err_msg=key)


def unsealed(workdir):
    """Takes the checksums of spec, recipe and run.json away, so that a changed file is judged by what it says."""
    facts = json.loads((workdir / "run.json").read_text())
    (workdir / "run.json").write_text(json.dumps({k: v for k, v in facts.items() if k not in ("files", "sha256")}))


def without_time(workdir):
    records = read_metrics(workdir)
    return [
        {k: v for k, v in r.items() if k not in ("time", "images_per_second", "elapsed_seconds", "peak_memory_bytes")}
        for r in records
    ]


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run of the small spec and recipe, shared by all tests; they must not change it."""
    from kerasgreedy.train.entry_points import train_spec

    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(TINY_SPEC)
    (folder / "fast.yaml").write_text(TINY_RECIPE)
    return train_spec(folder / "tiny.yaml", folder / "fast.yaml", workdir=folder / "run", quiet=True)


@pytest.fixture(scope="session")
def two_runs(tmp_path_factory) -> list[Path]:
    """Two seeds, trained end to end; five points of the way are kept. Analyses look at them."""
    from kerasgreedy.train.entry_points import train_spec

    folder = tmp_path_factory.mktemp("two_runs")
    (folder / "tiny.yaml").write_text(TINY_SPEC)
    (folder / "fast.yaml").write_text(TINY_RECIPE)
    sets = ["strategy=end_to_end", "keep_checkpoints=5", "training.epochs=4", "training.keep=last", "data.augment={}"]
    return [
        train_spec(folder / "tiny.yaml", folder / "fast.yaml", [*sets, f"seed={seed}"], folder / name, quiet=True).workdir
        for seed, name in enumerate(["one", "two"])
    ]


@pytest.fixture(scope="session")
def pruned(tmp_path_factory):
    """A finished run that removed filters after every block and replaced its last head; tests must not change it."""
    from kerasgreedy.train.entry_points import train_spec

    folder = tmp_path_factory.mktemp("pruned")
    (folder / "small.yaml").write_text(PRUNED_SPEC)
    (folder / "pruning.yaml").write_text(PRUNING_RECIPE)
    return train_spec(folder / "small.yaml", folder / "pruning.yaml", workdir=folder / "run", quiet=True)


TFDS_COUNTS = {"train": 40, "test": 12}


def tfds_pixels(split: str, index: int, side: int) -> np.ndarray:
    return np.random.default_rng((len(split), index)).integers(0, 256, (side, side, 3)).astype(np.uint8)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A folder with two sets of TFDS: `even_images`, all 8x8, and `odd_images`, of different sizes; tests must not change it."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")

    def make(name: str, shape: tuple[int | None, int | None, int], sides: tuple[int, ...]) -> None:
        def info(self):
            features = tfds.features.FeaturesDict(
                {"image": tfds.features.Image(shape=shape), "label": tfds.features.ClassLabel(names=["cat", "dog", "owl"])}
            )
            return tfds.core.DatasetInfo(builder=self, features=features)

        def split_generators(self, _):
            return {split: self._generate_examples(split) for split in TFDS_COUNTS}

        def generate(self, split):
            for i in range(TFDS_COUNTS[split]):
                yield i, {"image": tfds_pixels(split, i, sides[i % len(sides)]), "label": i % 3}

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
