"""The removal of what a structured penalty made small, as a stage of the plan. No TensorFlow."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from kerasgreedy.errors import PlanError
from kerasgreedy.graph.architecture import Architecture
from kerasgreedy.graph.chains import find_chains
from kerasgreedy.graph.penalised import penalised, scale_layers
from kerasgreedy.graph.thresholding import makes_something
from kerasgreedy.graph.tree import leaves
from kerasgreedy.plan.actions import Action, ActionEntry
from kerasgreedy.spec.threshold_settings import KernelThreshold, Measure


@dataclass(frozen=True)
class ThresholdAction(Action):
    """Removes kernels, and groups of their places, of small norm.

    Attributes:
        layers: `component/layer` of those that may lose something.
        touches: blocks and heads that may lose filters with them.
        heads: that have a loss.
        counted: components whose multiply-adds a budget counts.
        settings: how much.
        measure: which norms.
        sizes: see `KernelThreshold.sizes`.
    """

    layers: tuple[str, ...]
    touches: tuple[str, ...]
    heads: tuple[str, ...]
    counted: tuple[str, ...]
    settings: KernelThreshold
    measure: Measure
    sizes: str

    kind: ClassVar[str] = "threshold"
    home: ClassVar[str] = "kerasgreedy.train.performing_threshold:threshold"
    looks: ClassVar[str] = "looking at validation images"

    @property
    def judged(self) -> tuple[str, ...]:
        return self.heads

    def depth(self, arch: Architecture) -> int:
        """Of the deepest head with a loss."""
        return max(depth for depth, head in enumerate(arch.heads, start=1) if head.name in self.heads)

    @property
    def of_one_block(self) -> bool:
        """Whether others follow for other blocks."""
        return self.name != self.kind

    @property
    def what(self) -> str:
        amount = next(f"{key} {value:g}" for key in ("tau", "accuracy_drop", "multiply_adds")
                      if (value := getattr(self.settings, key)) is not None)  # fmt: skip
        things = {"kernel": "kernels", "half_rings": "kernels and half-rings", "rings": "kernels and rings"}[self.measure.groups]
        first, last, count = self.layers[0], self.layers[-1], len(self.layers)
        return f"{things} of small norm ({amount}) of {first}" + (f" ... {last}, {count} layers" if count > 1 else "")

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        settings = self.settings.model_dump(mode="json", exclude_none=True)
        measure = self.measure.model_dump(mode="json", include={"groups", "norm", "on"})
        return self.plain(layers=list(self.layers), heads=list(self.heads), settings=settings, sizes=self.sizes, **measure)


@dataclass(frozen=True)
class ThresholdEntry(ActionEntry):
    """What is remembered of it.

    Attributes:
        tau: that was taken; below 0: nothing may go.
        target: multiply-adds that were asked for, of the components that are counted, and what they are now.
        filters: layer -> (filters before, after), of layers as they were called.
        sides: layer -> side -> filters, of those that stay.
        bodies: residuals that have lost their body.
        emptied: layers that kept one filter only because they would have been empty.
        split: layers that became branches, as they are called now.
        zeros: layers that keep filters of zeros where others make their channels too, likewise.
        held: layers in which zeros stay.
        zero_share: of the weights of these layers, those in groups whose norm was exactly zero before.
        validation: scores before and after; None without validation data.
    """

    tau: float
    target: tuple[int, int] | None
    filters: dict[str, list[int]]
    sides: dict[str, dict[str, int]]
    bodies: list[str]
    emptied: list[str]
    split: list[str]
    zeros: list[str]
    held: list[str]
    zero_share: float
    validation: dict[str, Any] | None

    def as_dict(self) -> dict[str, Any]:
        """Its entry, with lines for people."""
        before, after = (sum(sizes[side] for sizes in self.filters.values()) for side in (0, 1))
        if self.tau < 0 and self.target:
            news = ["nothing goes: there are no more multiply-adds than were asked for"]
        elif self.tau < 0:
            news = ["nothing goes: what is zero already would cost more accuracy than threshold.accuracy_drop allows"]
        else:
            news = [f"tau {self.tau:.4g}: {after:,} kernels of {before:,} stay"]
        counts: dict[int, int] = {}
        for own in self.sides.values():
            for side, count in own.items():
                counts[int(side)] = counts.get(int(side), 0) + count
        if len(counts) > 1:
            news.append("their sides: " + ", ".join(f"{count:,} of {side}x{side}" for side, count in sorted(counts.items())))
        if self.target:
            less = 1 - self.target[1] / self.target[0]
            rest = f": {100 * less:.0f} % less, no threshold around comes nearer" if less > 0.01 and self.tau >= 0 else ""
            news.append(f"asked for {self.target[0]:,} multiply-adds, left {self.target[1]:,}{rest}")
        if self.bodies:
            news.append(f"without a body now: {', '.join(self.bodies)}")
        if self.emptied:
            news.append(f"would be empty, and kept the strongest filter: {', '.join(self.emptied)}")
        if self.held:
            why = "convolutions in groups, or kernels that do not fit their map when cropped"
            news.append(f"zeros stay, and may grow again, in {', '.join(self.held)}: {why}")
        if self.zeros:
            news.append(f"filters of zeros stay where sums have others: {', '.join(self.zeros)}")
        if self.split:
            news.append(f"branches by side, measured or asked for: {', '.join(self.split)}")
        return {**super().as_dict(), "news": news}


def threshold_layers(arch: Architecture, measure: Measure, among: tuple[str, ...]) -> tuple[str, ...]:
    """`component/layer` of those that a threshold is about.

    Raises:
        PlanError: there are none, or one of them cannot lose a kernel.
    """
    if measure.on == "scale" and measure.groups != "kernel":
        message = f"received {measure.groups} with on: scale, which has no places; allowed: kernel"
        raise PlanError(("threshold", "groups"), message)
    hidden = penalised(arch, measure.model_copy(update={"of": "hidden"}), among)
    meant = [key for key in penalised(arch, measure, among) if key in hidden]
    if not meant:
        allowed = ", ".join(hidden) or "none in this network"
        raise PlanError(
            ("threshold", "of"), f"received {measure.of}, which is no layer that can lose a kernel; allowed: {allowed}"
        )
    scaled = scale_layers(arch, among)
    for key in meant:
        component, _, layer = key.partition("/")
        if measure.on != "kernel" and key not in scaled:
            message = f"on: {measure.on} needs a batch norm right after each layer, and {key} has none; allowed: kernel"
            raise PlanError(("threshold", "on"), message)
        nodes = arch.components[component].nodes
        last = find_chains(nodes)[layer].last
        if any(node.name == last and makes_something(node) for node in leaves(nodes)):
            message = f"the activation behind {key} makes something of 0, so that no channel there is zero; allowed: other layers"
            raise PlanError(("threshold", "of"), message)
    return tuple(meant)


def threshold_action(
    index: int, arch: Architecture, done: Mapping[str, Any] | None, settings: KernelThreshold, measure: Measure, **places: Any
) -> ThresholdAction:
    """The stage.

    Args:
        done: its entry, where it has been done: what it changed it would not find again.
        places: `name`, `among` (components that may lose something), `touches`, `heads`, `counted`, `several_workers`.
    """
    among, several = places.pop("among"), places.pop("several_workers")
    layers = tuple(done["filters"]) if done else threshold_layers(arch, measure, among)
    padded = settings.multiply_adds is not None or several
    sizes = settings.sizes or ("padded" if padded else "measured")
    return ThresholdAction(index, layers=layers, settings=settings, measure=measure, sizes=sizes, **places)
