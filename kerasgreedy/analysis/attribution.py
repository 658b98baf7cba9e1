"""Which pixels an answer rests on: Grad-CAM, integrated gradients, occlusion; and checks that a map means something.

All functions take any Keras 3 model whose first or only output is (n, classes), images as it takes them, and classes (n,).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from kerasgreedy.errors import InputError, did_you_mean
from kerasgreedy.network.outputs import are_probabilities, as_images, check_classes, logits_of, refuse_low_precision
from kerasgreedy.network.taps import tapped

if TYPE_CHECKING:
    from numpy.typing import NDArray

Maps: TypeAlias = "NDArray[Any]"
BATCH = 64


def layer_of(model: keras.Model, name: str) -> keras.layers.Layer:
    """A layer, nested ones too, by its name.

    Raises:
        InputError: there is none, or there are several of that name.
    """
    layers = list(model._flatten_layers(include_self=False))
    found = [layer for layer in layers if layer.name == name]
    names = sorted({layer.name for layer in layers})
    if not found:
        hint = did_you_mean(name, names) or f"; allowed: {', '.join(names[:20])}"
        raise InputError(f"layer: received '{name}', which {model.name} does not hold{hint}")
    if len(found) > 1:
        raise InputError(f"layer: {len(found)} layers of {model.name} are called '{name}'; give the layer itself")
    return found[0]


def last_convolution(model: keras.Model, images: "NDArray[Any]") -> keras.layers.Layer:
    """The convolution that is called last, in nested and subclassed models too: the order of attributes says little.

    Raises:
        InputError: none is called.
    """
    called: list[keras.layers.Layer] = []

    def look(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        called.append(call.__self__)  # type: ignore[attr-defined]
        return call(*args, **kwargs)

    inside = [layer for layer in model._flatten_layers(include_self=False) if isinstance(layer, CONVOLUTIONS)]
    with tapped(dict.fromkeys(inside, look)):
        model(as_images(images, 4)[:1], training=False)
    if not called:
        raise InputError(f"{model.name}: calls no convolution; name the layer whose maps are meant")
    return called[-1]


CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D, keras.layers.Conv2DTranspose)


def grad_cam(
    model: keras.Model, images: "NDArray[Any]", classes: ArrayLike, layer: keras.layers.Layer | str | None = None
) -> Maps:
    """relu(sum over channels k of a_k A_k), a_k the mean over space of d score / d A_k (Selvaraju et al. 2017, eq. 1 and 2).

    Args:
        images: (n, height, width, channels).
        layer: whose maps A are meant; default: the convolution that is called last.

    Returns:
        (n, height, width), brought to the size of the images by linear interpolation; 0 or more.

    Raises:
        InputError: the layer gives no maps or is called several times, or the score does not depend on them.
    """
    if layer is None:
        chosen = last_convolution(model, images)
    else:
        chosen = layer if isinstance(layer, keras.layers.Layer) else layer_of(model, layer)

    def run(x: tf.Tensor, of: tf.Tensor) -> tf.Tensor:
        seen: list[tf.Tensor] = []
        with tf.GradientTape() as tape:

            def look(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
                output = call(*args, **kwargs)
                tape.watch(output)
                seen.append(output)
                return output

            with tapped({chosen: look}):
                score = _scores(model, x, of)
        only = output_of(chosen, seen)
        if len(only.shape) != 4:
            raise InputError(f"layer '{chosen.name}' gives {tuple(only.shape)}; allowed: maps (n, height, width, channels)")
        gradient = tape.gradient(score, only)
        if gradient is None:
            raise InputError(f"the score does not depend on layer '{chosen.name}'")
        weights = tf.reduce_mean(gradient, axis=(1, 2), keepdims=True)
        maps = tf.nn.relu(tf.reduce_sum(weights * only, axis=-1, keepdims=True))
        return tf.image.resize(maps, x.shape[1:3])[..., 0]

    return _in_batches(model, run, images, classes)


def output_of(layer: keras.layers.Layer, seen: Sequence[Any]) -> Any:
    """What a layer gave while its calls were noted.

    Raises:
        InputError: it was called not once: the maps of one call would not say what the others do.
    """
    if len(seen) != 1:
        times = f"is called {len(seen)} times by this model" if seen else "is not called by this model"
        raise InputError(f"layer '{layer.name}' {times}; allowed: one that is called once")
    return seen[0]


def integrated_gradients(
    model: keras.Model, images: "NDArray[Any]", classes: ArrayLike, steps: int = 128, baseline: Any = 0.0
) -> Maps:
    """(x - x0) times the mean of d score / dx on the way from x0 to x (Sundararajan et al. 2017, eq. 3), by the midpoint rule.

    Args:
        steps: points on the way.
        baseline: x0, a number or an image; 0 is the mean image where images have been normalised.

    Returns:
        (n, height, width, channels); its sum over an image tends to score(x) - score(x0) with rising steps.
    """
    if steps < 1:
        raise InputError(f"steps: received {steps}; allowed: 1 or more")
    images = as_images(images, 4)
    base = np.broadcast_to(np.asarray(baseline, images.dtype), images.shape[1:])

    @tf.function(autograph=False)
    def slope(point: tf.Tensor, of: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(point)
            score = _scores(model, point, of)
        return tape.gradient(score, point)

    def run(x: tf.Tensor, of: tf.Tensor) -> tf.Tensor:
        total = tf.zeros_like(x)
        for step in range(steps):
            total += slope(base + (step + 0.5) / steps * (x - base), of)
        return (x - base) * total / steps

    return _in_batches(model, run, images, classes, graph=False)


def occlusion(
    model: keras.Model, images: "NDArray[Any]", classes: ArrayLike, size: int = 8, stride: int = 4, fill: float = 0.0
) -> Maps:
    """How much the score falls when a square is covered, mean over the squares that cover a pixel (Zeiler and Fergus 2014).

    Args:
        size, stride: of the squares, in pixels; the last ones end at the border. A larger stride would leave pixels uncovered.
        fill: what is put in the place of pixels.

    Returns:
        (n, height, width).
    """
    images = as_images(images, 4)
    height, width = images.shape[1:3]
    if not 1 <= stride <= size <= min(height, width):
        side = min(height, width)
        raise InputError(f"occlusion: received size {size}, stride {stride}; allowed: size 1 to {side}, stride 1 to the size")
    whole = scores(model, images, classes)
    total, count = np.zeros(images.shape[:3]), np.zeros((height, width))
    for top in _starts(height, size, stride):
        for left in _starts(width, size, stride):
            covered = images.copy()
            covered[:, top : top + size, left : left + size] = fill
            fall = whole - scores(model, covered, classes)
            total[:, top : top + size, left : left + size] += fall[:, None, None]
            count[top : top + size, left : left + size] += 1
    return total / count


def _starts(length: int, size: int, stride: int) -> list[int]:
    return sorted({*range(0, length - size + 1, stride), length - size})


def random_maps(images: "NDArray[Any]", seed: int = 0) -> Maps:
    """Noise as smooth as a 4x4 grid, for comparison, (n, height, width)."""
    grid = np.random.default_rng(seed).random((len(images), 4, 4, 1))
    return np.asarray(tf.image.resize(grid, images.shape[1:3], "bicubic")[..., 0], np.float64)


def curve(
    model: keras.Model,
    images: "NDArray[Any]",
    classes: ArrayLike,
    maps: Maps,
    kind: str = "deletion",
    steps: int = 20,
    fill: float = 0.0,
) -> Maps:
    """Probability of the class while the pixels that a map calls important go, or come (Petsiuk et al. 2018).

    Args:
        maps: (n, height, width).
        kind: `deletion`: from the whole image to one that is `fill`; `insertion`: from `fill` to the image.
        steps: shares of the pixels.

    Returns:
        (n, steps + 1). Its mean is the area under it: a good map has little of deletion and much of insertion.
    """
    if kind not in ("deletion", "insertion"):
        raise InputError(f"kind: received '{kind}'; allowed: deletion, insertion{did_you_mean(kind, ['deletion', 'insertion'])}")
    images = as_images(images, 4)
    n, pixels = len(images), maps[0].size
    ranks = np.empty((n, pixels), np.int64)
    np.put_along_axis(ranks, np.argsort(-maps.reshape(n, -1), axis=1, kind="stable"), np.arange(pixels)[None], axis=1)
    found = []
    for step in range(steps + 1):
        important = (ranks < round(step * pixels / steps)).reshape(*maps.shape, 1)
        shown = ~important if kind == "deletion" else important
        found.append(probabilities(model, np.where(shown, images, np.asarray(fill, images.dtype)), classes))
    return np.stack(found, axis=1)


def randomized(model: keras.Model, seed: int = 0) -> list["NDArray[Any]"]:
    """Values of all variables with every weight tensor's entries in another order: the sanity check of Adebayo et al. (2018).

    A map that hardly changes does not show what the network has learnt.
    """
    rng = np.random.default_rng(seed)
    values = []
    for variable in model.variables:
        value = keras.ops.convert_to_numpy(variable)
        trained = any(variable is each for each in model.trainable_variables)
        values.append(rng.permutation(value.reshape(-1)).reshape(value.shape) if trained else value)
    return values


def rank_correlation(one: Maps, two: Maps) -> float:
    """Mean over the images of Spearman's correlation of two maps (n, height, width); 0 where one is flat."""
    from scipy.stats import spearmanr

    found = []
    for a, b in zip(one, two, strict=True):
        flat = np.ptp(a) == 0 or np.ptp(b) == 0
        found.append(0.0 if flat else float(spearmanr(a.reshape(-1), b.reshape(-1)).statistic))
    return float(np.mean(found))


