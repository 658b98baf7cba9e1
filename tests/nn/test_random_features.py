"""Random features and the nuclear-norm ball against formulas in NumPy, float64."""

import numpy as np
import pytest
import tensorflow as tf
from fitted import fitting, patches_of

from kerasgreedy.errors import InputError
from kerasgreedy.network.patch_statistics import fit_random_features
from kerasgreedy.nn.penalties import InNuclearBall, as_matrix
from kerasgreedy.spec.regularizers import NuclearBall

RNG = np.random.default_rng(5)
IMAGES = RNG.normal(size=(40, 7, 6, 2)).astype(np.float32) + RNG.normal(size=(40, 1, 1, 2)).astype(np.float32)
SIZE = 3
SPEC = "blocks: [{random_features: %d, kernel_size: 3, gamma: 0.3, %s}]\n"


def whitened(images, normalize=True, whiten=0.1):
    """What the kernel is of: patches centred, divided by norm + 0.1, whitened, divided by the root of their two channels."""
    p = patches_of(images, SIZE).astype(np.float64).reshape(-1, SIZE * SIZE * 2)
    if normalize:
        p = p - p.mean(1, keepdims=True)
        p = p / (np.linalg.norm(p, axis=1, keepdims=True) + 0.1)
    if whiten is not None:
        values, vectors = np.linalg.eigh(np.cov(p.T, bias=True))
        p = (p - p.mean(0)) @ (vectors / np.sqrt(values + whiten)) @ vectors.T
    return p / np.sqrt(2)


def gaussian(y):
    return np.exp(-0.3 * np.square(y[:, None] - y[None]).sum(-1))


def features(count, options):
    found = fitting(SPEC % (count, options), "block_1", "random_features_1", IMAGES)
    told = fit_random_features(found)
    return np.asarray(found.network.blocks[0](IMAGES, training=False), np.float64).reshape(-1, count), told


@pytest.mark.parametrize(
    ("options", "how"),
    [("form: fourier", {}), ("normalize: false", {"normalize": False}), ("whiten: null", {"whiten": None})],
)
def test_products_of_fourier_features_are_the_gaussian_kernel_of_whitened_patches(options, how):
    """Their error falls with the root of their number: 20,000 of them have one of about 0.7 %."""
    z, told = features(20_000, options)
    kernel = gaussian(whitened(IMAGES, **how))
    assert np.abs(z @ z.T - kernel).max() < 0.06 and np.abs(z @ z.T - kernel).mean() < 0.01
    assert told == ({"images": 40, "patches": 40 * 20} if "null" not in options else {})


def test_nystrom_s_features_give_the_kernel_exactly_between_their_points():
    """Z Z^T = K_xl K_ll^-1 K_lx, which is K_ll at the points."""
    found = fitting(SPEC % (30, "form: nystrom"), "block_1", "random_features_1", IMAGES)
    fit_random_features(found)
    z = np.asarray(found.network.blocks[0](IMAGES, training=False), np.float64).reshape(-1, 30)
    y, points = whitened(IMAGES), np.asarray(found.layer.points, np.float64).T
    near = np.abs(y[:, None] - points[None]).max(-1).argmin(0)
    np.testing.assert_allclose(y[near], points, atol=1e-5)  # the points are training patches
    assert len(np.unique(near)) == 30
    np.testing.assert_allclose(z[near] @ z[near].T, gaussian(y[near]), atol=1e-3)
    everywhere = gaussian(np.concatenate([y[near], y]))[30:, :30]
    np.testing.assert_allclose(z @ z.T, everywhere @ np.linalg.inv(gaussian(y[near])) @ everywhere.T, atol=2e-3)


def test_more_points_than_patches_are_refused():
    message = r"block_1/random_features_1: received 1,000 reference patches; 40 training images have 800 different ones"
    with pytest.raises(InputError, match=message):
        features(1000, "form: nystrom")


