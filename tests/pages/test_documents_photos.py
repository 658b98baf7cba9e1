"""docs/own_photos.md, block by block: from a folder of photos as people have them to a prediction."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from stand_ins import picture

CLASSES = ("cat", "dog", "elk", "fox", "hen", "owl")
FEW = ["--set", "training.epochs=1", "--set", "data.image_size=32", "--set", "data.augment.pad_crop=2"]


def photographs(place, count=14):
    """Six classes of pictures of several sizes and kinds; one is stored lying, one is a WebP file, one is cut off."""
    for label, name in enumerate(CLASSES):
        (place / name).mkdir(parents=True)
        for number in range(count):
            image = Image.fromarray(picture(label)).convert("RGB").resize((60 + 7 * number, 80 + 3 * number))
            image.save(place / name / f"{number:02}.jpg")
    lying = Image.Exif()
    lying[0x0112] = 6
    Image.open(place / "cat/00.jpg").transpose(Image.Transpose.ROTATE_90).save(place / "cat/00.jpg", exif=lying.tobytes())
    Image.open(place / "dog/00.jpg").save(place / "dog/00.webp")
    (place / "dog/00.jpg").unlink()
    whole = (place / "elk/03.jpg").read_bytes()
    (place / "elk/03.jpg").write_bytes(whole[: len(whole) // 2])
    (place / "fox" / "IMG_1.HEIC").write_bytes(b"x")


@pytest.fixture
def shrunk(page, monkeypatch):
    """`init` chooses 64x64 and 40 epochs for these; the page's lines are run at a smaller size."""
    page.most = 2
    return page


@pytest.mark.slow
def test_page_own_photos(shrunk):
    page = shrunk
    assert "photos/dog/1.webp" in page.take("photos/cat").text
    photographs(Path("photos"))
    Path("new").mkdir()
    for label, name in enumerate(CLASSES):
        Image.fromarray(picture(label)).convert("RGB").resize((90, 70)).save(f"new/{name}.png")
    first = page.commands("kerasgreedy init photos", {1: FEW})
    assert len(first) + 1 <= 6  # with the installation
    begun, trained, asked, told, written = first
    page.says("writes `photos.yaml` (the network) and `photos_recipe.yaml`")
    assert (
        "the median one" in begun.out and "passed over 1 file(s): 1 of no image ending; the first is fox/IMG_1.HEIC" in begun.err
    )
    assert "left out 1 unreadable image file(s): elk/03.jpg" in trained.err and "passed over 1 file" in trained.err
    facts = json.loads(Path("runs/photos/run.json").read_text())["data"]
    assert facts["train_examples"] + facts["test_examples"] == 6 * 14 - 1 and len(facts["test_files"]) == facts["test_examples"]
    assert "most often taken for" in asked.out and Path("runs/photos/evaluation/test/mistakes.png").parent.is_dir()
    assert Path("runs/photos/report.html").is_file()
    assert told.out.count(".png") == 6 and Path("answers.html").read_text().count("data:image/jpeg") == 6
    assert Path("exports/photos/1/saved_model.pb").is_file() and "written to" in written.out

    page.commands("kerasgreedy evaluate runs/photos --part validation --details")
    (again,) = page.commands("kerasgreedy train --resume runs/photos")
    assert "already done" in again.err
    Path("moved").mkdir()
    Path("photos").rename("moved/photos")
    lost = page.run("kerasgreedy", "evaluate", "runs/photos")
    assert lost.code == 2 and "--data PLACE" in lost.err
    page.commands("kerasgreedy evaluate runs/photos --data moved/photos")
    assert page.run("kerasgreedy", "evaluate", "runs/photos").code == 0
    for name in ("cat", "owl"):
        shutil.copytree(Path("moved/photos") / name, Path("holiday") / name)
    page.commands("kerasgreedy evaluate runs/photos --data holiday")
    assert Path("holiday_answers/confusion.png").is_file()
    page.commands("kerasgreedy train --resume runs/photos --set", {0: ["--set", "training.epochs=2"]})
    assert list(Path("runs/photos").glob("results_*_epochs.json"))
    Path("moved/photos").rename("photos")
    page.commands("kerasgreedy train photos.yaml --recipe photos_recipe.yaml --set start_from", {0: FEW})
    page.commands("kerasgreedy doctor", {0: ["--no-devices"]})
    page.commands("kerasgreedy train photos.yaml --recipe photos_recipe.yaml --set strategy", {0: FEW})
    assert "accuracy by depth" in Path("both.html").read_text()
    page.says("`no folder 'train' and no folder 'test' inside`", "`only N images are left for training`")
