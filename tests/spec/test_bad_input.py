"""Bad input to the command line: exit code 2 and one error that says what came and what is allowed; never a traceback."""

import fcntl
import gzip
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from command_line import RECIPE, SPEC, Case, Files, assert_clear
from conftest import unsealed
from data_files import FEATURES, FOLDER, INFO, JPG, idx, picture

from kerasgreedy.cli import main as cli

pytestmark = pytest.mark.usefixtures("place")

PLAN = "plan s.yaml -r r.yaml -s "
TRAIN = "train s.yaml -q -r r.yaml -w run -s data.image_size=8 -s "
LONG = "x" * 300


def spec(id: str, text: str | bytes, *expected: str) -> Case:
    """A whole model spec."""
    return Case(id, "validate x.yaml", expected, {"x.yaml": text})


def block(id: str, text: str, *expected: str) -> Case:
    """Blocks (and what follows them) of an 8x8x1 spec; the first block stands on line 5."""
    return spec(id, f"name: s\ninput_shape: [8, 8, 1]\nclasses: 10\nblocks:\n  - {text}\n", *expected)


def training(id: str, text: str, *expected: str, data: str = "dataset: digits") -> Case:
    """The training section (line 3) and the data section (line 2) of a recipe."""
    return Case(id, "validate x.yaml", expected, {"x.yaml": f"name: r\ndata: {{{data}}}\ntraining: {{{text}}}\n"})


IN_FOLDER = "data.dataset=folder:d"
CROP = " -s data.augment.random_resized_crop=true"


def fashion(images: bytes = idx(10, 28, 28), labels: bytes = idx(10), end: str = "") -> Files:
    return {
        f"f/train-images-idx3-ubyte{end}": images,
        "f/train-labels-idx1-ubyte": labels,
        "f/t10k-images-idx3-ubyte": idx(10, 28, 28),
        "f/t10k-labels-idx1-ubyte": idx(10),
    }


IN_FASHION = "data.dataset=fashion_mnist -s data.data_dir=f"
GZ = gzip.compress(np.random.default_rng(0).bytes(2000))


def tfds(info: Any, features: Any = None) -> Files:
    return {"t/mnist/3.0.1/dataset_info.json": json.dumps(info), "t/mnist/3.0.1/features.json": json.dumps(features)}


IN_TFDS = "data.dataset=tfds:mnist -s data.data_dir=t"

