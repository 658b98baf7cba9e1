"""A plug-in that adds an objective: the squared hinge of each class's margin, and the mean square of the block's output."""

from typing import Literal

from pydantic import Field

from kerasgreedy.spec.doors import Choice, Named
from kerasgreedy.spec.objective_settings import OBJECTIVES


class Margin(Named):
    """Squared hinge, one class against all others."""

    name: Literal["margin"] = Field("margin", description="write `margin`")
    by: float = Field(1.0, gt=0, description="margin")
    activity: float = Field(0.0, ge=0, description="weight of the mean square of the block's output")


OBJECTIVES.add_settings(Choice("margin_loss:MarginLoss", Margin))
