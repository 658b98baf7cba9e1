"""README.md, block by block, and that no block of any page is passed over."""

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, spec_of
from documents import NOT_RUN, PAGES, blocks_of
from PIL import Image
from stand_ins import picture, png, stand_in_folder

from kerasgreedy.reports.run_files import read_run
from kerasgreedy.spec.load import load_spec


def test_every_page_with_blocks_is_run():
    tests = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def test_page_(\w+)\(", path.read_text(), re.M)
    }
    assert tests == {name for name, path in PAGES.items() if blocks_of(path)}


def test_every_fence_is_read_and_the_list_holds_nothing_else():
    for path in PAGES.values():
        fences = [line for line in path.read_text().splitlines() if line.lstrip().startswith("```")]
        assert len(fences) == 2 * len(blocks_of(path)), path.name
    starts = {(block.page, block.text) for path in PAGES.values() for block in blocks_of(path)}
    for page, words in NOT_RUN:
        assert any(name == page and text.startswith(words) for name, text in starts), words


@pytest.mark.slow  # its first two commands are run by .ci/run
def test_page_readme(page):
    page.not_run("python3 -m venv")
    page.not_run("python3 -m venv")
    for name in ("model_specs", "recipes"):
        shutil.copytree(ROOT / name, name)
    vgg, plan, valid, schema = page.commands("kerasgreedy summary vgg16")
    assert "138,357,544 parameters (138.4M)" in vgg.out and "block_8, head_8" in plan.flat
    files = [*(ROOT / "model_specs").glob("*.yaml"), *(ROOT / "recipes").glob("*.yaml")]
    assert len(valid.out.splitlines()) == len(files) and json.loads(schema.out)["properties"]["blocks"]
    written(page)
    trained(page)
    fast(page)
    smaller(page)
    used(page)


def written(page):
    """The spec is the shipped one; each error is the error that is shown."""
    shown = page.take("name: simcnn_k3_cifar", "yaml").text
    assert spec_of(shown).value == load_spec("simcnn_k3_cifar").value.model_copy(update={"nominal": None})

    Path("my.yaml").write_text(
        "name: my\nclasses: 10\n\nblocks:\n  - {conv: 64, kernal_size: 5}\n  - {conv: 64, activation: rellu}\n"
    )
    assert page.run("kerasgreedy", "validate", "my.yaml").err == page.take("error: my.yaml:5:16").text
    down = "{conv: 64, downsample: invertible}"
    Path("my.yaml").write_text(f"name: my\ninput_shape: [28, 28, 1]\nclasses: 10\nblocks: [{down}, {down}, {down}]\n")
    wrong = page.run("kerasgreedy", "summary", "my.yaml")
    said = re.search(r"`(block 3: .*?\n?.*?)`", page.text)[1].replace("\n", " ")
    assert wrong.code == 2 and said in wrong.err, wrong.err


def trained(page):
    """One spec by two strategies: the same network, split and normalisation; own pictures."""
    *_, both = page.commands("kerasgreedy train simcnn_k3_cifar --workdir runs/greedy")
    runs = [read_run(Path("runs") / name) for name in ("greedy", "e2e")]
    assert [run.results["strategy"] for run in runs] == ["greedy", "end_to_end"]
    assert "end_to_end" in both.out and png("depth.png") and "top-1 % at depth 2" in both.out
    assert runs[0].results["parameters"] == runs[1].results["parameters"]  # the very same spec
    facts = [json.loads((run.path / "run.json").read_text()) for run in runs]
    assert facts[0]["data"] == facts[1]["data"] and facts[0]["normalization"] == facts[1]["normalization"]

    page.says("a folder a class (`pets/cat/1.jpg`, `pets/dog/2.jpg`, ...", "keeps a fifth of each class for testing")
    (stand_in_folder(Path("divided"), ("cat", "dog"), train=60) / "train").rename("pets")
    (stand_in_folder(Path("divided2"), ("crow", "wren"), train=20) / "train").rename("birds")
    few = ["--set", "training.epochs=1", "--set", "training.batch_size=8"]
    pets, asked, reported, learnt, listed, shown = page.commands("kerasgreedy train photos --data pets", {3: few})
    assert "on test data" in learnt.out
    assert "96x96x3, 2 classes" in pets.err and png("pets.png") and "cat" in shown.out and "48" in shown.out
    assert "most often taken for" in asked.out and "runs/pets/report.html" in reported.out
    assert all(name in listed.out for name in ("cifar10", "svhn", "imagenet", "mnist_rotated")) and "scikit-learn" in listed.out


