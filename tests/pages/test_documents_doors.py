"""docs/solvers.md, convex.md, sparsity.md and extending.md, block by block; what they write is trained, a plug-in is added."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT, recipe_of, spec_of
from documents import PAGES, blocks_of

import kerasgreedy as kg
from kerasgreedy.kernel_groups import group_places
from kerasgreedy.plan.preparation import prepare

SPEC = "name: s\nblocks: [{conv: 4}, {conv: 6}, {conv: 6}]\nauxiliary_head: {pool_to: 1}\n"
SCALED = "name: s\nblocks: [{conv: 4}, {conv: 6}, [{conv: 6}, {channel_scale: 1.5}]]\nauxiliary_head: {pool_to: 1}\n"
SMALL = ["data.train_examples=96", "data.test_examples=20", "data.validation=16", "training.batch_size=16"]


def trained(folder, fragment, *sets):
    folder.mkdir(exist_ok=True)
    (folder / "s.yaml").write_text(SPEC)
    (folder / "r.yaml").write_text(yaml.safe_dump({"name": "r", "data": {"dataset": "digits"}, **fragment}))
    return kg.train_spec(folder / "s.yaml", folder / "r.yaml", [*SMALL, *sets], folder / "run", quiet=True)


@pytest.mark.slow
def test_page_solvers(page, tmp_path):
    objectives = page.yaml("training:\n  epochs: 20\n  objective")
    job = prepare(spec_of(SPEC), recipe_of(yaml.safe_dump({"name": "r", "data": {"dataset": "digits"}, **objectives})))
    names = [job.recipe.training.objective_of(f"head_{number}").name for number in (1, 2, 3)]
    assert names == ["cross_entropy", "squared_error", "squared_error"]
    regularizers = page.yaml("training:\n  epochs: 20\n  regularizers")
    done = trained(tmp_path / "regularized", regularizers, "training.epochs=1", "strategy=end_to_end")
    records = [json.loads(line) for line in (done.workdir / "metrics.jsonl").read_text().splitlines()]
    page.says("`metrics.jsonl` has the sum of the penalties at the end of each epoch as `penalty`")
    assert all((record["split"] == "train") == ("penalty" in record) for record in records)
    done = trained(tmp_path / "fista", page.yaml("strategy: random_features"), "training.epochs=30")
    page.says("`results.json` has it under `fista`", "with the number of steps and the objective")
    entry = done.results["phases"][0]["fista"]
    assert entry["iterations"] == 30 and entry["objective"] > 0 and 0 < entry["subgradient"] < 0.5
    page.says("`finish` fine-tunes by cross entropy only and refuses others")
    with pytest.raises(kg.KerasgreedyError, match="squared error"):
        from kerasgreedy.export.tfmot.finish_run import Finish, finish_run

        finish_run(done.workdir, tmp_path / "out", Finish("quantize"), quiet=True)


@pytest.mark.slow
def test_page_convex(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for start, name in (("name: small_convex", "small_convex"), ("name: convex_digits", "convex_digits")):
        Path(f"{name}.yaml").write_text(yaml.safe_dump(page.yaml(start)))
    done = kg.train_spec("small_convex.yaml", "convex_digits.yaml", ["training.epochs=2"], quiet=True)
    page.says("an action `fit` of the plan", "The line of each epoch has objective and\nduality gap")
    page.take("kerasgreedy train small_convex")
    page.says("With `class_separable: true` at the end of a head every class has\nfilters of its own")
    assert [stage["phase"] for stage in done.results["phases"]] == ["fit_block_1", "block_1"]
    assert done.results["phases"][1]["fista"]["duality_gap"] > 0
    for start, name in (("name: small_ccnn", "small_ccnn"), ("name: ccnn_digits", "ccnn_digits")):
        Path(f"{name}.yaml").write_text(yaml.safe_dump(page.yaml(start)))
    done = kg.train_spec("small_ccnn.yaml", "ccnn_digits.yaml", ["training.epochs=4"], quiet=True)
    page.says("here no class is fixed at 0")
    assert [stage.get("action", "train") for stage in done.results["phases"]] == ["fit", "train", "filters", "fit", "train"]
    assert done.results["depths"][1]["top1"] > 0.8
    (swept,) = page.commands("kerasgreedy sweep small_ccnn", {0: ["--set", "training.epochs=1", "--json"]})
    page.says("one network for each of five radii from 0.1 to 1,000")
    assert [point["values"] for point in swept.json["points"]] == [{"radius": 10.0**power} for power in range(-1, 4)]
    section = PAGES["commands"].read_text().split("## `kerasgreedy sweep")[1].split("## `")[0]
    said = set(re.findall(r"`([a-z_]+[0-9]?)`", section.split("| `--json` |")[1])) - {"points"}
    assert {*swept.json, *swept.json["runs"][0], *swept.json["points"][0]} >= said and Path("runs/radius/sweep.png").is_file()


@pytest.mark.slow
def test_page_sparsity(page):
    Path("sparse_digits.yaml").write_text(page.take("name: sparse_digits", "yaml").text)
    few = [part for text in [*SMALL, "training.epochs=1", "threshold.fine_tune.epochs=1", "blocks.0.conv=4", "blocks.1.conv=4"]
           for part in ("--set", text)]  # fmt: skip
    _, summary, less, swept = page.commands("kerasgreedy train square_mnist", {2: ["--epochs", "1"], 3: few})
    assert "ms at batch 32" in summary.out and "asked for" in less.err
    assert "narrower 0.5" in swept.out and swept.out.count("alpha ") == 4
    page.says("`frontier.json` has the figures", "`widths.png` each layer's kernels", "`thresholds/<name>.json` holds all norms")
    table = json.loads(Path("runs/frontier/frontier.json").read_text())
    assert [net["alpha"] for net in table["nets"]] == pytest.approx([1e-4, 0.0004642, 0.002154, 0.01], rel=1e-3)
    drawn = {path.name for path in Path("runs/frontier").glob("*.png")}
    assert drawn == {"frontier.png", "widths.png", "sides.png", "correlations.png", "groups.png"}
    assert len(list(Path("runs/frontier").glob("alpha_*/kernels.png"))) == 4
    assert len(json.loads(Path("runs/less/thresholds/threshold.json").read_text())["sweep"]) == 12
    page.says("5x5 have 9, 16, 21, 24, 25 places")
    assert group_places(5, "half_rings") == [9, 16, 21, 24, 25]
    page.says("the loader takes it unquoted as well")
    assert recipe_of(
        "name: r\ndata: {dataset: digits}\ntraining: {epochs: 1, regularizers: [{name: group_lasso, weight: 1, on: scale}]}\n"
    )


@pytest.fixture(scope="module")
def plugged(tmp_path_factory):
    """The plug-in of the page in two files, and a way to run commands with it."""
    folder = tmp_path_factory.mktemp("plugged")
    for block in blocks_of(PAGES["extending"]):
        name, _, text = block.text.partition("\n")
        if name.startswith("# "):
            (folder / name.removeprefix("# ")).write_text(text)
    (folder / "s.yaml").write_text(SPEC)
    (folder / "scaled.yaml").write_text(SCALED)
    (folder / "r.yaml").write_text(
        "name: r\ndata: {dataset: digits}\ntraining: {epochs: 2, optimizer: {name: sgd, learning_rate: 0.05}}\n"
    )

    def run(*arguments, plugin=True):
        command = [sys.executable, "-m", "kerasgreedy", *(["--plugin", "./my_plugin.py"] if plugin else []), *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{folder}"}
        return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=300)

    return folder, run


TOGETHER = """
import json, sys
from kerasgreedy.cli import main as cli
for words in json.loads(sys.argv[1]):
    sys.argv = ["kerasgreedy", "--plugin", "./my_plugin.py", *words]
    try:
        cli.main()
    except SystemExit as end:
        if end.code:
            sys.exit(end.code)
