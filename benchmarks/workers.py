"""Processes that are told what to do: one JSON object a line on standard input, one answer a line on standard output.

A contender needs a process of its own because its allocator and its framework's threads are set before it starts, and
because two frameworks in one process share both. What a framework prints goes to standard error.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contenders import Contender

ROOT = Path(__file__).resolve().parent.parent
Handler = Callable[..., Any]


class WorkerFailed(Exception):
    """A worker reported an error or ended."""


class Worker:
    """A contender's process; `worker.ask("steps", count=3)` runs its handler `steps(count=3)`."""

    def __init__(self, contender: Contender):
        self.contender = contender
        command = [sys.executable, "-m", contender.module]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(command, text=True, cwd=contender.checkout or ROOT, env=contender.environment, **pipes)

    def ask(self, what: str, **arguments: Any) -> Any:
        """Sends a request and waits for its answer.

        Raises:
            WorkerFailed: with the worker's traceback.
        """
        try:
            print(json.dumps({"do": what, **arguments}), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerFailed(f"{self.contender.name}: its process ended (exit code {self._process.wait()})")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(f"{self.contender.name}: {what}: {answer['error']}")
        return answer["value"]

    def close(self) -> None:
        """Ends the process, which stops at the end of its input."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@contextlib.contextmanager
def open_workers(contenders: Sequence[Contender]) -> Iterator[list[Worker]]:
    """Workers that live as long as the block."""
    with contextlib.ExitStack() as stack:
        workers = []
        for contender in contenders:
            worker = Worker(contender)
            stack.callback(worker.close)
            workers.append(worker)
        yield workers


def serve(handlers: dict[str, Handler]) -> None:
    """The worker's side: answers requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    handlers = {**handlers, "reset_peak": reset_peak, "peak": peak_mib}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"value": handlers[request.pop("do")](**request)}
        except Exception:  # whatever it is, the parent shows it
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


def interleaved(workers: Sequence[Worker], rounds: int, what: str, **arguments: Any) -> list[list[Any]]:
    """Asks every worker once a round, one at a time, beginning with another one each round.

    A machine that slows down for a while then slows all of them, and a ratio within a round still holds.

    Returns:
        for each worker its answers, by round.
    """
    answers: list[list[Any]] = [[None] * rounds for _ in workers]
    for number in range(rounds):
        for place in range(len(workers)):
            index = (number + place) % len(workers)
            answers[index][number] = workers[index].ask(what, **arguments)
    return answers


def reset_peak() -> float:
    """Lets the kernel forget the peak so far (proc(5), clear_refs); returns the MiB that are resident now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status_mib("VmRSS")


def peak_mib() -> float:
    """The most MiB that were resident at once since `reset_peak`."""
    return _status_mib("VmHWM")


def _status_mib(key: str) -> float:
    found = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    return int(found.group(1)) / 1024
