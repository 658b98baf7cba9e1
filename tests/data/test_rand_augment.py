"""RandAugment's operations against Pillow and SciPy; every image goes through its own."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps
from scipy.ndimage import map_coordinates

from kerasgreedy.data.augment import Draws, augment_batch
from kerasgreedy.data.rand_augment import OPERATIONS, rand_augment
from kerasgreedy.spec.augmentation import Augment, RandAugment

RNG = np.random.default_rng(5)
# Smooth pictures, so that levels gather as in photographs; one of a single level, one of two.
IMAGES = np.clip(np.cumsum(RNG.normal(0, 9, (6, 11, 14, 3)), axis=2) + 120, 0, 255).astype(np.uint8)
IMAGES[4], IMAGES[5] = 77, np.where(RNG.random((11, 14, 3)) < 0.5, 10, 200)
NAMES = list(OPERATIONS)
STRENGTHS = [0.0, 0.5, 0.9, 1.0]


def run(name: str, sign: float, strength: float, images=IMAGES) -> np.ndarray:
    """All images through one operation, by the draws that choose it."""
    draws = np.tile([(NAMES.index(name) + 0.5) / len(NAMES), 0.25 if sign < 0 else 0.75], (len(images), 1))
    settings = RandAugment(operations=1, magnitude=10 * strength)
    return rand_augment(tf.constant(images, tf.float32), tf.constant(draws, tf.float32), settings).numpy()


def by_pillow(change) -> np.ndarray:
    return np.stack([np.asarray(change(Image.fromarray(image))) for image in IMAGES]).astype(float)


def test_the_fourteen_of_the_paper():
    assert len(OPERATIONS) == 14 and not np.any(run("identity", 1, 0.9) != IMAGES)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("autocontrast", lambda strength: ImageOps.autocontrast),
        ("equalize", lambda strength: ImageOps.equalize),
        ("solarize", lambda strength: lambda image: ImageOps.solarize(image, 256 * (1 - strength))),
        ("posterize", lambda strength: lambda image: ImageOps.posterize(image, 8 - round(4 * strength))),
    ],
)
@pytest.mark.parametrize("strength", STRENGTHS)
def test_levels_as_pillow_changes_them(name, change, strength):
    expected = by_pillow(change(strength))
    np.testing.assert_allclose(run(name, 1, strength), expected, atol=1.001 if name == "autocontrast" else 0)


@pytest.mark.parametrize(
    ("name", "enhancer"),
    [
        ("colour", ImageEnhance.Color),
        ("contrast", ImageEnhance.Contrast),
        ("brightness", ImageEnhance.Brightness),
        ("sharpness", ImageEnhance.Sharpness),
    ],
)
@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("sign", [-1, 1])
def test_factors_as_pillow_takes_them(name, enhancer, strength, sign):
    """Pillow rounds its grey and its result to whole levels, and the factor magnifies that by at most 1.9."""
    expected = by_pillow(lambda image: enhancer(image).enhance(1 + sign * 0.9 * strength))
    np.testing.assert_allclose(run(name, sign, strength), expected, atol=2.5)


@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"])
@pytest.mark.parametrize(("sign", "strength"), [(1, 0.6), (-1, 1.0), (1, 0.0)])
def test_places_by_hand(name, sign, strength):
    received = run(name, sign, strength)
    y, x = np.mgrid[0:11, 0:14].astype(float)
    across, down, s = x - 6.5, y - 5.0, sign * strength
    angle = np.radians(30 * s)
    at_x, at_y = {
        "rotate": (np.cos(angle) * across - np.sin(angle) * down, np.sin(angle) * across + np.cos(angle) * down),
        "shear_x": (across + 0.3 * s * down, down),
        "shear_y": (across, down + 0.3 * s * across),
        "translate_x": (across + 0.45 * s * 14, down),
        "translate_y": (across, down + 0.45 * s * 11),
    }[name]
    for image, changed in zip(IMAGES, received, strict=True):
        for channel in range(3):
            plane = image[..., channel].astype(float)
            expected = map_coordinates(plane, [at_y + 5.0, at_x + 6.5], order=1, mode="grid-constant", cval=128)
            np.testing.assert_allclose(changed[..., channel], expected, atol=0.1)


def test_each_image_goes_through_its_own_whoever_stands_beside():
    settings = Augment(rand_augment=RandAugment(operations=3, magnitude=7))
    draws = Draws.of(6, (1, 2), settings).uniform
    assert draws.shape == (6, 12 + 6)
    np.testing.assert_array_equal(draws[:, :12], Draws.of(6, (1, 2), Augment(rotate=1)).uniform)
    whole = augment_batch(tf.constant(IMAGES), tf.constant(draws), settings).numpy()
    assert whole.min() >= 0 and whole.max() <= 255 and all(np.any(whole[i] != IMAGES[i]) for i in range(4))
    order = [3, 0, 5, 1, 4, 2]
    other = augment_batch(tf.constant(IMAGES[order]), tf.constant(draws[order]), settings).numpy()
    np.testing.assert_array_equal(other, whole[order])
    for index in range(6):
        alone = augment_batch(tf.constant(IMAGES[index : index + 1]), tf.constant(draws[index : index + 1]), settings)
        np.testing.assert_allclose(alone[0], whole[index], atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (3, 2, 5, 3), (1, 9, 9, 1)], ids=str)
def test_any_shape_stays_in_its_range(name, shape):
    images = RNG.integers(0, 256, shape).astype(np.uint8)
    for sign in (-1, 1):
        changed = run(name, sign, 1.0, images)
        assert changed.shape == shape and np.isfinite(changed).all() and changed.min() >= 0 and changed.max() <= 255


def test_all_are_as_likely():
    drawn = Draws.of(14_000, (3,), Augment(rand_augment=RandAugment(operations=1))).uniform[:, 12]
    counts = np.bincount((drawn * 14).astype(int), minlength=14)
    assert counts.min() > 880 and counts.max() < 1120  # four deviations of 31
