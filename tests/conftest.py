"""Two logical CPU devices for every test, configured before TensorFlow runs anything; small specs and recipes."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pathlib import Path

import pytest
import tensorflow as tf

from kerasgreedy.spec.load import Document, check
from kerasgreedy.spec.model import ModelSpec
from kerasgreedy.spec.overrides import parse_override
from kerasgreedy.spec.recipe import Recipe
from kerasgreedy.spec.source import Source

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


def pytest_configure() -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A small spec and a fast recipe on disk."""
    spec, recipe = tmp_path / "tiny.yaml", tmp_path / "fast.yaml"
    spec.write_text(TINY_SPEC)
    recipe.write_text(TINY_RECIPE)
    return spec, recipe


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
