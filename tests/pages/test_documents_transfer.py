"""docs/transfer.md, block by block."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from documents import command_lines
from PIL import Image
from stand_ins import picture

from kerasgreedy.export.export_run import Export, export_run
from kerasgreedy.train.entry_points import train_spec

FEW = ["--set", "training.epochs=2", "--set", "training.batch_size=8"]
# What the page's trainings are shrunk by, taken back: the run starts from one that used all images.
WHOLE = [*FEW, "--set", "data.train_examples=null", "--set", "data.test_examples=null"]
SPEC = """
name: small
block_defaults: {batch_norm: true}
blocks: [{conv: 6, downsample: max}, {conv: 8, downsample: max}, {conv: 8}]
"""


def photographs(place, classes, count=12):
    for label, name in enumerate(classes):
        (place / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(picture(label)).convert("RGB").resize((30 + number, 32)).save(place / name / f"{number:02}.png")


@pytest.mark.slow
def test_page_transfer(page):
    photographs(Path("photos"), ("cat", "dog", "elk"))
    photographs(Path("flowers"), ("aster", "daisy"))
    Path("small.yaml").write_text(SPEC)
    sets = ["data.dataset=folder:photos", "data.test=0.25", "data.image_size=32", "training.epochs=1", "training.batch_size=8"]
    train_spec("small.yaml", "own_images", sets, "runs/photos", quiet=True)
    page.commands("kerasgreedy transfer-learn runs/photos --data flowers --workdir runs/flowers", {0: FEW})
    (phase,) = json.loads(Path("runs/flowers/plan.json").read_text())
    assert phase["trains"] == ["head_3"] and phase["cache"] == "memory"
    page.says("the last block's output pooled to 2x2", "the 40 epochs of recipe\n`transfer`")
    page.commands("kerasgreedy transfer-learn runs/photos --data flowers --blocks 2", {0: FEW})
    page.commands("kerasgreedy train runs/flowers/spec.yaml", {0: WHOLE}, width=None)
    (tuned,) = json.loads(Path("runs/tuned/plan.json").read_text())
    assert len(tuned["trains"]) == 4 and tuned["init"] == "trained"

    export_run("runs/photos", "exports/photos", Export())
    images = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(keras.layers.Rescaling(1 / 255)(images))
    keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(x))).save("net.keras")
    Path("net.yaml").write_text("name: net\nblocks: [{conv: 4, use_bias: true}]\n")
    page.commands("kerasgreedy transfer-learn exports/photos", {0: FEW, 1: [*FEW, "--set", "data.image_size=32"]})
    facts = json.loads(Path("runs/from_keras/run.json").read_text())
    np.testing.assert_allclose(facts["normalization"], [[0] * 3, [255] * 3], atol=1e-5)
    page.says("to 1e-4 of the largest value", "It\nis not guessed")
    (line,) = command_lines(page.take("kerasgreedy transfer-learn keras.applications:VGG16").text)  # needs the network
    assert "--blocks 13" in line
    page.says("With `strategy: end_to_end` all blocks can be taken")
