"""Kills: chains of them over runs and exports, each run resumed after each kill until it ends."""

import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from . import workloads
from .nursery import Ended, Nursery
from .plan import CHAIN, CLOCK, MAY_BE_SAID, PLAN, Kill, wrong_after
from .workloads import Workload


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
        # Events of the beginning first, of the end last, then what lets the run end: a SIGTERM at the end, no room for a cache.
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
                kill.problems = wrong_after(kill, ended, workdir)
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
