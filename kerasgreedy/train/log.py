"""Metrics of a run: `metrics.jsonl` for programs and reports, TensorBoard event files for browsers."""

import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import tensorflow as tf

from kerasgreedy.files import plain_path
from kerasgreedy.reports.records import read_metrics


class MetricsLog:
    """Appends records to `metrics.jsonl` and to TensorBoard.

    Args:
        workdir: the run folder.
        length: bytes of `metrics.jsonl` that belong to the restored state; what follows them is cut off. Where they are not
            all there, the run goes on without the records that are lost, and says so.

    Raises:
        WorkdirError: a record before is damaged; reports could not read what is added.
    """

    def __init__(self, workdir: Path, length: int = 0):
        path = workdir / "metrics.jsonl"
        self._file = open(path, "ab+")  # noqa: SIM115 (lives as long as the run)
        present = self._file.seek(0, os.SEEK_END)
        if present < length:
            self._file.seek(0)
            whole = self._file.read().rpartition(b"\n")
            print(f"{path}: damaged ({length - present:,} bytes are missing): goes on without these records", file=sys.stderr)
            length = len(whole[0]) + len(whole[1])
        self._file.truncate(length)
        read_metrics(workdir)
        self._open = ExitStack()
        (workdir / "tensorboard").mkdir(exist_ok=True)
        place = self._open.enter_context(plain_path(workdir / "tensorboard"))
        self._writer = tf.summary.create_file_writer(str(place))

    @property
    def length(self) -> int:
        """Bytes written and flushed so far."""
        return self._file.seek(0, os.SEEK_END)

    def write(self, record: dict[str, Any], step: int) -> None:
        """One record; its numbers also go to TensorBoard under `phase/split/head/name` at the given overall step."""
        self._file.write(json.dumps({**record, "step": step, "time": round(time.time(), 3)}).encode() + b"\n")
        self._file.flush()
        tag = "/".join(str(record[key]) for key in ("phase_name", "split", "head") if key in record)
        with self._writer.as_default(step=step):
            for key in ("loss", "accuracy", "top5", "learning_rate", "images_per_second"):
                if key in record:
                    tf.summary.scalar(f"{tag}/{key}", record[key])

    def close(self) -> None:
        """Flushes and closes both."""
        self._file.close()
        self._writer.close()
        self._open.close()

    def flush(self) -> None:
        """Brings `metrics.jsonl` to the disk; a checkpoint that names its length relies on it."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._writer.flush()
