"""PyTorch's side of the measurements; started by `workers.Worker`, not by hand."""

import time
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.costs import END_TO_END
from benchmarks.specs import architecture_of
from benchmarks.torch_simcnn import GreedyStep, SimCNN, SimCNNNet
from benchmarks.torch_weights import load_ours
from benchmarks.workers import serve


class Session:
    """What one worker process has built."""

    def build(
        self,
        spec: dict[str, Any],
        phase: int | str,
        batch: int,
        precision: str,
        tuned: bool,
        compiled: bool = False,
        cached: bool = False,
        accumulation: int = 1,
        learning_rate: float = 0.1,
        weight_decay: float = 5e-4,
    ) -> None:
        """Network, step and two batches of noise for one phase."""
        if cached:
            raise ValueError("the PyTorch contenders compute their prefix, as the paper's code does")
        torch.manual_seed(0)
        self.numbers = SimCNN.of(architecture_of(spec))
        self.net = SimCNNNet(self.numbers, tuned, precision)
        depth = None if phase == END_TO_END else int(phase)
        self.step = GreedyStep(
            self.net, depth, learning_rate, weight_decay=weight_decay, accumulation=accumulation, compiled=compiled
        )
        rng = np.random.default_rng(1)
        self.batches = [self.batch(*noise(rng, batch, self.numbers)) for _ in range(2)]

    def batch(self, images: np.ndarray, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """NumPy images (b, h, w, c) in the network's layout."""
        x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=self.net.memory_format)
        return x, torch.from_numpy(labels).long()

    def steps(self, count: int) -> float:
        """Seconds of so many steps."""
        start = time.perf_counter()
        for number in range(count):
            loss, _ = self.step(*self.batches[number % 2])
        float(loss)
        return time.perf_counter() - start

    def losses(self, file: str, batch: int, count: int, batches: int) -> list[float]:
        """Loads our weights and gives the loss of each of so many steps on batches drawn from a fixed seed, in turn."""
        with np.load(file) as arrays:
            load_ours(self.net, dict(arrays))
        rng = np.random.default_rng(2)
        drawn = [self.batch(*noise(rng, batch, self.numbers)) for _ in range(batches)]
        return [float(self.step(*drawn[number % batches])[0]) for number in range(count)]

    def convolution_rate(self, precision: str, batch: int, repeats: int = 20) -> float:
        """GFLOP/s of a 3x3 convolution 128 -> 128 at 32x32, forward; the best of so many."""
        kind = torch.bfloat16 if precision == "mixed_bfloat16" else torch.float32
        x = torch.randn(batch, 128, 32, 32).to(kind, memory_format=torch.channels_last)
        w = torch.randn(128, 128, 3, 3).to(kind, memory_format=torch.channels_last)
        best = float("inf")
        with torch.no_grad():
            for _ in range(repeats):
                start = time.perf_counter()
                F.conv2d(x, w, padding=1)
                best = min(best, time.perf_counter() - start)
        return 2 * batch * 32 * 32 * 9 * 128 * 128 / best / 1e9


def noise(rng: np.random.Generator, batch: int, numbers: SimCNN) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels; `benchmarks.ours` draws the same ones from the same generator."""
    images = rng.normal(size=(batch, numbers.side, numbers.side, numbers.channels)).astype(np.float32)
    return images, rng.integers(0, numbers.classes, batch).astype(np.int32)


if __name__ == "__main__":
    session = Session()
    serve({name: getattr(session, name) for name in ("build", "steps", "losses", "convolution_rate")})
