"""Files and overrides -> checked spec and recipe, with every error at its place."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import ValidationError

from kerasgreedy.errors import InputError, Problem, ShapeError, SpecError, did_you_mean, dotted
from kerasgreedy.files import user_path
from kerasgreedy.spec.model import ModelSpec
from kerasgreedy.spec.overrides import Override, apply_overrides, split_overrides
from kerasgreedy.spec.recipe import Recipe
from kerasgreedy.spec.source import Path_, Source
from kerasgreedy.spec.strict import MISSING, Strict, message_of

T = TypeVar("T", bound=Strict)
SHIPPED = {"spec": "model_specs", "recipe": "recipes"}
QUICKSTART = "quickstart"


@dataclass(frozen=True)
class Document(Generic[T]):
    """A checked document and where each of its values came from.

    Attributes:
        value: the spec or recipe.
        source: the file.
        overridden: dotted path -> the `--set` text that carried it.
    """

    value: T
    source: Source
    overridden: dict[Path_, str]

    def locate(self, path: Path_) -> str:
        """`file:line:column`, or the override, of the value at `path`."""
        return _locate(self.source, self.overridden, path)

    def shape_problem(self, error: ShapeError) -> SpecError:
        """The same fault, at its place in the file."""
        seen = _visible(self.source.data, error.path)
        return SpecError([Problem(self.locate(seen), dotted(seen), error.message)])


def load(
    spec: str | Path, recipe: str | Path | None = None, overrides: Sequence[str] = ()
) -> tuple[Document[ModelSpec], Document[Recipe]]:
    """Reads a model spec and a recipe (default: quickstart), applies `a.b=value` overrides, and checks both.

    Args:
        spec, recipe: a file, or the name of a shipped one (`vgg11_k3`).
        overrides: `key.key=value`; the first key says which document is meant, or write `spec.` or `recipe.` before it.

    Raises:
        SpecError: with all problems of both documents.
    """
    spec_sets, recipe_sets = split_overrides(overrides)
    problems: list[Problem] = []
    documents: list[Document[Any]] = []
    for kind, model, place, sets in (
        ("spec", ModelSpec, spec, spec_sets),
        ("recipe", Recipe, recipe or QUICKSTART, recipe_sets),
    ):
        try:
            source = Source.read(find(place, kind))
            _refuse_other_kind(source, kind)
            documents.append(check(model, source, sets))
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(problems)
    return documents[0], documents[1]


def kind_of_document(source: Source) -> str:
    """`spec` or `recipe`, by the keys that it has."""
    own = set(source.data)
    return "recipe" if len(own & set(Recipe.model_fields)) > len(own & set(ModelSpec.model_fields)) else "spec"


def _refuse_other_kind(source: Source, kind: str) -> None:
    """One error for a recipe in the place of a spec, or the other way round, instead of one for each of its keys."""
    wanted, other = (Recipe, ModelSpec) if kind == "recipe" else (ModelSpec, Recipe)
    own = set(source.data)
    if own & set(other.model_fields) - {"name"} and not own & set(wanted.model_fields) - {"name"}:
        there = "recipe" if kind == "spec" else "model spec"
        raise SpecError([Problem(str(source.name), "", f"is a {there}, and a {kind} stands here; write SPEC --recipe RECIPE")])


def load_spec(place: str | Path, overrides: Sequence[str] = ()) -> Document[ModelSpec]:
    """One model spec, checked."""
    return check(ModelSpec, Source.read(find(place, "spec")), own_overrides(overrides, "spec"))


def load_recipe(place: str | Path, overrides: Sequence[str] = ()) -> Document[Recipe]:
    """One recipe, checked."""
    return check(Recipe, Source.read(find(place, "recipe")), own_overrides(overrides, "recipe"))


def check(model: type[T], source: Source, overrides: Sequence[Override] = ()) -> Document[T]:
    """Checks a parsed document against a schema class."""
    data, overridden, problems = apply_overrides(source.data, overrides)
    try:
        value = model.model_validate(data)
    except ValidationError as error:
        for line in error.errors(include_url=False):
            message = message_of(line)
            path = _visible(data, line["loc"], keep_last=message == MISSING)
            problems.append(Problem(_locate(source, overridden, path), dotted(path), message))
    if problems:
        raise SpecError(sorted(_merged(problems), key=_order))
    return Document(value, source, overridden)


def find(place: str | Path, kind: str) -> Path:
    """The file that is meant: a path, or the name of a shipped spec or recipe."""
    path = user_path(place)
    shipped = shipped_files(kind)
    # A run folder may have the name of the spec that it trains.
    named = str(place) in shipped and path.is_dir()
    if (path.exists() or path.suffix or len(path.parts) > 1) and not named:
        return path
    if str(place) in shipped:
        return shipped[str(place)]
    other = "recipe" if kind == "spec" else "spec"
    message = f"no such file, and no shipped {kind} of that name{did_you_mean(place, shipped)}"
    if str(place) in shipped_files(other):
        message = f"is a shipped {other}, and a {kind} stands here; write SPEC --recipe RECIPE"
    raise SpecError([Problem(str(place), "", message)])


def shipped_files(kind: str) -> dict[str, Path]:
    """Name -> file of every spec or recipe that comes with the package."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / SHIPPED[kind], package.parent / SHIPPED[kind]):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def dump(value: Strict) -> str:
    """The document as YAML that loads again to the same value."""
    return yaml.safe_dump(as_plain(value), sort_keys=False, default_flow_style=None, width=120)


