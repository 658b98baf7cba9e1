"""`init: identity`: a block starts as the identity with the previous head's weights (greedy, Prop. 3.1)."""

import numpy as np

from kerasgreedy.network.build import Network
from kerasgreedy.spec import layers as L


def start_as_identity(network: Network, index: int) -> None:
    """Sets block `index` to the identity on non-negative input and copies the head before it.

    The kernel is 1 from each channel to itself at its centre, biases are 0; a batch norm gets mean 0, variance 1 and
    scale sqrt(1 + epsilon), so that in inference mode it changes nothing. Then z_{j+1} = z_j, and so is the risk.
    `plan.strategies.identity_obstacle` says where this cannot be done.
    """
    block = network.architecture.blocks[index]
    epsilon = network.architecture.defaults.batch_norm_epsilon
    arrays = network.arrays(block.name)
    for node in block.nodes:
        place = f"{block.name}/{node.name}"
        if isinstance(node.layer, L.Conv):
            kernel = np.zeros_like(arrays[f"{place}/kernel"])
            middle = node.layer.kernel_size // 2
            kernel[middle, middle] = np.eye(node.layer.conv)
            arrays[f"{place}/kernel"] = kernel
            if f"{place}/bias" in arrays:
                arrays[f"{place}/bias"] = np.zeros_like(arrays[f"{place}/bias"])
        elif isinstance(node.layer, L.BatchNorm):
            for name, value in (("gamma", np.sqrt(1 + epsilon)), ("beta", 0), ("moving_mean", 0), ("moving_variance", 1)):
                arrays[f"{place}/{name}"] = np.full_like(arrays[f"{place}/{name}"], value)
    network.load_arrays(block.name, arrays)
    before, head = network.architecture.heads[index - 1].name, network.architecture.heads[index].name
    copied = {key.replace(before, head, 1): value for key, value in network.arrays(before).items()}
    network.load_arrays(head, {key: value for key, value in copied.items() if key in network.variables(head)})
