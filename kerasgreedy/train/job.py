"""Spec, recipe and data set fitted together: all that training needs to know. Imports no TensorFlow."""

from collections.abc import Collection
from dataclasses import dataclass

from kerasgreedy.data.catalog import describe, inapplicable
from kerasgreedy.data.info import DataInfo
from kerasgreedy.errors import DataError, InputError, Problem, ShapeError, SpecError
from kerasgreedy.files import user_path
from kerasgreedy.spec.architecture import Architecture, architecture
from kerasgreedy.spec.load import Document
from kerasgreedy.spec.lower import show
from kerasgreedy.spec.model import ModelSpec
from kerasgreedy.spec.recipe import Recipe
from kerasgreedy.train.dsd import check_dsd
from kerasgreedy.train.plan import Phase, compile_plan


@dataclass(frozen=True)
class Job:
    """All that training needs to know before it starts.

    Attributes:
        spec: the spec with `input_shape` and `classes` filled in.
        recipe: the recipe with its overrides.
        data: facts of the data set.
        architecture: the network's shapes and costs.
        phases: the plan.
        train_images, validation_images, test_images: examples in each part, after limits.
    """

    spec: ModelSpec
    recipe: Recipe
    data: DataInfo
    architecture: Architecture
    phases: tuple[Phase, ...]
    train_images: int
    validation_images: int
    test_images: int

    @property
    def trained_depths(self) -> list[int]:
        """Depths (1 is the first block) whose heads the plan trains."""
        losses = {name for phase in self.phases for name in phase.losses}
        return [depth for depth, head in enumerate(self.architecture.heads, start=1) if head.name in losses]


def prepare(
    spec: Document[ModelSpec],
    recipe: Document[Recipe],
    info: DataInfo | None = None,
    skipped: Collection[str] | None = None,
) -> Job:
    """Fits spec, recipe and data set together and compiles the plan.

    Args:
        info: facts of the data, when the caller brings its own.
        skipped: files of a folder that are known to be unreadable and are left out, see `DataInfo`.

    Raises:
        SpecError: they do not fit; says where.
        DataError: the data set is not there.
    """
    try:
        recipe = _absolute(recipe)
        info = info or describe(recipe.value.data, skipped)
    except InputError as error:
        raise DataError(f"{recipe.locate(('data', 'dataset'))}: data.dataset: {error}") from None
    shape = _input_shape(spec, recipe, info)
    if spec.value.classes not in (None, info.classes):
        message = f"the spec has {spec.value.classes} classes and data set '{info.dataset}' has {info.classes}; leave it out"
        raise SpecError([Problem(spec.locate(("classes",)), "classes", message)])
    try:
        arch = architecture(spec.value, shape, info.classes)
    except ShapeError as error:
        raise spec.shape_problem(error) from None
    resolved = spec.value.model_copy(update={"input_shape": list(shape), "classes": info.classes})
    train, validation, test = _split_sizes(recipe, info)
    phases = compile_plan(arch, recipe.value, (train, validation))
    if recipe.value.strategy == "dsd":
        check_dsd(recipe, phases, train)
    return Job(resolved, recipe.value, info, arch, phases, train, validation, test)


def _input_shape(spec: Document[ModelSpec], recipe: Document[Recipe], info: DataInfo) -> tuple[int, int, int]:
    fixed = spec.value.input_shape
    size = recipe.value.data.image_size
    wanted = [size, size] if isinstance(size, int) else size
    if fixed and wanted and fixed[:2] != wanted:
        message = f"received {show(tuple(wanted))}, but the spec fixes input_shape {show(tuple(fixed))}; change one"
        raise SpecError([Problem(recipe.locate(("data", "image_size")), "data.image_size", message)])
    height, width, channels = fixed or [*(wanted or info.image_shape[:2]), info.image_shape[2]]
    if height is None or width is None:
        message = f"images of '{info.dataset}' differ in size; set data.image_size"
        raise SpecError([Problem(recipe.locate(("data",)), "data.image_size", message)])
    if channels not in (1, 3, info.image_shape[2]):
        message = f"received {channels} channels; images of '{info.dataset}' have {info.image_shape[2]} (1 and 3 convert)"
        raise SpecError([Problem(spec.locate(("input_shape",)), "input_shape", message)])
    return height, width, channels


def _absolute(recipe: Document[Recipe]) -> Document[Recipe]:
    """The recipe with its data paths made absolute, so that a run does not depend on where it was started."""
    data = recipe.value.data
    kind, _, place = data.dataset.partition(":")
    update: dict[str, str] = {}
    if kind in ("folder", "npz") and place:
        update["dataset"] = f"{kind}:{user_path(place).absolute()}"
    if data.data_dir:
        update["data_dir"] = str(user_path(data.data_dir).absolute())
    if not update:
        return recipe
    value = recipe.value.model_copy(update={"data": data.model_copy(update=update)})
    return Document(value, recipe.source, recipe.overridden)


def _split_sizes(recipe: Document[Recipe], info: DataInfo) -> tuple[int, int, int]:
    data = recipe.value.data
    unfit = inapplicable(data, info.dataset)
    if unfit:
        raise SpecError([Problem(recipe.locate(("data", unfit[0])), f"data.{unfit[0]}", unfit[1])])
    total = min(data.train_examples or info.train_examples, info.train_examples)
    validation = data.validation if isinstance(data.validation, int) else round(data.validation * total)
    train = total - validation
    if train < 1:
        message = f"received {data.validation}; there are only {total} training images"
        raise SpecError([Problem(recipe.locate(("data", "validation")), "data.validation", message)])
    if data.validation and not validation and recipe.value.watches_validation:
        message = f"received {data.validation}, which is no image of {total}; training.monitor needs some"
        raise SpecError([Problem(recipe.locate(("data", "validation")), "data.validation", message)])
    if train < recipe.value.training.batch_size:
        message = f"received {recipe.value.training.batch_size}; only {train} images are left for training"
        raise SpecError([Problem(recipe.locate(("training", "batch_size")), "training.batch_size", message)])
    if not info.test_examples:
        raise InputError(f"data set '{info.dataset}' has no test images")
    return train, validation, min(data.test_examples or info.test_examples, info.test_examples)
