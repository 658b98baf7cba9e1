"""What a sweep goes through: values of settings, and seeds. Loads no TensorFlow."""

import hashlib
import itertools
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kerasgreedy.errors import Diverged, InputError, SpecError
from kerasgreedy.spec.overrides import split_overrides
from kerasgreedy.spec.source import parse_value
from kerasgreedy.strict_json import as_json, value_text

Point = tuple[Any, ...]  # a value for each setting
SPACED = re.compile(r"([^:,]+):([^:,]+):log(\d{1,4})")
SEED = "recipe.seed"
LONGEST_NAME, MOST_POINTS, WHOLE = 60, 10_000, 2**53


@dataclass(frozen=True)
class Sweep:
    """Several settings, each with several values: every combination is trained, with every seed.

    Attributes:
        spec, recipe: as the user names them.
        over: setting, written as for `--set` -> its values, as YAML reads them.
        seeds: of `recipe.seed`, in place of the recipe's.
        overrides: `key.key=value` texts for both documents, the same for all runs.

    Raises:
        InputError: two of the settings are one, or one is part of another; one is the seed, or replaces an override.
    """

    spec: str
    recipe: str | None
    over: dict[str, tuple[Any, ...]]
    seeds: tuple[int, ...] = (0,)
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        keys = [*zip(self.over, self.keys, strict=True)]
        for written, key in keys:
            if _within(SEED, key):
                raise InputError(f"--over {written}: seeds are not swept but repeated; write --seeds")
            for other_written, other in keys:
                if other_written != written and _within(other, key):
                    raise InputError(f"--over {written}: holds '{other_written}', which is swept too; allowed: one of them")
        for text in self.overrides:
            own = full_key(text.partition("=")[0], f"--set {text}")
            if own == SEED:
                raise InputError(f"--set {text}: the seeds of a sweep are those of --seeds")
            replaced = next((written for written, key in keys if _within(own, key)), None)
            if replaced:
                raise InputError(f"--set {text}: --over {replaced} takes its place; allowed: one of them")
        if math.prod(map(len, self.over.values())) > MOST_POINTS:
            raise InputError(f"sweep: more than {MOST_POINTS:,} combinations")

    @property
    def keys(self) -> tuple[str, ...]:
        """The settings with the document that they are of, whichever way they were written."""
        return tuple(full_key(key, f"--over {key}") for key in self.over)

    @property
    def points(self) -> tuple[Point, ...]:
        """Every combination; the last setting changes fastest."""
        return tuple(itertools.product(*self.over.values()))

    def sets(self, point: Point, seed: int) -> list[str]:
        """What `--set` would say for a run."""
        # JSON is YAML but for its escapes of what is outside the basic plane.
        swept = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in zip(self.over, point, strict=True)]
        return [*self.overrides, *swept, f"{SEED}={seed}"]


def full_key(key: str, where: str) -> str:
    """`recipe.training.epochs` of `training.epochs`.

    Raises:
        InputError: no document has it, or it counts from the end of a list, so that it may be another's second name.
    """
    try:
        sides = split_overrides([f"{key}=null"])
    except InputError as error:
        raise InputError(str(error).replace(f"--set {key}=null", where)) from None
    name, (own,) = next((name, side) for name, side in zip(("spec", "recipe"), sides, strict=True) if side)
    if any(re.fullmatch(r"-\d+", part) for part in own.keys) and where.startswith("--over"):
        raise InputError(f"{where}: allowed in a sweep: places of a list counted from its start, from 0")
    return ".".join((name, *own.keys))


def _within(key: str, other: str) -> bool:
    return f"{key}.".startswith(f"{other}.")


def over_of(texts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """`KEY=V1,V2,...` or `KEY=1e-4:1e-1:log4`, four numbers of equal ratios; a value that holds commas stands in its brackets.

    Raises:
        InputError: it is neither, or a setting or a value stands there twice.
    """
    found: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        key, equals, values = (part.strip() for part in text.partition("="))
        if not (key and equals and values):
            raise InputError(f"--over {text}: allowed: key.key=value,value,... or key.key=first:last:logN")
        if key in found:
            raise InputError(f"--over {text}: '{key}' stands there twice; allowed: all its values in one --over")
        found[key] = _values(f"--over {text}", values)
    if not found:
        raise InputError("sweep: nothing to sweep; allowed: --over key.key=value,value,...")
    return found


def _values(where: str, text: str) -> tuple[Any, ...]:
    spaced = SPACED.fullmatch(text)
    try:
        listed = log_spaced(where, *spaced.groups()) if spaced else parse_value(f"[{text}]")
        values = [_number(value) for value in listed]
        seen = [as_json(value) for value in values]
        json.dumps(values, ensure_ascii=False).encode()
    except SpecError as error:
        raise InputError(f"{where}: {error.problems[0].message}") from None
    except Diverged as error:
        raise InputError(f"{where}: {error}".removesuffix("; nothing was written")) from None
    except UnicodeEncodeError:
        raise InputError(f"{where}: half of a pair of characters") from None
    twice = next((value for value in seen if seen.count(value) > 1), None)
    if twice:
        raise InputError(f"{where}: {twice} stands there twice")
    return tuple(values)


def _number(value: Any) -> Any:
    """A whole number as one, however it was written, so that 1 and 1.0 are not two values."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < WHOLE else value


def log_spaced(where: str, first: str, last: str, count: str) -> tuple[float, ...]:
    """So many numbers of equal ratios: both ends as they are, those between to four digits.

    Raises:
        InputError: they are no rising positive numbers, fewer than two, or so close that two are the same.
    """
    try:
        low, high, number = float(first), float(last), int(count)
        if not (number >= 2 and 0 < low < high < math.inf):
            raise ValueError
        step = (math.log(high) - math.log(low)) / (number - 1)
        between = [float(f"{math.exp(math.log(low) + i * step):.4g}") for i in range(1, number - 1)]
        found = (low, *between, high)
        if any(one >= other for one, other in itertools.pairwise(found)):
            raise ValueError
    except ValueError:
        message = "allowed: first:last:logN with 0 < first < last and N from 2, such as 1e-5:1e-3:log8"
        raise InputError(f"{where}: {message}; they differ in the first four digits") from None
    return found


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Key -> how it is called in tables and names of folders: its last part, where no other has the same."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: end if last.count(end) == 1 and not end.isdigit() else key for key, end in zip(keys, last, strict=True)}


def run_folder(keys: Sequence[str], point: Point, seed: int) -> str:
    """The name of a run's folder, another for every combination: `radius_0.5_seed_0`."""
    names = short_names(keys)
    plain = "_".join(f"{names[key]}_{value_text(value)}" for key, value in zip(keys, point, strict=True))
    name = re.sub(r"[^A-Za-z0-9.+-]+", "_", plain)[:LONGEST_NAME]
    if name != plain or any(isinstance(value, str) and _unclear(value, len(keys) > 1) for value in point):
        name += "_" + hashlib.sha256(as_json(list(point)).encode()).hexdigest()[:8]
    return f"{name}_seed_{seed}"


def _unclear(word: str, among_others: bool) -> bool:
    """Whether it may be taken for another value: '1' for 1, or for the next setting."""
    try:
        return parse_value(word) != word or (among_others and "_" in word)
    except SpecError:
        return True
