"""The spec of a network whose convolutions have fewer filters, smaller kernels, or whose residuals have no body any more.

What `graph.rewriting` does to numbers of filters stays there; here layers come and go. A component that changes is written out,
one document a primitive layer. Imports no TensorFlow and no NumPy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from kerasgreedy.graph.architecture import Component, architecture
from kerasgreedy.graph.chains import find_chains
from kerasgreedy.graph.coupling import Place
from kerasgreedy.graph.rewriting import plain, resized
from kerasgreedy.graph.rules import margins, same_margins
from kerasgreedy.graph.tree import Crop, Node, Pad, PadShortcut, leaves
from kerasgreedy.spec import layers as L
from kerasgreedy.spec.model import ModelSpec


@dataclass(frozen=True)
class Part:
    """Filters of one layer whose kernels have one size.

    Attributes:
        before, after: rows, and columns, that are cut off the kernel.
        filters: their places in the layer as it was.
    """

    before: int
    after: int
    filters: tuple[int, ...]


@dataclass(frozen=True)
class Cut:
    """What stays of a layer: its parts become branches, and where filters are missing or in another order, they are put in place.

    Attributes:
        width: filters that there were.
    """

    parts: tuple[Part, ...]
    width: int

    @property
    def order(self) -> tuple[int, ...]:
        """The filters that stay, in the order in which their channels come."""
        return tuple(index for part in self.parts for index in part.filters)

    @property
    def has_gaps(self) -> bool:
        """Whether channels stay whose filters are missing: others make them too."""
        return len(self.order) < self.width


# (component, layer) -> what becomes of a convolution or dense layer; None: of a residual, its shortcut alone; of others, nothing.
Edits: TypeAlias = Mapping[Place, Cut | None]


@dataclass(frozen=True)
class Origin:
    """Where the weights of a layer of the new network come from.

    Attributes:
        name: of the layer, in the same component of the old one.
        part: what stays of its kernel; None: all.
        filters: what stays of its channels; None: all.
    """

    name: str
    part: Part | None = None
    filters: tuple[int, ...] | None = None


# component -> new layer -> where its weights come from.
Origins: TypeAlias = dict[str, dict[str, Origin]]


def margins_of(node: Node, before: Sequence[Node]) -> tuple[int, int] | None:
    """By how many places a convolution sees the map padded at its top left and bottom right; None: sides differ.

    Args:
        before: the layers in front of it in its sequence.
    """
    layer = node.layer
    if not isinstance(layer, L.Conv):
        return 0, 0
    if layer.padding == "same":
        sides = {same_margins(size, layer.kernel_size, layer.stride) for size in node.input_shape[:2]}
        return sides.pop() if len(sides) == 1 else None
    total = margins(layer.padding)
    for edge in reversed(before):
        if not isinstance(edge.layer, Pad | Crop):
            break
        sign = 1 if isinstance(edge.layer, Pad) else -1
        total = total[0] + sign * edge.layer.before, total[1] + sign * edge.layer.after
    return total


def map_holds(node: Node, before: Sequence[Node], part: Part) -> bool:
    """Whether something is left of the map where what the cut kernel does not see is cut off."""
    margin = margins_of(node, before)
    if margin is None:
        return False
    first = next((index for index in range(len(before), 0, -1) if not isinstance(before[index - 1].layer, Pad | Crop)), 0)
    shape = before[first].input_shape if first < len(before) else node.input_shape
    cut = max(part.before - margin[0], 0) + max(part.after - margin[1], 0)
    return cut < min(shape[:2])


def restructured(spec: ModelSpec, edits: Edits) -> tuple[ModelSpec, Origins]:
    """The spec after some edits, and where the weights come from.

    Args:
        spec: with `input_shape` and `classes`.

    Raises:
        ShapeError: the sizes do not fit together.
    """
    arch = architecture(spec)
    data = plain(resized(spec, {}))
    written: dict[str, list[Origin | None]] = {}
    for block, head, document in zip(arch.blocks, arch.heads, data["blocks"], strict=True):
        if any(component == block.name for component, _ in edits):
            writer = _Writer(block, edits)
            document["layers"], written[block.name] = writer.sequence(block.nodes), writer.sources
        if any(component == head.name for component, _ in edits):
            writer = _Writer(head, edits)
            nodes = head.nodes[: -len(head.classifier)]
            maps = {key: document["head"][key] for key in ("class_maps",) if key in document["head"]}
            document["head"] = {"layers": writer.sequence(nodes), **maps}
            written[head.name] = [*writer.sources, *(Origin(node.name) for node in leaves(head.classifier))]
    changed = ModelSpec.model_validate(data)
    sources: Origins = {}
    for component in architecture(changed).components.values():
        own = [node for node in leaves(component.nodes) if not isinstance(node.layer, Pad | Crop | PadShortcut)]
        origins = written.get(component.name, [Origin(node.name) for node in own])
        pairs = zip(own, origins, strict=True)
        sources[component.name] = {node.name: origin for node, origin in pairs if origin is not None}
    return changed, sources


class _Writer:
    """Writes a component, and remembers in the order of its leaves what each comes from."""

    def __init__(self, component: Component, edits: Edits):
        self.sources: list[Origin | None] = []
        self._cuts = {name: cut for (own, name), cut in edits.items() if own == component.name and cut is not None}
        self._dropped = {name for (own, name), cut in edits.items() if own == component.name and cut is None}
        self._orders: dict[str, Cut] = {}  # batch norms and activations of a layer that is cut
        self._ends: dict[str, Cut] = {}
        for name, chain in find_chains(component.nodes).items():
            if name in self._cuts:
                members = [each for each in (chain.batch_norm, chain.last) if each]
                self._orders.update(dict.fromkeys(members, self._cuts[name]))
                self._ends[chain.last] = self._cuts[name]

    def sequence(self, nodes: Sequence[Node]) -> list[Any]:
        documents: list[Any] = []
        for index, node in enumerate(nodes):
            if isinstance(node.layer, Pad | Crop):
                continue
            documents += self._written(node, nodes[:index])
            if node.name in self._ends:
                documents += self._in_place(self._ends[node.name])
        if nodes and not documents:  # a list of layers is never empty
            self.sources.append(None)
            return [{"activation": "linear"}]
        return documents

    def _written(self, node: Node, before: Sequence[Node]) -> list[Any]:
        layer = node.layer
        if isinstance(layer, L.Residual):
            return self._residual(node)
        if node.name in self._dropped:
            return []
        if isinstance(layer, L.Branches):
            return [{"branches": [self.sequence(branch) for branch in node.children]}]
        if isinstance(layer, PadShortcut):
            return self._filled(layer, node)
        if node.name in self._cuts:
            return self._cut(node, before, self._cuts[node.name])
        order = self._orders.get(node.name)
        self.sources.append(Origin(node.name, filters=order.order if order else None))
        return [{**plain(layer), **self._bare(node, before)}]

    def _bare(self, node: Node, before: Sequence[Node]) -> dict[str, Any]:
        """What follows a layer is written on its own; what pads before it, with it."""
        found: dict[str, Any] = {}
        if isinstance(node.layer, L.Conv | L.Dense):
            found |= {"batch_norm": False, "activation": "linear", "use_bias": bool(node.layer.use_bias)}
        if before and isinstance(before[-1].layer, Pad | Crop) and not isinstance(node.layer, L.Conv):
            found["padding"] = before[-1].layer.before
        elif isinstance(node.layer, L.Conv) and node.layer.padding != "same":
            margin = margins_of(node, before)
            assert margin is not None
            found["padding"] = _padding(margin)
        return found

    def _cut(self, node: Node, before: Sequence[Node], cut: Cut) -> list[Any]:
        written = []
        for part in cut.parts:
            document = {**plain(node.layer), **self._bare(node, before)}
            if isinstance(node.layer, L.Dense):
                document["dense"] = len(part.filters)
            else:
                document["conv"] = len(part.filters)
                document |= self._window(node, before, part)
            self.sources.append(Origin(node.name, part, part.filters))
            written.append(document)
        return written if len(written) == 1 else [{"branches": [[document] for document in written]}]

    def _window(self, node: Node, before: Sequence[Node], part: Part) -> dict[str, Any]:
        layer: Any = node.layer
        if not part.before and not part.after:
            return {}
        margin = margins_of(node, before)
        assert margin is not None
        side = layer.kernel_size - part.before - part.after
        around = (margin[0] - part.before, margin[1] - part.after)
        same = layer.stride == 1 and around == same_margins(node.input_shape[0], side, 1)
        return {"kernel_size": side, "padding": "same" if same else _padding(around)}

    def _in_place(self, cut: Cut) -> list[Any]:
        if cut.order == tuple(range(cut.width)):
            return []
        self.sources.append(None)
        return [{"place_channels": cut.width, "at": list(cut.order)}]

    def _residual(self, node: Node) -> list[Any]:
        body, shortcut = node.children
        if node.name in self._dropped:
            return self.sequence(shortcut)
        written: dict[str, Any] = {"residual": self.sequence(body), "activation": "linear"}
        if shortcut and isinstance(shortcut[0].layer, PadShortcut):
            written["shortcut"] = "pad"
        elif shortcut:
            written["shortcut"] = self.sequence(shortcut)
        return [written]

    def _filled(self, layer: PadShortcut, node: Node) -> list[Any]:
        """A shortcut without weights whose sum is no more."""
        written: list[Any] = [{"max_pool": 1, "stride": layer.stride}] if layer.stride > 1 else []
        if layer.channels > node.input_shape[-1]:
            written.append({"place_channels": layer.channels, "at": list(range(node.input_shape[-1]))})
        self.sources += [None] * len(written)
        return written


def _padding(around: tuple[int, int]) -> Any:
    if around == (0, 0):
        return "valid"
    return around[0] if around[0] == around[1] > 0 else list(around)
