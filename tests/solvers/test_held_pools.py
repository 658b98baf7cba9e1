"""Held max-pools: places, values and gradients against loops in NumPy, and against the pool itself."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasgreedy.graph.supports import Unit
from kerasgreedy.solvers.alternation.pools import largest, taken
from kerasgreedy.solvers.alternation.support import Shared
from kerasgreedy.spec.solver_settings import Alternation

POOLS = [(3, 2, "same", 8, 6), (3, 2, "same", 7, 5), (2, 2, "valid", 7, 4), (3, 1, "same", 4, 5), (3, 2, "same", 2, 1)]


def spots(pool, output, height, width):
    """place -> (row, column) in x, of the places of one window that lie in the map."""
    window, stride, padding, *_ = pool
    result = {}
    for place, (r, c) in enumerate(itertools.product(range(window), repeat=2)):
        spot = []
        for start, at, size in zip(output, (r, c), (height, width), strict=True):
            count = -(-size // stride) if padding == "same" else (size - window) // stride + 1
            before = max((count - 1) * stride + window - size, 0) // 2 if padding == "same" else 0
            spot.append(start * stride + at - before)
        if 0 <= spot[0] < height and 0 <= spot[1] < width:
            result[place] = tuple(spot)
    return result


@pytest.fixture(params=POOLS, ids=str)
def pool(request):
    window, stride, padding, height, width = request.param
    layer = keras.layers.MaxPooling2D(window, stride, padding=padding)
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 1, (2, height, width, 3)).astype(np.float32)  # many equal ones, many windows without a positive one
    shape = layer(x).shape
    return request.param, layer, x, shape, rng


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_first_of_the_largest_is_taken_and_padding_never(pool, dtype):
    settings, layer, x, shape, _ = pool
    found = largest(layer, tf.cast(x, dtype)).numpy()
    assert found.shape == shape
    for n, i, j, c in np.ndindex(*shape):
        within = spots(settings, (i, j), *x.shape[1:3])
        best = max(x[n, row, column, c] for row, column in within.values())
        assert found[n, i, j, c] == min(place for place, spot in within.items() if x[n, *spot, c] == best)


@pytest.mark.parametrize("shared", [False, True])
def test_values_and_gradients_at_given_places(pool, shared):
    settings, layer, _, shape, rng = pool
    x = rng.normal(size=pool[2].shape).astype(np.float32)
    upstream = rng.normal(size=shape).astype(np.float32)
    places = np.zeros((1, *shape[1:]) if shared else shape, np.int32)
    value, gradient = np.zeros(shape), np.zeros(x.shape)
    for index in np.ndindex(*places.shape):
        places[index] = rng.choice(list(spots(settings, index[1:3], *x.shape[1:3])))
    for n, i, j, c in np.ndindex(*shape):
        spot = spots(settings, (i, j), *x.shape[1:3])[int(places[0 if shared else n, i, j, c])]
        value[n, i, j, c] = x[n, *spot, c]
        gradient[n, *spot, c] += upstream[n, i, j, c]
    with tf.GradientTape() as tape:
        given = tf.constant(x)
        tape.watch(given)
        result = tf.function(lambda x: taken(layer, tf.constant(places), x))(given)
    np.testing.assert_array_equal(result, value)
    np.testing.assert_allclose(tape.gradient(result, given, upstream), gradient, rtol=1e-5, atol=1e-6)


def test_held_at_its_own_maxima_a_pool_is_itself(pool):
    """Values exactly; of gradients only the order of a sum may differ."""
    _, layer, x, shape, rng = pool
    upstream = rng.normal(size=shape).astype(np.float32)
    results = []
    for run in (layer, lambda x: taken(layer, largest(layer, x), x)):
        with tf.GradientTape() as tape:
            given = tf.constant(x)
            tape.watch(given)
            result = run(given)
        results.append((result.numpy(), tape.gradient(result, given, upstream).numpy()))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-5, atol=1e-6)


def test_a_batch_of_zeros_takes_no_padding():
    """5x5 with a window of 3 and stride 2 is padded before its first row too."""
    layer = keras.layers.MaxPooling2D(3, 2, padding="same")
    settings = Alternation(name="alternation", mode="batch", hold_pools=True)
    shared = Shared({"block_1/pool": Unit((3, 3, 1), 0, 4)}, settings, {}, 2)
    np.testing.assert_array_equal(shared("block_1/pool", layer, tf.zeros((2, 5, 5, 1))), np.zeros((2, 3, 3, 1)))
