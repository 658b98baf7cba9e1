"""Kills: chains of them over runs and exports, each run resumed after each kill until it ends."""

import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from kerasgreedy.train.checkpoint import CheckpointStore

from . import workloads
from .faults import Fault
from .nursery import Ended, Nursery
from .workloads import Workload

# Seconds from SIGTERM to the end of the process; container runtimes allow 10 by default.
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
    "checkpoint": (("half", "unnamed", "half", "before", "half", "after"), 18, 6, 4),
    "cache": (("half", "before", "half", "after"), 8, 4, 0),
    "cache seal": (("half", "unnamed", "half", "after"), 5, 2, 2),
    "action": (("half", "before", "half", "after"), 8, 5, 0),
    "action files": (("half", "unnamed", "half", "before", "after"), 6, 2, 2),
    "results": (("half", "unnamed", "half", "before", "half", "after"), 12, 3, 2),
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


class Campaign:
    """All kills of a plan.

    Args:
        folder: for runs; removed by the caller.
        lanes: warm processes that work side by side.
        say: told what is done.
    """

    def __init__(self, folder: Path, seed: int = 0, lanes: int = 2, say: Callable[[str], None] = lambda _: None):
        self.folder, self.seed, self.say = folder, seed, say
        self.nurseries: SimpleQueue[Nursery] = SimpleQueue()
        self.lanes = lanes
        self.made = [Nursery(folder / f"nursery_{number}") for number in range(lanes)]
        for nursery in self.made:
            self.nurseries.put(nursery)
        self.expected: dict[str, dict[str, Any]] = {}
        self.census: dict[str, dict[str, int]] = {}
        self.seconds: dict[str, float] = {}
        self.kills: list[Kill] = []
        self._count, self._lock = 0, threading.Lock()

    def close(self) -> None:
        """Ends the warm processes."""
        for nursery in self.made:
            nursery.close()

    def each(self, work: Callable[..., Any], tasks: Sequence[Any]) -> list[Any]:
        """`work(nursery, task)` for each task, side by side."""

        def one(task: Any) -> Any:
            nursery = self.nurseries.get()
            try:
                return work(nursery, task)
            finally:
                self.nurseries.put(nursery)

        with ThreadPoolExecutor(self.lanes) as pool:
            return list(pool.map(one, tasks))

    def undisturbed(self, workload: Workload) -> Path:
        """The run folder of a workload that nothing disturbed."""
        return self.folder / f"undisturbed_{workload.name}" / "run"

    def prepare(self) -> None:
        """Runs every workload undisturbed; that a fork runs as a fresh process does is asserted by the test beside."""

        def one(nursery: Nursery, workload: Workload) -> None:
            workdir = self.undisturbed(workload)
            ended = nursery.run(workload.command(workdir.parent, workdir), {})
            if ended.code:
                raise RuntimeError(f"the undisturbed run '{workload.name}' ended with {ended.code}: {ended.err}")
            self.expected[workload.name] = workloads.outcome(workdir)
            self.seconds[workload.name] = ended.seconds
            self.census[workload.name] = ended.census or {}
            out = workdir.parent / "out"
            ended = nursery.run(["export", "-q", workdir, out], {})
            if ended.code:
                raise RuntimeError(f"the undisturbed export of '{workload.name}' ended with {ended.code}: {ended.err}")
            self.census[workload.name] |= {k: v for k, v in (ended.census or {}).items() if k.startswith("export/")}

        self.each(one, workloads.ALL)

    def run(self) -> list[Kill]:
        """All kills; those that found no event left in their run are tried again in another."""
        rng = random.Random(self.seed)
        waiting = self._drawn(rng)
        for attempt in range(4):
            rng.shuffle(waiting)
            by_workload: dict[tuple[str, bool], list[Kill]] = {}
            for kill in waiting:
                by_workload.setdefault((kill.workload, kill.kind == "export"), []).append(kill)
            chains = [kills[i : i + CHAIN] for kills in by_workload.values() for i in range(0, len(kills), CHAIN)]
            missed = [kill for left in self.each(self._chain, chains) for kill in left]
            if not missed:
                return self.kills
            waiting = [replace(kill, place=kill.place * 0.3 if attempt < 2 else 0.0) for kill in missed]
        raise RuntimeError(f"faults that were never reached: {', '.join(map(str, waiting))}")

    def _drawn(self, rng: random.Random) -> list[Kill]:
        kills = []
        for kind, (moments, *counts) in PLAN.items():
            turn = 0
            for name, count in zip(("SIGKILL", "SIGTERM", "ENOSPC"), counts, strict=True):
                for number in range(count):
                    moment = moments[number % len(moments)] if name != "ENOSPC" else "half"
                    event = f"{kind}/{moment}" if kind != CLOCK else ""
                    able = [w for w in workloads.ALL if kind == CLOCK or self.census[w.name].get(event)]
                    kills.append(Kill(kind, event, name, rng.random(), able[turn % len(able)].name))
                    turn += 1
        return kills

    def _chain(self, nursery: Nursery, kills: list[Kill]) -> list[Kill]:
        """One run with several kills, or one folder of exports; gives back those that did not land."""
        if kills[0].kind == "export":
            return self._exports(nursery, kills)
        with self._lock:
            self._count += 1
            folder = self.folder / f"chain_{self._count}"
        workload = next(w for w in workloads.ALL if w.name == kills[0].workload)
        workdir = folder / "run"
        # Half of the runs save inside epochs too.
        often = ["-s", "checkpoint_minutes=0.00001"] if self._count % 2 else []
        begin = workload.command(folder, workdir, *often)
        landed: list[Kill] = []
        missed: list[Kill] = []
        # Events of the beginning first, of the end last, and then what lets the run end: a late SIGTERM, no room for a cache.
        order = {"run folder": -1, "results": 1}
        lets_end = {("results", "SIGTERM"), ("cache seal", "ENOSPC")}
        kills = sorted(kills, key=lambda kill: ((kill.kind, kill.signal) in lets_end, order.get(kill.kind, 0)))
        done = None
        for kill in kills:
            if done is not None:
                missed.append(kill)
                continue
            ended = self._strike(
                nursery, kill, begin if not workdir.exists() else ["train", "-q", "--resume", workdir], len(kills)
            )
            if ended.struck is None:
                missed.append(kill)
            else:
                landed.append(kill)
                kill.problems = _after(kill, ended, workdir)
            if ended.code == 0:
                done = ended
        if done is None:
            done = nursery.run(begin if not workdir.exists() else ["train", "-q", "--resume", workdir])
        if landed:
            self._judge(landed[-1], done, workdir)
        self.kills += landed
        self._tell(workload.name, landed, missed)
        return missed

    def _strike(self, nursery: Nursery, kill: Kill, command: Sequence[Any], share: int) -> Ended:
        if kill.kind == CLOCK:
            return nursery.run(command, kill_after=kill.place * self.seconds[kill.workload])
        # A share of the run's events for each kill of a chain, so that some are left for the next.
        present = self.census[kill.workload][kill.event]
        few = kill.kind in ("results", "run folder")
        kill.number = 1 + int(kill.place * (present if few else present / share))
        return nursery.run(command, asdict(kill.fault))

    def _judge(self, kill: Kill, done: Ended, workdir: Path) -> None:
        if done.code:
            kill.lost = True
            kill.problems.append(f"the resumed run ended with {done.code}: {done.err}")
            return
        odd = [line for line in done.err.splitlines() if not any(words in line for words in MAY_BE_SAID)]
        kill.problems += [f"the resumed run said: {line}" for line in odd]
        kill.different = workloads.differences(workdir, self.expected[kill.workload])
        kill.problems += [f"left behind: {name}" for name in workloads.litter(workdir)]

    def _tell(self, what: str, landed: Sequence[Kill], missed: Sequence[Kill]) -> None:
        wrong = "".join(f"\n  {kill}: {kill.problems} {kill.different}" for kill in landed if kill.problems or kill.different)
        self.say(f"{what}: {len(landed)} faults, {len(missed)} not reached{wrong}")

    def _exports(self, nursery: Nursery, kills: list[Kill]) -> list[Kill]:
        with self._lock:
            self._count += 1
            folder = self.folder / f"exports_{self._count}"
        workload = next(w for w in workloads.ALL if w.name == kills[0].workload)
        command = ["export", "-q", self.undisturbed(workload), folder]
        first = nursery.run(command)
        if first.code:
            raise RuntimeError(f"the undisturbed export ended with {first.code}: {first.err}")
        whole = workloads.tree(folder / "1")
        missed, landed = [], []
        for index, kill in enumerate(kills):
            kill.number = 1 + int(kill.place * self.census[kill.workload][kill.event])
            ended = nursery.run(command, asdict(kill.fault))
            if ended.struck is None:
                missed.append(kill)
            else:
                landed.append(kill)
                expected = -9 if kill.signal == "SIGKILL" else -15
                if ended.code != expected:
                    kill.problems.append(f"ended with {ended.code} instead of {expected}: {ended.err}")
            if index % 2 == 0 and index + 1 < len(kills):
                continue  # killed twice before the next export
            done = nursery.run(command)
            kill.lost = done.code != 0
            if kill.lost:
                kill.problems.append(f"the next export ended with {done.code}: {done.err}")
            kill.different = _changed_versions(folder, whole)
        self.kills += landed
        self._tell(f"export of {workload.name}", landed, missed)
        return missed


