"""How fast runs converge: iterations until the training loss at which a reference run ends (support, Fig. 1 and 3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasgreedy.errors import InputError, did_you_mean
from kerasgreedy.files import user_path
from kerasgreedy.reports.training_curves import Course, Series, iterations_to, read_course, refreshes, series

SPLITS = ("train_exact", "train", "validation")
# A reference that had its last loss before this share of its iterations was not getting better any more.
SETTLED = 0.9
FIGURES = ("target_loss", "iterations_to_target", "ratio", "fewer", "iterations", "final_loss", "final_error")
MASKED_NOTE = (
    "training losses of epochs under masks are those of the masked network and cannot be compared with the others; those "
    "of split train_exact can, which is logged with training.monitor: train_loss and keep: best"
)


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ in their seed only.

    Attributes:
        label: of the curve and of the row.
        courses: of the runs; their seeds differ.
    """

    label: str
    courses: tuple[Course, ...]


def read_groups(arguments: Sequence[str]) -> list[RunGroup]:
    """Runs given as `RUN` or `LABEL=RUN`, in order of first appearance.

    Runs of one label are a group. One without a label is a group of its own, named by its folder, or by its whole path where that
    name is taken. A folder that is there counts as a path even if its name holds `=`.

    Raises:
        InputError: none is given, one is given twice, or two of a group have the same seed.
        WorkdirError: a run cannot be read.
    """
    given = [_parse(text) for text in arguments]
    if not given:
        raise InputError("no runs given; allowed: RUN or LABEL=RUN, once or more")
    places = [path.resolve() for _, path in given]
    again = next((path for i, (_, path) in enumerate(given) if places[i] in places[:i]), None)
    if again is not None:
        raise InputError(f"{again}: given twice")
    names = [label for label, _ in given if label is not None]
    names = list(dict.fromkeys(names)) + [path.absolute().name for label, path in given if label is None]
    groups: dict[str, list[Course]] = {}
    for label, path in given:
        own = path.absolute().name
        name = label if label is not None else own if names.count(own) == 1 else str(path)
        groups.setdefault(name, []).append(read_course(path))
    for name, courses in groups.items():
        for index, course in enumerate(courses):
            same = next((other for other in courses[:index] if other.seed == course.seed), None)
            if same is not None:
                both = f"{same.path} and {course.path} both have seed {course.seed}"
                raise InputError(f"{name}: {both}; allowed: one run of each seed in a group")
    return [RunGroup(name, tuple(courses)) for name, courses in groups.items()]


def _parse(text: str) -> tuple[str | None, Path]:
    path = user_path(text)
    if "=" not in text or path.is_dir():
        return None, path
    label, _, place = text.partition("=")
    if not label.strip() or not place:
        raise InputError(f"received '{text}'; allowed: RUN or LABEL=RUN")
    return label.strip(), user_path(place)


def comparison(
    groups: Sequence[RunGroup],
    reference: str | None = None,
    split: str | None = None,
    head: str | None = None,
    phase: str | None = None,
) -> dict[str, Any]:
    """Iterations of each run until the loss at which the reference run of the same seed ends.

    Both are looked for in the same way, with `iterations_to`: the reference too may have had its last loss before its end. A
    reference of a single run stands for every seed.

    Args:
        reference: label of a group. Default: the first.
        split: that the loss is taken from. Default: `train_exact` if every run has it, else `train`.
        head, phase: as in `series`.

    Returns:
        `reference`, `split`, `head`, `phase`, `notes` (sentences that the reader should know) and `groups`. A group: `label`,
        `reached` (how many of its runs did), `runs`, and of their figures `mean`, `low`, `high` over the runs that have them, or
        null. A run: `workdir`, `seed`, `finished`, `reference` (folder), `refreshes` (iterations), and the FIGURES `target_loss`,
        `iterations_to_target`, `ratio` (to the reference's), `fewer` (1 - ratio; null, all three, where it is not reached),
        `iterations` (trained so far), `final_loss`, `final_error` (1 - validation accuracy; null where nothing is held out).

    Raises:
        InputError: an unknown label, split, head or phase; a run without the split; a seed that the reference lacks.
    """
    chosen = _reference(groups, reference)
    courses = [course for group in groups for course in group.courses]
    split = _split(courses, split, head, phase)
    curves = {course.path: series(course, split, head, phase) for course in courses}
    rows = []
    for group in groups:
        runs = []
        for course in group.courses:
            other = _paired(course, group, chosen)
            final = series(course, "validation", head, phase).errors
            runs.append(
                {
                    "workdir": str(course.path),
                    "seed": course.seed,
                    "finished": course.finished,
                    "reference": str(other.path),
                    **_reaching(curves[course.path], curves[other.path]),
                    "final_loss": curves[course.path].losses[-1],
                    "final_error": final[-1] if final else None,
                    "refreshes": refreshes(course, phase),
                }
            )
        rows.append({"label": group.label, **_summary(runs), "runs": runs})
    notes = _notes(groups, chosen, split, curves)
    return {"reference": chosen.label, "split": split, "head": head, "phase": phase, "groups": rows, "notes": notes}


