"""Doors: the sets of named settings that others may add to, and what each of them becomes. Imports no TensorFlow.

A plug-in is a Python module that calls `add` on a door when it is imported. It is imported where the user names it
(`--plugin`), or, if it is installed, when a document asks for a name that its entry point promises.
"""

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import InitErrorDetails, core_schema

from kerasgreedy.errors import InputError, did_you_mean
from kerasgreedy.spec.strict import Strict, as_details, fault, faults, show


class Named(Strict):
    """Settings behind a door; subclasses give `name` one word: `name: Literal["sgd"]`."""

    name: str


@dataclass(frozen=True)
class Choice:
    """One thing behind a door.

    Attributes:
        settings: its keys in YAML, `name` among them.
        home: `package.module:attribute` of what does the work; imported when it is first needed.
        plan: the same of a function, free of TensorFlow, that says beforehand what it will do; of solvers. Empty: none.
    """

    settings: type[Named]
    home: str
    plan: str = ""


class Door:
    """A set of named settings; as the annotation of a field it validates a mapping by the class that `name` chooses.

    A bare name stands for the class's defaults.

    Args:
        group: plural noun; plug-ins are found in the entry points `kerasgreedy.<group>`.
        choices: of what the package brings; the first is taken where `name` is left out.
    """

    def __init__(self, group: str, choices: Iterable[tuple[type[Named], str] | tuple[type[Named], str, str]]):
        self.group = group
        self._choices: dict[str, Choice] = {}
        for choice in choices:
            self.add(*choice)

    def add(self, settings: type[Named], home: str, plan: str = "") -> None:
        """Adds a choice under the word of its `name`, see `Choice`.

        Raises:
            ValueError: the name is taken, or the settings have none.
        """
        name = _name_of(settings)
        if name in self._choices:
            raise ValueError(f"{self.group}: the name '{name}' is taken by {self._choices[name].home}")
        self._choices[name] = Choice(settings, home, plan)

    @property
    def names(self) -> list[str]:
        """What is there, and what installed plug-ins promise."""
        return [*self._choices, *(name for name in self._promised() if name not in self._choices)]

    @property
    def classes(self) -> list[type[Named]]:
        """The settings of all that has been added."""
        return [choice.settings for choice in self._choices.values()]

    def load(self, settings: Named, what: Literal["home", "plan"] = "home") -> Any:
        """What does the work behind some settings, or plans it; None where there is no such thing."""
        place = getattr(self._choices[_name_of(type(settings))], what)
        module, _, attribute = place.partition(":")
        return getattr(importlib.import_module(module), attribute) if place else None

    def choose(self, data: Any) -> Named:
        """Validates settings by their name.

        Raises:
            ValidationError: there is no such name, or they do not fit it.
        """
        if isinstance(data, Named) and type(data) in self.classes:
            return data
        data = {"name": data} if isinstance(data, str) else data
        if not isinstance(data, dict):
            message = f"received {show(data)}; allowed: {', '.join(self.names)}, or a mapping with `name`"
            raise faults("choice", [fault(message)])
        name = data.get("name", next(iter(self._choices)))
        if name not in self._choices and isinstance(name, str):
            self._keep_promise(name)
        if not isinstance(name, str) or name not in self._choices:
            message = f"received {name!r}; allowed: {', '.join(self.names)}{did_you_mean(name, self.names)}"
            raise faults("choice", [fault(message, at=("name",))])
        try:
            return self._choices[name].settings.model_validate(data)
        except ValidationError as error:
            raise faults("choice", [self._of_another(detail, name) for detail in as_details(error)]) from None

    def _of_another(self, detail: InitErrorDetails, name: str) -> InitErrorDetails:
        """The fault of a key that is unknown with this name and belongs to others, in words that say so."""
        place = detail.get("loc", ())
        key = str(place[0]) if len(place) == 1 else ""
        owners = [other for other, choice in self._choices.items() if key in choice.settings.model_fields]
        if not owners or name in owners:
            return detail
        return fault(f"unknown key with name '{name}'; it goes with name: {' or '.join(owners)}", detail["input"], place)

    def _promised(self) -> dict[str, metadata.EntryPoint]:
        return {point.name: point for point in metadata.entry_points(group=f"kerasgreedy.{self.group}")}

    def _keep_promise(self, name: str) -> None:
        """Imports the installed plug-in that brings a name, if there is one."""
        point = self._promised().get(name)
        if point is None:
            return
        point.load()
        if name not in self._choices:
            raise InputError(f"plug-in {point.value}: promises {self.group} '{name}' and does not add it when it is imported")

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(self.choose, core_schema.any_schema())

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        bare = [name for name, choice in self._choices.items() if _has_defaults(choice.settings)]
        classes = [handler(cls.__pydantic_core_schema__) for cls in self.classes]
        return {"anyOf": [*classes, *([{"enum": bare, "type": "string"}] if bare else [])]}


def _name_of(settings: type[Named]) -> str:
    field = settings.model_fields.get("name")
    words: tuple[Any, ...] = getattr(field.annotation, "__args__", ()) if field else ()
    if len(words) != 1:
        raise ValueError(f"{settings.__name__}: needs a field `name: Literal[...]` of one word")
    return str(words[0])


def _has_defaults(settings: type[Named]) -> bool:
    """Whether its bare name is enough."""
    return not any(field.is_required() for key, field in settings.model_fields.items() if key != "name")
