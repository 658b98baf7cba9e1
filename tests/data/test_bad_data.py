"""Bad data on the command line: exit code 2 and one error that says what came and what is allowed; never a traceback."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from command_line import Case, assert_clear
from data_files import FOLDER, JPG

pytestmark = pytest.mark.usefixtures("place")

PLAN = "plan s.yaml -r r.yaml -s data.dataset="
TRAIN = "train s.yaml -q -r r.yaml -w run -s data.image_size=8 -s data.dataset="
SHOW = "data show "


def npz(**arrays: object) -> bytes:
    """An npz file: four good arrays, but for what is given; None leaves an array out."""
    good = {
        "x_train": np.zeros((8, 8, 8, 1), np.uint8), "y_train": np.arange(8) % 2,
        "x_test": np.zeros((4, 8, 8, 1), np.uint8), "y_test": np.arange(4) % 2,
    }  # fmt: skip
    content = io.BytesIO()
    np.savez(content, **{key: value for key, value in {**good, **arrays}.items() if value is not None})
    return content.getvalue()


def cut_inside(content: bytes) -> bytes:
    """The same archive with damaged bytes in its first array."""
    return content[:150] + b"\xff" * 40 + content[190:]


def without(names: str) -> bytes:
    """A zip archive of texts."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names.split():
            archive.writestr(name, "text")
    return content.getvalue()


def bad_npz(id: str, content: bytes, *expected: str, command: str = PLAN) -> Case:
    return Case(id, f"{command}npz:a.npz", ("a.npz", *expected), {"a.npz": content})


