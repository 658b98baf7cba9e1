"""Commands in processes of their own, without an import for each: a warm process forks them.

The warm process has imported TensorFlow and the package and has run no operation, so it has none of TensorFlow's thread
pools, which a fork would not carry over. That is asserted before each fork.
"""

import contextlib
import faulthandler
import gc
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# For each operation: two lanes share two cores, and threads that wait would only spin. Sums depend on it in their last bits.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), "1")
LIMIT = 900.0  # seconds; a command that takes longer hangs, and says where


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: exit code, or minus the number of the signal that it died of.
        err: its standard error.
        seconds, cpu: that it took, and of a processor.
        struck: processor time that had been spent when its fault came; None: the fault was not reached.
        census: how often each event came, where it was asked for.
    """

    code: int
    out: str
    err: str
    seconds: float
    cpu: float
    struck: float | None = None
    census: dict[str, int] | None = None


@dataclass(frozen=True)
class Around:
    """What a command finds around itself.

    Attributes:
        folder: where it is started; empty: here.
        variables: of its environment, beside those here.
        closed, full: standard streams (0, 1, 2) that are closed, or lead to `/dev/full`.
        file_bytes: a file may not grow larger (`ulimit -f`).
        more_memory: bytes of addresses that it may take beside those of a warm process (`ulimit -v`).
        fresh: a new interpreter, not a fork: for what is read when a library is imported. `more_memory` is then all that it has.
        meet: see `meeting.Meeting`.
        limit: seconds until it counts as one that hangs.
    """

    folder: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    closed: Sequence[int] = ()
    full: Sequence[int] = ()
    file_bytes: int | None = None
    more_memory: int | None = None
    fresh: bool = False
    meet: dict[str, Any] | None = None
    limit: float = LIMIT

    def enter(self) -> None:
        """In the process itself, just before the command."""
        os.environ.update(self.variables)
        if self.folder:
            os.chdir(self.folder)
        for number in self.full:
            os.dup2(os.open("/dev/full", os.O_RDWR), number)
        for number in self.closed:
            os.close(number)
            setattr(sys, ("stdin", "stdout", "stderr")[number], None)
        if self.file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.file_bytes, self.file_bytes))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python does at its start
        if self.more_memory is not None:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = self.more_memory + (0 if self.fresh else pages * resource.getpagesize())
            resource.setrlimit(resource.RLIMIT_AS, (most, most))


class Nursery:
    """A warm process. Used by one thread at a time."""

    def __init__(self, folder: Path):
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "TMPDIR": str(folder)}
        paths = [str(HERE.parent.parent), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "campaign.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=open(folder / "nursery.err", "w"),  # noqa: SIM115 (closed with the process)
            env={**os.environ, **ONE_THREAD, **quiet, "PYTHONPATH": os.pathsep.join(paths)},
            text=True,
        )

    def run(
        self,
        arguments: Sequence[Any],
        fault: dict[str, Any] | None = None,
        kill_after: float | None = None,
        around: Around | None = None,
    ) -> Ended:
        """Runs `kerasgreedy ARGUMENTS`.

        Args:
            fault: see `faults.Fault`; `{}` only counts events.
            kill_after: SIGKILL comes after so many seconds.
            around: what the process finds.
        """
        order = {
            "arguments": list(map(str, arguments)),
            "fault": fault,
            "kill_after": kill_after,
            "folder": str(self._folder.resolve()),
            "around": asdict(around or Around()),
        }
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the warm process ended: {(self._folder / 'nursery.err').read_text()[-2000:]}")
        return Ended(**json.loads(line))

    def close(self) -> None:
        """Ends the warm process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=60)


def _child(order: dict[str, Any]) -> None:
    """In the fork: the command line, with a fault placed in it. Does not return."""
    folder = Path(order["folder"])
    for name, number in (("out", 1), ("err", 2)):
        handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
        os.close(handle)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    around = Around(**order["around"])
    if around.fresh:
        around.enter()
        command = [sys.executable, "-P", "-m", "kerasgreedy", *order["arguments"]]
        os.execve(sys.executable, list(map(os.fsencode, command)), os.environ)
    faulthandler.register(signal.SIGUSR1)
    code: Any = 0
    try:
        from campaign import faults, meeting
        from kerasgreedy.cli import main

        around.enter()
        if around.meet:
            meeting.install(meeting.Meeting(**around.meet))
        if order["fault"] is not None:
            faults.install(faults.Fault(**order["fault"]), folder / "struck", folder / "census")
        sys.argv = ["kerasgreedy", *order["arguments"]]
        main.main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    with contextlib.suppress(Exception):
        faults.write_census()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            code = 120  # as Python ends then
    os._exit(code)


def _tend(order: dict[str, Any]) -> Ended:
    from tensorflow.python.eager import context

    assert context.context()._context_handle is None, "TensorFlow has begun: not safe to fork"
    folder = Path(order["folder"])
    for name in ("struck", "census"):
        (folder / name).unlink(missing_ok=True)
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(order)
    kill_after = order["kill_after"]
    while True:
        done, status, used = os.wait4(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.01)
        spent = time.monotonic() - begun
        hangs = spent > order["around"]["limit"]
        if hangs or (kill_after is not None and spent > kill_after):
            if not hangs:
                (folder / "struck").write_text("0")
            elif not order["around"]["fresh"]:
                os.kill(child, signal.SIGUSR1)  # the stacks of its threads
                time.sleep(1)
            os.kill(child, signal.SIGKILL)
            _, status, used = os.wait4(child, 0)
            break
    seconds = time.monotonic() - begun
    struck = float((folder / "struck").read_text()) if (folder / "struck").is_file() else None
    census = json.loads((folder / "census").read_text()) if (folder / "census").is_file() else None
    out, err = ((folder / name).read_text(errors="replace") for name in ("out", "err"))
    cpu = used.ru_utime + used.ru_stime
    return Ended(os.waitstatus_to_exitcode(status), out, err, seconds, cpu, struck, census)


def main() -> None:
    """The warm process: a line of JSON for each command in, and one for how it ended out."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import matplotlib.figure  # noqa: F401
    import sklearn.datasets  # noqa: F401

    from campaign import faults  # noqa: F401
    from kerasgreedy.cli import main  # noqa: F401
    from kerasgreedy.network import latency

    latency.ROUNDS = 1  # times are not compared

    # What is here stays: forks need neither look through it for garbage nor copy it.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        answers.write(json.dumps(asdict(_tend(json.loads(line)))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
