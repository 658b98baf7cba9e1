"""The recipe: how a network is trained. Says nothing about what the network is."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, NonNegativeInt, model_validator

from kerasgreedy.spec.augmentation import Augment
from kerasgreedy.spec.dsd import Dsd
from kerasgreedy.spec.model import Name
from kerasgreedy.spec.pruning_settings import Prune, ReplaceHead, indivisible
from kerasgreedy.spec.strategy_names import STRATEGIES, Strategy
from kerasgreedy.spec.strict import Count, Strict, fault, faults
from kerasgreedy.spec.threshold_settings import KernelThreshold, misfits
from kerasgreedy.spec.training import PhaseChanges, Training, unmasked, unwarmed

Precision: TypeAlias = Literal["float32", "mixed_bfloat16", "mixed_float16"]
Side: TypeAlias = Annotated[int, Field(ge=1, le=65536)]
Examples: TypeAlias = Annotated[int, Field(ge=1)]
Size: TypeAlias = Side | Annotated[list[Side], Field(min_length=2, max_length=2)]


class Data(Strict):
    """Which images, and what is done to them before the network sees them."""

    dataset: str = Field(
        min_length=1, description="a name such as `digits` or `cifar10`, `folder:PATH`, `npz:PATH` or `tfds:NAME`, see above"
    )
    data_dir: str | None = Field(None, description="where the idx files or the prepared TFDS copies of named sets lie")
    download: bool = Field(False, description="let TFDS download and prepare what is not there")
    test: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="of `folder:PATH` without a folder `test`: the share of each class that is for testing, at least one image; "
        "which ones follows from their names and `test_seed`, and stands in `run.json`",
    )
    test_seed: NonNegativeInt = Field(0, description="draws other test images; not the seed of training, so that runs share them")
    corrupt: Literal["error", "skip"] = Field(
        "error", description="a file of `folder:PATH` that cannot be read stops the run, or is left out and counted"
    )
    scale: Literal["auto", "unit", "bytes"] = Field(
        "auto",
        description="what the numbers of `npz:PATH` and of arrays are: `unit`, 0..1; `bytes`, 0..255; `auto`: told from both "
        "splits together, and refused where it could be either",
    )
    channel_axis: Literal["first", "last"] | None = Field(
        None,
        description="where the images of `npz:PATH` and of arrays have their channels: `first`, (n, channels, height, width), or "
        "`last`; default: last, and refused where they look like the other",
    )
    image_size: Size | None = Field(None, description="images are resized to this; default: the spec's, else their own")
    test_resize: Count | None = Field(
        None,
        description="images that are not cut at random: shorter side resized to this, then the centre is cut out "
        "(ImageNet: 256); for `folder`, `tfds` and the named sets that only TFDS has",
    )
    validation: Annotated[float, Field(gt=0, lt=1)] | NonNegativeInt = Field(
        0.1, description="taken from the training data: a share, a number of images, or 0"
    )
    train_examples: Examples | None = Field(None, description="use only so many training images, drawn by the seed")
    test_examples: Examples | None = Field(None, description="use only so many test images, drawn by the seed")
    augment: Augment = Field(default_factory=Augment, description="see below")
    augment_views: Count | None = Field(
        None,
        description="draw so many views of each training image once, for the whole run, and let epochs take turns with them, so "
        "that they can be cached; default: every epoch of every phase draws anew",
    )
    normalize: Literal["per_channel", "unit"] = Field(
        "per_channel", description="mean 0 and deviation 1 by channel, fitted on training data; or to 0..1"
    )

    @property
    def views(self) -> int | None:
        """How many different views of the training data there are; None where every epoch has a new one."""
        return self.augment_views if self.augment.changes else 1

    def divided(self, examples: int) -> tuple[int, int]:
        """How many of so many training images are used, and how many of those validate."""
        used = min(self.train_examples or examples, examples)
        return used, self.validation if isinstance(self.validation, int) else round(self.validation * used)

    @model_validator(mode="after")
    def _views_of_something(self) -> "Data":
        if self.augment_views and not self.augment.changes:
            raise faults("Data", [fault("without 'augment' all views are the same; leave it out", at=("augment_views",))])
        if self.augment_views and self.augment.mixup:
            message = (
                "with augment.mixup a view would not be of one image: whom it is mixed with follows from the order; leave one out"
            )
            raise faults("Data", [fault(message, at=("augment_views",))])
        return self


class Cache(Strict):
    """The output of the frozen blocks, computed once for each view of the data and read by every epoch of the phase.

    Of a head with fixed gates, or other layers at its start that cost something and never change, what these give is kept in the
    place of it, if that fits into memory or `store` is `disk`.

    Nothing is cached where every epoch draws new views, where views are not read twice, or where it does not fit; `plan` says
    what is done and why. Results are those of computing it anew: bit for bit with `dtype` left out and
    oneDNN on (the default), else up to rounding by an image's place in its batch.
    """

    store: Literal["auto", "memory", "disk", "none"] = Field(
        "auto", description="where it is kept; `auto`: in memory if it fits, else on disk if it fits, else nowhere"
    )
    dtype: Literal["float32", "bfloat16"] | None = Field(
        None, description="what it is kept in, after each block; default: the type that the frozen blocks compute in"
    )
    memory_gb: float = Field(4.0, ge=0, description="at most so many gigabytes (10^9 bytes) of memory")
    disk_gb: float = Field(20.0, ge=0, description="at most so many gigabytes in the run folder; removed when the phase ends")


Distribute: TypeAlias = Literal["none", "mirrored", "multi_worker"]
# Below so many images the statistics of a batch norm are too rough: the share of each copy is not normalised by itself.
SMALL_SHARE = 32


# Of mixed images; others keep masks or features of each.
MIXING_SOLVERS = ("sgd", "averaged")


class Voting(Strict):
    """How the heads vote: sum of 2^j z_j over depths j (greedy, section 4)."""

    on: Literal["logits", "probabilities"] = Field("logits", description="what z_j is")


class Convex(Strict):
    """What strategy `convex` does beside training heads."""

    rectify: bool = Field(
        False,
        description="in the end, heads with fixed gates become ordinary ones with relu, without the filters that are zero; equal "
        "where filters keep to their sides, for which regularizer `gate_hinge` is; what it changes is measured",
    )
    images: Count = Field(2000, description="training images on which that is measured")


class Recipe(Strict):
    """Data, strategy, optimiser, schedule, seeds."""

    name: Name = Field(description="names the run folder and the reports")
    description: str | None = Field(None, description="one line for people")
    data: Data = Field(description="see below")
    strategy: Strategy = Field("greedy", description="which plan is compiled, see below")
    training: Training = Field(description="see below")
    phases: dict[str, PhaseChanges] = Field(
        default_factory=dict,
        description="what phases of the strategy do otherwise than `training`, by their names as `plan` prints them: "
        "`{block_2: {epochs: 100}}`; see below",
    )
    dsd: Dsd | None = Field(None, description="settings of strategy `dsd`, see below; default: its defaults")
    convex: Convex | None = Field(None, description="settings of strategy `convex`, see below; default: its defaults")
    prune: Prune | None = Field(None, description="removal of filters, see below")
    threshold: KernelThreshold | None = Field(None, description="removal of what a structured penalty made small, see below")
    replace_head: ReplaceHead | None = Field(None, description="another last head in the end, see below")
    start_from: str | None = Field(
        None,
        min_length=1,
        description="a run folder: its weights, of a network with the same spec, and its normalisation, instead of fresh ones. "
        "With `start_blocks` also an exported version, a Keras model (`.keras`, `.h5`) or `keras.applications:VGG16`, whose "
        "first layers compute what the first blocks do, see [transfer.md](transfer.md)",
    )
    start_blocks: Count | None = Field(
        None,
        description="take only the first so many blocks of `start_from`, of a network that begins like this one; they stay "
        "as they are, and the strategy trains what stands behind them, which starts fresh",
    )
    start_pixels: Literal["bytes", "unit", "tf", "torch", "caffe"] | None = Field(
        None,
        description="of a Keras model in `start_from` that does not scale its images itself, what it was trained on: `bytes` "
        "0..255, `unit` 0..1, or the modes of Keras's `preprocess_input`; known of VGG and ResNet of keras.applications",
    )
    start_unfinished: bool = Field(
        False, description="take the newest weights of `start_from` also where that run is not finished, or diverged"
    )
    precision: Precision = Field(
        "float32",
        description="what the trained components compute in; weights, batch norm statistics, losses and optimiser state stay "
        "float32. `mixed_float16` scales the loss",
    )
    prefix_precision: Precision | None = Field(None, description="the same for frozen blocks; default: as `precision`")
    cache: Cache = Field(default_factory=Cache, description="see below")
    ensemble: Voting = Field(default_factory=Voting, description="see below")
    seed: NonNegativeInt = Field(0, description="of initial weights, splits, order and augmentation")
    distribute: Distribute = Field(
        "none",
        description="`none`: one device; `mirrored`: all local devices, or those of `--devices`, one copy on each; "
        "`multi_worker`: the processes that TF_CONFIG names, see [distribution.md](distribution.md)",
    )
    sync_batch_norm: Literal["auto"] | bool = Field(
        "auto",
        description="with several copies: whether batch norm takes the statistics of the global batch (`true`), or each copy "
        "those of its share (`false`); `auto`: of the global batch where a share has fewer than 32 images",
    )
    checkpoint_minutes: float = Field(10.0, gt=0, description="also save inside an epoch that takes longer than this")
    keep_checkpoints: Annotated[int, Field(ge=0, le=1000)] = Field(
        0,
        description="keep the trained weights of so many points of each phase, its start and end and others evenly between, in "
        "the run's `kept/`; `landscape --along path` draws the way through them",
    )

    def synchronizes(self, replicas: int) -> bool:
        """Whether batch norm takes the statistics of the global batch on so many copies."""
        if replicas == 1 or self.sync_batch_norm != "auto":
            return replicas > 1 and bool(self.sync_batch_norm)
        shares = (training.batch_size / training.accumulation / replicas for training in self.trainings.values())
        return min(shares) < SMALL_SHARE

    @property
    def goes_on(self) -> bool:
        """Whether what trains first was trained by another run."""
        return bool(self.start_from) and not self.start_blocks

    @property
    def frozen_precision(self) -> Precision:
        """What frozen blocks compute in."""
        return self.prefix_precision or self.precision

    @property
    def trainings(self) -> dict[tuple[str, ...], Training]:
        """How phases are trained, by the section that says so."""
        found: dict[tuple[str, ...], Training] = {("training",): self.training}
        found |= {("phases", name): changes.over(self.training) for name, changes in self.phases.items()}
        if self.strategy == "dsd":
            dsd = self.dsd or Dsd()
            found |= {("dsd", "sparse"): dsd.sparse_training(self.training), ("dsd", "dense"): dsd.dense_training(self.training)}
        if self.prune and self.prune.fine_tune:
            found["prune", "fine_tune"] = self.prune.fine_tune.over(self.training)
        if self.threshold and self.threshold.fine_tune:
            found["threshold", "fine_tune"] = self.threshold.tuning(self.training)
        if self.replace_head:
            found["replace_head", "training"] = self.replace_head.training.over(self.training)
        return found

    @property
    def watches_validation(self) -> bool:
        """Whether validation data decides anything."""
        return any(training.watches and training.monitor != "train_loss" for training in self.trainings.values())

    @model_validator(mode="after")
    def _settings_fit_together(self) -> "Recipe":
        training = self.training
        if self.convex and self.strategy != "convex":
            message = f"strategy '{self.strategy}' has no such settings; leave it out, or use strategy: convex"
            raise faults("Recipe", [fault(message, at=("convex",))])
        if self.dsd and self.strategy != "dsd":
            raise faults("Recipe", [fault(f"strategy '{self.strategy}' has no sparse phase; leave it out", at=("dsd",))])
        for place, phase in self.trainings.items():
            lines = indivisible(phase, (*place, "batch_size")) + unmasked(phase, place) + unwarmed(phase, place)
            if self.data.augment.mixup and phase.solver.name not in MIXING_SOLVERS:
                message = (
                    f"solver '{phase.solver.name}' works on images one by one; leave it out, or use solver {MIXING_SOLVERS[0]}"
                )
                lines.append(fault(message, at=("data", "augment", "mixup")))
            if lines:
                raise faults("Recipe", lines)
        self._pruning_fits()
        if self.watches_validation and self.data.validation == 0:
            message = f"'{training.monitor}' needs data.validation above 0; or use monitor: train_loss"
            raise faults("Recipe", [fault(message, at=("training", "monitor"))])
        if self.prefix_precision and not self._freezes:
            message = f"strategy '{self.strategy}' freezes nothing; leave it out"
            raise faults("Recipe", [fault(message, at=("prefix_precision",))])
        if self.cache.store in ("memory", "disk") and not self._freezes:
            message = f"received '{self.cache.store}'; strategy '{self.strategy}' has no frozen blocks before what trains"
            raise faults("Recipe", [fault(message, at=("cache", "store"))])
        for key in ("start_unfinished", "start_blocks", "start_pixels"):
            if getattr(self, key) and not self.start_from:
                raise faults("Recipe", [fault("there is no start_from; leave it out", at=(key,))])
        if self.start_blocks and (self.strategy == "compress" or self.prune or self.threshold):
            odd = "strategy" if self.strategy == "compress" else "prune" if self.prune else "threshold"
            message = (
                "start_blocks leaves the blocks of that run as they are, and what stands behind them is not trained yet; leave "
            )
            raise faults("Recipe", [fault(message + "start_blocks out", at=(odd,))])
        if training.init == "identity" and self.strategy != "greedy":
            message = (
                f"'identity' starts a block from the one before, which strategy '{self.strategy}' does not do; allowed: fresh"
            )
            raise faults("Recipe", [fault(message, at=("training", "init"))])
        if training.init == "identity" and self.start_from:
            message = "'identity' would overwrite the weights of start_from; allowed: fresh, which keeps them"
            raise faults("Recipe", [fault(message, at=("training", "init"))])
        return self

    @property
    def _freezes(self) -> bool:
        """Whether some phase runs blocks that it does not train."""
        tuned = [each.fine_tune for each in (self.prune, self.threshold) if each and each.fine_tune]
        heads_only = bool(self.replace_head or self.start_blocks) or any(each.trains == "head" for each in tuned)
        return STRATEGIES[self.strategy].freezes or heads_only

    def _pruning_fits(self) -> None:
        prune, strategy = self.prune, self.strategy
        lines = []
        if strategy == "compress" and not (prune or self.threshold or self.replace_head):
            lines.append(fault("strategy 'compress' needs 'prune', 'threshold' or 'replace_head'", at=("strategy",)))
        if self.threshold:
            has_validation, several = self.data.validation != 0, self.distribute == "multi_worker"
            lines += misfits(self.threshold, strategy, bool(prune), has_validation, several)
        if strategy == "compress" and not self.start_from:
            lines.append(fault("strategy 'compress' needs 'start_from', the run folder of a trained network", at=("strategy",)))
        if prune and prune.heads and strategy != "compress":
            lines.append(fault(f"strategy '{strategy}' has its own heads; leave it out", at=("prune", "heads")))
        if prune and prune.accuracy_drop is not None and self.data.validation == 0:
            lines.append(fault("needs data.validation above 0", at=("prune", "accuracy_drop")))
        if prune and prune.fine_tune and prune.fine_tune.trains == "all" and strategy == "random_features":
            message = "received 'all'; strategy 'random_features' never trains blocks; allowed: head"
            lines.append(fault(message, at=("prune", "fine_tune", "trains")))
        if lines:
            raise faults("Recipe", lines)
