"""The model spec: what the network is. No training setting lives here."""

import re
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from kerasgreedy.errors import did_you_mean
from kerasgreedy.spec.block_defaults import ActivationName, BlockDefaults
from kerasgreedy.spec.layers import KINDS, Layer
from kerasgreedy.spec.strict import Count, Strict, fault, faults, show

MOST_BLOCKS = 10_000  # a slip of the finger in `repeat` must not fill the memory
Name: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


def _shape(value: Any) -> Any:
    if not isinstance(value, list) or len(value) != 3 or not all(type(size) is int and 0 < size <= 65536 for size in value):
        raise ValueError(f"received {show(value)}; allowed: [height, width, channels], whole numbers from 1 to 65536")
    return value


def _width(value: Any) -> Any:
    if isinstance(value, list) and value and all(type(size) is int and 0 < size <= 1_000_000 for size in value):
        return value
    relative = isinstance(value, str) and re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?x", value) and float(value[:-1]) > 0
    if not relative and type(value) is not int:
        raise ValueError(
            f"received {show(value)}; allowed: a positive whole number, a multiple of the block's width such as 2x, "
            "or a list with a number for each hidden layer"
        )
    return value


Shape: TypeAlias = Annotated[list[Count], BeforeValidator(_shape), Field(min_length=3, max_length=3)]
Multiple: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,3}(\.[0-9]{1,6})?x$")]
Width: TypeAlias = Annotated[
    Count | str | list[Count], BeforeValidator(_width, json_schema_input_type=Count | Multiple | list[Count])
]


class Head(Strict):
    """A classifier on top of a block (greedy, eq. 2): k-1 hidden convolutions, mean to n x n, linear."""

    hidden_layers: Annotated[int, Field(ge=0, le=1000)] = Field(0, description="k - 1 hidden 3x3 convolutions of constant width")
    width: Width = Field("1x", description="filters of the hidden layers: a number, `2x` the channels of the block, or a list")
    input_pool: Count = Field(1, description="mean over windows of this size before anything else (VGG-11: 2)")
    pool_to: Count = Field(2, description="spatial mean to n x n before the linear layer")
    batch_norm: bool = Field(False, description="after every hidden convolution")
    pooled_batch_norm: bool | None = Field(None, description="after the spatial mean; default: as `batch_norm`")
    layers: list[Layer] | None = Field(None, description="the head's layers in full, instead of the keys above")
    class_maps: ActivationName | None = Field(
        None,
        description="beside `layers`, which then end in a map (`[]`: the block's own): instead of the linear layer a 1x1 "
        "convolution to one map for each class, this activation (`linear`: none), and the mean over all places",
    )

    @model_validator(mode="after")
    def _one_form(self) -> "Head":
        others = [key for key in ("hidden_layers", "width", "input_pool", "pool_to", "batch_norm", "pooled_batch_norm")
                  if key in self.model_fields_set]  # fmt: skip
        if self.layers is not None and others:
            message = f"'layers' describes the whole head and cannot stand beside {', '.join(repr(o) for o in others)}"
            raise faults("Head", [fault(message, at=("layers",))])
        if self.class_maps is not None and self.layers is None:
            message = "'class_maps' needs 'layers' beside it, the head's layers before the maps; layers: [] for none"
            raise faults("Head", [fault(message, at=("class_maps",))])
        return self

    @property
    def k(self) -> int | None:
        """Layers solved in one auxiliary problem: the block and the hidden layers; None when given as `layers`."""
        return None if self.layers is not None else self.hidden_layers + 1


def _as_block(data: Any) -> Any:
    """A lone layer or a list of layers is a block without options."""
    if isinstance(data, list):
        return {"layers": data}
    if not isinstance(data, dict | Block):
        what = "a layer such as {conv: 64}, a list of layers, or a mapping with 'layers'"
        raise ValueError(f"received {show(data)}; allowed: {what}")
    if isinstance(data, dict) and not set(data) & {"layers", "repeat"}:
        options = KINDS.among(data) and set(data) & {"head", "name"}
        if options:
            option = min(options)
            raise faults("Block", [fault(f"'{option}' belongs to a block: write {{layers: [...], {option}: ...}}", at=(option,))])
        misspelt = not KINDS.among(data) and any(did_you_mean(key, Block.model_fields) for key in data)
        return data if misspelt else {"layers": [data]}
    return data


class Block(Strict):
    """One unit of layerwise training: a list of layers, with options."""

    layers: list[Layer] = Field(min_length=1, description="run one after the other")
    name: Name | None = Field(None, description="default: `block_` and its number")
    repeat: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="this many blocks of the same layers, each with weights of its own"
    )
    head: Head | None = Field(None, description="its own head; keys left out are those of `auxiliary_head`")


class Nominal(Strict):
    """The input and classes that `summary` counts with where they are left to the data set."""

    input_shape: Shape | None = Field(None, description="height, width, channels")
    classes: Annotated[int, Field(ge=2, le=1_000_000)] | None = Field(None, description="number of classes")


class ModelSpec(Strict):
    """A network: blocks that are trained one after the other, and a head for each."""

    name: Name = Field(description="names the run folder and the reports")
    description: str | None = Field(None, description="one line for people")
    input_shape: Shape | None = Field(None, description="height, width, channels; left out: the data set's")
    classes: Annotated[int, Field(ge=2, le=1_000_000)] | None = Field(None, description="left out: the data set's")
    nominal: Nominal | None = Field(None, description="for counting when `input_shape` or `classes` is left out")
    block_defaults: BlockDefaults = Field(default_factory=BlockDefaults, description="see below")
    blocks: list[Annotated[Block, BeforeValidator(_as_block, json_schema_input_type=Layer | list[Layer] | Block)]] = Field(
        min_length=1, description="a layer, a list of layers, or a mapping with `layers`"
    )
    auxiliary_head: Head = Field(default_factory=Head, description="the head of every block but the last")
    final_head: Head | None = Field(None, description="the head of the last block; keys left out are those of `auxiliary_head`")

    @model_validator(mode="after")
    def _one_final_head(self) -> "ModelSpec":
        if self.final_head is not None and self.blocks[-1].head is not None and self.blocks[-1].repeat == 1:
            last = len(self.blocks) - 1
            raise faults("ModelSpec", [fault("the last block's head is 'final_head'; give one", at=("blocks", last, "head"))])
        count = sum(block.repeat for block in self.blocks)
        if count > MOST_BLOCKS:
            raise faults(
                "ModelSpec", [fault(f"{count:,} blocks, repeated ones included; allowed: {MOST_BLOCKS:,}", at=("blocks",))]
            )
        names = [block.name for block in self.blocks if block.name]
        for index, block in enumerate(self.blocks):
            if block.name and names.count(block.name) > 1:
                raise faults("ModelSpec", [fault(f"name '{block.name}' is given twice", at=("blocks", index, "name"))])
        return self


def merged_head(base: Head, own: Head | None) -> Head:
    """`own` over `base`; a head given as `layers` stands alone."""
    if own is None:
        return base
    if own.layers is not None or base.layers is not None:
        return own
    given = {key: getattr(own, key) for key in own.model_fields_set}
    return base.model_copy(update=given)
