"""Gates of gated convolutions: drawn so that no two of them open for the same training patches, and none for no patch."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from kerasgreedy.errors import InputError
from kerasgreedy.network.fitting import Fitting
from kerasgreedy.spec.convex_layers import GatedConv

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Drawn for each gate that is wanted: most of them have a pattern of their own, but for the smallest patches.
SPARE = 2
# Patches that differences are drawn from, for each gate that is drawn; and images that are looked at, at least.
PATCHES, IMAGES = 4, 256


def fit_gates(fitting: Fitting) -> dict[str, Any]:
    """Draws the gates of a `gated_conv` whose gates are fixed, each of length 1.

    The pattern of a gate g is 1[X g >= 0] over the training patches X. Patterns are compared on some images, and on all where
    these do not tell enough apart, by a sum of random numbers modulo 2^64 over the patches where a gate is open: two different
    ones are taken for the same with a chance of 2^-63.

    Returns:
        drawn, images: how many gates were drawn, and looked at on how many images.

    Raises:
        InputError: not so many of those drawn have patterns of their own.
    """
    layer, document = fitting.layer, fitting.node.layer
    assert isinstance(document, GatedConv)
    wanted, count = document.gated_conv, SPARE * document.gated_conv
    rng = fitting.generator()
    places = layer.patches(tf.zeros((1, *fitting.node.input_shape))).shape[1]
    some = [layer.patches(x) for x in fitting.inputs(max(IMAGES, -(-PATCHES * count // places)))]
    drawn = _drawn(document.gates, some, count, rng)
    chosen, images = _with_patterns(some, drawn, wanted, rng)
    if len(chosen) < wanted:
        chosen, images = _with_patterns((layer.patches(x) for x in fitting.inputs()), drawn, wanted, rng)
    if len(chosen) < wanted:
        raise InputError(
            f"{fitting.place}: received {wanted:,} gates; of {count:,} that were drawn {len(chosen):,} have patterns of their "
            f"own, and not empty ones, on the training patches; allowed: up to {len(chosen):,}"
        )
    gates = drawn[:, chosen]
    if document.paired:
        gates = np.concatenate([gates, gates], axis=1)
    layer.fixed.assign(gates.reshape(layer.fixed.shape))
    return {"drawn": count, "images": images}


def _drawn(kind: str, some: list[tf.Tensor], count: int, rng: np.random.Generator) -> "NDArray[np.float32]":
    """(h, count) at most: differences of two patches that are the same are left out."""
    length = some[0].shape[2]
    if kind == "normal":
        drawn = rng.normal(size=(length, count))
    else:
        bank = np.concatenate([patches.numpy().reshape(-1, length) for patches in some]).astype(np.float64)
        pairs = rng.integers(0, len(bank), (2, count))
        drawn = (bank[pairs[0]] - bank[pairs[1]]).T
    lengths = np.linalg.norm(drawn, axis=0)
    drawn = drawn[:, lengths > 0] / lengths[lengths > 0]
    return drawn.astype(np.float32)


def _with_patterns(
    patches: Iterable[tf.Tensor], drawn: "NDArray[np.float32]", wanted: int, rng: np.random.Generator
) -> tuple[list[int], int]:
    """The first so many gates whose patterns are not empty and not those of one before, and how many images it took."""
    sums, images = np.zeros(drawn.shape[1], np.uint64), 0
    chosen: list[int] = []
    for batch in patches:
        images += batch.shape[0]
        is_open = (tf.matmul(tf.reshape(batch, [-1, batch.shape[2]]), drawn) >= 0).numpy()
        sums += rng.integers(1, 2**64, len(is_open), np.uint64) @ is_open.astype(np.uint64)
        _, first = np.unique(sums, return_index=True)
        chosen = sorted(int(index) for index in first if sums[index])[:wanted]
        if len(chosen) == wanted:
            break
    return chosen, images
