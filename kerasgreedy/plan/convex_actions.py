"""What is done to networks with layers that are fitted, or whose filters come from a head. Plain data; imports no TensorFlow."""

from dataclasses import dataclass
from typing import Any, ClassVar

from kerasgreedy.errors import PlanError
from kerasgreedy.graph.architecture import Architecture, Component
from kerasgreedy.graph.kinds import kind_of
from kerasgreedy.graph.tree import Pad, Shape, leaves, show
from kerasgreedy.plan.actions import Action, ActionEntry
from kerasgreedy.plan.stages import shortened
from kerasgreedy.spec import layers as L
from kerasgreedy.spec.convex_layers import GatedConv


@dataclass(frozen=True)
class FitAction(Action):
    """Lets layers know the training images: gates, whitening, reference points.

    Attributes:
        layers: `component/layer`, in the order in which they are fitted: each sees what those before it give.
    """

    layers: tuple[str, ...]

    kind: ClassVar[str] = "fit"
    home: ClassVar[str] = "kerasgreedy.train.performing_convex:fit"
    looks: ClassVar[str] = "looking at training images"
    changes_network: ClassVar[bool] = False

    @property
    def what(self) -> str:
        return f"{shortened(self.layers)}, to training images"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return self.plain(layers=list(self.layers))


