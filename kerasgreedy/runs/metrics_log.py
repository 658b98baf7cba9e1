"""Metrics of a run: `metrics.jsonl` for programs and reports, TensorBoard event files for browsers."""

import hashlib
import itertools
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import tensorflow as tf

from kerasgreedy.errors import tell
from kerasgreedy.files import plain_path, write_atomically
from kerasgreedy.reports.run_files import records_fault
from kerasgreedy.strict_json import as_json


class MetricsLog:
    """Appends records to `metrics.jsonl` and to TensorBoard.

    Args:
        workdir: the run folder.
        length: bytes of `metrics.jsonl` that belong to the restored state; what follows them is left out.
        marks: (length, SHA-256) of the file at the end of each stage, and of those bytes, where the state knows them. The weights
            decide: records that are not those of the state are set aside in a file of their own, and the run goes on without
            them and says so.
    """

    def __init__(self, workdir: Path, length: int = 0, marks: Sequence[tuple[int, str]] = ()):
        path = workdir / "metrics.jsonl"
        content = self._restored(path, length, marks)
        # A new file, never one that is cut: a snapshot of the folder may share it by a hard link.
        write_atomically(path, content)
        self._file = open(path, "ab")  # noqa: SIM115 (lives as long as the run)
        self._sum = hashlib.sha256(content)
        self._open = ExitStack()
        (workdir / "tensorboard").mkdir(exist_ok=True)
        self._board = self._open.enter_context(plain_path(workdir / "tensorboard"))
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    @staticmethod
    def _restored(path: Path, length: int, marks: Sequence[tuple[int, str]]) -> bytes:
        """The records that belong to the state; after damage, those up to the end of a stage that are as they were."""
        content = path.read_bytes() if path.exists() else b""
        kept = content[:length]
        lost = length - len(kept)
        if marks:
            whole = (n for n, digest in reversed(marks) if n <= len(kept) and hashlib.sha256(kept[:n]).hexdigest() == digest)
            kept = kept[: next(whole, 0)]
            fault = "" if len(kept) == length else "other records than the checkpoint's"
        else:  # an older version's checkpoint
            kept = b"".join(kept.rpartition(b"\n")[:2])
            fault = records_fault(kept)
            kept = b"" if fault else kept
        fault = f"{lost:,} bytes are missing" if lost else fault
        if fault:
            beside = next(p for n in itertools.count(1) if not (p := path.with_name(f"metrics_set_aside_{n}.jsonl")).exists())
            aside = f"; what was there is in {beside.name}" if content else ""
            if content:
                path.rename(beside)
            tell(f"{path}: damaged ({fault}): goes on without these records{aside}")
        return kept

    @property
    def digest(self) -> str:
        """SHA-256 of what was written so far."""
        return self._sum.hexdigest()

    @property
    def length(self) -> int:
        """Bytes written and flushed so far."""
        return self._file.seek(0, os.SEEK_END)

    def write(self, record: dict[str, Any], step: int) -> None:
        """One record; its numbers also go to TensorBoard at the given overall step, under `head/name` of a folder for each split.

        So training and validation share a chart, and so do runs by other strategies, whose phases have other names.
        """
        line = as_json({**record, "step": step, "time": round(time.time(), 3)}).encode() + b"\n"
        self._file.write(line)
        self._file.flush()
        self._sum.update(line)
        if "head" not in record:
            return
        split = str(record["split"])
        if split not in self._writers:
            self._writers[split] = tf.summary.create_file_writer(str(Path(self._board) / split))
        with self._writers[split].as_default(step=step):
            for key in ("loss", "accuracy", "top5", "learning_rate", "images_per_second"):
                if key in record:
                    tf.summary.scalar(f"{record['head']}/{key}", record[key])

    def close(self) -> None:
        """Flushes and closes both."""
        self._file.close()
        for writer in self._writers.values():
            writer.close()
        self._open.close()

    def flush(self) -> None:
        """Brings `metrics.jsonl` to the disk; a checkpoint that names its length relies on it."""
        self._file.flush()
        os.fsync(self._file.fileno())
        for writer in self._writers.values():
            writer.flush()
