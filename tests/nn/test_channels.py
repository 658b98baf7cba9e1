"""Channels at other places: exact, whichever way the device at hand takes."""

import numpy as np
import pytest
import tensorflow as tf

from kerasgreedy.nn.channels import placed


@pytest.mark.parametrize("gpus", [[], ["GPU:0"]])
@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float32, tf.float64])
@pytest.mark.parametrize("at", [[0, 1, 2], [4, 0, 2], [2, 1, 0, 4, 3], [3]])
@pytest.mark.parametrize("places", [(), (3, 2)])
def test_placed(monkeypatch, gpus, dtype, at, places):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: gpus)
    x = tf.cast(np.random.default_rng(0).normal(size=(7, *places, len(at))) * 1e3, dtype)
    expected = np.zeros((7, *places, 5))
    expected[..., at] = tf.cast(x, tf.float64)
    found = tf.function(lambda x: placed(x, 5, at), input_signature=[tf.TensorSpec((None, *places, len(at)), dtype)])
    result = found(x)
    assert result.dtype == dtype and found.get_concrete_function().output_shapes.as_list() == [None, *places, 5]
    assert np.array_equal(tf.cast(result, tf.float64), expected)
