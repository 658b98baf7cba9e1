"""From a head with fixed gates to an ordinary one with relu (Ergen and Pilanci 2021; Chang and Lee, eq. 2 and 3).

Where every filter v behind gate g keeps to its side, X v >= 0 for the patches with X g >= 0 and X v <= 0 for the others, its
gated response is relu(X v). With u = v / sqrt(|v|) and w = +-sqrt(|v|) in its class, 0 in the others, the network with relu gives
the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from kerasgreedy.errors import InputError
from kerasgreedy.graph.architecture import architecture
from kerasgreedy.graph.rewriting import resized
from kerasgreedy.network.build import Network
from kerasgreedy.nn.gated import GatedPatches, SeparableScores
from kerasgreedy.spec.convex_layers import GatedConv
from kerasgreedy.spec.model import Head, ModelSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Broken:
    """How far filters are from their sides, on some images.

    Attributes:
        share: of the pairs of a patch and a filter, those on the wrong side.
        size: the sum of |X v| over these, as a share of that over all.
        largest_difference: of a score, as a share of the largest score.
        same_decision: share of the images of which both networks say the same class.
    """

    share: float
    size: float
    largest_difference: float
    same_decision: float


def rectified(network: Network, spec: ModelSpec, head: str) -> tuple[Network, ModelSpec]:
    """The network with a head of relu in the place of one of fixed gates; filters that are zero are gone.

    Args:
        network: in float32; call this under the strategy's scope.

    Raises:
        InputError: all filters of the head are zero.
    """
    _, filters, signs = _filters(network, head)
    used = np.flatnonzero(np.any(filters != 0, axis=0))
    if not len(used):
        raise InputError(f"{head}: all filters are zero, which leaves no network; take a smaller weight of the regularizer")
    written = _written(spec, network, head)
    documents = [layer.model_dump(mode="json", exclude_unset=True, exclude_none=True) for layer in written.layers or []]
    for key in ("paired", "start"):
        documents[-1].pop(key, None)
    documents[-1] |= {"gated_conv": len(used), "gates": "own"}
    changed = resized(spec, {}, {head: Head.model_validate({"layers": documents})})
    result = Network(architecture(changed), network.seed, network.synchronized)
    result.facts = network.facts
    for name in network.names:
        if name != head:
            result.load_arrays(name, network.arrays(name))
    classes = network.architecture.classes
    norms = np.linalg.norm(filters[:, used], axis=0)
    w = np.zeros((len(used), classes))
    w[np.arange(len(used)), used % classes] = signs[used] * np.sqrt(norms)
    *_, mean, linear = result.component(head).layers
    mean.kernel.assign((filters[:, used] / np.sqrt(norms)).reshape(mean.kernel.shape).astype(np.float32))
    linear.kernel.assign(w.astype(np.float32))
    return result, changed


def broken(before: Network, after: Network, head: str, inputs: Iterable[tf.Tensor]) -> Broken:
    """How far the filters of a head are from their sides.

    Args:
        inputs: of the head, (b, height, width, channels).
    """
    gated, filters, _ = _filters(before, head)
    gates = tf.constant(keras.ops.convert_to_numpy(gated.kernel).reshape(len(filters), -1))
    v = tf.constant(filters.astype(np.float32))
    behind = filters.shape[1] // gates.shape[1]
    model = before.component(head)
    inside = keras.Model(model.input, gated.input)
    pairs = wrong = 0
    size = total = difference = largest = 0.0
    same = images = 0
    for x in inputs:
        flat = tf.reshape(gated.patches(inside(x, training=False)), [-1, len(filters)])
        side = tf.repeat(2 * tf.cast(tf.matmul(flat, gates) >= 0, tf.float32) - 1, behind, axis=1)
        given = side * tf.matmul(flat, v)
        pairs, wrong = pairs + int(tf.size(given)), wrong + int(tf.math.count_nonzero(given < 0))
        size += float(tf.reduce_sum(tf.nn.relu(-given)))
        total += float(tf.reduce_sum(tf.abs(given)))
        one, two = (network.component(head)(x, training=False).numpy() for network in (before, after))
        difference, largest = max(difference, float(np.abs(one - two).max())), max(largest, float(np.abs(one).max()))
        same, images = same + int(np.sum(one.argmax(1) == two.argmax(1))), images + len(one)
    return Broken(wrong / pairs, size / (total or 1.0), difference / (largest or 1.0), same / images)


def _filters(network: Network, head: str) -> "tuple[GatedPatches, NDArray[np.float64], NDArray[np.float64]]":
    """The gated layer, filters (h, gates * classes), and the sign (gates * classes,) that each counts with."""
    *_, gated, last = network.component(head).layers
    assert isinstance(gated, GatedPatches) and isinstance(last, SeparableScores)
    kernel = keras.ops.convert_to_numpy(last.kernel).astype(np.float64)
    signs = keras.ops.convert_to_numpy(gated.signs) if gated.paired else np.ones(kernel.shape[1])
    return gated, kernel.reshape(len(kernel), -1), np.repeat(signs.astype(np.float64), kernel.shape[2])


def _written(spec: ModelSpec, network: Network, head: str) -> Head:
    """The head as the spec has it, with its keys in full."""
    index = [each.name for each in network.architecture.heads].index(head)
    plain = resized(spec, {})
    written = plain.blocks[index].head
    assert written is not None and written.layers and isinstance(written.layers[-1], GatedConv)
    return written
