"""Doors: the sets of named settings that others may add to, and what each of them becomes. Imports no TensorFlow.

A plug-in is a Python module that calls `add` on a door when it is imported. It is imported where the user names it
(`--plugin`), or, if it is installed, when a document asks for a name that its entry point promises.
"""

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import InitErrorDetails, core_schema

from kerasgreedy.errors import InputError, did_you_mean
from kerasgreedy.spec.strict import Strict, as_details, fault, faults, show


def imported(place: str) -> Any:
    """What stands at `package.module:attribute`."""
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def promised(group: str) -> dict[str, metadata.EntryPoint]:
    """Name -> entry point of what installed plug-ins add to a door."""
    return {point.name: point for point in metadata.entry_points(group=f"kerasgreedy.{group}")}


def import_promised(point: metadata.EntryPoint, group: str, there: Mapping[str, Any]) -> None:
    """Imports an installed plug-in, which adds to what is `there`.

    Raises:
        InputError: what it promises is not.
    """
    point.load()
    if point.name not in there:
        raise InputError(f"plug-in {point.value}: promises {group} '{point.name}' and does not add it when it is imported")


class Named(Strict):
    """Settings behind a door; subclasses give `name` one word: `name: Literal["sgd"]`."""

    name: str


@dataclass(frozen=True)
class Choice:
    """One thing behind a door.

    Attributes:
        home: `package.module:attribute` of what does the work; imported when it is first needed.
        settings: its keys in YAML, `name` among them; None where it is known by its name alone.
        plan: as `home`, a function free of TensorFlow that says beforehand what it will do; of solvers. Empty: none.
        freezes: some phase of it runs blocks that it does not train; of strategies.
    """

    home: str
    settings: type[Named] | None = None
    plan: str = ""
    freezes: bool = True


class Names:
    """A set of names; as the annotation of a field it takes one of them.

    Args:
        group: plural noun; plug-ins are found in the entry points `kerasgreedy.<group>`.
        choices: of what the package brings; where a name may be left out, the first is meant.
    """

    def __init__(self, group: str, choices: Mapping[str, Choice]):
        self.group = group
        self._choices: dict[str, Choice] = dict(choices)

    def add(self, name: str, choice: Choice) -> None:
        """Adds a choice.

        Raises:
            ValueError: the name is taken.
        """
        if name in self._choices:
            raise ValueError(f"{self.group}: the name '{name}' is taken by {self._choices[name].home}")
        self._choices[name] = choice

    @property
    def added(self) -> list[str]:
        """What is there, without a look at what is installed."""
        return list(self._choices)

    @property
    def names(self) -> list[str]:
        """What is there, and what installed plug-ins promise."""
        return [*self._choices, *(name for name in promised(self.group) if name not in self._choices)]

    def __getitem__(self, name: str) -> Choice:
        return self._choices[name]

    def load(self, name: str, what: Literal["home", "plan"] = "home") -> Any:
        """What does the work behind a name, or plans it; None where there is no such thing."""
        place = getattr(self._choices[name], what)
        return imported(place) if place else None

    def known(self, name: Any) -> bool:
        """Whether there is such a name; imports the installed plug-in that promises it, if there is one."""
        if isinstance(name, str) and name not in self._choices and (point := promised(self.group).get(name)) is not None:
            import_promised(point, self.group, self._choices)
        return isinstance(name, str) and name in self._choices

    def refused(self, name: Any) -> str:
        """What is wrong with a name that is not known."""
        return f"received {show(name)}; allowed: {', '.join(self.names)}{did_you_mean(name, self.names)}"

    def _choose(self, data: Any) -> Any:
        if not self.known(data):
            raise faults("choice", [fault(self.refused(data), data)])
        return data

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(self._choose, core_schema.any_schema())

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"enum": list(self._choices), "type": "string"}


class Door(Names):
    """A set of named settings; as the annotation of a field it validates a mapping by the class that `name` chooses.

    A bare name stands for the class's defaults.
    """

    def __init__(self, group: str, choices: Iterable[Choice]):
        super().__init__(group, {})
        for choice in choices:
            self.add_settings(choice)

    def add_settings(self, choice: Choice) -> None:
        """Adds a choice under the one word of its settings' `name`.

        Raises:
            ValueError: the name is taken, or there is none.
        """
        self.add(_name_of(choice.settings), choice)

    @property
    def classes(self) -> list[type[Named]]:
        """The settings of all that has been added."""
        return [choice.settings for choice in self._choices.values() if choice.settings]

    def _choose(self, data: Any) -> Named:
        if isinstance(data, Named) and type(data) in self.classes:
            return data
        data = {"name": data} if isinstance(data, str) else data
        if not isinstance(data, dict):
            message = f"received {show(data)}; allowed: {', '.join(self.names)}, or a mapping with `name`"
            raise faults("choice", [fault(message)])
        name = data.get("name", next(iter(self._choices)))
        if not self.known(name):
            raise faults("choice", [fault(self.refused(name), at=("name",))])
        settings = self._choices[name].settings
        assert settings is not None
        try:
            return settings.model_validate(data)
        except ValidationError as error:
            raise faults("choice", [self._of_another(detail, name) for detail in as_details(error)]) from None

    def _of_another(self, detail: InitErrorDetails, name: str) -> InitErrorDetails:
        """The fault of a key that is unknown with this name and belongs to others, in words that say so."""
        place = detail.get("loc", ())
        key = str(place[0]) if len(place) == 1 else ""
        owners = [other for other, choice in self._choices.items() if choice.settings and key in choice.settings.model_fields]
        if not owners or name in owners:
            return detail
        return fault(f"unknown key with name '{name}'; it goes with name: {' or '.join(owners)}", detail["input"], place)

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        bare = [_name_of(settings) for settings in self.classes if _has_defaults(settings)]
        classes = [handler(cls.__pydantic_core_schema__) for cls in self.classes]
        return {"anyOf": [*classes, *([{"enum": bare, "type": "string"}] if bare else [])]}


def _name_of(settings: type[Named] | None) -> str:
    field = settings.model_fields.get("name") if settings else None
    words: tuple[Any, ...] = getattr(field.annotation, "__args__", ()) if field else ()
    if len(words) != 1:
        raise ValueError(f"{getattr(settings, '__name__', settings)}: needs a field `name: Literal[...]` of one word")
    return str(words[0])


def _has_defaults(settings: type[Named]) -> bool:
    """Whether its bare name is enough."""
    return not any(field.is_required() for key, field in settings.model_fields.items() if key != "name")
