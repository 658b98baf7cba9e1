"""Any Keras model: what is refused, and what nested, subclassed and odd models give."""

import keras
import numpy as np
import pytest

from kerasgreedy.analysis.ascent import maximize
from kerasgreedy.analysis.attribution import (
    curve,
    grad_cam,
    integrated_gradients,
    last_convolution,
    occlusion,
    probabilities,
    scores,
)
from kerasgreedy.analysis.landscape import surface
from kerasgreedy.errors import InputError
from kerasgreedy.network.parameters import Parameters
from kerasgreedy.network.points import Points

L = keras.layers
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(6, 12, 12, 3)).astype(np.float32), np.arange(6) % 4


def pair_of_heads():
    """The same network with and without its softmax."""
    images = keras.Input((12, 12, 3))
    logits = L.Dense(4)(L.GlobalAveragePooling2D()(L.Conv2D(3, 3, name="maps")(images)))
    return keras.Model(images, logits), keras.Model(images, L.Softmax()(logits))


def test_a_softmax_at_the_end():
    """Losses of logits refuse it; losses of probabilities, and probabilities themselves, are those of the logits."""
    logits, soft = pair_of_heads()
    with pytest.raises(InputError, match=r"ends in a softmax.*classifier_activation=None.*sparse_categorical_crossentropy"):
        Points(soft, X, Y)
    own = Points(logits, X, Y)
    theta = own.parameters.read()
    other = Points(soft, X, Y, losses=lambda p, y: keras.losses.sparse_categorical_crossentropy(y, p))
    assert other.evaluate([theta])[0] == pytest.approx(own.evaluate([theta])[0], rel=1e-5)
    rows = np.asarray(logits(X), np.float64)
    right = (np.exp(rows) / np.exp(rows).sum(1, keepdims=True))[np.arange(6), Y]
    for model in (logits, soft):
        np.testing.assert_allclose(probabilities(model, X, Y), right, rtol=1e-5)
    maps = RNG.random((6, 12, 12))
    np.testing.assert_allclose(curve(soft, X, Y, maps, steps=3), curve(logits, X, Y, maps, steps=3), rtol=1e-4)


class Crosswise(keras.Model):
    """Calls its convolutions in another order than that of its attributes."""

    def __init__(self):
        super().__init__()
        self.late = L.Conv2D(4, 3, name="late")
        self.early = L.Conv2D(3, 3, name="early")
        self.unused = L.BatchNormalization(name="unused")
        self.norm = L.BatchNormalization(name="norm")
        self.head = L.Dense(4)

    def call(self, x):
        return self.head(keras.ops.mean(self.late(self.norm(self.early(x))), (1, 2)))


def nested():
    inner = [L.Conv2D(4, 3, name="first"), L.ReLU(), L.Conv2D(4, 3, name="middle"), L.ReLU(), L.Conv2D(4, 3, name="last")]
    base = keras.Sequential([L.Input((12, 12, 3)), *inner])
    return keras.Sequential([L.Input((12, 12, 3)), base, L.GlobalAveragePooling2D(), L.Dense(4)])


@pytest.mark.parametrize(("make", "name"), [(nested, "last"), (Crosswise, "late")])
def test_grad_cam_reads_the_convolution_that_is_called_last(make, name):
    model = make()
    model(X)
    assert last_convolution(model, X).name == name
    np.testing.assert_array_equal(grad_cam(model, X, Y), grad_cam(model, X, Y, name))


