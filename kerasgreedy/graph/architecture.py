"""A model spec at a given input: blocks and heads as primitive layers, with shapes and costs."""

from collections.abc import Sequence
from dataclasses import dataclass

from kerasgreedy.errors import InputError, ShapeError
from kerasgreedy.graph.kinds import has_kernel, numbers_kept
from kerasgreedy.graph.lowering import Lowering
from kerasgreedy.graph.tree import Node, Path_, Shape, leaves, show
from kerasgreedy.spec import layers as L
from kerasgreedy.spec.block_defaults import BlockDefaults
from kerasgreedy.spec.convex_layers import ClassSeparable
from kerasgreedy.spec.model import Head, ModelSpec, Nominal, merged_head
from kerasgreedy.spec.strict import Strict

# Names of layers around the blocks in the whole model.
RESERVED = ("images", "normalize", "ensemble")


@dataclass(frozen=True)
class Component:
    """A block or a head.

    Attributes:
        name: `block_1`, `head_1`, or the block's own name.
        nodes: primitive layers in order.
        input_shape, output_shape: without the batch axis.
        path: the keys that lead to it in the model spec.
        hidden_layers: of a head: k - 1, or None when the head is given as layers.
    """

    name: str
    nodes: tuple[Node, ...]
    input_shape: Shape
    output_shape: Shape
    path: Path_
    hidden_layers: int | None = None

    @property
    def parameters(self) -> int:
        """Trained weights."""
        return sum(node.parameters for node in self.nodes)

    @property
    def multiply_adds(self) -> int:
        """Of the forward pass of one image."""
        return sum(node.multiply_adds for node in self.nodes)

    @property
    def weights_bytes(self) -> int:
        """Of all weights in float32; batch norm keeps two moving statistics beside its two trained weights."""
        return 4 * (self.parameters + sum(numbers_kept(node) for node in leaves(self.nodes)))

    @property
    def classifier(self) -> tuple[Node, ...]:
        """Of a head: what makes the logits, the linear layer or the class maps with their activation and mean."""
        first = max(index for index, node in enumerate(self.nodes) if has_kernel(node))
        return self.nodes[first:]

    @property
    def widths(self) -> list[int]:
        """Filters of each layer that has a kernel, in the order of the document."""
        return [node.output_shape[-1] for node in leaves(self.nodes) if has_kernel(node)]


@dataclass(frozen=True)
class Architecture:
    """The whole network: blocks[i] feeds blocks[i + 1] and heads[i]; the last head is the final one."""

    name: str
    input_shape: Shape
    classes: int
    blocks: tuple[Component, ...]
    heads: tuple[Component, ...]
    defaults: BlockDefaults

    @property
    def parameters(self) -> int:
        """Of the network that is deployed: all blocks and the final head."""
        return sum(block.parameters for block in self.blocks) + self.heads[-1].parameters

    @property
    def multiply_adds(self) -> int:
        """Of the network that is deployed, for one image."""
        return sum(block.multiply_adds for block in self.blocks) + self.heads[-1].multiply_adds

    @property
    def weights_bytes(self) -> int:
        """Of the network that is deployed."""
        return sum(block.weights_bytes for block in self.blocks) + self.heads[-1].weights_bytes

    @property
    def components(self) -> dict[str, Component]:
        """Blocks and heads by name."""
        return {component.name: component for component in (*self.blocks, *self.heads)}

    def node(self, key: str) -> Node:
        """The layer of a name like `block_1/conv_2`.

        Raises:
            KeyError: there is none.
        """
        component, _, layer = key.partition("/")
        for node in leaves(self.components[component].nodes):
            if node.name == layer:
                return node
        raise KeyError(key)


