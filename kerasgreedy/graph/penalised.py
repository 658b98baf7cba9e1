"""Which layers a regularizer is of, and where they stand. Imports no TensorFlow."""

from collections.abc import Collection

from kerasgreedy.graph.architecture import Architecture
from kerasgreedy.graph.chains import find_chains
from kerasgreedy.graph.kinds import has_kernel
from kerasgreedy.graph.makers import Maker, makers
from kerasgreedy.graph.tree import Node, leaves
from kerasgreedy.spec import layers as L
from kerasgreedy.spec.regularizers import Limit, matches


def penalised(arch: Architecture, limit: Limit, among: Collection[str]) -> dict[str, Node]:
    """`component/layer` -> layer, of all layers with trained kernels that a regularizer is of.

    Args:
        among: names of components.
    """
    heads = {head.name for head in arch.heads}
    found = {}
    for name in among:
        component = arch.components[name]
        classifier = component.classifier[0].name if name in heads else None
        for node in leaves(component.nodes):
            key, trained = f"{name}/{node.name}", has_kernel(node) and node.parameters
            if trained and limit.applies(node.layer) and matches(limit.of, key, name in heads, node.name == classifier):
                found[key] = node
    return found


def scale_layers(arch: Architecture, among: Collection[str]) -> dict[str, str]:
    """`component/layer` -> `component/batch_norm` right after it, for all layers of components that have one."""
    found = {}
    for name in among:
        for layer, chain in find_chains(arch.components[name].nodes).items():
            if chain.batch_norm:
                found[f"{name}/{layer}"] = f"{name}/{chain.batch_norm}"
    return found


def entering(arch: Architecture, keys: Collection[str]) -> dict[str, tuple[int, int, tuple[tuple[Maker, ...], ...]]]:
    """Of each of some layers: places of the map that it gives, its groups, and which filters of these layers make what enters."""
    made, found = makers(arch, keys), {}
    for key in keys:
        node = arch.node(key)
        places = node.output_shape[0] * node.output_shape[1] if len(node.output_shape) == 3 else 1
        groups = node.layer.groups if isinstance(node.layer, L.Conv) else 1
        found[key] = places, groups, made[key]
    return found
