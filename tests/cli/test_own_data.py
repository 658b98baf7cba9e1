"""`--data` of `train` and `plan`, and the shipped files."""

import json

import pytest
from PIL import Image

from kerasgreedy.cli.own_data import with_data
from kerasgreedy.cli.specs_command import about
from kerasgreedy.errors import InputError
from kerasgreedy.spec.load import shipped_files


def fill(folder, places):
    for place in places:
        (folder / place).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (8, 8)).save(folder / place / f"{index}.png")
    return str(folder)


def test_a_folder_and_no_recipe(tmp_path):
    flat = fill(tmp_path / "flat", ["a", "b"])
    recipe, sets, said = with_data(flat, None, ["training.epochs=1"])
    assert recipe == "own_images" and sets == [f'data.dataset="folder:{flat}"', "data.test=0.2", "training.epochs=1"]
    assert "a fifth of each class is kept for testing" in said
    assert with_data(flat, None, ["data.test=0.5"])[1] == [f'data.dataset="folder:{flat}"', "data.test=0.5"]
    divided = fill(tmp_path / "divided", ["train/a", "train/b", "test/a"])
    assert with_data(divided, None, [])[1] == [f'data.dataset="folder:{divided}"']


def test_with_a_recipe_the_data_set_alone_is_taken(tmp_path):
    flat = fill(tmp_path / "flat", ["a", "b"])
    assert with_data(flat, "mine.yaml", []) == ("mine.yaml", [f'data.dataset="folder:{flat}"'], "")
    assert with_data("mnist", None, [])[:2] == (None, ['data.dataset="mnist"'])
    (tmp_path / "x.npz").write_bytes(b"")
    assert with_data(str(tmp_path / "x.npz"), None, [])[1] == [f'data.dataset="npz:{tmp_path / "x.npz"}"']
    assert with_data(None, None, ["a=1"]) == (None, ["a=1"], "")


def test_two_names_or_none_that_is_known(tmp_path, monkeypatch):
    for key in ("data.dataset=digits", "recipe.data.dataset=digits", "data={dataset: digits}"):
        with pytest.raises(InputError, match="leave one out"):
            with_data(
                fill(tmp_path / key[:4], ["a"]) if not (tmp_path / key[:4]).exists() else str(tmp_path / key[:4]), None, [key]
            )
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is a data set's name and a file or folder here"):
        with_data("digits", None, [])
    assert with_data("./digits", None, ["data.test=0.2"])[1][0] == 'data.dataset="folder:./digits"'
    with pytest.raises(InputError, match="received 'mnits'; no such folder or file.*did you mean 'mnist'"):
        with_data("mnits", None, [])


def test_the_plan_for_a_folder(call, tmp_path):
    flat = fill(tmp_path / "flat", ["a", "b"])
    code, out, err = call(f"plan photos --data {flat} -s training.batch_size=2 -s data.validation=1 --json")
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["phases"][0]["epochs"] == 20 and "taking own_images" in err


def test_shipped_files_are_listed_printed_and_copied(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = call("specs --json")
    files = json.loads(out.splitlines()[-1])["files"]
    assert code == 0 and len(files) == len(shipped_files("spec")) + len(shipped_files("recipe"))
    assert all(20 < len(entry["about"]) < 400 for entry in files), [e for e in files if not 20 < len(e["about"]) < 400]
    assert call("specs quickstart")[1] == shipped_files("recipe")["quickstart"].read_text()
    assert call("specs photos --copy mine.yaml")[0] == 0
    assert (tmp_path / "mine.yaml").read_text() == shipped_files("spec")["photos"].read_text()
    for line, words in (
        ("specs photos --copy mine.yaml", "already exists"), ("specs photo", "did you mean 'photos'"),
        ("specs --copy x.yaml", "give NAME"), ("specs --kind specs", "did you mean 'spec'"),
        ("specs photos --copy no/x.yaml", "no such folder"),
    ):  # fmt: skip
        code, _, err = call(line)
        assert code == 2 and words in err, line


def test_the_first_sentence_of_a_header(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "# VGG-9 for CIFAR-10 (Li et al. 2018), nine layers: six convolutions,\n# and more. Second.\nname: a\n"
    )
    assert about(tmp_path / "a.yaml") == "VGG-9 for CIFAR-10 (Li et al. 2018), nine layers: six convolutions, and more"
