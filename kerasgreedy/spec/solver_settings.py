"""How a phase's problem is solved: plain descent, or alternation between weights and support (the support paper)."""

from itertools import pairwise
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, NonNegativeInt, model_validator

from kerasgreedy.spec.doors import Choice, Door, Named
from kerasgreedy.spec.strict import Count, fault, faults, show

# Keys that one of the two modes has no use for.
_STORED = ("refresh", "estimate", "patience", "min_decrease", "hold_at_most", "store", "memory_gb", "disk_gb")
_PLATEAU = ("patience", "min_decrease", "hold_at_most")
_SHARED = ("vote", "beta_of")


class PlainSolver(Named):
    """One that runs components whole, and asks nothing of the layers inside."""


class Descent(PlainSolver):
    """The optimiser's steps, and nothing else."""

    name: Literal["sgd"] = Field("sgd", description="write `sgd`; which optimiser it is, `optimizer` says")


class Averaged(PlainSolver):
    """The optimiser's steps, and in the end the mean of the weights after the last ones (Polyak and Juditsky 1992).

    Of kernels that a regularizer such as `nuclear_ball` keeps in a convex set the mean is in it too. Of zeros that a proximal
    regularizer makes, those stay that all these points have.
    """

    name: Literal["averaged"] = Field(description="write `averaged`")
    steps: Count = Field(2500, description="the last so many steps of the phase count")
    every: Count = Field(10, description="of these, every so-manieth; that of `nuclear_ball`, so that points are in the ball")

    @model_validator(mode="after")
    def _some(self) -> "Averaged":
        if self.steps < self.every:
            message = f"received {self.steps}; every is {self.every}, which leaves no point; allowed: {self.every} or more"
            raise faults("Averaged", [fault(message, at=("steps",))])
        return self


