"""Keys at the wrong place, and documents in each other's."""

import pytest

from kerasgreedy.errors import InputError, SpecError
from kerasgreedy.spec.load import load
from kerasgreedy.spec.overrides import split_overrides
from kerasgreedy.spec.paths import paths_of


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("epochs=3", "did you mean --set training.epochs=3 "), ("image_size=64", "did you mean --set data.image_size=64?"),
        ("learning_rate=0.1", "did you mean --set training.optimizer.learning_rate=0.1"),
        ("augment.pad_crop=2", "did you mean --set data.augment.pad_crop=2?"),
        ("dataset=digits", "did you mean --set data.dataset=digits"),
        ("momentum=0.9", "did you mean --set training.optimizer.momentum=0.9"),
        ("hidden_layers=2", "auxiliary_head.hidden_layers=2"),
        ("blokcs=1", "did you mean 'blocks'?"),
    ],
)  # fmt: skip
def test_where_a_key_stands(text, hint):
    with pytest.raises(InputError) as caught:
        split_overrides([text])
    assert hint in str(caught.value)


def test_paths_are_few_and_the_shortest_first():
    assert paths_of("epochs")[0] == "training.epochs" and len(paths_of("epochs")) == 3
    assert paths_of("no_such_key") == []


@pytest.mark.parametrize("swapped", ["names", "files"])
def test_a_spec_and_a_recipe_in_each_others_place(swapped, tmp_path):
    spec, recipe = "photos", "quickstart"
    if swapped == "files":
        (tmp_path / "s.yaml").write_text("name: s\nblocks: [{conv: 4}]\n")
        (tmp_path / "r.yaml").write_text("name: r\ndata: {dataset: digits}\ntraining: {epochs: 1}\n")
        spec, recipe = tmp_path / "s.yaml", tmp_path / "r.yaml"
    with pytest.raises(SpecError) as caught:
        load(recipe, spec)
    assert [problem.message.split(", and")[0].replace("shipped ", "") for problem in caught.value.problems] == [
        "is a recipe", "is a spec" if swapped == "names" else "is a model spec"
    ]  # fmt: skip
    assert str(caught.value).count("write SPEC --recipe RECIPE") == 2
