"""Sparsity schedules with TFMOT's names and meanings (`tfmot.sparsity.keras`). Imports no TensorFlow.

What a step is, says who uses a schedule: a training step, or a round of pruning.
"""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, ValidationError, model_validator

from kerasgreedy.errors import InputError, did_you_mean
from kerasgreedy.spec.doors import Choice, Door, Named
from kerasgreedy.spec.strict import fault, faults, message_of, show

Share: TypeAlias = Annotated[float, Field(ge=0, lt=1)]
Step: TypeAlias = Annotated[int, Field(ge=0)]
Frequency: TypeAlias = Annotated[int, Field(ge=1)]


class ConstantSparsity(Named):
    """The same sparsity at every active step: each `frequency`-th from `begin_step` to `end_step`."""

    name: Literal["constant_sparsity"] = Field(description="write `constant_sparsity`")
    target_sparsity: Share = Field(description="share that is pruned")
    begin_step: Step = Field(description="first active step")
    end_step: int = Field(-1, ge=-1, description="no step after it is active; -1: no end")
    frequency: Frequency = Field(100, description="steps from one active step to the next")

    @model_validator(mode="after")
    def _in_order(self) -> "ConstantSparsity":
        if -1 < self.end_step < self.begin_step:
            message = f"received {self.end_step}; allowed: -1, or {self.begin_step} (begin_step) and more"
            raise faults("ConstantSparsity", [fault(message, at=("end_step",))])
        return self

    def __call__(self, step: int) -> tuple[bool, float]:
        """Whether the step is active, and the sparsity, which comes even when it is not."""
        return _active(self, step), self.target_sparsity

    @property
    def last_change(self) -> int:
        """The step from which on the sparsity that is in force stays the same."""
        return self.begin_step

    @property
    def final(self) -> float:
        """The sparsity in force at the end."""
        return self.target_sparsity

    def __str__(self) -> str:
        return f"constant {self.target_sparsity:g} from step {self.begin_step}"


class PolynomialDecay(Named):
    """The sparsity goes from `initial_sparsity` to `final_sparsity` between two steps, fast at first (Zhu and Gupta 2017).

    s(t) = final + (initial - final) * (1 - p)^power with p = (t - begin_step) / (end_step - begin_step), kept within 0 and 1.
    Active is each `frequency`-th step from `begin_step` to `end_step`.
    """

    name: Literal["polynomial_decay"] = Field(description="write `polynomial_decay`")
    initial_sparsity: Share = Field(description="share that is pruned at the first active step")
    final_sparsity: Share = Field(description="share that is pruned from `end_step` on")
    begin_step: Step = Field(description="first active step")
    end_step: Step = Field(description="no step after it is active")
    power: float = Field(3, gt=0, description="the larger, the more is pruned early")
    frequency: Frequency = Field(100, description="steps from one active step to the next")

    @model_validator(mode="after")
    def _in_order(self) -> "PolynomialDecay":
        # TFMOT takes equal steps too, and divides by zero then.
        if self.end_step <= self.begin_step:
            message = f"received {self.end_step}; allowed: more than {self.begin_step} (begin_step)"
            raise faults("PolynomialDecay", [fault(message, at=("end_step",))])
        return self

    def __call__(self, step: int) -> tuple[bool, float]:
        """Whether the step is active, and the sparsity, which comes even when it is not."""
        p = min(max((step - self.begin_step) / (self.end_step - self.begin_step), 0.0), 1.0)
        return _active(self, step), self.final_sparsity + (self.initial_sparsity - self.final_sparsity) * (1 - p) ** self.power

    @property
    def last_change(self) -> int:
        """The last active step: what it puts in force stays."""
        return self.end_step - (self.end_step - self.begin_step) % self.frequency

    @property
    def final(self) -> float:
        """The sparsity in force at the end; below `final_sparsity` where `end_step` is not an active step."""
        return self(self.last_change)[1]

    def __str__(self) -> str:
        shares = f"{self.initial_sparsity:g} to {self.final_sparsity:g}"
        return f"{shares} over steps {self.begin_step} to {self.end_step}, every {self.frequency}, power {self.power:g}"


_CHOICES: dict[str, type[ConstantSparsity] | type[PolynomialDecay]] = {
    "constant_sparsity": ConstantSparsity,
    "polynomial_decay": PolynomialDecay,
}
SparsitySchedule: TypeAlias = Annotated[
    ConstantSparsity | PolynomialDecay,
    Door("sparsity_schedules", [Choice(f"{__name__}:{cls.__name__}", cls) for cls in _CHOICES.values()]),
]


def check_rises(title: str, schedule: ConstantSparsity | PolynomialDecay) -> None:
    """Refuses a schedule, found under `schedule`, that prunes nothing, gives pruned things back, or misses its end.

    Raises:
        ValidationError: at its key.
    """
    if isinstance(schedule, ConstantSparsity):
        if not schedule.target_sparsity:
            raise faults(title, [fault("received 0; nothing would be pruned", at=("schedule", "target_sparsity"))])
        return
    if not schedule.final_sparsity:
        raise faults(title, [fault("received 0; nothing would be pruned", at=("schedule", "final_sparsity"))])
    if schedule.initial_sparsity > schedule.final_sparsity:
        message = f"received {schedule.final_sparsity}; allowed: {schedule.initial_sparsity} (initial_sparsity) and more"
        raise faults(title, [fault(message, at=("schedule", "final_sparsity"))])
    if schedule.last_change != schedule.end_step:
        message = (
            f"received {schedule.end_step}; the last active step would be {schedule.last_change}, with a sparsity of "
            f"{schedule.final:.4g}; allowed: begin_step and a multiple of frequency ({schedule.frequency})"
        )
        raise faults(title, [fault(message, at=("schedule", "end_step"))])


def from_tfmot(schedule: Any) -> ConstantSparsity | PolynomialDecay:
    """Our schedule for one of TFMOT's, known by what its `get_config()` says; ours come back as they are.

    Raises:
        InputError: it is none of the two, or cannot be used.
    """
    if isinstance(schedule, ConstantSparsity | PolynomialDecay):
        return schedule
    ours = {cls.__name__: (name, cls) for name, cls in _CHOICES.items()}
    try:
        described = schedule.get_config()
        kind, values = str(described["class_name"]), dict(described["config"])
    except (AttributeError, KeyError, TypeError, ValueError, NotImplementedError):
        message = f"sparsity schedule: received {show(schedule)}; allowed: tfmot.sparsity.keras.{' or '.join(ours)}"
        raise InputError(message) from None
    if kind not in ours:
        raise InputError(f"sparsity schedule: received {kind}; allowed: {', '.join(ours)}{did_you_mean(kind, ours)}")
    name, cls = ours[kind]
    try:
        return cls.model_validate({"name": name, **values})
    except ValidationError as error:
        lines = (f"{'.'.join(map(str, line['loc']))}: {message_of(line)}" for line in error.errors(include_url=False))
        raise InputError(f"sparsity schedule {kind}: {'; '.join(lines)}") from None


def _active(schedule: ConstantSparsity | PolynomialDecay, step: int) -> bool:
    within = step >= schedule.begin_step and (step <= schedule.end_step or schedule.end_step < 0)
    return within and (step - schedule.begin_step) % schedule.frequency == 0
