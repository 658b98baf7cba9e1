"""docs/data.md, python.md, recipe.md and spec.md, block by block."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml
from conftest import recipe_of, spec_of, two_devices
from stand_ins import png, stand_in_folder

import kerasgreedy as kg
from kerasgreedy.data.named import NAMED


def in_frame(fragment, *overrides):
    """A recipe that holds a fragment of one."""
    return recipe_of(yaml.safe_dump({"name": "frame", "data": {"dataset": "digits"}, **fragment}), *overrides)


def test_page_spec(page):
    spec = spec_of(page.take("name: example", "yaml").text).value
    arch = kg.architecture(spec, None, None)
    assert [block.name for block in arch.blocks][3:] == ["block_4", "top_1", "top_2"]  # repeat: 2
    assert [block.output_shape for block in arch.blocks][:4] == [(32, 32, 64), (16, 16, 64), (16, 16, 64), (16, 16, 64)]
    page.says("is: mean over `input_pool` windows", "k = `hidden_layers` + 1")
    assert [head.hidden_layers for head in arch.heads] == [2, 2, 2, 2, 0, None]


def test_page_recipe(page):
    stand_in_folder(Path("data/pets"), ("cat", "dog"), train=100)  # ~ is the scratch folder here
    recipe = recipe_of(page.take("name: example", "yaml").text)
    (phase,) = kg.prepare(spec_of("name: one\nblocks: [{conv: 4}]"), recipe).phases
    assert (phase.epochs, phase.training.batch_size, phase.training.keep) == (30, 128, "best")
    page.says("List items go by number: `--set blocks.0.conv=32`", "write `spec.name=...` or `recipe.name=...`")
    assert "write spec.name or recipe.name" in page.run("kerasgreedy", "plan", "vgg11_k3", "--set", "name=x").err

    page.says("except for what `phases` changes for one of them")
    apart = kg.prepare(spec_of("name: two\nblocks: [{conv: 4}, {conv: 4}]"), in_frame(page.yaml("strategy: greedy")))
    assert [(phase.epochs, phase.training.optimizer.learning_rate) for phase in apart.phases] == [(20, 0.1), (50, 0.05)]

    pruned = in_frame(page.yaml("strategy: greedy"))
    job = kg.prepare(spec_of("name: two\nblocks: [{conv: 70}, {conv: 80}]\nauxiliary_head: {hidden_layers: 1}"), pruned)
    names = [(phase.name, phase.epochs) for phase in job.phases]
    page.says(
        "greedy, of each block after its phase",
        "each time followed by a phase of fine-tuning",
        "`replace_head` trains another last head in the end",
    )
    assert [epochs for _, epochs in names] == [50, 0, 20, 50, 0, 20, 0, 50], names

    dsd = in_frame(page.yaml("strategy: dsd"), "training.batch_size=12")  # 20 epochs are 2,000 steps and more
    phases = kg.prepare(spec_of("name: two\nblocks: [{conv: 4}, {conv: 4}]"), dsd).phases
    page.says("so the plan above trains 60", "Its learning rate is a tenth of training's")
    assert [phase.epochs for phase in phases] == [30, 20, 10] and sum(phase.epochs for phase in phases) == 60
    assert [phase.name for phase in phases] == ["dense", "sparse", "dense_again"]
    assert [phase.training.optimizer.learning_rate for phase in phases] == pytest.approx([0.1, 0.1, 0.01])


def test_page_data(page):
    page.copy_of_cifar10()
    listed, prepared, shown = page.commands("kerasgreedy data list")
    assert all(name in listed.out for name in NAMED) and png("cifar10.png")
    assert "cifar10" in prepared.out and "200" in shown.out
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (40, 8, 8, 3)).astype(np.uint8), np.arange(40) % 2
    page.python("import numpy as np", x_train=x, y_train=y, x_test=x[:10], y_test=y[:10])
    found = page.run("kerasgreedy", "data", "show", "npz:mine.npz", "--json").json
    assert found["splits"]["train"]["per_class"] == {"cat": 20, "dog": 20} and found["splits"]["test"]["images"] == 10
    np.testing.assert_allclose(found["mean"], x.mean((0, 1, 2)), atol=5e-4)


@pytest.mark.slow  # seven trainings
def test_page_python(page):
    page.most = 4
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (80, 8, 8, 3)).astype(np.uint8), rng.integers(0, 2, 80)
    names = page.python("import kerasgreedy as kg", x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
    assert (names["scores"]["part"], names["scores"]["examples"], len(names["scores"]["depths"])) == ("validation", 6, 4)
    page.says("raw images in, a dict of logits out")
    assert set(names["model"].output) == {"depth_4", "ensemble"} and names["model"].output["depth_4"].shape == (None, 10)
    assert names["features"].output_shape == (None, 32, 32, 4) and [point["threshold"] for point in names["curve"]] == [
        0.9,
        "never",
    ]
    page.python("done = kg.export_run")
    assert Path("exports/a/1/saved_model.pb").exists() and names["done"]["difference"] <= 1e-5
    page.python("run = kg.prune_run")
    assert Path("runs/a-pruned").is_dir() and set(names["run"].results["pruned"]["after"]) >= {"parameters", "latency"}
    removed = [json.loads(path.read_text()) for path in sorted(Path("runs/b/pruning").glob("*.json"))]
    page.says("three rounds, 60 % of the filters gone in the end")
    assert len(removed) == 3, [row.keys() for row in removed]
    page.python("data = kg.ImageArrays")
    assert names["run"].network.architecture.classes == 2 and names["run"].results["examples"] == 20
    page.python("spec, recipe = kg.load")
    assert len(names["job"].phases) == 8 and names["job"].architecture.parameters > 1e6
    assert names["network"].architecture.input_shape == (32, 32, 3)
    two = two_devices()  # parts of the CPU in the place of GPUs
    with page.patch.context() as patch:
        patch.setattr(tf.distribute, "MirroredStrategy", lambda devices: {("GPU:0", "GPU:1"): two}[tuple(devices)])
        page.python("kg.train_spec", tf=tf)
    runs = Path("runs").glob("vgg11_k3-quickstart-*/run.json")  # that of the arrays, and this one
    assert {json.loads(run.read_text())["devices"]["replicas"] for run in runs} == {1, 2}
    page.says("Every error that the package raises on purpose is a `kg.KerasgreedyError`")
    with pytest.raises(kg.KerasgreedyError) as error:
        kg.load("no_such_spec")
    assert error.value.exit_code == 2
