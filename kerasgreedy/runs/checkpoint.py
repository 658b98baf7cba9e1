"""Checkpoints on disk: weights as content-addressed safetensors files, and small manifests that name them.

A component that did not change is not written again. Every file is written beside its place and then renamed, so that a
kill at any moment leaves the checkpoints before it whole. Every file is checked against its SHA-256 when it is read.
Needs no TensorFlow.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as parse_tensors
from safetensors.numpy import save as format_tensors

from kerasgreedy.errors import CheckpointError
from kerasgreedy.files import open_regular, read_bytes, storage_error, sweep, write_atomically
from kerasgreedy.strict_json import MAX_JSON_BYTES, as_json, parse_json

Arrays = Mapping[str, np.ndarray]
FORMAT = 1
# Groups of a checkpoint: components under this. Block names are the user's own.
NETWORK = "network/"
_NUMBER = re.compile(r"[0-9]{6}|[1-9][0-9]{6,11}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass
class Snapshot:
    """What one checkpoint holds.

    Attributes:
        meta: plain data (position, best point, sums of the running epoch).
        arrays: group (`block_1`, `optimizer`, `best/block_1`) -> named arrays.
        digest: SHA-256 of all of it; empty where it was not read from a file.
    """

    meta: dict[str, Any]
    arrays: dict[str, Arrays] = field(default_factory=dict)
    digest: str = ""


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: created when the first one is written.
        keep: how many to keep.
        writes: False: `save` does nothing, since another process writes.
    """

    def __init__(self, folder: Path, keep: int = 3, writes: bool = True):
        self._writes = writes
        self._folder = folder
        self._objects = folder / "objects"
        self._keep = keep
        self._digests: dict[str, str] = {}

    def save(self, meta: Mapping[str, Any], changed: Mapping[str, Arrays], groups: list[str]) -> None:
        """Writes a checkpoint.

        Args:
            meta: plain data.
            changed: groups whose arrays changed since the last save, or that were never saved.
            groups: names of all groups that belong to the checkpoint; those not in `changed` are as saved last.

        Raises:
            WorkdirError: the disk is full or cannot be written; the checkpoints before stay usable.
        """
        if not self._writes:
            return
        try:
            self._objects.mkdir(parents=True, exist_ok=True)
            for name, arrays in changed.items():
                self._digests[name] = self._write_object(arrays)
            self._digests = {name: self._digests[name] for name in groups}
            body = as_json({"format": FORMAT, "meta": meta, "objects": self._digests})
            number = max(self._numbers(), default=0) + 1
            text = as_json({"sha256": hashlib.sha256(body.encode()).hexdigest(), "body": body})
            write_atomically(self._folder / f"{number:06d}.json", text.encode())
            self._collect()
        except OSError as error:
            raise storage_error(self._folder, error) from None

    def lost(self, quick: bool = False) -> set[str]:
        """Groups of the last checkpoint whose files are not there or damaged.

        Args:
            quick: their contents are not looked at.
        """
        if not self._writes:
            return set()
        found: dict[str, bool] = {}
        for name, digest in self._digests.items():
            if digest not in found:
                found[digest] = (self._objects / f"{digest}.safetensors").is_file() if quick else self._is_whole(name, digest)
        return {name for name, digest in self._digests.items() if not found[digest]}

    def _is_whole(self, name: str, digest: str) -> bool:
        try:
            self._read_object(name, digest)
        except CheckpointError:
            return False
        return True

    def load(self, wanted: Callable[[Mapping[str, Any]], bool] = lambda meta: True) -> tuple[Snapshot | None, list[str]]:
        """The newest checkpoint that is whole, and a line for each newer one that was not.

        Returns None and no line when nothing was ever saved, or nothing that is wanted.

        Args:
            wanted: whether a checkpoint is one to take, by its plain data.

        Raises:
            CheckpointError: there are checkpoints, and none is whole.
        """
        faults: list[str] = []
        others = False  # whole ones that are not wanted
        for number in sorted(self._numbers(), reverse=True):
            try:
                snapshot = self._read(number, wanted)
            except CheckpointError as error:
                faults.append(str(error))
                continue
            if snapshot is not None:
                return snapshot, faults
            others = True
        if others:
            return None, faults
        if faults:
            raise CheckpointError("no whole checkpoint is left:\n" + "\n".join(faults))
        if self._objects.is_dir() and any(self._objects.glob("*.safetensors")):
            faults.append(f"{self._folder}: weights, and no manifest that names them; nothing to go on from")
        return None, faults

    def _numbers(self) -> list[int]:
        return [int(path.stem) for path in self._folder.glob("*.json") if _NUMBER.fullmatch(path.stem)]

    def _read(self, number: int, wanted: Callable[[Mapping[str, Any]], bool]) -> Snapshot | None:
        path = self._folder / f"{number:06d}.json"
        try:
            outer = parse_json(read_bytes(path, MAX_JSON_BYTES))
            body = outer["body"]
            if hashlib.sha256(body.encode()).hexdigest() != outer["sha256"]:
                raise CheckpointError(f"{path}: damaged (its checksum differs)")
            content = parse_json(body)
            if content["format"] != FORMAT:
                raise CheckpointError(f"{path}: written in format {content['format']}; this version reads {FORMAT}")
            meta, objects = dict(content["meta"]), dict(content["objects"])
            if not wanted(meta):
                return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{path}: damaged ({error})") from None
        odd = [digest for digest in objects.values() if not isinstance(digest, str) or not _DIGEST.fullmatch(digest)]
        if odd:
            raise CheckpointError(f"{path}: damaged (names an object {odd[0]!r}; allowed: a SHA-256)")
        read: dict[str, Arrays] = {}  # once, however many groups name it
        for name, digest in objects.items():
            read[digest] = read[digest] if digest in read else self._read_object(name, digest)
        self._digests = objects
        return Snapshot(meta, {name: read[digest] for name, digest in objects.items()}, outer["sha256"])

    def _read_object(self, name: str, digest: str) -> Arrays:
        path = self._objects / f"{digest}.safetensors"
        try:
            with open_regular(path) as file:
                content = file.read()
            if hashlib.sha256(content).hexdigest() != digest:
                raise CheckpointError(f"{path}: damaged (its checksum differs), holds {name}")
            return parse_tensors(content)
        except (OSError, SafetensorError, KeyError, ValueError) as error:  # KeyError: a type that NumPy lacks
            raise CheckpointError(f"{path}: cannot be read ({error}), holds {name}") from None

    def _write_object(self, arrays: Arrays) -> str:
        content = format_tensors({key: np.require(arrays[key], requirements="C") for key in sorted(arrays)})
        digest = hashlib.sha256(content).hexdigest()
        path = self._objects / f"{digest}.safetensors"
        # One of that name may be damaged: training is deterministic, so after a fall-back the same contents come again.
        if not (path.is_file() and path.read_bytes() == content):
            write_atomically(path, content)
        return digest

    def _collect(self) -> None:
        """Removes old manifests, and objects that none of the others names."""
        numbers = sorted(self._numbers())
        for number in numbers[: -self._keep]:
            (self._folder / f"{number:06d}.json").unlink()
        named: set[str] = set()
        for number in numbers[-self._keep :]:
            try:
                body = parse_json(read_bytes(self._folder / f"{number:06d}.json", MAX_JSON_BYTES))["body"]
                named |= set(parse_json(body)["objects"].values())
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue  # damaged: it cannot be loaded, so what it named is not needed
        unnamed = (path for path in self._objects.iterdir() if path.name.partition(".")[0] not in named)
        for path in unnamed:
            if path.is_file():
                path.unlink(missing_ok=True)
        sweep(self._folder)
        sweep(self._objects)