def test_batch_norm_that_is_never_called_keeps_its_statistics():
    model = Crosswise()
    model(X)
    model.unused.build((None, 4, 4, 4))
    points = Points(model, X, Y, batch_size=4)
    found = points.statistics(points.parameters.read())
    values = dict(zip([variable.path for variable in model.non_trainable_variables], found, strict=True))
    (mean,) = (value for path, value in values.items() if "norm/moving_mean" in path)
    np.testing.assert_allclose(mean, np.asarray(model.early(X), np.float64).mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    assert all(np.isin(value, (0.0, 1.0)).all() for path, value in values.items() if "unused" in path)


def test_batch_norm_that_is_called_twice_is_refused_in_words():
    images, norm = keras.Input((12, 12, 3)), L.BatchNormalization(name="shared")
    x = norm(L.Conv2D(3, 1)(norm(images)))
    model = keras.Model(images, L.Dense(4)(L.GlobalAveragePooling2D()(x)))
    points = Points(model, X, Y)
    with pytest.raises(InputError) as error:
        points.statistics(points.parameters.read())
    assert str(error.value) == (
        "batch norm 'shared' is called more than once: its statistics cannot be re-estimated; allowed: moving ones"
    )


def test_a_layer_that_is_called_twice_has_no_single_map():
    images, shared = keras.Input((12, 12, 3)), L.Conv2D(3, 3, padding="same", name="shared")
    first = shared(images)
    shared(first)
    both = L.Concatenate()([first, shared(first)])
    model = keras.Model(images, L.Dense(4)(L.GlobalAveragePooling2D()(both)))
    for look in (lambda: grad_cam(model, X, Y, "shared"), lambda: maximize(model, (12, 12, 3), [0], 0, 1, "shared", steps=1)):
        with pytest.raises(InputError, match=r"layer 'shared' is called 2 times by this model; allowed: one that is called once"):
            look()


def outputs(kind):
    images = keras.Input((12, 12, 3))
    maps = L.Conv2D(4, 3)(images)
    logits = L.Dense(4)(L.GlobalAveragePooling2D()(maps))
    one = L.Dense(1)(L.GlobalAveragePooling2D()(maps))
    return keras.Model(images, {"map": maps, "maps": [maps, logits], "names": {"a": logits, "b": maps}, "one": one}[kind])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("map", r"the model gives \(n, 10, 10, 4\); allowed: logits \(n, classes\)"),
        ("maps", r"the model gives \(n, 10, 10, 4\)"),
        ("names", r"a mapping \(a, b\); allowed: logits"),
        ("one", r"the model gives \(n, 1\); allowed: logits \(n, classes\) of two classes or more"),
    ],
)
def test_what_gives_no_logits_is_refused(kind, message):
    model = outputs(kind)
    labels = np.zeros(6, np.int64)
    for look in (Points, grad_cam, integrated_gradients, scores, probabilities, lambda *all_: occlusion(*all_, 4, 4)):
        with pytest.raises(InputError, match=message):
            look(model, X, labels)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_sixteen_bits_are_refused(policy):
    """One layer is enough; its weights are float32."""
    images = keras.Input((12, 12, 3))
    nested = keras.Sequential([keras.Input((12, 12, 3)), L.Conv2D(3, 3, dtype=policy)])
    model = keras.Model(images, L.Dense(4, dtype="float32")(L.GlobalAveragePooling2D(dtype="float32")(nested(images))))
    message = f"layers that compute in {policy.removeprefix('mixed_')}, in which gradients"
    for look in (Points, grad_cam, integrated_gradients, lambda *all_: occlusion(*all_, 4, 4)):
        with pytest.raises(InputError, match=message):
            look(model, X, Y)
    with pytest.raises(InputError, match=message):
        maximize(model, (12, 12, 3), [0], 0, 1)


def test_images_of_other_forms():
    """Lists and whole numbers are taken for what they say; several inputs are refused."""
    model, _ = pair_of_heads()
    numbers = RNG.integers(0, 256, X.shape).astype(np.uint8)
    plain = numbers.astype(np.float32)
    for look in (grad_cam, integrated_gradients, lambda *all_: occlusion(*all_, 4, 4), scores):
        np.testing.assert_array_equal(look(model, numbers, Y), look(model, plain, Y))
        np.testing.assert_array_equal(look(model, list(plain), Y), look(model, plain, Y))
    for odd in ([X, X[:, :3]], {"a": X}, [X, X]):
        with pytest.raises(InputError, match="images: received .*of a model with one input"):
            grad_cam(model, odd, Y)
    with pytest.raises(InputError, match="images: received"):
        Points(model, [X, X[:, :3]], Y)


def test_bad_values():
    model, _ = pair_of_heads()
    shape = (12, 12, 3)
    for arguments, message in (
        (([-1], 0, 1), r"channels: received \[-1\]"),
        (([], 0, 1), r"channels: received \[\]"),
        (([0], 1, -1), "low and high: received 1 and -1; allowed: low below high"),
        (([0], 0, 1, "map"), "layer: received 'map'.*did you mean 'maps'"),
    ):
        with pytest.raises(InputError, match=message):
            maximize(model, shape, *arguments, steps=1)
    with pytest.raises(InputError, match="occlusion: received size 2, stride 5; allowed: size 1 to 12, stride 1 to the size"):
        occlusion(model, X, Y, 2, 5)
    points = Points(model, X, Y)
    theta = points.parameters.read()
    with pytest.raises(InputError, match=rf"received weights or a direction \({theta.size - 1},\); allowed: \({theta.size},\)"):
        surface(points, theta, [theta[:-1]], [[0.0]])


def test_no_accuracy_where_the_loss_is_not_finite():
    model, _ = pair_of_heads()
    points = Points(model, X, np.zeros(6, np.int64))
    theta = points.parameters.read()
    losses, right = surface(points, theta, [theta * np.nan], [[0.0, 1.0]])
    assert np.isnan(losses).all() and np.isnan(right).all()


def test_units_of_odd_layers():
    """Slopes of PReLU are no filters; a unit of attention is one head's one key: its weights share a norm."""
    images = keras.Input((5, 6))
    x = L.MultiHeadAttention(2, 3, name="attention")(images, images)
    x = L.PReLU(name="slopes")(L.EinsumDense("abc,cd->abd", (5, 4), name="mixed")(x))
    model = keras.Model(images, x)
    axes = {
        tensor.path: (tensor.shape, tensor.filters)
        for tensor in Parameters(model).tensors
        if tensor.path.endswith(("kernel", "alpha"))
    }
    assert axes == {
        "attention/query/kernel": ((6, 2, 3), (1, 2)),
        "attention/key/kernel": ((6, 2, 3), (1, 2)),
        "attention/value/kernel": ((6, 2, 3), (1, 2)),
        "attention/attention_output/kernel": ((2, 3, 6), (2,)),
        "mixed/kernel": ((6, 4), (1,)),
        "slopes/alpha": ((5, 4), ()),
    }
