"""Regularizers: penalties on kernels beside the loss."""

from fnmatch import fnmatchcase
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from kerasgreedy.spec.doors import Choice, Door, Named

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


PENALTIES = Door(
    "penalties",
    [
        Choice("kerasgreedy.nn.penalties:SquaredNorm", L2),
        Choice("kerasgreedy.nn.penalties:AbsoluteSum", L1),
        Choice("kerasgreedy.nn.penalties:FilterNorms", GroupLasso),
    ],
)
Penalty: TypeAlias = Annotated[Regularizer, PENALTIES]


def matches(which: Which, key: str, of_head: bool) -> bool:
    """Whether a regularizer's `of` means the layer `component/layer`."""
    if isinstance(which, str):
        return which == "all" or (which == "heads") == of_head
    return any(fnmatchcase(key, pattern) for pattern in which)
