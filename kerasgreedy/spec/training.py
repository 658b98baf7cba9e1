"""How a phase is trained: optimiser, schedule, what is kept."""

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import InitErrorDetails

from kerasgreedy.spec.doors import Choice, Door, Named
from kerasgreedy.spec.objective_settings import CrossEntropy, Objective
from kerasgreedy.spec.regularizers import Penalty
from kerasgreedy.spec.solver_settings import Alternation, Descent, Solver
from kerasgreedy.spec.strict import Count, Strict, fault, faults, show

Monitor: TypeAlias = Literal["validation_accuracy", "validation_loss", "train_loss"]


_COUPLED = "coupled L2 on every trained weight: adds decay * w to the gradient"


class OptimizerSettings(Named):
    """Of an optimiser of Keras's, by the names of its arguments.

    Attributes:
        coupled: whether weight decay is added to the gradient; else the optimiser takes it from the weights itself.
    """

    coupled: ClassVar[bool] = True
    if TYPE_CHECKING:
        weight_decay: float

    @property
    def coupled_decay(self) -> float:
        """What is added to the gradient, in parts of the weight."""
        return self.weight_decay if self.coupled else 0.0


class Sgd(OptimizerSettings):
    """Stochastic gradient descent."""

    name: Literal["sgd"] = Field("sgd", description="write `sgd`")
    learning_rate: float = Field(0.1, gt=0, le=1e38, description="at the start of a phase, after the warm-up")
    momentum: float = Field(0.9, ge=0, lt=1, description="share of the old velocity that is kept")
    nesterov: bool = Field(False, description="look-ahead momentum")
    momentum_form: Literal["keras", "pytorch"] = Field(
        "keras",
        description="what the velocity holds: `keras`, steps at the rate that they were taken with, v <- m v - r g, w <- w + v; "
        "`pytorch`, gradients, v <- m v + g, w <- w - r v, so that a rate that drops acts at once, as in the papers' framework",
    )
    weight_decay: float = Field(0.0, ge=0, description=_COUPLED)


class Moments(OptimizerSettings):
    """What Adam and AdamW share."""

    learning_rate: float = Field(1e-3, gt=0, le=1e38, description="at the start of a phase, after the warm-up")
    beta_1: float = Field(0.9, ge=0, lt=1, description="of the first moment")
    beta_2: float = Field(0.999, ge=0, lt=1, description="of the second moment")
    epsilon: float = Field(1e-7, gt=0, description="added to the root of the second moment")


class Adam(Moments):
    """Adam."""

    name: Literal["adam"] = Field(description="write `adam`")
    weight_decay: float = Field(0.0, ge=0, description=_COUPLED)


class AdamW(Moments):
    """Adam whose weight decay does not go through its moments (Loshchilov and Hutter 2019)."""

    coupled: ClassVar[bool] = False

    name: Literal["adamw"] = Field(description="write `adamw`")
    weight_decay: float = Field(0.004, ge=0, description="decoupled: each step takes rate * decay * w from every trained weight")


class RmsProp(OptimizerSettings):
    """RMSprop."""

    name: Literal["rmsprop"] = Field(description="write `rmsprop`")
    learning_rate: float = Field(1e-3, gt=0, le=1e38, description="at the start of a phase, after the warm-up")
    rho: float = Field(0.9, ge=0, lt=1, description="share of the old mean square that is kept")
    momentum: float = Field(0.0, ge=0, lt=1, description="share of the old velocity that is kept")
    epsilon: float = Field(1e-7, gt=0, description="added to the mean square")
    centered: bool = Field(False, description="divide by the deviation instead of the root of the mean square")
    weight_decay: float = Field(0.0, ge=0, description=_COUPLED)


class ConstantSchedule(Named):
    """The learning rate stays."""

    name: Literal["constant"] = Field("constant", description="write `constant`")
    warmup_epochs: float = Field(0, ge=0, description="the rate rises linearly from 0 during these epochs")


