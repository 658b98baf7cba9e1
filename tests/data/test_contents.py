"""A run goes on with the data that it began with: by what files hold, not by their names."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import unsealed
from PIL import Image
from test_named import write_mnist

from kerasgreedy.data import contents
from kerasgreedy.data.contents import check_contents, data_files, stamped
from kerasgreedy.errors import DataError, InputError, WorkdirError
from kerasgreedy.spec.recipe import Data
from kerasgreedy.train.entry_points import train_spec
from kerasgreedy.train.evaluating import evaluate_run


def a_folder(root):
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 2)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)).save(root / split / name / f"{i}.png")
    return Data(dataset=f"folder:{root}")


def keep_times(path: Path, change) -> None:
    """Changes a file and sets its times back, as `touch -r` does."""
    facts = path.stat()
    change()
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def swap(one: Path, two: Path) -> None:
    one.rename(one.with_name("swap"))
    two.rename(one)
    one.with_name("swap").rename(two)


def of_same_size(path: Path) -> None:
    """Rewritten in place, one byte of it turned round."""
    with path.open("r+b") as file:
        file.seek(-13, os.SEEK_END)
        last = file.read(1)
        file.seek(-13, os.SEEK_END)
        file.write(bytes([last[0] ^ 255]))


CHANGES = {
    "in place": lambda root: of_same_size(root / "train/cat/3.png"),
    "in place, times set back": lambda root: keep_times(root / "train/cat/3.png", lambda: of_same_size(root / "train/cat/3.png")),
    "another file put there": lambda root: shutil.copy2(root / "train/dog/3.png", root / "train/cat/3.png"),
    "files exchanged": lambda root: swap(root / "test/cat/0.png", root / "test/cat/1.png"),
    "classes exchanged": lambda root: swap(root / "train/cat", root / "train/dog"),
    "splits exchanged": lambda root: swap(root / "train/cat/0.png", root / "test/cat/0.png"),
    "cut": lambda root: os.truncate(root / "train/cat/3.png", 40),
}
SAME = {
    "touched": lambda root: (root / "train/cat/3.png").touch(),
    "copied": lambda root: (
        shutil.copytree(root, root.with_name("copy")),
        shutil.rmtree(root),
        root.with_name("copy").rename(root),
    ),
    "rewritten alike": lambda root: (root / "train/cat/3.png").write_bytes((root / "train/cat/3.png").read_bytes()),
    "linked": lambda root: os.link(root / "train/cat/3.png", root.with_name("link")),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_other_contents_are_found_though_names_are_the_same(kind, tmp_path):
    data = a_folder(tmp_path / "images")
    stamps = json.loads(json.dumps(stamped(data_files(data))))
    CHANGES[kind](tmp_path / "images")
    with pytest.raises(DataError, match=r"images/t\w+/\w+/\d.png: its contents changed since the run began"):
        check_contents(data_files(data), stamps)


@pytest.mark.parametrize("kind", SAME)
def test_the_same_contents_are_the_same_data(kind, tmp_path):
    data = a_folder(tmp_path / "images")
    stamps = stamped(data_files(data))
    SAME[kind](tmp_path / "images")
    check_contents(data_files(data), stamps)
    check_contents(data_files(data), stamps, everything=True)


def test_only_what_looks_changed_is_hashed_unless_all_is_asked_for(tmp_path, monkeypatch):
    data = a_folder(tmp_path / "images")
    stamps = stamped(data_files(data))
    (tmp_path / "images/train/dog/0.png").touch()
    hashed = []
    real = contents._digest
    monkeypatch.setattr(contents, "_digest", lambda file: hashed.append(file) or real(file))
    check_contents(data_files(data), stamps)
    assert hashed == [str(tmp_path / "images/train/dog/0.png")]
    check_contents(data_files(data), stamps, everything=True)
    assert len(hashed) == 1 + 16


def test_what_size_and_times_cannot_show_is_found_on_request(tmp_path):
    """As on a file system whose times are coarse: the stamp says what the new file says, but for the digest."""
    data = a_folder(tmp_path / "images")
    before = stamped(data_files(data))
    of_same_size(tmp_path / "images/train/cat/3.png")
    after = stamped(data_files(data))
    name = "train/cat/3.png"
    stamps = {**after, name: [*after[name][:4], before[name][4]]}
    check_contents(data_files(data), stamps)
    with pytest.raises(DataError, match="its contents changed"):
        check_contents(data_files(data), stamps, everything=True)


def test_large_files_are_hashed_in_blocks_from_end_to_end(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(contents, "BLOCK_BYTES", 10)
    path = tmp_path / "large"
    path.write_bytes(bytes(6310))  # 64 blocks, 100 bytes apart
    whole = contents._digest(str(path))
    for place, seen in ((0, True), (6309, True), (3109, True), (3110, False)):
        content = bytearray(6310)
        content[place] = 1
        path.write_bytes(content)
        assert (contents._digest(str(path)) != whole) == seen, place
    path.write_bytes(bytes(6311))
    assert contents._digest(str(path)) != whole


def test_files_of_every_kind(tmp_path):
    (tmp_path / "idx").mkdir()
    write_mnist(tmp_path / "idx", 20, 20)
    stems = [f"{split}-{what}-ubyte" for split in ("t10k", "train") for what in ("images-idx3", "labels-idx1")]
    for name in ("mnist", "mnist_rotated"):
        files = data_files(Data(dataset=name, data_dir=str(tmp_path / "idx")))
        assert sorted(name.removesuffix(".gz") for name in files) == stems
    assert data_files(Data(dataset="digits")) == {}
    assert data_files(Data(dataset=f"npz:{tmp_path}/a.npz")) == {"a.npz": f"{tmp_path}/a.npz"}
    copy = tmp_path / "t/cifar10/1.0.0"
    copy.mkdir(parents=True)
    for name in ("dataset_info.json", "features.json", "cifar10-train.tfrecord-00000-of-00001"):
        (copy / name).write_text("x")
    files = data_files(Data(dataset="cifar10", data_dir=str(tmp_path / "t")))
    assert sorted(files) == ["cifar10-train.tfrecord-00000-of-00001", "dataset_info.json", "features.json"]


def test_names_that_are_no_text_are_kept(tmp_path):
    data = a_folder(tmp_path / "images")
    odd = os.fsdecode(b"cat\xff.png")
    shutil.copy(tmp_path / "images/train/cat/0.png", tmp_path / "images/train/cat" / odd)
    stamps = json.loads(json.dumps(stamped(data_files(data))))
    assert f"train/cat/{odd}" in stamps
    check_contents(data_files(data), stamps, everything=True)


def test_long_work_is_said(tmp_path, monkeypatch, capsys):
    data = a_folder(tmp_path / "images")
    monkeypatch.setattr(contents, "_AT_ONCE", 4)
    stamped(data_files(data))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(contents, "_QUIET_SECONDS", 0.0)
    stamped(data_files(data))
    assert capsys.readouterr().err == "noting the contents of the data set's files: 4 of 16\n"


RECIPE = "name: r\ndata: {{dataset: '{}', validation: 4{}}}\ntraining: {{epochs: 1, batch_size: 4}}\n"


@pytest.fixture
def run(tmp_path):
    """A run on a folder of images."""
    data = a_folder(tmp_path / "images")
    (tmp_path / "s.yaml").write_text("name: s\nblocks: [{conv: 2}]\n")
    (tmp_path / "r.yaml").write_text(RECIPE.format(data.dataset, ""))
    return train_spec(tmp_path / "s.yaml", tmp_path / "r.yaml", workdir=tmp_path / "run", quiet=True).workdir


def test_a_run_remembers_its_files(run, tmp_path):
    stamps = json.loads((run / "data_files.json").read_text())
    assert len(stamps) == 16 and stamps["train/cat/0.png"][0] == (tmp_path / "images/train/cat/0.png").stat().st_size
    assert evaluate_run(run, check_data=True)["examples"] == 4
    swap(tmp_path / "images/train/cat", tmp_path / "images/train/dog")
    with pytest.raises(DataError, match="run: .*train/cat/0.png: its contents changed since the run began"):
        evaluate_run(run)
    swap(tmp_path / "images/train/cat", tmp_path / "images/train/dog")
    assert evaluate_run(run)["examples"] == 4
    (run / "data_files.json").write_text("{}")
    with pytest.raises(WorkdirError, match="data_files.json: damaged .its checksum differs"):
        evaluate_run(run)
    unsealed(run)
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({k: v for k, v in facts.items() if k != "data_files"}))
    for text in ("[]", "{", '{"a": 3}', '{"a": [1]}', "NaN"):
        (run / "data_files.json").write_text(text)
        with pytest.raises(WorkdirError, match="data_files.json: damaged"):
            evaluate_run(run)
    # A folder of before there was such a file.
    (run / "data_files.json").unlink()
    assert evaluate_run(run)["examples"] == 4
    with pytest.raises(InputError, match="data_files.json is missing, so that there is nothing to check"):
        evaluate_run(run, check_data=True)


def test_an_idx_file_rewritten_in_place_is_found(tmp_path):
    write_mnist(tmp_path, 120, 20)
    (tmp_path / "s.yaml").write_text("name: s\nblocks: [{conv: 2, stride: 4}]\n")
    (tmp_path / "r.yaml").write_text(RECIPE.format("mnist", f", data_dir: '{tmp_path}'"))
    run = train_spec(tmp_path / "s.yaml", tmp_path / "r.yaml", workdir=tmp_path / "run", quiet=True)
    assert evaluate_run(run.workdir)["examples"] == 20
    (labels,) = tmp_path.glob("train-labels*")
    write_mnist(tmp_path, 120, 20, np.arange(140)[::-1])
    with pytest.raises(DataError, match="its contents changed since the run began"):
        evaluate_run(run.workdir)
    assert labels.exists()
