"""What a step must do and must keep, counted from the architecture. Nothing here is measured.

Multiply-adds of an image's step: the forward pass of all that runs, and twice as much again for what trains (once for the
gradient of its weights, once for that of its input), less the input gradient of the first convolution that trains when
nothing before it trains. The frozen prefix needs none, and neither do images; this holds for all contenders alike.

Stored activations of an image: the tensors that the backward pass of what trains reads again. These are the input of
every convolution, dense layer, batch norm and max-pool, and the output of every activation (relu needs a mask only, but that
output is the next layer's input anyway, and then counts once). A mean and a flattening keep nothing; a space-to-depth keeps
nothing, but its result is a tensor of its own. The input of the first layer that trains is counted, be it images or features.
Everything counts in the width of the compute type. Weights, their gradients, work space and what an allocator holds
back are no activations: a measured slope may lie above the count.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kerasgreedy.graph.architecture import Architecture, Component
from kerasgreedy.graph.tree import Node
from kerasgreedy.spec import layers as L

END_TO_END = "end_to_end"
BYTES = {"float32": 4, "mixed_bfloat16": 2}


@dataclass(frozen=True)
class Work:
    """Which components a phase runs.

    Attributes:
        frozen: run in inference mode.
        trained: the blocks and the head that train, in the order in which data passes.
    """

    frozen: tuple[Component, ...]
    trained: tuple[Component, ...]

    @classmethod
    def of(cls, arch: Architecture, phase: int | str, cached: bool = False) -> "Work":
        """The work of a phase (a depth from 1, or `end_to_end`); a cached prefix does not run."""
        if phase == END_TO_END:
            return cls((), (*arch.blocks, arch.heads[-1]))
        depth = int(phase)
        return cls(() if cached else arch.blocks[: depth - 1], (arch.blocks[depth - 1], arch.heads[depth - 1]))

    @property
    def multiply_adds(self) -> int:
        """Of one image's step."""
        trained = sum(component.multiply_adds for component in self.trained)
        first = next(node.multiply_adds for node in _chain(self.trained) if node.multiply_adds)
        return sum(component.multiply_adds for component in self.frozen) + 3 * trained - first

    def stored_bytes(self, precision: str, accumulation: int = 1) -> float:
        """Stored activations of one image of the batch; with accumulation only one part of the batch is alive at a time."""
        return BYTES[precision] * stored_values(_chain(self.trained)) / accumulation


def stored_values(nodes: Sequence[Node]) -> int:
    """Numbers that the backward pass of a chain of layers reads again, for one image; see the top of this file."""
    kept: dict[int, int] = {}
    tensor, size = 0, math.prod(nodes[0].input_shape)
    for node in nodes:
        if node.children:
            raise ValueError(f"{node.name}: only chains of layers are counted, no branches")
        if isinstance(node.layer, L.Conv | L.Dense | L.BatchNorm | L.MaxPool):
            kept[tensor] = size
        if not isinstance(node.layer, L.Flatten):
            tensor, size = tensor + 1, math.prod(node.output_shape)
        if isinstance(node.layer, L.Activation | L.Dropout):
            kept[tensor] = size
    return sum(kept.values())


def _chain(components: Sequence[Component]) -> list[Node]:
    return [node for component in components for node in component.nodes]
