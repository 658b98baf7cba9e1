"""docs/commands.md, block by block: each command as it stands, and what its table says of `--json`."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, TINY_RECIPE, TINY_SPEC
from PIL import Image
from stand_ins import picture, png, stand_in_folder

NOT_KEYS = {"WORKDIR", "never", "train", "evaluate", "results.json", "sensitivity.json", "before", "after"}


def keys_in(value):
    """All keys of an object and of those inside it."""
    if isinstance(value, dict):
        return set(value).union(*map(keys_in, value.values()))
    return set().union(*map(keys_in, value)) if isinstance(value, list) else set()


def holds_what_is_said(page, title, answer, besides="", but=()):
    """The `--json` row of a command, and what stands `besides`, names keys that are there."""
    section = page.section(f"## `kerasgreedy {title}`")
    row = re.search(r"^\| `--json` \| (.*) \|$", section, re.M)[1] + besides
    said = {name for name in re.findall(r"`([a-z_0-9]+)`", row) if name not in {*NOT_KEYS, *but}}
    assert said and said <= keys_in(answer.json), (title, said - keys_in(answer.json))


@pytest.mark.slow
def test_page_commands(page, monkeypatch):
    shutil.copytree(ROOT / "model_specs", "model_specs")
    stand_in_folder(Path("cifar10"))
    monkeypatch.setattr("webbrowser.open", lambda *_: True)
    began(page)
    page.commands("kerasgreedy train model_specs/vgg11_k3.yaml")
    done = page.run(*shlex.split(page.take("kerasgreedy train --resume runs/k1 -s").text))
    assert done.code == 2 and "training is done" in done.err  # this one has not diverged; `codes` has one that did
    looked_at(page)
    changed(page)
    exported(page)
    data(page)
    planned(page)
    analysed(page)
    codes(page)


def began(page):
    stand_in_folder(Path("pets"), ("cat", "dog"), train=60)
    stand_in_folder(Path("others"), ("cat", "dog"), train=20)
    Path("others/train").rename("new_photos")
    for number, file in enumerate(sorted(Path("new_photos").rglob("*.jpg"))):  # unlike those that were trained on
        Image.open(file).rotate(5 + number).save(file)
    few = ["--set", "training.epochs=1", "--set", "data.image_size=32", "--set", "training.batch_size=8"]
    page.commands("kerasgreedy init pets", {1: few})
    page.command("kerasgreedy train photos --data pets -w runs/pets", few)


def looked_at(page):
    scores, _, elsewhere = page.commands("kerasgreedy evaluate runs/k1")
    assert Path("runs/pets/evaluation/test/confusion.png").is_file() and "new_photos" in elsewhere.out
    words = ("evaluate", "runs/pets", "--data", "new_photos", "--details", "--out", "told", "--json")
    holds_what_is_said(page, "evaluate WORKDIR", page.run("kerasgreedy", *words))
    assert scores.json["examples"] == 6 and all(0 <= row["top1"] <= 1 for row in scores.json["depths"])
    page.command("kerasgreedy train simcnn_k3_cifar -w runs/k3")
    page.commands("kerasgreedy compare runs/k1 runs/k3")
    assert png("depth.png")
    page.commands("kerasgreedy report runs/pets --open")
    assert Path("both.html").is_file()
    again = page.run("kerasgreedy", "train", "--resume", "runs/k1", "--json", "-q")
    holds_what_is_said(page, "train [SPEC]", again)
    assert set(again.json) >= {"depths", "ensemble", "examples"} and next(iter(again.json)) == "workdir"
    both = page.run("kerasgreedy", "compare", "runs/k1", "runs/k3", "--json")
    holds_what_is_said(page, "compare WORKDIR...", both)


def changed(page):
    (stand_in_folder(Path("divided"), ("aster", "daisy"), train=60) / "train").rename("flowers")
    page.commands("kerasgreedy transfer-learn runs/k3 --data flowers", {0: ["--set", "training.epochs=1"]})
    assert json.loads(Path("runs/flowers/run.json").read_text())["data"]["class_names"] == ["aster", "daisy"]
    page.commands("kerasgreedy prune runs/k3", {0: ["--epochs", "1", "--images", "20"], 1: ["--epochs", "0", "--images", "20"]})
    page.says("default `WORKDIR-pruned`")
    halves, third = (
        page.run("kerasgreedy", "train", "--resume", f"runs/{name}", "--json", "-q") for name in ("k3-pruned", "k3-third")
    )
    holds_what_is_said(page, "prune WORKDIR", halves)
    costs = [run.json["pruned"][when]["multiply_adds"] for run in (third,) for when in ("before", "after")]
    assert costs[1] <= 0.3 * costs[0]
    more = ["--epochs", "1", "--depth", "1"]
    _, clustered = page.commands("kerasgreedy finish runs/k3", {0: more, 1: more})
    holds_what_is_said(page, "finish WORKDIR OUT", clustered)
    assert Path("runs/k3-int8/model.tflite").exists() and Path("runs/k3-16/weights.safetensors").exists()


def exported(page):
    first, second = page.commands("kerasgreedy export runs/k3")
    holds_what_is_said(page, "export WORKDIR OUT", second)
    assert (second.json["version"], second.json["out"]) == (2, "exports/k3/2") and "exports/k3/1" in first.out
    Image.fromarray(picture(3)).save("photo.jpg")
    Path("pictures").mkdir()
    Image.fromarray(picture(4)).save("pictures/4.jpg")
    one, predicted = page.commands("kerasgreedy predict runs/pets photo.jpg")
    assert "photo.jpg" in one.out and "pictures/4.jpg" in predicted.out
    assert Path("answers.csv").is_file() and Path("answers.html").is_file()
    Path("bad.jpg").write_bytes(b"nothing")
    answers = page.run("kerasgreedy", "predict", "exports/k3", "photo.jpg", "bad.jpg", "--json")
    page.says("Files that cannot be read are named on standard error, the others answered, and the exit code is 2")
    assert answers.code == 2 and "bad.jpg" in answers.err
    holds_what_is_said(page, "predict NETWORK IMAGE...", answers, but=("workdir",))  # of a run
    assert len(answers.json["predictions"][0]["classes"]) == 3 and answers.json["export"] == "exports/k3/2"
    _, exits = page.commands("kerasgreedy anytime runs/k1")
    assert png("runs/k1/plots/anytime.png") and png("exits.png")
    section = page.section("## `kerasgreedy anytime WORKDIR`")
    holds_what_is_said(page, "anytime WORKDIR", exits, section.split("`depths` holds")[1].split("```")[0])
    assert [point["threshold"] for point in exits.json["points"]] == [0.8, 0.9, 0.95, "never"]


def data(page):
    page.copy_of_cifar10()
    page.commands("kerasgreedy data list")
    page.commands("kerasgreedy data show digits")
    assert png("digits.png") and png("pets64.png")
    (done,) = page.commands("kerasgreedy data prepare cifar10")
    assert "tfds" in done.out or str(page.shared.folder) in done.out
    for title, words in (("list", []), ("show DATASET", ["digits", "-o", "2.png"]), ("prepare NAME", ["cifar10"])):
        answer = page.run("kerasgreedy", "data", title.split()[0], *words, "--json")
        holds_what_is_said(page, f"data {title}", answer)
    page.says("a file that is there is replaced even if kerasgreedy did not make it; without it, only its own pictures are")
    assert page.run("kerasgreedy", "data", "show", "digits").code == 0
    Path("digits.png").write_bytes(b"mine")
    assert page.run("kerasgreedy", "data", "show", "digits").code == 2 and Path("digits.png").read_bytes() == b"mine"


def planned(page):
    stand_in_folder(Path("imagenet"), train=40)
    few = ["--set", "data.validation=20"]  # the recipe holds 10,000 images out
    (plan,) = page.commands("kerasgreedy plan vgg11_k3", {0: few})
    assert "block_1 ... block_7" in plan.out and "224x224x3" in plan.out
    answer = page.run("kerasgreedy", "plan", "vgg11_k3", "--json")
    holds_what_is_said(page, "plan SPEC", answer)
    small = [
        "--set",
        "blocks=[{conv: 4}, {conv: 6}]",
        "--set",
        "input_shape=[16, 16, 3]",
        "--set",
        "final_head={hidden_layers: 0}",
    ]
    ten, _, measured = page.commands("kerasgreedy summary vgg16", {1: small})
    assert "10 classes" in ten.out
    words = page.section("## `kerasgreedy summary SPEC [OTHER]`").split("`latency` holds")[1].split("```")[0]
    two = page.run("kerasgreedy", "summary", "vgg16", "vgg11_k3", *small, "--measure", "--json")
    assert set(two.json) >= {"before", "after", "ratio"}
    for side in ("before", "after"):
        assert set(two.json[side]) >= {
            "parameters",
            "multiply_adds",
            "blocks",
            "heads",
            "place",
            "weights_bytes",
            "widths",
            "latency",
        }
        for batch in ("1", "32"):
            assert set(two.json[side]["latency"][batch]) >= {"median_ms", "low_ms", "high_ms", "rounds"}
            assert 5 <= two.json[side]["latency"][batch]["rounds"] <= 20
    assert set(two.json["after"]["latency"]["1"]) >= {"ratio", "ratio_low", "ratio_high"} and "rounds" in words
    assert set(two.json["ratio"]) == {"parameters", "multiply_adds", "weights_bytes"}
    assert set(measured.json) >= {"model_file_bytes", "weights_bytes", "latency", "blocks"}


def analysed(page):
    shutil.copytree("runs/k1", "runs/small")
    page.commands("kerasgreedy analyze linearity simcnn_k1_cifar")
    _, chosen = page.commands("kerasgreedy sensitivity runs/k1", {0: ["--shares", "0.5"], 1: ["--images", "20"]})
    assert (
        png("runs/k1/plots/sensitivity.png")
        and png("k1_sens/plots/sensitivity.png")
        and Path("k1_sens/sensitivity.json").exists()
    )
    answer = page.run("kerasgreedy", "sensitivity", "runs/k1", "--shares", "0.5", "--components", "all", "--json")
    described = page.section("## `kerasgreedy sensitivity WORKDIR`").split("`sensitivity.json`:")[1].split("The two shares")[0]
    described = described.replace("`reason`", "")  # of what cannot lose filters alone: tests/analysis/test_sensitivity.py
    holds_what_is_said(page, "sensitivity WORKDIR", answer, described)
    assert "magnitude_l2" in chosen.out
    Path("line.yaml").write_text("name: line\nblocks: [{conv: 4}]\n")
    for name, solver in (("sgd", "sgd"), ("alt", "{name: alternation, warm_up_epochs: 1}")):
        for seed in range(2):
            options = f"--set seed={seed} --set data.image_size=8 --set training.solver={solver!r} -w runs/{name}_{seed}"
            page.command(f"kerasgreedy train line.yaml {options}")
    shutil.copytree("runs/sgd_0", "runs/sgd")
    shutil.copytree("runs/alt_0", "runs/alternation")
    _, seeds = page.commands("kerasgreedy convergence runs/sgd")
    described = page.section("## `kerasgreedy convergence [LABEL=]RUN...`").split("`groups` holds")[1].split("In the figure")[0]
    holds_what_is_said(page, "convergence [LABEL=]RUN...", seeds, described)


def codes(page):
    Path("my_spec.yaml").write_text(TINY_SPEC)
    Path("my_recipe.yaml").write_text(TINY_RECIPE)
    page.commands("kerasgreedy specs --kind recipe")
    assert Path("mine.yaml").is_file()
    (valid,) = page.commands("kerasgreedy validate my_spec.yaml")
    assert "a valid" in valid.out
    holds_what_is_said(page, "validate FILE...", page.run("kerasgreedy", "validate", "my_spec.yaml", "--json"))
    page.commands("kerasgreedy schema model")
    assert "properties" in Path("model.schema.json").read_text()
    page.says("`# yaml-language-server: $schema=model.schema.json`")
    table = dict(re.findall(r"^\| (\d+) \| (.*?) \|$", page.text, re.M))
    assert page.run("kerasgreedy", "validate", "nothing.yaml").code == 2 and table["2"].startswith("bad input")
    away = ["--set", "training.optimizer.learning_rate=1e30", "-w", "runs/away", "-q"]
    assert page.run("kerasgreedy", "train", "my_spec.yaml", "-r", "my_recipe.yaml", *away).code == 4
    assert table["4"].startswith("a figure is not finite") and list(Path("runs/away/checkpoints").glob("*.json"))
    again = page.run("kerasgreedy", "train", "--resume", "runs/away", "-s", "training.optimizer.learning_rate=0.01", "-q")
    page.says(
        "it stands in `run.json` (`changes`: what, when, and where training stood)",
        "`changed_recipe.yaml` is the recipe as it is now",
    )
    assert again.code == 0 and json.loads(Path("runs/away/run.json").read_text())["changes"], again.err
    assert "learning_rate: 0.01" in Path("runs/away/changed_recipe.yaml").read_text()
