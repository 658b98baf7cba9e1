"""Run folders of another's making: reading, evaluating and resuming one runs nothing and touches nothing outside of it."""

import json
import os
import pickle
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from command_line import assert_clear
from conftest import unsealed
from payloads import Payload, fired

from kerasgreedy.errors import WorkdirError
from kerasgreedy.inputs.feature_store import FeatureStore

EVALUATE, RESUME, COMPARE, CONVERGENCE = "evaluate run", "train -q --resume run", "compare run", "convergence run"
PICKLE = pickle.dumps(Payload())
CODE = "!!python/object/apply:os.system ['touch MARKER']"


pytestmark = pytest.mark.usefixtures("nothing_ran")


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished.workdir, tmp_path / "run"))


LINKS = {
    "cache": "victim", "checkpoints/objects": "victim", "checkpoints": "victim", "plots": "victim", "tensorboard": "victim",
    "pruning": "victim", "support": "victim", "metrics.jsonl": "victim/note", ".lock": "victim/note",
    "model.keras": "victim/note", ".model.new.keras": "victim/note", "results.json": "/dev/zero",
    "checkpoints/000099.json": "/dev/zero", "plots/loss.png": "nowhere",
}  # fmt: skip


@pytest.mark.parametrize("name", LINKS)
def test_links_lead_nowhere(name, run, call, tmp_path):
    """The running phase alone is kept in `cache/`, unnamed objects are removed, `metrics.jsonl` is cut off: not elsewhere."""
    (tmp_path / "victim/folder").mkdir(parents=True)
    for place in ("victim/note", "victim/folder/note", "victim/a.tmp"):
        (tmp_path / place).write_text("mine")
    link = run / name
    shutil.rmtree(link) if link.is_dir() else link.unlink(missing_ok=True)
    link.symlink_to(LINKS[name] if LINKS[name][0] == "/" else tmp_path / LINKS[name])
    for command in (
        RESUME,
        EVALUATE,
        "sensitivity run",
        "prune run --keep 0.5",
        "finish run out -m quantize",
        COMPARE,
        CONVERGENCE,
    ):
        if name != "results.json" or command != COMPARE:  # which is not even a file
            assert_clear(*call(command), (f"{Path('run', name)}: is a symbolic link",))
    for place in ("victim/note", "victim/folder/note", "victim/a.tmp"):
        assert (tmp_path / place).read_text() == "mine"


def test_a_pipe_is_not_waited_for(run, call):
    (run / "metrics.jsonl").unlink()
    os.mkfifo(run / "metrics.jsonl")
    assert_clear(*call(CONVERGENCE), ("run/metrics.jsonl: is no ordinary file",))


DEEP, DIGITS = "[" * 100_000, "9" * 5000
TEXTS = [  # file, content, command, part of the error
    ("spec.yaml", f"name: {CODE}\nblocks: [{{conv: 4}}]\n", EVALUATE, "received the tag"),
    ("spec.yaml", "name: ../../x\nblocks: [{conv: 4}]\n", RESUME, "name: received '../../x'"),
    ("spec.yaml", "name: ../../x\nblocks: [{conv: 4}]\n", "summary run", "name: received '../../x'"),
    ("spec.yaml", "name: ../../x\nblocks: [{conv: 4}]\n", "prune run --keep 0.5", "name: received '../../x'"),
    ("spec.yaml", f"name: {CODE}\n", CONVERGENCE, "received the tag"),
    ("recipe.yaml", f"name: {CODE}\n", EVALUATE, "received the tag"),
    ("recipe.yaml", "name: r\ndata: {dataset: 'tfds:../../x'}\ntraining: {epochs: 1}\n", EVALUATE, "not a name of a TFDS"),
    ("pruned_spec.yaml", f"name: {CODE}\n", "summary run", "received the tag"),
    ("pruned_spec.yaml", f"name: {CODE}\n", "prune run --keep 0.5", "received the tag"),
    ("run.json", DEEP, EVALUATE, "damaged"),
    ("run.json", f'{{"seed": {DIGITS}}}', EVALUATE, "5000 digits"),
    ("results.json", DEEP, COMPARE, "damaged"),
    ("results.json", f'{{"seed": {DIGITS}}}', COMPARE, "5000 digits"),
    ("run.json", "{\0}", RESUME, "damaged"),
    ("metrics.jsonl", f"{DEEP}\n{{}}\n", CONVERGENCE, "damaged"),
    ("metrics.jsonl", f'{{"phase": {DIGITS}}}\n{{}}\n', CONVERGENCE, "damaged"),
    ("metrics.jsonl", "3\n4\n", CONVERGENCE, "damaged"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "command", "expected"), TEXTS, ids=lambda value: str(value)[:24])
