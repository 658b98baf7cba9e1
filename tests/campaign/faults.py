"""Places one fault in a process: at the n-th event of a kind, before it, in the middle of it or after it.

The package's own code runs; only the moment is ours. Moments of a write: `before`, nothing is there; `half`, half of the bytes
are on the disk; `unnamed`, all of them, under another name; `after`, under its own.
"""

import builtins
import contextlib
import errno
import json
import os
import signal
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .export_faults import place_in_exports


@dataclass(frozen=True)
class Fault:
    """What happens, and when.

    Attributes:
        event: a name of `census`, such as `step/after`; empty: nothing happens, events are counted.
        number: of the event in this process, from 1.
        signal: `SIGKILL`, `SIGTERM`, or `ENOSPC`: the write fails, the disk being full.
    """

    event: str = ""
    number: int = 1
    signal: str = "SIGKILL"


_fault, _marker, _census_file = Fault(), Path(), Path()
_counts: Counter[str] = Counter()


def reached(event: str) -> None:
    """An event has come; strikes if it is the one."""
    _counts[event] += 1
    if event != _fault.event or _counts[event] != _fault.number:
        return
    _marker.write_text(str(time.process_time()))
    if _fault.signal == "ENOSPC":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if _fault.signal == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    signal.raise_signal(signal.Signals[_fault.signal])


def write_census() -> None:
    """How often each event came."""
    _census_file.write_text(json.dumps(_counts))


def install(fault: Fault, marker: Path, census: Path) -> None:
    """Places a fault in this process.

    Args:
        marker: is written, with the processor time spent, when it strikes.
        census: where the numbers of events go in the end.
    """
    global _fault, _marker, _census_file
    _fault, _marker, _census_file = fault, marker, census
    _training()
    _cache()
    _actions()
    _results()
    _run_folder()
    _writes()
    place_in_exports(reached)
    from kerasgreedy.train import loop

    # A save after each epoch, however fast the machine is: events then come in the same number everywhere.
    loop.SAVE_SHARE = 0


def kind_of(path: Path) -> str | None:
    """Which event the writing of a file belongs to."""
    name, parent = path.name, path.parent.name
    if parent in ("checkpoints", "objects"):
        return "checkpoint"
    if path.parent.parent.name == "cache":
        return "cache seal"
    if parent in ("pruning", "support") or name == "pruned_spec.yaml":
        return "action files"
    return "results" if name in ("results.json", "results.md", "model.keras") or parent == "plots" else None


def _around(owner: Any, name: str, event: str) -> None:
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **more: Any) -> Any:
        reached(f"{event}/before")
        result = original(*arguments, **more)
        reached(f"{event}/after")
        return result

    setattr(owner, name, wrapped)


def _training() -> None:
    from kerasgreedy.network.evaluation import Evaluator
    from kerasgreedy.solvers.step import TrainStep

    _around(TrainStep, "__call__", "step")
    _around(Evaluator, "__call__", "evaluation")
    made = Evaluator.__init__

    def make(self: Any, *arguments: Any, **more: Any) -> None:
        made(self, *arguments, **more)
        step = self._step

        def batch(*inputs: Any) -> Any:
            result = step(*inputs)
            reached("evaluation/half")  # a batch of several is done
            return result

        self._step = batch

    Evaluator.__init__ = make  # type: ignore[method-assign]


def _cache() -> None:
    from kerasgreedy.inputs.feature_store import FeatureStore

    put = FeatureStore.put

    def half(self: Any, rows: Any, features: Any, labels: Any) -> None:
        on_disk, middle = self._file is not None, len(rows) // 2
        if on_disk:
            reached("cache/before")
            put(self, rows[:middle], features[:middle], labels[:middle])
            reached("cache/half")
        put(self, rows, features, labels)
        if on_disk:
            reached("cache/after")

    FeatureStore.put = half  # type: ignore[method-assign]


def _actions() -> None:
    from kerasgreedy.train import loop

    perform = loop.perform

    def performed(action: Any, doing: Any) -> Any:
        def batch(done: int, total: int) -> None:
            reached("action/half")  # in the measurement of importance
            doing.seen(done, total)

        reached("action/before")
        result = perform(action, replace(doing, seen=batch))
        reached("action/after")
        return result

    loop.perform = performed


def _results() -> None:
    write = zipfile.ZipFile.writestr

    def writestr(self: Any, *arguments: Any, **more: Any) -> None:
        if str(self.filename).endswith(".tmp.keras") or self.filename is None:
            reached("results/half")
        write(self, *arguments, **more)

    zipfile.ZipFile.writestr = writestr  # type: ignore[method-assign]


def _run_folder() -> None:
    from kerasgreedy.runs import workdir

    dump = workdir.dump

    def dumped(*arguments: Any) -> str:
        reached("run folder/half")
        return dump(*arguments)

    workdir.dump = dumped


class _Half:
    """A file whose writes come in two halves."""

    def __init__(self, file: Any, event: str):
        self._file, self._event = file, event

    def __enter__(self) -> "_Half":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, content: bytes) -> None:
        self._file.write(content[: len(content) // 2])
        self._file.flush()
        reached(f"{self._event}/half")
        self._file.write(content[len(content) // 2 :])


def _writes() -> None:
    """Files that are written beside their place and renamed."""
    from kerasgreedy import files

    targets: dict[Path, Path] = {}
    replacing = files.replacing

    @contextlib.contextmanager
    def replaced(path: Path, *more: Any) -> Iterator[Path]:
        with replacing(path, *more) as beside:
            targets[beside] = path
            yield beside

    files.replacing = replaced

    def opened(path: Path, mode: str = "r", *more: Any) -> Any:
        file = builtins.open(path, mode, *more)  # noqa: SIM115 (the caller closes it)
        event = kind_of(targets[path]) if path in targets else None
        if event is None:
            return file
        reached(f"{event}/before")
        return _Half(file, event)

    files.open = opened  # type: ignore[attr-defined]
    rename = os.replace

    def replace(source: Any, target: Any, **more: Any) -> None:
        event = kind_of(Path(target))
        if event:
            reached(f"{event}/unnamed")
        rename(source, target, **more)
        if event:
            reached(f"{event}/after")

    os.replace = replace
