"""What a sweep goes through: values of settings, and seeds. Loads no TensorFlow."""

import hashlib
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kerasgreedy.errors import Diverged, InputError, SpecError
from kerasgreedy.spec.source import parse_value
from kerasgreedy.strict_json import as_json

Point = tuple[Any, ...]  # a value for each key
SPACED = re.compile(r"([^:,]+):([^:,]+):log(\d{1,4})")
SEED_KEYS = ("seed", "recipe.seed")
LONGEST_NAME = 60


@dataclass(frozen=True)
class Sweep:
    """Several settings, each with several values: every combination is trained, with every seed.

    Attributes:
        spec, recipe: as the user names them.
        over: setting, written as for `--set` -> its values, as YAML reads them.
        seeds: of `recipe.seed`, in place of the recipe's.
        overrides: `key.key=value` texts for both documents, the same for all runs.
    """

    spec: str
    recipe: str | None
    over: dict[str, tuple[Any, ...]]
    seeds: tuple[int, ...] = (0,)
    overrides: tuple[str, ...] = ()

    @property
    def points(self) -> tuple[Point, ...]:
        """Every combination; the last setting changes fastest."""
        return tuple(itertools.product(*self.over.values()))

    def sets(self, point: Point) -> list[str]:
        """What `--set` would say for a run, but for its seed."""
        return [*self.overrides, *(f"{key}={as_json(value)}" for key, value in zip(self.over, point, strict=True))]


def over_of(texts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """`KEY=V1,V2,...` or `KEY=1e-4:1e-1:log4`, four numbers of equal ratios; a value that holds commas stands in its brackets.

    Raises:
        InputError: it is neither, a setting or a value stands there twice, or it is the seed.
    """
    found: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        key, equals, values = (part.strip() for part in text.partition("="))
        if not (key and equals and values):
            raise InputError(f"--over {text}: allowed: key.key=value,value,... or key.key=first:last:logN")
        if key in SEED_KEYS:
            raise InputError(f"--over {text}: seeds are not swept but repeated; write --seeds {values}")
        if key in found:
            raise InputError(f"--over {text}: '{key}' stands there twice; allowed: all its values in one --over")
        found[key] = _values(text, values)
    if not found:
        raise InputError("sweep: nothing to sweep; allowed: --over key.key=value,value,...")
    return found


def _values(text: str, values: str) -> tuple[Any, ...]:
    spaced = SPACED.fullmatch(values)
    if spaced:
        return log_spaced(f"--over {text}", *spaced.groups())
    try:
        listed = parse_value(f"[{values}]")
        seen = [as_json(value) for value in listed]
    except SpecError as error:
        raise InputError(f"--over {text}: {error.problems[0].message}") from None
    except Diverged as error:
        raise InputError(f"--over {text}: {error}".removesuffix("; nothing was written")) from None
    twice = next((value for value in seen if seen.count(value) > 1), None)
    if twice:
        raise InputError(f"--over {text}: {twice} stands there twice")
    return tuple(listed)


def log_spaced(where: str, first: str, last: str, count: str) -> tuple[float, ...]:
    """So many numbers of equal ratios, to four digits.

    Raises:
        InputError: they are no rising positive numbers, or fewer than two.
    """
    try:
        low, high, number = float(first), float(last), int(count)
        if not (number >= 2 and 0 < low < high < math.inf):
            raise ValueError
    except ValueError:
        message = "allowed: first:last:logN with 0 < first < last and N from 2, such as 1e-5:1e-3:log8"
        raise InputError(f"{where}: {message}") from None
    return tuple(float(f"{low * (high / low) ** (i / (number - 1)):.4g}") for i in range(number))


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Key -> how it is called in tables and names of folders: its last part, where no other has the same."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: end if last.count(end) == 1 and not end.isdigit() else key for key, end in zip(keys, last, strict=True)}


def value_text(value: Any) -> str:
    """A value as tables show it."""
    return value if isinstance(value, str) else as_json(value)


def run_folder(over: Sequence[str], point: Point, seed: int) -> str:
    """The name of a run's folder, another for every combination: `radius_0.5_seed_0`."""
    names = short_names(over)
    plain = "_".join(f"{names[key]}_{value_text(value)}" for key, value in zip(over, point, strict=True))
    name = re.sub(r"[^A-Za-z0-9.+-]+", "_", plain)[:LONGEST_NAME]
    if name != plain or any(isinstance(value, str) for value in point):  # '1' and 1 are two values
        name += "_" + hashlib.sha256(as_json(list(point)).encode()).hexdigest()[:8]
    return f"{name}_seed_{seed}"