def architecture(spec: ModelSpec, input_shape: Sequence[int] | None = None, classes: int | None = None) -> Architecture:
    """Works out every layer of a spec.

    Args:
        spec: the model spec.
        input_shape: (height, width, channels); default: the spec's `input_shape`, else its `nominal` one.
        classes: default: likewise.

    Raises:
        ShapeError: a layer does not fit; its `path` says where in the spec.
        InputError: neither the caller nor the spec says the size or the classes.
    """
    nominal = spec.nominal or Nominal()
    shape = tuple(input_shape or spec.input_shape or nominal.input_shape or ())
    count = classes or spec.classes or nominal.classes
    if not shape:
        raise InputError(f"spec '{spec.name}' leaves input_shape to the data set; give a recipe, or set input_shape=[h,w,c]")
    if count is None:
        raise InputError(f"spec '{spec.name}' leaves classes to the data set; give a recipe, or set classes=n")
    blocks: list[Component] = []
    heads: list[Component] = []
    places = [(index, copy) for index, block in enumerate(spec.blocks) for copy in range(block.repeat)]
    for number, (index, copy) in enumerate(places, start=1):
        block = spec.blocks[index]
        name = block.name if block.name and block.repeat == 1 else f"{block.name}_{copy + 1}" if block.name else f"block_{number}"
        path: Path_ = ("blocks", index)
        enters = blocks[-1].output_shape if blocks else shape
        try:
            nodes = Lowering(spec.block_defaults).sequence(block.layers, enters, (*path, "layers"))
        except ShapeError as error:
            raise ShapeError(f"block {number}: {error.message} (network input {show(shape)})", error.path) from None
        if len(nodes[-1].output_shape) == 2:
            message = "a block cannot end in gated_conv with class_separable: true, or in rows; only heads can"
            raise ShapeError(f"block {number}: {message}", nodes[-1].path)
        blocks.append(Component(name, nodes, enters, nodes[-1].output_shape, path))
        last = number == len(places)
        own = spec.final_head if last and spec.final_head else block.head
        head = merged_head(spec.auxiliary_head, own)
        own_path = ("final_head",) if last and spec.final_head else (*path, "head") if block.head else ("auxiliary_head",)
        heads.append(_head(head, number, nodes[-1].output_shape, count, spec.block_defaults, own_path))
    names = [component.name for component in (*blocks, *heads)]
    double = next((name for name in names if names.count(name) > 1), None)
    taken = next((name for name in names if name in RESERVED), None)
    if taken:
        raise ShapeError(f"the name '{taken}' is used by the network itself; give the block another name", ("blocks",))
    if double:
        raise ShapeError(f"the name '{double}' stands for two blocks or heads; give the block another name", ("blocks",))
    return Architecture(spec.name, shape, count, tuple(blocks), tuple(heads), spec.block_defaults)


def _head(head: Head, number: int, shape: Shape, classes: int, defaults: BlockDefaults, path: Path_) -> Component:
    lowering = Lowering(defaults)
    try:
        layers = list(head.layers) if head.layers is not None else _head_layers(head, shape)
        nodes = lowering.sequence(layers, shape, (*path, "layers") if head.layers is not None else path)
        out = nodes[-1].output_shape if nodes else shape
        last = nodes[-1].layer if nodes else None
        nodes += lowering.sequence(_classifier(head, last, out, classes, path), out, path)
    except ShapeError as error:
        raise ShapeError(f"head of block {number}: {error.message}", error.path or path) from None
    hidden = None if head.layers is not None else head.hidden_layers
    return Component(f"head_{number}", nodes, shape, (classes,), path, hidden)


def _classifier(head: Head, last: Strict | None, shape: Shape, classes: int, path: Path_) -> list[Strict]:
    """What makes logits of the head's last map or vector."""
    if head.class_maps is not None:
        if len(shape) != 3:
            message = f"'class_maps' needs a map, got a vector of {shape[0]}; it takes the mean itself: end 'layers' before that"
            raise ShapeError(message, (*path, "class_maps"))
        maps = L.Conv(conv=classes, kernel_size=1, batch_norm=False, activation=head.class_maps)
        return [maps, L.GlobalAvgPool(global_avg_pool=True)]
    if isinstance(last, L.GatedConv) and last.class_separable:
        if last.sums_patches:
            return [ClassSeparable(class_separable=classes, start=last.start, of="gates")]
        return [L.Dense(dense=classes, activation="linear", use_bias=False)]
    if isinstance(last, L.Rows):
        return [ClassSeparable(class_separable=classes, start=last.start, of="rows")]
    if len(shape) != 1:
        raise ShapeError(f"the head ends in a map of {show(shape)}; end it with flatten or global_avg_pool", path)
    return [L.Dense(dense=classes, activation="linear")]


def hidden_widths(head: Head, channels: int) -> list[int]:
    """Filters of each hidden layer of a head on a block with so many channels."""
    if isinstance(head.width, list):
        if len(head.width) != head.hidden_layers:
            raise ShapeError(f"width lists {len(head.width)} numbers for {head.hidden_layers} hidden layers")
        return head.width
    width = head.width if isinstance(head.width, int) else max(1, round(float(head.width[:-1]) * channels))
    return [width] * head.hidden_layers


def _head_layers(head: Head, shape: Shape) -> list[Strict]:
    """k-1 convolutions of constant width, mean to n x n, batch norm, flatten (greedy, eq. 2). On a vector: dense layers."""
    widths = hidden_widths(head, shape[-1])
    if len(shape) == 1:
        return [L.Dense(dense=width, batch_norm=head.batch_norm) for width in widths]
    layers: list[Strict] = []
    if head.input_pool > 1 and min(shape[:2]) >= head.input_pool:
        layers.append(L.AvgPool(avg_pool=head.input_pool))
    layers += [L.Conv(conv=width, batch_norm=head.batch_norm) for width in widths]
    layers.append(L.PoolTo(pool_to=head.pool_to))
    if head.batch_norm if head.pooled_batch_norm is None else head.pooled_batch_norm:
        layers.append(L.BatchNorm(batch_norm=True))
    return [*layers, L.Flatten(flatten=True)]
