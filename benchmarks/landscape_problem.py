"""The small network and the sample whose loss all contenders of `benchmarks.landscape` draw. NumPy only."""

from dataclasses import dataclass
from typing import Any

import numpy as np

EPSILON = 1e-5


@dataclass(frozen=True)
class Problem:
    """3x3 convolutions with batch norm and relu, the second and later ones with stride 2, means over space, a dense layer.

    Attributes:
        side, channels: of the images.
        widths: of the convolutions.
        classes, images: numbers of them.
        points: on each axis of the plane.
        span: its reach along filter-normalised directions.
    """

    side: int = 32
    channels: int = 3
    widths: tuple[int, ...] = (16, 32, 32)
    classes: int = 10
    images: int = 1000
    points: int = 51
    span: float = 1.0

    @property
    def multiply_adds(self) -> int:
        """Of an image."""
        total, side, before = 0, self.side, self.channels
        for number, width in enumerate(self.widths):
            side = -(-side // 2) if number else side
            total += side * side * width * before * 9
            before = width
        return total + before * self.classes

    def arrays(self) -> list[dict[str, np.ndarray]]:
        """Weights of each layer, float32: kernels as (height, width, in, out), batch norm's scale, shift, mean and variance."""
        rng = np.random.default_rng(0)
        layers: list[dict[str, np.ndarray]] = []
        before = self.channels
        for width in self.widths:
            kernel = rng.normal(0, np.sqrt(2 / (9 * before)), (3, 3, before, width))
            norm = {"gamma": rng.uniform(0.5, 1.5, width), "beta": rng.normal(0, 0.1, width)}
            moving = {"mean": rng.normal(0, 0.1, width), "variance": rng.uniform(0.5, 1.5, width)}
            layers.append({"kernel": kernel, **norm, **moving})
            before = width
        layers.append(
            {"kernel": rng.normal(0, np.sqrt(1 / before), (before, self.classes)), "bias": rng.normal(0, 0.1, self.classes)}
        )
        return [{key: value.astype(np.float32) for key, value in layer.items()} for layer in layers]

    def sample(self) -> tuple[np.ndarray, np.ndarray]:
        """Images (n, side, side, channels) float32 and labels (n,)."""
        rng = np.random.default_rng(1)
        shape = (self.images, self.side, self.side, self.channels)
        return rng.normal(size=shape).astype(np.float32), rng.integers(0, self.classes, self.images)

    def kernels(self) -> list[np.ndarray]:
        """Those that directions move, in order."""
        return [layer["kernel"] for layer in self.arrays()]

    def directions(self) -> list[list[np.ndarray]]:
        """Two directions, each a tensor for each kernel, filters with the norms of the kernels' filters."""
        found = []
        for seed in (2, 3):
            rng = np.random.default_rng(seed)
            parts = []
            for kernel in self.kernels():
                draw = rng.normal(size=kernel.shape)
                axes = tuple(range(kernel.ndim - 1))
                norms = [np.sqrt(np.square(each, dtype=np.float64).sum(axes)) for each in (kernel, draw)]
                parts.append((draw * (norms[0] / norms[1])).astype(np.float32))
            found.append(parts)
        return found

    def places(self, count: int) -> list[tuple[float, float]]:
        """So many points of the plane, spread over it."""
        axis = np.linspace(-self.span, self.span, self.points)
        order = np.random.default_rng(4).permutation(self.points**2)[:count]
        return [(float(axis[i // self.points]), float(axis[i % self.points])) for i in order]


def of(settings: dict[str, Any]) -> Problem:
    """From JSON."""
    return Problem(**{**settings, "widths": tuple(settings["widths"])})
