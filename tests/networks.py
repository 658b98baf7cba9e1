"""Networks with drawn weights, and the removal of their filters against silence."""

import random

import numpy as np
from conftest import spec_of

from kerasgreedy.graph.architecture import architecture
from kerasgreedy.graph.coupling import find_coupling
from kerasgreedy.network.build import Network, build_network
from kerasgreedy.network.surgery import remove_filters, silence
from kerasgreedy.spec.model import ModelSpec

HEADER = "name: t\ninput_shape: [8, 8, 3]\nclasses: 4\nblock_defaults: {batch_norm: true}\nblocks:\n  - {conv: 4}\n"

# The convex network of two layers.
GATED_HEAD = "{gated_conv: 6, kernel_size: 3, stride: 2, padding: valid, class_separable: true}"
TWO_LAYER = f"name: two_layer\nblocks: [{{activation: linear}}]\nfinal_head: {{layers: [{GATED_HEAD}]}}\n"


def network_of(block, head="{hidden_layers: 1, width: 2x, batch_norm: true}"):
    """A network whose batch norm is not that of its first moment, and whose biases are not zero."""
    network = build_network(spec_of(f"{HEADER}  - {block}\nauxiliary_head: {head}\n").value, seed=3)
    return with_statistics(network, np.random.default_rng(5))


def with_statistics(network, rng):
    """The network with drawn batch norms and biases."""
    for name in network.names:
        arrays = network.arrays(name)
        for key, value in arrays.items():
            if key.endswith(("gamma", "moving_variance")):
                arrays[key] = rng.uniform(0.5, 1.5, value.shape).astype(np.float32)
            elif key.endswith(("beta", "bias", "moving_mean")):
                arrays[key] = rng.normal(0, 0.3, value.shape).astype(np.float32)
        network.load_arrays(name, arrays)
    return network


def shaken(network: Network, seed: int) -> None:
    """Random values for all weights, statistics included: a fresh batch norm would hide faults."""
    rng = np.random.default_rng(seed)
    for name in network.names:
        arrays = network.arrays(name)
        for key, value in arrays.items():
            if value.dtype == np.float32 and "seed" not in key:
                scale = 1 / np.sqrt(np.prod(value.shape[:-1])) if key.endswith("kernel") else 0.2
                arrays[key] = (scale * rng.standard_normal(value.shape)).astype(np.float32)
                if key.endswith(("gamma", "moving_variance")):
                    arrays[key] = rng.uniform(0.5, 1.5, value.shape).astype(np.float32)
        network.load_arrays(name, arrays)


def random_removal(coupling, seed: int, share: float = 0.5) -> dict[str, list[int]]:
    """Items of every group, at least one filter left in every layer."""
    pick = random.Random(seed)
    removed = {}
    for group in coupling.groups:
        order = list(range(len(group.items)))
        pick.shuffle(order)
        left = {place: len(coupling.outputs[place]) for place in group.places}
        chosen = []
        for i in order[: round(share * pick.random() * 2 * len(order))]:
            loss = {}
            for filter_ in group.items[i].filters:
                loss[filter_.place] = loss.get(filter_.place, 0) + 1
            if all(left[place] - count >= 1 for place, count in loss.items()):
                chosen.append(i)
                left = {place: count - loss.get(place, 0) for place, count in left.items()}
        removed[group.name] = sorted(chosen)
    return removed


def outputs(network: Network, images):
    return [np.asarray(z) for z in network.logits(images)]


def check_equal(spec: ModelSpec, seed: int) -> None:
    network = Network(architecture(spec))
    shaken(network, seed)
    coupling = find_coupling(network.architecture)
    removed = coupling.labels(random_removal(coupling, seed))
    smaller, written = remove_filters(network, spec, coupling, removed)
    assert smaller.architecture.parameters < network.architecture.parameters
    assert architecture(written) == smaller.architecture
    for name, arrays in silence(network, coupling, removed).items():
        network.load_arrays(name, arrays)
    images = np.random.default_rng(seed).standard_normal((3, *network.architecture.input_shape)).astype(np.float32)
    for depth, (masked, pruned) in enumerate(zip(outputs(network, images), outputs(smaller, images), strict=True), start=1):
        np.testing.assert_allclose(pruned, masked, rtol=0, atol=1e-6 * max(1.0, np.abs(masked).max()), err_msg=f"depth {depth}")
