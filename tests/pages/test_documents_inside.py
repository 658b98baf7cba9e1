"""docs/see_inside.md, block by block, on small data."""

import json
from pathlib import Path

import numpy as np
import pytest

SMALL = [part for text in ("data.train_examples=120", "data.test_examples=30", "data.validation=20", "training.epochs=2",
                           "keep_checkpoints=3") for part in ("--set", text)]  # fmt: skip
FEW = ["--examples", "40"]


@pytest.mark.slow
def test_page_see_inside(page):
    Path("two_seeds.yaml").write_text(page.take("name: two_seeds", "yaml").text)
    more = {
        0: SMALL, 1: SMALL, 2: [*FEW, "--epochs", "1", "--width", "4"], 3: ["--splits", "2"], 5: ["--steps", "8"],
        6: [*FEW, "--points", "3"], 7: [*FEW, "--points", "3"], 9: [*FEW, "--steps", "3", "--draws", "1"],
        10: [*FEW, "--steps", "2"],
    }  # fmt: skip
    answers = page.commands("kerasgreedy train layers5_64", more)
    page.says("into `analyses/<name>` of the first run folder")
    for name in ("probe", "transfer", "visualize", "explain", "landscape", "weights", "curvature", "connect", "identities"):
        folder = Path("runs/one/analyses") / name
        assert json.loads((folder / f"{name}.json").read_text())["analysis"] == name and list(folder.glob("*.png"))
    page.says("`removal.png`")
    assert Path("runs/one/analyses/explain/removal.png").is_file() and Path("path/landscape.png").is_file()
    assert "correlation with shuffled weights" in answers[5].flat
    page.says("the line `between` two runs", "Results of other settings or weights are not written over without `--overwrite`")
    other = page.run("kerasgreedy", "landscape", "runs/one", "runs/two", "--points", "5", *FEW)
    assert other.code == 2 and "--overwrite" in other.err
    names = page.python("import keras")
    assert names["losses"].shape == (3, 3) and np.isfinite(names["losses"]).all()
    assert names["maps"].shape == names["falls"].shape == (16, 32, 32) and names["pictures"].shape == (2, 32, 32, 3)
    assert names["ends"].largest >= names["ends"].smallest
    page.says("`Points` refuses weights in 16 bits, too, and models that are not built")
