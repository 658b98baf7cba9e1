"""Settings of the removal of what a structured penalty has made small."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from kerasgreedy.errors import PlanError
from kerasgreedy.spec.pruning_settings import FineTune, share_or
from kerasgreedy.spec.regularizers import Complexity, GroupLasso, Limit, NestedGroupLasso, Norm, OfFilters, On, Which
from kerasgreedy.spec.strict import Count, Strict, fault, faults
from kerasgreedy.spec.training import Training

if TYPE_CHECKING:
    from pydantic_core import InitErrorDetails

KernelGroups: TypeAlias = Literal["kernel", "half_rings", "rings"]
AMOUNTS = ("tau", "accuracy_drop", "multiply_adds")


class KernelThreshold(Strict):
    """Removes kernels, and groups of their places, whose norm is at most tau: filters, sides of kernels, residual bodies.

    Greedy: of each block after its phase; other strategies: after training (structured sparsity, eq. 15 and 23). Exactly one of
    `tau`, `accuracy_drop` and `multiply_adds` says how much. Removal is real: filters go, kernels are cropped, and residuals in
    whose body a layer is gone keep their shortcut alone. A layer that would be empty keeps its strongest filter. Outputs are
    those of the thresholded network, in which these weights are zero, and a channel without its kernel is.
    """

    tau: float | None = Field(None, ge=0, description="the largest norm that goes; 0: what is zero exactly")
    accuracy_drop: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="the largest tau that costs at most this much accuracy on validation data, before fine-tuning",
    )
    multiply_adds: Annotated[int | float, share_or("multiply-adds")] | None = Field(
        None, description="the smallest tau that leaves at most this share, or number, of multiply-adds; as of `prune`"
    )
    of: Which | None = Field(
        None,
        description="which layers, as of a regularizer; default: those of the one that trained; where several did, and differ in "
        "this or in what follows, it has to be said",
    )
    groups: KernelGroups | None = Field(
        None, description="what has a norm: the `kernel`, or its nested `half_rings` or `rings`; default: as the regularizer"
    )
    norm: Norm | None = Field(None, description="as of a regularizer; default: as the one that trained, else l2")
    on: On | None = Field(None, description="as of `group_lasso`; default: as the one that trained, else the kernel")
    round_to: Count = Field(
        1, description="filters that go together stay in multiples of this many; the strongest are taken back"
    )
    sizes: Literal["measured", "branches", "padded"] | None = Field(
        None,
        description="a layer whose kernels differ in side: `branches`, one for each side; `padded`, all of the largest side; "
        "`measured`, whichever is faster here. Default: measured with `tau` or `accuracy_drop` on one worker, else padded",
    )
    sums: Literal["placed", "zeros"] = Field(
        "placed",
        description="a layer that has lost filters whose channels others make too, as in the sum of a residual: `placed`, the "
        "channels that are left are put in their places; `zeros`, filters of zeros stay there: more multiply-adds, and faster",
    )
    fine_tune: FineTune | None = Field(
        None, description="training afterwards, see below; without `regularizers` unless it names some; left out: none"
    )

    @model_validator(mode="after")
    def _one_amount(self) -> "KernelThreshold":
        given = [key for key in AMOUNTS if getattr(self, key) is not None]
        if len(given) != 1:
            what = f"received {' and '.join(given)}" if given else "nothing says how much is removed"
            message = f"{what}; give one of {', '.join(AMOUNTS)}"
            raise faults("KernelThreshold", [fault(message, at=(given[1],) if given else ())])
        if self.multiply_adds is not None and self.sizes == "measured":
            message = (
                "what is faster is measured when tau is known, and changes what the budget counts; allowed: branches, padded"
            )
            raise faults("KernelThreshold", [fault(message, at=("sizes",))])
        if self.on == "scale" and self.groups not in (None, "kernel"):
            message = f"a scale has no places; allowed with on: scale: kernel; received {self.groups}"
            raise faults("KernelThreshold", [fault(message, at=("groups",))])
        return self

    def tuning(self, training: Training) -> Training:
        """How fine-tuning trains."""
        assert self.fine_tune is not None
        own = self.fine_tune.over(training)
        return own if self.fine_tune.regularizers is not None else own.model_copy(update={"regularizers": []})

    def measure(self, trained: Sequence[Limit]) -> "Measure":
        """What norms are taken of, where settings left out follow the regularizer of filters that trained.

        Raises:
            PlanError: there were several, which say different things.
        """
        ways = [each for each in trained if isinstance(each, OfFilters | Complexity)]
        inherited: dict[str, Any] = {"of": "hidden", "groups": "kernel", "norm": "l2", "on": "kernel"}
        own = {key: value for key in inherited if (value := getattr(self, key)) is not None}
        for key in inherited:
            values = list({str(value): value for value in (_inherited(way, key) for way in ways)}.values())
            if len(values) > 1 and key not in own and not (key == "groups" and own.get("on") == "scale"):
                said = " and ".join(f"'{value}'" if isinstance(value, str) else str(value) for value in values)
                message = f"the regularizers that trained say {said}, and one threshold is about one of them; say threshold.{key}"
                raise PlanError(("threshold", key), message)
            inherited[key] = values[0] if values else inherited[key]
        chosen = {**inherited, **own}
        if chosen["on"] == "scale" and self.groups is None:  # a scale has no places
            chosen["groups"] = "kernel"
        return Measure(**chosen)


def _inherited(way: OfFilters | Complexity, key: str) -> Any:
    if key == "groups":
        return way.groups if isinstance(way, NestedGroupLasso | Complexity) else "kernel"
    if key == "on":
        return way.acts_on
    value = getattr(way, key)
    return "hidden" if value == "all" else value  # logits stay


class Measure(Limit):
    """Of which layers which norms are compared with tau."""

    name: str = "threshold"
    groups: KernelGroups
    norm: Norm
    on: On
    squared: bool = False

    @property
    def acts_on(self) -> On:  # type: ignore[override]
        return self.on

    @classmethod
    def applies(cls, layer: Strict) -> bool:
        return GroupLasso.applies(layer) and Complexity.applies(layer)


def misfits(
    settings: KernelThreshold, strategy: str, prunes: bool, has_validation: bool, several_workers: bool
) -> "list[InitErrorDetails]":
    """Lines for what does not fit the rest of a recipe."""
    lines = []
    if prunes:
        lines.append(fault("'prune' and 'threshold' exclude each other in one run; do one after the other", at=("threshold",)))
    if settings.accuracy_drop is not None and not has_validation:
        lines.append(fault("needs data.validation above 0", at=("threshold", "accuracy_drop")))
    if settings.sizes == "measured" and several_workers:
        message = "each worker would measure something else; allowed with several workers: branches, padded"
        lines.append(fault(message, at=("threshold", "sizes")))
    if settings.fine_tune and settings.fine_tune.trains == "all" and strategy in ("random_features", "convex"):
        message = f"received 'all'; strategy '{strategy}' never trains blocks; allowed: head"
        lines.append(fault(message, at=("threshold", "fine_tune", "trains")))
    return lines
