"""Regularizers: penalties on kernels beside the loss."""

from fnmatch import fnmatchcase
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field

from kerasgreedy.spec.convex_layers import ClassSeparable, GatedConv
from kerasgreedy.spec.doors import Choice, Door, Named
from kerasgreedy.spec.strict import Strict

Which: TypeAlias = Literal["all", "blocks", "heads"] | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
Form: TypeAlias = Literal["proximal", "subgradient"]


class Regularizer(Named):
    """What every regularizer says."""

    weight: float = Field(gt=0, le=1e30, description="factor of the penalty in what is minimised")
    of: Which = Field(
        "all",
        description="whose kernels: `all`, `blocks`, `heads`, or a list of patterns of layers, `[block_1/*, '*/conv_2']`; biases "
        "and batch norm are never penalised",
    )
    of_batches: ClassVar[bool] = False  # it needs the images, and is no function of kernels alone

    @classmethod
    def applies(cls, layer: Strict) -> bool:
        """Whether it can be of a layer with trained weights."""
        return True


class L2(Regularizer):
    """Half the sum of the squares of the kernels (`weight_decay` is the same on all that trains, biases and batch norm too)."""

    name: Literal["l2"] = Field(description="write `l2`")


class L1(Regularizer):
    """Sum of the absolute values of the kernels."""

    name: Literal["l1"] = Field(description="write `l1`")
    form: Form = Field(
        "proximal",
        description="`proximal`: a soft threshold after each step, which makes exact zeros; `subgradient`: added to the gradient",
    )


class GroupLasso(Regularizer):
    """Sum over filters of the l2 norm of a filter's kernel; a unit of a dense layer is a filter (Yuan and Lin 2006)."""

    name: Literal["group_lasso"] = Field(description="write `group_lasso`")
    form: Form = Field(
        "proximal",
        description="`proximal`: each filter's norm is shortened after each step, to exact zeros where it is short; "
        "`subgradient`: added to the gradient",
    )


class GateHinge(Regularizer):
    """Keeps filters behind fixed gates on their side: the mean over images and patches X of max(0, -(2 D - 1) X v).

    Summed over filters; D = 1[X g >= 0]. It is zero where D X v = relu(X v) for all of them, the constraint of Chang and Lee,
    eq. 3. Convex in v, and computed on every batch: as many multiply-adds as running every filter over the map.
    """

    name: Literal["gate_hinge"] = Field(description="write `gate_hinge`")
    of_batches: ClassVar[bool] = True

    @classmethod
    def applies(cls, layer: Strict) -> bool:
        return isinstance(layer, ClassSeparable) or (isinstance(layer, GatedConv) and layer.is_fixed)


PENALTIES = Door(
    "penalties",
    [
        Choice("kerasgreedy.nn.penalties:SquaredNorm", L2),
        Choice("kerasgreedy.nn.penalties:AbsoluteSum", L1),
        Choice("kerasgreedy.nn.penalties:FilterNorms", GroupLasso),
        Choice("kerasgreedy.nn.penalties:SidePenalty", GateHinge),
    ],
)
Penalty: TypeAlias = Annotated[Regularizer, PENALTIES]


def matches(which: Which, key: str, of_head: bool) -> bool:
    """Whether a regularizer's `of` means the layer `component/layer`."""
    if isinstance(which, str):
        return which == "all" or (which == "heads") == of_head
    return any(fnmatchcase(key, pattern) for pattern in which)
