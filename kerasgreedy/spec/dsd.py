"""Dense, sparse, dense training (Han et al. 2017; with alternation: the support paper, section 4.2): settings of its phases."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from kerasgreedy.spec.solver_settings import Alternation
from kerasgreedy.spec.sparsity import ConstantSparsity, PolynomialDecay, SparsitySchedule, check_rises
from kerasgreedy.spec.strict import Strict, fault, faults
from kerasgreedy.spec.training import Training, TrainingChanges

# Han et al. 2017: the last phase trains at a tenth of the first rate.
DENSE_RATE = 0.1
Pruned: TypeAlias = Annotated[float, Field(gt=0, lt=1)]


class Dsd(Strict):
    """What is pruned in the sparse phase of strategy `dsd`, and how its second and third phase are trained.

    Steps of `schedule` are training steps of the sparse phase, the first is 0; where one is active, masks are chosen anew before
    it. With `keep: best` a point of the sparse phase counts only when the schedule has reached its final sparsity.

    With `sparse.solver: {name: alternation, ...}` no sparsity is set: what the phase's first masks leave unused is pruned, as
    `unused` reads it.
    """

    sparsity: Pruned | None = Field(
        None,
        description="share of each kernel that is pruned at the start of the sparse phase, its smallest weights; Han et al. use "
        "0.25 to 0.5; default: 0.3",
    )
    schedule: SparsitySchedule | None = Field(
        None, description="instead of `sparsity`: `constant_sparsity` or `polynomial_decay`, see below"
    )
    unused: Literal["paths", "filters", "weights"] | None = Field(
        None,
        description="with alternation, the connections 'with zero mask' (section 4.2), which the paper does not define: `paths`, "
        "the default: weights on no active path of any training image; `filters`: all weights of a filter that no active path "
        "crosses in batches of over half the images; `weights`: those with w^2 up to `weight_beta`, as eq. 38 has it for units",
    )
    weight_beta: float | None = Field(None, gt=0, description="of `unused: weights`, which needs it")
    sparse: TrainingChanges = Field(
        default_factory=TrainingChanges, description="what the sparse phase does otherwise than `training`"
    )
    dense: TrainingChanges = Field(
        default_factory=TrainingChanges,
        description="the same for the last, dense phase; without `optimizer`: training's, at a tenth of its learning rate",
    )

    @property
    def by_masks(self) -> bool:
        """Whether the support decides what is pruned."""
        return isinstance(self.sparse.solver, Alternation)

    @property
    def pruning(self) -> ConstantSparsity | PolynomialDecay | None:
        """The schedule of the sparse phase; `sparsity` alone is one that is active once, at step 0. None: masks decide."""
        if self.by_masks:
            return None
        share = 0.3 if self.sparsity is None else self.sparsity
        return self.schedule or ConstantSparsity(name="constant_sparsity", target_sparsity=share, begin_step=0, end_step=0)

    def sparse_training(self, training: Training) -> Training:
        """How the sparse phase is trained."""
        return self.sparse.over(training)

    def dense_training(self, training: Training) -> Training:
        """How the last phase is trained."""
        slower = training.optimizer.model_copy(update={"learning_rate": DENSE_RATE * training.optimizer.learning_rate})
        return self.dense.over(training.model_copy(update={"optimizer": slower}))

    def _readings(self) -> None:
        if self.unused and not self.by_masks:
            raise faults(
                "Dsd", [fault("is of alternation in the sparse phase; leave it out, or set sparse.solver", at=("unused",))]
            )
        if self.unused == "weights" and self.weight_beta is None:
            raise faults(
                "Dsd", [fault("received 'weights', which needs weight_beta beside it, a number above 0", at=("unused",))]
            )
        if self.weight_beta is not None and self.unused != "weights":
            raise faults("Dsd", [fault("is of unused: weights; leave it out", at=("weight_beta",))])

    @model_validator(mode="after")
    def _one_schedule(self) -> "Dsd":
        schedule = self.schedule
        self._readings()
        degree = "sparsity" if self.sparsity is not None else "schedule" if schedule is not None else None
        if self.by_masks and degree:
            message = "solver 'alternation' of the sparse phase prunes what its masks leave unused; leave it out"
            raise faults("Dsd", [fault(message, at=(degree,))])
        if schedule is None:
            return self
        if self.sparsity is not None:
            raise faults("Dsd", [fault("'sparsity' and 'schedule' exclude each other", at=("sparsity",))])
        check_rises("Dsd", schedule)
        return self
