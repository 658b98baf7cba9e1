"""A layer that is to be fitted, with images of our own; and patches by hand."""

import numpy as np
from conftest import spec_of

from kerasgreedy.graph.tree import leaves
from kerasgreedy.network.build import build_network
from kerasgreedy.network.fitting import Fitting


def patches_of(images, size, stride=1):
    """(b, K, size * size * channels), row by row."""
    height, width = images.shape[1:3]
    corners = [(i, j) for i in range(0, height - size + 1, stride) for j in range(0, width - size + 1, stride)]
    return np.stack([images[:, i : i + size, j : j + size].reshape(len(images), -1) for i, j in corners], axis=1)


def fitting(spec, component, layer, images, seed=0):
    """Batches of 8, the last filled up with an image that must not be seen."""
    text = f"name: s\ninput_shape: {list(images.shape[1:])}\nclasses: 3\n{spec}"
    network = build_network(spec_of(text).value)
    part = network.architecture.components[component]
    node = next(node for node in leaves(part.nodes) if node.name == layer)

    def batches(most):
        some = images[:most]
        for start in range(0, len(some), 8):
            real = some[start : start + 8]
            filler = np.full((8 - len(real), *images.shape[1:]), 1e6, np.float32)
            yield np.concatenate([real, filler]), np.zeros(8, np.int32), np.arange(8) < len(real)

    return Fitting(network, part, node, batches, len(images), seed)
