"""Every kind of layer, without naming one: an entry in every table, and what its record says against the layer that is built."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import spec_of
from layer_kinds import SPECS, exported

from kerasgreedy.analysis import linearity_chain
from kerasgreedy.export.converting import _ForConverters
from kerasgreedy.export.portable import Rebuild
from kerasgreedy.export.tfmot import twin
from kerasgreedy.graph.coupling import find_coupling
from kerasgreedy.graph.kinds import KINDS, kind_of, numbers_kept
from kerasgreedy.graph.tree import Crop, Pad, PadShortcut, leaves
from kerasgreedy.network import build
from kerasgreedy.network.surgery import remove_filters, silenced
from kerasgreedy.spec import layers as L
from kerasgreedy.spec.convex_layers import ClassSeparable

COMPOSED = {L.Residual, L.Branches}
INTERNAL = {Pad, Crop, PadShortcut, ClassSeparable}  # made of what is written
NO_LINE = "refused: gates are no supports of 0 and 1 of what was trained"
CONVEX = [L.GatedConv, ClassSeparable, L.Standardize, L.RandomFeatures, L.Rows]
PORTABLE = {document: kind.portable for document, kind in KINDS.items() if kind.portable}
TABLES = {
    "portable": Rebuild.kinds | PORTABLE, "converters": _ForConverters.kinds | PORTABLE,
    "twin": {**twin._LAYERS, **dict.fromkeys([*CONVEX, L.RandomCrop, L.PlaceChannels], "refused: see test_finish")},
    "linearity": {
        **linearity_chain._STEPS, Pad: "one with the layer behind it",
        PadShortcut: "refused: only in a residual, which is refused before",
        **dict.fromkeys([L.GatedConv, ClassSeparable, L.RandomFeatures, L.Rows], NO_LINE),
    },
}  # fmt: skip


def places():
    """(kind, network, component, node) of all layers of three networks that hold every kind between them."""
    for name in SPECS:
        network = exported(name)
        for component in network.architecture.components.values():
            for node in leaves(component.nodes):
                yield type(node.layer), network, component, node


PLACES = list(places())
ONE_OF_EACH = list({kind: (network, component, node) for kind, network, component, node in PLACES}.items())
each = pytest.mark.parametrize(("kind", "place"), ONE_OF_EACH, ids=[kind.__name__ for kind, _ in ONE_OF_EACH])


def test_every_kind_that_can_be_written_has_a_record_and_is_in_these_networks():
    written = set(L.KINDS.all.values()) - COMPOSED
    assert written | INTERNAL == set(KINDS) == {kind for kind, *_ in PLACES}


@pytest.mark.parametrize("table", TABLES)
def test_every_table_has_an_entry_for_every_kind(table):
    assert set(TABLES[table]) == set(KINDS)


def test_a_kind_without_a_record_is_an_error():
    class Unknown(L.Flatten):
        pass

    with pytest.raises(KeyError):
        kind_of(Unknown(flatten=True))


@each
def test_shapes_and_weights_are_those_of_the_built_layer(kind, place):
    network, component, _ = place
    model = network.component(component.name)
    for node in leaves(component.nodes):
        layer = model.get_layer(node.name)
        assert tuple(layer.output.shape[1:]) == node.output_shape, node
        assert sum(int(np.prod(weight.shape)) for weight in layer.trainable_weights) == node.parameters, node
        counted = sum(int(np.prod(w.shape)) for w in layer.non_trainable_weights if "seed" not in w.path)
        assert counted == numbers_kept(node), node


@each
def test_it_is_told_of_training_where_that_changes_it(kind, place):
    """Called alone, in training and not; a kind that is not told has no way to know."""
    network, component, node = place
    layer = network.component(component.name).get_layer(node.name)
    copy = type(layer).from_config(layer.get_config())
    x = np.random.default_rng(0).normal(3, 2, (16, *node.input_shape)).astype(np.float32)
    if kind_of(node.layer).takes_training:
        assert np.abs(copy(x, training=True) - copy(x, training=False)).max() > 0.01
    else:
        np.testing.assert_array_equal(keras.Sequential([copy])(x, training=True), copy(x))


@each
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_saved_and_read_again_it_gives_the_same(kind, place, precision, tmp_path):
    network, component, _ = place
    built = build.build_component(component, network.architecture, 0, precision)
    x = np.random.default_rng(1).normal(size=(2, *component.input_shape)).astype(np.float32)
    expected = np.asarray(tf.cast(built(x, training=False), tf.float32))
    built.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")(x, training=False)
    np.testing.assert_array_equal(np.asarray(tf.cast(again, tf.float32)), expected)
    assert np.isfinite(expected).all()


@pytest.mark.parametrize("name", SPECS)
def test_removing_channels_is_silencing_them(name):
    """One item of every group goes: every layer that follows must know which of its channels that is."""
    network, coupling = exported(name), find_coupling(exported(name).architecture)
    spec = spec_of(f"name: {name}\ninput_shape: [8, 8, 3]\nclasses: 4\n{SPECS[name]}").value
    gone = frozenset(group.items[0].label for group in coupling.groups if len(group.items) > 1)
    smaller, _ = remove_filters(network, spec, coupling, gone)
    x = np.random.default_rng(2).normal(size=(3, *network.architecture.input_shape)).astype(np.float32)
    with silenced(network, coupling, gone):
        expected = [np.asarray(z) for z in network.logits(x)]
    for one, two in zip(expected, smaller.logits(x), strict=True):
        np.testing.assert_allclose(one, two, atol=2e-5 * max(1, np.abs(one).max()))


@each
def test_gradients_are_those_of_differences(kind, place):
    """Of its weights and input, by differences along one direction; in float64, or float32 where a kernel has no other."""
    try:
        want, found = slopes(place, "float64", 1e-6)
        tolerance = 1e-5
    except tf.errors.InvalidArgumentError:
        want, found = slopes(place, "float32", 0.05)  # exact for what is quadratic in the step
        tolerance = 1e-3
    _, _, node = place
    if not (isinstance(node.layer, L.Activation) and node.layer.threshold is not None):  # whose gradient is another function's
        assert want == pytest.approx(found, rel=tolerance, abs=1e-7)


def slopes(place, dtype, step):
    """The derivative along a direction: by the tape, and by differences."""
    network, component, node = place
    layer = network.component(component.name).get_layer(node.name)
    copy = type(layer).from_config({**layer.get_config(), "dtype": dtype})
    rng = np.random.default_rng(4)
    x = (rng.normal(size=(2, *node.input_shape)) + 0.01).astype(dtype)
    copy.build((None, *node.input_shape))
    copy.set_weights(layer.get_weights())
    trained = copy.trainable_weights
    weights = [variable.numpy() for variable in trained]
    directions = [rng.normal(size=value.shape).astype(dtype) for value in (x, *weights)]
    call = {"training": False} if kind_of(node.layer).takes_training else {}
    there = np.abs(copy(x, **call)) < 1e30  # and no lowest number that pads a map
    mix = np.where(there, rng.normal(size=there.shape), 0).astype(dtype)

    def value(length):
        for variable, start, direction in zip(trained, weights, directions[1:], strict=True):
            variable.assign(start + length * direction)
        return tf.reduce_sum(mix * copy(tf.constant(x + length * directions[0], dtype), **call))

    found = float(value(step) - value(-step)) / (2 * step)
    value(0.0)
    with tf.GradientTape() as tape:
        inputs = tf.constant(x)
        tape.watch(inputs)
        total = tf.reduce_sum(mix * copy(inputs, **call))
    sources = [inputs, *(variable.value for variable in trained)]
    gradients = tape.gradient(total, sources, unconnected_gradients="zero")
    return sum(float(tf.reduce_sum(slope * direction)) for slope, direction in zip(gradients, directions, strict=True)), found
