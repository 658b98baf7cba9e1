"""What layers do where they say nothing themselves."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from kerasgreedy.spec.strict import Strict, fault, faults

HARD_THRESHOLD = "positive_hard_threshold"
ActivationName: TypeAlias = Literal[
    "relu", "linear", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid", "square", "positive_hard_threshold"
]
Padding: TypeAlias = Literal["same", "valid"] | Annotated[int, Field(ge=0, le=65536)]
Initializer: TypeAlias = Literal[
    "he_normal", "he_uniform", "glorot_normal", "glorot_uniform", "lecun_normal", "lecun_uniform", "pytorch"
]


class Threshold(Strict):
    """Of the activation `positive_hard_threshold`: it gives q where q > beta, else 0, and does not subtract beta.

    (Huang, Kong and Lucey, "CNNs are Globally Optimal Given Multi-Layer Support", eq. 9.)
    """

    beta: float = Field(
        0.0, description="fixed or initial threshold; a negative one lets the q between it and 0 pass too; at 0 it is a relu"
    )
    per: Literal["layer", "channel"] = Field(
        "layer", description="one beta for a layer, or for each of its channels (of a vector: for each unit)"
    )
    learn: Literal["fixed", "warm_up", "surrogate"] = Field(
        "fixed",
        description="`fixed`: beta stays; `warm_up`: trained as the bias of a relu, max(q - beta, 0) (eq. 7), until the supports "
        "are first taken, and kept from then on (section 4.1); `surrogate`: trained with sigmoid((q - beta) / width) in place of "
        "the step q > beta when its gradient is taken",
    )
    width: Annotated[float, Field(gt=0)] | None = Field(
        None, description="of the surrogate's sigmoid, in units of q; default: 0.1. Only beside `learn: surrogate`"
    )

    @model_validator(mode="after")
    def _width_of_what(self) -> "Threshold":
        if self.width is not None and self.learn != "surrogate":
            message = f"'width' belongs to learn: surrogate; received learn: {self.learn}"
            raise faults("Threshold", [fault(message, self.width, ("width",))])
        return self


class BlockDefaults(Strict):
    """What a `conv` or `dense` layer does where it says nothing itself."""

    batch_norm: bool = Field(False, description="batch normalisation after every convolution")
    activation: ActivationName = Field("relu", description="after every convolution and dense layer")
    threshold: Threshold = Field(
        default_factory=Threshold, description="of every `positive_hard_threshold`, those of convolutions and heads too"
    )
    initializer: Initializer = Field(
        "he_normal",
        description="of kernels; a dense layer without activation (a classifier) takes glorot_uniform. `pytorch`: kernels and "
        "biases of all of them uniform within 1 / sqrt(inputs of a unit), as PyTorch's layers begin",
    )
    batch_norm_momentum: float = Field(0.9, ge=0, lt=1, description="share of the old moving statistics that is kept")
    batch_norm_epsilon: float = Field(1e-5, gt=0, description="added to the variance")
    batch_norm_variance: Literal["biased", "unbiased"] = Field(
        "biased",
        description="of a batch, what goes into the moving variance: squares over n (Keras), or over n - 1 (PyTorch). Training "
        "normalises by the first in both",
    )
