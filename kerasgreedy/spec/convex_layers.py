"""Layers of convex networks (Chang and Lee; Zhang, Liang and Wainwright 2017)."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from kerasgreedy.spec.block_defaults import Padding
from kerasgreedy.spec.strict import Count, Strict, fault, faults


class Standardize(Strict):
    """Centres and scales a map by what the training images give there; set before the first phase that runs it, never trained."""

    standardize: Literal["channels", "places"] = Field(
        description="`channels`: each channel to mean 0 and deviation 1, over images and places; `places`: each number of the "
        "map to mean 0 over images, and all together to a mean square of 1"
    )


class GatedConv(Strict):
    """Convolution behind fixed gates: filter i gives 1[X g_i >= 0] (X v_i) on a patch X, and only v_i is trained.

    It is linear in v (Ergen and Pilanci 2021; Chang and Lee, eq. 3 with gates of 0 and 1). No bias, and no activation after it.
    """

    gated_conv: Count = Field(description="number of gates")
    kernel_size: Count = Field(3, description="height and width of a patch")
    stride: Count = Field(1, description="step from patch to patch")
    padding: Padding = Field("same", description="`same`, `valid`, or zeros on each side")
    gates: Literal["normal", "patches", "own"] = Field(
        "normal",
        description="what g is: drawn from a normal; `patches`: the difference of two training patches; `own`: v itself, which "
        "is a convolution with relu: the non-convex twin. Fixed gates have distinct patterns on the training images, none of "
        "them all zero",
    )
    class_separable: bool = Field(
        False,
        description="at the end of a head's `layers`: filters of its own for each class, f_c = mean over patches, sum over i of "
        "1[X g_i >= 0] (X v_ic), computed as the linear map of summed gated patches that it is; the head is convex. With `gates: "
        "own` filters are shared by the classes: relu, mean over patches, linear layer. Neither has biases",
    )
    over: Literal["mean", "sum"] = Field("mean", description="beside `class_separable`: over patches")
    paired: bool = Field(
        False,
        description="beside `class_separable`: each gate twice, with v and with -v', so that scores of both signs are left where "
        "regularizer `gate_hinge` keeps (2 D - 1) X v >= 0",
    )
    start: Literal["zero", "random"] = Field("zero", description="beside `class_separable`: the filters of classes")

    @model_validator(mode="after")
    def _fits_together(self) -> "GatedConv":
        lines = []
        if not self.class_separable:
            idle = [key for key in ("over", "paired", "start") if getattr(self, key) != GatedConv.model_fields[key].default]
            lines = [fault("is of class_separable: true; leave it out", at=(key,)) for key in idle]
        if self.paired and self.gates == "own":
            lines.append(fault("gates: own has no fixed gates to pair; leave it out", at=("paired",)))
        if self.start != "zero" and self.gates == "own":
            lines.append(fault("gates: own always starts at random; leave it out", at=("start",)))
        if lines:
            raise faults("GatedConv", lines)
        return self

    @property
    def is_fixed(self) -> bool:
        """Whether gates are no weights."""
        return self.gates != "own"

    @property
    def sums_patches(self) -> bool:
        """Whether it gives the sum of the patches behind each gate, without a weight of its own."""
        return self.class_separable and self.is_fixed


class ClassSeparable(Strict):
    """What follows such sums: their linear map without bias, a filter for each gate and class. Never written down."""

    class_separable: int
    start: Literal["zero", "random"]
    of: Literal["gates", "rows"]


class RandomFeatures(Strict):
    """Features of patches whose products are a Gaussian kernel exp(-gamma |x - y|^2): fixed, set by the training images.

    A patch x is first centred, divided by its norm + 0.1, whitened by ZCA, and divided by the root of its number of channels
    (Zhang, Liang and Wainwright 2017, section 4 and their experiments).
    """

    random_features: Count = Field(description="number of features")
    kernel_size: Count = Field(5, description="height and width of a patch")
    stride: Count = Field(1, description="step from patch to patch")
    padding: Padding = Field("valid", description="`same`, `valid`, or zeros on each side")
    gamma: float = Field(1.0, gt=0, description="of the kernel")
    form: Literal["fourier", "nystrom"] = Field(
        "fourier",
        description="`fourier`: sqrt(2 / m) cos(<w, x> + b), w and b drawn; `nystrom`: kernels with m training patches, made "
        "orthogonal",
    )
    normalize: bool = Field(True, description="whether patches are centred and divided by their norm + 0.1")
    whiten: Annotated[float, Field(gt=0)] | None = Field(
        0.1, description="added to the eigenvalues of the patches' covariance before ZCA; null: no whitening"
    )


class Rows(Strict):
    """At the end of a head's `layers`: map to a matrix Z with a row for each place; score c is then tr(Z A_c), without bias."""

    rows: Literal[True] = Field(description="write `true`")
    start: Literal["zero", "random"] = Field("zero", description="of the matrices A_c")