def scores(model: keras.Model, images: "NDArray[Any]", classes: ArrayLike) -> Maps:
    """The logit of its class for each image, (n,)."""
    return _in_batches(model, lambda x, of: _scores(model, x, of), images, classes)


def probabilities(model: keras.Model, images: "NDArray[Any]", classes: ArrayLike) -> Maps:
    """The probability of its class for each image, (n,): softmax of logits, or what a model gives that ends in one."""
    rows = _in_batches(model, lambda x, of: logits_of(model(x, training=False)), images, classes)
    if not are_probabilities(rows):
        rows = np.exp(rows - rows.max(1, keepdims=True))
        rows /= rows.sum(1, keepdims=True)
    return rows[np.arange(len(rows)), np.asarray(classes)]


def _scores(model: keras.Model, x: tf.Tensor, of: tf.Tensor) -> tf.Tensor:
    return tf.gather(logits_of(model(x, training=False)), of, axis=1, batch_dims=1)


def _in_batches(
    model: keras.Model, run: Callable[..., tf.Tensor], images: "NDArray[Any]", classes: ArrayLike, graph: bool = True
) -> Maps:
    images = as_images(images, 4)
    refuse_low_precision(model)
    check_classes(model, classes, "classes")
    of = np.asarray(classes, np.int32)
    if of.shape != (len(images),):
        raise InputError(f"received {len(images)} images and classes {of.shape}; allowed: one class for each image")
    call = run if not graph or len(images) <= BATCH else tf.function(run, autograph=False)
    return np.concatenate([np.asarray(call(*some), np.float64) for some in _some(images, of)])


def _some(images: "NDArray[Any]", of: "NDArray[Any]") -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    for i in range(0, len(images), BATCH):
        yield tf.constant(images[i : i + BATCH]), tf.constant(of[i : i + BATCH])
