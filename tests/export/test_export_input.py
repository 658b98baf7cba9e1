"""What an exported model does with files and with hostile input; `predict`; bad settings."""

import json
import os
import shutil
import sys

import numpy as np
import pytest
import tensorflow as tf
from conftest import some
from exports import noise, picture
from PIL import Image

import kerasgreedy as kg
from kerasgreedy.cli.main import app, main
from kerasgreedy.data.decode import read_image
from kerasgreedy.errors import DataError, InputError, KerasgreedyError
from kerasgreedy.export import image_bytes
from kerasgreedy.export.export_run import Export
from kerasgreedy.export.image_bytes import MOST_SIDE, Preprocessing


@pytest.fixture(scope="module")
def out(finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "model"
    kg.export_run(finished.workdir, folder, quiet=True)
    return folder


@pytest.fixture(scope="module")
def signatures(out):
    return tf.saved_model.load(str(out / "1")).signatures


def test_own_size_and_grey_images_pass_unchanged(signatures, finished):
    images = noise(finished.network)
    files = tf.constant([tf.io.encode_png(image).numpy() for image in images])
    one, other = signatures["serve_encoded"](image_bytes=files), signatures["serve"](images=images)
    np.testing.assert_array_equal(one["probabilities"], other["probabilities"])
    colour = tf.image.grayscale_to_rgb(tf.constant(images))
    files = tf.constant([tf.io.encode_png(image).numpy() for image in colour])
    again = signatures["serve_encoded"](image_bytes=files)
    np.testing.assert_allclose(again["probabilities"], other["probabilities"], atol=2e-2)  # luminance rounds


def jpeg(cut=None):
    return tf.io.encode_jpeg(picture(64, 64)).numpy()[:cut]


def declaring(width, height):
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"


HOSTILE_FILES = {
    "truncated": jpeg(-300), "head only": jpeg(40), "empty": b"", "text": b"hello", "huge": declaring(65_000, 65_000),
    "overflow": declaring(2**32 - 1, 2**32 - 1), "gif": b"GIF89a" + bytes(40),
    "wide": declaring(2**16 + 1, 1), "tall": declaring(1, 2**16 + 1), "negative": declaring(2**31 + 5, 3),
    "huge bitmap": b"BM" + bytes(16) + b"\xff\xff\xff\x7f" * 2 + bytes(28),
}  # fmt: skip


@pytest.mark.parametrize("content", HOSTILE_FILES.values(), ids=HOSTILE_FILES)
def test_hostile_files_end_in_an_error(signatures, content):
    good = tf.io.encode_png(picture(8, 8)).numpy()
    for files in ([content], [good, content]):
        with pytest.raises(tf.errors.InvalidArgumentError):
            signatures["serve_encoded"](image_bytes=tf.constant(files))


HOSTILE_INPUT = {
    "float": ("serve", {"images": tf.zeros((1, 8, 8, 1))}),
    "no images": ("serve", {"images": tf.zeros((0, 8, 8, 1), tf.uint8)}),
    "one image": ("logits", {"images": tf.zeros((8, 8, 1), tf.uint8)}),
    "rank 5": ("features", {"images": tf.zeros((1, 1, 8, 8, 1), tf.uint8)}),
    "size": ("depth_1", {"images": tf.zeros((1, 4000, 4000, 1), tf.uint8)}),
    "channels": ("ensemble", {"images": tf.zeros((1, 8, 8, 3), tf.uint8)}),
    "nan": ("anytime", {"images": tf.zeros((1, 8, 8, 1), tf.uint8), "threshold": tf.constant(np.nan, tf.float32)}),
    "negative": ("anytime", {"images": tf.zeros((1, 8, 8, 1), tf.uint8), "threshold": tf.constant(-1.0)}),
    "thresholds": ("anytime", {"images": tf.zeros((1, 8, 8, 1), tf.uint8), "threshold": tf.constant([0.5])}),
    "no files": ("serve_encoded", {"image_bytes": tf.constant([], tf.string)}),
    "files in rows": ("serve_encoded", {"image_bytes": tf.constant([[b"x"]])}),
}


@pytest.mark.parametrize("case", HOSTILE_INPUT.values(), ids=HOSTILE_INPUT)
def test_hostile_input_ends_in_an_error(signatures, case):
    name, inputs = case
    with pytest.raises((tf.errors.InvalidArgumentError, TypeError, ValueError)):
        signatures[name](**inputs)


@pytest.mark.parametrize("value", [255.0, np.nan, np.inf, -3.0])
def test_the_callable_takes_images_of_0_to_1_only(out, value):
    model = tf.saved_model.load(str(out / "1"))
    images = np.full((2, 8, 8, 1), 0.5, np.float32)
    model(images)
    images[1, 3, 3] = value
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"images must be float32 of 0\.\.1"):
        model(images)


