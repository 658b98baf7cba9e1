"""Loading of specs and recipes: places of errors, overrides, round trips, JSON Schema."""

import jsonschema
import pytest
from conftest import ROOT, TINY_RECIPE, TINY_SPEC, recipe_of, spec_of

from kerasgreedy.errors import InputError, ShapeError, SpecError
from kerasgreedy.graph.architecture import architecture
from kerasgreedy.spec.load import check, dump, load
from kerasgreedy.spec.model import ModelSpec
from kerasgreedy.spec.overrides import split_overrides
from kerasgreedy.spec.recipe import Recipe
from kerasgreedy.spec.source import Source, parse_value
from kerasgreedy.spec.training import Adam, CosineSchedule

SPECS = sorted((ROOT / "model_specs").glob("*.yaml"))
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))

FAULTY = """name: faulty
input_shape: [32, 32]
block_defaults: {batchnorm: true}
blocks:
  - {conv: 128, kernal_size: 3}
  - {conv: "64"}
  - [{convv: 3}, {conv: 8, max_pool: 2}]
  - {layers: [{residual: [{conv: 8, activation: rellu}]}], nme: x}
  - 12
auxiliary_head: {hidden_layers: -1, width: 2y}
"""


def test_every_error_of_a_file_is_reported_at_its_place():
    with pytest.raises(SpecError) as caught:
        spec_of(FAULTY)
    places = [(problem.where, problem.path) for problem in caught.value.problems]
    assert places == [
        ("spec.yaml:2:1", "input_shape"),
        ("spec.yaml:3:18", "block_defaults.batchnorm"),
        ("spec.yaml:5:17", "blocks.0.kernal_size"),
        ("spec.yaml:6:6", "blocks.1.conv"),
        ("spec.yaml:7:6", "blocks.2.0"),
        ("spec.yaml:7:28", "blocks.2.1.max_pool"),
        ("spec.yaml:8:37", "blocks.3.layers.0.residual.0.activation"),
        ("spec.yaml:8:60", "blocks.3.nme"),
        ("spec.yaml:9:5", "blocks.4"),
        ("spec.yaml:10:18", "auxiliary_head.hidden_layers"),
        ("spec.yaml:10:37", "auxiliary_head.width"),
    ]
    text = str(caught.value)
    for hint in (
        "did you mean 'batch_norm'?",
        "did you mean 'kernel_size'?",
        "did you mean 'relu'?",
        "received '64'; allowed: integer",
    ):
        assert hint in text


def test_errors_of_spec_and_recipe_come_together(tmp_path):
    spec, recipe = tmp_path / "s.yaml", tmp_path / "r.yaml"
    spec.write_text("name: s\nblocks: []\n")
    recipe.write_text("name: r\ndata: {dataset: digits}\ntraining: {epoch: 3}\n")
    with pytest.raises(SpecError) as caught:
        load(spec, recipe)
    assert [problem.path for problem in caught.value.problems] == ["blocks", "training.epochs", "training.epoch"]


def test_override_reaches_into_lists_and_bare_names():
    spec = spec_of(TINY_SPEC, "blocks.0.conv=16", "auxiliary_head.width=2x").value
    assert spec.blocks[0].layers[0].conv == 16
    assert spec.auxiliary_head.width == "2x"
    recipe = recipe_of(
        "name: r\ndata: {dataset: digits}\ntraining: {epochs: 1, optimizer: adam}\n", "training.optimizer.beta_1=0.5"
    ).value
    assert recipe.training.optimizer == Adam(name="adam", beta_1=0.5)
    swapped = recipe_of(TINY_RECIPE, "training.schedule={name: cosine, final: 0.1}").value
    assert swapped.training.schedule == CosineSchedule(name="cosine", final=0.1)


def test_error_in_an_override_names_the_override():
    with pytest.raises(SpecError) as caught:
        recipe_of(TINY_RECIPE, "training.epohs=3", "training.batch_size=many")
    assert [problem.where for problem in caught.value.problems] == ["--set training.batch_size=many", "--set training.epohs=3"]
    assert "did you mean 'epochs'?" in str(caught.value)


def test_overrides_are_sorted_by_their_first_key():
    sides = split_overrides(["blocks.0.conv=1", "seed=2", "spec.name=x", "recipe.name=y"])
    assert [[(".".join(o.keys), o.value) for o in side] for side in sides] == [
        [("blocks.0.conv", "1"), ("name", "x")],
        [("seed", "2"), ("name", "y")],
    ]
    with pytest.raises(InputError, match=r"both documents have 'name'; write spec\.name or recipe\.name"):
        split_overrides(["name=x"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-4", 0.0005),
        ("1.5", 1.5),
        ("3", 3),
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ("", None),
        ("2x", "2x"),
    ],
)
def test_scalars_read_as_people_mean_them(text, value):
    got = parse_value(text)
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize("text", ["a: !!python/object:os.system {}", "a: !!python/name:os.system", "a: !exec x"])
def test_tags_are_refused(text):
    with pytest.raises(SpecError, match="allowed: plain YAML"):
        Source(text, "x.yaml")


