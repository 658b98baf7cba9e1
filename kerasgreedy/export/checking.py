"""What is exported gives what the network gives, or it is not written."""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kerasgreedy.errors import Diverged, InputError
from kerasgreedy.network.build import Network
from kerasgreedy.nn.activations import PositiveHardThreshold

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Of max(1, largest logit).
FLOAT_TOLERANCE = 1e-5
HALF_TOLERANCE = 1e-2
# Of an image in which rounding has put a unit on the other side of its threshold.
JUMP_TOLERANCE = 0.1
# What int8 may lose of top-1, and how many images of a small test part are no evidence of a loss.
LOST_TOP1 = 0.01
LOST_IMAGES = 2


def require_packages(names: Sequence[str], install: str) -> None:
    """Imports packages.

    Args:
        install: what pip is to be given.

    Raises:
        InputError: one of them is missing or does not load.
    """
    try:
        for name in names:
            importlib.import_module(name)
    except ImportError as error:
        listed = f"{', '.join(names[:-1])} and {names[-1]}"
        raise InputError(f"this needs the packages {listed}: pip install {install} ({error})") from None


def some_images(network: Network, calibration: "NDArray | None" = None) -> "NDArray[np.float32]":
    """Four images of random bytes and the first four of `calibration`: (n, height, width, channels) float32 of 0..255."""
    shape = network.architecture.input_shape
    drawn = np.random.default_rng(0).integers(0, 256, (4, *shape)).astype(np.float32)
    return drawn if calibration is None else np.concatenate([drawn, np.asarray(calibration[:4], np.float32)])


def jumps(network: Network) -> bool:
    """Whether an activation jumps: q where q > beta, else 0, with a beta other than 0 in force."""
    layers = [layer for name in network.names for layer in network.component(name).layers]
    thresholds = [layer for layer in layers if isinstance(layer, PositiveHardThreshold)]
    return any(np.any(layer.threshold()) and not np.any(layer.shift()) for layer in thresholds)


def check_finite(name: str, *arrays: "NDArray") -> None:
    """Refuses figures of a network, or of what was made of it, that are no numbers.

    Raises:
        Diverged: one is infinite or not a number.
    """
    if not all(np.isfinite(array).all() for array in arrays):
        raise Diverged(f"{name} is not finite everywhere: the training has diverged; nothing was written")


def check_same(name: str, expected: "NDArray", received: "NDArray", tolerance: float, jumps: bool = False) -> None:
    """Refuses logits that are not those of the network.

    Args:
        name: of what was made, such as `ONNX file`.
        expected, received: logits (batch, classes) of the network and of what was made.
        tolerance: largest difference allowed, as a share of max(1, largest logit).
        jumps: an activation of the network jumps, so that the rounding of one number may show in the logits. Then half of the
            images have to keep to the tolerance, and the others to a tenth.

    Raises:
        Diverged: a logit is not finite.
        InputError: the shapes differ, or a logit differs by more than that.
    """
    if expected.shape != received.shape:
        raise InputError(
            f"the exported {name} gives logits of shape {received.shape}, the network {expected.shape}; nothing was written"
        )
    check_finite(f"what the {name} gives", expected, received)
    differences, scale = np.abs(received - expected).max(1), max(1.0, np.abs(expected).max())
    difference = differences.max()
    same = difference <= tolerance * scale
    if jumps and not same:
        same = np.median(differences) <= tolerance * scale and difference <= JUMP_TOLERANCE * scale
    if not same:
        raise InputError(
            f"the exported {name} gives other logits than the network (differ by {difference:.1e} at a size of {scale:.1e}); "
            "nothing was written"
        )


def check_accuracy(name: str, expected_top1: float, received_top1: float, examples: int) -> None:
    """Refuses a quantised network that lost more than one point of top-1.

    Two images of a small test part may be lost whatever share they are: rounding moves logits that were about equal.

    Args:
        name: of what was made, such as `int8 TFLite file`.
        expected_top1, received_top1: of the network and of what was made, on the same images; 0 to 1.
        examples: how many images that were.

    Raises:
        InputError: more was lost than that, or a figure is not finite.
    """
    lost = expected_top1 - received_top1
    # Both bounds are counts of images in the end; a millionth of one is rounding of the shares.
    if not (lost <= LOST_TOP1 + 1e-9 or lost * examples <= LOST_IMAGES + 1e-6):
        raise InputError(
            f"the exported {name} classifies {100 * received_top1:.2f} % of {examples} images rightly, the network "
            f"{100 * expected_top1:.2f} %; nothing was written"
        )
