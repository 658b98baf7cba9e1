"""Turning, scaling, colour and cutout, against NumPy; per image, repeatable, and the same draws for what was there before."""

import colorsys

import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import map_coordinates

from kerasgreedy.data.augment import Draws, augment_batch, cut_out
from kerasgreedy.data.catalog import describe
from kerasgreedy.data.loaders import open_data
from kerasgreedy.data.pipeline import Pipeline
from kerasgreedy.spec.augmentation import Augment
from kerasgreedy.spec.recipe import Data

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 9, 12, 3)).astype(np.uint8)


def draws(**columns):
    """The middle of everything (nothing changes) but for these columns."""
    table = np.full((5, 12), 0.5, np.float32)
    for name, values in columns.items():
        table[:, int(name[1:])] = values
    return tf.constant(table)


def test_the_first_draws_are_those_without_more():
    one, two = Draws.of(7, (1, 2), Augment()).uniform, Draws.of(7, (1, 2), Augment(rotate=1)).uniform
    assert two.shape == (7, 12)
    np.testing.assert_array_equal(one, two[:, :5])
    assert len(np.unique(two)) == two.size


def test_in_the_middle_of_the_range_nothing_changes():
    changed = augment_batch(IMAGES, draws(), Augment(rotate=30, scale=0.3, colour=0.5))
    np.testing.assert_allclose(changed, IMAGES, atol=1e-3)


def test_turned_and_scaled_by_hand():
    """Bilinear places by SciPy, edges reflected: up to 40 degrees and a fifth, counter-clockwise as TensorFlow's axes have it."""
    u, s = np.linspace(0.02, 0.98, 5), np.array([0.1, 0.9, 0.3, 0.5, 0.99])
    received = augment_batch(IMAGES, draws(c5=u, c6=s), Augment(rotate=40, scale=0.2)).numpy()
    y, x = np.mgrid[0:9, 0:12].astype(float)
    for index in range(5):
        angle, factor = np.radians(40 * (2 * u[index] - 1)), 1 + 0.2 * (2 * s[index] - 1)
        across, down = x - 5.5, y - 4.0
        at_x = (np.cos(angle) * across - np.sin(angle) * down) / factor + 5.5
        at_y = (np.sin(angle) * across + np.cos(angle) * down) / factor + 4.0
        for channel in range(3):
            expected = map_coordinates(IMAGES[index, ..., channel].astype(float), [at_y, at_x], order=1, mode="reflect")
            inside = (at_x > 0) & (at_x < 11) & (at_y > 0) & (at_y < 8)  # at the rim the two libraries reflect differently
            assert inside.mean() > 0.5
            np.testing.assert_allclose(received[index, ..., channel][inside], expected[inside], atol=0.05)


def test_a_quarter_turn_is_exact():
    square = IMAGES[:, :, :9]
    turned = augment_batch(square, draws(c5=1.0), Augment(rotate=90)).numpy()
    np.testing.assert_allclose(turned, np.rot90(square, 1, axes=(1, 2)), atol=0.05)


def test_colour_by_hand():
    b, c, s = np.array([0.0, 1.0, 0.2, 0.5, 0.9]), np.array([1.0, 0.0, 0.5, 0.1, 0.6]), np.array([0.3, 0.8, 0.0, 1.0, 0.5])
    received = augment_batch(IMAGES, draws(c7=b, c8=c, c9=s), Augment(colour=0.4)).numpy()
    weights = np.array([0.299, 0.587, 0.114])
    for index in range(5):
        factors = [1 + 0.4 * (2 * values[index] - 1) for values in (b, c, s)]
        image = np.clip(IMAGES[index] * factors[0], 0, 255)
        image = np.clip(factors[1] * image + (1 - factors[1]) * (image @ weights).mean(), 0, 255)
        grey = (image @ weights)[..., None]
        np.testing.assert_allclose(received[index], np.clip(factors[2] * image + (1 - factors[2]) * grey, 0, 255), atol=0.01)


def test_no_saturation_is_grey():
    """A strength of 1 at its end: all three channels are the luminance that colorsys gives too."""
    received = augment_batch(IMAGES, draws(c9=0.0), Augment(colour=1.0)).numpy()
    assert np.ptp(received, axis=-1).max() < 1e-3
    red, green, blue = IMAGES[0, 0, 0] / 255
    assert received[0, 0, 0, 0] / 255 == pytest.approx(
        colorsys.rgb_to_yiq(red, green, blue)[0], abs=0.004
    )  # rounded weights there


def test_grey_images_have_no_saturation():
    grey = IMAGES[..., :1]
    np.testing.assert_allclose(augment_batch(grey, draws(c9=0.0), Augment(colour=1.0)), grey, atol=1e-3)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 50])
def test_cutout_by_hand(side):
    rows, columns = np.array([0.0, 0.99, 0.5, 0.3, 0.7]), np.array([0.0, 0.99, 0.5, 0.8, 0.1])
    images = IMAGES.astype(np.float32) + 1
    received = cut_out(tf.constant(images), draws(c10=rows, c11=columns), side).numpy()
    for index in range(5):
        expected = images[index].copy()
        top, left = int(rows[index] * 9) - side // 2, int(columns[index] * 12) - side // 2
        expected[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 0
        np.testing.assert_array_equal(received[index], expected)


@pytest.mark.parametrize("augment", [Augment(rotate=20, scale=0.2), Augment(colour=0.5, pad_crop=1), Augment(cutout=3)], ids=str)
def test_each_image_has_draws_of_its_own_whatever_its_batch(augment):
    data = Data(dataset="digits", validation=0, train_examples=64, augment=augment, normalize="unit")
    pipeline = Pipeline(*open_data(data, describe(data), (8, 8), 1), data, (8, 8), seed=3)

    def seen(batch, epoch):
        found = {}
        for rows, images, _ in pipeline.indexed(0, epoch, batch):
            found |= dict(zip(rows.numpy().tolist(), images.numpy(), strict=True))
        return found

    one, two, other = seen(8, 0), seen(32, 0), seen(8, 1)
    assert one.keys() == two.keys() and len(one) == 64
    for row, image in one.items():
        np.testing.assert_allclose(image, two[row], atol=1e-6)
    assert np.mean([np.abs(image - other[row]).max() > 1e-3 for row, image in one.items()]) > 0.9
    plain = Pipeline(*open_data(data, describe(data), (8, 8), 1), data.model_copy(update={"augment": Augment()}), (8, 8), seed=3)
    for (images, _, _), (same, _, _) in zip(pipeline.evaluation("test", 60), plain.evaluation("test", 60), strict=True):
        np.testing.assert_array_equal(images, same)  # never augmented
