"""Regularizers: penalties on kernels beside the loss."""

from fnmatch import fnmatchcase
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, model_validator

from kerasgreedy.spec.convex_layers import ClassSeparable, GatedConv
from kerasgreedy.spec.doors import Choice, Door, Named
from kerasgreedy.spec.layers import Conv, Dense
from kerasgreedy.spec.strict import Count, Strict, fault, faults

Which: TypeAlias = (
    Literal["all", "blocks", "heads", "hidden"] | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
)
Form: TypeAlias = Literal["proximal", "subgradient"]
On: TypeAlias = Literal["kernel", "scaled_kernel", "scale"]
Norm: TypeAlias = Literal["l2", "normalized", "scaled", "linf"]


class Limit(Named):
    """What every regularizer says, and every set that kernels have to stay in."""

    of: Which = Field(
        "all",
        description="whose kernels: `all`; `blocks`; `heads`; `hidden`, all but those of layers that make logits; or a list of "
        "patterns of layers, `[block_1/*, '*/conv_2']`; biases and the shift of batch norm are never penalised",
    )
    of_batches: ClassVar[bool] = False  # it needs the images, and is no function of kernels alone
    acts_on: ClassVar[On] = "kernel"

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


class OfFilters(Regularizer):
    """A penalty on norms of filters, or of groups of their places."""

    form: Form = Field(
        "proximal",
        description="`proximal`: norms are shortened after each step, to exact zeros where they are short; `subgradient`: added "
        "to the gradient",
    )
    norm: Norm = Field(
        "l2",
        description="of a group of g numbers: `l2`; `normalized`, l2 / sqrt(g) (structured sparsity, eq. 25); `scaled`, "
        "sqrt(g) l2 (eq. 29); `linf`, the largest absolute value",
    )

    on: On = "kernel"

    @classmethod
    def applies(cls, layer: Strict) -> bool:
        return _of(layer) != "rows"  # whose matrices have no filters of their own

    @property
    def acts_on(self) -> On:  # type: ignore[override]
        return self.on

    @model_validator(mode="after")
    def _of_one_variable(self) -> "OfFilters":
        if self.on == "scaled_kernel" and self.form == "proximal":
            message = "a product of two variables has no proximal map; allowed with on: scaled_kernel: subgradient"
            raise faults(type(self).__name__, [fault(message, self.form, ("form",))])
        return self


class GroupLasso(OfFilters):
    """Sum over filters of the norm of a filter's kernel; a unit of a dense layer is a filter (Yuan and Lin 2006).

    Omega_1 of the paper on structured sparsity (eq. 13); with `squared`, the sum over layers of the square of a layer's sum
    (eq. 32).
    """

    name: Literal["group_lasso"] = Field(description="write `group_lasso`")
    squared: bool = Field(
        False, description="the sum over the filters of a layer is squared; `proximal` finds its map by halving"
    )
    on: On = Field(
        "kernel",
        description="what has the norm: the `kernel`; the `scaled_kernel`, times the scale of the batch norm right after it "
        "(subgradient only); that `scale` alone. Under batch norm the size of a kernel says nothing",
    )


class NestedGroupLasso(OfFilters):
    """Sum over filters of the norms of nested groups of a kernel's places, from the outermost in: kernels shrink, then vanish.

    Omega_2 of the paper on structured sparsity (eq. 22); with `squared`, the sum over filters of the square of a filter's sum
    (eq. 33). Dense layers have one group a unit.
    """

    name: Literal["nested_group_lasso"] = Field(description="write `nested_group_lasso`")
    of: Which = Field("hidden", description="as of the others; default: all but the layers that make logits")
    groups: Literal["half_rings", "rings"] = Field(
        "half_rings",
        description="`half_rings`: a side shrinks by one at a time, top left first; `rings`: by two, and stays centred",
    )
    squared: bool = Field(False, description="the sum of a filter is squared; `proximal` finds its map by halving")
    on: Literal["kernel", "scaled_kernel"] = Field("kernel", description="as of `group_lasso`; a scale alone has no places")


class Complexity(Regularizer):
    """Multiply-adds with relaxed widths and sizes: sum over layers and filters of r c d' s'^2 (structured sparsity, eq. 34).

    r c are the places of the map that a layer gives, s' is a filter's sum of `nested_group_lasso`, d' the sum of the norms of the
    filters that make what enters; images, and what is not penalised, count their channels.
    """

    name: Literal["complexity"] = Field(description="write `complexity`")
    of: Which = Field("hidden", description="as of the others; default: all but the layers that make logits")
    form: Literal["subgradient"] = Field("subgradient", description="the only form: it couples layers")
    norm: Norm = Field("l2", description="in s', as of `nested_group_lasso`")
    groups: Literal["half_rings", "rings"] = Field("half_rings", description="in s', as of `nested_group_lasso`")
    squared: ClassVar[bool] = False

    @classmethod
    def applies(cls, layer: Strict) -> bool:
        return isinstance(layer, Conv | Dense)


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
        Choice("kerasgreedy.nn.structured:GroupNorms", GroupLasso),
        Choice("kerasgreedy.nn.structured:GroupNorms", NestedGroupLasso),
        Choice("kerasgreedy.nn.structured:RelaxedCost", Complexity),
        Choice("kerasgreedy.nn.penalties:SidePenalty", GateHinge),
        Choice("kerasgreedy.nn.penalties:InNuclearBall", NuclearBall),
    ],
)
Penalty: TypeAlias = Annotated[Limit, PENALTIES]


def matches(which: Which, key: str, of_head: bool, classifies: bool) -> bool:
    """Whether a regularizer's `of` means the layer `component/layer`.

    Args:
        of_head: it is a layer of a head.
        classifies: it makes logits.
    """
    if isinstance(which, str):
        return {"all": True, "blocks": not of_head, "heads": of_head, "hidden": not classifies}[which]
    return any(fnmatchcase(key, pattern) for pattern in which)
