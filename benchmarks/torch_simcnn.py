"""SimCNN and its greedy step in plain PyTorch, written from the paper (Belilovsky et al. 2019, sections 3.1 and 4).

Block j: x_{j+1} = relu(W P x_j), with P the identity or space-to-depth; batch norm before the relu where k > 1. Head: k - 1
hidden 3x3 convolutions, mean to 2x2, batch norm where k > 1, linear. SGD with momentum and L2 on all that trains; the
frozen prefix runs without gradient and in inference mode; only the trained block and head have `requires_grad`.

`tuned=True` adds what a user who cares for speed on a CPU adds: channels_last (its allocator settings stand in `contenders.py`,
since a process must start with them); `compiled=True` of the step adds inductor. `precision="mixed_bfloat16"` adds autocast.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from kerasgreedy.graph.architecture import Architecture


@dataclass(frozen=True)
class SimCNN:
    """The numbers that describe a SimCNN.

    Attributes:
        blocks: for each block its filters and whether it downsamples.
        hidden_layers: k - 1.
        head_widths: filters of each head's hidden layers.
        side: height and width of the images, which have `channels`.
    """

    side: int
    channels: int
    classes: int
    blocks: tuple[tuple[int, bool], ...]
    hidden_layers: int
    head_widths: tuple[int, ...]
    batch_norm: bool
    pool_to: int = 2

    @classmethod
    def of(cls, arch: "Architecture") -> "SimCNN":
        """The numbers of an architecture that is a SimCNN.

        Raises:
            ValueError: it is something else.
        """
        convs = [[node for node in component.nodes if node.name.startswith("conv")] for component in arch.blocks]
        hidden = [[node for node in head.nodes if node.name.startswith("conv")] for head in arch.heads]
        numbers = cls(
            side=arch.input_shape[0],
            channels=arch.input_shape[2],
            classes=arch.classes,
            blocks=tuple((block.output_shape[2], block.nodes[0].name.startswith("downsample")) for block in arch.blocks),
            hidden_layers=len(hidden[0]),
            head_widths=tuple(nodes[0].output_shape[2] if nodes else 0 for nodes in hidden),
            batch_norm=any(node.name.startswith("batch_norm") for node in arch.blocks[0].nodes),
        )
        if any(len(nodes) != 1 for nodes in convs) or numbers.parameters() != cls._counted(arch):
            raise ValueError(f"{arch.name} is not a SimCNN: these benchmarks write SimCNN in PyTorch only")
        return numbers

    def parameters(self) -> list[int]:
        """Trained weights of each block and then of each head."""
        with torch.device("meta"):
            parts = [*(self.block(i) for i in range(len(self.blocks))), *(self.head(i) for i in range(len(self.blocks)))]
        return [sum(weight.numel() for weight in part.parameters()) for part in parts]

    @staticmethod
    def _counted(arch: "Architecture") -> list[int]:
        return [component.parameters for component in (*arch.blocks, *arch.heads)]

    def side_after(self, index: int) -> int:
        """Height and width of block `index`'s output."""
        return self.side // 2 ** sum(down for _, down in self.blocks[: index + 1])

    def pooled_side(self, index: int) -> int:
        """Height and width of the map that head `index` flattens."""
        return min(self.pool_to, self.side_after(index))

    def block(self, index: int, channels_last: bool = False) -> nn.Sequential:
        """Block `index`, from 0."""
        width, down = self.blocks[index]
        enters = self.blocks[index - 1][0] if index else self.channels
        first = [SpaceToDepth(channels_last)] if down else []
        return nn.Sequential(*first, *self._conv(4 * enters if down else enters, width))

    def head(self, index: int) -> nn.Sequential:
        """Head `index`, from 0."""
        enters, pooled = self.blocks[index][0], self.pooled_side(index)
        layers: list[nn.Module] = []
        for _ in range(self.hidden_layers):
            layers += self._conv(enters, self.head_widths[index])
            enters = self.head_widths[index]
        layers.append(nn.AvgPool2d(self.side_after(index) // pooled))
        if self.batch_norm:
            layers.append(nn.BatchNorm2d(enters))
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(enters * pooled**2, self.classes))

    def _conv(self, enters: int, width: int) -> list[nn.Module]:
        conv = nn.Conv2d(enters, width, 3, padding=1, bias=not self.batch_norm)
        return [conv, *([nn.BatchNorm2d(width)] if self.batch_norm else []), nn.ReLU()]


class SpaceToDepth(nn.Module):
    """Every 2x2 patch becomes one place with four times the channels: channel p * C + c is channel c of place p.

    Args:
        channels_last: copy once, in the memory order that the input has and the next convolution wants.
    """

    def __init__(self, channels_last: bool):
        super().__init__()
        self.channels_last = channels_last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, c, h, w = x.shape
        if self.channels_last:
            patches = x.permute(0, 2, 3, 1).reshape(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5)
            return patches.reshape(b, h // 2, w // 2, 4 * c).permute(0, 3, 1, 2)
        return x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4).reshape(b, 4 * c, h // 2, w // 2)


class SimCNNNet(nn.Module):
    """All blocks and heads.

    Args:
        tuned: channels_last.
        precision: `float32`, or `mixed_bfloat16` for autocast.
        initializer: `he_normal`, of convolutions, with zero biases, as ours start; `pytorch`: PyTorch's own start of all layers.
    """

    def __init__(self, numbers: SimCNN, tuned: bool = False, precision: str = "float32", initializer: str = "he_normal"):
        super().__init__()
        self.numbers = numbers
        count = range(len(numbers.blocks))
        self.blocks = nn.ModuleList(numbers.block(index, tuned) for index in count)
        self.heads = nn.ModuleList(numbers.head(index) for index in count)
        self.memory_format = torch.channels_last if tuned else torch.contiguous_format
        self.autocast = precision == "mixed_bfloat16"
        self.to(memory_format=self.memory_format)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and initializer == "he_normal":
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def low_precision(self) -> torch.autocast:
        """Autocast where it was asked for."""
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.autocast)

    def logits(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Of all heads, in inference mode."""
        self.eval()
        result = []
        with torch.no_grad(), self.low_precision():
            for block, head in zip(self.blocks, self.heads, strict=True):
                x = block(x)
                result.append(head(x).float())
        return result


class GreedyStep:
    """One step of SGD on a block and its head, or on all blocks and the last head.

    Args:
        depth: of the block that trains, from 1; None: end to end.
        accumulation: parts that the batch goes through in, one after the other.
        compiled: prefix, logits and loss are one function that inductor compiles for the first batch's shape.
    """

    def __init__(
        self,
        net: SimCNNNet,
        depth: int | None,
        learning_rate: float,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        accumulation: int = 1,
        compiled: bool = False,
    ):
        self.net, self.accumulation = net, accumulation
        self._loss = torch.compile(self._loss_of, dynamic=False) if compiled else self._loss_of
        self.prefix: Sequence[nn.Module] = net.blocks[: depth - 1] if depth else []
        self.trained: Sequence[nn.Module] = (
            [net.blocks[depth - 1], net.heads[depth - 1]] if depth else [*net.blocks, net.heads[-1]]
        )
        net.eval().requires_grad_(False)
        for part in self.trained:
            part.train().requires_grad_(True)
        weights = [weight for part in self.trained for weight in part.parameters()]
        self.optimizer = torch.optim.SGD(weights, learning_rate, momentum, weight_decay=weight_decay)

    def __call__(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Runs the step; returns the mean loss and the number of right answers before it, as tensors."""
        self.optimizer.zero_grad(set_to_none=True)
        loss, right = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        for x, y in zip(images.chunk(self.accumulation), labels.chunk(self.accumulation), strict=True):
            part, hits = self._loss(x, y)
            part = part / len(labels)
            part.backward()
            loss, right = loss + part.detach(), right + hits
        self.optimizer.step()
        return loss, right

    def _loss_of(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with self.net.low_precision():
            with torch.no_grad():
                for block in self.prefix:
                    x = block(x)
            for part in self.trained:
                x = part(x)
        return F.cross_entropy(x.float(), y, reduction="sum"), (x.argmax(1) == y).sum()
