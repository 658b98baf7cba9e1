"""Objectives: what a head loses on an example."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from kerasgreedy.spec.doors import Choice, Door, Named


class OutputObjective(Named):
    """A loss of a head's outputs and the label alone: not of what the head stands on."""


class CrossEntropy(OutputObjective):
    """Cross entropy of the softmax of a head's outputs."""

    name: Literal["cross_entropy"] = Field("cross_entropy", description="write `cross_entropy`")


class SquaredError(OutputObjective):
    """Half the squared distance of a head's outputs from the one-hot label: 1/2 sum over classes of (f_c - y_c)^2.

    (Ergen and Pilanci's loss on one-hot targets, see the convex paper; outputs 0.1 for ten classes lose 0.45.)
    """

    name: Literal["squared_error"] = Field("squared_error", description="write `squared_error`")


OBJECTIVES = Door(
    "objectives",
    [
        Choice("kerasgreedy.nn.objectives:CrossEntropyLoss", CrossEntropy),
        Choice("kerasgreedy.nn.objectives:SquaredErrorLoss", SquaredError),
    ],
)
Objective: TypeAlias = Annotated[Named, OBJECTIVES]