def _changed_versions(folder: Path, whole: dict[str, str]) -> list[str]:
    """What differs between the first version and itself as it was, or the later ones; all that bears a number is whole."""
    wrong = ["1"] if workloads.tree(folder / "1") != whole else []
    stable = {name for name in whole if name.startswith("variables/")}
    for version in sorted(folder.iterdir()):
        if not version.name.isdecimal():
            wrong.append(f"left behind: {version.name}")
            continue
        files = workloads.tree(version)
        wrong += [f"{version.name}/{name}" for name in whole.keys() ^ files.keys()]
        wrong += [f"{version.name}/{name}" for name in stable & files.keys() if files[name] != whole[name]]
    return wrong


def _after(kill: Kill, ended: Ended, workdir: Path) -> list[str]:
    """What is wrong right after a fault."""
    problems = []
    allowed = {"SIGKILL": (-9,), "SIGTERM": (3, 0), "ENOSPC": (2, 0)}[kill.signal]
    if kill.kind == CLOCK:
        allowed = (-9, 0)  # it may have ended at that very moment
    if kill.kind == "run folder" and kill.signal == "SIGTERM":
        allowed = (-15,)  # nothing has begun
    if ended.code not in allowed:
        problems.append(f"ended with {ended.code}; allowed: {allowed}")
    if "Traceback" in ended.err or "fault of the program" in ended.err:
        problems.append(f"said: {ended.err}")
    if ended.struck is not None and ended.ended - ended.struck > GRACE:
        problems.append(f"took {ended.ended - ended.struck:.1f} s to end")
    said = {3: ("error: stopped by SIGTERM",), 2: ("the disk is full", "No space left")}.get(ended.code, ("",))
    if not any(words in ended.err for words in said):
        problems.append(f"did not say '{said[0]}': {ended.err}")
    if workdir.exists():
        snapshot, faults = CheckpointStore(workdir / "checkpoints").load()
        problems += [f"checkpoint: {fault}" for fault in faults]
        if ended.code == 3 and snapshot is None:
            problems.append("no checkpoint")
    return problems
