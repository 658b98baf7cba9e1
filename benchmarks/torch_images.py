"""Images of class folders in PyTorch's memory, and what is drawn at random of them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image

from kerasgreedy.data.parts import divide_by_class

PAD = 4


class Epoch(NamedTuple):
    """What an epoch draws of n training images.

    Attributes:
        order: (n,) their numbers.
        offsets: (n, 2) where the window of each begins in the padded image, from above and from the left.
        mirrored: (n,) whether it is flipped.
    """

    order: np.ndarray
    offsets: np.ndarray
    mirrored: np.ndarray


class Draws(Protocol):
    """Where order, crops and flips come from."""

    def epoch(self, phase: int, epoch: int, files: np.ndarray, of: int) -> Epoch:
        """Those of one epoch, for training images that are the `files` (sorted) among all `of` them."""


class OwnDraws:
    """One generator that runs on, as a script would have it."""

    def __init__(self, seed: int):
        self._rng = np.random.default_rng((seed, 2))

    def epoch(self, phase: int, epoch: int, files: np.ndarray, of: int) -> Epoch:
        count = len(files)
        order = self._rng.permutation(count)
        return Epoch(order, self._rng.integers(0, 2 * PAD + 1, (count, 2)), self._rng.random(count) < 0.5)


class OurDraws:
    """Those of `kerasgreedy train`: of each (phase, epoch) by itself, for all images that there are."""

    def __init__(self, seed: int):
        self._seed = seed

    def epoch(self, phase: int, epoch: int, files: np.ndarray, of: int) -> Epoch:
        order = np.random.default_rng((self._seed, 2, phase, epoch)).permutation(len(files))
        uniform = np.random.default_rng((self._seed, 3, phase, epoch)).random((of, 5), dtype=np.float32)[files]
        return Epoch(order, np.floor(uniform[:, 2:4] * (2 * PAD + 1)).astype(int), uniform[:, 4] < 0.5)


class Images:
    """Class folders in memory, split as `kerasgreedy` splits them by the same seed.

    Attributes:
        train, validation, test: (n, 32, 32, 3) uint8 and (n,) labels.
    """

    def __init__(self, place: Path, validation: float, seed: int, draws: Draws):
        images, labels = _decode(place / "train")
        self.classes = int(labels.max()) + 1
        order = np.random.default_rng((seed, 1)).permutation(len(labels))
        kept, held = divide_by_class(order, labels, len(order), round(validation * len(order)))
        self._files, self._of, self._draws = kept, len(order), draws
        self.train, self.validation = (images[kept], labels[kept]), (images[held], labels[held])
        self.test = _decode(place / "test")
        fitted = np.random.default_rng((seed, 3)).permutation(len(self.train[0]))[:10_000]  # the files are sorted by class
        pixels = self.train[0][fitted].reshape(-1, images.shape[-1])
        self.mean = torch.tensor(pixels.mean(0), dtype=torch.float32)
        self.deviation = torch.tensor(pixels.std(0), dtype=torch.float32)

    def training(self, phase: int, epoch: int, batch: int, memory_format: torch.memory_format) -> Any:
        """Batches of one epoch in a new order, cropped and flipped; a remainder is left out. Both numbers count from 0."""
        images, labels = self.train
        drawn = self._draws.epoch(phase, epoch, self._files, self._of)
        for start in range(0, len(labels) - batch + 1, batch):
            index = drawn.order[start : start + batch]
            cut = cropped(images[index], drawn.offsets[index], drawn.mirrored[index])
            yield self._tensors(cut, labels[index], memory_format)

    def batches(self, images: np.ndarray, labels: np.ndarray, batch: int, memory_format: torch.memory_format) -> Any:
        """Batches in order, as they are."""
        for start in range(0, len(labels), batch):
            yield self._tensors(images[start : start + batch], labels[start : start + batch], memory_format)

    def _tensors(
        self, images: np.ndarray, labels: np.ndarray, memory_format: torch.memory_format
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x = (torch.from_numpy(images).float() - self.mean) / self.deviation
        return x.permute(0, 3, 1, 2).contiguous(memory_format=memory_format), torch.from_numpy(labels)


def _decode(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """All images below `folder/<class>/`, sorted by class and name, decoded by all cores."""
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    files = [(file, label) for label, name in enumerate(classes) for file in sorted((folder / name).iterdir())]

    def read(file: Path) -> np.ndarray:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"))

    with ThreadPoolExecutor() as pool:
        images = np.stack(list(pool.map(lambda item: read(item[0]), files)))
    return images, np.array([label for _, label in files], np.int64)


def cropped(images: np.ndarray, offsets: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    """Pads by 4, cuts a window of each image and flips some; one gather for the batch."""
    count, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0)))
    columns = np.where(mirrored[:, None], np.arange(width)[::-1], np.arange(width)) + offsets[:, 1:]
    rows = np.arange(height) + offsets[:, :1]
    return padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
