"""Where keys stand in the documents: for people who wrote one at the wrong place."""

import typing
from functools import cache
from typing import Any

from pydantic import BaseModel

from kerasgreedy.spec.model import ModelSpec
from kerasgreedy.spec.recipe import Recipe

# Deeper keys are those of layers, which stand in lists and have no path that is worth naming.
_DEEPEST = 4


@cache
def _all_paths() -> tuple[str, ...]:
    found: dict[str, None] = {}
    for model in (Recipe, ModelSpec):
        _collect(model, "", found, 1)
    return tuple(found)


def _collect(model: type[BaseModel], before: str, found: dict[str, None], depth: int) -> None:
    for name, field in model.model_fields.items():
        path = f"{before}{name}"
        found[path] = None
        if depth < _DEEPEST:
            for inner in _models(field.annotation):
                _collect(inner, f"{path}.", found, depth + 1)


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The schema classes that a value may be of; not those inside lists and mappings."""
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    if typing.get_origin(annotation) in (list, dict, tuple):
        return []
    if hasattr(annotation, "__value__"):  # a named type
        return _models(annotation.__value__)
    return [model for part in typing.get_args(annotation) for model in _models(part)]


def paths_of(key: str) -> list[str]:
    """Where a key stands, as `training.epochs`: the shortest paths first, three at most."""
    matching = [path for path in _all_paths() if "." in path and path.rpartition(".")[2] == key]
    return sorted(matching, key=lambda path: (path.count("."), _all_paths().index(path)))[:3]
