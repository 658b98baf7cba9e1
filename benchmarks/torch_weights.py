"""Weights of our network in PyTorch's."""

import numpy as np
import torch

from benchmarks.torch_simcnn import SimCNNNet


def load_ours(net: SimCNNNet, arrays: dict[str, np.ndarray]) -> None:
    """Sets the weights from those of our network.

    Args:
        arrays: `block_1/conv_1/kernel` -> array, as `Network.arrays` gives them. Layers of a kind are numbered in the order
            in which data passes.
    """
    for kind, parts in (("block", net.blocks), ("head", net.heads)):
        for number, part in enumerate(parts, start=1):
            numbers = {"conv": 0, "batch_norm": 0, "dense": 0}
            for module in part:
                word = _WORDS.get(type(module))
                if word is None:
                    continue
                numbers[word] += 1
                place = f"{kind}_{number}/{word}_{numbers[word]}/"
                own = {key.removeprefix(place): arrays.pop(key) for key in list(arrays) if key.startswith(place)}
                _load(module, own, net.numbers.pooled_side(number - 1))
    if arrays:
        raise ValueError(f"weights without a place: {', '.join(arrays)}")


_WORDS = {torch.nn.Conv2d: "conv", torch.nn.BatchNorm2d: "batch_norm", torch.nn.Linear: "dense"}
# PyTorch's name -> ours, where the layer has it.
_LINEAR = {"weight": "kernel", "bias": "bias"}
_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def _load(module: torch.nn.Module, own: dict[str, np.ndarray], side: int) -> None:
    """Sets one layer; `side` is that of the map that a head's linear layer sees flattened."""
    if isinstance(module, torch.nn.Conv2d):
        own["kernel"] = own["kernel"].transpose(3, 2, 0, 1)
    elif isinstance(module, torch.nn.Linear):
        # Our flattened map runs (row, column, channel), PyTorch's (channel, row, column).
        kernel, units = own["kernel"], own["kernel"].shape[1]
        own["kernel"] = kernel.reshape(side, side, -1, units).transpose(3, 2, 0, 1).reshape(units, -1)
    names = _NORM if isinstance(module, torch.nn.BatchNorm2d) else _LINEAR
    targets = {ours: getattr(module, theirs) for theirs, ours in names.items() if getattr(module, theirs) is not None}
    if targets.keys() != own.keys():
        raise ValueError(f"{module}: our layer has {', '.join(own)}; PyTorch's takes {', '.join(targets)}")
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(torch.from_numpy(np.ascontiguousarray(own[name])))
