"""Settings of what is asked about weights, layers and answers. Imports no TensorFlow."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from kerasgreedy.spec.analysis_settings import ActsWith, AnalysisSettings, Drawn, Part
from kerasgreedy.spec.strict import Count, fault, faults


class Separability(Drawn):
    """Measure at every depth how well classes can be told apart: by a linear classifier, and by small CNNs.

    Linear separability and CNN-p separability of the greedy paper, section 4.2. Fitted on training images, measured on test
    images; the blocks stay.
    """

    acts_with: ClassVar[ActsWith] = {
        "pool": ("kinds", ("linear",)),
        "c": ("kinds", ("linear",)),
        **dict.fromkeys(("width", "epochs", "learning_rate", "seed"), ("kinds", ("cnn1", "cnn2"))),
    }

    name: Literal["probe"] = "probe"
    kinds: list[Literal["linear", "cnn1", "cnn2"]] = Field(
        ["linear"], min_length=1, description="of classifiers: `linear`, one-versus-rest; `cnn1`, `cnn2`, one or two convolutions"
    )
    examples: Count = Field(5000, description="training images, drawn by the run's seed")
    test_examples: Count | None = Field(None, description="test images; default: all")
    pool: Annotated[int, Field(ge=1, le=64)] = Field(
        2, description="features of the linear one are averaged to so many places a side"
    )
    c: Annotated[float, Field(gt=0)] = Field(1.0, description="scikit-learn's C of the linear one")
    width: Count = Field(256, description="filters of the CNN's convolutions")
    epochs: Count = Field(15, description="of the CNN")
    learning_rate: Annotated[float, Field(gt=0)] = Field(0.05, description="of the CNN; falls to 0 by a cosine")


class Transfer(Drawn):
    """Measure at every depth what the features are worth for another data set with few labels.

    Greedy paper, section C.3 and Table 8: so many images a class train a multinomial logistic regression (SAGA) on principal
    components, all others test it; mean accuracy over the classes and its deviation over random splits.
    """

    acts_with: ClassVar[ActsWith] = dict.fromkeys(("tuned_blocks", "epochs", "learning_rate"), ("tuned_splits", None))

    name: Literal["transfer"] = "transfer"
    data: str = Field(min_length=1, description="data set, as a recipe's `data.dataset`; any classes and image sizes")
    data_dir: str | None = Field(None, description="as a recipe's `data.data_dir`")
    leave_out: list[str] = Field(
        [],
        description="classes whose images do not take part: `background_google` of `caltech101`, which the paper's 101 classes "
        "are without",
    )
    per_class: Count = Field(30, description="images of each class that train")
    splits: Annotated[int, Field(ge=1, le=1000)] = Field(10, description="random divisions")
    test_examples: Count = Field(5000, description="images that test, at most, of each division")
    components: Count = Field(500, description="principal components, at most")
    pool: Annotated[int, Field(ge=1, le=64)] = Field(2, description="features are averaged to so many places a side")
    tuned_splits: Annotated[int, Field(ge=0, le=100)] = Field(
        0, description="divisions on which also the whole network is trained from scratch, and the last blocks are tuned; 0: none"
    )
    tuned_blocks: Count = Field(1, description="so many last blocks are tuned")
    epochs: Count = Field(60, description="of these trainings")
    learning_rate: Annotated[float, Field(gt=0)] = Field(0.02, description="of these trainings; falls to 0 by a cosine")

    @model_validator(mode="after")
    def _has_these_splits(self) -> "Transfer":
        if self.tuned_splits > self.splits:
            message = f"received {self.tuned_splits}; allowed: 0 to the number of splits ({self.splits})"
            raise faults("transfer", [fault(message, self.tuned_splits, ("tuned_splits",))])
        return self


class Explain(Drawn):
    """Show which pixels answers rest on, and check that the maps mean something.

    Grad-CAM, integrated gradients and occlusion; each with deletion and insertion curves beside random maps, and with its
    correlation to the map of a network whose weights stand in another order.
    """

    acts_with: ClassVar[ActsWith] = {
        "block": ("methods", ("grad_cam",)),
        "steps": ("methods", ("integrated_gradients",)),
        "size": ("methods", ("occlusion",)),
        "stride": ("methods", ("occlusion",)),
    }

    name: Literal["explain"] = "explain"
    images: list[str] = Field(
        [], description="image files; default: images of the data set", json_schema_extra={"argument": "IMAGE..."}
    )
    part: Part = Field("test", description="of the data set, where no files are given")
    examples: Annotated[int, Field(ge=1, le=64)] = Field(6, description="images of it, drawn by the run's seed")
    methods: list[Literal["grad_cam", "integrated_gradients", "occlusion"]] = Field(
        ["grad_cam", "integrated_gradients", "occlusion"], min_length=1, description="of maps"
    )
    class_: str | None = Field(None, description="name or number of the class that is explained; default: each image's answer")
    block: Annotated[int, Field(ge=1)] | None = Field(
        None, description="whose maps Grad-CAM reads; default: the deepest that gives maps"
    )
    steps: Annotated[int, Field(ge=1, le=10_000)] = Field(
        128, description="of integrated gradients, at first: doubled until they are complete to 1e-3"
    )
    size: Count | None = Field(None, description="of occluding squares, in pixels; default: a quarter of the image")
    stride: Count | None = Field(None, description="of occluding squares; default: half their size")

    @model_validator(mode="after")
    def _of_these_images(self) -> "Explain":
        stray = sorted({"part", "examples"} & self.model_fields_set) if self.images else []
        if stray:
            raise faults("explain", [fault("acts without image files only; leave it out", getattr(self, stray[0]), (stray[0],))])
        return self


class Visualize(Drawn):
    """Show filters, what they look for and see, and what the network confuses."""

    acts_with: ClassVar[ActsWith] = {
        "layer": ("what", ("filters", "maximize", "activations")),
        "part": ("what", ("activations", "confusion")),
        "examples": ("what", ("confusion",)),
        "image": ("what", ("activations",)),
        **dict.fromkeys(("steps", "rate", "jitter", "smoothing", "seed"), ("what", ("maximize", "classes"))),
    }

    name: Literal["visualize"] = "visualize"
    what: Literal["filters", "maximize", "classes", "activations", "confusion"] = Field(
        "filters",
        description="`filters`, kernels of a layer; `maximize`, images that its channels answer to most; `classes`, that the "
        "logits do; `activations`, its channels for an image; `confusion`, what is taken for what, and the surest mistakes",
    )
    layer: str | None = Field(None, description="`component/layer`, as block_1/conv_1; default: the first convolution")
    count: Annotated[int, Field(ge=1, le=256)] | None = Field(
        None, description="pictures, at most; default: 16 of `confusion`, whose mistakes have words under them, else 64"
    )
    part: Part = Field("test", description="of the data set")
    examples: Count = Field(10_000, description="images that answers are counted on")
    image: Annotated[int, Field(ge=0)] = Field(0, description="number of the image of `activations`, from 0")
    steps: Count = Field(100, description="of gradient ascent")
    rate: Annotated[float, Field(gt=0, le=1)] = Field(0.05, description="of a step, as a share of the range of pixels")
    jitter: Annotated[int, Field(ge=0, le=64)] = Field(0, description="pixels that images are shifted by at random in each step")
    smoothing: Annotated[float, Field(ge=0, le=16)] = Field(
        0.0, description="deviation of a blur after each step, in pixels; 0: none"
    )

    @property
    def most(self) -> int:
        """Pictures, as asked for, or the default."""
        return self.count or (16 if self.what == "confusion" else 64)


class WeightSizes(AnalysisSettings):
    """Show the norm of the weights over training, and how many are small and large at its end."""

    name: Literal["weights"] = "weights"
    bins: Annotated[int, Field(ge=3, le=10_000)] = Field(101, description="of the histogram")
    reach: Annotated[float, Field(gt=0)] | None = Field(
        None, description="largest weight that the histogram shows; default: 99.9 % of the weights of each run are shown"
    )


class Identities(Drawn):
    """Show how near the kernels of each convolution are to passing one channel on as it is (structured sparsity, eq. 24)."""

    name: Literal["identities"] = "identities"
    draws: Count = Field(1000, description="random kernels of the same shape, drawn from a normal distribution, to compare with")
