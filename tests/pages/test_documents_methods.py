"""docs/alternation.md, anytime.md, linearity.md and pruning.md, block by block."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT, recipe_of
from documents import command_lines
from stand_ins import png, stand_in_folder

import kerasgreedy as kg
from kerasgreedy.reports.run_files import read_metrics


@pytest.mark.slow
def test_page_alternation(page):
    page.copy_of_cifar10()
    plain = "kerasgreedy train allcnn_c --recipe alternation --set training.solver=sgd -w runs/sgd"
    page.command(plain)
    page.command("kerasgreedy train allcnn_c --recipe alternation -w runs/masks")
    planned, _, curves = page.commands("kerasgreedy plan allcnn_c --recipe alternation")
    # nine layers of 345,960 units, each layer a whole number of bytes, for the 200 images here
    assert 345_960 // 8 == 43_245 and "43,245 bytes an image, 8.6 MB on disk for 200 images" in planned.out
    assert png("curves.png") and "masks" in curves.out

    fragment = page.yaml("training:")
    recipe = recipe_of(yaml.safe_dump({"name": "frame", "data": {"dataset": "digits"}, **fragment})).value
    assert (recipe.training.solver.name, recipe.training.solver.warm_up_epochs, recipe.training.keep) == (
        "alternation",
        5,
        "best",
    )
    page.says("A phase begins with `warm_up_epochs` of plain descent")
    training = [row for row in read_metrics(Path("runs/masks")) if row["split"] == "train"]
    assert [bool(row.get("masks")) for row in training] == [False, True]  # one epoch of two to warm up
    evaluations(page)

    shutil.rmtree("runs/masks")
    shutil.copy(ROOT / "model_specs/allcnn_c.yaml", "third.yaml")
    page.commands("kerasgreedy train third.yaml")


def evaluations(page):
    """Evaluation uses the activations; `--masks instance` is the same at beta 0; the weights of `held` lie in support/."""
    page.says("With `rule: positive` and beta 0 it is the ordinary evaluation", "The former are in `support/` of the run folder")
    ordinary = page.run("kerasgreedy", "evaluate", "runs/masks", "--json").json
    same = page.run("kerasgreedy", "evaluate", "runs/masks", "--json", "--masks", "instance").json
    assert same["ensemble"] == pytest.approx(ordinary["ensemble"], abs=1e-5)
    assert page.run("kerasgreedy", "evaluate", "runs/masks", "--masks", "held").code == 0 and list(
        Path("runs/masks/support").iterdir()
    )
    assert page.run("kerasgreedy", "evaluate", "runs/masks", "--masks", "batch", "--beta", "0.01").code == 0


@pytest.mark.slow
def test_page_anytime(page):
    stand_in_folder(Path("cifar10"))
    train = command_lines(page.left[1].text)[0]
    page.command(train)
    chosen, reported = page.commands("kerasgreedy anytime runs/exits --part validation")
    assert "0.8" in reported.out and "never" in chosen.out and png("runs/exits/plots/anytime.png")
    shutil.rmtree("runs/exits")
    weights = {path: path.read_bytes() for path in Path("runs").rglob("*.safetensors")}
    page.commands("kerasgreedy train simcnn_k3_cifar -r cifar10_greedy")
    found = page.run("kerasgreedy", "anytime", "runs/exits", "--json").json
    page.says("It trains nothing and changes no weights", "At 0 every image leaves at the first head")
    assert weights == {path: path.read_bytes() for path in weights}
    first, *_, last = found["points"]
    depths = found["depths"]
    assert (first["threshold"], first["top1"], first["multiply_adds"]) == (0, depths[0]["top1"], depths[0]["multiply_adds"])
    assert (last["threshold"], last["top1"]) == ("never", depths[-1]["top1"]) and last["multiply_adds_share"] > 1
    assert [leave["share"] for leave in last["exits"]] == [0, 1]
    in_python = kg.anytime_of("runs/exits", "validation", thresholds=[0.7, 0.8, "never"])
    assert {*in_python, "plot"} == set(found) and len(in_python["points"]) == 3
    costs(page, re.findall(r"-s (\S+)", train))


def costs(page, sets):
    """Multiply-adds of the tables, which are those of the architecture at its real widths."""

    def paid(spec, *overrides):
        arch = kg.architecture(kg.load_spec(spec, overrides).value, (32, 32, 3), 10)
        blocks, heads = (np.array([each.multiply_adds for each in part]) for part in (arch.blocks, arch.heads))
        always = np.cumsum(blocks) + heads
        return always, (blocks + heads).sum(), blocks, heads

    always, never, *_ = paid("simcnn_k3_cifar", *(text for text in sets if text.startswith(("blocks", "auxiliary"))))
    rows = re.findall(r"^\| (?:depth \d|`never`|ensemble of logits) \|.*?([\d.]+)M \| ([\d.]+)", page.text, re.M)
    expected = [*always, never]
    shown = [(f"{value / 1e6:.1f}", f"{100 * value / always[-1]:.1f}") for value in expected]
    assert sorted(set(rows)) == sorted(set(shown))
    own, never, blocks, heads = paid("simcnn_k3_cifar", *(text for text in sets if text.startswith("blocks")))
    assert f"{heads[0] / 1e6:.1f}M" == "56.6M" and f"{blocks.sum() / 1e6:.1f}M" == "38.6M"
    assert [round(100 * value / own[-1]) for value in (own[0], blocks[0] + blocks[1] + heads[0] + heads[1], never)] == [
        60,
        130,
        278,
    ]
    page.says("one head is 56.6M multiply-adds, and all four blocks are 38.6M", "60 % of depth 4 alone", "`never` 278 %")
    linear, never, *_ = paid("simcnn_k1_cifar")
    assert (f"{100 * linear[0] / linear[-1]:.1f}", f"{100 * never / linear[-1]:.1f}") == ("0.2", "100.0")


def test_page_linearity(page):
    Path("tiny.yaml").write_text(page.take("name: tiny", "yaml").text)
    (done,) = page.commands("kerasgreedy analyze linearity tiny.yaml")
    shown = page.take("tiny, depth 1, 8 random images").text

    def lines(text):
        """Without what is rounding: its last digits are not the same on every machine."""
        return [re.sub(r"\d\.\d+e-(1\d|0[78])", "rounding", line.rstrip()) for line in text.splitlines()]

    assert lines(done.out) == lines(shown)
    found = page.run("kerasgreedy", "analyze", "linearity", "tiny.yaml", "--json").json
    keys = page.section("## Keys of `--json`")
    assert set(found) == set(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", keys.split("\n\n")[0], flags=re.S))) - {"random"}
    assert set(found["bounds"]) == set(re.findall(r"`(\w+)`", keys.split("- `bounds`:")[1].split("Eigenvalues")[0]))
    assert set(found["linear_in"][0] if isinstance(found["linear_in"], list) else next(iter(found["linear_in"].values()))) >= {
        "error",
        "relative",
    }


@pytest.mark.slow
def test_page_pruning(page):
    page.copy_of_cifar10()
    page.command("kerasgreedy train simcnn_k3_cifar --set strategy=end_to_end -w runs/big")
    before = {path: path.read_bytes() for path in Path("runs/big").rglob("*") if path.is_file()}
    more = {1: ["--epochs", "1", "--images", "20"], 2: ["--shares", "0.5"]}
    *_, sensitive, summary = page.commands("kerasgreedy train simcnn_k3_compress", more)
    page.says("leaves the old folder alone")
    changed = {path.name for path, content in before.items() if path.read_bytes() != content}
    assert not changed and "all" in sensitive.out  # sensitivity.json and its picture are new there
    for run in ("small", "half"):
        for name in ("pruned_spec.yaml", "plots/pruning.png"):
            assert Path("runs", run, name).exists(), name
    page.says("a file `pruning/<name>.json` with every score")
    scores = [json.loads(path.read_text()) for path in sorted(Path("runs/small/pruning").glob("*.json"))]
    assert len(scores) == 2 and all("scores" in json.dumps(row) for row in scores)
    widths = [kg.load_network(f"runs/{name}").architecture.blocks[0].output_shape for name in ("big", "half", "small")]
    assert widths == [(32, 32, 4), (32, 32, 2), (32, 32, 2)]
    assert all(f"ms at batch {batch}" in summary.out for batch in (1, 32)) and "before / after" in summary.out
    Path("my_recipe").write_text("name: my_recipe\ndata: {dataset: digits, image_size: 32}\ntraining: {epochs: 3}\n")
    page.commands("kerasgreedy train runs/half/pruned_spec.yaml -r my_recipe")