@dataclass(frozen=True)
class FitEntry(ActionEntry):
    """What is remembered of it.

    Attributes:
        fitted: `component/layer` -> what there is to say.
    """

    fitted: dict[str, dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """Its entry, with lines for people."""
        news = [f"{place}: {', '.join(f'{key} {value:,}' for key, value in told.items())}" for place, told in self.fitted.items()]
        return {**super().as_dict(), "news": news}


def layers_to_fit(component: Component) -> tuple[str, ...]:
    """`component/layer` of those that are fitted, in the order in which they run."""
    found = [(node, kind_of(node.layer)) for node in leaves(component.nodes)]
    return tuple(f"{component.name}/{node.name}" for node, kind in found if kind.fit and kind.is_fitted(node.layer))


@dataclass(frozen=True)
class FiltersAction(Action):
    """Gives a block's first layer the filters of largest norm that the head of the block before has found.

    Attributes:
        head: that found them.
        layer: `component/layer` that takes them.
        filters: how many.
    """

    head: str
    layer: str
    filters: int

    kind: ClassVar[str] = "filters"
    home: ClassVar[str] = "kerasgreedy.train.performing_convex:take_filters"
    changes_network: ClassVar[bool] = False

    @property
    def what(self) -> str:
        return f"{self.filters:,} of {self.head} for {self.layer}, those of largest norm"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return self.plain(head=self.head, layer=self.layer, filters=self.filters)


@dataclass(frozen=True)
class FiltersEntry(ActionEntry):
    """What is remembered of it.

    Attributes:
        head, layer: as of the action.
        of: filters that there were to choose from.
        norm_share: share of the sum of all norms that the chosen ones have.
        zero: chosen ones that are zero, where no more are left.
    """

    head: str
    layer: str
    filters: int
    of: int
    norm_share: float
    zero: int

    def as_dict(self) -> dict[str, Any]:
        """Its entry, with lines for people."""
        news = [f"{self.layer}: {self.filters:,} filters of {self.of:,}, with {100 * self.norm_share:.1f} % of the norms"]
        if self.zero:
            news.append(f"{self.zero:,} of these are zero: {self.head} has no more; channels that say nothing come of them")
        return {**super().as_dict(), "news": news}


@dataclass(frozen=True)
class RectifyAction(Action):
    """Puts an ordinary head with relu in the place of one with fixed gates, filters that are zero left out.

    Attributes:
        head: which.
        images: of the training part, on which is measured what that changes.
    """

    head: str
    images: int

    kind: ClassVar[str] = "rectify"
    home: ClassVar[str] = "kerasgreedy.train.performing_convex:rectify"
    looks: ClassVar[str] = "comparing both heads"

    @property
    def what(self) -> str:
        return f"{self.head}: relu instead of fixed gates"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return self.plain(head=self.head, images=self.images)


@dataclass(frozen=True)
class RectifyEntry(ActionEntry):
    """What is remembered of it.

    Attributes:
        head: which.
        filters: that are not zero, and that there were.
        broken: see `network.rectify.Broken`.
    """

    head: str
    filters: tuple[int, int]
    broken: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Its entry, with lines for people."""
        told = self.broken
        news = [
            f"{self.head}: {self.filters[0]:,} filters of {self.filters[1]:,} are not zero",
            f"on the wrong side of their gates: {100 * told['share']:.2g} % of patches and filters, {100 * told['size']:.2g} % "
            f"of the sum; largest difference of a score {told['largest_difference']:.2g} of the largest; same class for "
            f"{100 * told['same_decision']:.4g} % of the images",
        ]
        return {**super().as_dict(), "news": news}


def check_rectified(head: Component) -> None:
    """Refuses a head without fixed gates.

    Raises:
        PlanError: says what is allowed.
    """
    gated = head.nodes[-2].layer if len(head.nodes) > 1 else None
    if not (isinstance(gated, GatedConv) and gated.sums_patches):
        message = (
            f"{head.name} has no fixed gates; allowed: heads that end in gated_conv with class_separable: true and fixed gates"
        )
        raise PlanError(("convex", "rectify"), message)


def taken_filters(arch: Architecture, index: int, counted: bool = True) -> dict[str, Any]:
    """What fills block `index` from the head before it.

    Args:
        counted: whether the head has to have so many; a removal may have left fewer.

    Raises:
        PlanError: they do not fit each other.
    """
    block, head, before = arch.blocks[index], arch.heads[index - 1], arch.blocks[index - 1]
    strategy = ("strategy",)
    found = head_filters(head)
    if found is None:
        message = (
            f"'convex' takes the filters of {block.name} from {head.name}, which has none to give; allowed: a head that ends in "
            "gated_conv with class_separable: true and has nothing before it, or is rows: true"
        )
        raise PlanError(strategy, message)
    node = next((node for node in block.nodes if not isinstance(node.layer, Pad)), block.nodes[0])
    shape, count = found
    if not isinstance(node.layer, L.Conv) or node.layer.use_bias or node.layer.groups != 1:
        wanted = f"{{conv: n, kernel_size: {shape[0]}, use_bias: false}}"
        raise PlanError(strategy, f"'convex' fills the first layer of {block.name} from {head.name}; it has to be {wanted}")
    own = (node.layer.kernel_size, node.layer.kernel_size, before.output_shape[-1])
    if own != shape:
        message = f"{block.name}/{node.name} has filters of {show(own)}, and those of {head.name} are {show(shape)}"
        raise PlanError(strategy, message)
    if counted and node.layer.conv > count:
        raise PlanError(strategy, f"{block.name}/{node.name} has {node.layer.conv:,} filters; {head.name} gives {count:,}")
    return {"head": head.name, "layer": f"{block.name}/{node.name}", "filters": node.layer.conv}


def head_filters(head: Component) -> tuple[Shape, int] | None:
    """The shape of the filters that a head can give to the next block, and their number."""
    rows = next((node for node in head.nodes if isinstance(node.layer, L.Rows)), None)
    if rows is not None and all(isinstance(node.layer, L.RandomCrop) for node in head.nodes[: head.nodes.index(rows)]):
        places, features = rows.output_shape
        return (1, 1, features), min(features, places * head.output_shape[0])
    gated = next((node for node in head.nodes if isinstance(node.layer, GatedConv) and node.layer.class_separable), None)
    if gated is None or not all(isinstance(node.layer, Pad) for node in head.nodes[: head.nodes.index(gated)]):
        return None  # what the filters are applied to has to be what the block before gives
    assert isinstance(gated.layer, GatedConv)
    size = gated.layer.kernel_size
    classes = head.output_shape[0] if gated.layer.is_fixed else 1
    return (size, size, gated.input_shape[-1]), gated.output_shape[-1] * classes