"""


def together(folder, *commands):
    """Commands with the plug-in in one process, each of which has to succeed; the objects of those with --json."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{folder}"}
    command = [sys.executable, "-c", TOGETHER, json.dumps([list(map(str, words)) for words in commands])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.slow
def test_page_extending(page, plugged):
    folder, run = plugged
    page.take("kerasgreedy --plugin ./my_plugin.py train vgg11_k3 --set training.objective=focal")
    for start in ("# my_plugin.py", "# my_work.py"):
        page.take(start, "python")
    sets = [f"--set={text}" for text in (
        *SMALL, "training.objective={name: focal, gamma: 1}", "training.regularizers=[{name: elastic, weight: 0.5}]",
        "training.solver=restarted", "strategy=last_two", "prune={keep: 0.5, importance: largest_weight, components: [block_3]}",
    )]  # fmt: skip
    plan = run("plan", "scaled.yaml", "-r", "r.yaml", *sets, "--json")
    assert plan.returncode == 0, plan.stderr
    (shaken, phase, action) = json.loads(plan.stdout)["phases"]
    assert shaken["what"] == "noise of 0.01 on block_2, block_3"
    assert phase["trains"] == ["block_2", "block_3", "head_3"] and phase["frozen"] == ["block_1"], plan.stderr
    assert phase["solver"] == "restarted" and action["settings"]["importance"] == "largest_weight"
    once = [f"--set={text}" for text in (*SMALL, "training.epochs=1")]
    trained, evaluated, exported, finished = together(
        folder,
        ["train", "scaled.yaml", "-r", "r.yaml", *sets, "-w", "run", "--json"],
        ["evaluate", "run", "--json"],
        ["export", "run", "exported", "--format", "keras", "--format", "npz", "--json"],
        ["train", "scaled.yaml", "-r", "r.yaml", *once, "-w", "plain"],
        ["finish", "plain", "quantized", "-m", "quantize", "--epochs", "1", "--json"],
    )
    scores = trained["depths"]
    assert [entry["objective"] for entry in scores] == ["focal loss"]
    entry = json.loads((folder / "run/results.json").read_text())["phases"][2]
    assert entry["importance"] == "largest_weight" and entry["filters"]["block_3/conv_1"] == [6, 3]
    page.says("has to be resumed and evaluated with the same `--plugin`")
    assert evaluated["depths"] == scores
    assert exported["formats"][1]["components"] == 6
    with np.load(folder / "exported/1/weights.npz") as arrays:
        assert arrays["block_3/channel_scale_1/scale"].shape == (3,)
    assert finished["method"] == "quantize"
    alone = run("evaluate", "run", plugin=False)
    assert alone.returncode == 2 and "Traceback" not in alone.stderr and "keys (channel_scale)" in alone.stderr


def test_an_installed_plug_in_is_found_by_its_entry_point(plugged, tmp_path):
    """A package's metadata on the path is an installation; nothing is imported before a document asks for the name."""
    folder, run = plugged
    about = folder / "my_plugin-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plugin\nVersion: 1\n")
    (about / "entry_points.txt").write_text(
        "[kerasgreedy.layers]\nchannel_scale = my_plugin\n"
        "[kerasgreedy.objectives]\nfocal = my_plugin\nbroken = json\n[kerasgreedy.strategies]\nlast_two = my_plugin\n"
    )
    arguments = ["plan", "s.yaml", "-r", "r.yaml", *(f"--set={text}" for text in SMALL), "--json"]
    plan = run(*arguments, "--set=strategy=last_two", "--set=training.objective=focal", plugin=False)
    assert plan.returncode == 0 and json.loads(plan.stdout)["phases"][1]["name"] == "last_two", plan.stderr
    odd = run(*arguments, "--set=training.objective=focl", plugin=False)
    assert odd.returncode == 2 and "did you mean 'focal'" in odd.stderr
    broken = run(*arguments, "--set=training.objective=broken", plugin=False)
    assert broken.returncode == 2 and "promises objectives 'broken' and does not add it" in broken.stderr
    assert "my_plugin" not in run("validate", "s.yaml", plugin=False).stderr
    assert run("validate", "scaled.yaml", plugin=False).returncode == 0
    (folder / "typo.yaml").write_text(SCALED.replace("channel_scale", "chanel_scale"))
    typo = run("validate", "typo.yaml", plugin=False)
    assert typo.returncode == 2 and "did you mean 'channel_scale'" in typo.stderr


def test_the_work_of_the_page_is_what_it_says(plugged, monkeypatch):
    folder, _ = plugged
    monkeypatch.syspath_prepend(str(folder))
    from types import SimpleNamespace

    import my_work
    import tensorflow as tf

    z, labels = np.random.default_rng(0).normal(size=(5, 3)), np.array([0, 1, 2, 1, 0])
    p = (np.exp(z) / np.exp(z).sum(1, keepdims=True))[range(5), labels]
    loss = my_work.FocalLoss(SimpleNamespace(gamma=2.0))(tf.constant(z), tf.constant(labels), None)
    np.testing.assert_allclose(loss, -((1 - p) ** 2) * np.log(p), rtol=1e-5)
    penalty, w = my_work.ElasticNet(SimpleNamespace(weight=0.5)), tf.constant([[0.3, -2.0]])
    assert float(penalty.value({"a": w})) == pytest.approx(0.5 * (2.3 + (0.09 + 4) / 2))
    np.testing.assert_allclose(penalty.proximal(w, 0.4), [[0.1 / 1.2, -1.8 / 1.2]], rtol=1e-6)
    assert Path(my_work.__file__).parent == folder
