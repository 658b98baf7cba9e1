"""The spec of a network with fewer filters. Imports no TensorFlow and no NumPy."""

from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

from kerasgreedy.graph.architecture import Component, architecture
from kerasgreedy.graph.coupling import Coupling, Place, kept
from kerasgreedy.graph.kinds import has_kernel, kind_of
from kerasgreedy.graph.tree import Node, leaves, walk
from kerasgreedy.spec import layers as L
from kerasgreedy.spec.model import Head, ModelSpec, merged_head

# (channels of the result, places of those that enter) of a `place_channels`.
Placed: TypeAlias = tuple[int, list[int]]


def resized(
    spec: ModelSpec,
    widths: Mapping[Place, int],
    replaced: Mapping[str, Head] | None = None,
    placed: Mapping[Place, Placed] | None = None,
) -> ModelSpec:
    """The same network with other numbers of filters, everything written out.

    Repeated blocks become blocks of their own, every block gets its own head with absolute widths, and projections become
    layers, so that what is not named in `widths` keeps its size.

    Args:
        spec: with `input_shape` and `classes`.
        widths: (component, layer) -> filters of that convolution or dense layer.
        replaced: head name -> another head in its place.
        placed: (component, layer) -> what a `place_channels` says.

    Raises:
        ShapeError: the sizes do not fit together.
    """
    arch = architecture(spec)
    places = [(index, copy) for index, block in enumerate(spec.blocks) for copy in range(block.repeat)]
    blocks = []
    for number, ((index, _), block, head) in enumerate(zip(places, arch.blocks, arch.heads, strict=True), start=1):
        written = spec.blocks[index]
        data: dict[str, Any] = {"name": block.name} if block.name != f"block_{number}" else {}
        data["layers"] = [plain(layer) for layer in written.layers]
        _set_widths(data["layers"], block.nodes, len(block.path) + 1, block.name, widths, placed or {})
        other = (replaced or {}).get(head.name)
        if other is not None:
            data["head"] = plain(other)
        else:
            data["head"] = _own_head(_head_of(spec, index, number == len(places)), head, widths, placed or {})
        blocks.append(data)
    document = plain(spec)
    for key in ("blocks", "auxiliary_head", "final_head", "nominal"):
        document.pop(key, None)
    document |= {"blocks": blocks, "input_shape": list(arch.input_shape), "classes": arch.classes}
    return ModelSpec.model_validate(document)


def without(spec: ModelSpec, coupling: Coupling, removed: Collection[int]) -> ModelSpec:
    """The spec without the filters under some labels of its coupling."""
    places = [place for group in coupling.groups for place in group.places]
    widths = {place: len(kept(coupling.outputs[place], removed)) for place in places}
    placed = {}
    for component in architecture(spec).components.values():
        for node in leaves(component.nodes):
            if isinstance(node.layer, L.PlaceChannels):
                place = (component.name, node.name)
                left = kept(coupling.outputs[place], removed)
                at = [left.index(node.layer.at[position]) for position in kept(coupling.inputs[place], removed)]
                placed[place] = len(left), at
    return resized(spec, widths, placed=placed)


def last_head(spec: ModelSpec) -> Head:
    """The head of the last block, with what it takes from `auxiliary_head`."""
    return _head_of(spec, len(spec.blocks) - 1, True)


def plain(value: Any) -> Any:
    """A document as it was written."""
    return value.model_dump(mode="json", exclude_unset=True, exclude_none=True)


def _head_of(spec: ModelSpec, index: int, last: bool) -> Head:
    own = spec.final_head if last and spec.final_head else spec.blocks[index].head
    return merged_head(spec.auxiliary_head, own)


def _own_head(head: Head, component: Component, widths: Mapping[Place, int], placed: Mapping[Place, Placed]) -> dict[str, Any]:
    """A head on its own, with the widths that its hidden layers have, or shall have."""
    hidden = [node for node in walk(component.nodes) if has_kernel(node)][:-1]
    if head.layers is not None:
        data: dict[str, Any] = {"layers": [plain(layer) for layer in head.layers]}
        if head.class_maps is not None:
            data["class_maps"] = head.class_maps
        own = component.nodes[: -len(component.classifier)]
        _set_widths(data["layers"], own, len(component.path) + 1, component.name, widths, placed)
        return data
    data = plain(head)
    if hidden:
        sizes = [widths.get((component.name, node.name), node.output_shape[-1]) for node in hidden]
        data["width"] = sizes[0] if len(set(sizes)) == 1 else sizes
    return data


def _set_widths(
    layers: list[Any],
    nodes: tuple[Node, ...],
    depth: int,
    component: str,
    widths: Mapping[Place, int],
    placed: Mapping[Place, Placed],
) -> None:
    """Writes the filters of a component's layers; `depth` is the length of the path that leads to its list of layers."""
    for node in walk(nodes):
        if isinstance(node.layer, L.Residual):
            _spell_out_projection(layers, node, depth)
    for node in walk(nodes):
        if (component, node.name) in placed:
            target = _at(layers, node.path[depth:])
            target["place_channels"], target["at"] = placed[component, node.name]
        if has_kernel(node) and (component, node.name) in widths:
            target = _at(layers, node.path[depth:])
            count = widths[component, node.name]
            if isinstance(node.layer, L.Conv) and node.layer.groups == node.input_shape[-1] > 1:
                target["groups"] = count * node.layer.groups // node.layer.conv  # whole depthwise groups go
            kind = kind_of(node.layer)
            target[kind.filters] = count // kind.channels_each(node.layer)


def _spell_out_projection(layers: list[Any], node: Node, depth: int) -> None:
    """With fewer filters input and output may agree by chance, and a projection would turn into the identity."""
    shortcut = node.children[1]
    if isinstance(node.layer, L.Residual) and node.layer.shortcut == "projection" and shortcut:
        conv = shortcut[0].layer
        assert isinstance(conv, L.Conv)
        written = {"conv": conv.conv, "kernel_size": 1, "stride": conv.stride, "activation": "linear"}
        _at(layers, node.path[depth:])["shortcut"] = [written]


def _at(layers: list[Any], path: tuple[str | int, ...]) -> Any:
    found: Any = layers
    for step in path:
        found = found[step]
    return found