NPZ = [
    Case("npz_missing", PLAN + "npz:a.npz", ("a.npz: no such file", "x_train, y_train")),
    Case("npz_folder", PLAN + "npz:d", ("/d: is a folder",), {"d": None}),
    Case("npz_without_path", PLAN + "'\"npz:\"'", ("received 'npz:'", "write npz:PATH")),
    bad_npz("npz_text", b"no archive", "not an npz file"),
    bad_npz("npz_empty", b"", "not an npz file"),
    bad_npz("npz_no_labels", npz(y_train=None), "no array 'y_train'", "x_train, x_test", "allowed: x_train, y_train"),
    bad_npz("npz_near_name", npz(x_test=None, x_tets=np.zeros(1)), "no array 'x_test'", "?x_tets"),
    bad_npz("npz_near_class_names", npz(class_name=np.array(["a", "b"])), "unknown array 'class_name'", "?class_names"),
    bad_npz("npz_vectors", npz(x_train=np.zeros((8, 64))), "x_train: received shape (8, 64)", "(n, height, width)"),
    bad_npz("npz_no_images", npz(x_test=np.zeros((0, 8, 8, 1))), "x_test: received shape (0, 8, 8, 1)"),
    bad_npz("npz_label_count", npz(y_train=np.arange(7)), "y_train: received int64 of shape (7,); allowed: 8 whole numbers"),
    bad_npz("npz_float_labels", npz(y_test=np.zeros(4)), "y_test: received float64"),
    bad_npz("npz_negative_label", npz(y_test=np.array([0, 1, -1, 0])), "y_test: a label is -1; allowed: 0 to"),
    bad_npz("npz_huge_label", npz(y_train=np.full(8, 2**40)), "a label is 1099511627776; allowed: 0 to 999999"),
    bad_npz("npz_label_beyond_names", npz(class_names=np.array(["a"])), "a label is 1; allowed: 0 to 0"),
    bad_npz("npz_channels_differ", npz(x_test=np.zeros((4, 8, 8, 3))), "x_test has 3 channels and x_train has 1"),
    bad_npz("npz_pickled", npz(y_train=np.array([None] * 8)), "'y_train' holds pickled objects, which are never loaded"),
    bad_npz("npz_names_of_numbers", npz(class_names=np.arange(2)), "class_names: received int64", "texts"),
    bad_npz("npz_name_twice", npz(class_names=np.array(["a", "a"])), "class_names: 'a' is there twice"),
    bad_npz("npz_no_arrays", without("x_train.npy y_train.npy x_test.npy y_test.npy"), "array 'x_train' is damaged"),
    bad_npz("npz_damaged", cut_inside(npz()), "array 'x_train' is damaged", command=TRAIN),
    bad_npz("npz_out_of_range", npz(x_train=np.full((8, 8, 8, 1), 300)), "values from 300 to 300", command=TRAIN),
    bad_npz("npz_complex", npz(x_train=np.zeros((8, 8, 8, 1), complex)), "received complex128", command=TRAIN),
]
NAMES = [
    Case("near_name", PLAN + "mnist_rotatd", ("received 'mnist_rotatd'", "mnist_basic", "npz:PATH", "?mnist_rotated")),
    Case("name_with_home", PLAN + "idx:mnist", ("received 'idx:mnist'", "allowed: digits")),
    Case("variant_without_mnist", PLAN + "mnist_rotated", ("mnist_rotated is made from mnist, which is not here", "idx files")),
    Case("skip_of_no_folder", PLAN + "digits -s data.corrupt=skip", ("--set data.corrupt=skip", "folder:PATH", "'digits'")),
    Case("corrupt_word", PLAN + "digits -s data.corrupt=skipp", ("received 'skipp'", "'error' or 'skip'", "?skip")),
    Case("all_of_a_class", TRAIN + "folder:d -s data.corrupt=skip", ("class 'b' has no readable training image",),
         {**FOLDER, **{f"d/train/b/{i}.jpg": JPG[:400] for i in range(4)}}),
    Case("batch_after_skip", TRAIN + "folder:d -s data.corrupt=skip -s training.batch_size=8", ("received 8; only 7 images",),
         {**FOLDER, "d/train/a/0.jpg": b"x"}),
]  # fmt: skip
COMMANDS = [
    Case("data_word", "data shwo digits", ("shwo",)),
    Case("show_nothing", "data show", ("DATASET",)),
    Case("show_unknown", SHOW + "digts", ("received 'digts'", "?digits")),
    Case("show_not_here", SHOW + "cifar100", ("cifar100 is not here",)),
    Case("show_over_a_file", SHOW + "digits", ("digits.png: already exists", "--overwrite"), {"digits.png": "mine"}),
    Case("show_into_a_folder", SHOW + "digits -o d", ("--output: received d", "a PNG file"), {"d": None}),
    Case("show_as_jpg", SHOW + "digits -o a.jpg", ("--output: received a.jpg", "digits.png")),
    Case("show_other_set", SHOW + "digits -s data.dataset=mnist", ("--set data.dataset=mnist", "the argument of this command")),
    Case("show_spec_key", SHOW + "digits -s blocks.0.conv=3", ("--set blocks.0.conv=3: this command reads a recipe only",)),
    Case("show_bad_key", SHOW + "digits -s data.augment.padcrop=3", ("--set data.augment.padcrop=3", "?pad_crop")),
    Case("show_test_resize", SHOW + "digits -s data.test_resize=9", ("data.test_resize: 'digits' is held in memory",)),
    Case("show_recipe", SHOW + "digits -r nosuch.yaml", ("nosuch.yaml: no such file",)),
    Case("show_broken_image", SHOW + "folder:d", ("d/train/b/2.jpg: not a",), {**FOLDER, "d/train/b/2.jpg": JPG[:300]}),
    Case("prepare_unknown", "data prepare cifar", ("received 'cifar'", "did you mean 'cifar10")),
    Case("prepare_no_folder", "data prepare folder:d", ("d: no such folder",)),
    Case("prepare_not_in_tfds", "data prepare tfds:mnst", ("tfds:mnst: TFDS has no data set 'mnst'", "?mnist")),
    Case("list_word", "data list mnist", ("mnist",)),
]


@pytest.mark.parametrize("case", [*NPZ, *NAMES, *COMMANDS], ids=lambda case: case.id)
def test_bad_data_ends_in_one_clear_error(case, call, place):
    case.write_files()
    assert_clear(*call(case.command), case.expected)
    assert not Path("run").exists()


def test_a_failed_download_is_one_clear_error(call, place, monkeypatch):
    import tensorflow_datasets as tfds

    def unreachable(*_, **__):
        print("Downloading and preparing ...")
        raise ConnectionError("Max retries\nexceeded " + "x" * 900)

    monkeypatch.setattr(tfds, "builder", unreachable)
    for command in ("data prepare mnist_rotated --data-dir t", TRAIN + "cifar10 -s data.download=true -s data.data_dir=t"):
        code, out, err = call(command)
        assert_clear(
            code, out, err, ("is not here", "could not be prepared (ConnectionError: Max retries exceeded", "To have it")
        )
        assert len(err.splitlines()[-1]) < 1200 and not Path("run").exists()


def test_show_never_leaves_half_a_sheet(call, place, monkeypatch):
    Path("closed").mkdir()
    Path("closed/in").write_text("a file where a folder is wanted")
    code, out, err = call("data show digits -o closed/in/a.png")
    assert_clear(code, out, err, ("closed/in/a.png",))
    assert json.loads(call("data list --json")[1])["sets"][0]["here"] == "in scikit-learn"
