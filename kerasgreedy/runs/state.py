"""The named state of a run, and its way to and from a checkpoint."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import keras
import numpy as np
from pydantic import NonNegativeInt as Whole
from pydantic import TypeAdapter, ValidationError

from kerasgreedy.errors import CheckpointError, Diverged, dotted, tell
from kerasgreedy.network.build import Network
from kerasgreedy.plan.stages import Phase
from kerasgreedy.runs.checkpoint import NETWORK, Arrays, CheckpointStore, Snapshot
from kerasgreedy.spec.load import as_plain
from kerasgreedy.spec.model import ModelSpec

# Groups of a checkpoint beside NETWORK: the best point's components under BEST, what else a phase keeps under EXTRA.
BEST, OPTIMIZER, EXTRA = "best/", "optimizer", "extra/"


class Extra(Protocol):
    """What a phase keeps besides weights and optimiser, such as masks."""

    def arrays(self) -> Arrays:
        """All that has to be saved."""

    def load_arrays(self, arrays: Arrays) -> None:
        """Goes back to what `arrays` gave."""


@dataclass
class Best:
    """The best point of the running phase.

    Attributes:
        score: (primary, secondary), larger is better.
        epoch: epochs done when it was reached; 0 is the start of the phase.
        waited: epochs since then.
        monitor: what the score is of; None: written by a version that did not say.
    """

    score: tuple[float, float]
    epoch: int
    waited: int = 0
    monitor: str | None = None


@dataclass
class Position:
    """Where training stands.

    Attributes:
        phase: index of the running phase; the number of phases when all are done.
        epoch: epochs done in it.
        step: steps done in the running epoch.
        started: initialisation and first look at the phase are done.
        sums: head -> [sum of losses, number right, examples] over the running epoch.
        best: best point of the running phase.
        kept: one entry a finished phase: epochs run, epoch kept, its score; or an action: what it did.
        spec: of the network, where an action changed it since the run began.
        log_bytes: length of metrics.jsonl that belongs to this state.
        log_marks: that length at the end of each stage, and now, with the SHA-256 of what was there.
        changes: how many times the run went on with other settings before.
        seconds: spent in training so far.
    """

    phase: Whole = 0
    epoch: Whole = 0
    step: Whole = 0
    started: bool = False
    sums: dict[str, list[float]] = field(default_factory=dict)
    best: Best | None = None
    kept: list[dict[str, Any]] = field(default_factory=list)
    log_bytes: Whole = 0
    log_marks: list[tuple[int, str]] = field(default_factory=list)
    changes: Whole = 0
    seconds: float = 0.0
    spec: dict[str, Any] | None = None

    @classmethod
    def of(cls, meta: dict[str, Any]) -> "Position":
        """From a checkpoint's plain data.

        Raises:
            CheckpointError: that is not what it is.
        """
        try:
            # As JSON, where a list may be a tuple; strictly, so that neither true nor "1" is a number.
            position = TypeAdapter(cls).validate_json(json.dumps(meta), strict=True)
        except ValidationError as error:
            line = error.errors(include_url=False)[0]
            raise CheckpointError(f"the checkpoint is damaged ({dotted(line['loc'])}: {line['msg']})") from None
        if len(position.kept) != position.phase or not all(map(_is_entry, position.kept)):
            raise CheckpointError(f"the checkpoint is damaged (kept: no entry for each of {position.phase} stages)")
        return position

    def ended(self, phase: Phase) -> bool:
        """Whether the epochs of the running phase are over: all are done, or early stopping waits no longer."""
        patience, waited = phase.training.early_stopping, self.best.waited if self.best else 0
        return self.epoch >= phase.epochs or (patience is not None and waited >= patience)


def _is_entry(entry: dict[str, Any]) -> bool:
    """Whether an entry of a finished stage holds what every one does."""
    best = entry.get("best", "missing")
    looked = best is None or (isinstance(best, dict) and isinstance(best.get("epoch"), int))
    return looked and isinstance(entry.get("epochs"), int) and all(isinstance(entry.get(key), str) for key in ("phase", "keep"))


class RunState:
    """Network, optimiser, best weights and position of a run, saved and restored as one.

    Args:
        network: its components are saved under their names.
        store: where checkpoints go.
    """

    def __init__(self, network: Network, store: CheckpointStore):
        self.network = network
        self.position = Position()
        self.best_arrays: dict[str, Arrays] = {}
        self._store = store
        self._optimizer: keras.optimizers.Optimizer | None = None
        self._restored_optimizer: Arrays | None = None
        self._extras: Mapping[str, Extra] = {}
        self._restored_extras: dict[str, Arrays] = {}
        self._saved: set[str] = set()
        self._fresh_best: set[str] = set()

    def restore(self, snapshot: Snapshot) -> None:
        """Takes position, weights and all else from a checkpoint.

        Raises:
            CheckpointError: it belongs to another network.
        """
        self.position = Position.of(snapshot.meta)
        stored = {group.removeprefix(NETWORK) for group in snapshot.arrays if group.startswith(NETWORK)}
        odd = stored ^ set(self.network.names)
        if odd:
            raise CheckpointError(f"the checkpoint belongs to another network ('{min(odd)}' is in only one of them)")
        for name in self.network.names:
            self.network.load_arrays(name, snapshot.arrays[NETWORK + name])
        self.best_arrays = {
            group.removeprefix(BEST): arrays for group, arrays in snapshot.arrays.items() if group.startswith(BEST)
        }
        alien = set(self.best_arrays) - set(self.network.names)
        if alien:
            raise CheckpointError(f"the checkpoint is damaged (best point of '{min(alien)}', which the network has not)")
        self._restored_optimizer = snapshot.arrays.get(OPTIMIZER)
        self._restored_extras = {
            group.removeprefix(EXTRA): arrays for group, arrays in snapshot.arrays.items() if group.startswith(EXTRA)
        }
        self._saved = set(snapshot.arrays)

    @property
    def saved(self) -> bool:
        """Whether there is a checkpoint of it."""
        return bool(self._saved)

    def attach(
        self, optimizer: keras.optimizers.Optimizer, extras: Mapping[str, Extra] | None = None, changed: bool = False
    ) -> bool:
        """Takes the optimiser of the running phase and what else it keeps, and gives them back what was restored.

        Args:
            changed: the settings are others than those of the checkpoint.

        Returns:
            whether the optimiser is the checkpoint's; an optimiser of another kind begins anew where settings changed.
        """
        self._optimizer, self._extras = optimizer, extras or {}
        stored, self._restored_optimizer = self._restored_optimizer, None
        if stored is None:
            return True
        others, self._restored_extras = self._restored_extras, {}
        if set(others) != set(self._extras):
            raise CheckpointError(f"the checkpoint is of another kind of phase than the recipe's ({sorted(others)})")
        variables = slots(self._optimizer)
        fits = set(variables) == set(stored)
        if not fits and changed:
            variables = {}
        elif not fits:
            raise CheckpointError("the checkpoint's optimiser is of another kind than the recipe's")
        try:
            for name, extra in self._extras.items():
                extra.load_arrays(others[name])
            for key, variable in variables.items():
                variable.assign(stored[key])
        except (KeyError, ValueError, TypeError) as error:  # another shape, or masks of other layers
            raise CheckpointError(f"the checkpoint's optimiser or masks do not fit the network ({error})") from None
        return fits

    def complete(self) -> None:
        """Writes again what the newest checkpoint names and is not there, or damaged, any more."""
        lost = self._store.lost()
        if lost:
            tell(f"written again, since the files of the newest checkpoint were damaged: {', '.join(sorted(lost))}")
            self._saved -= lost
            self.save(())

    def keep_best(self, phase: Phase) -> None:
        """Copies what the phase trains as its best point so far."""
        self.best_arrays = {name: self.network.arrays(name) for name in phase.trains}
        self._fresh_best = set(self.best_arrays)

    def finish_phase(self, phase: Phase, keep_best: bool, more: Mapping[str, Any]) -> None:
        """Ends a phase: back to its best point if asked for, then on to the start of the next.

        Args:
            more: of its solver, to be remembered in the phase's entry.
        """
        if keep_best:
            for name, arrays in self.best_arrays.items():
                self.network.load_arrays(name, arrays)
        position = self.position
        best = asdict(position.best) if position.best else None
        position.kept.append(
            {"phase": phase.name, "epochs": position.epoch, "best": best, "keep": "best" if keep_best else "last", **more}
        )
        position.phase, position.epoch, position.step, position.started = position.phase + 1, 0, 0, False
        position.best, position.sums = None, {}
        self.best_arrays, self._fresh_best, self._optimizer, self._extras = {}, set(), None, {}

    def finish_action(self, network: Network, spec: ModelSpec, entry: dict[str, Any]) -> None:
        """Goes on with the network that an action made, at the start of the next stage."""
        self.network = network
        self.position.spec = as_plain(spec)
        self.position.kept.append(entry)
        self.position.phase += 1
        self._saved = set()

    def save(self, changed: tuple[str, ...]) -> None:
        """Writes a checkpoint; `changed` are the components that moved since the last one.

        Raises:
            Diverged: a weight is not finite; nothing was written.
        """
        network = [NETWORK + name for name in self.network.names]
        self._saved -= self._store.lost(quick=True)
        due = {*(NETWORK + name for name in changed), *(set(network) - self._saved)}
        arrays: dict[str, Arrays] = {group: self.network.arrays(group.removeprefix(NETWORK)) for group in sorted(due)}
        if self._optimizer is not None:
            arrays[OPTIMIZER] = {key: keras.ops.convert_to_numpy(v) for key, v in slots(self._optimizer).items()}
        extras = {EXTRA + name: extra.arrays() for name, extra in self._extras.items()}
        arrays |= extras
        for values in arrays.values():
            for key, value in values.items():
                if np.issubdtype(value.dtype, np.floating) and not np.all(np.isfinite(value)):
                    raise Diverged(f"training diverged: {key} is no longer finite. The last good state is kept")
        for name, values in self.best_arrays.items():
            if name in self._fresh_best or BEST + name not in self._saved:
                arrays[BEST + name] = values
        groups = [*network, *(BEST + name for name in self.best_arrays), *([OPTIMIZER] if self._optimizer else []), *extras]
        self._store.save(asdict(self.position), arrays, groups)
        self._saved = set(groups)
        self._fresh_best = set()


def slots(optimizer: keras.optimizers.Optimizer) -> dict[str, keras.Variable]:
    """Optimiser variables by place; their own names are not unique. The learning rate follows from the step."""
    return {f"{i:04d}/{v.name}": v for i, v in enumerate(optimizer.variables) if v.name != "learning_rate"}
