"""The trained weights of any Keras model as one vector, and which entries of it are a filter."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from kerasgreedy.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Layers whose weights, however many axes they have, scale and shift what is normalised.
NORMALIZING = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.UnitNormalization,
)
DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)


@dataclass(frozen=True)
class Tensor:
    """One variable's place in the vector.

    Attributes:
        path: of the variable, behind the names of the models that hold its layer inside the model.
        start, stop: its entries.
        filters: axes that count filters, as numbers from 0; the other axes are a filter's own. Empty: it has none (biases, batch
            norm), and a filter-normalised direction is zero there.
    """

    path: str
    shape: tuple[int, ...]
    start: int
    stop: int
    filters: tuple[int, ...]

    @property
    def own(self) -> tuple[int, ...]:
        """The axes of a filter."""
        return tuple(axis for axis in range(len(self.shape)) if axis not in self.filters)

    def of(self, theta: "NDArray[Any]") -> "NDArray[Any]":
        """This tensor, of a vector (size,)."""
        return theta[self.start : self.stop].reshape(self.shape)


class Parameters:
    """`model.trainable_variables` one after the other as a vector.

    Attributes:
        model: built; its weights are read and never set.
        tensors: by place.
        size: entries.
        dtype: `float32` or `float64`.

    Raises:
        InputError: the model is not built, has nothing to train, or has weights of several types.
    """

    def __init__(self, model: keras.Model):
        if not model.built:
            raise InputError(f"{model.name}: is not built; call it on images once, or give it an Input")
        variables = model.trainable_variables
        if not variables:
            raise InputError(f"{model.name}: has no trainable weights")
        dtypes = sorted({keras.backend.standardize_dtype(variable.dtype) for variable in variables})
        if len(dtypes) > 1 or dtypes[0] not in ("float32", "float64"):
            raise InputError(f"{model.name}: has trainable weights of {', '.join(dtypes)}; allowed: float32 or float64 alone")
        self.model, self.dtype = model, dtypes[0]
        owners, paths = _owners(model), _paths(model)
        tensors, start = [], 0
        for variable in variables:
            shape = tuple(variable.shape)
            stop = start + int(np.prod(shape))
            filters = _filter_axes(variable, owners.get(id(variable)))
            tensors.append(Tensor(paths.get(id(variable), variable.path), shape, start, stop, filters))
            start = stop
        self.tensors, self.size = tuple(tensors), start

    def read(self) -> "NDArray[Any]":
        """The model's weights now, (size,)."""
        return np.concatenate([keras.ops.convert_to_numpy(v).reshape(-1) for v in self.model.trainable_variables])

    def check(self, *vectors: "NDArray[Any]") -> None:
        """Refuses vectors that are not (size,).

        Raises:
            InputError: one of them is.
        """
        odd = next((np.shape(vector) for vector in vectors if np.shape(vector) != (self.size,)), None)
        if odd is not None:
            raise InputError(f"received weights or a direction {odd}; allowed: ({self.size},), as of {self.model.name}")

    def split(self, theta: tf.Tensor) -> list[tf.Tensor]:
        """A vector as values of the variables, in their order."""
        parts = tf.split(theta, [tensor.stop - tensor.start for tensor in self.tensors])
        return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, self.tensors, strict=True)]

    def filter_norms(self, theta: "NDArray[Any]") -> list["NDArray[np.float64] | None"]:
        """The l2 norms of each tensor's filters, shaped as the axes that count them; None where it has none."""
        return [
            np.sqrt(np.square(tensor.of(theta), dtype=np.float64).sum(tensor.own)) if tensor.filters else None
            for tensor in self.tensors
        ]

    def scaled(self, direction: "NDArray[Any]", theta: "NDArray[Any]") -> "NDArray[Any]":
        """A direction whose filters have the norms of those of `theta`; zero where there are none (Li et al. 2018).

        Args:
            direction, theta: (size,).
        """
        result = np.zeros_like(theta)
        for tensor, own, wanted in zip(self.tensors, self.filter_norms(direction), self.filter_norms(theta), strict=True):
            if own is not None and wanted is not None:
                factor = np.divide(wanted, own, out=np.zeros_like(own), where=own > 0)
                part = tensor.of(direction) * np.expand_dims(factor, tensor.own)
                result[tensor.start : tensor.stop] = part.reshape(-1)
        return result


def _owners(model: keras.Model) -> dict[int, keras.layers.Layer]:
    """Variable -> the innermost layer that it is of."""
    owners: dict[int, keras.layers.Layer] = {}
    for layer in reversed(list(model._flatten_layers())):  # inner layers come behind those that hold them
        for variable in layer.trainable_variables:
            owners.setdefault(id(variable), layer)
    return owners


def _paths(model: keras.Model, within: str = "") -> dict[int, str]:
    """Variable -> its path; layers of two blocks have the same names in Keras."""
    paths: dict[int, str] = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            paths.update(_paths(layer, f"{within}{layer.name}/"))
        else:
            for variable in layer.trainable_variables:
                paths[id(variable)] = within + variable.path.removeprefix(within)
    return paths


def _filter_axes(variable: keras.Variable, owner: keras.layers.Layer | None) -> tuple[int, ...]:
    rank = len(variable.shape)
    if rank < 2 or isinstance(owner, (*NORMALIZING, keras.layers.PReLU)) or variable.name in ("bias", "beta", "gamma"):
        return ()
    if isinstance(owner, keras.layers.EinsumDense):  # and with it attention, whose units are (head, key)
        weights, given = owner.equation.split(",")[1].split("->")
        return tuple(axis for axis, letter in enumerate(weights) if letter in given) if len(weights) == rank else ()
    own = getattr(owner, "filter_axes", None)  # of layers of our own
    if own is not None:
        return tuple(axis % rank for axis in own)
    if isinstance(owner, DEPTHWISE) or variable.name == "depthwise_kernel":
        return (rank - 2, rank - 1)
    return (rank - 2,) if isinstance(owner, TRANSPOSED) else (rank - 1,)