def as_plain(value: Strict) -> dict[str, Any]:
    """The document as plain data, from which `model_validate` makes the same value."""
    # A None that a spec was given may stand for something else than what is left out.
    layers = isinstance(value, ModelSpec)
    data: dict[str, Any] = value.model_dump(mode="json", exclude_none=not layers, exclude_unset=layers)
    if isinstance(value, ModelSpec):  # layers stay as short as they were written; defaults are stated once
        data["block_defaults"] = value.block_defaults.model_dump(mode="json")
    if isinstance(value, Recipe) and value.replace_head:  # what is left out comes from the head that is replaced
        head = value.replace_head.head.model_dump(mode="json", exclude_none=True, exclude_unset=True)
        data["replace_head"]["head"] = head
    return data


def own_overrides(overrides: Sequence[str], kind: str) -> list[Override]:
    """The overrides of a command that reads one document.

    Raises:
        InputError: one of them is for the other document.
    """
    sides = dict(zip(("spec", "recipe"), split_overrides(overrides), strict=True))
    for other, found in sides.items():
        if other != kind and found:
            raise InputError(f"{found[0].where}: this command reads a {kind} only")
    return sides[kind]


def _visible(data: Any, path: Path_, keep_last: bool = False) -> Path_:
    """`path` without the steps that the schema adds and the document does not have (`blocks.0.layers.0` of a lone layer).

    Args:
        keep_last: the last step names a key that is missing.
    """
    seen: list[str | int] = []
    for position, step in enumerate(path):
        if isinstance(data, dict) and step in data:
            data = data[step]
        elif isinstance(data, list) and isinstance(step, int) and step < len(data):
            data = data[step]
        elif not (keep_last and position == len(path) - 1 and isinstance(step, str)):
            continue
        seen.append(step)
    return tuple(seen)


def _locate(source: Source, overridden: dict[Path_, str], path: Path_) -> str:
    for cut in range(len(path), 0, -1):
        if path[:cut] in overridden:
            return overridden[path[:cut]]
    below = [where for place, where in overridden.items() if place[: len(path)] == path and path]
    return below[0] if below else source.locate(path)


def _merged(problems: Sequence[Problem]) -> list[Problem]:
    """One line where a value fits none of several types, instead of one for each."""
    merged: dict[tuple[str, str, str], Problem] = {}
    for problem in problems:
        received, allowed, rest = problem.message.partition("; allowed: ")
        key = (problem.where, problem.path, received if allowed else problem.message)
        before = merged.get(key)
        if before is None:
            merged[key] = problem
        elif allowed and rest not in before.message:
            merged[key] = Problem(problem.where, problem.path, f"{before.message} or {rest}")
    return list(merged.values())


def _order(problem: Problem) -> tuple[str, int, int]:
    name, _, rest = problem.where.rpartition(":")
    name, _, line = name.rpartition(":")
    return (name, int(line), int(rest)) if line.isdigit() and rest.isdigit() else (problem.where, 0, 0)
