"""Runs an analysis on run folders and writes what it found."""

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kerasgreedy import __version__
from kerasgreedy.analysis.analysis import SERIES, Analysis, Desk, Ledger, Table
from kerasgreedy.analysis.subject import Subject, run_subject
from kerasgreedy.data.arrays import ImageArrays
from kerasgreedy.errors import InputError, WorkdirError, tell
from kerasgreedy.files import user_path, write_atomically, write_csv, writing_fault
from kerasgreedy.reports.figures import write_figure
from kerasgreedy.runs.devices import own_devices
from kerasgreedy.runs.holding import held, out_of_memory_said
from kerasgreedy.spec.analysis_door import ANALYSES
from kerasgreedy.spec.analysis_settings import AnalysisSettings
from kerasgreedy.strict_json import as_json, read_json

ABOUT, LEDGER = "analysis.json", "measured.jsonl"


@dataclass(frozen=True)
class Finding:
    """What an analysis found.

    Attributes:
        figures: its numbers; also in `<name>.json` of the folder.
        tables: for people; also there as CSV.
        files: that were written.
    """

    figures: dict[str, Any]
    tables: list[Table]
    files: list[Path]


def analyse(
    settings: AnalysisSettings,
    workdirs: Sequence[str | Path],
    out: str | Path | None = None,
    devices: str | None = None,
    overwrite: bool = False,
    data: ImageArrays | None = None,
    quiet: bool = False,
) -> Finding:
    """Looks into the networks of some runs, which stay as they are.

    What was measured before a kill is not measured again: the same call goes on.

    Args:
        settings: what is asked, a class of `spec.analysis_door`.
        workdirs: run folders.
        out: folder for the results; default: `analyses/<name>` in the first run folder.
        devices: see `open_devices`.
        overwrite: results of other settings, weights or images that are in that folder are replaced.
        data: the arrays of runs that were trained on arrays.

    Raises:
        KerasgreedyError: see `errors`; a run cannot be looked into so, or the folder holds other results.
    """
    kind: type[Analysis[Any]] = ANALYSES.load(settings.name)
    least, most = kind.subjects
    if len(workdirs) < least or (most is not None and len(workdirs) > most):
        allowed = f"{least}" if least == most else f"{least} or more" if most is None else f"{least} to {most}"
        raise InputError(f"{settings.name}: received {len(workdirs)} run folders; allowed: {allowed}")
    first = user_path(workdirs[0])
    place = user_path(out) if out is not None else first / "analyses" / settings.name
    analysis = kind(settings)
    strategy = own_devices("mirrored" if devices else "none", devices).strategy
    if strategy.num_replicas_in_sync > 1 and not settings.spreads:
        raise InputError(f"--devices: received '{devices}'; {settings.name} computes on one device; allowed: 1, or one name")
    try:
        _check_place(place)
        with ExitStack() as opened:
            if isinstance(strategy, tf.distribute.OneDeviceStrategy):
                opened.enter_context(tf.device(strategy.extended.worker_devices[0]))
            subjects = _named([run_subject(workdir, settings.depth, data) for workdir in workdirs])
            place.mkdir(parents=True, exist_ok=True)
            # Before anything in it is looked at: another process may be at work there.
            opened.enter_context(held(place, "is analysing into"))
            opened.enter_context(out_of_memory_said(place))
            identity = _identity(settings, subjects)
            _make_way(place, identity, overwrite)
            # Written with the first result: what fails before leaves nothing that would stand in the way.
            made = MadeFiles(place, identity)
            ledger = Ledger(place / LEDGER, made.begin)
            desk = Desk(ledger, strategy, place, None if quiet else tell, made.add)
            found = {"analysis": settings.name, "settings": settings.model_dump(mode="json"), **analysis.measure(subjects, desk)}
            ledger.begin()
            (place / SERIES).unlink(missing_ok=True)
            return _written(analysis, found, made)
    except OSError as error:
        raise WorkdirError(f"{place}: {writing_fault(error) or f'cannot be written ({error})'}") from None


