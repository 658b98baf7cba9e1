"""Spec, recipe and data set fitted together: all that training needs to know. Imports no TensorFlow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kerasgreedy.data.catalog import describe, inapplicable
from kerasgreedy.data.info import DataInfo, Known
from kerasgreedy.errors import DataError, InputError, PlanError, Problem, ShapeError, SpecError, did_you_mean, dotted
from kerasgreedy.files import user_path
from kerasgreedy.graph.architecture import Architecture, architecture
from kerasgreedy.graph.tree import show
from kerasgreedy.plan.compile import compile_plan
from kerasgreedy.plan.dsd_steps import check_dsd
from kerasgreedy.plan.stages import Stage
from kerasgreedy.plan.starts import APPLICATION, ENDINGS, start_kind
from kerasgreedy.spec.load import Document
from kerasgreedy.spec.model import ModelSpec
from kerasgreedy.spec.recipe import Recipe


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
        by_class: whether the images that are used, and those that validate, are drawn class by class.
    """

    spec: ModelSpec
    recipe: Recipe
    data: DataInfo
    architecture: Architecture
    phases: tuple[Stage, ...]
    train_images: int
    validation_images: int
    test_images: int
    by_class: bool = True

    def at(self, spec: ModelSpec, done: Sequence[Mapping[str, Any]]) -> "Job":
        """The job when some stages of its plan are done, with these entries, and have left the network of `spec`."""
        phases = compile_plan(spec, self.recipe, (self.train_images, self.validation_images), done)
        return replace(self, spec=spec, architecture=architecture(spec), phases=phases)

    def trained_depths(self, begun: int | None = None) -> list[int]:
        """Depths (1 is the first block) whose heads the plan trains, or has trained when so many stages have begun."""
        losses: set[str] = set()
        for stage in self.phases[:begun]:
            losses |= set(stage.losses)
            if self.recipe.strategy == "compress":
                losses |= set(stage.judged)  # trained before: what a removal leaves counts without fine-tuning
            losses -= set(stage.resets)
        return [depth for depth, head in enumerate(self.architecture.heads, start=1) if head.name in losses]


def prepare(
    spec: Document[ModelSpec],
    recipe: Document[Recipe],
    info: DataInfo | None = None,
    known: Known | None = None,
    begins: bool = True,
) -> Job:
    """Fits spec, recipe and data set together and compiles the plan.

    Args:
        info: facts of the data, when the caller brings its own.
        known: of a folder that the run has begun with.
        begins: the run does not exist yet, and the one that it starts from has to be there.

    Raises:
        SpecError: they do not fit; says where.
        DataError: the data set is not there.
    """
    try:
        recipe = _absolute(recipe)
        start = recipe.value.start_from
        info = info or describe(recipe.value.data, known)
    except InputError as error:
        raise DataError(f"{recipe.locate(('data', 'dataset'))}: data.dataset: {error}") from None
    if begins and start and start_kind(start) is None:
        message = (
            f"received '{start}', which is no run folder; allowed: the folder of a finished run, an exported version, a Keras "
            f"model ({' or '.join(ENDINGS)}), {APPLICATION}NAME"
        )
        raise SpecError([Problem(recipe.locate(("start_from",)), "start_from", message)])
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
    try:
        phases = compile_plan(resolved, recipe.value, (train, validation))
    except PlanError as error:
        raise SpecError([Problem(recipe.locate(error.path), dotted(error.path), error.message)]) from None
    check_dsd(recipe, phases, train)
    _check_class_weights(recipe, info)
    return Job(resolved, recipe.value, info, arch, phases, train, validation, test)


def _check_class_weights(recipe: Document[Recipe], info: DataInfo) -> None:
    for place, training in recipe.value.trainings.items():
        named = training.class_weights if isinstance(training.class_weights, dict) else {}
        strange = [name for name in named if name not in info.class_names]
        if strange:
            path = (*place, "class_weights", strange[0])
            hint = did_you_mean(strange[0], info.class_names) or f"; allowed: {', '.join(info.class_names[:20])}"
            raise SpecError([Problem(recipe.locate(path), dotted(path), f"no class of '{info.dataset}'{hint}")])


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
    start = recipe.value.start_from
    if not update and not start:
        return recipe
    if start and start_kind(start) == "application":
        return Document(
            recipe.value.model_copy(update={"data": data.model_copy(update=update)}), recipe.source, recipe.overridden
        )
    value = recipe.value.model_copy(
        update={"data": data.model_copy(update=update), "start_from": start and str(user_path(start).absolute())}
    )
    return Document(value, recipe.source, recipe.overridden)


def _split_sizes(recipe: Document[Recipe], info: DataInfo) -> tuple[int, int, int]:
    data = recipe.value.data
    unfit = inapplicable(data, info.dataset)
    if unfit:
        raise SpecError([Problem(recipe.locate(("data", unfit[0])), f"data.{unfit[0]}", unfit[1])])
    total, validation = data.divided(info.train_examples)
    train = total - validation
    if train < 1:
        message = f"received {data.validation}; there are only {total} training images"
        raise SpecError([Problem(recipe.locate(("data", "validation")), "data.validation", message)])
    prune = recipe.value.prune
    limited = prune is not None and prune.accuracy_drop is not None
    if data.validation and not validation and (recipe.value.watches_validation or limited):
        who = "prune.accuracy_drop" if limited else "training.monitor"
        message = f"received {data.validation}, which is no image of {total}; {who} needs some"
        raise SpecError([Problem(recipe.locate(("data", "validation")), "data.validation", message)])
    for place, training in recipe.value.trainings.items():
        if train < training.batch_size:
            path = (*place, "batch_size")
            message = f"received {training.batch_size}; only {train} images are left for training"
            raise SpecError([Problem(recipe.locate(path), dotted(path), message)])
    if not info.test_examples:
        raise InputError(f"data set '{info.dataset}' has no test images")
    return train, validation, min(data.test_examples or info.test_examples, info.test_examples)