def test_files_of_text_are_read_as_text(name, text, command, expected, run, call):
    (run / name).write_text(text)
    if name.endswith(".yaml"):
        unsealed(run)
    assert_clear(*call(command), (expected,))


@pytest.mark.parametrize(
    ("file", "change", "command"),
    [
        *(
            ("results.json", {key: "x"}, COMPARE)
            for key in ("seed", "epochs", "depths", "ensemble", "training_seconds", "parameters")
        ),
        ("results.json", {"depths": [{"depth": 1, "top1": [0], "top5": "x", "loss": {}}]}, COMPARE),
        ("results.json", {"spec": ["x"] * 10}, COMPARE),
        ("results.json", {"weights_bytes": "x"}, COMPARE),
        *(
            ("run.json", {"normalization": value}, EVALUATE)
            for value in ([], [[1, 2], [3, 4]], [["x"], [1]], [[1e999], [1]], {"a": 1})
        ),
    ],
)
def test_values_of_other_kinds_are_errors(file, change, command, run, call):
    content = json.loads((run / file).read_text())
    (run / file).write_text(json.dumps({**content, **change}))
    assert_clear(*call(command), (f"run/{file}: damaged",))


@pytest.mark.parametrize("data", [{}, {"dataset": 1}, {"image_shape": [8]}, {"class_names": 3}, {"train_examples": "x"}])
def test_facts_of_other_kinds_are_errors(data, run):
    from kerasgreedy.train.entry_points import load_network

    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**facts, "data": {**facts["data"], **data} if data else {}}))
    with pytest.raises(WorkdirError, match="run.json: damaged"):
        load_network(run)


def test_a_run_under_another_name_is_the_same_run(run, call):
    """A name in a hand-edited spec leads to no other place."""
    before = json.loads((run / "results.json").read_text())["depths"]
    (run / "spec.yaml").write_text((run / "spec.yaml").read_text().replace("name: tiny", "name: another.name"))
    unsealed(run)
    code, out, _ = call(f"{EVALUATE} --json")
    assert code == 0 and json.loads(out)["depths"] == before
    assert not Path("runs").exists() and sorted(path.name for path in Path().iterdir()) == ["r.yaml", "run", "s.yaml"]


def test_the_model_of_a_run_is_never_loaded(run, call, tmp_path):
    """It is written for others; one with code in it runs that code where somebody loads it with safe_mode=False."""
    marker = str(tmp_path / "MARKER")
    model = keras.Sequential([keras.Input((1,)), keras.layers.Lambda(lambda x: open(marker, "w") and x)])  # noqa: SIM115
    fired(tmp_path / "MARKER")  # Keras ran it to find its output's shape
    model.save(run / "model.keras")
    fired(tmp_path / "MARKER")
    with pytest.raises(ValueError, match="(?i)unsafe|safe_mode"):
        keras.models.load_model(run / "model.keras")
    assert not fired(tmp_path / "MARKER")
    keras.models.load_model(run / "model.keras", safe_mode=False)
    assert fired(tmp_path / "MARKER")
    (run / "plan.json").write_bytes(PICKLE)  # for people
    for command in (EVALUATE, RESUME, COMPARE, "summary run"):
        assert call(command)[0] == 0


SEALS = {
    "pickle": PICKLE, "deep": DEEP.encode(), "labels": {"labels": [10**30] * 4}, "text": {"labels": ["x"] * 4}, "list": b"[]",
    "digits": f'{{"labels": {DIGITS}}}'.encode(), "long": b"[" + b"0," * 500_000 + b"0]", "no_labels": {"labels": None},
}  # fmt: skip


@pytest.mark.parametrize("kind", SEALS)
def test_cached_features_of_another_are_computed_anew(kind, tmp_path):
    stamp = {"prefix": "p"}
    store = FeatureStore(4, (2,), "float32", tmp_path / "c/t.bin", stamp)
    store.put(np.arange(4), np.ones((4, 2), np.float32), np.arange(4, dtype=np.int32))
    store.finish()
    assert FeatureStore(4, (2,), "float32", tmp_path / "c/t.bin", stamp).filled
    seal, change = tmp_path / "c/t.json", SEALS[kind]
    seal.write_bytes(change if isinstance(change, bytes) else json.dumps({**json.loads(seal.read_text()), **change}).encode())
    assert not FeatureStore(4, (2,), "float32", tmp_path / "c/t.bin", stamp).filled
    (tmp_path / "c/t.bin").write_bytes(PICKLE)
    assert not FeatureStore(4, (2,), "float32", tmp_path / "c/t.bin", stamp).filled
