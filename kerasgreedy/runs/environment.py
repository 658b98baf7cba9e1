"""What a run ran on, for `run.json`. Imports no TensorFlow."""

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# Settings of a git checkout that make `git status` run a program, or fetch.
RUNS, FETCHES = ("filter.", "extensions.worktreeconfig", "extensions.partialclone"), (".promisor", ".partialclonefilter")
# Of x86 and ARM.
BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
PACKAGES = ("kerasgreedy", "tensorflow", "keras", "numpy", "tensorflow-datasets")


def environment() -> dict[str, Any]:
    """Versions, machine and git state, for `run.json`."""
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "platform": platform.platform(),
        "command": sys.argv,
        "git": _git_state(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def has_bfloat16(facts: Path = Path("/proc/cpuinfo")) -> bool | None:
    """Whether the processor has instructions for bfloat16, without which it is slower than float32; None: not known."""
    try:
        text = facts.read_text(errors="replace")
    except OSError:
        return None
    listed = re.findall(r"^(?:flags|Features)\s*:(.*)$", text, re.M)
    return bool(BFLOAT16 & {flag for line in listed for flag in line.split()}) if listed else None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any] | None:
    """Commit and cleanness of the checkout in the current folder; None outside one.

    No program that the checkout's own settings name is run, and nothing is fetched; where they name a filter, or a place to fetch
    missing objects from, whether it is clean cannot be told (None).
    """
    # No transport at all: a partial clone would start one, which can be any program, for an object that it lacks.
    closed = {**os.environ, "GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "", "GIT_TERMINAL_PROMPT": "0"}

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True, env=closed).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        own = git("config", "--local", "--includes", "--name-only", "--list").lower().splitlines()
        if any(key.startswith(RUNS) or key.endswith(FETCHES) for key in own):
            return {"commit": commit, "clean": None}
        changed = git("status", "--porcelain", "--untracked-files=no", "--ignore-submodules=dirty")  # those have settings too
        return {"commit": commit, "clean": not changed}
    except (OSError, subprocess.SubprocessError):
        return None
