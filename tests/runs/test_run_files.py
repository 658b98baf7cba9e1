"""A run folder is judged by what its files hold: logs, folders in the place of files, snapshots by hard links, purged objects."""

import errno
import hashlib
import json
import os
import shutil

import pytest
from conftest import same_weights, weights, without_time

from kerasgreedy.errors import CheckpointError, Stopped, WorkdirError
from kerasgreedy.reports.run_files import read_metrics
from kerasgreedy.runs.holding import held, readable_faults
from kerasgreedy.runs.metrics_log import MetricsLog
from kerasgreedy.runs.workdir import FILES, FOLDERS, Workdir
from kerasgreedy.train import loop
from kerasgreedy.train.entry_points import resume_run, train_spec
from kerasgreedy.train.evaluating import evaluate_run

SPEC = "name: two\nblocks: [{conv: 4}, {conv: 4}]\n"
RECIPE = """
name: short
data: {dataset: digits, train_examples: 96, test_examples: 32, validation: 32}
training: {epochs: 2, batch_size: 32, optimizer: {name: sgd, learning_rate: 0.05}}
cache: {store: disk}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A whole run, and one that was stopped in the second epoch of its second phase."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "two.yaml").write_text(SPEC)
    (folder / "short.yaml").write_text(RECIPE)
    whole = train_spec(folder / "two.yaml", folder / "short.yaml", [], folder / "whole", quiet=True)
    original = loop.Loop._after_epoch

    def stop(self, phase, *rest):
        original(self, phase, *rest)
        if phase.index == 1:
            self._save(phase.trains)
            raise Stopped("as if")

    loop.Loop._after_epoch = stop
    try:
        with pytest.raises(Stopped):
            train_spec(folder / "two.yaml", folder / "short.yaml", [], folder / "part", quiet=True)
    finally:
        loop.Loop._after_epoch = original
    return whole.workdir, folder / "part"


@pytest.fixture
def part(runs, tmp_path):
    return shutil.copytree(runs[1], tmp_path / "part")


def lines(folder):
    return (folder / "metrics.jsonl").read_text().splitlines()


def changed(line, **values):
    return json.dumps({**json.loads(line), **values})


LOGS = {
    "another figure": lambda all_: [changed(all_[0], loss=0.5), *all_[1:]],
    "a longer one": lambda all_: [*all_[:1], changed(all_[1], x=1), *all_[2:]],
    "two swapped": lambda all_: [all_[1], all_[0], *all_[2:]],
    "a foreign one": lambda all_: [*all_[:-1], changed(all_[-1], phase_name="elsewhere")],
    "a text for a number": lambda all_: [changed(all_[0], loss="low"), *all_[1:]],
    "no epoch": lambda all_: [json.dumps({k: v for k, v in json.loads(all_[0]).items() if k != "epoch"}), *all_[1:]],
    "a list": lambda all_: ["[1, 2]", *all_[1:]],
    "a number that is none": lambda all_: [all_[0].replace('"loss": ', '"loss": NaN, "x": '), *all_[1:]],
    "no JSON": lambda all_: ["\x00" * 40, *all_[1:]],
}


@pytest.mark.parametrize("what", LOGS)
def test_a_damaged_log_is_set_aside(runs, tmp_path, what, capsys):
    content = (runs[1] / "metrics.jsonl").read_bytes()
    damaged = "\n".join(LOGS[what](lines(runs[1]))) + "\n"
    (tmp_path / "metrics.jsonl").write_text(damaged)
    half = content[: content.index(b'"phase": 1') - 1]
    MetricsLog(tmp_path, len(content), [(len(part), hashlib.sha256(part).hexdigest()) for part in (half, content)]).close()
    assert "damaged" in capsys.readouterr().err
    assert (tmp_path / "metrics_set_aside_1.jsonl").read_text() == damaged
    kept = (tmp_path / "metrics.jsonl").read_bytes()
    assert kept == (half if what == "a foreign one" else b"")  # the last record alone is another one


@pytest.mark.parametrize("more", [b"", b'{"half": ', b'{"whole": 1}\n'])
def test_a_log_that_belongs_to_the_state_stays(runs, tmp_path, more, capsys):
    content = (runs[1] / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").write_bytes(content + more)
    log = MetricsLog(tmp_path, len(content), [(len(content), hashlib.sha256(content).hexdigest())])
    assert log.digest == hashlib.sha256(content).hexdigest() and log.length == len(content)
    log.write(json.loads(lines(runs[1])[0]), 7)
    log.close()
    assert (tmp_path / "metrics.jsonl").read_bytes().startswith(content) and capsys.readouterr().err == ""


def test_the_weights_decide_where_the_log_is_damaged(runs, part, capsys):
    (part / "metrics.jsonl").write_text("\n".join(LOGS["two swapped"](lines(part))) + "\n")
    done = resume_run(part, quiet=True)
    assert "what was there is in metrics_set_aside_1.jsonl" in capsys.readouterr().err
    same_weights(weights(done.workdir), weights(runs[0]))
    assert without_time(part) == [r for r in without_time(runs[0]) if (r["phase"], r["epoch"]) == (1, 2)]
    assert evaluate_run(part)["depths"] == done.results["depths"]


def test_a_log_that_is_gone(runs, part, capsys):
    (part / "metrics.jsonl").unlink()
    done = resume_run(part, quiet=True)
    assert "are missing): goes on without these records" in capsys.readouterr().err
    same_weights(weights(done.workdir), weights(runs[0]))


def test_readers_refuse_a_record_that_is_none(runs, part):
    (part / "metrics.jsonl").write_text(changed(lines(part)[0], accuracy=[]) + "\n")
    with pytest.raises(WorkdirError, match=r"metrics.jsonl:1: damaged \(accuracy: received \[\]\)"):
        read_metrics(part)


@pytest.mark.parametrize("name", [name for name in (*FILES, *FOLDERS) if "/" not in name])
def test_what_should_be_a_file_is_a_folder_or_the_other_way_round(runs, tmp_path, name):
    place = shutil.copytree(runs[1], tmp_path / "part")
    path = place / name
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()
    path.touch() if name in FOLDERS else path.mkdir()
    with pytest.raises(WorkdirError, match=f"{name}: should be a|{name} is missing"):
        Workdir.open(place)


def test_folders_with_the_name_of_a_temporary_file(runs, part):
    for place in (part / "x.tmp", part / "checkpoints/y.1.tmp"):
        place.mkdir()
        (place / "mine").write_text("kept")
    same_weights(weights(resume_run(part, quiet=True).workdir), weights(runs[0]))
    assert (part / "x.tmp/mine").read_text() == "kept"


def test_a_snapshot_by_hard_links_stays_as_it_is(runs, tmp_path):
    """`cp -al`: whichever copy goes on, no file of the other one changes; and both may train at once."""
    one = shutil.copytree(runs[1], tmp_path / "one")
    two = shutil.copytree(one, tmp_path / "two", copy_function=os.link)
    three = shutil.copytree(one, tmp_path / "three")
    before = {path: path.read_bytes() for path in two.rglob("*") if path.is_file()}
    with held(two):
        resume_run(one, quiet=True)
    assert {path: path.read_bytes() for path in two.rglob("*") if path.is_file()} == before
    same_weights(weights(resume_run(two, quiet=True).workdir), weights(one))
    assert without_time(two) == without_time(one) == without_time(resume_run(three, quiet=True).workdir)


def test_a_frozen_block_that_was_purged_is_written_again(runs, part, monkeypatch, capsys):
    """While training goes on: the run does not call itself done without it."""
    original, gone = loop.Loop._epoch, []

    def purge(self, phase):
        result = original(self, phase)
        digest = self.state._store._digests["network/block_1"]
        (part / f"checkpoints/objects/{digest}.safetensors").unlink()
        gone.append(digest)
        return result

    monkeypatch.setattr(loop.Loop, "_epoch", purge)
    done = resume_run(part, quiet=True)
    assert gone and evaluate_run(part)["depths"] == done.results["depths"]
    same_weights(weights(part), weights(runs[0]))


def test_a_file_that_rots_while_training_goes_on_is_mended(runs, part, monkeypatch, capsys):
    original = loop.Loop._epoch

    def rot(self, phase):
        result = original(self, phase)
        path = part / f"checkpoints/objects/{self.state._store._digests['network/block_1']}.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        return result

    monkeypatch.setattr(loop.Loop, "_epoch", rot)
    resume_run(part, quiet=True)
    assert "written again, since the files of the newest checkpoint were damaged: network/block_1" in capsys.readouterr().err
    same_weights(weights(part), weights(runs[0]))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
def test_facts_of_a_checkpoint_that_are_no_numbers(part, value):
    for path in (part / "checkpoints").glob("*.json"):
        body = json.loads(path.read_text())["body"].replace('"seconds": ', f'"seconds": {value}, "x": ')
        assert value in body
        path.write_text(json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest(), "body": body}))
    with pytest.raises(CheckpointError, match="no whole checkpoint is left"):
        resume_run(part, quiet=True)


def test_the_plan_file_follows_what_actions_did(pruned):
    """Sizes that were open when the run began are written down."""
    plan = json.loads((pruned.workdir / "plan.json").read_text())
    assert [stage["name"] for stage in plan] == [entry["phase"] for entry in pruned.results["phases"]]
    assert plan[-1]["parameters"] == sum(
        v.shape.num_elements() for v in pruned.network.heads[-1].trainable_variables
    )  # fmt: skip


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full; what was saved before is whole"),
        (OSError(errno.EFBIG, "File too large"), r"a file may not grow that large \(ulimit -f\); what was saved before is whole"),
        (OSError(errno.EROFS, "Read-only file system"), "cannot be written"),
        (RuntimeError("append: File too large"), "a file may not grow that large"),
        (MemoryError(), "out of memory"),
    ],
)
def test_what_ends_a_run_for_want_of_room_names_its_folder(error, said, tmp_path):
    with pytest.raises(WorkdirError, match=said) as told, readable_faults(tmp_path):
        raise error
    assert str(tmp_path) in str(told.value)
    for other in (FileNotFoundError(errno.ENOENT, "No such file", "x"), KeyError("x"), WorkdirError("No space left on device")):
        with pytest.raises(type(other)) as kept, readable_faults(tmp_path):
            raise other
        assert kept.value is other
