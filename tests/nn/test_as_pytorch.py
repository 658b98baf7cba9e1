"""What Keras does otherwise than PyTorch, and the settings that do it as PyTorch does: equal to torch itself to 1e-6."""

import importlib.util
import itertools
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY_RECIPE, TINY_SPEC, recipe_of, spec_of, stop_at, two_devices
from scipy import stats

from kerasgreedy.errors import SpecError, Stopped
from kerasgreedy.export.portable import portable_model
from kerasgreedy.graph.architecture import architecture
from kerasgreedy.network.build import Network, NetworkFacts
from kerasgreedy.nn.batch_norm import FusedBatchNormalization
from kerasgreedy.solvers.schedules import learning_rates, make_optimizer
from kerasgreedy.spec.training import Sgd, StepSchedule
from kerasgreedy.train.entry_points import resume_run, train_spec

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="pip install torch")
RNG = np.random.default_rng(0)
START, GRADIENTS = RNG.normal(size=(4, 3)), RNG.normal(size=(12, 4, 3))
RATES = learning_rates(0.1, StepSchedule(name="step", factor=0.2, every=1), 3, 4)
SHAPES = {"map": (6, 3, 2, 4), "vector": (6, 4)}
BATCHES = {kind: (3 * RNG.normal(size=(5, *shape)) + 1).astype(np.float32) for kind, shape in SHAPES.items()}
MOMENTA = [(0.0, False), (0.9, False), (0.9, True)]
STRIDED = [(3, 2, 1), (5, 2, 2), (1, 2, 0), (3, 1, 1)]
SIZES = (7, 8, 9)


def strided_network(size, kernel, stride, padding):
    text = f"name: s\nblocks: [{{conv: 5, kernel_size: {kernel}, stride: {stride}, padding: {padding}, use_bias: true}}]\n"
    return Network(architecture(spec_of(text).value, (size, size, 3), 4))