YAML = [
    spec("empty", "", ":1:1: name: required key is missing", "blocks: required key"),
    spec("list_at_top", "- a\n", ":1:1", "received a list", "a mapping"),
    spec("open_bracket", "name: s\nblocks: [a\n", ":3:1", "not valid YAML"),
    spec("tab", "name: s\n\tblocks: []\n", ":2:1", "not valid YAML", "\\t"),
    spec("nul_byte", "x: 1\nname: s\0\n", ":2:8", "not valid YAML"),
    spec("key_twice", "name: s\nname: t\nblocks: [{conv: 4}]\n", ":2:1: name:", "twice", "line 1"),
    spec("python_tag", "name: !!python/object/apply:os.system [ls]\n", ":1:7: name:", "python/object", "plain YAML"),
    spec("alias_in_itself", "name: s\nblocks: &a [*a]\n", ":2:9", "contains itself"),
    spec("alias_bomb", "a: &a [0,0,0]\n" + "".join(f"{b}: &{b} [{f'*{a},' * 99}]\n" for a, b in ("ab", "bc", "cd")), "100000"),
    spec("too_deep", "a: " + "[" * 3000, ":1:1", "nested too deeply"),
    spec("not_utf8", b"name: \xff\n", "x.yaml: not UTF-8", "byte 6"),
    Case("missing_file", "validate nosuch.yaml", ("nosuch.yaml: no such file",)),
    Case("missing_and_bad", "validate x.yaml nosuch.yaml", ("nosuch.yaml: no such file", "?name"), {"x.yaml": "nme: s\n"}),
    Case("folder_as_file", "validate x.yaml", ("x.yaml: is a folder", "a YAML file"), {"x.yaml": None}),
    Case("shipped_name", "plan vgg1_k3", ("vgg1_k3: no such file", "?vgg11_k3")),
    Case("long_name", f"plan {LONG}", (LONG[:70], "not a usable path")),
]
SPECS = [
    spec("spec_key", "name: s\nbloks: [{conv: 4}]\n", ":2:1: bloks:", "?blocks"),
    block("block_key", "{layers: [{conv: 4}], repeet: 2}", ":5:27: blocks.0.repeet:", "?repeat"),
    block("block_layers_key", "{layer: [{conv: 4}]}", ":5:", "blocks.0", "?layers"),
    block("layer_key", "{conv: 4, kernel: 5}", ":5:15: blocks.0.kernel:", "?kernel_size"),
    block("body_key", "{residual: [{conv: 4, activaton: relu}]}", ":5:27: blocks.0.residual.0.activaton:", "?activation"),
    block("branch_key", "{branches: [[{conv: 4}], [{conv: 4, strid: 2}]]}", ":5:41: blocks.0.branches.1.0.strid", "?stride"),
    block("head_key", "{conv: 4}\nauxiliary_head: {hiden_layers: 1}", ":6:18", "?hidden_layers"),
    block("defaults_key", "{conv: 4}\nblock_defaults: {batchnorm: true}", ":6:18", "?batch_norm"),
    block("kind", "{konv: 4}", ":5:5: blocks.0:", "konv", "?conv"),
    block("two_kinds", "{conv: 4, dense: 3}", ":5:15", "both 'conv' and 'dense'"),
    block("quoted_number", "{conv: '4'}", ":5:6: blocks.0.conv: received '4'", "integer"),
    block("word_as_truth", "{conv: 4, batch_norm: yes}", ":5:15", "received 'yes'", "boolean"),
    block("false_kind", "{flatten: false}", ":5:6", "received false", "allowed: true"),
    block("zero_stride", "{conv: 4, stride: 0}", ":5:15", "received 0", "greater than or equal to 1"),
    block("huge_width", "{conv: 99999999999999999999999}", ":5:6: blocks.0.conv: received 9999"),
    block("activation", "{conv: 4, activation: rellu}", ":5:15", "received 'rellu'", "'relu', 'linear'", "?relu"),
    block("endless_width", f"{{conv: 4}}\nauxiliary_head: {{width: {'9' * 400}x}}", ":6:18: auxiliary_head.width: received '999"),
    block("odd_size", "{conv: 4}" + "\n  - {conv: 4, downsample: invertible}" * 4, ":9:5: blocks.4: block 5:", "got 1x1x4"),
    block("kernel_fits_not", "{conv: 4, kernel_size: 9, padding: valid}", ":5:5: blocks.0: block 1: a 9x9 kernel", "side of 8"),
    block("sum", "{residual: [{conv: 4, stride: 2}]}", ":5:5", "body gives 4x4x4 and the shortcut 8x8x1", "shortcut: projection"),
    block("branch_sizes", "{branches: [[{conv: 4}], [{conv: 4, stride: 2}]]}", ":5:30: blocks.0.branches.1:", "4x4x4", "8x8x4"),
    block("dense_on_map", "{dense: 4}", ":5:5: blocks.0: block 1: 'dense' needs a vector", "{flatten: true}"),
    block("conv_on_vector", "{flatten: true}\n  - {conv: 4}", ":6:5: blocks.1: block 2: 'conv' needs a map", "vector of 64"),
    block("head_is_map", "{conv: 4}\nauxiliary_head: {layers: [{conv: 4}]}", ":6:1", "head ends in a map of 8x8x4", "flatten"),
    block("maps_of_vector", "{conv: 4}\nauxiliary_head: {layers: [{flatten: true}], class_maps: relu}", ":6:45", "needs a map"),
    block("maps_without_layers", "{conv: 4}\nauxiliary_head: {class_maps: relu}", ":6:18", "needs 'layers' beside it"),
    Case("no_size", "summary s.yaml", ("spec 's' leaves input_shape to the data set", "input_shape=")),
]
RECIPES = [
    Case("recipe_key", PLAN + "stratgy=greedy", ("--set stratgy=greedy: unknown key 'stratgy'", "?strategy")),
    training(
        "accumulation_uneven", "epochs: 1, batch_size: 10, accumulation: 3", "received 3; batch_size 10 cannot be divided by it"
    ),
    training("views_of_nothing", "epochs: 1", "without 'augment' all views", data="dataset: digits, augment_views: 3"),
    Case("precision_typo", PLAN + "precision=mixed_bfloat", ("received 'mixed_bfloat'", "?mixed_bfloat16")),
    Case("prefix_of_nothing", PLAN + "prefix_precision=float32 -s strategy=end_to_end", ("freezes nothing; leave it out",)),
    Case("cache_of_nothing", PLAN + "cache.store=disk -s strategy=decoupled", ("has no frozen blocks before what trains",)),
    Case("cache_store_typo", PLAN + "cache.store=dsk", ("received 'dsk'", "?disk")),
    Case("cache_negative", PLAN + "cache.memory_gb=-1", ("memory_gb", "greater than or equal to 0")),
    Case("download_of_embedded", PLAN + "data.download=true", ("'digits' is none of them; leave it out",)),
    Case("data_dir_of_embedded", PLAN + "data.data_dir=x", ("data.data_dir", "leave it out")),
    training("training_key", "epochs: 1, batchsize: 8", ":3:23: training.batchsize:", "?batch_size"),
    training("optimizer_key", "epochs: 1, optimizer: {name: sgd, lerning_rate: 1}", ":3:46", "?learning_rate"),
    training("optimizer_name", "epochs: 1, optimizer: {name: adm}", ":3:35", "received 'adm'", "sgd, adam", "?adam"),
    training("schedule_key", "epochs: 1, schedule: {name: step, factor: 0.2, evry: 3}", ":3:59", "?every"),
    training("schedule_bare", "epochs: 1, schedule: step", ":3:23: training.schedule", "required key", "factor", "every"),
    training(
        "schedule_at_falls", "epochs: 1, schedule: {name: step, factor: 0.1, at: [5, 5]}", ":3:59", "[5, 5]", "rising order"
    ),
    training("schedule_at_nothing", "epochs: 1, schedule: {name: step, factor: 0.1, at: []}", ":3:59", "a list of at least 1"),
    training("schedule_at_number", "epochs: 1, schedule: {name: step, factor: 0.1, at: 5}", ":3:59", "received 5", "list"),
    training("schedule_both", "epochs: 1, schedule: {name: step, factor: 0.1, every: 2, at: [5]}", ":3:69", "exclude each other"),
    training("augment_key", "epochs: 1", ":2:35", "?pad_crop", data="dataset: digits, augment: {padcrop: 1}"),
    training("infinite_rate", "epochs: 1, optimizer: {learning_rate: .inf}", ":3:35", "learning_rate: received inf"),
    training("keep", "epochs: 1, keep: bset", ":3:23", "received 'bset'", "'best' or 'last'", "?best"),
    training("validation_of_all", "epochs: 1", "received 1.0", "less than 1", data="dataset: digits, validation: 1.0"),
    training("best_of_nothing", "epochs: 1, keep: best", ":3:", "data.validation above 0", data="dataset: digits, validation: 0"),
    Case("identity_end_to_end", PLAN + "training.init=identity -s strategy=end_to_end", ("training.init:", "'end_to_end'")),
    Case("classes_differ", PLAN + "classes=7", ("--set classes=7", "7 classes", "'digits' has 10")),
    Case("sizes_differ", PLAN + "input_shape=[8,8,1] -s data.image_size=16", ("--set data.image_size=16", "16x16", "8x8x1")),
    Case("batch_over_data", PLAN + "training.batch_size=5000", ("--set training.batch_size=5000", "received 5000", "1437")),
    Case("validation_over_data", PLAN + "data.validation=2000", ("data.validation", "received 2000", "1437")),
]
SETS = [
    Case("set_without_equals", PLAN + "training.epochs", ("--set training.epochs: allowed: key.key=value",)),
    Case("set_spec_key", PLAN + "spec.nme=3", ("--set spec.nme=3:", "?name")),
    Case("set_ambiguous", PLAN + "name=x", ("--set name=x", "spec.name", "recipe.name")),
    Case("set_whole_recipe", PLAN + "recipe=a.b", ("--set recipe=a.b:",)),
    Case("set_bad_index", PLAN + "blocks.9.conv=4", ("--set blocks.9.conv=4", "'blocks' is a list of 2", "0 to 1", "'9'")),
    Case("set_odd_index", PLAN + "blocks.--1.conv=4", ("--set blocks.--1.conv=4", "'blocks' is a list of 2", "0 to 1", "'--1'")),
    Case("set_below_number", PLAN + "training.epochs.x=3", ("--set training.epochs.x=3", "'training.epochs' is 1")),
    Case("set_tag", PLAN + "'seed=!!python/name:os.system x'", ("python/name:os.system", "plain YAML")),
]
DATA = [
    Case("dataset_not_here", PLAN + "data.dataset=cifar10", ("cifar10 is not here", "no_tfds", "data.download=true")),
    Case("dataset_unknown", PLAN + "data.dataset=cifar_10", ("received 'cifar_10'", "folder:PATH", "?cifar10")),
    Case("folder_missing", PLAN + IN_FOLDER, ("/d: no such folder", "train/<class>/")),
    Case("folder_of_nobody", PLAN + "data.dataset=folder:~nosuchuser/x", ("data.dataset", "~nosuchuser/x: not a usable path")),
    Case("folder_without_train", PLAN + IN_FOLDER, ("/d: no folder 'train'", "trian"), {"d/trian/a/0.jpg": JPG}),
    Case("empty_class", PLAN + IN_FOLDER, ("class 'c' has no training image",), {**FOLDER, "d/train/c": None}),
    Case("class_in_test_only", PLAN + IN_FOLDER, ("class 'bb' is in test but not in train",), {**FOLDER, "d/test/bb/0.jpg": JPG}),
    Case("image_truncated", TRAIN + IN_FOLDER, ("d/train/b/2.jpg: not a readable",), {**FOLDER, "d/train/b/2.jpg": JPG[:300]}),
    Case("image_garbage", TRAIN + IN_FOLDER + CROP, ("d/train/b/2.jpg: not a",), {**FOLDER, "d/train/b/2.jpg": b"garbage"}),
    Case("image_of_other_kind", TRAIN + IN_FOLDER + CROP, ("d/train/b/2.jpg",), {**FOLDER, "d/train/b/2.jpg": picture("ppm")}),
    Case("fashion_missing", PLAN + IN_FASHION, ("f/train-images-idx3-ubyte", "data.data_dir")),
    Case("fashion_cut_gz", TRAIN + IN_FASHION, ("train-images-idx3-ubyte.gz: ", "idx file"), fashion(GZ[:99], end=".gz")),
    Case("fashion_bad_gz", TRAIN + IN_FASHION, ("images-idx3-ubyte.gz: damaged",), fashion(GZ[:10] + b"garbage" * 9, end=".gz")),
    Case(
        "fashion_label",
        TRAIN + IN_FASHION,
        ("fashion_mnist: a label is 200; allowed: 0 to 9",),
        fashion(labels=idx(10, fill=200)),
    ),
    Case("fashion_no_images", TRAIN + IN_FASHION, ("images",), fashion(idx(0, 28, 28), idx(0))),
    Case("fashion_few_images", TRAIN + IN_FASHION + " -s training.batch_size=32", ("10", "images"), fashion()),
    Case("tfds_not_prepared", PLAN + IN_TFDS, ("tfds:mnist: no prepared copy below /", "data.download=true"), {"t": None}),
    Case("tfds_name", PLAN + "data.dataset=tfds:mnst -s data.data_dir=t", ("tfds:mnst: no prepared copy", "?mnist")),
    Case("tfds_odd_name", PLAN + "data.dataset=tfds:mnist//x -s data.data_dir=t", ("tfds:mnist//x",)),
    Case("tfds_info", PLAN + IN_TFDS, ("t/mnist/3.0.1 is not a prepared",), tfds([])),
    Case("tfds_no_shards", TRAIN + IN_TFDS + " -s data.train_examples=8", ("tfds:mnist",), tfds(INFO, FEATURES)),
]
USAGE = [
    Case("command", "trian s.yaml", ("trian", "train")),
    Case("option", "train --foo", ("--foo",)),
    Case("batch_size", "evaluate run --batch-size 0", ("--batch-size",)),
    Case("schema", "schema modle", ("received 'modle'", "model, recipe", "?model")),
    Case("no_spec", "train", ("SPEC", "--resume")),
    Case("no_run", "evaluate nosuch", ("nosuch: no such run folder",)),
    Case("resume_not_a_run", "train --resume d", ("d: not a run folder", "run.json"), {"d": None}),
    Case("evaluate_not_a_run", "evaluate d", ("d: not a run folder", "run.json"), {"d": None}),
    Case("workdir_full", TRAIN + "seed=1", ("run: already exists and is not empty", "--workdir"), {"run/note": "mine"}),
    Case("workdir_below_file", "train s.yaml -r r.yaml -q -w s.yaml/run", ("s.yaml/run: cannot be made (Not a directory)",)),
    Case("workdir_of_nobody", "train s.yaml -r r.yaml -q -w ~nosuchuser/x", ("~nosuchuser/x",)),
    Case("workdir_long_name", f"train s.yaml -r r.yaml -q -w {LONG}", (LONG[:70], "not a usable path")),
]


