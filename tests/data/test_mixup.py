"""Mixup by hand: images, labels, losses, gradients, over devices and parts of a batch; and what does without it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY_RECIPE, TINY_SPEC, recipe_of, same_weights, spec_of, stop_at, two_devices, weights
from scipy import stats

from kerasgreedy.data.augment import Draws, mix
from kerasgreedy.data.catalog import describe
from kerasgreedy.data.loaders import open_data
from kerasgreedy.data.pipeline import Pipeline
from kerasgreedy.errors import InputError, Stopped
from kerasgreedy.nn.mixed import Mixed, by_label
from kerasgreedy.spec.augmentation import Augment
from kerasgreedy.spec.recipe import Data
from kerasgreedy.train.entry_points import resume_run, train_spec

MIXUP = ["data.augment={mixup: 0.4}", "training.keep=last"]


def pipeline(**augment):
    data = Data(dataset="digits", train_examples=40, validation=0, augment=Augment(**augment))
    return Pipeline(*open_data(data, describe(data), (8, 8), 1), data, (8, 8), seed=3)


def test_images_and_labels_by_hand():
    images = np.random.default_rng(0).normal(size=(4, 3, 3, 1)).astype(np.float32)
    shares = np.array([0.0, 1.0, 0.25, 0.5], np.float32)
    mixed, labels = mix(tf.constant(images), tf.constant([5, 6, 7, 8]), tf.constant(np.stack([shares * 0, shares], axis=1)))
    s = shares[:, None, None, None]
    np.testing.assert_allclose(mixed, s * images + (1 - s) * images[[1, 2, 3, 0]], rtol=1e-6)
    assert labels.first.numpy().tolist() == [5, 6, 7, 8] and labels.second.numpy().tolist() == [6, 7, 8, 5]
    np.testing.assert_array_equal(labels.share, shares)


def test_shares_are_of_the_beta_distribution_and_repeat():
    shares = Draws.of(4000, (1, 2), Augment(mixup=0.3)).uniform[:, -1]
    assert stats.kstest(shares, stats.beta(0.3, 0.3).cdf).pvalue > 0.01
    np.testing.assert_array_equal(shares, Draws.of(4000, (1, 2), Augment(mixup=0.3, rotate=5)).uniform[:, -1])


def test_batches_are_mixtures_of_those_without():
    plain, mixing = pipeline(horizontal_flip=True), pipeline(horizontal_flip=True, mixup=0.4)
    for (x, label), (mixed, labels) in zip(plain.training(1, 2, 8), mixing.training(1, 2, 8), strict=True):
        share = labels.share.numpy()[:, None, None, None]
        np.testing.assert_allclose(mixed, share * x + (1 - share) * np.roll(x, -1, axis=0), atol=1e-5)
        np.testing.assert_array_equal(labels.first, label)
        np.testing.assert_array_equal(labels.second, np.roll(label, -1))
    later = list(mixing.training(1, 2, 8, first_step=3))
    np.testing.assert_array_equal(later[0][0], list(mixing.training(1, 2, 8))[3][0])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_the_mixed_target(smoothing):
    from kerasgreedy.nn.objectives import CrossEntropyLoss, SquaredErrorLoss

    rng = np.random.default_rng(2)
    z, a, b = tf.Variable(rng.normal(size=(6, 5)).astype(np.float32)), rng.integers(0, 5, 6), rng.integers(0, 5, 6)
    share = rng.random(6).astype(np.float32)
    labels = Mixed(tf.constant(a, tf.int32), tf.constant(b, tf.int32), tf.constant(share))
    target = share[:, None] * np.eye(5)[a] + (1 - share[:, None]) * np.eye(5)[b]
    target = (1 - smoothing) * target + smoothing / 5
    log = np.asarray(z) - np.log(np.exp(np.asarray(z, float)).sum(axis=1, keepdims=True))
    loss = CrossEntropyLoss(None, smoothing)
    np.testing.assert_allclose(by_label(lambda each: loss(z, each, z), labels), -(target * log).sum(axis=1), rtol=1e-5)
    squared = SquaredErrorLoss(None, smoothing)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(by_label(lambda each: squared(z, each, z), labels))
    np.testing.assert_allclose(tape.gradient(value, z), np.asarray(z) - target, atol=1e-5)


def test_a_step_by_hand(files, tmp_path):
    """Class weights too: one step of plain SGD on a linear head, from the run's own batch, in float64."""
    spec = "name: linear\nblocks: [{avg_pool: 2}]\nauxiliary_head: {hidden_layers: 0}\n"
    files[0].write_text(spec)
    sets = [*MIXUP, "strategy=end_to_end", "training.epochs=1", "training.optimizer={name: sgd, learning_rate: 0.5, momentum: 0}"]
    sets += ["data.validation=0", "data.train_examples=32", "training.class_weights={'3': 2.5}"]
    run = train_spec(*files, sets, tmp_path / "run", quiet=True)
    before = {v.path: np.asarray(v, float) for v in _fresh(files, sets)}
    after = {v.path: np.asarray(v, float) for name in run.network.names for v in run.network.component(name).trainable_variables}
    job_pipeline = _pipeline_of(files, sets)
    (x, labels), *_ = list(job_pipeline.training(0, 0, 32))
    (kernel,) = [value for value in before.values() if value.ndim == 2]
    (bias,) = [value for value in before.values() if value.ndim == 1]
    features = np.asarray(x, float).reshape(32, 2, 4, 2, 4).mean(axis=(2, 4)).reshape(32, -1)  # pooled to 2x2 by the head
    z = features @ kernel + bias
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    factors = np.where(np.arange(10) == 3, 2.5, 1.0)
    gradient = 0
    for label, share in ((labels.first.numpy(), labels.share.numpy()), (labels.second.numpy(), 1 - labels.share.numpy())):
        gradient = gradient + (share * factors[label])[:, None] * (p - np.eye(10)[label])
    (new_kernel,) = [value for value in after.values() if value.ndim == 2]
    np.testing.assert_allclose(new_kernel, kernel - 0.5 * features.T @ gradient / 32, atol=1e-5)


