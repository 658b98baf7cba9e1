"""Data sets of another's making: reading them runs nothing and fills no memory."""

import gzip
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from command_line import assert_clear
from data_files import COLUMNS, CORE, FEATURES, FOLDER, INFO, SPLITS, idx
from payloads import OBJECTS, Payload, fired, saved
from PIL import EpsImagePlugin, Image

from kerasgreedy.data import decode, npz
from kerasgreedy.data.npz import describe_npz, read_npz
from kerasgreedy.errors import DataError
from kerasgreedy.spec.recipe import Data

TRAIN = "train s.yaml -q -r r.yaml -w run -s data.image_size=8 -s "


pytestmark = pytest.mark.usefixtures("nothing_ran")


def raw(header: str, content: bytes = bytes(80), version: tuple[int, int] = (1, 0)) -> bytes:
    """An npy file with a header of one's own."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(text)) + text + content


def header(descr: object, shape: str) -> str:
    return f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}"


GOOD = {
    "x_train": saved(np.zeros((4, 8, 8, 1), np.uint8)),
    "y_train": saved(np.arange(4) % 2),
    "x_test": saved(np.zeros((2, 8, 8, 1), np.uint8)),
    "y_test": saved(np.arange(2)),
}
HEADERS = {
    "code": "__import__('os').system('touch MARKER')",
    "unbalanced": "(" * 500,
    "unhashable": "{[]: 1}",
    "signs": "-" * 9000 + "1",
    "brackets": "[" * 90 + "]" * 90,
    "long": "#" * 60_000,
    "rows": header("<i8", "(1000000000000,)"),
    "more_rows": header("<i8", f"({10**40},)"),
    "item": header("|V2147483647", "(400,)"),
    "text": header("<U500000000", "(400,)"),
    "negative": header("<i8", "(-4,)"),
    "truth": header("<i8", "(True,)"),
    "object_field": header([("a", "O")], "(4,)"),
    "object": header("O", "(4,)"),
}


@pytest.mark.parametrize("name", ["x_train", "y_train", "y_test", "class_names"])
@pytest.mark.parametrize("kind", ["objects", "pickle", *HEADERS, "version"])
def test_arrays_are_numbers_or_refused(name, kind, tmp_path):
    other = {"objects": OBJECTS, "pickle": pickle.dumps(Payload()), "version": raw(header("<i8", "(4,)"), version=(9, 0))}
    content = other.get(kind) or raw(HEADERS[kind])
    with zipfile.ZipFile("d.npz", "w") as archive:
        for key, value in {**GOOD, name: content, "../../MARKER": b""}.items():
            archive.writestr(f"{key}.npy", value)
    if kind == "objects":  # it would run
        np.load("d.npz", allow_pickle=True)[name]
        assert fired(tmp_path / "MARKER")
    with pytest.raises(DataError, match=r"d\.npz: "):
        describe_npz("d.npz", Data(dataset="npz:d.npz"))
        read_npz("d.npz")
    with pytest.raises(DataError, match=r"d\.npz: "):
        read_npz("d.npz")
    assert not (tmp_path.parent.parent / "MARKER.npy").exists()


@pytest.mark.parametrize("content", [pickle.dumps(Payload()), b"PK\5\6" + bytes(18), OBJECTS, b"PK\3\4" + bytes(99)])
def test_what_only_calls_itself_npz_is_refused(content, call):
    Path("d.npz").write_bytes(content)
    assert_clear(*call("plan s.yaml -r r.yaml -s data.dataset=npz:d.npz"), ("d.npz",))


def test_arrays_that_do_not_fit_are_not_unpacked(monkeypatch):
    np.savez_compressed(
        "d.npz", x_train=np.zeros((40, 8, 8)), y_train=np.arange(40) % 2, x_test=np.zeros((2, 8, 8)), y_test=[0, 1]
    )
    monkeypatch.setattr(npz, "available_memory", lambda: 20_000.0)
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("it was unpacked"))
    with pytest.raises(DataError, match=r"array 'x_train' of 0.0 GB does not fit into the 0.0 GB that are free"):
        npz.read_array(Path("d.npz"), "x_train")  # 40 * 8 * 8 * 8 = 20,480 bytes


def test_a_gz_file_is_unpacked_to_the_size_that_it_states_only(monkeypatch):
    whole = idx(3, 28, 28, fill=7)
    Path("i.gz").write_bytes(gzip.compress(whole))
    assert decode.read_idx(Path("i.gz")).shape == (3, 28, 28)
    Path("i.gz").write_bytes(gzip.compress(whole + bytes(50_000_000)))
    asked = []
    real = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, size=-1: asked.append(size) or real(self, size))
    with pytest.raises(DataError, match=r"i\.gz: damaged idx file"):
        decode.read_idx(Path("i.gz"))
    assert max(asked) == len(whole) + 1 and min(asked) > 0
    Path("huge").write_bytes(struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**31, 2**31))
    with pytest.raises(DataError, match="huge: its 9,903,520,314,283"):
        decode.read_idx(Path("huge"))


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(MARKER) (w) file closefile showpage\n%%EOF\n"


@pytest.mark.parametrize("broken", ["error", "skip"])
@pytest.mark.parametrize("crop", ["false", "true"])
def test_a_picture_that_is_a_program_is_not_run(broken, crop, call, monkeypatch, tmp_path):
    """Pillow hands PostScript to Ghostscript, whatever the file is called."""
    for name, content in FOLDER.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content)
    Path("d/train/b/0.jpg").write_bytes(EPS)
    interpreter = tmp_path / "bin/gs"
    interpreter.parent.mkdir()
    interpreter.write_text(f"#!/bin/sh\ntouch {tmp_path / 'MARKER'}\n")
    interpreter.chmod(0o755)
    monkeypatch.setenv("PATH", f"{interpreter.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    with pytest.raises(OSError), Image.open("d/train/b/0.jpg") as image:
        image.load()
    assert fired(tmp_path / "MARKER")  # so it would have run
    settings = f"data.dataset=folder:d -s data.corrupt={broken} -s data.augment.random_resized_crop={crop}"
    code, out, err = call(TRAIN + settings)
    if broken == "error":
        assert_clear(code, out, err, ("d/train/b/0.jpg: not a readable image",))
    else:
        assert code == 0 and "left out 1 unreadable image file(s): train/b/0.jpg" in err


def test_names_of_classes_are_only_names(call):
    """Not words of terminals (escape sequences, rich's markup and emoji), of figures or of YAML."""
    odd = [
        "[/b]",
        "[link=file:///etc/passwd]x",
        "$\\frac$",
        "\x1b[2J\x1b]0;x\x07",
        "!!python/name:os.system",
        ":skull:",
        "\udcff",
    ]
    labels = np.arange(14) % 7
    images = np.zeros((14, 8, 8, 1), np.uint8)
    Path("a[/i]").mkdir(parents=True)
    np.savez("a[/i]/d.npz", x_train=images, y_train=labels, x_test=images, y_test=labels, class_names=odd)
    code, out, err = call("data show 'npz:a[/i]/d.npz' -o sheet.png")
    assert code == 0, err
    assert all(name in out for name in (*odd[:3], *odd[4:6], "\\x1b[2J\\x1b]0;x\\x07", "\\udcff", "a[/i]/d.npz"))
    assert "\x1b" not in out
    code, out, err = call("plan s.yaml -r r.yaml -s 'data.dataset=npz:a[/i]/d.npz' -s training.batch_size=2")
    assert code == 0 and "a[/i]/d.npz" in out.replace("\n", ""), err


EVIL = "evil_feature.Evil"
INSIDE = {
    "pythonClassName": f"{CORE}sequence_feature.Sequence",
    "jsonFeature": {"json": json.dumps({"feature": {"type": EVIL, "content": {}}})},
}
OTHERS = {
    "class": {"pythonClassName": EVIL, "jsonFeature": {"json": "{}"}},
    "snake_case": {"python_class_name": EVIL, "jsonFeature": {"json": "{}"}},
    "legacy_inside": INSIDE,
}


@pytest.mark.parametrize("kind", [*OTHERS, "top"])
def test_a_copy_of_tfds_imports_nothing(kind, call, monkeypatch, tmp_path):
    """TFDS imports whatever module `features.json` names as the home of a feature's class."""
    import tensorflow_datasets as tfds

    (tmp_path / "evil_feature.py").write_text("open('MARKER', 'w')\nraise ImportError\n")
    monkeypatch.syspath_prepend(tmp_path)
    folder = Path("t/mnist/3.0.1")
    folder.mkdir(parents=True)
    columns = FEATURES["featuresDict"]["features"]
    features = {**FEATURES, "featuresDict": {"features": {**columns, "z": OTHERS.get(kind, COLUMNS["label"])}}}
    if kind == "top":
        features["pythonClassName"] = EVIL
    (folder / "features.json").write_text(json.dumps(features))
    (folder / "dataset_info.json").write_text(json.dumps(INFO))
    with pytest.raises(Exception, match="."):
        tfds.builder_from_directory(str(folder))
    assert fired(tmp_path / "MARKER")  # so it would have been imported
    for command in ("plan s.yaml -r r.yaml -s ", TRAIN):
        code, out, err = call(f"{command}data.dataset=tfds:mnist -s data.data_dir=t")
        assert_clear(code, out, err, ("is not a prepared image classification set", f"the class {EVIL}"))


LABEL = COLUMNS["label"]
COPIES = {
    "template": ({"splits": [{**split, "filepathTemplate": "../../../x/{SHARD_X_OF_Y}"} for split in SPLITS]}, {}),
    "split": ({"splits": [*SPLITS, {**SPLITS[0], "name": "../x"}]}, {}),
    "name": ({"name": "../../x"}, {}),
    "classes": ({}, {"label": {**LABEL, "classLabel": {"numClasses": "1000000000000"}}}),
    "no_classes": ({}, {"label": {**LABEL, "classLabel": {"numClasses": "-1"}}}),
    "digits": ({"splits": [{**SPLITS[0], "shardLengths": ["9" * 5000]}, SPLITS[1]]}, {}),
    "list": ({"splits": 3}, {}),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_of_tfds_stays_in_its_folder_and_is_small(kind, call):
    info, columns = COPIES[kind]
    folder = Path("t/mnist/3.0.1")
    folder.mkdir(parents=True)
    (folder / "features.json").write_text(json.dumps({**FEATURES, "featuresDict": {"features": {**COLUMNS, **columns}}}))
    (folder / "dataset_info.json").write_text(json.dumps({**INFO, **info}))
    expected = ("is not a prepared image classification set",)
    assert_clear(*call("plan s.yaml -r r.yaml -s data.dataset=tfds:mnist -s data.data_dir=t"), expected)
