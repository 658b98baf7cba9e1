"""Settings of training that a run may go on with other than it began. Imports no TensorFlow."""

import itertools
import json
from collections.abc import Sequence

from kerasgreedy.data.named import kind_of
from kerasgreedy.errors import DataError, InputError, did_you_mean
from kerasgreedy.files import user_path
from kerasgreedy.plan.stages import Stage
from kerasgreedy.spec.overrides import split_overrides
from kerasgreedy.spec.source import parse_value

# The sections that say how phases are trained, and what may change in each while what was trained so far still fits.
SECTIONS = (("training",), ("prune", "fine_tune"), ("dsd", "sparse"), ("dsd", "dense"), ("replace_head", "training"))
KEYS = ("epochs", "optimizer", "schedule", "clip_norm", "label_smoothing", "early_stopping", "keep", "monitor")
# Where the data are now: it is checked that they are those that the run began with.
PLACES = (("data", "dataset"), ("data", "data_dir"))
# Scale and axis say what was meant where an older run did not ask.
ELSEWHERE = (("cache",), ("checkpoint_minutes",), ("keep_checkpoints",), ("data", "scale"), ("data", "channel_axis"), *PLACES)
ALLOWED = [*(".".join((*section, key)) for section in SECTIONS for key in KEYS), *(".".join(place) for place in ELSEWHERE)]


def moved_data(dataset: str, place: str) -> str:
    """The change that says where a run's data are now, as `key.key=value`.

    Args:
        dataset: the run's, as its recipe writes it.
        place: `folder:PATH` or `npz:PATH` as the run's, or PATH alone; of a named set the folder of its files or its TFDS copies.

    Raises:
        DataError: such data cannot move, or are of another kind.
    """
    kind, _ = kind_of(dataset)
    given, rest = kind_of(place)
    if kind == "embedded":
        raise DataError(f"--data: '{dataset}' comes with a package and lies nowhere; leave it out")
    if given in ("folder", "npz", "tfds") and rest:
        if given != kind or given == "tfds":
            raise DataError(f"--data: received '{place}'; the run's data are '{dataset}'; allowed: {kind}:PATH, or a path")
        place = rest
    if kind in ("folder", "npz"):
        return f"data.dataset={_quoted(f'{kind}:{_absolute(place)}')}"
    return f"data.data_dir={_quoted(_absolute(place))}"


def absolute_places(overrides: Sequence[str]) -> list[str]:
    """Changes that will be found from any folder."""
    found = []
    for text in overrides:
        key, _, value = text.partition("=")
        kind, rest = kind_of(str(parse_value(value))) if key.strip().removeprefix("recipe.") == "data.dataset" else ("", "")
        found.append(f"{key}={_quoted(f'{kind}:{_absolute(rest)}')}" if kind in ("folder", "npz") and rest else text)
    return found


def _absolute(place: str) -> str:
    return str(user_path(place).absolute())


def _quoted(text: str) -> str:
    """A text of YAML; json's own escapes of what is outside the basic plane are no such text."""
    return json.dumps(text, ensure_ascii=False)


def only_places(overrides: Sequence[str]) -> bool:
    """Whether nothing changes but where the data are."""
    return all(any(_within(override.keys, place) for place in PLACES) for override in split_overrides(overrides)[1])


def check_changes(overrides: Sequence[str]) -> None:
    """Refuses `key.key=value` texts that would make another run of it.

    Raises:
        InputError: names the key and what may change.
    """
    for_spec, for_recipe = split_overrides(overrides)
    for override in (*for_spec, *for_recipe):
        allowed = any(_within(override.keys, tuple(place.split("."))) for place in ALLOWED)
        if override in for_spec or not allowed:
            key = ".".join(override.keys)
            raise InputError(
                f"{override.where}: a run cannot go on with another '{key}'{did_you_mean(key, ALLOWED)}; allowed: "
                f"{', '.join(KEYS)} of training and of the sections that change it, {', '.join('.'.join(p) for p in ELSEWHERE)}. "
                "For anything else train a new run with start_from"
            )


def _within(keys: Sequence[str], place: tuple[str, ...]) -> bool:
    return tuple(keys[: len(place)]) == place


def check_same_stages(began: Sequence[Stage], now: Sequence[Stage]) -> None:
    """Refuses changes that give a run other stages than it began with.

    Raises:
        InputError: names the first that differs.
    """
    names = [[(type(stage), stage.name) for stage in stages] for stages in (began, now)]
    if names[0] != names[1]:
        odd = next(one or two for one, two in itertools.zip_longest(*names) if one != two)
        raise InputError(f"--set: with these changes the run would have other stages ('{odd[1]}' is in only one of the plans)")
