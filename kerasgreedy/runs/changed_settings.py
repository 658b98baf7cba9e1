"""Settings of training that a run may go on with other than it began. Imports no TensorFlow."""

import itertools
from collections.abc import Sequence

from kerasgreedy.errors import InputError, did_you_mean
from kerasgreedy.plan.stages import Stage
from kerasgreedy.spec.overrides import split_overrides

# The sections that say how phases are trained, and what may change in each while what was trained so far still fits.
SECTIONS = (("training",), ("prune", "fine_tune"), ("dsd", "sparse"), ("dsd", "dense"), ("replace_head", "training"))
KEYS = ("epochs", "optimizer", "schedule", "clip_norm", "label_smoothing", "early_stopping", "keep", "monitor")
# The two of the data say what was meant where an older run did not ask.
ELSEWHERE = (("cache",), ("checkpoint_minutes",), ("keep_checkpoints",), ("data", "scale"), ("data", "channel_axis"))
ALLOWED = [*(".".join((*section, key)) for section in SECTIONS for key in KEYS), *(".".join(place) for place in ELSEWHERE)]


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