class Alternation(Named):
    """Weight steps under support masks (Huang, Kong, Lucey: multi-layer support): inside them the network is linear.

    Every `relu` and `positive_hard_threshold` of what trains becomes z = m q, with q what it receives and m a mask of zeros and
    ones; other activations stay. Evaluation uses the activations themselves. See [alternation.md](alternation.md).
    """

    name: Literal["alternation"] = Field(description="write `alternation`")
    mode: Literal["instance", "batch"] = Field(
        "instance",
        description="`instance`: a mask for each training example, stored as bits and held for some epochs; `batch`: one mask "
        "shared by a batch, made for each step (eq. 41)",
    )
    warm_up_epochs: NonNegativeInt = Field(5, description="epochs of plain descent before the first masks")
    refresh: Count | Literal["plateau"] = Field(
        "plateau", description="instance: masks are estimated anew after so many epochs, or when the training loss stops falling"
    )
    estimate: Literal["pass", "live_epoch"] = Field(
        "pass",
        description="instance: `pass`: masks are estimated at a refresh in a pass of their own, in inference mode; `live_epoch`: "
        "they are recorded while the refresh's epoch trains, each image's as it was when it was trained on (batch norm of its "
        "batch, dropout as drawn), and held from the next epoch on",
    )
    patience: Count = Field(2, description="instance, plateau: so many epochs without `min_decrease` end the hold")
    min_decrease: float = Field(0.01, ge=0, lt=1, description="instance, plateau: share by which the loss has to fall")
    hold_at_most: Count = Field(50, description="instance, plateau: masks are estimated anew after so many epochs at the latest")
    beta: Annotated[float, Field(ge=0)] | Literal["warm_up"] | None = Field(
        None,
        description="a unit is in the support where x^2 > beta (eq. 38), or where the mean of x^2 over the batch is (eq. 41); "
        "`warm_up` (batch): chosen for each layer after the warm-up, so that as large a share of its units is in a batch's mask "
        "as is active in an example; default: 0, and `warm_up` for the batch's energy",
    )
    beta_of: Literal["example", "batch"] = Field(
        "example",
        description="batch: what `beta` is compared with: the mean of x^2 over the batch, or (eq. 41 as printed) its sum, which "
        "depends on batch_size: beta of a batch = batch_size times beta of an example",
    )
    rule: Literal["positive", "energy"] = Field(
        "positive",
        description="what x is: `positive`: the activation's output, so that beta = 0 gives the activation's own support; "
        "`energy`: its input q, so that strongly negative units are in the support as well",
    )
    vote: Literal["energy", "majority"] = Field(
        "energy",
        description="batch: `majority`: a unit is in the mask where it is in the support of more than half of the examples",
    )
    under_mask: Literal["linear", "activation"] | None = Field(
        None,
        description="`linear`: z = m q (eq. 2); `activation`: z = m a(q), the activation a stays and m only removes; default: "
        "`linear` for `instance`, `activation` for `batch`: under one linear mask a whole batch would go through one linear map",
    )
    hold_pools: bool = Field(
        False, description="which place of its window a max-pool takes is held like a mask, so that it is linear too"
    )
    dropout: Literal["drawn", "held", "off"] = Field(
        "drawn",
        description="what layers of dropout do while masks are in force: `drawn`: new patterns in each step; `held` (instance): "
        "a pattern is drawn for each example when its masks are estimated, and held with them, as part of the support; `off`: "
        "nothing",
    )
    store: Literal["auto", "memory", "disk"] = Field(
        "auto", description="instance: where masks are kept; `auto`: in memory if they fit, else on disk"
    )
    memory_gb: float = Field(4.0, ge=0, description="instance: at most so many gigabytes (10^9 bytes) of memory")
    disk_gb: float = Field(20.0, ge=0, description="instance: at most so many gigabytes in the run folder")

    @property
    def unmasked_epochs(self) -> int:
        """Epochs before the first one under held masks."""
        return self.warm_up_epochs + (self.estimate == "live_epoch")

    @property
    def threshold(self) -> float | Literal["warm_up"]:
        """`beta` with its default."""
        if self.beta is not None:
            return self.beta
        return "warm_up" if self.mode == "batch" and self.vote == "energy" else 0.0

    @property
    def is_linear(self) -> bool:
        """Whether masked layers are linear: `under_mask` with its default."""
        return (self.under_mask or ("linear" if self.mode == "instance" else "activation")) == "linear"

    def example_beta(self, batch_size: int) -> float | Literal["warm_up"]:
        """`threshold` stated per example, whatever it was stated of."""
        if self.threshold == "warm_up" or self.beta_of == "example":
            return self.threshold
        return self.threshold / batch_size

    @model_validator(mode="after")
    def _of_its_mode(self) -> "Alternation":
        # What equals its default is no request: a run folder's recipe holds every key.
        changed = [key for key, field in Alternation.model_fields.items() if getattr(self, key) != field.default]
        other = _STORED if self.mode == "batch" else _SHARED
        lines = [fault(f"mode '{self.mode}' has no use for it; leave it out", at=(key,)) for key in changed if key in other]
        if self.mode == "instance" and self.beta == "warm_up":
            lines.append(fault("received 'warm_up', which is of mode 'batch'; allowed: a number from 0 on", at=("beta",)))
        if self.mode == "batch" and self.dropout == "held":
            lines.append(fault("masks of mode 'batch' are made anew in each step; allowed: drawn, off", at=("dropout",)))
        if self.refresh != "plateau":
            plateau = [key for key in changed if key in _PLATEAU]
            lines += [fault("is of refresh: plateau; leave it out", at=(key,)) for key in plateau]
        if self.rule == "energy" and self.threshold == 0:
            lines.append(fault("with rule: energy every unit has q^2 > 0; allowed: a number above 0", at=("beta",)))
        if self.store != "auto":
            idle = "disk_gb" if self.store == "memory" else "memory_gb"
            lines += [fault(f"store is '{self.store}'; leave it out", at=(key,)) for key in changed if key == idle]
        if self.threshold == "warm_up" and self.beta_of == "batch":
            lines.append(
                fault("beta: warm_up, the default, is of an example; give beta as a number, or leave it out", at=("beta_of",))
            )
        if self.mode == "batch" and self.vote == "majority" and self.beta_of == "batch":
            lines.append(fault("a majority vote compares beta with x^2 of an example; leave it out", at=("beta_of",)))
        if self.mode == "batch" and self.vote == "majority" and self.beta == "warm_up":
            lines.append(fault("received 'warm_up'; a majority vote takes a number from 0 on", at=("beta",)))
        if lines:
            raise faults("Alternation", lines)
        return self


