"""`--set a.b=value`: overrides of either document, checked as if they stood in the file."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kerasgreedy.errors import InputError, Problem, SpecError, did_you_mean, dotted
from kerasgreedy.spec.model import ModelSpec
from kerasgreedy.spec.paths import paths_of
from kerasgreedy.spec.recipe import Recipe
from kerasgreedy.spec.source import Path_, parse_value


@dataclass(frozen=True)
class Override:
    """One override.

    Attributes:
        text: as the user typed it.
        keys: the way to the value inside its document.
        value: YAML text of the value.
    """

    text: str
    keys: tuple[str, ...]
    value: str

    @property
    def where(self) -> str:
        """Its place in messages."""
        return f"--set {self.text}"


def parse_override(text: str) -> Override:
    """Takes `key.key=value` apart; a leading `spec.` or `recipe.` stays.

    Raises:
        InputError: it has another form.
    """
    key, equals, value = text.partition("=")
    keys = tuple(part.strip() for part in key.split("."))
    if not equals or not all(keys):
        raise InputError(f"--set {text}: allowed: key.key=value")
    return Override(text, keys, value)


def split_overrides(texts: Iterable[str]) -> tuple[list[Override], list[Override]]:
    """Sorts overrides into those for the spec and those for the recipe, by their first key.

    Raises:
        InputError: a first key that neither document has, or that both have.
    """
    sides: tuple[list[Override], list[Override]] = ([], [])
    for text in texts:
        override = parse_override(text)
        first = override.keys[0]
        in_spec, in_recipe = first in ModelSpec.model_fields, first in Recipe.model_fields
        if first in ("spec", "recipe"):
            if len(override.keys) == 1:
                raise InputError(f"--set {text}: names a whole document; write {first}.key=value")
            sides[first == "recipe"].append(Override(text, override.keys[1:], override.value))
        elif in_spec and in_recipe:
            raise InputError(f"--set {text}: both documents have '{first}'; write spec.{first} or recipe.{first}")
        elif in_spec or in_recipe:
            sides[in_recipe].append(override)
        else:
            known = [*ModelSpec.model_fields, *Recipe.model_fields]
            raise InputError(f"--set {text}: unknown key '{first}'{_elsewhere(override) or did_you_mean(first, known)}")
    return sides


def _elsewhere(override: Override) -> str:
    """A hint for a key that stands deeper in a document."""
    found = paths_of(override.keys[0])
    if not found:
        return ""
    texts = [".".join((path, *override.keys[1:])) + f"={override.value}" for path in found]
    return f"; did you mean --set {' or --set '.join(texts)}?"


def apply_overrides(data: Any, overrides: Sequence[Override]) -> tuple[dict[str, Any], dict[Path_, str], list[Problem]]:
    """A changed copy of a document's data, the place of each changed value, and what could not be applied."""
    data = _copy(data)
    overridden: dict[Path_, str] = {}
    problems: list[Problem] = []
    for override in overrides:
        try:
            path = _assign(data, override.keys, parse_value(override.value))
        except SpecError as error:
            problems.append(Problem(override.where, "", error.problems[0].message))
        except InputError as error:
            problems.append(Problem(override.where, "", str(error)))
        else:
            overridden[path] = override.where
    return data, overridden, problems


def _assign(data: Any, keys: Sequence[str], value: Any) -> Path_:
    path: list[str | int] = []
    for depth, key in enumerate(keys):
        step: str | int = key
        if isinstance(data, list):
            if not re.fullmatch(r"-?[0-9]{1,9}", key) or not -len(data) <= int(key) < len(data):
                raise InputError(f"'{dotted(path)}' is a list of {len(data)}; allowed: 0 to {len(data) - 1}, received {key!r}")
            step = int(key) % len(data)
        elif not isinstance(data, dict):
            raise InputError(f"'{dotted(path)}' is {data!r} and holds no keys")
        path.append(step)
        if depth == len(keys) - 1:
            data[step] = value
        elif isinstance(data, dict):
            if isinstance(data.get(key), str):  # a bare name, as in `optimizer: adam`
                data[key] = {"name": data[key]}
            data = data.setdefault(key, {})
        else:
            data = data[int(step)]
    return tuple(path)


def _copy(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _copy(value) for key, value in data.items()}
    return [_copy(value) for value in data] if isinstance(data, list) else data
