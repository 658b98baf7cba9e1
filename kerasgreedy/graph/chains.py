"""What directly follows a convolution or dense layer. Imports no TensorFlow."""

from collections.abc import Sequence
from dataclasses import dataclass

from kerasgreedy.graph.coupling import Place
from kerasgreedy.graph.kinds import has_kernel
from kerasgreedy.graph.tree import Node, sequences
from kerasgreedy.spec import layers as L


@dataclass(frozen=True)
class Chain:
    """A layer with weights and what belongs to it.

    Attributes:
        batch_norm: name of the batch norm right after the layer, or None.
        last: name of the layer that ends the chain: the activation, else the batch norm, else the layer itself.
    """

    batch_norm: str | None
    last: str


def find_chains(nodes: Sequence[Node]) -> dict[str, Chain]:
    """Name of every layer with a kernel -> its chain."""
    found = {}
    for sequence in sequences(nodes):
        for index, node in enumerate(sequence):
            if has_kernel(node):
                after = list(sequence[index + 1 : index + 3])
                norm = after.pop(0).name if after and isinstance(after[0].layer, L.BatchNorm) else None
                last = after[0].name if after and isinstance(after[0].layer, L.Activation) else norm or node.name
                found[node.name] = Chain(norm, last)
    return found


def no_scale(place: Place) -> str:
    """What is wrong with `batch_norm_scale` for a layer without batch norm."""
    return (
        f"'batch_norm_scale' needs a batch norm right after every layer that is pruned, and {'/'.join(place)} has none; "
        "use 'magnitude_l2', or 'taylor_activation'"
    )