def _reference(groups: Sequence[RunGroup], label: str | None) -> RunGroup:
    labels = [group.label for group in groups]
    if label is not None and label not in labels:
        raise InputError(f"--reference: received '{label}'; allowed: {', '.join(labels)}{did_you_mean(label, labels)}")
    return groups[0 if label is None else labels.index(label)]


def _split(courses: Sequence[Course], split: str | None, head: str | None, phase: str | None) -> str:
    """The split that was asked for, or the best that all runs have."""
    if split is not None and split not in SPLITS:
        raise InputError(f"--split: received '{split}'; allowed: {', '.join(SPLITS)}{did_you_mean(split, SPLITS)}")
    wanted = [split] if split else ["train_exact", "train"]
    for name in wanted:
        lacking = [course for course in courses if not len(series(course, name, head, phase))]
        if not lacking:
            return name
    there = [name for name in SPLITS if len(series(lacking[0], name, head, phase))]
    raise InputError(
        f"{lacking[0].path}: nothing of the split {wanted[-1]} was logged{f' for head {head}' if head else ''}; "
        f"there is: {', '.join(there) or 'nothing'}"
    )


def _paired(course: Course, group: RunGroup, reference: RunGroup) -> Course:
    """The reference run that a run is compared with: itself, that of its seed, or the only one."""
    if group is reference:
        return course
    for other in reference.courses:
        if other.seed == course.seed or len(reference.courses) == 1:
            return other
    seeds = ", ".join(str(other.seed) for other in reference.courses)
    raise InputError(f"{course.path}: has seed {course.seed}; the reference {reference.label} has seeds {seeds}")


def _reaching(curve: Series, reference: Series) -> dict[str, Any]:
    target = reference.losses[-1]
    own, other = iterations_to(curve, target), iterations_to(reference, target)
    ratio = own / other if own is not None and other else None
    return {
        "target_loss": target,
        "iterations_to_target": own,
        "ratio": ratio,
        "fewer": None if ratio is None else 1 - ratio,
        "iterations": curve.iterations[-1],
    }


def _summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean, lowest and highest over the runs of a group, of those that have a figure."""

    def over(key: str) -> dict[str, float] | None:
        values = [run[key] for run in runs if run[key] is not None]
        return {"mean": sum(values) / len(values), "low": min(values), "high": max(values)} if values else None

    return {
        "reached": sum(run["iterations_to_target"] is not None for run in runs),
        **{key: over(key) for key in FIGURES},
    }


def _notes(groups: Sequence[RunGroup], reference: RunGroup, split: str, curves: dict[Path, Series]) -> list[str]:
    """What a reader of the figures should know."""
    courses = [course for group in groups for course in group.courses]
    notes = []
    if split == "train" and any(any(curve.masked) for curve in curves.values()):
        notes.append(MASKED_NOTE)
    for course in reference.courses:
        curve = curves[course.path]
        last = curve.iterations[-1]
        first = iterations_to(curve, curve.losses[-1]) or 0.0
        if not course.finished:
            notes.append(f"{course.path} is not finished: the target is its loss so far, after {last:,} iterations")
        if first < SETTLED * last:
            notes.append(f"{course.path} ends at a loss that it first had after {first:,.0f} of {last:,} iterations")
    if len(reference.courses) == 1 and {course.seed for course in courses} != {reference.courses[0].seed}:
        notes.append(f"seeds differ: all are compared with {reference.courses[0].path}, seed {reference.courses[0].seed}")
    notes += _different_settings(groups)
    data = sorted({f"{course.data.get('train_images')} images of {course.data.get('dataset')}" for course in courses})
    if len(data) > 1:
        notes.append(f"the runs are not of the same training data: {', '.join(data)}")
    epochs = {_epoch_steps(course) for course in courses} - {None}
    if len(epochs) > 1:
        notes.append("an epoch is not the same number of iterations in all runs, so iterations are not the same number of images")
    return notes


def _different_settings(groups: Sequence[RunGroup]) -> list[str]:
    """Which keys of spec and recipe differ within a group, and between the first runs of the groups."""
    notes = []
    for group in groups:
        within = differences([course.settings for course in group.courses])
        if within:
            notes.append(f"the runs of {group.label} differ in {', '.join(within)}")
    between = differences([group.courses[0].settings for group in groups])
    if between:
        notes.append(f"{', '.join(group.label for group in groups)} differ in {', '.join(between)}")
    return notes


def differences(values: Sequence[Any], path: tuple[str, ...] = ()) -> list[str]:
    """Dotted keys whose values are not the same in all; mappings with another `name` differ as a whole.

    The seed, and the names of spec and recipe, are left out.
    """
    if all(value == values[0] for value in values):
        return []
    mappings = all(isinstance(value, dict) for value in values)
    if not mappings or (len(path) > 1 and any(value.get("name") != values[0].get("name") for value in values)):
        return [".".join(path)]
    keys = dict.fromkeys(key for value in values for key in value)
    chosen = [key for key in keys if len(path) != 1 or key not in ("name", "seed")]
    return [found for key in chosen for found in differences([value.get(key) for value in values], (*path, key))]


def _epoch_steps(course: Course) -> float | None:
    """Iterations of an epoch of the first phase; None before its first one is done."""
    first = next((record for record in course.metrics if record["split"] == "train"), None)
    return first["step"] / first["epoch"] if first and first["epoch"] else None
