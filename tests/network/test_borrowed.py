"""Weights out of other Keras models: the function is theirs, or nothing is taken."""

import keras
import numpy as np
import pytest
from conftest import spec_of
from keras import layers

from kerasgreedy.errors import InputError
from kerasgreedy.graph.architecture import architecture
from kerasgreedy.network.borrowed import PIXELS, borrow, own_shape, scaled_inside
from kerasgreedy.network.build import Network

SPEC = """
name: s
block_defaults: {batch_norm: true}
blocks:
  - {conv: 6}
  - {conv: 8, downsample: max}
  - {residual: [{conv: 8}, {conv: 8, activation: linear}]}
  - {residual: [{conv: 12, stride: 2}, {conv: 12, activation: linear}], shortcut: projection}
"""
SHAPE = (16, 16, 3)
IMAGES = np.random.default_rng(3).integers(0, 256, (3, *SHAPE)).astype(np.float32)


def arch_of(text=SPEC, shape=SHAPE, *overrides):
    return architecture(spec_of(text, *overrides).value, shape, 5)


def stirred(model):
    """With weights unlike those that models begin with."""
    rng = np.random.default_rng(1)
    for variable in model.variables:
        if "seed" in variable.path or "count" in variable.path:
            continue
        noise = rng.normal(0, 0.1, variable.shape)
        positive = "variance" in variable.path or "gamma" in variable.path
        variable.assign(np.abs(np.asarray(variable) + noise) + 0.1 if positive else np.asarray(variable) + noise)
    return model


def normed(x, width, stride=1, size=3, bias=False, relu=True):
    x = layers.Conv2D(width, size, stride, padding="same", use_bias=bias)(x)
    x = layers.BatchNormalization(epsilon=1e-5)(x)
    return layers.ReLU()(x) if relu else x


def stock(bias=False, shortcut_first=False, scaling=True, nested=False):
    """The same network in Keras's own layers."""
    images = keras.Input(SHAPE)
    x = layers.Normalization(mean=[110.0, 120, 100], variance=[3600.0, 3500, 3400])(images) if scaling else images
    x = normed(x, 6, bias=bias)
    x = normed(layers.MaxPooling2D(2)(x), 8, bias=bias)
    x = layers.ReLU()(layers.Add()([normed(normed(x, 8, bias=bias), 8, relu=False), x]))
    if shortcut_first:
        short = normed(x, 12, 2, 1, relu=False)
        body = normed(normed(x, 12, 2), 12, relu=False)
    else:
        body = normed(normed(x, 12, 2), 12, relu=False)
        short = normed(x, 12, 2, 1, relu=False)
    x = layers.ReLU()(layers.Add()([body, short]))
    top = layers.Dense(7, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    return stirred(keras.Model(images, top))


def features(network, arrays, pixels, blocks):
    for name, values in arrays.items():
        network.load_arrays(name, values)
    x = (IMAGES - np.array(pixels.mean, np.float32)) / np.array(pixels.deviation, np.float32)
    for block in network.blocks[:blocks]:
        x = block(x, training=False)
    return np.asarray(x)


@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias_before_norm"])
def test_chains_and_sums_give_the_model_s_features(blocks, bias):
    """Its own normalisation becomes ours; a bias in front of a batch norm goes into the moving mean."""
    model, arch = stock(bias=bias), arch_of()
    found = borrow(model, arch, blocks)
    layer = model.get_layer(found.layer)
    expected = np.asarray(keras.Model(model.input, layer.output)(IMAGES, training=False))
    received = features(Network(arch, seed=9), found.arrays, found.pixels, blocks)
    np.testing.assert_allclose(received, expected, atol=1e-4 * np.abs(expected).max())
    assert list(found.arrays) == [f"block_{i + 1}" for i in range(blocks)]
    np.testing.assert_allclose(found.pixels.mean, [110, 120, 100], rtol=1e-6)
    np.testing.assert_allclose(found.pixels.deviation, np.sqrt([3600, 3500, 3400]), rtol=1e-6)


@pytest.mark.parametrize("mode", list(PIXELS))
def test_what_the_model_takes_as_keras_scales_it(mode):
    """`preprocess_input` of keras.applications, channels turned round where it turns them."""
    if mode in ("tf", "torch", "caffe"):
        scaled = keras.applications.imagenet_utils.preprocess_input(IMAGES.copy(), mode=mode)
        np.testing.assert_allclose(PIXELS[mode].of(IMAGES), scaled, atol=1e-4)
    model = stock(scaling=False)
    with pytest.raises(InputError, match="it is not known what numbers it was trained on; say start_pixels: one of bytes, unit"):
        borrow(model, arch_of(), 2)
    found = borrow(model, arch_of(), 2, PIXELS[mode])
    expected = np.asarray(keras.Model(model.input, model.get_layer(found.layer).output)(PIXELS[mode].of(IMAGES), training=False))
    received = features(Network(arch_of()), found.arrays, found.pixels, 2)
    np.testing.assert_allclose(received, expected, atol=1e-4 * np.abs(expected).max())


def test_first_layers_that_scale_are_put_together():
    images = keras.Input(SHAPE)
    x = layers.Normalization(mean=[0.5, 0.4, 0.3], variance=[0.04, 0.09, 0.16])(layers.Rescaling(1 / 255)(images))
    model = keras.Model(images, layers.Conv2D(2, 3)(layers.Rescaling([2.0, 1.0, 0.5], [0.0, 1.0, 0.0])(x)))
    pixels = scaled_inside(model, 3)
    m, d, f, o = (np.array(v) for v in ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4], [2.0, 1.0, 0.5], [0.0, 1.0, 0.0]))
    expected = ((IMAGES / 255 - m) / d) * f + o
    np.testing.assert_allclose((IMAGES - np.array(pixels.mean)) / np.array(pixels.deviation), expected, atol=1e-4)
    assert pixels.inside and pixels.of(IMAGES) is IMAGES
    assert scaled_inside(keras.Model(images, layers.Conv2D(2, 3)(images)), 3) is None
    with pytest.raises(InputError, match="turn images over"):
        scaled_inside(keras.Model(images, layers.Conv2D(2, 3)(layers.Rescaling(-1.0, 255.0)(images))), 3)


