"""Files and overrides -> checked spec and recipe, with every error at its place."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import ValidationError

from kerasgreedy.errors import InputError, Problem, ShapeError, SpecError, did_you_mean, dotted
from kerasgreedy.spec.model import ModelSpec
from kerasgreedy.spec.recipe import Recipe
from kerasgreedy.spec.source import Source, parse_value
from kerasgreedy.spec.strict import Strict, message_of

T = TypeVar("T", bound=Strict)
Path_ = tuple[str | int, ...]
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
            documents.append(_load(model, find(place, kind), sets))
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(problems)
    return documents[0], documents[1]


def load_spec(place: str | Path, overrides: Sequence[str] = ()) -> Document[ModelSpec]:
    """One model spec, checked."""
    return _load(ModelSpec, find(place, "spec"), overrides)


def load_recipe(place: str | Path, overrides: Sequence[str] = ()) -> Document[Recipe]:
    """One recipe, checked."""
    return _load(Recipe, find(place, "recipe"), overrides)


def check(model: type[T], source: Source, overrides: Sequence[str] = ()) -> Document[T]:
    """Checks a parsed document against a schema class."""
    data, overridden, problems = _apply(source, overrides)
    try:
        value = model.model_validate(data)
    except ValidationError as error:
        for line in error.errors(include_url=False):
            path = _visible(data, line["loc"])
            problems.append(Problem(_locate(source, overridden, path), dotted(path), message_of(line)))
    if problems:
        raise SpecError(sorted(dict.fromkeys(problems), key=_order))
    return Document(value, source, overridden)


def find(place: str | Path, kind: str) -> Path:
    """The file that is meant: a path, or the name of a shipped spec or recipe."""
    path = Path(place)
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path
    shipped = shipped_files(kind)
    if str(place) in shipped:
        return shipped[str(place)]
    raise InputError(f"{place}: no such file, and no shipped {kind} of that name{did_you_mean(place, shipped)}")


def shipped_files(kind: str) -> dict[str, Path]:
    """Name -> file of every spec or recipe that comes with the package."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / SHIPPED[kind], package.parent / SHIPPED[kind]):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def dump(value: Strict) -> str:
    """The document as YAML that loads again to the same value."""
    data = value.model_dump(mode="json", exclude_none=True, exclude_unset=isinstance(value, ModelSpec))
    if isinstance(value, ModelSpec):  # layers stay as short as they were written; defaults are stated once
        data["block_defaults"] = value.block_defaults.model_dump(mode="json")
    return yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=120)


def split_overrides(overrides: Iterable[str]) -> tuple[list[str], list[str]]:
    """Sorts `key=value` texts into those for the spec and those for the recipe."""
    sides: tuple[list[str], list[str]] = ([], [])
    for text in overrides:
        first, _, rest = text.partition(".")
        key = text.partition("=")[0].split(".")[0].strip()
        in_spec, in_recipe = key in ModelSpec.model_fields, key in Recipe.model_fields
        if key in ("spec", "recipe") and rest:
            sides[first.strip() == "recipe"].append(rest)
        elif in_spec and in_recipe:
            raise InputError(f"--set {text}: both documents have '{key}'; write spec.{key} or recipe.{key}")
        elif in_spec or in_recipe:
            sides[in_recipe].append(text)
        else:
            known = [*ModelSpec.model_fields, *Recipe.model_fields]
            raise InputError(f"--set {text}: unknown key '{key}'{did_you_mean(key, known)}")
    return sides


def _load(model: type[T], path: Path, overrides: Sequence[str]) -> Document[T]:
    return check(model, Source.read(path), overrides)


def _apply(source: Source, overrides: Sequence[str]) -> tuple[dict[str, Any], dict[Path_, str], list[Problem]]:
    data = _copy(source.data)
    overridden: dict[Path_, str] = {}
    problems: list[Problem] = []
    for text in overrides:
        key, equals, value_text = text.partition("=")
        where = f"--set {text}"
        if not equals or not all(part.strip() for part in key.split(".")):
            problems.append(Problem(where, "", "allowed: key.key=value"))
            continue
        try:
            value = parse_value(value_text)
            path = _assign(data, [part.strip() for part in key.split(".")], value)
        except SpecError as error:
            problems.append(Problem(where, "", error.problems[0].message))
        except InputError as error:
            problems.append(Problem(where, "", str(error)))
        else:
            overridden[path] = where
    return data, overridden, problems


def _assign(data: Any, keys: list[str], value: Any) -> Path_:
    path: list[str | int] = []
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        step: str | int = key
        if isinstance(data, list):
            if not key.lstrip("-").isdigit() or not -len(data) <= int(key) < len(data):
                raise InputError(f"'{dotted(path)}' is a list of {len(data)}; allowed: 0 to {len(data) - 1}, received {key!r}")
            step = int(key) % len(data)
        elif not isinstance(data, dict):
            raise InputError(f"'{dotted(path)}' is {data!r} and holds no keys")
        path.append(step)
        if last:
            data[step] = value
        elif isinstance(data, dict):
            if isinstance(data.get(step), str):  # a bare name, as in `optimizer: adam`
                data[step] = {"name": data[step]}
            data = data.setdefault(step, {})
        else:
            data = data[int(step)]
    return tuple(path)


def _copy(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _copy(value) for key, value in data.items()}
    return [_copy(value) for value in data] if isinstance(data, list) else data


def _visible(data: Any, path: Path_) -> Path_:
    """`path` without the steps that the schema adds and the document does not have (`blocks.0.layers.0` of a lone layer)."""
    seen: list[str | int] = []
    for position, step in enumerate(path):
        if isinstance(data, dict) and step in data:
            data = data[step]
        elif isinstance(data, list) and isinstance(step, int) and step < len(data):
            data = data[step]
        elif not (position == len(path) - 1 and isinstance(step, str) and isinstance(data, dict)):
            continue
        seen.append(step)
    return tuple(seen)


def _locate(source: Source, overridden: dict[Path_, str], path: Path_) -> str:
    for cut in range(len(path), 0, -1):
        if path[:cut] in overridden:
            return overridden[path[:cut]]
    below = [where for place, where in overridden.items() if place[: len(path)] == path and path]
    return below[0] if below else source.locate(path)


def _order(problem: Problem) -> tuple[str, int, int]:
    name, _, rest = problem.where.rpartition(":")
    name, _, line = name.rpartition(":")
    return (name, int(line), int(rest)) if line.isdigit() and rest.isdigit() else (problem.where, 0, 0)