def _job(files, sets):
    from kerasgreedy.plan.preparation import prepare
    from kerasgreedy.spec.load import load

    return prepare(*load(*files, sets))


def _fresh(files, sets):
    from kerasgreedy.network.build import Network

    job = _job(files, sets)
    network = Network(job.architecture, job.recipe.seed)
    return [v for name in network.names for v in network.component(name).trainable_variables]


def _pipeline_of(files, sets):
    from kerasgreedy.runs.open_run import open_pipeline

    return open_pipeline(_job(files, sets), None)


@pytest.mark.slow
def test_two_devices_parts_of_a_batch_and_resumed_equal_one(files, tmp_path, monkeypatch):
    """Without batch norm, so that parts change nothing but rounding."""
    plain = ["block_defaults.batch_norm=false", "auxiliary_head.batch_norm=false", "blocks.1=[{conv: 6}]", "training.epochs=1"]
    one = train_spec(*files, [*MIXUP, *plain], tmp_path / "one", quiet=True)
    two = train_spec(*files, [*MIXUP, *plain], tmp_path / "two", strategy=two_devices(), quiet=True)
    parts = train_spec(*files, [*MIXUP, *plain, "training.accumulation=4"], tmp_path / "parts", quiet=True)
    for other in (two, parts):
        for key, value in weights(one.workdir).items():
            if "seed" not in key:
                np.testing.assert_allclose(weights(other.workdir)[key], value, atol=2e-5, err_msg=key)
    stop_at(monkeypatch, 6)
    with pytest.raises(Stopped):
        train_spec(*files, [*MIXUP, *plain], tmp_path / "stopped", quiet=True)
    monkeypatch.undo()
    same_weights(weights(resume_run(tmp_path / "stopped", quiet=True).workdir), weights(one.workdir))


def test_without_validation_data_a_training_batch_is_looked_at(files, tmp_path):
    run = train_spec(*files, [*MIXUP, "data.validation=0", "training.epochs=1"], tmp_path / "run", quiet=True)
    assert keras.backend.backend() == "tensorflow" and run.results["epochs"] == 3


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["training.solver={name: alternation, warm_up_epochs: 1}"], "solver 'alternation' works on images one by one"),
        (["data.augment_views=2"], "a view would not be of one image"),
        (["data.augment.mixup=-1"], "received -1"),
    ],
)
def test_what_cannot_mix(sets, message):
    with pytest.raises(InputError, match=message):
        recipe_of(TINY_RECIPE, "data.augment={mixup: 0.4}", *sets)
    assert spec_of(TINY_SPEC)
