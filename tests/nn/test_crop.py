"""Windows of maps: where they stand, and that draws are their own for each image and go on where they stood."""

import keras
import numpy as np
import tensorflow as tf

from kerasgreedy.nn.crop import RandomCropping

ROWS, COLUMNS = 5, 7
# Each place of a map has a number of its own, and the images are far apart.
MAPS = (1000 * np.arange(200)[:, None, None, None] + np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS, 1)).astype(np.float32)


def corners(windows):
    """(n, 2): the place of the first number of each window, after each was compared with the map from there."""
    first = (windows[:, 0, 0, 0] % 1000).astype(int)
    found = np.stack([first // COLUMNS, first % COLUMNS], axis=1)
    height, width = windows.shape[1:3]
    for whole, window, (row, column) in zip(MAPS, windows, found, strict=True):
        np.testing.assert_array_equal(window, whole[row : row + height, column : column + width])
    return found


def test_in_training_each_image_has_a_window_of_its_own():
    layer = RandomCropping(3, 4, seed=1)
    found = corners(layer(MAPS, training=True).numpy())
    counts = np.zeros((3, 4), int)
    np.add.at(counts, tuple(found.T), 1)
    assert counts.min() > 4 and counts.sum() == 200  # 200 / 12 = 16.7 expected of each of the 3 x 4 places
    graph = tf.function(lambda x: layer(x, training=True))
    one, two = corners(graph(MAPS).numpy()), corners(graph(MAPS).numpy())
    assert (one != two).any() and (one != found).any()


def test_otherwise_it_is_the_middle_and_a_whole_map_stays():
    layer = RandomCropping(3, 4, seed=1)
    np.testing.assert_array_equal(corners(layer(MAPS).numpy()), [[1, 1]] * 200)
    np.testing.assert_array_equal(RandomCropping(ROWS, COLUMNS)(MAPS, training=True), MAPS)
    np.testing.assert_array_equal(corners(layer(MAPS).numpy()), corners(keras.layers.CenterCrop(3, 4)(MAPS).numpy()))


def test_it_cuts_before_another_type_is_needed():
    """What is kept in 16 bits leaves in 16 bits, cut at the same places."""
    layer, other = RandomCropping(3, 4, seed=1), RandomCropping(3, 4, seed=1)
    halves = tf.cast(MAPS % 100, tf.bfloat16)
    for training in (True, False):
        cut = layer(halves, training=training)
        assert cut.dtype == tf.bfloat16
        np.testing.assert_array_equal(tf.cast(cut, tf.float32), other(MAPS % 100, training=training))


def test_its_state_goes_on():
    layer, other = RandomCropping(3, 4, seed=1), RandomCropping(3, 4, seed=2)
    layer(MAPS, training=True)
    other.seed_generator.state.assign(layer.seed_generator.state)
    np.testing.assert_array_equal(layer(MAPS, training=True), other(MAPS, training=True))


def test_two_devices_draw_their_own():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        layer = RandomCropping(3, 4, seed=1)
    windows = strategy.run(tf.function(lambda: layer(tf.constant(MAPS), training=True))).values
    one, two = (corners(part.numpy()) for part in windows)
    assert (one != two).any(axis=1).mean() > 0.7  # 11 of 12 expected