def images_of(size):
    return np.random.default_rng(size).normal(size=(2, size, size, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """What PyTorch gives."""
    folder = tmp_path_factory.mktemp("torch")
    given = {f"norm-{kind}:batches": batches for kind, batches in BATCHES.items()}
    for share, nesterov in MOMENTA:
        about = {"start": START, "rates": RATES, "gradients": GRADIENTS, "share": share, "nesterov": nesterov}
        given |= {f"momentum-{share}-{nesterov}:{key}": value for key, value in about.items()}
    for size, case in itertools.product(SIZES, STRIDED):
        kernel = strided_network(size, *case).arrays("block_1")["block_1/conv_1/kernel"]
        about = {"x": images_of(size), "kernel": kernel, "stride": case[1], "padding": case[2]}
        given |= {f"strided-{size}-{case}:{key}": value for key, value in about.items()}
    np.savez(folder / "given.npz", **given)
    program = Path(__file__).parents[1] / "torch_reference.py"
    subprocess.run([sys.executable, program, folder / "given.npz", folder / "found.npz"], check=True, timeout=300)
    with np.load(folder / "found.npz") as found:
        return dict(found)


@pytest.mark.parametrize(("momentum", "nesterov"), MOMENTA)
def test_momentum_at_a_rate_that_drops(theirs, momentum, nesterov):
    """Twelve steps, the rate a fifth after each four; form `keras` parts from it at the first drop."""
    gaps = {}
    for form in ("pytorch", "keras"):
        variable = keras.Variable(START.astype(np.float32))
        ours = make_optimizer(Sgd(momentum=momentum, nesterov=nesterov, momentum_form=form), RATES)
        ours.build([variable])
        found = []
        for gradient in GRADIENTS:
            ours.apply([tf.constant(gradient, tf.float32)], [variable])
            found.append(np.asarray(variable))
        gaps[form] = np.abs(np.array(found) - theirs[f"momentum-{momentum}-{nesterov}"]).max(axis=(1, 2))
    assert gaps["pytorch"].max() < 1e-6
    assert gaps["keras"][:4].max() < 1e-6 and (gaps["keras"][4:].max() > 1e-2) == (momentum > 0)


def test_a_velocity_of_one_form_is_not_taken_for_one_of_the_other(files, tmp_path, monkeypatch, capsys):
    stop_at(monkeypatch, 3)
    with pytest.raises(Stopped):
        train_spec(*files, workdir=tmp_path / "run", quiet=True)
    monkeypatch.undo()
    resume_run(tmp_path / "run", overrides=["training.optimizer.momentum_form=pytorch"])
    assert "the optimiser is of another kind than before: it begins anew" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["map", "vector"])
@pytest.mark.parametrize("variance", ["unbiased", "biased"])
def test_moving_variance(theirs, kind, variance):
    """Five batches of six: outputs, moving mean and variance. The biased one, Keras's own, is smaller by (n - 1) / n."""
    ours = FusedBatchNormalization(momentum=0.9, epsilon=1e-5, unbiased=variance == "unbiased")
    step = tf.function(lambda x: ours(x, training=True))
    moving = np.ones(4)
    for batch, expected in zip(BATCHES[kind], theirs[f"norm-{kind}/outputs"], strict=True):
        np.testing.assert_allclose(step(batch), expected, atol=2e-6)
        moving = 0.9 * moving + 0.1 * batch.reshape(-1, 4).var(axis=0, ddof=variance == "unbiased")
    np.testing.assert_allclose(ours.moving_mean, theirs[f"norm-{kind}/mean"], rtol=1e-6)
    np.testing.assert_allclose(ours.moving_variance, moving, rtol=1e-6)
    if variance == "unbiased":
        np.testing.assert_allclose(ours.moving_variance, theirs[f"norm-{kind}/variance"], rtol=1e-6)
    assert FusedBatchNormalization.from_config(ours.get_config()).unbiased == (variance == "unbiased")


@pytest.mark.parametrize("synchronized", [True, False])
@pytest.mark.parametrize("kind", ["map", "vector"])
def test_moving_variance_on_two_devices(kind, synchronized):
    """Of the global batch over its n - 1; or the mean of both devices' own."""
    shape = (6, 3, 2, 4) if kind == "map" else (6, 4)
    batch = RNG.normal(size=shape).astype(np.float32)
    strategy = two_devices()
    with strategy.scope():
        norm = FusedBatchNormalization(momentum=0.9, unbiased=True, synchronized=synchronized)
        norm.build((None, *shape[1:]))
    values = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(np.split(batch, 2)[context.replica_id_in_sync_group])
    )
    tf.function(lambda x: strategy.run(lambda y: norm(y, training=True), args=(x,)))(values)
    parts = [batch] if synchronized else np.split(batch, 2)
    expected = np.mean([part.reshape(-1, 4).var(axis=0, ddof=1) for part in parts], axis=0)
    np.testing.assert_allclose(norm.moving_variance.value, 0.9 + 0.1 * expected, rtol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", STRIDED, ids=str)
def test_strides_with_symmetric_padding(theirs, size, case):
    """`same` pads more behind than before where it strides; a number pads both sides alike, as PyTorch does."""
    np.testing.assert_allclose(
        strided_network(size, *case).blocks[0](images_of(size)), theirs[f"strided-{size}-{case}"], atol=1e-6
    )


def test_initial_weights(theirs):
    """Every kernel and bias is uniform within 1 / sqrt(inputs), classifiers too; as samples of torch's own layers are."""
    text = """
name: s
block_defaults: {initializer: pytorch}
blocks: [{conv: 48, use_bias: true}, {conv: 32, kernel_size: 5, groups: 4, use_bias: true}]
auxiliary_head: {layers: [{flatten: true}, {dense: 64}]}
"""
    network = Network(architecture(spec_of(text).value, (4, 4, 3), 40), seed=1)
    arrays = {key: value for name in network.names for key, value in network.arrays(name).items()}
    for place in ("block_1/conv_1", "block_2/conv_1", "head_2/dense_1", "head_2/dense_2"):
        bound = np.prod(theirs[f"{place}/weight"].shape[1:]) ** -0.5
        for part, sample in (("kernel", "weight"), ("bias", "bias")):
            ours, other = arrays[f"{place}/{part}"].ravel(), theirs[f"{place}/{sample}"].ravel()
            assert ours.size == other.size and np.abs(ours).max() <= bound and np.abs(ours).max() > 0.85 * bound, (place, part)
            for drawn in (ours, other):  # both of the same distribution
                assert stats.kstest(drawn, stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-3, (place, part)
    assert len({value.ravel()[0] for value in arrays.values()}) == len(arrays)


@pytest.mark.slow
def test_a_run_with_all_of_it_exports(files, tmp_path):
    """Stock layers have no unbiased variance, and give the same all the same."""
    sets = ["block_defaults.batch_norm_variance=unbiased", "block_defaults.initializer=pytorch", "training.epochs=1"]
    run = train_spec(*files, [*sets, "training.optimizer.momentum_form=pytorch"], tmp_path / "run", quiet=True)
    network = run.network
    assert isinstance(network.facts, NetworkFacts)
    portable_model(network)  # compares
    loaded = keras.models.load_model(run.workdir / "model.keras")
    images = RNG.integers(0, 256, (4, 8, 8, 1)).astype(np.float32)
    np.testing.assert_allclose(loaded(images)["depth_3"], network.model()(images)["depth_3"], atol=1e-5)


def test_other_words_are_refused():
    with pytest.raises(SpecError, match=r"momentum_form: received 'torch'; allowed: 'keras' or 'pytorch'"):
        recipe_of(TINY_RECIPE, "training.optimizer.momentum_form=torch")
    with pytest.raises(SpecError, match="batch_norm_variance"):
        spec_of(TINY_SPEC, "block_defaults.batch_norm_variance=sample")
