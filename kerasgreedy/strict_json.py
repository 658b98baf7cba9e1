"""JSON whose numbers are finite, from files of a bounded size."""

import json
import math
from pathlib import Path
from typing import Any

from kerasgreedy.errors import Diverged, WorkdirError
from kerasgreedy.files import read_bytes

# The largest of them name each class of a data set, or each file of it that was left out.
MAX_JSON_BYTES = 64_000_000
MAX_DIGITS = 300


def as_json(value: Any, indent: int | None = None) -> str:
    """Plain data as JSON, which has no words for what is not a finite number.

    Raises:
        Diverged: a figure is not finite; says which.
    """
    try:
        return json.dumps(value, indent=indent, allow_nan=False)
    except ValueError:
        place = _not_finite(value)
        if place is None:
            raise
        raise Diverged(f"{place} is not a finite number; nothing was written") from None


def finite(value: float) -> float | None:
    """A figure that JSON can hold: None in the place of what is not finite."""
    return value if math.isfinite(value) else None


def is_number(value: Any) -> bool:
    """Whether a value of a document is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def value_text(value: Any) -> str:
    """A value of a document as tables and pictures show it: words as they are."""
    return value if isinstance(value, str) else as_json(value)


def _not_finite(value: Any, place: str = "") -> str | None:
    """The first figure in plain data that is not finite, as `depths.0.loss = nan`."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{place or 'a figure'} = {value}"
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return next((found for key, each in inside if (found := _not_finite(each, f"{place}.{key}".lstrip(".")))), None)


def parse_json(text: str | bytes) -> Any:
    """JSON whose numbers are finite, and the whole ones can be made floats.

    Raises:
        ValueError, RecursionError: it is none.
    """

    def no_number(word: str) -> Any:
        raise ValueError(f"{word} is no finite number")

    def real(digits: str) -> float:
        return value if math.isfinite(value := float(digits)) else no_number(digits[:40])

    def whole(digits: str) -> int:
        if len(digits) > MAX_DIGITS:
            raise ValueError(f"a number of {len(digits)} digits")
        return int(digits)

    return json.loads(text, parse_int=whole, parse_float=real, parse_constant=no_number)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        WorkdirError: it cannot be read, or is none.
    """
    try:
        content = parse_json(read_bytes(path, MAX_JSON_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise WorkdirError(f"{path}: damaged ({error})") from None
    if not isinstance(content, dict):
        raise WorkdirError(f"{path}: damaged (not a JSON object)")
    return content
