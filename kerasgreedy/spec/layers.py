"""The layers that a block or a head may hold, and the combinators.

A layer is a mapping with one key that names its kind (`conv`, `max_pool`, `residual`, ...) and options beside it.
Three combinators make everything else: a sequence (a list), `residual` (body + shortcut) and `branches` (concatenated).
"""

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, field_validator, model_validator
from pydantic_core import core_schema

from kerasgreedy.errors import did_you_mean
from kerasgreedy.spec.block_defaults import HARD_THRESHOLD, ActivationName, Padding, Threshold
from kerasgreedy.spec.convex_layers import GatedConv, RandomFeatures, Rows, Standardize
from kerasgreedy.spec.doors import import_promised, promised
from kerasgreedy.spec.strict import Count, Strict, fault, faults, show

DownsampleKind: TypeAlias = Literal["invertible", "average", "max"]


class WithActivation(Strict):
    """A layer that an activation follows."""

    @field_validator("activation", mode="before", check_fields=False)
    @classmethod
    def _not_null(cls, value: Any) -> Any:
        if value is None:  # in Keras it means linear, and left out here it means the default
            raise ValueError("received null; allowed: linear for none, or leave it out for block_defaults.activation")
        return value


# Rows and columns before and after a map.
Margins: TypeAlias = Annotated[list[Annotated[int, Field(ge=-65536, le=65536)]], Field(min_length=2, max_length=2)]


class Conv(WithActivation):
    """Convolution; order: downsample, convolution, batch norm, activation (greedy, eq. 1)."""

    conv: Count = Field(description="number of filters")
    kernel_size: Count = Field(3, description="height and width of the kernel")
    stride: Count = Field(1, description="step of the kernel")
    padding: Padding | Margins = Field(
        "same",
        description="`same`, `valid`, zeros on each side, or `[before, after]`: at the top left and the bottom right, negative "
        "where the map is cut",
    )
    groups: Count = Field(1, description="input channels are split into this many groups")
    downsample: Literal["invertible", "average", "max", "stride"] | None = Field(
        None, description="halves the resolution: space-to-depth, 2x2 average or max before, or stride 2 (greedy, Table 6)"
    )
    batch_norm: bool | None = Field(None, description="overrides `block_defaults.batch_norm`")
    activation: ActivationName | None = Field(None, description="overrides `block_defaults.activation`")
    use_bias: bool | None = Field(None, description="default: only where no batch norm follows")


class Dense(WithActivation):
    """Fully connected layer on a vector (write `{flatten: true}` before it where a map arrives)."""

    dense: Count = Field(description="number of units")
    batch_norm: bool = Field(False, description="batch normalisation after it")
    activation: ActivationName | None = Field(None, description="overrides `block_defaults.activation`")
    use_bias: bool | None = Field(None, description="default: only where no batch norm follows")


class MaxPool(Strict):
    """Maximum over windows."""

    max_pool: Count = Field(description="height and width of the window")
    stride: Count | None = Field(None, description="step of the window; default: its size")
    padding: Padding = Field("valid", description="`same`, `valid`, or places on each side")


class AvgPool(Strict):
    """Mean over windows."""

    avg_pool: Count = Field(description="height and width of the window")
    stride: Count | None = Field(None, description="step of the window; default: its size")
    padding: Literal["same", "valid"] = Field("valid", description="padding is not counted in the mean")


class PoolTo(Strict):
    """Adaptive mean to n x n; a smaller map keeps its size."""

    pool_to: Count = Field(description="height and width of the result")


class GlobalAvgPool(Strict):
    """Mean over all places; leaves a vector."""

    global_avg_pool: Literal[True] = Field(description="write `true`")


class Flatten(Strict):
    """Map to vector."""

    flatten: Literal[True] = Field(description="write `true`")


class Dropout(Strict):
    """Sets a share of the values to zero in training."""

    dropout: float = Field(ge=0, lt=1, description="share of the values that is dropped")


class RandomCrop(Strict):
    """A window of the map: at a random place in training, another for each image; in the middle otherwise.

    In a frozen block it is always in the middle.
    """

    random_crop: float = Field(gt=0, le=1, description="share of height and of width that is left, rounded to whole places")


class PlaceChannels(Strict):
    """Channels at places of a wider map or vector, zeros at the others: what is left of a body whose sum stays as wide."""

    place_channels: Count = Field(description="channels of the result")
    at: list[Annotated[int, Field(ge=0)]] = Field(min_length=1, description="of each channel that enters, its place, from 0")

    @model_validator(mode="after")
    def _places(self) -> "PlaceChannels":
        if len(set(self.at)) < len(self.at) or max(self.at) >= self.place_channels:
            message = f"allowed: different places from 0 to {self.place_channels - 1}; received {show(self.at)}"
            raise faults("PlaceChannels", [fault(message, at=("at",))])
        return self


class BatchNorm(Strict):
    """Batch normalisation on its own."""

    batch_norm: Literal[True] = Field(description="write `true`")


class Activation(Strict):
    """A non-linearity on its own."""

    activation: ActivationName = Field(description="its name")
    threshold: Threshold | None = Field(
        None, description="beside `positive_hard_threshold`: keys left out are those of `block_defaults.threshold`"
    )

    @model_validator(mode="after")
    def _threshold_of_what(self) -> "Activation":
        if self.threshold is not None and self.activation != HARD_THRESHOLD:
            message = f"'threshold' belongs to activation: {HARD_THRESHOLD}; received activation: {self.activation}"
            raise faults("Activation", [fault(message, at=("threshold",))])
        return self


