"""Filters of each class: by hand from the weights, as figures and as a picture."""

import numpy as np
import pytest
from PIL import Image

from kerasgreedy.analysis.class_filters import class_filters_of, effective_filters
from kerasgreedy.errors import InputError
from kerasgreedy.reports.filters_plot import plot_filters
from kerasgreedy.train.entry_points import load_network, train_spec

SPEC = """
name: s
blocks: [{activation: linear}]
final_head: {layers: [{gated_conv: 5, kernel_size: 3, padding: valid, class_separable: true, start: random, paired: true}]}
"""
RECIPE = """
name: r
strategy: convex
data: {dataset: "npz:%s", scale: bytes, validation: 0}
training: {epochs: 1, batch_size: 8, optimizer: {name: sgd, learning_rate: 1e-3}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("filters")
    rng = np.random.default_rng(0)
    images = {f"x_{part}": rng.integers(0, 256, (n, 6, 6, 3), dtype=np.uint8) for part, n in (("train", 24), ("test", 8))}
    labels = {f"y_{part}": np.arange(n) % 2 for part, n in (("train", 24), ("test", 8))}
    np.savez(place / "d.npz", **images, **labels)
    (place / "r.yaml").write_text(RECIPE % (place / "d.npz"))
    return place


@pytest.fixture(scope="module", params=["gated", "twin"])
def run(request, folder):
    text = SPEC if request.param == "gated" else SPEC.replace("start: random, paired: true", "gates: own")
    (folder / f"{request.param}.yaml").write_text(text)
    done = train_spec(folder / f"{request.param}.yaml", folder / "r.yaml", [], folder / request.param, quiet=True)
    network = load_network(done.workdir)
    arrays = {key.split("/")[1]: value.astype(float) for key, value in network.arrays("head_1").items() if key.endswith("kernel")}
    if request.param == "gated":
        v = arrays["class_separable_1"] * np.repeat([1, -1], 5)[:, None]  # the second half of a pair has the sign -1
        return done.workdir, network, v.reshape(3, 3, 3, 10, 2)
    return done.workdir, network, np.einsum("ijkp,pc->ijkpc", arrays["gated_conv_1"], arrays["dense_1"])


def test_filters_and_colours_are_those_of_the_weights(run, tmp_path):
    workdir, network, v = run
    np.testing.assert_allclose(effective_filters(network, "head_1"), v, rtol=1e-6)
    found, shown = class_filters_of(workdir, class_="1", count=3)
    norms = np.linalg.norm(v.reshape(27, -1, 2), axis=0)
    best = np.argsort(-norms[:, 1])[:3]
    np.testing.assert_allclose(shown, np.moveaxis(v[..., best, 1], -1, 0), rtol=1e-6)
    assert (found["shown"], found["filters"], found["kernel_size"], found["class"]) == (3, v.shape[3], 3, "1")
    assert found["norm_share"] == pytest.approx(norms[best, 1].sum() / norms[:, 1].sum())
    for c, told in enumerate(found["classes"]):
        blue = sum(v[:, :, 2, i, c].mean() - v[:, :, 0, i, c].mean() for i in range(v.shape[3]))
        assert told["blue_minus_red"] == pytest.approx(blue / norms[:, c].sum()) and told["used"] == v.shape[3]
    picture = plot_filters(found, shown, tmp_path / "f.png")
    with Image.open(picture) as image:
        assert np.asarray(image.convert("RGB")).std() > 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"class_": "9"}, "received '9'.*a number below 2"), ({"depth": 2}, "allowed: a trained one"), ({"count": 0}, "1 or more")],
)
def test_what_is_not_there_is_refused(run, arguments, message):
    with pytest.raises(InputError, match=message):
        class_filters_of(run[0], **arguments)


def test_other_heads_have_no_such_filters(finished):
    with pytest.raises(InputError, match="does not end in gated_conv"):
        class_filters_of(finished.workdir)
