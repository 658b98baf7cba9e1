"""One scale for the images of both splits, told from both or by the recipe; and where their channels are."""

import numpy as np
import pytest
from conftest import recipe_of, spec_of

from kerasgreedy.data.arrays import ImageArrays
from kerasgreedy.data.catalog import describe, inapplicable
from kerasgreedy.data.loaders import open_data, prepare_arrays
from kerasgreedy.data.npz import describe_npz
from kerasgreedy.data.scale import to_bytes
from kerasgreedy.errors import DataError, SpecError
from kerasgreedy.plan.preparation import prepare
from kerasgreedy.spec.recipe import Data


def ramp(low, high, dtype=np.float32):
    """Two images of numbers from low to high, ends included."""
    return np.linspace(low, high, 2 * 4 * 4).astype(dtype).reshape(2, 4, 4, 1)


SHADES = ramp(0, 255, np.uint8)
WHOLE = SHADES.astype(np.float32)
UNIT, OVER = ramp(0, 1), ramp(-0.05, 1.02)
UNIT_BYTES, HALF = np.rint(UNIT * 255), ramp(0, 1, np.float16)
RIGHT = {
    "bytes": (SHADES, SHADES, "auto", SHADES, SHADES),
    "few bytes": (SHADES // 255, SHADES // 255, "auto", SHADES // 255, SHADES // 255),
    "whole floats": (WHOLE, WHOLE, "auto", SHADES, SHADES),
    "whole floats and bytes": (WHOLE, SHADES, "auto", SHADES, SHADES),
    "int64 up to 2": (ramp(0, 2, int), ramp(0, 255, int), "auto", ramp(0, 2, int), ramp(0, 255, int)),
    "broken floats": (ramp(0, 254.6), ramp(0.4, 16.5), "auto", np.rint(ramp(0, 254.6)), np.rint(ramp(0.4, 16.5))),
    "shares": (ramp(0, 1), ramp(0.1, 0.5), "auto", np.rint(ramp(0, 1) * 255), np.rint(ramp(0.1, 0.5) * 255)),
    "half precision": (HALF, UNIT, "auto", np.rint(HALF * 255), UNIT_BYTES),
    "overshoot, told": (OVER, UNIT, "unit", np.rint(OVER.clip(0, 1) * 255), UNIT_BYTES),
    "dark, told": (ramp(0, 7.5), ramp(0, 0.9), "bytes", np.rint(ramp(0, 7.5)), np.rint(ramp(0, 0.9))),
    "masks, told": (SHADES // 255, ramp(0, 1, int), "unit", SHADES // 255 * 255, ramp(0, 1, int) * 255),
    "small whole numbers, told": (ramp(0, 1, np.int8), ramp(0, 1, np.int8), "unit", ramp(0, 1, int) * 255, ramp(0, 1, int) * 255),
}  # fmt: skip
SAY = "which may be meant as 0..1 or as 0..255; say which with data.scale=unit .0..1, times 255. or data.scale=bytes .0..255."
WRONG = {
    "overshoot": (ramp(0, 1.02), ramp(0, 1), "auto", f"own: x_train: received values from 0 to 1.02, {SAY}"),
    "overshoot of the test split": (ramp(0, 1), ramp(0, 1.02), "auto", f"own: x_test: received values from 0 to 1.02, {SAY}"),
    "below 0": (ramp(-0.05, 1), ramp(0, 1), "auto", f"own: x_train: received values from -0.05 to 1, {SAY}"),
    "dark": (ramp(0, 7.5), ramp(0, 7.5), "auto", f"x_train: received values from 0 to 7.5, {SAY}"),
    "0 and 1": (WHOLE // 255, ramp(0, 1), "auto", f"x_train: received values from 0 to 1, {SAY}"),
    "nothing": (WHOLE * 0, WHOLE * 0, "auto", f"x_train: received values from 0 to 0, {SAY}"),
    "0 and 1 as int64": (ramp(0, 1, int), ramp(0, 1, int), "auto", SAY),
    "two scales": (ramp(0, 1), WHOLE, "auto", "own: x_train has values from 0 to 1 and own: x_test has values from 0 to 255, so"),
    "shares and bytes": (ramp(0, 1), SHADES, "auto", "one is in 0..1 and the other in 0..255; bring both to one, or say which"),
    "centred": (ramp(-1, 1), ramp(-1, 1), "auto", "x_train: received values from -1 to 1; allowed: 0..1 or 0..255"),
    "deep": (ramp(0, 65535, np.uint16), SHADES, "auto", "x_train: received values from 0 to 65535; allowed: 0..1 or 0..255"),
    "not a number": (ramp(0, 1), ramp(0, 1) * np.nan, "auto", "x_test: received values from nan to nan; allowed: finite numbers"),
    "not a number, told": (ramp(0, np.nan), SHADES, "unit", "x_train: received values from nan to nan"),
    "infinite": (np.where(ramp(0, 1) > 0.9, np.inf, 0.5), SHADES, "bytes", "x_train: received values from 0.5 to inf"),
    "unit, told": (ramp(0, 1.2), ramp(0, 1), "unit", "values from 0 to 1.2; allowed for data.scale=unit: -0.1..1.1"),
    "bytes as unit": (SHADES, SHADES, "unit", "received values from 0 to 255; allowed for data.scale=unit"),
    "bytes, told": (WHOLE, ramp(0, 256), "bytes", "x_test: received values from 0 to 256; allowed for data.scale=bytes: 0..255"),
}  # fmt: skip


@pytest.mark.parametrize("kind", RIGHT)
def test_one_scale_for_both_splits(kind):
    train, test, scale, *wanted = RIGHT[kind]
    for got, want in zip(to_bytes(train, test, scale, "own"), wanted, strict=True):
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("kind", WRONG)
def test_what_may_be_meant_in_two_ways_is_refused(kind):
    train, test, scale, message = WRONG[kind]
    with pytest.raises(DataError, match=message):
        to_bytes(train, test, scale, "own")


def arrays(train, test=None):
    """A caller's arrays of two classes."""
    test = train if test is None else test
    return ImageArrays((train, np.arange(len(train)) % 2), (test, np.arange(len(test)) % 2))


def test_npz_files_and_arrays_alike(tmp_path):
    """The case that was found: floats up to 1.02 in training became 0s and 1s while the test images were multiplied by 255."""
    own = arrays(ramp(0, 1.02), ramp(0, 1))
    np.savez(tmp_path / "a.npz", x_train=own.train[0], y_train=own.train[1], x_test=own.test[0], y_test=own.test[1])
    auto, unit = (Data(dataset=f"npz:{tmp_path}/a.npz", scale=scale) for scale in ("auto", "unit"))
    for opened in (
        lambda data: open_data(data, describe(data), (4, 4), 1),
        lambda data: prepare_arrays(own, data, own.info(), (4, 4), 1),
    ):
        with pytest.raises(DataError, match="x_train: received values from 0 to 1.02"):
            opened(auto)
        train, test = opened(unit)
        np.testing.assert_array_equal(train.images, np.rint(ramp(0, 1.02).clip(0, 1) * 255))
        np.testing.assert_array_equal(test.images, np.rint(ramp(0, 1) * 255))


@pytest.mark.parametrize(("key", "value"), [("scale", "unit"), ("scale", "bytes"), ("channel_axis", "last")])
@pytest.mark.parametrize("dataset", ["digits", "folder:x", "mnist", "tfds:x", "mnist_rotated"])
def test_keys_of_arrays_are_refused_elsewhere(dataset, key, value):
    found = inapplicable(Data(dataset=dataset, **{key: value}), dataset)
    assert found and found[0] == key and "is for npz:PATH and for arrays" in found[1]
    assert inapplicable(Data(dataset="npz:x", **{key: value}), "npz:x") is None


def test_a_refused_key_is_shown_in_the_recipe():
    recipe = recipe_of("name: r\ndata: {dataset: digits, scale: unit}\ntraining: {epochs: 1}\n")
    with pytest.raises(SpecError, match=r"recipe.yaml:2:25: data.scale: is for npz:PATH"):
        prepare(spec_of("name: s\nblocks: [{conv: 2}]\n"), recipe)


# Channels first


def shaped(*shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("shape", [(4, 1, 8, 8), (4, 3, 32, 32), (4, 4, 6, 7), (4, 1, 100, 8)], ids=str)
def test_axes_that_may_be_either_are_refused(shape, tmp_path):
    images = shaped(*shape)
    say = "say which with data.channel_axis=first or data.channel_axis=last"
    np.savez(tmp_path / "a.npz", x_train=images, y_train=np.arange(4) % 2, x_test=images, y_test=np.arange(4) % 2)
    place = str(tmp_path / "a.npz")
    with pytest.raises(DataError, match=f"x_train: received shape .*, which may be {shape[1]} channels of .*{say}"):
        describe(Data(dataset=f"npz:{place}"))
    with pytest.raises(DataError, match=f"train images: .*{say}"):
        arrays(images).info()
    _, one, two, three = shape
    for axis, wanted in (("first", (two, three, one)), ("last", (one, two, three))):
        data = Data(dataset=f"npz:{place}", channel_axis=axis)
        assert describe_npz(place, data).image_shape == arrays(images).info(axis).image_shape == wanted
        expected = images.transpose(0, 2, 3, 1) if axis == "first" else images
        train, _ = open_data(data, describe(data), wanted[:2], wanted[2])
        np.testing.assert_array_equal(train.images, expected)
        train, _ = prepare_arrays(arrays(images), data, arrays(images).info(axis), wanted[:2], wanted[2])
        np.testing.assert_array_equal(train.images, expected)


@pytest.mark.parametrize(
    "shape", [(4, 8, 8, 1), (4, 32, 32, 3), (4, 3, 3, 16), (4, 1, 4, 8), (4, 28, 28, 12), (4, 2, 8, 8)], ids=str
)
def test_axes_that_are_plain_are_taken(shape):
    assert arrays(shaped(*shape)).info().image_shape == shape[1:]


def test_grey_images_without_channels_have_no_axis_of_them(tmp_path):
    images = shaped(4, 8, 8)
    np.savez(tmp_path / "a.npz", x_train=images, y_train=np.arange(4) % 2, x_test=images, y_test=np.arange(4) % 2)
    with pytest.raises(DataError, match=r"x_train: received shape \(4, 8, 8\), which has no axis of channels"):
        describe(Data(dataset=f"npz:{tmp_path}/a.npz", channel_axis="first"))
