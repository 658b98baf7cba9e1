"""A program: what PyTorch gives for inputs of an npz file, into another one. It and TensorFlow do not share a process well."""

import sys

import numpy as np
import torch


def momentum(start, rates, gradients, share, nesterov):
    """The parameter after each step."""
    parameter = torch.nn.Parameter(torch.tensor(start))
    optimizer = torch.optim.SGD([parameter], 0.1, float(share), nesterov=bool(nesterov))
    points = []
    for rate, gradient in zip(rates, gradients, strict=True):
        optimizer.param_groups[0]["lr"] = float(rate)
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        points.append(parameter.detach().numpy().copy())
    return np.array(points)


def batch_norm(batches):
    """Outputs of each batch (n, [height, width,] channels), then moving mean and variance."""
    maps = batches.ndim == 5
    norm = (torch.nn.BatchNorm2d if maps else torch.nn.BatchNorm1d)(batches.shape[-1], eps=1e-5, momentum=0.1)
    outputs = []
    for batch in batches:
        y = norm(torch.tensor(np.moveaxis(batch, -1, 1))).detach().numpy()
        outputs.append(np.moveaxis(y, 1, -1))
    return np.array(outputs), norm.running_mean.numpy(), norm.running_var.numpy()


def strided(x, kernel, stride, padding):
    weight = torch.tensor(kernel.transpose(3, 2, 0, 1))
    y = torch.nn.functional.conv2d(torch.tensor(x.transpose(0, 3, 1, 2)), weight, None, int(stride), int(padding))
    return torch.relu(y).numpy().transpose(0, 2, 3, 1)


def fresh():
    """Weights and biases of new layers, by name."""
    torch.manual_seed(0)
    layers = {
        "block_1/conv_1": torch.nn.Conv2d(3, 48, 3),
        "block_2/conv_1": torch.nn.Conv2d(48, 32, 5, groups=4),
        "head_2/dense_1": torch.nn.Linear(512, 64),
        "head_2/dense_2": torch.nn.Linear(64, 40),
    }
    return {
        f"{name}/{part}": value.detach().numpy() for name, layer in layers.items() for part, value in layer.named_parameters()
    }


def main(source, target):
    given, found = np.load(source), fresh()
    for key in sorted({name.partition(":")[0] for name in given.files}):
        arguments = {name.partition(":")[2]: given[name] for name in given.files if name.startswith(f"{key}:")}
        kind = key.partition("-")[0]
        if kind == "norm":
            found[f"{key}/outputs"], found[f"{key}/mean"], found[f"{key}/variance"] = batch_norm(**arguments)
        else:
            found[key] = {"momentum": momentum, "strided": strided}[kind](**arguments)
    np.savez(target, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