class StepSchedule(Named):
    """The learning rate is multiplied by `factor` again and again: after every `every` epochs, or after each epoch of `at`."""

    name: Literal["step"] = Field(description="write `step`")
    factor: float = Field(gt=0, le=1, description="CIFAR: 0.2, ImageNet: 0.1")
    every: Count | None = Field(None, description="epochs; CIFAR: 15, ImageNet: 20; this or `at`")
    at: Annotated[list[Count], Field(min_length=1)] | None = Field(
        None,
        validate_default=True,
        description="after so many epochs, in rising order: `[200, 250, 300]`; those past the end of the phase never come",
    )
    warmup_epochs: float = Field(0, ge=0, description="the rate rises linearly from 0 during these epochs")

    @field_validator("at")
    @classmethod
    def _every_or_at(cls, at: list[int] | None, info: ValidationInfo) -> list[int] | None:
        if "every" not in info.data:
            return at  # it has an error of its own
        every = info.data["every"]
        if every is not None and at is not None:
            raise ValueError("'every' and 'at' exclude each other; leave one out, or set it to null")
        if every is None and at is None:
            raise ValueError("required key is missing: 'every' (a number of epochs), or 'at' (a list of them)")
        if at and any(one >= two for one, two in pairwise(at)):
            raise ValueError(f"received {show(at)}; allowed: epochs in rising order")
        return at


class CosineSchedule(Named):
    """The learning rate falls along half a cosine to `final` times its start."""

    name: Literal["cosine"] = Field(description="write `cosine`")
    final: float = Field(0.0, ge=0, le=1, description="share of the first rate at the end")
    warmup_epochs: float = Field(0, ge=0, description="the rate rises linearly from 0 during these epochs")


_OPTIMIZERS = [
    Choice("kerasgreedy.nn.momentum:MomentumSGD", Sgd),
    Choice("keras.optimizers:Adam", Adam),
    Choice("keras.optimizers:AdamW", AdamW),
    Choice("keras.optimizers:RMSprop", RmsProp),
]
OPTIMIZERS = Door("optimizers", _OPTIMIZERS)
Optimizer: TypeAlias = Annotated[Sgd | Adam | AdamW | RmsProp, OPTIMIZERS]
_RATES = "kerasgreedy.solvers.schedules:learning_rates"
Schedule: TypeAlias = Annotated[
    ConstantSchedule | StepSchedule | CosineSchedule,
    Door("schedules", [Choice(_RATES, cls) for cls in (ConstantSchedule, StepSchedule, CosineSchedule)]),
]