class Downsample(Strict):
    """Downsampling on its own; `invertible` is space-to-depth: factor^2 times the channels, no loss."""

    downsample: DownsampleKind = Field(description="how")
    factor: Annotated[int, Field(ge=2)] = Field(2, description="height and width are divided by this")


class Upsample(Strict):
    """The inverse of invertible downsampling: depth-to-space."""

    upsample: Literal["invertible"] = Field(description="how")
    factor: Annotated[int, Field(ge=2)] = Field(2, description="height and width are multiplied by this")


class Residual(WithActivation):
    """Sum of a body and a shortcut, then the activation."""

    residual: list["Layer"] = Field(min_length=1, description="the body")
    shortcut: Literal["identity", "projection", "pad"] | list["Layer"] = Field(
        "identity",
        description="`identity`; `projection`: 1x1 convolution with the body's stride and width (batch norm as the defaults "
        "say); `pad`: every n-th place, new channels are zero; or a list of layers",
    )
    activation: ActivationName | None = Field(None, description="after the sum; default: `block_defaults.activation`")


class Branches(Strict):
    """Several sequences on the same input, concatenated over channels."""

    branches: list[list["Layer"]] = Field(min_length=2, description="the sequences")


class LayerKinds:
    """The kinds of layers that can be written, by the key that names each; the door `kerasgreedy.layers`.

    As the second annotation of a field beside the union of the package's own kinds it takes any of them.
    """

    def __init__(self, kinds: Mapping[str, type[Strict]]):
        self._kinds = dict(kinds)
        self._added: dict[str, type[Strict]] = {}

    def add(self, name: str, document: type[Strict]) -> None:
        """Adds a kind; `graph.kinds.add_kind` calls this.

        Raises:
            ValueError: the name is taken, or the class has no such field.
        """
        if name in self.all:
            raise ValueError(f"layers: the name '{name}' is taken by {self.all[name].__name__}")
        if name not in document.model_fields:
            raise ValueError(f"layers: {document.__name__} needs a field '{name}'")
        self._added[name] = document

    @property
    def all(self) -> dict[str, type[Strict]]:
        """In the order in which a mapping with several of these keys is read: `{conv: 8, batch_norm: true}` is a conv."""
        return {**self._added, **self._kinds}

    def name_of(self, layer: Strict) -> str:
        """The key of a layer's kind."""
        return next(name for name, document in self.all.items() if type(layer) is document)

    def among(self, keys: Collection[Any]) -> list[str]:
        """The kinds that some keys name; imports an installed plug-in that promises one, if no other kind is meant."""
        present = [name for name in self.all if name in keys]
        if not present:
            for name, point in promised("layers").items():
                if name in keys:
                    import_promised(point, "layers", self._added)
                    return [name]
        return present

    def choose(self, data: Any) -> Strict:
        """Picks the layer class by its kind key, so that errors speak of that kind only."""
        if not isinstance(data, dict):
            if type(data) in self.all.values():
                return data
            raise faults("layer", [fault(f"received {show(data)}; allowed: a layer, such as {{conv: 64}}", data)])
        present = self.among(data)
        if not present:
            names = [*self.all, *promised("layers")]
            hint = next((h for key in data if (h := did_you_mean(key, names))), f"; allowed: {', '.join(names)}")
            keys = ", ".join(map(str, data)) or "nothing"
            raise faults("layer", [fault(f"no kind of layer among its keys ({keys}){hint}", data)])
        document = self.all[present[0]]
        stray = [other for other in present[1:] if other not in document.model_fields]
        if stray:
            message = f"one layer cannot be both '{present[0]}' and '{stray[0]}'; write two layers of a list"
            raise faults("layer", [fault(message, data, (stray[0],))])
        return document.model_validate(data)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        by_class = core_schema.wrap_serializer_function_ser_schema(
            lambda value, rest: rest(value), schema=core_schema.any_schema()
        )
        return core_schema.no_info_wrap_validator_function(
            lambda data, _: self.choose(data), handler(source), serialization=by_class
        )

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        own = handler(schema)
        return {"anyOf": [*own["anyOf"], *(handler(document.__pydantic_core_schema__) for document in self._added.values())]}


KINDS = LayerKinds(
    {
        "conv": Conv,
        "gated_conv": GatedConv,
        "dense": Dense,
        "residual": Residual,
        "branches": Branches,
        "max_pool": MaxPool,
        "avg_pool": AvgPool,
        "pool_to": PoolTo,
        "global_avg_pool": GlobalAvgPool,
        "flatten": Flatten,
        "dropout": Dropout,
        "random_crop": RandomCrop,
        "upsample": Upsample,
        "downsample": Downsample,
        "place_channels": PlaceChannels,
        "batch_norm": BatchNorm,
        "activation": Activation,
        "standardize": Standardize,
        "random_features": RandomFeatures,
        "rows": Rows,
    }
)


Layer: TypeAlias = Annotated[
    Conv
    | GatedConv
    | Dense
    | Residual
    | Branches
    | MaxPool
    | AvgPool
    | PoolTo
    | GlobalAvgPool
    | Flatten
    | Dropout
    | RandomCrop
    | Upsample
    | Downsample
    | PlaceChannels
    | BatchNorm
    | Activation
    | Standardize
    | RandomFeatures
    | Rows,
    KINDS,
]

Residual.model_rebuild()
Branches.model_rebuild()
