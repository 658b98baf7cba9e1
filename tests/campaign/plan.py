"""Which faults come to which events, and what must hold right after each."""

from dataclasses import dataclass, field
from pathlib import Path

from kerasgreedy.runs.checkpoint import CheckpointStore

from .faults import Fault
from .nursery import Ended

# Seconds from SIGTERM to the end of the process; container runtimes allow 10 by default. Counted on the process's own clock, so
# that other work on the machine does not matter.
GRACE = 10.0
CHAIN = 7
CLOCK = "any moment"
# By a run that goes on after a kill: before its first checkpoint, or without room for its cache.
MAY_BE_SAID = ("no manifest that names them", "no room for the cache")
# Events that are the writing of a file.
WRITING = ("run folder", "checkpoint", "cache", "cache seal", "action files", "results", "export")
# event: its moments in turn; kills by SIGKILL, SIGTERM and a full disk.
PLAN: dict[str, tuple[tuple[str, ...], int, int, int]] = {
    "run folder": (("half", "unnamed", "after"), 3, 1, 0),
    "step": (("before", "after"), 12, 8, 0),
    "evaluation": (("half", "before", "half", "after"), 8, 6, 0),
    "checkpoint": (("half", "unnamed", "half", "before", "half", "after"), 24, 6, 4),
    "cache": (("half", "before", "half", "after"), 8, 4, 0),
    "cache seal": (("half", "unnamed", "half", "after"), 9, 2, 2),
    "action": (("half", "before", "half", "after"), 8, 5, 0),
    "action files": (("half", "unnamed", "half", "before", "after"), 6, 2, 2),
    "results": (("half", "unnamed", "half", "before", "half", "after"), 18, 3, 2),
    "export": (("half", "before", "half", "unnamed", "half", "after", "half"), 10, 4, 0),
    CLOCK: (("",), 8, 0, 0),
}


@dataclass
class Kill:
    """One fault and what came of it.

    Attributes:
        place: from 0 to 1, how far through the events of its kind.
        problems: what was wrong right after it.
        lost, different: what the run came to; noted at the last kill that it met.
    """

    kind: str
    event: str
    signal: str
    place: float
    workload: str = ""
    number: int = 0
    problems: list[str] = field(default_factory=list)
    lost: bool = False
    different: list[str] = field(default_factory=list)

    @property
    def fault(self) -> Fault:
        """For the process that it is to come to."""
        return Fault(self.event, self.number, self.signal)

    @property
    def in_a_write(self) -> bool:
        """Whether a file was half written, or written and not yet in its place."""
        return self.kind in WRITING and self.event.endswith(("half", "unnamed"))

    def __str__(self) -> str:
        return f"{self.signal} at {self.event} {self.number} of {self.workload}"


def wrong_after(kill: Kill, ended: Ended, workdir: Path) -> list[str]:
    """What is wrong right after a fault."""
    problems = []
    allowed = {"SIGKILL": (-9,), "SIGTERM": (3, 0), "ENOSPC": (2, 0)}[kill.signal]
    if kill.kind == CLOCK:
        allowed = (-9, 0)  # it may have ended at that very moment
    if kill.kind == "run folder" and kill.signal == "SIGTERM":
        allowed = (-15,)  # nothing has begun
    if ended.code not in allowed:
        problems.append(f"ended with {ended.code} after {ended.seconds:.0f} s; allowed: {allowed}: {ended.err}")
    if "Traceback" in ended.err or "fault of the program" in ended.err:
        problems.append(f"said: {ended.err}")
    if kill.signal == "SIGTERM" and ended.struck is not None and ended.code == 3 and ended.cpu - ended.struck > GRACE:
        problems.append(f"took {ended.cpu - ended.struck:.1f} s to end")
    said = {3: ("error: stopped by SIGTERM",), 2: ("the disk is full", "No space left")}.get(ended.code, ("",))
    if not any(words in ended.err for words in said):
        problems.append(f"did not say '{said[0]}': {ended.err}")
    if workdir.exists():
        snapshot, faults = CheckpointStore(workdir / "checkpoints").load()
        problems += [f"checkpoint: {fault}" for fault in faults if not any(words in fault for words in MAY_BE_SAID)]
        if ended.code == 3 and snapshot is None:
            problems.append("no checkpoint")
    return problems