class Training(Strict):
    """One phase of training; every phase of the plan uses it."""

    epochs: Count = Field(description="passes over the training data in each phase")
    batch_size: Count = Field(128, description="images of one step, over all devices together")
    accumulation: Count = Field(
        1,
        description="the batch goes through in so many equal parts before one update: less memory, the same gradient "
        "(batch norm sees a part at a time)",
    )
    optimizer: Optimizer = Field(default_factory=Sgd, description="`sgd`, `adam`, `adamw` or `rmsprop`, see below")
    schedule: Schedule = Field(default_factory=ConstantSchedule, description="`constant`, `step` or `cosine`, see below")
    solver: Solver = Field(default_factory=Descent, description="`sgd`, `alternation` or `fista`, see below")
    objective: Objective = Field(
        default_factory=CrossEntropy,
        description="what heads lose on an example: `cross_entropy`, `squared_error` (of the one-hot label), or a plug-in's",
    )
    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0, le=1e6)]] | None = Field(
        None,
        description="factors of the loss of training images by class: `{cat: 2.0}`, 1 for the others; `balanced`: images / "
        "(classes * images of the class), so that small classes count as much as large ones. Reported figures have none",
    )
    head_objectives: dict[str, Objective] = Field(
        default_factory=dict, description="objectives of heads that have another one: `{head_1: squared_error}`"
    )
    clip_norm: float | None = Field(
        None,
        gt=0,
        description="scale the gradient of a step down to this l2 norm, taken over all that trains, where it is longer; of the "
        "global batch, weight decay included",
    )
    regularizers: list[Penalty] = Field(
        default_factory=list, description="penalties on kernels, added to the loss: `l2`, `l1`, `group_lasso`, or a plug-in's"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread evenly over all classes")
    keep: Literal["best", "last"] = Field("last", description="which point of its path a phase ends with")
    monitor: Monitor = Field(
        "validation_accuracy",
        description="what `keep: best` and early stopping look at; with several heads, the deepest one's. `train_loss`, the loss "
        "of all training images in inference mode, is measured for these two only",
    )
    early_stopping: Count | None = Field(None, description="end a phase after so many epochs without a better point")
    init: Literal["fresh", "identity"] = Field(
        "fresh", description="`identity`: a block starts as the identity with the previous head's weights (greedy, Prop. 3.1)"
    )

    @model_validator(mode="after")
    def _equal_parts(self) -> "Training":
        if self.batch_size % self.accumulation:
            message = f"received {self.accumulation}; batch_size {self.batch_size} cannot be divided by it"
            raise faults("Training", [fault(message, at=("accumulation",))])
        return self

    @model_validator(mode="after")
    def _masked_epochs(self) -> "Training":
        if unmasked(self):
            raise faults("Training", unmasked(self))
        return self

    def objective_of(self, head: str) -> Named:
        """The settings of a head's objective."""
        return self.head_objectives.get(head, self.objective)

    @property
    def watches(self) -> bool:
        """Whether the monitored figure decides anything."""
        return self.keep == "best" or self.early_stopping is not None


def unmasked(training: Training, at: tuple[str, ...] = ()) -> list[InitErrorDetails]:
    """A line when the warm-up of solver `alternation` takes all epochs; `at` is where the training stands."""
    solver = training.solver
    if not isinstance(solver, Alternation) or solver.unmasked_epochs < training.epochs:
        return []
    given = "warm_up_epochs" in solver.model_fields_set
    said = f"received {solver.warm_up_epochs}" if given else f"warm_up_epochs is {solver.warm_up_epochs} where it is left out"
    records = " and one that records them" if solver.estimate == "live_epoch" else ""
    message = f"{said}{records}; of {training.epochs} epochs none would be left for masks"
    return [fault(message, at=(*at, "solver", "warm_up_epochs"))]


def unwarmed(training: Training, at: tuple[str, ...] = ()) -> list[InitErrorDetails]:
    """A line when the learning rate would not come to its height within the phase; `at` is where the training stands."""
    if training.schedule.warmup_epochs <= training.epochs:
        return []
    message = (
        f"received a warm-up of {training.schedule.warmup_epochs:g} epochs; the phase has {training.epochs}; allowed: up to these"
    )
    return [fault(message, at=(*at, "schedule", "warmup_epochs"))]


class TrainingChanges(Strict):
    """How a phase differs from the recipe's `training`; keys left out are as there."""

    epochs: Count | None = Field(None, description="passes over the training data")
    batch_size: Count | None = Field(None, description="images of one step, over all devices together")
    optimizer: Optimizer | None = Field(
        None, description="`sgd`, `adam`, `adamw` or `rmsprop`, a whole one: its keys that are left out have their defaults"
    )
    schedule: Schedule | None = Field(None, description="`constant`, `step` or `cosine`, a whole one")
    solver: Solver | None = Field(None, description="`sgd` (the default here), `alternation` or `fista`")
    objective: Objective | None = Field(None, description="what heads lose on an example, see `training`")
    clip_norm: float | None = Field(None, gt=0, description="longest gradient, see `training`")
    regularizers: list[Penalty] | None = Field(None, description="penalties on kernels, in the place of those of `training`")
    label_smoothing: float | None = Field(None, ge=0, lt=1, description="share of the target spread evenly over all classes")
    keep: Literal["best", "last"] | None = Field(None, description="which point of its path the phase ends with")
    early_stopping: Count | None = Field(None, description="end the phase after so many epochs without a better point")

    def over(self, training: Training) -> Training:
        """`training` with what is given here.

        Such a phase goes on with trained weights: a block never starts as the identity in it, and its solver is plain unless it
        names one itself.
        """
        return training.model_copy(update={"init": "fresh", "solver": Descent(), **self._given()})

    def _given(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in TrainingChanges.model_fields if getattr(self, key) is not None}


class PhaseChanges(TrainingChanges):
    """How one of the strategy's own phases differs from `training`; keys left out are as there."""

    solver: Solver | None = Field(None, description="`sgd`, `averaged`, `alternation` or `fista`, a whole one")

    def over(self, training: Training) -> Training:
        """`training` with what is given here."""
        return training.model_copy(update=self._given())
