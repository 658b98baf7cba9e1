"""PyTorch's side of `benchmarks.convex`, written from the paper; a worker, not started by hand."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.convex_problem import Problem
from benchmarks.workers import serve

# Images of a part: those of which the fastest is taken.
PARTS = (10, 20, 25, 50, 100, 250)


class Session:
    """What one worker process has built."""

    def build(self, problem: dict[str, Any], form: str, compiled: bool = False) -> int:
        """Gates, zero filters, and two batches; gives the size of the parts that is fastest here."""
        own = Problem(**problem)
        self.problem = own
        gates = torch.from_numpy(own.draw_gates()).permute(3, 2, 0, 1).contiguous()
        self.weights = torch.zeros(own.gates * own.length, own.classes)
        self.velocity = torch.zeros_like(self.weights)
        self.batches = [
            (torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels).long())
            for x, labels in own.draw_batches(2)
        ]
        part = {"summed": summed, "naive": naive}[form](own, gates)
        self.part = torch.compile(part) if compiled else part
        times = {size: self._trial(size) for size in PARTS if own.batch % size == 0} or {own.part: 0.0}
        self.size = min(times, key=times.get)
        self.weights.zero_()
        self.velocity.zero_()
        return self.size

    def _trial(self, size: int) -> float:
        self.size = size
        self.part(self.weights, self.batches[0][0][:size], self.batches[0][1][:size])
        return min(self._timed(self.batches[0]) for _ in range(2))

    def _timed(self, batch: tuple[torch.Tensor, torch.Tensor]) -> float:
        start = time.perf_counter()
        self._step(*batch)
        return time.perf_counter() - start

    @torch.no_grad()
    def _step(self, x: torch.Tensor, labels: torch.Tensor) -> float:
        gradient, loss = torch.zeros_like(self.weights), 0.0
        for images, own in zip(x.split(self.size), labels.split(self.size), strict=True):
            more, value = self.part(self.weights, images, own)
            gradient += more
            loss += float(value)
        self.velocity.mul_(self.problem.momentum).sub_(gradient, alpha=self.problem.learning_rate / len(x))
        self.weights += self.velocity
        return loss / len(x)

    def steps(self, count: int) -> float:
        """Seconds of so many steps."""
        return sum(self._timed(self.batches[number % 2]) for number in range(count))

    def losses(self, count: int) -> list[float]:
        """The loss of each of so many steps."""
        return [self._step(*self.batches[number % 2]) for number in range(count)]


Part = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def summed(problem: Problem, gates: torch.Tensor) -> Part:
    """Gated patches summed first; the gradient by hand, two products."""
    flat = gates.flatten(1)  # (P, h)

    def part(weights: torch.Tensor, x: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        patches = F.unfold(x, problem.kernel, stride=problem.stride)  # (b, h, K)
        open_ = (flat @ patches >= 0).to(x.dtype)  # (b, P, K)
        sums = (open_ @ patches.transpose(1, 2)).flatten(1) / problem.patches
        apart = sums @ weights - F.one_hot(labels, problem.classes)
        return sums.T @ apart, apart.square().sum() / 2

    return part


def naive(problem: Problem, gates: torch.Tensor) -> Part:
    """All P C filters over the map; the gradient by autograd's rule for a convolution."""
    shape = (problem.gates * problem.classes, problem.channels, problem.kernel, problem.kernel)

    def part(weights: torch.Tensor, x: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = x.contiguous(memory_format=torch.channels_last)
        # (P h, C) -> (P C, channels, kernel, kernel)
        filters = weights.view(problem.gates, -1, problem.classes).transpose(1, 2).reshape(shape)
        filters = filters.contiguous(memory_format=torch.channels_last)
        open_ = (F.conv2d(x, gates, stride=problem.stride) >= 0).to(x.dtype)  # (b, P, k, k)
        maps = F.conv2d(x, filters, stride=problem.stride)
        maps = maps.view(len(x), problem.gates, problem.classes, *open_.shape[2:])
        scores = torch.einsum("bpchw,bphw->bc", maps, open_) / problem.patches
        apart = scores - F.one_hot(labels, problem.classes)
        slope = (open_[:, :, None] * (apart / problem.patches)[:, None, :, None, None]).flatten(1, 2)
        gradient = torch.nn.grad.conv2d_weight(x, shape, slope, stride=problem.stride)
        return gradient.reshape(problem.gates, problem.classes, -1).transpose(1, 2).reshape_as(weights), apart.square().sum() / 2

    return part


if __name__ == "__main__":
    session = Session()
    serve({name: getattr(session, name) for name in ("build", "steps", "losses")})
