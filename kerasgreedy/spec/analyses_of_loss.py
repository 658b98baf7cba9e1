"""Settings of what is asked about the loss around and between networks. Imports no TensorFlow."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from kerasgreedy.spec.analysis_settings import ActsWith, BatchNorm, OfLoss
from kerasgreedy.spec.strict import Count, fault, faults


class Landscape(OfLoss):
    """Draw the loss around or between trained networks: surfaces, lines, paths of training.

    Directions are random and filter-normalised (Li et al. 2018): each filter has the norm of the weights' filter; biases and
    batch norm stay. Several runs are drawn side by side on one scale.
    """

    spreads: ClassVar[bool] = True

    acts_with: ClassVar[ActsWith] = {"seed": ("along", ("plane", "line"))}

    name: Literal["landscape"] = "landscape"
    along: Literal["plane", "line", "between", "path"] = Field(
        "plane",
        description="`plane`, two directions; `line`, one; `between`, the straight line from the first run to the second; "
        "`path`, the plane that holds most of the training path, of runs with `keep_checkpoints`",
    )
    points: Annotated[int, Field(ge=3, le=2001)] = Field(51, description="on each axis; odd but for `between` and `path`")
    span: Annotated[float, Field(gt=0, le=100)] | None = Field(
        None,
        description="how far out: of `plane` and `line` in units of the directions, default 1; of `between` and `path` beyond "
        "the ends, as a share of the way, default 0.5 and 0.2",
    )
    batch_norm: BatchNorm | None = Field(
        None,
        description="statistics: `moving`, as trained, or `reestimated` on training images at each point. Default: reestimated "
        "for `between` and `path`, else moving",
    )

    @model_validator(mode="after")
    def _has_statistics(self) -> "Landscape":
        if self.along == "between" and self.batch_norm == "moving":
            message = "received moving; between two networks there are no moving statistics of the weights; allowed: reestimated"
            raise faults("landscape", [fault(message, self.batch_norm, ("batch_norm",))])
        return self

    @model_validator(mode="after")
    def _has_a_centre(self) -> "Landscape":
        if self.along in ("plane", "line") and self.points % 2 == 0:
            message = f"received {self.points}; allowed: an odd number, so that the network itself is one of the points"
            raise faults("landscape", [fault(message, self.points, ("points",))])
        return self

    @property
    def reach(self) -> float:
        """The span as asked for, or the default."""
        return self.span or {"plane": 1.0, "line": 1.0, "between": 0.5, "path": 0.2}[self.along]

    @property
    def statistics(self) -> BatchNorm:
        """As asked for, or the default."""
        return self.batch_norm or ("reestimated" if self.along in ("between", "path") else "moving")


class Curvature(OfLoss):
    """Measure the Hessian of the loss: largest and smallest eigenvalue, trace, and how convex the loss is around."""

    acts_with: ClassVar[ActsWith] = {"span": ("surface", None)}

    name: Literal["curvature"] = "curvature"
    steps: Annotated[int, Field(ge=2, le=1000)] = Field(40, description="products with the Hessian, at most, for eigenvalues")
    tolerance: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.01, description="of an eigenvalue's error, as a share of the largest one"
    )
    draws: Annotated[int, Field(ge=0, le=1000)] = Field(10, description="random vectors for the trace; 0: no trace")
    batches: Annotated[int, Field(ge=1, le=100)] = Field(
        1, description="parts of the images; each is measured by itself, and mean and spread are given"
    )
    surface: Annotated[int, Field(ge=0, le=101)] = Field(
        0,
        description="also eigenvalues on a plane of so many points a side (odd): the share of it that is convex; 0: not",
    )
    span: Annotated[float, Field(gt=0, le=100)] = Field(1.0, description="of that plane, see landscape")

    @model_validator(mode="after")
    def _enough(self) -> "Curvature":
        if self.surface and (self.surface < 3 or self.surface % 2 == 0):
            message = (
                f"received {self.surface}; allowed: 0, or an odd number from 3, so that the network itself is one of the points"
            )
            raise faults("curvature", [fault(message, self.surface, ("surface",))])
        if self.examples < self.batches:
            raise faults(
                "curvature", [fault(f"received {self.examples}; allowed: batches ({self.batches}) or more", at=("examples",))]
            )
        return self


class Connect(OfLoss):
    """Look for a path of low loss between two trained networks.

    `string`: Freeman and Bruna (2017): where the straight line rises above the level, its highest point descends under it, and
    both halves are looked at likewise. `bezier`: Garipov et al. (2018): one bend in between, trained for a low mean loss.
    """

    acts_with: ClassVar[ActsWith] = {
        "seed": ("form", ("bezier",)),
        "beads": ("form", ("string",)),
    }

    name: Literal["connect"] = "connect"
    form: Literal["string", "bezier"] = Field("string", description="of the path")
    level: float | None = Field(None, description="the loss that the path may reach; default: twice that of the higher end")
    beads: Annotated[int, Field(ge=3, le=200)] = Field(20, description="of a string, at most, ends included")
    steps: Count = Field(200, description="of descent: for each bead at most, or of the bend in all")
    learning_rate: Annotated[float, Field(gt=0)] = Field(0.01, description="of the descent, with momentum 0.9")
    points: Annotated[int, Field(ge=3, le=201)] = Field(11, description="at which each piece of the path is measured")
