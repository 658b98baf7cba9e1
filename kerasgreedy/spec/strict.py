"""The base of every schema class: unknown keys are errors that name the nearest known key."""

from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from kerasgreedy.errors import did_you_mean


def fault(message: str, received: Any = None, at: tuple[str | int, ...] = ()) -> InitErrorDetails:
    """One line of a `ValidationError` with a message of ours, for use with `faults`."""
    return InitErrorDetails(type=PydanticCustomError("fault", "{message}", {"message": message}), loc=at, input=received)


def faults(title: str, details: list[InitErrorDetails]) -> ValidationError:
    """A `ValidationError` of ready-made lines."""
    return ValidationError.from_exception_data(title, details)


def as_details(error: ValidationError) -> list[InitErrorDetails]:
    """The lines of a `ValidationError`, fit to be raised again among others."""
    return [
        InitErrorDetails(
            type=PydanticCustomError("fault", "{message}", {"message": message_of(line)}),
            loc=line["loc"],
            input=line.get("input"),
        )
        for line in error.errors(include_url=False)
    ]


def message_of(line: Any) -> str:
    """A sentence for one pydantic error line: what was received, what is allowed, the nearest name."""
    kind, received, context = line["type"], line.get("input"), line.get("ctx", {})
    if kind == "fault":
        return str(context["message"])
    if kind == "missing":
        return MISSING
    if kind == "value_error":
        return str(context["error"])
    if kind == "too_short":
        return f"received {show(received)}; allowed: a list of at least {context['min_length']}"
    if kind == "string_pattern_mismatch":
        return f"received {show(received)}; allowed: text of the form {context['pattern']}"
    if kind == "literal_error" and context["expected"] == "True":
        return f"received {show(received)}; allowed: true"
    if kind == "literal_error":
        hint = did_you_mean(received, context["expected"].replace("'", "").replace(" or ", ", ").split(", "))
        return f"received {show(received)}; allowed: {context['expected']}{hint}"
    words = str(line["msg"]).removeprefix("Input should be ").removeprefix("a valid ")
    return f"received {show(received)}; allowed: {words}"


def show(value: Any, most: int = 60) -> str:
    """A short rendering of a received value, in YAML's words."""
    text = {True: "true", False: "false", None: "null"}[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= most else text[: most - 3] + "..."


MISSING = "required key is missing"
# Whole numbers that count something; the bound keeps a slip of the finger from asking for the machine's whole memory.
Count: TypeAlias = Annotated[int, Field(ge=1, le=1_000_000)]


class Strict(BaseModel):
    """A mapping with a fixed set of keys; types are not converted (a number in quotes is not a number)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _known_keys(cls, data: Any, handler: Callable[[Any], Any]) -> Any:
        if not isinstance(data, dict):
            if isinstance(data, cls):
                return data
            keys = ", ".join(cls.model_fields)
            raise faults(cls.__name__, [fault(f"received {show(data)}; allowed: a mapping with the keys {keys}", data)])
        known = set(cls.model_fields)
        details = [
            fault(f"unknown key{did_you_mean(key, known) or '; allowed: ' + ', '.join(cls.model_fields)}", value, (key,))
            for key, value in data.items()
            if key not in known
        ]
        try:
            model = handler({key: value for key, value in data.items() if key in known})
        except ValidationError as error:
            details += as_details(error)
        if details:
            raise faults(cls.__name__, details)
        return model
