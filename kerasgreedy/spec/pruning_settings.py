"""The recipe's sections `prune` and `replace_head`: how filters are removed between phases."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from kerasgreedy.spec.doors import Choice, Names
from kerasgreedy.spec.model import Head
from kerasgreedy.spec.sparsity import SparsitySchedule, check_rises
from kerasgreedy.spec.strict import Count, Strict, fault, faults, show
from kerasgreedy.spec.training import Training, TrainingChanges

if TYPE_CHECKING:
    from pydantic_core import InitErrorDetails

_HERE = "kerasgreedy.pruning.importance"
_CRITERIA = (
    "taylor_activation", "taylor_weight", "magnitude_l1", "magnitude_l2", "batch_norm_scale", "mean_activation", "apoz", "random",
)  # fmt: skip
IMPORTANCES = Names("importances", {name: Choice(f"{_HERE}:{name}") for name in _CRITERIA})
Criterion: TypeAlias = Annotated[str, IMPORTANCES]
AMOUNTS = ("keep", "multiply_adds", "accuracy_drop", "schedule", "zeros")


def share_or(what: str) -> BeforeValidator:
    """Takes a share, or a whole number."""

    def check(value: Any) -> Any:
        whole = type(value) is int and value >= 1
        if not whole and not (type(value) is float and 0 < value < 1):
            raise ValueError(f"received {show(value)}; allowed: a share above 0 and below 1, or a whole number of {what} from 1")
        return value

    return BeforeValidator(check, json_schema_input_type=Annotated[float, Field(gt=0, lt=1)] | Count)


class FineTune(TrainingChanges):
    """Training after each removal; keys left out are those of `training`."""

    trains: Literal["head", "all"] | None = Field(
        None,
        description="`head`: the heads with a loss, blocks stay as they are; `all`: what was pruned as well (strategies with "
        "one phase, and `compress`: the whole network); default: `head` for greedy, else `all`",
    )


class Prune(Strict):
    """Removes the filters of least importance: greedy, after each block's phase; other strategies, after training.

    Exactly one of `keep`, `multiply_adds`, `accuracy_drop`, `schedule` and `zeros` says how much. Removal is real: the layers,
    their batch norms, heads and the input of what follows shrink, and the outputs are those of the network with these channels
    silent.
    """

    keep: Annotated[int | float, share_or("filters")] | None = Field(
        None, description="a share of the filters of each layer, or a whole number: so many of each layer"
    )
    multiply_adds: Annotated[int | float, share_or("multiply-adds")] | None = Field(
        None,
        description="a share of the multiply-adds of an image through blocks and last head, or their number; greedy: of each "
        "block",
    )
    accuracy_drop: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="as much as costs at most this much accuracy on validation data (0.01: one point) before fine-tuning; "
        "tried in steps of a twentieth",
    )
    schedule: SparsitySchedule | None = Field(
        None,
        description="`polynomial_decay` or `constant_sparsity`: the share of filters that is gone after each round; the step of "
        "the schedule is the round, counted from 1",
    )
    zeros: Literal[True] | None = Field(
        None,
        description="`true`: what has importance 0, exactly: with `magnitude_l2`, the filters that a proximal regularizer has "
        "set to zero; of fixed gates, those that no filter stands behind",
    )
    rounds: Count = Field(1, description="remove and fine-tune so many times, in equal parts; a schedule has its own rounds")
    importance: Criterion = Field("taylor_activation", description="which filters are weak, see [pruning.md](pruning.md)")
    ranking: Literal["layer", "global"] = Field(
        "layer",
        description="`layer`: every layer loses the same share; `global`: the weakest of all go, scores of each layer divided by "
        "their l2 norm",
    )
    images: Count | None = Field(
        None, description="training images that importance is measured on, drawn by the seed; default: all"
    )
    components: list[str] | None = Field(
        None,
        min_length=1,
        description="names of blocks and heads that lose filters; default: greedy, all blocks; else all blocks and the heads "
        "with a loss",
    )
    heads: Literal["last", "all"] | None = Field(
        None, description="strategy `compress`: the heads that have a loss, in importance and fine-tuning; default: `last`"
    )
    fine_tune: FineTune | None = Field(None, description="training after each round, see below; left out: none")

    @property
    def progress(self) -> tuple[float, ...]:
        """The share of the way that is done after each round, 1 at the end."""
        if self.schedule is None:
            return tuple((i + 1) / self.rounds for i in range(self.rounds))
        schedule = self.schedule
        # A round counts where the schedule is active and something more goes.
        last = max(schedule.last_change, 1)
        values = [schedule(i)[1] for i in range(1, last + 1) if schedule(i)[0] or i == last]
        rising = [value for before, value in zip([0.0, *values], values, strict=False) if value > before]
        return tuple(value / rising[-1] for value in rising)

    @property
    def share_kept(self) -> float | None:
        """The share of the filters that stay in the end, where that is how the amount is given."""
        if self.schedule is not None:
            return 1 - self.schedule(max(self.schedule.last_change, 1))[1]
        return self.keep if isinstance(self.keep, float) else None

    @model_validator(mode="after")
    def _one_amount(self) -> "Prune":
        given = [key for key in AMOUNTS if getattr(self, key) is not None]
        if len(given) != 1:
            what = f"received {' and '.join(given)}" if given else "nothing says how much is removed"
            raise faults("Prune", [fault(f"{what}; give one of {', '.join(AMOUNTS)}", at=(given[1],) if given else ())])
        if self.schedule is not None and self.rounds > 1:
            raise faults("Prune", [fault("a schedule has its own rounds; leave it out", at=("rounds",))])
        if self.schedule is not None:
            check_rises("Prune", self.schedule)
            if self.schedule.last_change < 1 and self.schedule.name == "polynomial_decay":
                message = f"frequency {self.schedule.frequency} makes no round from 1 on active"
                raise faults("Prune", [fault(message, at=("schedule", "frequency"))])
        if isinstance(self.keep, int) and self.ranking == "global":
            message = (
                "'global' ranks filters across layers, so a number for each layer leaves nothing to rank; give a share in keep"
            )
            raise faults("Prune", [fault(message, at=("ranking",))])
        if (self.accuracy_drop is not None or self.zeros) and self.rounds > 1:
            amount = "zeros" if self.zeros else "accuracy_drop"
            raise faults("Prune", [fault(f"{amount} says how far one round goes; leave it out", at=("rounds",))])
        return self


class ReplaceHead(Strict):
    """The last head is thrown away in the end, and another is trained on the frozen blocks (greedy, section 4.3: width M_f)."""

    head: Head = Field(description="keys left out are those of the present head")
    training: TrainingChanges = Field(
        default_factory=TrainingChanges, description="what its phase does otherwise than `training`"
    )


def indivisible(training: Training, at: tuple[str, ...]) -> "list[InitErrorDetails]":
    """A line when the batch cannot be divided into the parts of `accumulation`."""
    if training.batch_size % training.accumulation == 0:
        return []
    message = f"received {training.batch_size}; it cannot be divided by training.accumulation {training.accumulation}"
    return [fault(message, at=at)]
