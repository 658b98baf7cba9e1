"""Checkpoints of another's making: an object is tensors or refused, and is named by its checksum only."""

import hashlib
import json
import pickle
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from command_line import assert_clear
from payloads import OBJECTS, Payload, fired
from safetensors.numpy import save as format_tensors

from kerasgreedy.errors import CheckpointError
from kerasgreedy.runs.checkpoint import CheckpointStore
from kerasgreedy.runs.state import Position

EVALUATE, RESUME = "evaluate run", "train -q --resume run"
PICKLE = pickle.dumps(Payload())


pytestmark = pytest.mark.usefixtures("nothing_ran")


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished.workdir, tmp_path / "run"))


def tensors(header: object, content: bytes = bytes(64), length: int | None = None) -> bytes:
    """A safetensors file with a header of one's own."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + content


def entry(shape: list, offsets: list, dtype: str = "F32") -> dict:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


WRONG_OBJECTS = {
    "pickle": PICKLE,
    "npy_of_objects": OBJECTS,
    "empty": b"",
    "length": tensors(entry([4], [0, 16]), length=2**63),
    "length_over": tensors(entry([4], [0, 16]), length=10_000),
    "no_json": tensors(b"\xff" * 20),
    "deep": tensors(b"[" * 100_000),
    "negative": tensors(entry([-4], [0, 16])),
    "huge": tensors(entry([2**62, 8], [0, 16])),
    "outside": tensors(entry([1000], [0, 4000])),
    "backwards": tensors(entry([4], [16, 0])),
    "hole": tensors(entry([4], [16, 32])),
    "type": tensors(entry([4], [0, 16], "PY")),
    "code": tensors(entry([4], [0, 16], "__import__('os').system('touch MARKER')")),
}


def rewritten(run: Path, change) -> None:
    """The newest manifest changed, with the right checksum, and alone."""
    *others, newest = sorted(run.glob("checkpoints/*.json"))
    content = json.loads(json.loads(newest.read_text())["body"])
    change(content)
    body = json.dumps(content)
    newest.write_text(json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest(), "body": body}))
    for other in others:
        other.unlink()


def put_object(run: Path, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    (run / f"checkpoints/objects/{digest}.safetensors").write_bytes(content)
    return digest


@pytest.mark.parametrize("kind", WRONG_OBJECTS)
@pytest.mark.parametrize("named", [False, True])
def test_objects_are_tensors_or_refused(kind, named, run):
    content = WRONG_OBJECTS[kind]
    if named:  # under its own checksum
        digest = put_object(run, content)
        rewritten(run, lambda manifest: manifest["objects"].update({"network/block_1": digest}))
    else:
        for path in run.glob("checkpoints/objects/*"):
            path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"(?s)no whole checkpoint is left:.*\.safetensors: (damaged|cannot be read)"):
        CheckpointStore(run / "checkpoints").load()


def test_the_payload_is_one(tmp_path):
    pickle.loads(PICKLE)
    assert fired(tmp_path / "MARKER")


@pytest.mark.parametrize("kind", ["I64", "U8", "BOOL", "F16", "BF16", "F8_E4M3", "C64"])
def test_tensors_of_other_types_are_refused_or_only_numbers(kind, run, call):
    arrays = CheckpointStore(run / "checkpoints").load()[0].arrays["network/block_1"]
    size, start, header = {"I64": 8, "F16": 2, "BF16": 2, "C64": 8}.get(kind, 1), 0, {}
    for key, array in arrays.items():
        header[key] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [start, start + size * array.size]}
        start += size * array.size
    digest = put_object(run, tensors(header, bytes(start)))
    rewritten(run, lambda manifest: manifest["objects"].update({"network/block_1": digest}))
    code, out, err = call(EVALUATE)
    if code:
        assert_clear(code, out, err, ("block_1",))
    else:
        assert kind in ("I64", "U8", "BOOL", "F16") and not err


@pytest.mark.parametrize(
    "digest", ["../../../outside", "/outside", "", ".", "a\0b", "x" * 300, "A" * 64, "a" * 64 + "\n", 7, None, ["a"], {}]
)
def test_manifests_name_objects_by_checksums_only(digest, run, tmp_path, monkeypatch):
    content = format_tensors({"a": np.zeros(3, np.float32)})
    (tmp_path / "outside.safetensors").write_bytes(content)
    rewritten(run, lambda manifest: manifest["objects"].update({"network/block_1": digest}))
    read: list[str] = []
    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: read.append(str(self)) or real(self))
    with pytest.raises(CheckpointError, match="names an object .*; allowed: a SHA-256"):
        CheckpointStore(run / "checkpoints").load()
    assert not read


def test_an_object_that_many_groups_name_is_read_once(run, monkeypatch):
    digest = put_object(run, format_tensors({"a": np.zeros(3, np.float32)}))
    rewritten(run, lambda manifest: manifest.update(objects={f"g{i}": digest for i in range(10_000)}))
    snapshot, _ = CheckpointStore(run / "checkpoints").load()
    assert len(snapshot.arrays) == 10_000 and len({id(arrays) for arrays in snapshot.arrays.values()}) == 1


@pytest.mark.parametrize("stem", ["²", "٣", "-1", "1", "0000001", "9" * 200, "x"])
def test_files_beside_the_manifests_are_left_out(stem, run):
    store = CheckpointStore(run / "checkpoints")
    meta = store.load()[0].meta
    (run / f"checkpoints/{stem}.json").write_text("{}")
    snapshot, faults = store.load()
    assert snapshot.meta == meta and not faults
    store.save(meta, {}, list(snapshot.arrays))
    assert (run / f"checkpoints/{stem}.json").exists()


META = {
    "phase": -1, "epoch": "1", "step": 1.5, "sums": [1], "best": {"score": 1}, "log_bytes": -1, "seconds": "x", "kept": [1],
}  # fmt: skip


@pytest.mark.parametrize("key", META)
def test_a_position_that_is_none_is_an_error(key, run, call):
    def change(manifest):
        manifest["meta"][key] = META[key] if key != "epoch" else "one"

    rewritten(run, change)
    assert_clear(*call(RESUME), ("the checkpoint is damaged", key))
    good = {"phase": 1, "kept": [{"phase": "p", "epochs": 1, "best": None, "keep": "last"}]}
    assert Position.of(good).phase == 1
    for bad in ({"phase": 2}, {"kept": [{"phase": "p"}]}, {"phase": 10**400}, {"phase": True}, {"phase": "1"}, {"started": 1}):
        with pytest.raises(CheckpointError):
            Position.of({**good, **bad})


MANIFESTS = {
    "list": lambda m: m.update(objects=["a"]),
    "meta": lambda m: m.update(meta=[1]),
    "no_meta": lambda m: m.pop("meta"),
    "spec_code": lambda m: m["meta"].update(spec={"name": "../../x", "blocks": [{"conv": 4}]}),
    "spec_word": lambda m: m["meta"].update(spec="!!python/name:os.system"),
    "kept": lambda m: m["meta"].update(phase=10**3, kept=[{"phase": "p", "epochs": 1, "best": None, "keep": "last"}] * 10**3),
    "best": lambda m: m["objects"].update({"best/../../x": m["objects"]["network/block_1"]}),
    "swapped": lambda m: m["objects"].update({"network/block_1": m["objects"]["network/head_1"]}),
}


@pytest.mark.parametrize("group", ["optimizer", "extra/masks"])
def test_what_belongs_to_no_running_phase_is_an_error(group, run, call):
    def change(manifest):
        objects = manifest["objects"]
        manifest["meta"].update(phase=0, epoch=0, step=0, kept=[], best=None, sums={}, started=True)
        objects.update({group: objects["network/block_1"], "optimizer": objects["network/block_1"]})

    (run / "results.json").unlink()
    rewritten(run, change)
    assert_clear(*call(RESUME), ("checkpoint",))


@pytest.mark.parametrize("kind", MANIFESTS)
@pytest.mark.parametrize("command", [EVALUATE, RESUME])
def test_a_manifest_with_other_content_is_an_error(kind, command, run, call):
    (run / "results.json").unlink()
    rewritten(run, MANIFESTS[kind])
    assert_clear(*call(command), ("checkpoint" if kind != "swapped" else "stored weights belong to another network",))
