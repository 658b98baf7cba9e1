"""A finished run that trains longer: from where its last phase ended. Phases before that stay as they are."""

import contextlib
import itertools

from kerasgreedy.errors import InputError, tell
from kerasgreedy.files import storage_error
from kerasgreedy.plan.preparation import Job
from kerasgreedy.plan.stages import Phase
from kerasgreedy.runs.checkpoint import CheckpointStore, Snapshot
from kerasgreedy.runs.state import Position, RunState
from kerasgreedy.runs.workdir import Workdir


def end_of_training(folder: Workdir, job: Job, state: RunState, store: CheckpointStore) -> Snapshot:
    """The checkpoint of a finished run from which its last phase trains on with the settings of `job`.

    Raises:
        InputError: it does not; says why.
    """
    last, done = job.phases[-1], f"{folder.path}: training is done"
    advice = f"; to train its network further: a new run with start_from={folder.path}"
    if not isinstance(last, Phase):
        raise InputError(f"{done}, and ends with {last.name}, which is no phase of training{advice}")
    entry = state.position.kept[-1]
    if entry.get("verdict"):
        raise InputError(f"{done}: {last.name}, its last phase, has found what it looked for ({entry['verdict']}){advice}")
    if last.solver == "averaged":
        raise InputError(f"{done}, and the mean of its last points has taken their place; from there no path goes on{advice}")
    end = {"phase": last.index, "epoch": entry["epochs"], "step": 0, "started": True}
    snapshot, faults = store.load(lambda meta: end.items() <= meta.items())
    for fault in faults:
        tell(f"passed over a damaged checkpoint: {fault}")
    if snapshot is None:
        raise InputError(f"{done}, and where its last phase ended is not kept; versions before did not keep it{advice}")
    position = Position.of(snapshot.meta)
    if position.ended(last):
        waited = f", of which {position.best.waited} were no better" if position.best and position.best.waited else ""
        sections = [".".join(section) for section, training in job.recipe.trainings.items() if training == last.training]
        raise InputError(
            f"{done}: with these settings {last.name}, its last phase, is over after {position.epoch} of {last.epochs} epochs"
            f"{waited}; to train it longer: more {' or '.join(f'{s}.epochs' for s in sections)}, or another early_stopping "
            f"there{advice}"
        )
    return snapshot


def goes_on(folder: Workdir, job: Job, state: RunState, store: CheckpointStore) -> Snapshot | None:
    """The checkpoint from which a run that was asked to train longer does so, if it was killed before there was another one."""
    if state.position.phase < len(job.phases) or folder.results() is not None or not folder.changes():
        return None
    with contextlib.suppress(InputError):
        return end_of_training(folder, job, state, store)
    return None


def set_results_aside(folder: Workdir) -> str | None:
    """Renames the results of a run that trains longer, which is not finished any more; returns their name now."""
    results = folder.results()
    if results is None:
        return None
    stem = f"results_{results['epochs']}_epochs"
    names = itertools.chain([f"{stem}.json"], (f"{stem}_{number}.json" for number in itertools.count(2)))
    name = next(name for name in names if not (folder.path / name).exists())
    try:
        (folder.path / "results.json").rename(folder.path / name)
    except OSError as error:
        raise storage_error(folder.path, error) from None
    return name
