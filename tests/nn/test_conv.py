"""The filter gradient by rows against its definition and against TensorFlow's."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasgreedy.nn.conv import RowGradientConv2D, filter_gradient

RNG = np.random.default_rng(6)
MAPS = RNG.normal(size=(64, 4, 4, 64))


@pytest.mark.parametrize(("size", "kernel"), [((5, 4), (3, 3)), ((4, 6), (5, 3)), ((3, 3), (1, 1))])
def test_filter_gradient_is_its_definition(size, kernel):
    """dW[r, s] = sum over n, h, w of x[n, h + r, w + s] dy[n, h, w], x padded by half a kernel, in float64."""
    x, dy = RNG.normal(size=(7, *size, 3)), RNG.normal(size=(7, *size, 2))
    (tall, wide), (height, width) = kernel, size
    padded = np.pad(x, [(0, 0), (tall // 2,) * 2, (wide // 2,) * 2, (0, 0)])
    expected = [
        [np.einsum("nhwc,nhwf->cf", padded[:, r : r + height, s : s + width], dy) for s in range(wide)] for r in range(tall)
    ]
    got = filter_gradient(tf.constant(x, tf.float32), tf.constant(dy, tf.float32), kernel)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def gradients(layer, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        loss = tf.reduce_sum(tf.sin(tf.cast(y, tf.float32)))
    return [tf.cast(v, tf.float32).numpy() for v in (y, *tape.gradient(loss, [x, *(v.value for v in layer.variables)]))]


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_the_layer_is_keras_own_in_float32_to_the_precision_of_bfloat16(graph, monkeypatch):
    taken = []
    from kerasgreedy.nn import conv

    original = conv.filter_gradient
    monkeypatch.setattr(conv, "filter_gradient", lambda *a: taken.append(1) or original(*a))
    results = []
    for kind, dtype in ((RowGradientConv2D, "bfloat16"), (keras.layers.Conv2D, "float32")):
        x = tf.cast(MAPS, dtype)
        policy = "mixed_bfloat16" if dtype == "bfloat16" else dtype
        layer = kind(64, 3, padding="same", dtype=policy, kernel_initializer=keras.initializers.HeNormal(seed=1))
        layer.build(x.shape)
        results.append(_run(layer, x, graph))
    assert taken == [1]
    for ours, own in zip(*results, strict=True):
        assert np.linalg.norm(ours - own) < 0.02 * np.linalg.norm(own)


def _run(layer, x, graph):
    if not graph:
        return gradients(layer, x)

    @tf.function
    def traced(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(tf.sin(tf.cast(y, tf.float32)))
        return [y, *tape.gradient(loss, [x, *(v.value for v in layer.variables)])]

    return [tf.cast(v, tf.float32).numpy() for v in traced(x)]


@pytest.mark.parametrize(
    ("options", "dtype", "batch", "frozen"),
    [
        ({"strides": 2}, "mixed_bfloat16", 64, False),
        ({"groups": 2}, "mixed_bfloat16", 64, False),
        ({"padding": "valid"}, "mixed_bfloat16", 64, False),
        ({}, "float32", 64, False),
        ({}, "mixed_bfloat16", 8, False),
        ({}, "mixed_bfloat16", 64, True),
    ],
    ids=str,
)
def test_all_else_goes_keras_own_way(options, dtype, batch, frozen):
    layer = RowGradientConv2D(64, 3, **{"padding": "same", **options}, dtype=dtype)
    x = tf.zeros((batch, 4, 4, 64), keras.DTypePolicy(dtype).compute_dtype)
    layer(x)
    layer.trainable = not frozen
    assert not layer._by_rows(x)
    assert RowGradientConv2D.from_config(layer.get_config()).kernel_size == (3, 3)
