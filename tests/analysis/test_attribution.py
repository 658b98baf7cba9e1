"""Maps of what answers rest on, against cases by hand; and that they mean something."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

from kerasgreedy.analysis.ascent import maximize
from kerasgreedy.analysis.attribution import (
    curve,
    grad_cam,
    integrated_gradients,
    last_convolution,
    layer_of,
    occlusion,
    probabilities,
    random_maps,
    rank_correlation,
    scores,
)
from kerasgreedy.analysis.curvature import eigenvalues
from kerasgreedy.analysis.directions import filter_normalized
from kerasgreedy.analysis.landscape import surface
from kerasgreedy.analysis.running import analyse
from kerasgreedy.analysis.subject import run_subject
from kerasgreedy.errors import InputError
from kerasgreedy.network.points import Points
from kerasgreedy.spec.analyses_of_layers import Explain, Visualize

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(3, 6, 6, 2)).astype(np.float32)


def by_means():
    """1x1 convolutions, their means, a linear layer, inside of a nested model."""
    inner = keras.Input((6, 6, 2))
    nested = keras.Model(inner, keras.layers.Conv2D(3, 1, name="maps")(inner), name="nested")
    images = keras.Input((6, 6, 2))
    x = keras.layers.GlobalAveragePooling2D()(nested(images))
    model = keras.Model(images, keras.layers.Dense(4, name="logits")(x))
    for variable in model.trainable_variables:
        variable.assign(np.random.default_rng(1).normal(size=variable.shape))
    return model


@pytest.mark.parametrize("layer", [None, "maps"])
def test_grad_cam_by_hand(layer):
    """d score / d A_k = w_kc / 36 everywhere, so the map is relu(sum of w_kc A_k) / 36."""
    model = by_means()
    kernel, bias, weights, _ = (np.asarray(v, np.float64) for v in map(keras.ops.convert_to_numpy, model.trainable_variables))
    maps = IMAGES @ kernel[0, 0] + bias
    classes = [0, 3, 1]
    expected = np.maximum(np.einsum("nhwk,nk->nhw", maps, weights[:, classes].T), 0) / 36
    np.testing.assert_allclose(grad_cam(model, IMAGES, classes, layer), expected, rtol=1e-4, atol=1e-6)
    # The layer goes back to what it was.
    assert "call" not in layer_of(model, "maps").__dict__


def test_grad_cam_brings_maps_to_the_size_of_the_images():
    x = images = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(2, 3, strides=2, padding="same", name="maps")(x)
    model = keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    assert grad_cam(model, np.ones((5, 8, 8, 1), np.float32), [0] * 5).shape == (5, 8, 8)
    with pytest.raises(InputError, match=r"layer: received 'map'.*did you mean 'maps'"):
        grad_cam(model, np.ones((1, 8, 8, 1), np.float32), [0], "map")
    with pytest.raises(InputError, match="allowed: maps"):
        grad_cam(model, np.ones((1, 8, 8, 1), np.float32), [0], model.layers[-1])
    with pytest.raises(InputError, match="one class for each image"):
        grad_cam(model, np.ones((2, 8, 8, 1), np.float32), [0])


def test_classes_that_are_not_there_are_refused():
    for classes, received in (([0, 1, 4], "0 to 4"), ([-1, 0, 0], "-1 to 0"), ([0.5, 1, 2], "float64"), (np.eye(3), "float64")):
        with pytest.raises(InputError, match=f"classes: received {received}"):
            scores(by_means(), IMAGES, classes)
    with pytest.raises(InputError, match="labels: received 0 to 7; allowed: 0 to 3"):
        Points(by_means(), IMAGES, np.array([0, 1, 7]))
    with pytest.raises(InputError, match="steps: received 0"):
        integrated_gradients(by_means(), IMAGES, [0, 1, 2], steps=0)


def test_integrated_gradients():
    """Of a linear model (x - x0) w exactly; of any, they add up to the rise of the score."""
    linear = keras.Sequential([keras.Input((6, 6, 2)), keras.layers.Flatten(), keras.layers.Dense(3)])
    w = np.asarray(keras.ops.convert_to_numpy(linear.layers[-1].kernel)).reshape(6, 6, 2, 3)
    found = integrated_gradients(linear, IMAGES, [2, 0, 1], steps=3, baseline=0.5)
    np.testing.assert_allclose(found, (IMAGES - 0.5) * np.moveaxis(w[..., [2, 0, 1]], -1, 0), rtol=1e-4, atol=1e-6)
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Conv2D(4, 3, activation="tanh"),
        keras.layers.Flatten(),
        keras.layers.Dense(3, kernel_initializer="he_normal"),
    ]
    smooth = keras.Sequential([keras.Input((6, 6, 2)), *layers])
    rise = scores(smooth, IMAGES, [0, 1, 2]) - scores(smooth, np.zeros_like(IMAGES), [0, 1, 2])
    np.testing.assert_allclose(integrated_gradients(smooth, IMAGES, [0, 1, 2]).sum((1, 2, 3)), rise, rtol=1e-3)


def corner():
    """Class 1 is how bright the upper left 3x3 corner is."""
    model = keras.Sequential([keras.Input((6, 6, 2)), keras.layers.Flatten(), keras.layers.Dense(2, use_bias=False)])
    kernel = np.zeros((6, 6, 2, 2), np.float32)
    kernel[:3, :3, :, 1] = 1
    model.layers[-1].kernel.assign(kernel.reshape(72, 2))
    return model


def test_occlusion_finds_a_planted_patch():
    images = np.ones((2, 6, 6, 2), np.float32)
    found = occlusion(corner(), images, [1, 0], size=2, stride=1)
    assert found[0, :2, :2].min() > 0 and not found[0, 4:, :].any() and not found[0, :, 4:].any() and not found[1].any()
    # The pixel (0, 0) is covered by one square alone, all four of whose pixels count, in two channels.
    assert found[0, 0, 0] == pytest.approx(8)
    # (2, 2): four squares, with 4, 2, 2 and 1 pixels of the corner.
    assert found[0, 2, 2] == pytest.approx(2 * (4 + 2 + 2 + 1) / 4)
    with pytest.raises(InputError, match="received size 7"):
        occlusion(corner(), images, [0, 0], size=7)


def test_curves_by_hand():
    """A map that ranks the corner's 9 pixels first takes them first: logit 18 - 2 per pixel."""
    model, images = corner(), np.ones((1, 6, 6, 2), np.float32)
    maps = np.zeros((1, 6, 6))
    maps[0, :3, :3] = 1
    right = curve(model, images, [1], maps, steps=36)[0]
    logit = np.maximum(18 - 2 * np.arange(37), 0)
    np.testing.assert_allclose(right, 1 / (1 + np.exp(-logit)), rtol=1e-5)
    comes = curve(model, images, [1], maps, "insertion", steps=36)[0]
    np.testing.assert_allclose(comes, 1 / (1 + np.exp(-np.minimum(2 * np.arange(37), 18))), rtol=1e-5)
    assert right.mean() < curve(model, images, [1], random_maps(images, 1), steps=36).mean()
    with pytest.raises(InputError, match="received 'delete'"):
        curve(model, images, [1], maps, "delete")
    np.testing.assert_allclose(probabilities(model, images, [1]), right[:1], rtol=1e-6)


