"""What any Keras model takes and gives: images as an array, and a row of logits for each as the first or only output."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from kerasgreedy.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Sums of rows of a softmax in float16 miss 1 by less.
SUM = 2e-3


def as_images(images: Any, rank: int | None = None, dtype: str = "float32") -> "NDArray[Any]":
    """Images as one array of floats; those that are floats stay of their type.

    Args:
        rank: axes that are asked for; None: two or more.
        dtype: of what are no floats.

    Raises:
        InputError: they are no such array, or those of several inputs.
    """
    allowed = "one array (n, height, width, channels)" if rank == 4 else "one array (n, ...)"
    try:
        if isinstance(images, Mapping):
            raise ValueError
        found = np.asarray(images)
        if found.dtype.kind not in "fiub":
            raise ValueError
    except (ValueError, TypeError):
        raise InputError(f"images: received {type(images).__name__}; allowed: {allowed}, of a model with one input") from None
    if found.ndim != rank if rank else found.ndim < 2:
        raise InputError(f"images: received {found.shape}; allowed: {allowed}, of a model with one input")
    return found if found.dtype.kind == "f" else found.astype(dtype)


def first_of(outputs: Any) -> Any:
    """The first, or only, output of a model.

    Raises:
        InputError: they have names and no order.
    """
    if isinstance(outputs, Mapping):
        raise InputError(f"the model gives a mapping ({', '.join(map(str, outputs))}); allowed: logits, alone or first in a list")
    return outputs[0] if isinstance(outputs, (list, tuple)) else outputs


def logits_of(outputs: Any) -> tf.Tensor:
    """The first, or only, output of a model, where it is logits (n, classes).

    Raises:
        InputError: they have names and no order, or are no rows of two or more.
    """
    logits = first_of(outputs)
    if len(logits.shape) != 2 or (logits.shape[1] or 2) < 2:
        shape = ("n", *logits.shape[1:])
        raise InputError(
            f"the model gives ({', '.join(map(str, shape))}); allowed: logits (n, classes) of two classes or more, alone or as "
            "the first output"
        )
    return logits


def are_probabilities(rows: "NDArray[Any]") -> bool:
    """Whether rows (n, classes) are probabilities already, as a softmax at the end of a model gives."""
    return bool(len(rows)) and bool((rows >= 0).all() and (np.abs(rows.sum(1, dtype=np.float64) - 1) < SUM).all())


def refuse_probabilities(model: keras.Model, images: "NDArray[Any]") -> None:
    """Refuses a model that ends in a softmax where logits are asked for: their softmax would be taken once more.

    Raises:
        InputError: its outputs for these images are probabilities.
    """
    if are_probabilities(np.asarray(logits_of(model(images, training=False)))):
        raise InputError(
            f"{model.name}: ends in a softmax, and losses are those of logits; allowed: the model without it "
            "(of keras.applications: classifier_activation=None), or "
            "losses=lambda p, y: keras.losses.sparse_categorical_crossentropy(y, p)"
        )


def refuse_low_precision(model: keras.Model) -> None:
    """Refuses a model with layers that compute in 16 bits: gradients vanish there, and so do small differences.

    Raises:
        InputError: some do.
    """
    low = sorted({layer.compute_dtype for layer in model._flatten_layers()} & {"float16", "bfloat16"})
    if low:
        raise InputError(
            f"{model.name}: has layers that compute in {' and '.join(low)}, in which gradients and small differences are lost; "
            "allowed: the same weights in a model of dtype policy float32"
        )


def check_classes(model: keras.Model, classes: Any, what: str) -> None:
    """Refuses numbers that name no output of a model; TensorFlow would give nan, or the fault of an operation.

    Raises:
        InputError: they are no whole numbers (n,), some are out of range, or the model gives no logits.
    """
    numbers = np.asarray(classes)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise InputError(f"{what}: received {numbers.dtype} {numbers.shape}; allowed: whole numbers (n,), a class for each image")
    try:
        outputs = model.output
    except (AttributeError, ValueError):  # subclassed: not known before it is called
        return
    most = logits_of(outputs).shape[-1]
    if numbers.size and not (numbers.min() >= 0 and numbers.max() < most):
        raise InputError(f"{what}: received {numbers.min()} to {numbers.max()}; allowed: 0 to {most - 1}")
