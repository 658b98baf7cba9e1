"""`validate`: tells a model spec from a recipe and checks it."""

from collections.abc import Sequence

from kerasgreedy.errors import Problem, ShapeError, SpecError
from kerasgreedy.graph.architecture import architecture
from kerasgreedy.spec.load import check, find, kind_of_document, shipped_files
from kerasgreedy.spec.model import ModelSpec, Nominal
from kerasgreedy.spec.recipe import Recipe
from kerasgreedy.spec.source import Source


def validate_files(files: Sequence[str]) -> dict[str, str]:
    """file -> `model spec` or `recipe`.

    Raises:
        SpecError: with every problem of every file.
    """
    kinds: dict[str, str] = {}
    problems: list[Problem] = []
    for file in files:
        try:
            kinds[file] = _validate(file)
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(problems)
    return kinds


def _validate(file: str) -> str:
    shipped = file in shipped_files("recipe")
    source = Source.read(find(file, "recipe" if shipped else "spec"))
    if kind_of_document(source) == "recipe":
        check(Recipe, source)
        return "recipe"
    document = check(ModelSpec, source)
    spec = document.value
    nominal = spec.nominal or Nominal()
    if spec.input_shape or nominal.input_shape:  # else the data set decides, and `plan` checks the shapes
        try:
            architecture(spec, classes=spec.classes or nominal.classes or 2)
        except ShapeError as error:
            raise document.shape_problem(error) from None
    return "model spec"
