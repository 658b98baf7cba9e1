"""Regularizers: penalties on kernels beside the loss."""

from fnmatch import fnmatchcase
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field

from kerasgreedy.spec.convex_layers import ClassSeparable, GatedConv
from kerasgreedy.spec.doors import Choice, Door, Named
from kerasgreedy.spec.strict import Count, Strict

Which: TypeAlias = Literal["all", "blocks", "heads"] | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
Form: TypeAlias = Literal["proximal", "subgradient"]


class Limit(Named):
    """What every regularizer says, and every set that kernels have to stay in."""

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


class Regularizer(Limit):
    """A penalty that is added to the loss."""

    weight: float = Field(gt=0, le=1e30, description="factor of the penalty in what is minimised")


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

    @classmethod
    def applies(cls, layer: Strict) -> bool:
        return _of(layer) != "rows"  # whose matrices have no filters of their own


class GateHinge(Regularizer):
    """Keeps filters behind fixed gates on their side: the mean over images and patches X of max(0, -(2 D - 1) X v).

    Summed over filters; D = 1[X g >= 0]. It is zero where D X v = relu(X v) for all of them, the constraint of Chang and Lee,
    eq. 3. Convex in v, and computed on every batch: as many multiply-adds as running every filter over the map.
    """

    name: Literal["gate_hinge"] = Field(description="write `gate_hinge`")
    of_batches: ClassVar[bool] = True

    @classmethod
    def applies(cls, layer: Strict) -> bool:
        return _of(layer) == "gates" or (isinstance(layer, GatedConv) and layer.is_fixed)


class NuclearBall(Limit):
    """Keeps kernels in the ball of matrices whose singular values sum up to `radius` at most (Zhang, Liang and Wainwright 2017).

    The convex set around networks with r filters of norm B1 and B2: radius = B1 B2 r sqrt(n), n the number of classes. Of a head
    that ends in `rows` the matrix is [A_1 ... A_C], (features, places * classes); of other kernels it has a column a filter.
    """

    name: Literal["nuclear_ball"] = Field(description="write `nuclear_ball`")
    radius: float = Field(gt=0, description="largest sum of singular values")
    every: Count = Field(1, description="projected after so many steps of the optimiser; the ball holds at the end of a phase")
    form: Literal["proximal"] = Field("proximal", description="the only form")

    @classmethod
    def applies(cls, layer: Strict) -> bool:
        return _of(layer) != "gates"


def _of(layer: Strict) -> str | None:
    """What a class-separable layer reads."""
    return layer.of if isinstance(layer, ClassSeparable) else None


PENALTIES = Door(
    "penalties",
    [
        Choice("kerasgreedy.nn.penalties:SquaredNorm", L2),
        Choice("kerasgreedy.nn.penalties:AbsoluteSum", L1),
        Choice("kerasgreedy.nn.penalties:FilterNorms", GroupLasso),
        Choice("kerasgreedy.nn.penalties:SidePenalty", GateHinge),
        Choice("kerasgreedy.nn.penalties:InNuclearBall", NuclearBall),
    ],
)
Penalty: TypeAlias = Annotated[Limit, PENALTIES]


def matches(which: Which, key: str, of_head: bool) -> bool:
    """Whether a regularizer's `of` means the layer `component/layer`."""
    if isinstance(which, str):
        return which == "all" or (which == "heads") == of_head
    return any(fnmatchcase(key, pattern) for pattern in which)
