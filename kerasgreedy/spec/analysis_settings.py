"""What settings of all analyses have in common. Imports no TensorFlow.

Every field is an option of the command of that name, and a keyword in Python.
"""

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, model_validator

from kerasgreedy.spec.doors import Named
from kerasgreedy.spec.strict import Count, fault, faults

Part: TypeAlias = Literal["train", "validation", "test"]
Seed: TypeAlias = Annotated[int, Field(ge=0, le=2**31)]
# Option -> another one, and the values of that with which it acts; None: any that is neither empty nor 0.
ActsWith: TypeAlias = dict[str, tuple[str, tuple[str, ...] | None]]
BatchNorm: TypeAlias = Literal["moving", "reestimated"]


class AnalysisSettings(Named):
    """What every analysis of runs takes.

    Attributes:
        spreads: it works on several devices at once.
        acts_with: options that act only beside others.
    """

    spreads: ClassVar[bool] = False
    acts_with: ClassVar[ActsWith] = {}

    depth: Annotated[int, Field(ge=1)] | None = Field(None, description="of the head, from 1; default: the deepest trained one")

    @model_validator(mode="after")
    def _all_act(self) -> "AnalysisSettings":
        """Refuses what was said and would be ignored."""
        for key in sorted(self.model_fields_set & set(self.acts_with)):
            other, values = self.acts_with[key]
            there = getattr(self, other)
            acts = bool(there) if values is None else bool(set(there if isinstance(there, list) else [there]) & set(values))
            if not acts:
                option = f"--{other.rstrip('_').replace('_', '-')}"
                needed = f"{option} {' or '.join(values)}" if values else option
                raise faults(self.name, [fault(f"acts with {needed} only; leave it out", getattr(self, key), (key,))])
        return self


class Drawn(AnalysisSettings):
    """What analyses take that draw something at random."""

    seed: Seed = Field(0, description="of what is drawn at random here")


class OfLoss(Drawn):
    """What analyses of the loss take."""

    part: Part = Field("train", description="of the data set that images are from")
    examples: Count = Field(1000, description="images, drawn by the run's seed")