class MadeFiles:
    """`analysis.json`: what results of a folder depend on, and which files of it were written here, so that no other is removed.

    Args:
        place: the folder.
        identity: see `_identity`.
    """

    def __init__(self, place: Path, identity: dict[str, Any]):
        self._place, self._identity = place, identity
        self._names = made_before(place)

    def begin(self) -> None:
        """Writes it, before the first result."""
        write_atomically(self._place / ABOUT, as_json({**self._identity, "files": self._names}, indent=1).encode())

    def add(self, name: str) -> Path:
        """The path of a file that is about to be written."""
        if name not in self._names:
            self._names.append(name)
            self.begin()
        return self._place / name


def made_before(place: Path) -> list[str]:
    """Names of the files that an analysis wrote into a folder."""
    try:
        names = read_json(place / ABOUT).get("files") if (place / ABOUT).is_file() else []
    except (WorkdirError, AttributeError):
        names = []
    return [str(name) for name in names if Path(str(name)).name == name] if isinstance(names, list) else []


def _named(subjects: list[Subject]) -> list[Subject]:
    """With names that differ: as many last parts of the paths as it takes where folders have the same name."""
    parts = [(subject.run.folder.path.parts if subject.run else (subject.name,)) for subject in subjects]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(own[-count:]) for own in parts]
        if len(set(names)) == len(names):
            return [replace(subject, name=name) for subject, name in zip(subjects, names, strict=True)]
    return subjects  # a run twice


def _identity(settings: AnalysisSettings, subjects: Sequence[Subject]) -> dict[str, Any]:
    """What results depend on. The images of a run are those that it began with, or it cannot be opened."""
    images = [subject.parts.job.data.fingerprint for subject in subjects]
    return {
        "settings": settings.model_dump(mode="json"),
        "weights": [subject.digest for subject in subjects],
        "data": [hashlib.sha256(str(print_).encode()).hexdigest() for print_ in images],
        "versions": {"kerasgreedy": __version__, "keras": keras.__version__, "tensorflow": tf.__version__},
    }


def _check_place(place: Path) -> None:
    """Refuses a folder of something else."""
    if place.exists() and (not place.is_dir() or (any(place.iterdir()) and not _is_ours(place))):
        raise WorkdirError(f"{place}: is there and holds no results of an analysis; --out another folder")


def _is_ours(place: Path) -> bool:
    return (place / ABOUT).is_file() or not any(path.name != ".lock" for path in place.iterdir())


def _make_way(place: Path, identity: dict[str, Any], overwrite: bool) -> None:
    """Sees that a folder holds the beginning of the same, or nothing; removes what was written there before, if asked to.

    Raises:
        WorkdirError: it holds something else.
    """
    about = place / ABOUT
    if not about.is_file():
        return
    try:
        there = read_json(about)
    except WorkdirError:
        if not overwrite:
            raise
        there = {}
    other = next((key for key in identity if there.get(key) != identity[key]), None)
    if other is None:
        return
    if not overwrite:
        raise WorkdirError(
            f"{place}: holds results of other {_other(there, identity, other)}; --out another folder, or --overwrite"
        )
    for name in (*made_before(place), LEDGER, ABOUT):
        (place / name).unlink(missing_ok=True)


def _other(there: dict[str, Any], identity: dict[str, Any], key: str) -> str:
    """Which settings, or what else, differ."""
    if key != "settings" or not isinstance(there.get(key), dict):
        return key
    old, new = there[key], identity[key]
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return "settings (" + ", ".join(f"{name} {old.get(name)}, received {new.get(name)}" for name in names) + ")"


def _written(analysis: Analysis[Any], found: dict[str, Any], made: MadeFiles) -> Finding:
    files = [made.add(f"{found['analysis']}.json")]
    write_atomically(files[0], as_json(found, indent=1).encode())
    tables = analysis.tables(found)
    for table in tables:
        files.append(made.add(f"{table.name}.csv"))
        write_csv(files[-1], [table.header, *table.rows])
    for name, draw in analysis.figures(found).items():
        files.append(made.add(f"{name}.png"))
        write_figure(files[-1], draw, overwrite=True)
    return Finding(found, tables, files)
