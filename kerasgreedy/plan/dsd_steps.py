"""Whether a `dsd` plan fits the data: what the recipe alone cannot know. Imports no TensorFlow."""

from kerasgreedy.errors import Problem, SpecError, dotted
from kerasgreedy.plan.stages import Stage, phases_of
from kerasgreedy.spec.load import Document
from kerasgreedy.spec.recipe import Recipe
from kerasgreedy.spec.sparsity import ConstantSparsity


def check_dsd(recipe: Document[Recipe], phases: tuple[Stage, ...], train_images: int) -> None:
    """Refuses a sparse phase that ends before its schedule does.

    Raises:
        SpecError: at the place of the key.
    """
    sparse = next((phase for phase in phases_of(phases) if phase.sparsity), None)
    if sparse is None:
        return
    schedule = sparse.sparsity
    steps = train_images // sparse.training.batch_size * sparse.epochs
    if schedule and schedule.last_change >= steps:
        key = "begin_step" if isinstance(schedule, ConstantSparsity) else "end_step"
        message = f"received {schedule.last_change}; the sparse phase has {steps} steps, the last is {steps - 1}"
        raise _problem(recipe, ("dsd", "schedule", key), message)


def _problem(recipe: Document[Recipe], path: tuple[str, ...], message: str) -> SpecError:
    return SpecError([Problem(recipe.locate(path), dotted(path), message)])