def test_aliases_cannot_blow_up():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(SpecError, match="more than 100000 values"):
        Source("\n".join(lines), "x.yaml")


def test_merge_keys_and_aliases_work():
    source = Source("base: &b {conv: 8, stride: 2}\nmore: {<<: *b, conv: 16}\n", "x.yaml")
    assert source.data["more"] == {"conv": 16, "stride": 2}


@pytest.mark.parametrize("path", SPECS + RECIPES, ids=lambda path: path.stem)
def test_shipped_documents_survive_a_round_trip_and_fit_the_json_schema(path):
    model = ModelSpec if path in SPECS else Recipe
    source = Source.read(path)
    document = check(model, source)
    jsonschema.validate(source.data, model.model_json_schema())
    again = check(model, Source(dump(document.value), "again.yaml"))
    assert again.value == document.value


def test_a_null_that_is_not_the_default_survives_a_round_trip():
    written = spec_of("name: s\nblocks: [{random_features: 8, whiten: null}, {random_features: 8}]\n").value
    again = check(ModelSpec, Source(dump(written), "again.yaml")).value
    assert again == written and [block.layers[0].whiten for block in again.blocks] == [None, 0.1]


def test_shape_error_says_which_block_and_where():
    text = "name: s\ninput_shape: [28, 28, 1]\nclasses: 10\nblocks:\n" + "  - {conv: 4, downsample: invertible}\n" * 3
    document = spec_of(text)
    with pytest.raises(ShapeError) as caught:
        architecture(document.value)
    problem = document.shape_problem(caught.value).problems[0]
    assert problem.where == "spec.yaml:7:5"
    assert problem.message == (
        "block 3: invertible downsampling by 2 needs height and width divisible by 2, got 7x7x4 (network input 28x28x1)"
    )


def test_a_block_may_have_a_head_of_its_own():
    spec = spec_of(
        "name: s\ninput_shape: [8, 8, 1]\nclasses: 3\nauxiliary_head: {hidden_layers: 1, width: 5}\n"
        "blocks:\n  - {conv: 4}\n  - {layers: [{conv: 4}], head: {width: 7}}\n  - {conv: 4}\n"
        "final_head: {layers: [{global_avg_pool: true}]}\n"
    ).value
    arch = architecture(spec)
    # hidden convolution 9*4*w + w, mean to 2x2, linear 4w*3 + 3; and 4*3 + 3 after global pooling
    assert [head.parameters for head in arch.heads] == [9 * 4 * 5 + 5 + 60 + 3, 9 * 4 * 7 + 7 + 84 + 3, 15]


def test_the_final_head_takes_what_it_leaves_out_from_the_auxiliary_one():
    spec = spec_of(
        "name: s\ninput_shape: [8, 8, 1]\nclasses: 3\nblocks: [{conv: 4}, {conv: 4}]\n"
        "auxiliary_head: {hidden_layers: 1, width: 5}\nfinal_head: {width: 7}\n"
    ).value
    assert [head.parameters for head in architecture(spec).heads] == [9 * 4 * 5 + 5 + 60 + 3, 9 * 4 * 7 + 7 + 84 + 3]


@pytest.mark.parametrize("name", ["ensemble", "images", "normalize", "head_1"])
def test_names_that_the_network_needs_are_refused(name):
    text = f"name: s\ninput_shape: [8, 8, 1]\nclasses: 3\nblocks: [{{name: {name}, layers: [{{conv: 4}}]}}]\n"
    with pytest.raises(ShapeError, match=f"'{name}'"):
        architecture(spec_of(text).value)


def test_a_share_that_is_no_image_cannot_choose_the_best_point():
    from kerasgreedy.plan.preparation import prepare

    with pytest.raises(SpecError, match="received 0.001, which is no image of 160"):
        prepare(spec_of(TINY_SPEC), recipe_of(TINY_RECIPE, "data.validation=0.001"))
    with pytest.raises(SpecError, match="data.test_resize: 'digits' is held in memory"):
        prepare(spec_of(TINY_SPEC), recipe_of(TINY_RECIPE, "data.test_resize=16"))


def test_a_folder_of_the_name_of_a_shipped_spec_does_not_hide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet20_cifar").mkdir()
    assert load("resnet20_cifar")[0].value.name == "resnet20_cifar"
