"""Whitening of patches and reference patches, from the training images alone; added up in float64."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from kerasgreedy.errors import InputError
from kerasgreedy.network.fitting import Fitting
from kerasgreedy.nn.random_features import NORM_FLOOR
from kerasgreedy.spec.convex_layers import RandomFeatures

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Statistics are of so many training images at most, drawn by the seed.
IMAGES = 10_000
# Reference patches are drawn from the patches of so many images.
POINT_IMAGES = 1000
# Of the points' kernel matrix; smaller eigenvalues are taken for this share of the largest.
LEAST = 1e-6


def fit_random_features(fitting: Fitting) -> dict[str, Any]:
    """Sets a `random_features` layer: ZCA of the training patches, and the random directions or the reference patches.

    ZCA: y = (C + whiten)^(-1/2) (p - mean) with C the covariance of the normalised patches p, and y / sqrt(channels) is what the
    kernel is of.

    Returns:
        images, patches: that the statistics are of.

    Raises:
        InputError: fewer different patches than reference patches that are asked for.
    """
    layer, document = fitting.layer, fitting.node.layer
    assert isinstance(document, RandomFeatures)
    length = document.kernel_size**2 * fitting.node.input_shape[-1]
    centring = np.eye(length) - 1 / length if document.normalize else np.eye(length)
    told: dict[str, Any] = {}
    mean, zca = np.zeros(length), np.eye(length)
    if document.whiten is not None:
        mean, zca, told = _whitening(fitting, document, length)
    zca = zca / math.sqrt(fitting.node.input_shape[-1])
    rng = fitting.generator()
    if document.form == "fourier":
        directions = rng.normal(0, math.sqrt(2 * document.gamma), (length, document.random_features))
        turns = rng.uniform(0, 2 * math.pi, document.random_features)
        values = [centring @ zca @ directions, turns - mean @ zca @ directions]
    else:
        some = _different(fitting, document, rng)
        points = ((some - mean) @ zca).T
        squares = np.sum(points**2, axis=0)
        kernel = np.exp(-document.gamma * np.maximum(squares[:, None] + squares - 2 * points.T @ points, 0))
        values = [centring @ zca, -mean @ zca, points, _inverse_root(kernel)]
    for variable, value in zip(layer.weights, values, strict=True):
        variable.assign(value.reshape(variable.shape).astype(np.float32))
    return told


def normalized(patches: tf.Tensor, document: RandomFeatures) -> tf.Tensor:
    """(b, K, h) -> (b K, h): centred and divided by their norm + 0.1, if they are."""
    flat = tf.reshape(patches, [-1, patches.shape[2]])
    if not document.normalize:
        return flat
    flat -= tf.reduce_mean(flat, axis=1, keepdims=True)
    return flat / (tf.norm(flat, axis=1, keepdims=True) + NORM_FLOOR)


def _whitening(
    fitting: Fitting, document: RandomFeatures, length: int
) -> "tuple[NDArray[np.float64], NDArray[np.float64], dict[str, Any]]":
    """Mean (h,) of the normalised patches, (C + whiten)^(-1/2) (h, h)."""
    total, products, images, count = np.zeros(length), np.zeros((length, length)), 0, 0
    for x in fitting.inputs(min(IMAGES, fitting.images)):
        patches = normalized(fitting.layer.patches(x), document)
        total += tf.reduce_sum(patches, 0).numpy()
        products += tf.matmul(patches, patches, transpose_a=True).numpy()
        images, count = images + x.shape[0], count + patches.shape[0]
    mean = total / count
    values, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
    assert document.whiten is not None
    scaled = vectors / np.sqrt(np.maximum(values, 0) + document.whiten)
    return mean, scaled @ vectors.T, {"images": images, "patches": count}


def _different(fitting: Fitting, document: RandomFeatures, rng: np.random.Generator) -> "NDArray[np.float64]":
    """(m, h): different normalised patches, drawn."""
    found = [normalized(fitting.layer.patches(x), document).numpy() for x in fitting.inputs(min(POINT_IMAGES, fitting.images))]
    different = np.unique(np.concatenate(found), axis=0)
    wanted = document.random_features
    if len(different) < wanted:
        raise InputError(
            f"{fitting.place}: received {wanted:,} reference patches; {min(POINT_IMAGES, fitting.images):,} training images have "
            f"{len(different):,} different ones; allowed: up to {len(different):,}"
        )
    return different[rng.permutation(len(different))[:wanted]].astype(np.float64)


def _inverse_root(kernel: "NDArray[np.float64]") -> "NDArray[np.float64]":
    values, vectors = np.linalg.eigh(kernel)
    return (vectors / np.sqrt(np.maximum(values, LEAST * values[-1]))) @ vectors.T