@pytest.mark.parametrize("case", [*YAML, *SPECS, *RECIPES, *SETS, *DATA, *USAGE], ids=lambda case: case.id)
def test_bad_input_ends_in_one_clear_error(case, call):
    case.write_files()
    assert_clear(*call(case.command), case.expected)


@pytest.mark.parametrize("depth", range(150, 290, 20))
def test_nesting_is_either_read_or_refused(depth, call):
    nested = "{residual: [" * depth + "{conv: 1}" + "]}" * depth
    Path("x.yaml").write_text(f"name: s\ninput_shape: [8, 8, 1]\nblocks: [{nested}]\n")
    code, out, err = call("validate x.yaml")
    if code:
        assert_clear(code, out, err, ("x.yaml:", "nested too deeply"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two blocks."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "s.yaml").write_text(SPEC)
    (folder / "r.yaml").write_text(RECIPE)
    limits = "-s data.train_examples=80 -s data.test_examples=20 -s training.batch_size=40"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit, match="^0$"):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["kerasgreedy", *shlex.split(f"train s.yaml -q -r r.yaml -w run {limits}")])
        cli.main()
    return folder / "run"


class Damage(NamedTuple):
    id: str
    command: str
    expected: tuple[str, ...]
    files: str = ""  # pattern of files in the run folder
    become: bytes | Callable[[bytes], bytes] | None = None  # None removes them