def test_rank_correlation():
    one = RNG.normal(size=(2, 5, 5))
    assert rank_correlation(one, np.exp(one)) == pytest.approx(1)
    assert rank_correlation(one, -one) == pytest.approx(-1)
    assert rank_correlation(one, np.ones_like(one)) == 0


@pytest.mark.slow
def test_ascent_ends_in_the_corner_of_the_box():
    """Of <w, X> the maximum over a box is its upper end where w > 0 and its lower where w < 0, each colour by its own."""
    model = keras.Sequential([keras.Input((6, 6, 2)), keras.layers.Flatten(), keras.layers.Dense(3, use_bias=False)])
    w = np.asarray(keras.ops.convert_to_numpy(model.layers[-1].kernel)).reshape(6, 6, 2, 3)
    low, high = np.array([-1.0, -2.0]), np.array([1.0, 3.0])
    images, heights = maximize(model, (6, 6, 2), [2, 0], low, high, steps=4000, rate=0.1)
    best = np.where(np.moveaxis(w[..., [2, 0]], -1, 0) > 0, high, low)
    np.testing.assert_allclose(images, best, atol=1e-5)
    np.testing.assert_allclose(heights, (best * np.moveaxis(w[..., [2, 0]], -1, 0)).sum((1, 2, 3)), rtol=1e-5)
    smooth, lower = maximize(model, (6, 6, 2), [2, 0], low, high, steps=50, rate=0.1, jitter=1, smoothing=0.7)
    assert (smooth >= low).all() and (smooth <= high).all() and (lower < heights).all()
    # Of a channel of a layer, its mean over places.
    convolution = keras.Sequential([keras.Input((6, 6, 2)), keras.layers.Conv2D(2, 1, use_bias=False), keras.layers.Flatten()])
    k = np.asarray(keras.ops.convert_to_numpy(convolution.layers[0].kernel))[0, 0]
    images, heights = maximize(convolution, (6, 6, 2), [1], -1, 1, convolution.layers[0], steps=100, rate=0.1)
    np.testing.assert_allclose(heights, [np.abs(k[:, 1]).sum()], rtol=1e-5)
    np.testing.assert_allclose(images[0], np.broadcast_to(np.sign(k[:, 1]), (6, 6, 2)), atol=1e-5)


