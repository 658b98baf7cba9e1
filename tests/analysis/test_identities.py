"""How near kernels are to identities (structured sparsity, eq. 24)."""

import keras
import numpy as np
import pytest

from kerasgreedy.analysis.identities import IdentitiesAnalysis, identity_shares
from kerasgreedy.analysis.subject import Subject
from kerasgreedy.errors import InputError
from kerasgreedy.reports.figures import write_figure
from kerasgreedy.spec.analyses_of_layers import Identities


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5])
def test_an_identity_is_one_at_every_side_and_computes_it(side):
    kernel = np.zeros((side, side, 4, 3))
    kernel[(side - 1) // 2, (side - 1) // 2, [2, 0, 2], [0, 1, 2]] = 1
    shares, channels = identity_shares(kernel)
    assert shares.tolist() == [1, 1, 1] and channels.tolist() == [2, 0, 2]
    images = np.random.default_rng(0).standard_normal((2, 7, 7, 4)).astype("float32")
    passed = keras.ops.conv(images, kernel.astype("float32"), padding="same")
    np.testing.assert_allclose(passed, images[..., [2, 0, 2]], atol=1e-6)


def test_shares_by_hand():
    kernel = np.zeros((3, 3, 2, 5))
    kernel[1, 1, :, 0] = [1, 2]  # 4 of 5
    kernel[1, 1, :, 1] = [1, -2]  # a negative one is no identity behind relu: 1 of 5
    kernel[0, 1, 0, 2] = 3  # beside the centre
    kernel[1, 1, 0, 3], kernel[0, 0, 1, 3] = 1e-3, 1e-3  # whatever the size
    shares, channels = identity_shares(kernel)
    np.testing.assert_allclose(shares, [0.8, 0.2, 0, 0.5, np.nan])
    assert channels[:2].tolist() == [1, 0]


def test_layers_of_a_model(tmp_path):
    inputs = keras.Input((8, 8, 4))
    block = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.Conv2D(4, 3, padding="same", name="first")], name="block_1")
    x = block(inputs)
    x = keras.layers.DepthwiseConv2D(3, name="left_out")(x)
    outputs = keras.layers.Dense(2)(keras.layers.Conv2D(3, 1, name="second")(x))
    model = keras.Model(inputs, outputs)
    kernel = np.zeros((3, 3, 4, 4), "float32")
    kernel[1, 1, [3, 1, 1], [0, 1, 3]] = [2.0, 1.0, 5.0]
    block.get_layer("first").kernel.assign(kernel)
    analysis = IdentitiesAnalysis(Identities(draws=20_000))
    found = analysis.measure([Subject("net", model)], None)
    first, second = found["runs"][0]["layers"]
    counts = {key: first[key] for key in ("side", "channels", "filters", "alive", "share", "near", "passed_on")}
    assert counts == {"side": 3, "channels": 4, "filters": 4, "alive": 3, "share": 1.0, "near": 3, "passed_on": 2}
    # Of Gaussian numbers a random direction: the mean of max(z_r, 0)^2 over the mean of the sum of squares, drawn independently.
    draws = np.maximum(np.random.default_rng(5).standard_normal((200_000, 4)), 0).max(1) ** 2
    assert first["random"] == pytest.approx(draws.mean() / 36, rel=0.03)
    assert (first["layer"], second["layer"]) == ("block_1/first", "second") and second["alive"] == 3
    assert [row[1] for row in analysis.tables(found)[0].rows] == [first["layer"], second["layer"]]
    write_figure(tmp_path / "identities.png", analysis.figures(found)["identities"])
    with pytest.raises(InputError, match="no convolution"):
        analysis.measure([Subject("dense", keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]))], None)
