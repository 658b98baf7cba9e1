"""Compares a SavedModel that was just written with the network in memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from kerasgreedy.errors import InputError
from kerasgreedy.export.checking import check_finite
from kerasgreedy.export.endpoints import Endpoints, pooled
from kerasgreedy.files import plain_path
from kerasgreedy.nn.ensemble import ensemble_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOLERANCE = 1e-5
# Of confidences on both sides of a threshold that is tried: far more than rounding.
SMALLEST_GAP = 1e-4


def check_images(endpoints: Endpoints, count: int = 4) -> "NDArray[np.uint8]":
    """Images to compare on: noise, and the same noise smoothed, which reaches deeper units."""
    height, width, channels = endpoints.network.architecture.input_shape
    noise = np.random.default_rng(0).integers(0, 256, (count, height, width, channels), np.uint8)
    coarse = tf.image.resize(noise[count // 2 :, : -(-height // 4), : -(-width // 4)], (height, width)).numpy()
    return np.concatenate([noise[: count // 2], coarse.astype(np.uint8)])


def verify_saved_model(folder: Path, endpoints: Endpoints, features_depth: int) -> float:
    """Loads the SavedModel and asks every endpoint.

    Returns:
        The largest difference from the network, in parts of the largest value (or of 1, if that is larger).

    Raises:
        Diverged: a figure of the network is not finite.
        InputError: one differs by more than 1e-5.
    """
    images = check_images(endpoints)
    expected = _expected(endpoints, images)
    for name, outputs in expected.items():
        check_finite(f"what the network gives ({name})", *outputs.values())
    files = tf.stack([tf.io.encode_png(image) for image in images])
    if endpoints.preprocessing.shorter:  # the centre of an image of the network's size is another image
        expected["serve_encoded"] = _expected(endpoints, endpoints.preprocessing(files).numpy())["serve"]
    with plain_path(folder) as place:
        loaded = tf.saved_model.load(str(place))
    given = tf.constant(images)
    received: dict[str, Any] = {}
    for name, signature in loaded.signatures.items():
        if name == "serve_encoded":
            received[name] = signature(image_bytes=files)
        elif name == "anytime":
            for threshold in _thresholds(expected):
                outputs = signature(images=given, threshold=tf.constant(threshold))
                received[f"{name} at {threshold}"] = outputs
                expected[f"{name} at {threshold}"] = _early(endpoints, expected, threshold)
        else:
            received[name] = signature(images=given)
    received["__call__"] = {"features": loaded(tf.constant(images / 255.0, tf.float32))}
    block = endpoints.network.architecture.blocks[features_depth - 1].name
    expected["__call__"] = {"features": expected["features"][f"{block}_pooled"]}
    worst = 0.0
    for name, outputs in received.items():
        arrays = _by_rank({key: value.numpy() for key, value in outputs.items()}, expected[name], endpoints.class_names)
        worst = max([worst, *(_difference(f"{name}, {key}", expected[name][key], value) for key, value in arrays.items())])
    return worst


def _by_rank(received: dict[str, Any], expected: dict[str, Any], class_names: Sequence[str]) -> dict[str, Any]:
    """The outputs, the classes in `top_ids` replaced by their expected probabilities.

    Classes whose probabilities agree to rounding may change places.
    """
    if "top_ids" not in received:
        return received
    ids = received["top_ids"]
    if "top_names" in received:
        names = np.array([name.encode() for name in class_names], object)
        if not np.array_equal(received.pop("top_names"), names[ids]):
            raise InputError("the exported model names its classes otherwise than the run; nothing was written")
    return {**received, "top_ids": np.take_along_axis(expected["probabilities"], ids, 1)}


def _expected(endpoints: Endpoints, images: "NDArray") -> dict[str, dict[str, Any]]:
    """What each endpoint should give for images of 0..255, from the network's components one by one and NumPy."""
    network = endpoints.network
    x: Any = images.astype(np.float32)
    if network.facts.normalization:
        mean, deviation = (np.asarray(part, np.float32) for part in network.facts.normalization)
        x = (x - mean) / deviation
    logits, features = {}, {}
    for depth in range(1, max(network.facts.depths) + 1):
        x = network.blocks[depth - 1](x, training=False)
        name = network.architecture.blocks[depth - 1].name
        if len(x.shape) == 4:
            features[f"{name}_map"] = x.numpy()
        features[f"{name}_pooled"] = pooled(x).numpy()
        if depth in network.facts.depths:
            logits[depth] = network.heads[depth - 1](x, training=False).numpy()
    result = {f"depth_{depth}": _both(z) for depth, z in logits.items()}
    weights = ensemble_weights(network.facts.depths)
    if network.facts.ensemble_on == "logits":
        result["ensemble"] = _both(sum(w * z for w, z in zip(weights, logits.values(), strict=True)))
    else:
        result["ensemble"] = _both(np.log(sum(w * softmax(z) for w, z in zip(weights, logits.values(), strict=True))))
    answer = result["ensemble"] if endpoints.answer == "ensemble" else result[f"depth_{endpoints.answer}"]
    top = -np.sort(-answer["probabilities"], axis=1)[:, : endpoints.top_k]
    served = {"probabilities": answer["probabilities"], "top_probabilities": top, "top_ids": top}
    result["serving_default"] = served
    result["serve"] = result["serve_encoded"] = served
    return {**result, "logits": {"logits": answer["logits"]}, "features": features}


def softmax(logits: "NDArray[np.float32]") -> "NDArray[np.float32]":
    """Over the last axis."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def _both(logits: Any) -> dict[str, Any]:
    return {"logits": logits, "probabilities": softmax(logits)}


def _thresholds(expected: dict[str, dict[str, Any]]) -> list[float]:
    """At once, never, and one in the widest gap between the confidences, if there is one where rounding decides nothing."""
    every = [outputs["probabilities"].max(1) for name, outputs in expected.items() if name.startswith("depth_")]
    seen = np.sort(np.concatenate(every))
    gaps = np.diff(seen)
    between = [float(seen[gaps.argmax() :][:2].mean())] if gaps.max() > SMALLEST_GAP else []  # heads may all be quite sure
    return [0.0, *between, 2.0]


def _early(endpoints: Endpoints, expected: dict[str, dict[str, Any]], threshold: float) -> dict[str, Any]:
    """Row by row, as a reader of its description would do it."""
    rows = []
    for row in range(len(expected["serve"]["probabilities"])):
        for depth in endpoints.network.facts.depths:
            probabilities = expected[f"depth_{depth}"]["probabilities"][row]
            if probabilities.max() >= threshold or depth == endpoints.network.facts.depths[-1]:
                rows.append((probabilities, probabilities.max(), depth))
                break
    return {
        key: np.array(column)
        for key, column in zip(("probabilities", "confidence", "depth"), zip(*rows, strict=True), strict=True)
    }


def _difference(what: str, expected: Any, received: Any) -> float:
    if expected.dtype.kind != "f":
        if not np.array_equal(expected, received):
            raise InputError(f"the exported model gives another {what} than the network; nothing was written")
        return 0.0
    check_finite(f"what the exported model gives ({what})", received)
    scale = max(1.0, float(np.abs(expected).max()))
    difference = float(np.abs(expected - received).max()) / scale
    if not difference <= TOLERANCE:
        raise InputError(
            f"the exported model gives another {what} than the network (they differ by {difference:.1e} of {scale:.1e}); "
            "nothing was written"
        )
    return difference
