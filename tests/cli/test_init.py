"""`init` and `doctor`: what is chosen for a folder, and that it can be trained."""

import json

import pytest
from PIL import Image

from kerasgreedy.data.survey import survey
from kerasgreedy.errors import DataError
from kerasgreedy.plan.preparation import prepare
from kerasgreedy.runs.environment import has_bfloat16
from kerasgreedy.spec.load import load
from kerasgreedy.spec.starter import Starter, plain_name, starter


def fill(folder, counts, size=(200, 150), mode="RGB"):
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            Image.new(mode, size, index).save(folder / name / f"{index}.png")
    return folder


def test_what_is_seen_in_a_folder(tmp_path):
    folder = fill(tmp_path / "p", {"a": 10, "b": 5})
    (folder / "a" / "bad.jpg").write_bytes(b"no image")
    (folder / "a" / "x.heic").write_bytes(b"x")
    seen = survey(str(folder))
    assert (seen.divided, seen.train_counts, seen.test_images) == (False, {"a": 9, "b": 4}, 3)  # 20 % of 11 and 5, rounded
    assert (seen.height, seen.width, seen.smallest, seen.same_size, seen.grey) == (150, 200, 150, True, False)
    assert seen.broken[0] == 1 and seen.broken[1].endswith("bad.jpg") and seen.passed_over.count == 1
    grey = survey(str(fill(tmp_path / "g", {"a": 4, "b": 4}, (28, 28), "L")))
    assert grey.grey and (grey.height, grey.width) == (28, 28)
    with pytest.raises(DataError, match="holds 1 class folder"):
        survey(str(fill(tmp_path / "one", {"a": 4})))


@pytest.mark.parametrize(
    ("counts", "short", "side", "batch", "epochs", "blocks"),
    [
        ({"a": 50, "b": 50}, 200, 128, 16, 40, 5),
        ({"a": 500, "b": 500}, 100, 96, 16, 19, 4),
        ({"a": 5000, "b": 5000}, 64, 64, 32, 6, 4),
        ({"a": 500, "b": 500}, 28, 28, 16, 19, 2),
        ({"a": 500, "b": 500}, 5, 16, 16, 19, 2), ({"a": 500, "b": 500}, 32, 32, 16, 19, 3),
    ],
)  # fmt: skip
def test_what_is_chosen(counts, short, side, batch, epochs, blocks):
    """Epochs: 1,200 steps of a batch, from 6 to 40; blocks: as often as the side can be halved to 4 or more, 5 at most."""
    chosen = starter("my pets!", "folder:x", 0.2, counts, short, False)
    assert (chosen.side, chosen.batch_size, chosen.epochs, chosen.blocks, chosen.name) == (side, batch, epochs, blocks, "my_pets")
    assert chosen.notes == ()


def test_what_people_should_know():
    chosen: Starter = starter("p", "folder:x", 0.2, {"cat": 300, "dog": 12}, 100, False)
    assert "300 images of cat, 12 of dog" in chosen.notes[0] and "right for 96 %" in chosen.notes[0]
    assert "Class dog has 12 training images" in chosen.notes[1]
    for text, name in (("??", "images"), ("2024", "images_2024"), ("null", "images_null"), ("no", "images_no"), ("a\nb", "a_b")):
        assert plain_name(text) == name
    assert plain_name("Fotos 2024/ä") == "Fotos_2024"


def test_what_is_written_can_be_trained(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "pets", {"cat": 40, "dog": 30}, (40, 50))
    code, out, err = call("init pets --json")
    assert code == 0, err
    found = json.loads(out.splitlines()[-1])
    job = prepare(*load(found["spec"], found["recipe"], []))
    assert job.architecture.input_shape == (32, 32, 3) and len(job.architecture.blocks) == 3 and job.data.test_examples == 14
    assert (job.train_images, job.validation_images) == (45, 11)
    code, _, err = call("init pets")
    assert code == 2 and "pets.yaml: already exists" in err
    fill(tmp_path / "grey", {"a": 9, "b": 9}, (28, 28), "L")
    (tmp_path / "elsewhere").mkdir()
    code, out, _ = call("init grey --out elsewhere")
    assert code == 0 and "next: kerasgreedy train elsewhere/grey.yaml --recipe elsewhere/grey_recipe.yaml" in out
    job = prepare(*load("elsewhere/grey.yaml", "elsewhere/grey_recipe.yaml", ["data.validation=1", "training.batch_size=4"]))
    assert job.architecture.input_shape == (28, 28, 1) and not job.recipe.data.augment.horizontal_flip
    assert job.recipe.data.dataset == f"folder:{tmp_path / 'grey'}"  # found from anywhere
    assert call("init nowhere")[0] == 2 and call("init pets --out nowhere")[0] == 2


def test_doctor(call):
    code, out, _ = call("doctor --no-devices --json")
    found = json.loads(out.splitlines()[-1])
    assert code == 0 and found["packages"]["tensorflow"] and found["cores"] >= 1 and found["memory_gb"] > 0
    assert {"name": "digits", "here": "in scikit-learn"} in found["sets"]
    assert "digits" in call("doctor --no-devices")[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16\n", True),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        ("flags\t\t: fpu avx2 avx512bw\n", False),
        ("model name\t: bf16\n", None),
    ],
)
def test_instructions_for_bfloat16(tmp_path, text, expected):
    (tmp_path / "cpuinfo").write_text(text)
    assert has_bfloat16(tmp_path / "cpuinfo") is expected and has_bfloat16(tmp_path / "none") is None


def test_a_folder_of_a_few_images_of_any_name_can_be_trained(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "2024 \U0001f4f7", {"a\nb": 5, "b": 6}, (40, 40))
    code, out, err = call("init '2024 \U0001f4f7' --json")
    assert code == 0, err
    found = json.loads(out.splitlines()[-1])
    job = prepare(*load(found["spec"], found["recipe"], []))
    assert job.recipe.training.batch_size == 3 and job.train_images == 7  # of nine, two validate