@pytest.mark.slow
def test_a_vgg_of_keras_applications_is_the_shipped_spec():
    """Every one of its 13 convolutions, at a small size, as its own `preprocess_input` feeds it."""
    from pathlib import Path

    spec = spec_of((Path(__file__).parents[2] / "model_specs/vgg16.yaml").read_text()).value
    arch = architecture(spec, (32, 32, 3), 5)
    model = keras.applications.VGG16(weights=None, include_top=False, input_shape=(32, 32, 3))
    found = borrow(model, arch, 13, PIXELS["caffe"])
    assert found.layer == "block5_conv3"
    first = np.asarray(model.get_layer("block1_conv1").kernel)
    np.testing.assert_array_equal(found.arrays["block_1"]["block_1/conv_1/kernel"], first[:, :, ::-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ["blocks.1={conv: 8, kernel_size: 5, downsample: max}"],
            r"block_2/conv_1 \(Conv2D 5x5x6x8\) of the spec has no counterpart",
        ),
        (["blocks.1={conv: 8, downsample: average}"], "all layers have counterparts, and yet no layer .* differs by"),
        (["blocks.0={conv: 6, activation: linear}"], "Padding, strides, activations or the epsilon"),
        (["block_defaults.batch_norm_epsilon=0.1"], "epsilon of batch norms are others"),
        (["blocks.1={conv: 8, stride: 4}"], "none has its shape"),
        (["block_defaults.batch_norm=false"], "all layers have counterparts"),
        (["blocks.0=[{conv: 6}, {random_features: 4}]"], "no weights can be taken; allowed: convolutions"),
    ],
)
def test_another_function_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        borrow(stock(), arch_of(SPEC, SHAPE, *change), 2)


def test_whatever_order_the_parts_of_a_division_were_made_in():
    """Equal shapes in body and shortcut can be told from each other by what they compute only."""
    spec = "name: s\nblock_defaults: {batch_norm: true}\nblocks: [{branches: [[{conv: 4}], [{conv: 4}]]}]\n"
    arch = arch_of(spec)
    images = keras.Input(SHAPE)
    x = layers.Rescaling(1 / 255)(images)
    second, first = normed(x, 4), normed(x, 4)
    model = stirred(keras.Model(images, layers.Concatenate()([first, second])))
    found = borrow(model, arch, 1)
    received = features(Network(arch), found.arrays, found.pixels, 1)
    np.testing.assert_allclose(received, model(IMAGES, training=False), atol=1e-4)


def test_nothing_but_zeros_proves_nothing():
    images = keras.Input(SHAPE)
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(layers.Rescaling(1 / 255)(images))
    model = keras.Model(images, x)
    model.layers[-1].set_weights([-np.ones((3, 3, 3, 4)), -np.ones(4)])
    with pytest.raises(InputError, match="gives nothing but zeros"):
        borrow(model, arch_of("name: s\nblocks: [{conv: 4}]\n"), 1)


def test_shapes_of_inputs():
    two = [keras.Input(SHAPE), keras.Input(SHAPE)]
    with pytest.raises(InputError, match="a model of one batch of images"):
        own_shape(keras.Model(two, layers.Add()(two)))
    free = keras.Input((None, None, 3))
    assert own_shape(keras.Model(free, layers.Conv2D(2, 3)(free))) == (None, None, 3) and own_shape(stock()) == SHAPE
    with pytest.raises(InputError, match="does not say what it takes"):
        own_shape(keras.Sequential([layers.Conv2D(2, 3)]))
    with pytest.raises(InputError, match="channels first"):
        own_shape(keras.Model(two[0], layers.Conv2D(2, 3, data_format="channels_first")(two[0])))


def test_norms_without_scale_and_odd_first_layers():
    images = keras.Input(SHAPE)
    x = layers.Rescaling(1 / 255)(images)
    x = layers.BatchNormalization(center=False, scale=False)(layers.Conv2D(6, 3, padding="same")(x))
    with pytest.raises(InputError, match="has 2 weights, and block_1/batch_norm_1"):
        borrow(keras.Model(images, x), arch_of(), 1)
    norm = keras.Model(images, layers.Conv2D(4, 3, padding="same", use_bias=False)(layers.BatchNormalization()(images)))
    with pytest.raises(InputError, match="can only be turned in a convolution"):
        borrow(norm, arch_of("name: s\nblocks: [[{batch_norm: true}, {conv: 4, activation: linear}]]\n"), 1, PIXELS["caffe"])
