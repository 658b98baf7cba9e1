"""Weights along a phase that are kept for looking back (`keep_checkpoints`). Needs no TensorFlow."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as parse_tensors
from safetensors.numpy import save as format_tensors

from kerasgreedy.errors import CheckpointError
from kerasgreedy.files import open_regular

FOLDER = "kept"
_NAME = re.compile(r"phase_(\d{3,})_epoch_(\d{6,})\.safetensors")


def is_due(keep: int, epochs: int, epoch: int) -> bool:
    """Whether weights are kept when so many of a phase's epochs are done: `keep` times, start and end among them."""
    return keep > 0 and epoch in {round(i * epochs / max(keep - 1, 1)) for i in range(keep)}


def kept_file(phase: int, epoch: int, arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """Path below the run folder -> content, of the trained components' weights."""
    content = format_tensors({key: np.require(arrays[key], requirements="C") for key in sorted(arrays)})
    return {f"{FOLDER}/phase_{phase:03d}_epoch_{epoch:06d}.safetensors": content}


def kept_files(folder: Path) -> dict[int, list[tuple[int, Path]]]:
    """Phase -> (epochs done, file), by epoch."""
    found: dict[int, list[tuple[int, Path]]] = {}
    for path in sorted((folder / FOLDER).glob("*.safetensors")):
        if match := _NAME.fullmatch(path.name):
            found.setdefault(int(match[1]), []).append((int(match[2]), path))
    return {phase: sorted(files) for phase, files in sorted(found.items())}


def read_kept(path: Path) -> dict[str, np.ndarray]:
    """Variable -> weights.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        with open_regular(path) as file:
            return parse_tensors(file.read())
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from None