class Fista(PlainSolver):
    """Accelerated proximal gradient on all training images at once, for phases that train nothing but linear heads.

    (Beck and Teboulle 2009; restarts by O'Donoghue and Candes 2015, section 3.2.) Such a problem is convex, and the solver says
    how far from its optimum it ends. An epoch is one step; its length comes from the data, so that the optimiser's rate, its
    schedule and `clip_norm` have no part in it; `batch_size` says how many images go through at once. See
    [solvers.md](solvers.md).
    """

    name: Literal["fista"] = Field(description="write `fista`")
    tolerance: float = Field(
        1e-5,
        gt=0,
        lt=1,
        description="the phase ends when the norm of a subgradient of the whole objective is below this share of the norm of the "
        "loss's gradient at zero weights",
    )
    gap: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="the phase ends too when the duality gap is below this share of the objective; of objectives and penalties "
        "whose dual is known: squared_error, with one of weight_decay, l2, l1, group_lasso and nuclear_ball on all that trains",
    )
    path: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2)] | None = Field(
        None,
        description="a regularisation path: factors of all penalties, falling, such as `[100, 30, 10, 3, 1]`, or of the radius "
        "of `nuclear_ball`, rising; each problem starts from the solution of the one before and ends by its tolerance, or with "
        "its equal share of the epochs",
    )
    power_iterations: Count = Field(
        20, description="passes over the training images before the first epoch, which measure the curvature"
    )
    directions: int = Field(
        0,
        ge=0,
        description="so many directions of largest curvature, which three passes over the training images look for, are followed "
        "at their own curvature: for features with a few large directions (means, brightness) fewer epochs are needed, each with "
        "a small problem to solve that needs no image; in memory 8 bytes for each of them and each weight of a class, four times "
        "as much while they are looked for; with 8 `power_iterations` or more",
    )

    @model_validator(mode="after")
    def _falls(self) -> "Fista":
        steps = [two > one for one, two in pairwise(self.path or ())]
        if self.path and (len(set(steps)) > 1 or len(set(self.path)) < len(self.path)):
            message = f"received {show(self.path)}; allowed: numbers in falling order, or with nuclear_ball in rising order"
            raise faults("Fista", [fault(message, at=("path",))])
        if self.directions and self.power_iterations < 8:
            message = (
                f"received {self.power_iterations}; allowed with directions: 8 or more, for what is left beside them is flat"
            )
            raise faults("Fista", [fault(message, at=("power_iterations",))])
        return self

    @property
    def factors(self) -> list[float]:
        """Of the penalties, one problem after the other."""
        return self.path or [1.0]


SOLVERS = Door(
    "solvers",
    [
        Choice("kerasgreedy.solvers.descent:DescentSolver", Descent),
        Choice("kerasgreedy.solvers.descent:AveragedSolver", Averaged, plan="kerasgreedy.plan.solver_plans:plan_averaged"),
        Choice(
            "kerasgreedy.solvers.alternation.alternation:AlternationSolver",
            Alternation,
            plan="kerasgreedy.plan.alternation_plan:plan_alternation",
        ),
        Choice("kerasgreedy.solvers.fista:Accelerated", Fista, plan="kerasgreedy.plan.fista_plan:plan_fista"),
    ],
)
Solver: TypeAlias = Annotated[Named, SOLVERS]
