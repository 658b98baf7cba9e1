"""Pipes, devices and folders where a data set's files should be, and copies of TFDS of other kinds: one clear error, at once."""

import copy
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import assert_clear
from data_files import COLUMNS, FEATURES, INFO, PIXELS
from test_data import write_idx
from test_tfds import settings

from kerasgreedy.data.catalog import describe
from kerasgreedy.data.loaders import open_data
from kerasgreedy.errors import DataError
from kerasgreedy.spec.recipe import Data

pytestmark = pytest.mark.usefixtures("place")

ODD = {
    "pipe": os.mkfifo,
    "folder": os.mkdir,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path),
}


@pytest.mark.parametrize("kind", ODD)
def test_npz(kind, tmp_path):
    ODD[kind](tmp_path / "a.npz")
    with pytest.raises(DataError, match="a.npz: (is a folder|no ordinary file|no such file); allowed: a file that numpy.savez"):
        describe(Data(dataset=f"npz:{tmp_path}/a.npz"))


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("stem", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("kind", ODD)
def test_idx(kind, stem, packed, tmp_path):
    for split in ("train", "t10k"):
        write_idx(tmp_path / f"{split}-images-idx3-ubyte", np.zeros((10, 28, 28), np.uint8))
        write_idx(tmp_path / f"{split}-labels-idx1-ubyte", np.arange(10, dtype=np.uint8))
    (tmp_path / stem).unlink()
    ODD[kind](tmp_path / f"{stem}{packed}")
    data = Data(dataset="mnist", data_dir=str(tmp_path))
    with pytest.raises(DataError, match=f"{stem}.*(no ordinary file|Is a directory|not found)"):
        open_data(data, describe(data), (28, 28), 1)


@pytest.mark.parametrize("file", ["features.json", "dataset_info.json", "label.labels.txt", "tfrecord"])
@pytest.mark.parametrize("kind", ODD)
def test_copies_of_tfds(kind, file, prepared, tmp_path):
    shutil.copytree(prepared / "even_images", tmp_path / "even_images")
    (path,) = (tmp_path / "even_images/1.0.0").glob("*train.tfrecord*" if file == "tfrecord" else file)
    path.unlink()
    ODD[kind](path)
    data = settings("even_images", tmp_path)
    with pytest.raises(DataError, match="is not a prepared image classification set|no prepared copy"):
        open_data(data, describe(data), (8, 8), 3)


def features(**image):
    found = copy.deepcopy(FEATURES)
    found["featuresDict"]["features"] = {**COLUMNS, "image": {**COLUMNS["image"], "image": {**PIXELS, **image}}}
    return found


def dimensions(*sizes):
    return {"shape": {"dimensions": [str(size) for size in sizes]}}


OTHERS = {
    "array_record": ({"fileFormat": "array_record"}, {}, "its files are in the format 'array_record'; allowed: tfrecord"),
    "riegeli": ({"fileFormat": "riegeli"}, {}, "the format 'riegeli'; allowed: tfrecord"),
    "a number": ({"fileFormat": 3}, {}, "the format 3; allowed: tfrecord"),
    "unknown channels": ({}, dimensions(28, 28, -1), "an unknown number of channels; allowed: a number, such as 1 or 3"),
    "two dimensions": ({}, dimensions(28, 28), "its images have 2 axes; allowed: height, width, channels"),
    "four dimensions": ({}, dimensions(5, 28, 28, 1), "its images have 4 axes"),
    "no dimensions": ({}, dimensions(), "its images have 0 axes"),
    "no list": ({}, {"shape": {"dimensions": 28}}, "is not a prepared image classification set"),
    "no shape": ({}, {"shape": 28}, "is not a prepared image classification set"),
    "words": ({}, dimensions("a", "b", "c"), "is not a prepared image classification set"),
    "deep": ({}, {"dtype": "uint16"}, "its images are of type uint16; allowed: uint8"),
    "no splits": ({"splits": []}, {}, "has no test or validation split (it has none)"),
    "splits of words": ({"splits": ["train", "test"]}, {}, "is not a prepared image classification set"),
    "no lengths": ({"splits": [{"name": "train"}]}, {}, "is not a prepared image classification set"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_copies_of_other_kinds(kind, call):
    info, image, message = OTHERS[kind]
    folder = Path("t/mnist/3.0.1")
    folder.mkdir(parents=True)
    (folder / "features.json").write_text(json.dumps(features(**image)))
    (folder / "dataset_info.json").write_text(json.dumps({**INFO, **info}))
    assert_clear(*call("plan s.yaml -r r.yaml -s data.dataset=tfds:mnist -s data.data_dir=t"), ("tfds:mnist", message))


def test_a_copy_of_one_class_is_refused(call):
    folder = Path("t/mnist/3.0.1")
    folder.mkdir(parents=True)
    found = features()
    found["featuresDict"]["features"]["label"] = {**COLUMNS["label"], "classLabel": {"numClasses": "1"}}
    (folder / "features.json").write_text(json.dumps(found))
    (folder / "dataset_info.json").write_text(json.dumps(INFO))
    assert_clear(*call("plan s.yaml -r r.yaml -s data.dataset=tfds:mnist -s data.data_dir=t"), ("1 class(es); allowed: 2 to",))


@pytest.mark.parametrize("damage", ["cut", "bytes", "empty", "swapped"])
def test_damaged_shards(damage, prepared, tmp_path):
    shutil.copytree(prepared / "even_images", tmp_path / "even_images")
    path = next((tmp_path / "even_images").rglob("*train.tfrecord*"))
    content = path.read_bytes()
    if damage == "swapped":
        content = next((tmp_path / "even_images").rglob("*test.tfrecord*")).read_bytes()
    path.write_bytes({"cut": content[:500], "bytes": b"\xff" * len(content), "empty": b"", "swapped": content}[damage])
    data = settings("even_images", tmp_path)
    with pytest.raises(DataError, match="even_images"):
        open_data(data, describe(data), (8, 8), 3)
