"""A disk that is really full: runs on a small tmpfs, which only root can mount, that is made larger afterwards."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import workloads
from .kills import Campaign
from .nursery import Nursery
from .plan import Kill
from .workloads import GREEDY, PRUNED, Workload

# Kilobytes: too few at the first checkpoint, later in training, and at the results.
SIZES = ((GREEDY, 100), (GREEDY, 180), (PRUNED, 140), (PRUNED, 240))


def full_disks(campaign: Campaign) -> list[Kill]:
    """Runs that meet a full disk, and go on when there is room; none where tmpfs cannot be mounted."""

    def one(nursery: Nursery, task: tuple[Workload, int]) -> Kill | None:
        workload, size = task
        place = campaign.folder / f"tmpfs_{workload.name}_{size}"
        with small_disk(place, size) as mounted:
            if not mounted:
                return None
            workdir = place / "run"
            kill = Kill("full tmpfs", f"{size} kB", "ENOSPC", 0.0, workload.name)
            ended = nursery.run(workload.command(campaign.folder / f"specs_{workload.name}_{size}", workdir))
            if ended.code == 0:
                kill.problems.append("the disk was never full")
            elif ended.code != 2 or "the disk is full" not in ended.err or "Traceback" in ended.err:
                kill.problems.append(f"ended with {ended.code}: {ended.err}")
            subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
            done = nursery.run(["train", "-q", "--resume", workdir])
            kill.lost = done.code != 0
            if kill.lost:
                kill.problems.append(f"the resumed run ended with {done.code}: {done.err}")
            else:
                kill.different = workloads.differences(workdir, campaign.expected[workload.name])
                kill.problems += [f"left behind: {name}" for name in workloads.litter(workdir)]
            return kill

    return [kill for kill in campaign.each(one, SIZES) if kill]


@contextmanager
def small_disk(place: Path, kilobytes: int) -> Iterator[bool]:
    """A folder on a tmpfs of that size; gives False where none can be mounted."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(place)], check=True)
