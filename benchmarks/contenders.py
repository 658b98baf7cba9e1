"""Who is measured against whom."""

import os
from dataclasses import dataclass
from pathlib import Path

# glibc hands big buffers back to the kernel after every step and takes them again, page fault by page fault; PyTorch's CPU
# allocator is plain malloc, so telling glibc to keep them is the first thing that a tuned PyTorch does.
TUNED_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "8589934592",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
}
OURS, TORCH = "benchmarks.ours", "benchmarks.torch_worker"


@dataclass(frozen=True)
class Contender:
    """One way to train.

    Attributes:
        name: in tables and options.
        module: the worker that runs it.
        precision: `float32` or `mixed_bfloat16`, as recipes write it.
        cached: the step is fed the output of the frozen prefix.
        tuned: PyTorch with channels_last and, with `keeps_buffers`, an allocator that keeps its buffers.
        checkout: where its code lies, if it is another commit's.
        compiled: and its step compiled by inductor (`torch.compile`).
    """

    name: str
    module: str
    precision: str = "float32"
    cached: bool = False
    tuned: bool = False
    compiled: bool = False
    keeps_buffers: bool = True
    checkout: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Variables that its process starts with. Ours gets what a user has: nothing."""
        kept = {key: value for key, value in os.environ.items() if key not in TUNED_ENVIRONMENT}
        return {**kept, **(TUNED_ENVIRONMENT if self.tuned and self.keeps_buffers else {}), "TF_CPP_MIN_LOG_LEVEL": "3"}

    def is_anchor_of(self, other: "Contender") -> bool:
        """Whether the other is compared with it, if it is the fastest of its kind: tuned PyTorch of the same precision."""
        return self.tuned and self.precision == other.precision and self != other

    @property
    def settings(self) -> dict[str, object]:
        """What its worker needs to know to build a phase."""
        settings = {"precision": self.precision, "cached": self.cached, "tuned": self.tuned}
        return {**settings, "compiled": True} if self.compiled else settings


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("ours float32", OURS),
        Contender("ours float32 cached", OURS, cached=True),
        Contender("ours bfloat16", OURS, "mixed_bfloat16"),
        Contender("ours bfloat16 cached", OURS, "mixed_bfloat16", cached=True),
        Contender("torch plain float32", TORCH),
        Contender("torch tuned float32", TORCH, tuned=True),
        Contender("torch compiled float32", TORCH, tuned=True, compiled=True),
        Contender("torch tuned bfloat16", TORCH, "mixed_bfloat16", tuned=True),
        Contender("torch compiled bfloat16", TORCH, "mixed_bfloat16", tuned=True, compiled=True),
    )
}
