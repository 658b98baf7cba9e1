"""The problem that all contenders of `benchmarks.convex` step on: shapes, and the numbers drawn for it. NumPy only."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Problem:
    """Chang and Lee 2021, section 5, at its full size unless told otherwise; mean over patches, squared error.

    Attributes:
        side, channels: of an image.
        gates, kernel, stride: P filters of kernel x kernel, every so many places.
        batch, part: images of one update, and of each of the parts that it goes through in.
    """

    side: int = 32
    channels: int = 3
    classes: int = 10
    gates: int = 1024
    kernel: int = 6
    stride: int = 4
    batch: int = 1000
    part: int = 25
    learning_rate: float = 1e-4
    momentum: float = 0.9

    @property
    def length(self) -> int:
        """Numbers of a patch, h."""
        return self.kernel**2 * self.channels

    @property
    def patches(self) -> int:
        """Patches of an image, K."""
        return ((self.side - self.kernel) // self.stride + 1) ** 2

    def multiply_adds(self, form: str) -> int:
        """Of one image's step.

        `summed`: gates and sums once, K P h each; scores and their gradient, P h C each. `naive`: gates, and P C filters over
        all patches, forward and for their gradient. `kept`: scores and their gradient alone.
        """
        once, classes = self.patches * self.gates * self.length, self.gates * self.length * self.classes
        if form == "naive":
            return once + 2 * self.patches * classes
        return 2 * once * (form == "summed") + 2 * classes

    def draw_gates(self) -> np.ndarray:
        """(kernel, kernel, channels, gates) float32."""
        return np.random.default_rng(0).normal(size=(self.kernel, self.kernel, self.channels, self.gates)).astype(np.float32)

    def draw_batches(self, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """So many batches of images (batch, side, side, channels) float32 and labels int32."""
        rng = np.random.default_rng(1)
        shape = (self.batch, self.side, self.side, self.channels)
        return [
            (rng.normal(size=shape).astype(np.float32), rng.integers(0, self.classes, self.batch).astype(np.int32))
            for _ in range(count)
        ]