def test_large_files_are_taken_up_to_the_limit(monkeypatch):
    monkeypatch.setattr(image_bytes, "MOST_PIXELS", 100)
    Preprocessing((4, 4), 3)(tf.constant([tf.io.encode_png(picture(10, 10)).numpy()]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 100 pixels"):
        Preprocessing((4, 4), 3)(tf.constant([tf.io.encode_png(picture(10, 11)).numpy()]))


def call(capsys, *arguments):
    from typer.testing import CliRunner

    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exception is None or isinstance(done.exception, KerasgreedyError | SystemExit), done.exception
    code = done.exception.exit_code if isinstance(done.exception, KerasgreedyError) else done.exit_code
    return code, done.stdout, f"{done.stderr}{done.exception or ''}"


def test_predict_names_what_is_on_images(out, finished, tmp_path, capsys):
    images = noise(finished.network, 40)  # more than a batch
    for index, image in enumerate(images):
        (tmp_path / f"{index:02}.png").write_bytes(tf.io.encode_png(image).numpy())
    code, text, _ = call(capsys, "predict", out, tmp_path, "--top", "2", "--json")
    assert code == 0
    entries = json.loads(text.splitlines()[-1])["predictions"]
    served = tf.saved_model.load(str(out / "1")).signatures["serve"](images=images)
    for row, entry in enumerate(entries):
        assert entry["file"].endswith(f"{row:02}.png")
        assert [c["id"] for c in entry["classes"]] == served["top_ids"].numpy()[row, :2].tolist()
        assert entry["classes"][0]["probability"] == pytest.approx(float(served["top_probabilities"][row, 0]), abs=1e-6)
        assert entry["classes"][0]["name"] == str(entry["classes"][0]["id"])
    code, text, _ = call(capsys, "predict", out, tmp_path / "00.png")
    assert code == 0 and "00.png" in text and "%" in text


def test_predict_says_which_files_are_bad_and_predicts_the_others(out, finished, tmp_path, capsys):
    (tmp_path / "good.png").write_bytes(tf.io.encode_png(noise(finished.network)[0]).numpy())
    (tmp_path / "cut.jpg").write_bytes(jpeg(-300))
    (tmp_path / "text.png").write_text("hello")
    files = [tmp_path / name for name in ("good.png", "cut.jpg", "text.png", "none.png")]
    code, text, err = call(capsys, "predict", out, *files, "--json")
    result = json.loads(text.splitlines()[-1])
    assert code == 2
    assert [entry["file"] for entry in result["predictions"]] == [str(tmp_path / "good.png")]
    assert {fault["file"].rsplit("/", 1)[-1] for fault in result["faults"]} == {"cut.jpg", "text.png", "none.png"}
    assert (
        "cut.jpg: not a readable image" in err
        and "text.png: not a readable image (no JPEG, PNG, BMP, GIF, WEBP, TIFF, AVIF file)\n" in err
        and "No such file" in err
    )


BAD = {
    "version": (Export(version=0), "version: received 0; allowed: 1 to 9223372036854775807"),
    "taken": (Export(version=1), "already exists; give another --version"),
    "depth": (Export(answer=4), r"depth: received 4; allowed: a trained depth \(1, 2, 3\), or ensemble"),
    "features": (Export(features_depth=9), "features_depth: received 9; allowed: 1 to 3"),
    "top_k": (Export(top_k=0), "top_k: received 0"),
    "format": (Export(formats=("tflit",)), "received 'tflit'; allowed: .*did you mean 'tflite'"),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_bad_settings(case, out, finished):
    settings, message = case
    with pytest.raises(KerasgreedyError, match=message):
        kg.export_run(finished.workdir, out, settings, quiet=True)
    assert [path.name for path in out.iterdir()] == ["1"]


def test_a_missing_package_is_said_before_the_work(finished, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    monkeypatch.setattr("kerasgreedy.export.export_run.trained_network", lambda *_: pytest.fail("began"))
    with pytest.raises(InputError, match="this needs the packages tf2onnx"):
        kg.export_run(finished.workdir, tmp_path / "out", Export(formats=("keras", "onnx")), quiet=True)


def test_missing_data_is_said_before_the_work(finished, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(finished.workdir, run)
    monkeypatch.setattr("kerasgreedy.export.export_run.trained_network", lambda *_: pytest.fail("began"))
    gone = DataError("the images are gone")
    monkeypatch.setattr("kerasgreedy.runs.open_run.prepare", lambda *_, **__: (_ for _ in ()).throw(gone))
    with pytest.raises(DataError, match="the images are gone"):
        kg.export_run(run, tmp_path / "out", Export(formats=("tflite_int8",)), quiet=True)
    assert not (tmp_path / "out").exists()


def test_bad_places(finished, out, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for arguments, message in [
        (("export", tmp_path / "none", tmp_path / "out"), "no such run folder"),
        (("export", finished.workdir, tmp_path / "file"), "is a file"),
        (("export", finished.workdir, tmp_path / "out", "--depth", "last"), "--depth: received 'last'"),
        (("export", finished.workdir, tmp_path / "out", "--depth", "9" * 5000), "--depth: received '999"),
        (("predict", tmp_path / "none", "x.jpg"), "no such folder"),
        (("predict", out, "x.jpg", "--depth", "1"), "--depth: is for run folders"),
        (("predict", finished.workdir, "x.jpg", "--depth", "77"), "depth: received 77; allowed: a trained depth"),
        (("predict", out, "x.jpg", "--csv", "a.txt"), "ends in .csv"),
        (("predict", out, "x.jpg", "--page", "a.txt"), "ends in .html"),
        (("predict", tmp_path, "x.jpg"), "is no run folder, and holds no exported version"),
        (("predict", out, out), "holds no .jpg"),
    ]:
        code, _, err = call(capsys, *arguments)
        assert code == 2 and message in err, (arguments, err)
    assert not (tmp_path / "out").exists()
    assert callable(main)


def test_predict_does_not_wait_for_a_pipe_or_read_without_end(out, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    code, text, _ = call(capsys, "predict", out, tmp_path / "pipe", "/dev/zero", "--json")
    faults = json.loads(text.splitlines()[-1])["faults"]
    assert code == 2 and [fault["error"] for fault in faults] == ["not a readable image (no ordinary file)"] * 2
    with open(tmp_path / "large.bmp", "wb") as file:
        file.truncate(2**29)
    code, _, err = call(capsys, "predict", out, tmp_path / "large.bmp")
    assert code == 2 and "large.bmp: not a readable image (no JPEG, PNG, BMP, GIF, WEBP, TIFF, AVIF file)" in err
    strip = Image.new("L", (MOST_SIDE + 1, 2))
    strip.save(tmp_path / "strip.png")
    code, _, err = call(capsys, "predict", out, tmp_path / "strip.png")
    assert code == 2 and "strip.png: has 2x65537 pixels; allowed: 67,108,864, and 65,536 a side" in err


@pytest.mark.parametrize("kind", some("cmyk", "16 bits", slow=["gif", "bmp of 1 bit", "png of 4 bits", "grey jpeg"]))
def test_predict_takes_what_training_takes(kind, out, finished, tmp_path, capsys):
    """The same pixels: what is predicted of a file is what is predicted of the image that training decodes it to."""
    height, width, channels = finished.network.architecture.input_shape
    image = Image.fromarray(picture(height, width, 3, seed=3))
    deep = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000)
    save = {
        "gif": lambda: image.quantize(32).save(path := tmp_path / "a.gif", transparency=3) or path,
        "cmyk": lambda: image.convert("CMYK").save(path := tmp_path / "a.jpg") or path,
        "bmp of 1 bit": lambda: image.convert("1").save(path := tmp_path / "a.bmp") or path,
        "16 bits": lambda: deep.save(path := tmp_path / "a.png") or path,
        "png of 4 bits": lambda: image.quantize(9).save(path := tmp_path / "a.png") or path,
        "grey jpeg": lambda: image.convert("L").save(path := tmp_path / "a.JPEG") or path,
    }  # fmt: skip
    path = save[kind]()
    code, text, err = call(capsys, "predict", out, tmp_path, "--top", "1", "--json")
    assert code == 0, err
    (entry,) = json.loads(text.splitlines()[-1])["predictions"]
    served = tf.saved_model.load(str(out / "1")).signatures["serve"](images=read_image(str(path), channels)[None])
    assert entry["classes"][0]["id"] == served["top_ids"].numpy()[0, 0]
    assert entry["classes"][0]["probability"] == pytest.approx(float(served["top_probabilities"][0, 0]), abs=1e-6)


def test_a_damaged_export_is_an_error(out, tmp_path, capsys):
    shutil.copytree(out / "1", tmp_path / "1")
    (tmp_path / "1/saved_model.pb").write_bytes(b"nonsense")
    code, _, err = call(capsys, "predict", tmp_path, "x.jpg")
    assert code == 2 and "damaged" in err


def test_a_changed_bit_of_an_export_is_an_error_and_no_older_version_answers(out, tmp_path, capsys):
    """TensorFlow takes a graph with another constant in it without a word."""
    for version in ("1", "2"):
        shutil.copytree(out / "1", tmp_path / version)
    graph = tmp_path / "2/saved_model.pb"
    content = graph.read_bytes()
    graph.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    code, _, err = call(capsys, "predict", tmp_path, "x.jpg")
    assert code == 2 and f"{graph}: damaged (its checksum differs)" in err
    graph.unlink()
    code, _, err = call(capsys, "predict", tmp_path, "x.jpg")
    assert code == 2 and f"{graph}: is missing" in err
    graph.write_bytes(content)
    facts = tmp_path / "2/export.json"
    facts.write_text('{"files": [1]}')
    for other in (None, facts.mkdir, lambda: os.mkfifo(facts), lambda: facts.symlink_to("nowhere")):
        if other is not None:
            facts.rmdir() if facts.is_dir() else facts.unlink()
            other()
        code, _, err = call(capsys, "predict", tmp_path / "2", "x.jpg")
        assert code == 2 and "export.json: damaged" in err


def test_an_export_in_a_folder_whose_name_is_no_text(out, tmp_path, capsys):
    place = tmp_path / "a[b]\udcff"
    shutil.copytree(out, place)
    Image.fromarray(picture(8, 8)).save(tmp_path / "x.png")
    code, text, err = call(capsys, "predict", place, tmp_path / "x.png", "--json")
    assert code == 0 and len(json.loads(text)["predictions"]) == 1, err


@pytest.mark.parametrize("names", [None, ["a"], [1] * 10, "0123456789"])
def test_a_card_that_does_not_name_the_classes_is_an_error(names, out, tmp_path, capsys):
    shutil.copytree(out / "1", tmp_path / "1")
    file = tmp_path / "1/assets/model_card.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "class_names": names}))
    code, _, err = call(capsys, "predict", tmp_path, "x.jpg")
    assert code == 2 and "damaged (its checksum differs)" in err
    facts = tmp_path / "1/export.json"
    sealed = json.loads(facts.read_text())
    facts.write_text(json.dumps({key: value for key, value in sealed.items() if key != "files"}))
    code, _, err = call(capsys, "predict", tmp_path, "x.jpg")
    assert code == 2 and "damaged" in err


def test_a_run_folder_answers_as_its_export(out, finished, tmp_path, capsys):
    folder = tmp_path / "photos" / "more"
    folder.mkdir(parents=True)
    for index in range(3):
        Image.fromarray(picture(20, 30, seed=index)).save(folder / f"{index}.webp")
    (folder / "note.txt").write_text("x")
    (folder / ".1.png").write_bytes(b"x")
    found = {}
    for network in (out, finished.workdir):
        code, text, err = call(capsys, "predict", network, tmp_path / "photos", "--json")
        assert code == 0 and "passed over 2 file(s)" in err
        found[network] = json.loads(text.splitlines()[-1])["predictions"]
    for one, two in zip(*found.values(), strict=True):
        assert [c["id"] for c in one["classes"]] == [c["id"] for c in two["classes"]]
        expected = [c["probability"] for c in two["classes"]]
        np.testing.assert_allclose([c["probability"] for c in one["classes"]], expected, rtol=1e-5)
    code, text, _ = call(capsys, "predict", finished.workdir, folder / "0.webp", "--depth", "1", "--top", "1", "--json")
    image = tf.image.resize(picture(20, 30, seed=0), finished.network.architecture.input_shape[:2], antialias=True)
    assert json.loads(text.splitlines()[-1])["workdir"] == str(finished.workdir) and image.shape.rank == 3


def test_predictions_as_a_table_and_a_page(finished, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for index in range(4):
        Image.fromarray(picture(200, 300, seed=index)).save(f"{index}.jpg")
    (tmp_path / "bad.png").write_bytes(b"no image")
    line = (
        "predict",
        finished.workdir,
        *(f"{i}.jpg" for i in range(4)),
        "bad.png",
        "--top",
        "2",
        "--csv",
        "a.csv",
        "--page",
        "a.html",
    )
    for _ in range(2):  # written over what was made here
        code, _, err = call(capsys, *line)
        assert code == 2 and "bad.png: not a readable image" in err
    rows = (tmp_path / "a.csv").read_text().splitlines()
    assert rows[0] == "file,class_1,probability_1,class_2,probability_2" and len(rows) == 5
    for row in rows[1:]:
        _, _, first, _, second = row.split(",")
        assert 0 <= float(second) <= float(first) <= 1
    page = (tmp_path / "a.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 4 and "Not read" in page and len(page) < 60_000
    (tmp_path / "mine.csv").write_text("a,b\n")
    code, _, err = call(capsys, "predict", finished.workdir, "0.jpg", "--csv", "mine.csv")
    assert code == 2 and "was not made by kerasgreedy" in err