def fast(page):
    """What is cached was planned, in bytes; several devices."""
    page.copy_of_cifar10()
    epochs = ["--set", "training.epochs=5"]  # the first view comes by again
    page.commands("kerasgreedy train simcnn_k1_cifar --recipe cifar10_greedy", {0: epochs})
    (run,) = Path("runs").glob("simcnn_k1_cifar-cifar10_greedy-*")
    phases = json.loads((run / "plan.json").read_text())
    planned = page.run("kerasgreedy", "plan", str(run / "spec.yaml"), "-r", str(run / "recipe.yaml"), "--json").json["phases"]
    cached = [phase["cache"] for phase in phases if phase["frozen"]]
    assert cached == ["memory"] and planned[1]["cache_bytes"] == phases[1]["cache_bytes"] > 0
    # 4 views of 54 training images and 6 validation images of 32x32x4 values of two bytes
    assert phases[1]["cache_bytes"] == (4 * 54 + 6) * 32 * 32 * 4 * 2

    two, _ = page.commands("kerasgreedy train vgg11_k3 --devices 2")
    assert "on 2 CPUs: batches of 16, 8 on each" in two.err
    assert {json.loads((path / "run.json").read_text())["devices"]["workers"] for path in Path("runs").glob("vgg11_k3-*")} == {
        1,
        2,
    }


def smaller(page):
    """Fewer filters, int8, masks."""
    *_, summary, _ = page.commands(
        "kerasgreedy train simcnn_k3_compress --recipe cifar10_compress",
        {1: ["--epochs", "1", "--images", "20"], 3: ["--epochs", "1", "--depth", "1"]},
    )
    page.says("the outputs are those of the masked network to 1e-6")  # tests/network/test_removal.py
    rows = [line.split("│") for line in summary.out.splitlines()]
    assert [row[2:4] for row in ([cell.strip() for cell in row] for row in rows) if row[1:2] == ["block_1"]] == [["4", "2"]]
    assert all(name in summary.out for name in ("parameters", "multiply-adds", "weights", "ms at batch 1", "ms at batch 32"))
    assert Path("runs/half-int8/model.tflite").stat().st_size

    _, curves = page.commands("kerasgreedy train simcnn_k3_cifar --workdir runs/masks")
    assert "masks" in curves.out and png("curves.png")


def used(page):
    """A run folder, what is exported from it, and Python."""
    page.says("TensorBoard logs, a table, plots, and the trained model as a `.keras` file")
    for name in ("spec.yaml", "recipe.yaml", "checkpoints", "metrics.jsonl", "tensorboard", "results.md", "plots", "model.keras"):
        assert Path("runs/greedy", name).exists(), name
    resumed, scores = page.commands("kerasgreedy train --resume runs/greedy")
    assert "training is already done" in resumed.err and all(
        name in scores.out for name in ("top-1", "top-5", "loss", "ensemble")
    )

    Image.fromarray(picture(3)).save("photo.png")
    _, predicted, _ = page.commands("kerasgreedy export runs/greedy exports/digits")
    assert all(Path("exports/digits/1", name).exists() for name in ("saved_model.pb", "model_int8.tflite", "model.keras"))
    assert "photo.png" in predicted.out and png("runs/greedy/plots/anytime.png")

    names = page.python("import kerasgreedy as kg")
    assert names["run"].workdir == Path("runs/notebook") and names["row"]["depth"] == 2
    assert set(names["model"].output) == {"depth_1", "depth_2", "ensemble"}