def test_ascent_refuses_channels_that_are_not_there():
    model = by_means()
    maps = layer_of(model, "maps")
    with pytest.raises(InputError, match="channel: received 3; allowed: 0 to 2"):
        maximize(model, (6, 6, 2), [0, 3], -1, 1, maps, steps=1)
    with pytest.raises(InputError, match="is not called"):
        maximize(model, (6, 6, 2), [0], -1, 1, keras.layers.Conv2D(1, 1), steps=1)
    with pytest.raises(InputError, match="smoothing: received 16; allowed: up to 2, a third"):
        maximize(model, (6, 6, 2), [0], -1, 1, maps, steps=1, smoothing=16)
    images, _ = maximize(model, (6, 6, 2), [i % 3 for i in range(19)], -1, 1, maps, steps=2)
    assert images.shape == (19, 6, 6, 2)  # in chunks


@pytest.fixture(scope="module")
def explained(two_runs, tmp_path_factory):
    return analyse(
        Explain(examples=20, size=2, stride=2, steps=32), two_runs[:1], tmp_path_factory.mktemp("explain") / "out", quiet=True
    )


@pytest.mark.slow
def test_maps_of_a_trained_network_mean_something(explained):
    """What covering a pixel costs tells better than chance which pixels to take, and depends on what was learnt."""
    methods = explained.figures["methods"]
    assert np.mean(methods["occlusion"]["deletion"]) < np.mean(methods["random"]["deletion"])
    assert np.mean(methods["occlusion"]["insertion"]) > np.mean(methods["random"]["insertion"])
    assert methods["occlusion"]["shuffled"] < 0.5
    assert methods["integrated_gradients"]["completeness_gap"] < 5e-3 and methods["integrated_gradients"]["steps"] >= 32
    assert len(methods["grad_cam"]["deletion"]) == 20


@pytest.mark.slow
def test_what_explain_writes(explained):
    names = [file.name for file in explained.files]
    assert names == ["explain.json", "images.csv", "explain.csv", "explain.png", "removal.png"]
    folder = explained.files[0].parent
    stored = np.load(folder / "maps.npz")
    assert stored["images"].shape == (20, 8, 8, 1) and stored["occlusion"].shape == (20, 8, 8)
    assert all(np.array(Image.open(folder / name)).std() > 5 for name in names[3:])


