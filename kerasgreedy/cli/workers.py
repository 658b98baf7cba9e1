"""`train --workers N`: worker processes on this machine, with the TF_CONFIG that a cluster would give them."""

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import IO

import kerasgreedy
from kerasgreedy.errors import InputError, Stopped, tell

# How long the other workers may take to notice that one is gone.
PATIENCE_SECONDS = 90.0
_LINES = 15
# -P: the working folder, which may be anybody's, is no place to import from.
WORKER = (sys.executable, "-P", "-m", "kerasgreedy")
_PR_SET_PDEATHSIG = 1  # prctl(2)
STOPPED = Stopped.exit_code


def launch(
    workers: int,
    spec: str | None,
    recipe: str | None,
    sets: list[str] | None,
    resume: Path | None,
    workdir: Path | None,
    distribute: str | None,
) -> int:
    """Runs this very command in so many processes; only the first one's output is shown.

    A signal that asks to stop is passed on to all of them.

    Args:
        spec, recipe, sets, resume, workdir, distribute: as given on the command line.

    Returns:
        the exit code: the first worker's, or another's where that one ended well; 3 where a signal ended it.

    Raises:
        InputError: they do not go with several workers.
    """
    if distribute not in (None, "multi_worker"):
        raise InputError(f"--workers: goes with --distribute multi_worker; received {distribute}")
    if "TF_CONFIG" in os.environ:
        raise InputError("--workers: starts a cluster of its own, and TF_CONFIG names one already; leave one out")
    arguments = _own_arguments()
    if resume is None and workdir is None:
        from kerasgreedy.runs.workdir import default_workdir
        from kerasgreedy.spec.load import load

        names = [document.value.name for document in load(str(spec), recipe, sets or ())]
        arguments += ["--workdir", str(default_workdir(*names))]
    if distribute is None:
        arguments += ["--distribute", "multi_worker"]
    return _run([*WORKER, *arguments], workers)


def _own_arguments() -> list[str]:
    """The command line without `--workers`."""
    arguments = list(sys.argv[1:])
    for index, argument in enumerate(arguments):
        if argument == "--workers":
            return arguments[:index] + arguments[index + 2 :]
        if argument.startswith("--workers="):
            return arguments[:index] + arguments[index + 1 :]
    return arguments


def _run(command: list[str], workers: int) -> int:
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(workers)]
    with contextlib.ExitStack() as stack:
        logs = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(workers)]
        processes = [_start(command, addresses, index, logs[index]) for index in range(workers)]
        stack.enter_context(_passing_on(processes))
        codes = _wait(processes)
        for index, (code, log) in enumerate(zip(codes, logs, strict=True)):
            if index and code and not codes[0]:
                _show(index, code, log)
            elif index and code not in (0, STOPPED, codes[0]):
                _show(index, code, log)
    if codes[0] < 0:
        tell(
            f"the first worker was ended by {signal.Signals(-codes[0]).name}. What was saved is whole; train --resume goes "
            "on from there"
        )
    code = codes[0] or next((code for code in codes if code), 0)
    return code if code >= 0 else STOPPED


def _start(command: list[str], addresses: list[str], index: int, log: IO[str]) -> "subprocess.Popen[str]":
    config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    output = None if index == 0 else log
    # A session of its own: Ctrl-C reaches the workers once, through this process.
    environment = worker_environment(json.dumps(config))
    return subprocess.Popen(
        command, env=environment, text=True, start_new_session=True, stdout=output, stderr=output, preexec_fn=_dies_with_parent()
    )


def worker_environment(tf_config: str) -> dict[str, str]:
    """This process's, and where this very package is: a checkout may not be installed."""
    home = str(Path(kerasgreedy.__file__).resolve().parent.parent)
    path = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), home])
    return {**os.environ, "TF_CONFIG": tf_config, "PYTHONPATH": path}


def _dies_with_parent() -> Callable[[], None] | None:
    """On Linux: a worker is asked to stop when this process is gone, however it went."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def _passing_on(processes: "list[subprocess.Popen[str]]") -> Iterator[None]:
    """Sends SIGTERM, Ctrl-C and the end of a terminal on; whatever ends this process ends the workers."""

    def send(number: int, _: FrameType | None) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)

    before = {number: signal.signal(number, send) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(processes: "list[subprocess.Popen[str]]") -> list[int]:
    """Exit codes. When one has failed, the others have some time to notice, and are then ended."""
    failed_at: float | None = None
    while any(process.poll() is None for process in processes):
        time.sleep(0.1)
        if failed_at is None and any(process.returncode for process in processes):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > PATIENCE_SECONDS:
            for process in processes:
                if process.poll() is None:
                    process.kill()
    return [process.wait() for process in processes]


def _show(index: int, code: int, log: IO[str]) -> None:
    log.seek(0)
    tell(f"worker {index + 1} ended with {code}; its last lines:")
    for line in log.read().splitlines()[-_LINES:]:
        tell(f"  {line}")