def test_a_patch_of_one_colour_is_no_number_too_large():
    """Its norm is 0 after centring: what is left of rounding is divided by 0.1."""
    found = fitting(SPEC % (8, "form: fourier"), "block_1", "random_features_1", IMAGES)
    fit_random_features(found)
    flat = np.asarray(found.network.blocks[0](np.full((1, 7, 6, 2), 3.0, np.float32), training=False))
    offset = np.asarray(found.layer.offset)
    np.testing.assert_allclose(flat, np.broadcast_to(np.cos(offset) * np.sqrt(2 / 8), flat.shape), atol=1e-3)


def projected(matrix, radius):
    """By an SVD in float64, the singular values by bisection."""
    u, s, v = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    if s.sum() <= radius:
        return matrix
    low, high = 0.0, s[0]
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(s - middle, 0).sum() > radius else (low, middle)
    return u @ (np.maximum(s - high, 0)[:, None] * v)


@pytest.mark.parametrize("shape", [(6, 5, 4), (2, 9, 3), (7, 3), (3, 11), (3, 3, 2, 5)])
@pytest.mark.parametrize("radius", [0.5, 5.0, 100.0])
def test_the_nearest_matrix_of_the_ball_is_that_of_an_svd(shape, radius):
    """In float64 to 1e-9, in float32 to 1e-6 of the largest; what is inside stays as it is."""
    ball = InNuclearBall(NuclearBall(name="nuclear_ball", radius=radius))
    kernel = RNG.normal(size=shape)
    expected = projected(as_matrix(kernel).numpy(), radius)
    for dtype, tolerance in (("float64", 1e-9), ("float32", 1e-6)):
        found = ball.proximal(tf.constant(kernel, dtype), tf.constant(0.3))
        assert found.shape == shape and found.dtype == dtype
        np.testing.assert_allclose(as_matrix(found), expected, atol=tolerance * np.abs(kernel).max())
        again = ball.proximal(found, tf.constant(0.3))
        np.testing.assert_allclose(again, found, atol=tolerance * np.abs(kernel).max())
    if radius == 100.0:
        np.testing.assert_array_equal(found, kernel.astype(np.float32))


def test_what_is_inside_is_left_whether_it_was_decomposed_or_not(monkeypatch):
    """Singular values 3 and 0 have Frobenius norm 3, so that by it alone they could sum up to 3 * sqrt(2) = 4.24."""
    decomposed = []
    eigh = tf.linalg.eigh
    monkeypatch.setattr(tf.linalg, "eigh", lambda matrix: decomposed.append(1) or eigh(matrix))
    kernel = tf.constant(3 * np.outer([0.6, 0.8], [0.0, 0.6, 0.8]), tf.float32)
    for radius, times in ((4.3, 0), (4.2, 1), (3.01, 1)):
        decomposed.clear()
        same = InNuclearBall(NuclearBall(name="nuclear_ball", radius=radius)).proximal(kernel, tf.constant(0.3))
        np.testing.assert_array_equal(same, kernel)
        assert len(decomposed) == times
    smaller = InNuclearBall(NuclearBall(name="nuclear_ball", radius=2.0)).proximal(kernel, tf.constant(0.3))
    np.testing.assert_allclose(smaller, kernel * 2 / 3, atol=1e-6)


def test_filters_of_a_head_of_rows_are_left_singular_vectors():
    """A_c = U S V_c^T: Z A_c is a function of Z U alone, (places, features) -> (places, rank)."""
    kernel = RNG.normal(size=(5, 4, 3))
    u, s, v = np.linalg.svd(as_matrix(kernel).numpy(), full_matrices=False)
    z = RNG.normal(size=(5, 4))
    scores = [np.trace(z @ kernel[:, :, c].T) for c in range(3)]
    through = [np.trace((z @ u) @ (s[:, None] * v).reshape(4, 5, 3)[:, :, c]) for c in range(3)]
    np.testing.assert_allclose(through, scores)