def test_image_files_and_other_classes(two_runs, tmp_path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(RNG.integers(0, 256, (20, 30, 3), np.uint8)).save("photo.png")
    code, out, _ = call(f"explain {two_runs[0]} photo.png --class 3 --methods grad_cam --block 2 --out here --json")
    found = json.loads(out.splitlines()[-1])
    assert code == 0 and found["images"][0]["name"] == "photo.png" and found["images"][0]["class"] == "3" and found["block"] == 2
    for more, message in (
        ("--class 12", "--class: received '12'"),
        ("--methods grad_cam --block 4", "--block: received 4; allowed: one that gives maps (1, 2, 3)"),
        ("missing.png", "missing.png"),
    ):
        code, _, err = call(f"explain {two_runs[0]} {more} --out there --overwrite")
        assert code == 2 and message in err, err


@pytest.mark.parametrize("what", ["filters", "maximize", "classes", "activations", "confusion"])
def test_pictures(two_runs, tmp_path, what):
    given = {"what": what, "count": 5}
    given |= {"steps": 3} if what in ("maximize", "classes") else {}
    given |= {"layer": "block_2/conv_1"} if what in ("filters", "maximize", "activations") else {}
    found = analyse(Visualize(**given), two_runs[:1], tmp_path / "out", quiet=True)
    drawn = [file for file in found.files if file.suffix == ".png"]
    assert drawn and all(np.array(Image.open(file)).std() > 1 for file in drawn)
    if what == "confusion":
        counts = np.array(found.figures["confusion"])
        assert counts.sum() == 50 and np.trace(counts) / 50 == pytest.approx(found.figures["accuracy"])
        assert found.figures["accuracy"] == pytest.approx(1 - found.figures["test_error"])
    elif what == "filters":
        norms = [value for (value,) in found.figures["values"]]
        assert norms == sorted(norms, reverse=True) and len(norms) == 5


def test_activations_are_those_of_the_image_that_is_asked_for(two_runs, tmp_path):
    """The n-th image of the part, whichever are drawn."""
    subject = run_subject(two_runs[0])
    every = subject.sample("test", 1000)
    assert every.rows.tolist() == list(range(50))
    network = subject.parts.network
    seen = []
    for number in (0, 1, 30):
        found = analyse(Visualize(what="activations", image=number, count=4), two_runs[:1], tmp_path / str(number), quiet=True)
        maps = np.asarray(network.component("block_1").get_layer("conv_1")(every.images[number : number + 1]))[0]
        strength = np.sort(np.abs(maps).mean((0, 1)))[::-1]
        np.testing.assert_allclose([value for (value,) in found.figures["values"]], strength, rtol=1e-5)
        seen.append(strength[0])
    assert len(set(seen)) == 3


def test_visualize_refuses(two_runs, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(f"visualize {two_runs[0]} --layer block_1/conv_2 --out x")
    assert code == 2 and "--layer: received 'block_1/conv_2'; did you mean 'block_" in err
    code, _, err = call(f"visualize {two_runs[0]} --what activations --image 50 --out x")
    assert code == 2 and "image: received 50; allowed: 0 to 49" in err


@pytest.mark.slow
@pytest.mark.parametrize("make", [keras.applications.MobileNetV2, keras.applications.EfficientNetB0])
def test_models_of_keras_applications(make):
    """Nothing here asks for a network of this package."""
    model = make(weights=None, input_shape=(32, 32, 3), classes=5, classifier_activation=None)
    images, labels = RNG.normal(size=(8, 32, 32, 3)).astype(np.float32), np.arange(8) % 5
    points = Points(model, images, labels)
    theta = points.parameters.read()
    directions = [filter_normalized(points.parameters, theta, 0, number) for number in range(2)]
    losses, _ = surface(points, theta, directions, [[-0.5, 0.0, 0.5]] * 2)
    assert losses[1, 1] == pytest.approx(points.evaluate([theta])[0][0], rel=1e-6) and np.isfinite(losses).all()
    assert eigenvalues(points, theta, steps=2).steps == 2
    assert grad_cam(model, images, labels).shape == occlusion(model, images, labels, 16, 16).shape == (8, 32, 32)
    assert integrated_gradients(model, images[:1], labels[:1], steps=2).shape == (1, 32, 32, 3)
    pictures, heights = maximize(model, (32, 32, 3), [0, 1], -1, 1, last_convolution(model, images), steps=2)
    assert pictures.shape == (2, 32, 32, 3) and np.isfinite(heights).all()
