"""PyTorch's side of `benchmarks.landscape`; a worker, not started by hand."""

import time
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.landscape_problem import EPSILON, of
from benchmarks.workers import serve

# Images of a batch: those of which the fastest is taken.
BATCHES = (100, 250, 500, 1000)


class Session:
    """What one worker process has built."""

    def build(self, problem: dict[str, Any], form: str, compiled: bool = False) -> int:
        """The model in channels_last, and its directions; gives the size of batches that is fastest here."""
        own = self.problem = of(problem)
        self.net = _net(own).eval().to(memory_format=torch.channels_last)
        self.forward = torch.compile(self.net) if compiled else self.net
        images, labels = own.sample()
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        self.labels = torch.from_numpy(labels)
        self.kernels = [module.weight for module in self.net if isinstance(module, nn.Conv2d | nn.Linear)]
        self.start = [kernel.detach().clone() for kernel in self.kernels]
        self.directions = [[_turned(torch.from_numpy(part)) for part in direction] for direction in own.directions()]
        times = {size: self._trial(size) for size in BATCHES if size <= own.images} or {own.images: 0.0}
        self.size = min(times, key=times.get)
        return self.size

    def _trial(self, size: int) -> float:
        self.size = size
        self.steps(1)
        return min(self.steps(2) for _ in range(2))

    @torch.no_grad()
    def _loss(self, a: float, b: float) -> float:
        for kernel, start, one, two in zip(self.kernels, self.start, *self.directions, strict=True):
            kernel.copy_(start + a * one + b * two)
        total = 0.0
        for images, labels in zip(self.images.split(self.size), self.labels.split(self.size), strict=True):
            total += float(F.cross_entropy(self.forward(images), labels, reduction="sum"))
        return total / len(self.labels)

    def losses(self, count: int) -> list[float]:
        """At so many points."""
        return [self._loss(*place) for place in self.problem.places(count)]

    def steps(self, count: int) -> float:
        """Seconds of so many points."""
        start = time.perf_counter()
        self.losses(count)
        return time.perf_counter() - start


class Padded(nn.Module):
    """Zeros below and to the right, where TensorFlow's `same` puts them with stride 2 on even sides."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One row and one column more."""
        return F.pad(x, (0, 1, 0, 1))


def _turned(kernel: torch.Tensor) -> torch.Tensor:
    if kernel.ndim == 2:
        return kernel.T.contiguous()
    return kernel.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)


def _net(problem: Any) -> nn.Sequential:
    modules: list[nn.Module] = []
    before = problem.channels
    arrays = problem.arrays()
    for number, (width, own) in enumerate(zip(problem.widths, arrays, strict=False)):
        even = number > 0
        convolution = nn.Conv2d(before, width, 3, 2 if even else 1, 0 if even else 1, bias=False)
        norm = nn.BatchNorm2d(width, eps=EPSILON)
        with torch.no_grad():
            convolution.weight.copy_(_turned(torch.from_numpy(own["kernel"])))
            for target, key in (
                (norm.weight, "gamma"),
                (norm.bias, "beta"),
                (norm.running_mean, "mean"),
                (norm.running_var, "variance"),
            ):
                target.copy_(torch.from_numpy(own[key]))
        modules += [*([Padded()] if even else []), convolution, norm, nn.ReLU(inplace=True)]
        before = width
    dense = nn.Linear(before, problem.classes)
    with torch.no_grad():
        dense.weight.copy_(_turned(torch.from_numpy(arrays[-1]["kernel"])))
        dense.bias.copy_(torch.from_numpy(arrays[-1]["bias"]))
    return nn.Sequential(*modules, nn.AdaptiveAvgPool2d(1), nn.Flatten(), dense)


if __name__ == "__main__":
    session = Session()
    serve({name: getattr(session, name) for name in ("build", "steps", "losses")})