EVALUATE, COMPARE, RESUME = "evaluate run", "compare run", "train -q --resume run"
PARTIAL = b'{"depths": [], "ensemble": {"top1": 1}}'
OBJECTS = "checkpoints/objects/*"
DAMAGES = [
    Damage("evaluate_part", "evaluate run --part tset", ("received 'tset'", "test, validation, train", "?test")),
    Damage("evaluate_empty_part", "evaluate run --part validation", ("'validation' holds no images",)),
    Damage("train_again", TRAIN + "seed=1", ("run: already exists", "--resume run")),
    Damage("resume_and_spec", RESUME + " s.yaml -s seed=1", ("--resume", "cannot stand beside SPEC")),
    Damage("plot_is_folder", "compare run --plot run", ("run: is a folder; allowed: a PNG file",)),
    Damage("plot_is_here", "compare run --plot .", (".: is a folder; allowed: a PNG file",)),
    Damage("unfinished", COMPARE, ("run: no results.json", "not finished"), "results.json"),
    Damage("nothing_trained", EVALUATE, ("run: nothing is trained yet",), "checkpoints/*.json"),
    Damage("run_json", RESUME, ("run/run.json: damaged",), "run.json", b"{"),
    Damage("run_json_deep", EVALUATE, ("run/run.json: damaged",), "run.json", b"[" * 100_000),
    Damage("spec_yaml", EVALUATE, ("run/spec.yaml:2:1", "not valid YAML"), "spec.yaml", b"name: [s\n"),
    Damage("other_width", EVALUATE, ("block_1", "(3, 3, 1, 2)"), "spec.yaml", lambda old: old.replace(b"conv: 2", b"conv: 3")),
    Damage("more_blocks", RESUME, ("'block_3'",), "spec.yaml", lambda old: old.replace(b"blocks:", b"blocks:\n- {conv: 2}")),
    Damage("results", RESUME, ("run/results.json: damaged",), "results.json", b"{"),
    Damage("results_partial", COMPARE, ("run/results.json: damaged",), "results.json", PARTIAL),
    Damage("results_partial_resumed", RESUME, ("run/results.json: damaged",), "results.json", PARTIAL),
    Damage("metrics_line", COMPARE, ("run/metrics.jsonl:1: damaged",), "metrics.jsonl", b"{\n{}\n"),
    Damage("metrics_not_utf8", COMPARE, ("run/metrics.jsonl", "damaged"), "metrics.jsonl", b"\xff\xfe\n{}\n"),
    Damage("objects_cut", RESUME, ("no whole checkpoint", ".safetensors: damaged"), OBJECTS, lambda old: old[:-7]),
    Damage("objects_flipped", EVALUATE, ("no whole", "checksum"), OBJECTS, lambda old: old[:-1] + bytes([old[-1] ^ 1])),
    Damage("manifests", EVALUATE, ("no whole checkpoint", ".json: damaged"), "checkpoints/*.json", b"garbage"),
]


