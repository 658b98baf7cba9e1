"""How much memory there is. Imports nothing but the standard library."""

import contextlib
import math
import resource
import sys
from pathlib import Path

_MACHINE, _SIZES, _GROUP = Path("/proc/meminfo"), Path("/proc/self/statm"), Path("/sys/fs/cgroup")


def available_memory() -> float:
    """Bytes that can be had without pushing anything out, within the limits of a container and of this process; infinite where
    nobody says."""
    return min(_of_machine(), _of_container(), _of_process())


def _of_machine() -> float:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in _MACHINE.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    return math.inf


def _of_process() -> float:
    """Of `ulimit -v`: what the process has not mapped yet."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return math.inf
    with contextlib.suppress(OSError, ValueError, IndexError):
        return max(0.0, limit - float(_SIZES.read_text().split()[0]) * resource.getpagesize())
    return float(limit)


def _of_container() -> float:
    """Of a control group (version 2); file contents that nobody has used for a while make room."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        limit = int((_GROUP / "memory.max").read_text())  # "max": no limit
        statistics = dict(line.split() for line in (_GROUP / "memory.stat").read_text().splitlines())
        used = int((_GROUP / "memory.current").read_text()) - int(statistics["inactive_file"])
        return max(0.0, limit - used)
    return math.inf


def peak_memory() -> int:
    """Bytes of memory that this process has had at most."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # on macOS bytes
    return kilobytes if sys.platform == "darwin" else kilobytes * 1024
