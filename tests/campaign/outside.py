"""All situations from outside, made of small tables."""

from . import outside_figures, outside_files, outside_runs, outside_settings, outside_surroundings
from .situations import Situation


def situations() -> list[Situation]:
    """By group."""
    return [
        *outside_figures.figures(),
        *outside_surroundings.streams(),
        *outside_surroundings.limits(),
        *outside_surroundings.numbers(),
        *outside_files.no_files(),
        *outside_files.names(),
        *outside_runs.damaged(),
        *outside_runs.changed_data(),
        *outside_settings.settings(),
    ]