@pytest.mark.parametrize("case", DAMAGES, ids=lambda case: case.id)
def test_a_damaged_run_folder_ends_in_one_clear_error(case, finished, call):
    run = Path(shutil.copytree(finished, "run"))
    for path in list(run.glob(case.files)) if case.files else []:
        if case.become is None:
            path.unlink()
        else:
            path.write_bytes(case.become(path.read_bytes()) if callable(case.become) else case.become)
    if case.files == "spec.yaml":
        unsealed(run)
    assert_clear(*call(case.command), case.expected)


def test_a_run_folder_in_use_is_left_alone(finished, call):
    shutil.copytree(finished, "run")
    handle = os.open("run", os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert_clear(*call(RESUME), ("run: another process is training",))
    finally:
        os.close(handle)


def test_an_interrupted_write_is_passed_over(finished, call):
    run = Path(shutil.copytree(finished, "run"))
    newest = max(run.glob("checkpoints/*.json"))
    newest.write_bytes(newest.read_bytes()[:99])
    for name in ("checkpoints/000007.json.1.tmp", "checkpoints/objects/ab.safetensors.1.tmp", "results.json.1.tmp"):
        (run / name).write_text("half")
    assert call(EVALUATE)[0] == 0
    code, _, err = call(RESUME)
    assert code == 0 and f"passed over a damaged checkpoint: {newest}" in err
    depths = [json.loads((folder / "results.json").read_text())["depths"] for folder in (run, finished)]
    assert depths[0] == depths[1]


def test_any_block_name_that_is_accepted_keeps_its_weights(call):
    Path("s.yaml").write_text("name: s\nblocks: [{name: optimizer, layers: [{conv: 2}]}, {conv: 2}]\n")
    code, out, err = call(TRAIN + "data.train_examples=8 -s data.test_examples=8")
    if code:
        assert_clear(code, out, err, ("optimizer",))
    else:
        assert call(EVALUATE)[0] == 0
