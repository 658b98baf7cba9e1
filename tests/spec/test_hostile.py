"""Specs, recipes and names of another's making: nothing in them runs, fills the memory or leads out of a folder."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from command_line import assert_clear
from conftest import ROOT

from kerasgreedy.errors import InputError, SpecError, printable
from kerasgreedy.runs.environment import environment
from kerasgreedy.runs.workdir import default_workdir
from kerasgreedy.spec.load import load
from kerasgreedy.spec.model import ModelSpec
from kerasgreedy.spec.overrides import parse_override
from kerasgreedy.spec.source import MAX_BYTES, Source, parse_value

PACKAGE = ROOT / "kerasgreedy"
RUNS = "!!python/object/apply:os.system ['touch MARKER']"


pytestmark = pytest.mark.usefixtures("nothing_ran")


def test_the_payload_is_one(tmp_path):
    yaml.unsafe_load(RUNS)
    assert (tmp_path / "MARKER").exists()
    (tmp_path / "MARKER").unlink()


TAGS = [
    RUNS,
    "!!python/object/new:os.system ['touch MARKER']",
    "!!python/name:os.system ''",
    "!!python/module:antigravity ''",
    "!<tag:yaml.org,2002:python/object/apply:os.system> ['touch MARKER']",
    "!local 1",
    "!!binary aGk=",
    "!!set {a, b}",
    "!!int '1:1:1'",
    "!!int 0xff",
    "!!int ''",
    "!!bool perhaps",
    "!!bool yes",
    "!!float abc",
    "!!seq abc",
    "!!timestamp 2001-99-99",
]
PLACES = {
    "spec": "name: s\nblocks: [{conv: 2}]\ndescription: %s\n",
    "recipe": "name: r\ndata: {dataset: digits}\ntraining: {epochs: 1}\ndescription: %s\n",
    "inside": "name: s\nblocks: [{conv: %s}]\n",
    "key": "name: s\nblocks: [{conv: 2}]\n? %s\n: 1\n",
    "anchor": "name: s\nblocks: [{conv: 2}]\nx: &x %s\ndescription: *x\n",
    "merge": "name: s\nblocks: [{<<: {a: %s}, conv: 2}]\n",
}


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("where", PLACES)
def test_tags_make_nothing(where, tag, call):
    Path("x.yaml").write_text(PLACES[where] % tag)
    code, out, err = call("validate x.yaml")
    assert_clear(code, out, err, ("x.yaml:",))
    assert "received the tag" in err or "a key must be a word" in err


@pytest.mark.parametrize("tag", TAGS)
def test_tags_of_overrides_make_nothing(tag):
    with pytest.raises(SpecError, match="--set seed=.*received the tag"):
        load("simcnn_k3_cifar", None, [f"seed={tag}"])


def test_a_tag_of_a_prefix_of_ones_own_is_seen_through(call):
    Path("x.yaml").write_text("%TAG ! tag:yaml.org,2002:python/\n---\nname: !object/apply:os.system ['touch MARKER']\n")
    assert_clear(*call("validate x.yaml"), ("x.yaml:3:7: name:", "the tag tag:yaml.org,2002:python/object/apply:os.system"))


@pytest.mark.parametrize("text", ["1\nother: 2", "1\n---\nname: x", "&a [*a]", "{" * 400, "\0", "[", "\ud800", "9" * 301])
def test_overrides_hold_one_plain_value_or_are_refused(text):
    try:
        value = parse_value(text)
    except SpecError as error:
        assert str(error).startswith("--set:")
    else:
        assert value in (1, text)  # the whole of it, never its beginning


# As deep as `<<` may follow `<<`, each bringing nine copies of what the one inside it brings: 9^40 pairs.
MERGES = "{k: 1}"
for level in range(40):
    MERGES = f"{{<<: [&a{level} {MERGES}{f', *a{level}' * 8}]}}"
LAUGHS = "a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9}]\n" for i in range(1, 12))
EXPENSIVE = {
    "laughs": (LAUGHS, "100000 values once aliases"),
    "merges": (f"name: s\nblocks: [{MERGES}]\n", "100000 values once aliases"),
    "merge_itself": ("name: s\nblocks: [&a {<<: *a, conv: 2}]\n", "an alias that contains itself"),
    "merge_word": ("name: s\nblocks: [{<<: word, conv: 2}]\n", "'<<' takes a mapping"),
    "many": ("blocks: [" + "0," * 450_000 + "]", "more than 100000 values"),
    "deep": ("a: " + "[" * 300_000, "nested too deeply"),
    "repeats": ("name: s\nblocks: [" + "{layers: [{conv: 1}], repeat: 1000}," * 1500 + "]", "1,500,000 blocks"),
    "large": (b"#" * 100_000_000, "larger than 1,000,000 bytes"),
    "base_60": ("a: !!int '" + "1:" * 400_000 + "1'", "received the tag"),
    "digits": ("name: s\nblocks: [{conv: " + "9" * 4000 + "}]", "a number of 4000 digits"),
    "more_digits": ("name: s\nblocks: [{conv: " + "9" * 900_000 + "}]", "not valid YAML"),
}


@pytest.mark.parametrize("name", EXPENSIVE)
def test_little_text_does_not_cost_much(name, tmp_path):
    text, expected = EXPENSIVE[name]
    (tmp_path / "x.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    limited = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29)); from kerasgreedy.cli.main import main; main()"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", limited, "validate", "x.yaml"],
        capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
    )  # fmt: skip
    assert time.monotonic() - started < 60  # seconds on an idle machine
    assert_clear(done.returncode, done.stdout, done.stderr, ("x.yaml:", expected))


def test_a_device_is_not_read_and_a_file_up_to_the_cap(call, tmp_path):
    assert_clear(*call("validate /dev/zero"), ("/dev/zero", "no ordinary file"))
    (tmp_path / "large.yaml").write_bytes(b" " * (MAX_BYTES + 1))
    assert_clear(*call(f"validate {tmp_path}/large.yaml"), ("large.yaml", f"larger than {MAX_BYTES:,} bytes"))


def test_merging_is_what_it_was():
    source = Source("a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*a, *b], z: 3}\nd: {<<: {<<: *a, x: 5}}\n", "x.yaml")
    assert source.data["c"] == {"x": 1, "y": 1, "z": 3}  # of two, the first wins; a key of its own wins over both
    assert source.data["d"] == {"x": 5, "y": 1}
    assert yaml.safe_load("a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*a, *b], z: 3}\n")["c"] == source.data["c"]


BAD_NAMES = [
    "../x", "..", ".", "/etc/x", "a/b", "a\\b", "", " a", "a ", "a\n", "a\0", "\n", "-rf", ".hidden", "~", "~root", "$HOME",
    "`id`", "a:b", "é", "a\u202eb", "x" * 65, "{conv}", "%s", "a*", "a\x1b[31m",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_are_words(name, call):
    written = json.dumps(name)
    specs = [f"name: {written}\nblocks: [{{conv: 2}}]\n", f"name: s\nblocks: [{{name: {written}, layers: [{{conv: 2}}]}}]\n"]
    recipe = f"name: {written}\ndata: {{dataset: digits}}\ntraining: {{epochs: 1}}\n"
    for text in (*specs, recipe):
        Path("x.yaml").write_text(text)
        code, out, err = call("validate x.yaml")
        assert_clear(code, out, err, ("x.yaml:", "name: received", "allowed: text of the form"))
        assert err.count("\n") == 1 and "\x1b" not in err
    for key in ("spec.name", "recipe.name"):
        with pytest.raises(InputError, match=f"--set {key}="):
            load("simcnn_k3_cifar", None, [f"{key}={written}"])
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", ["CON", "nul.txt", "a..b", "a.", "x" * 64, "0"])
def test_odd_words_stay_below_their_folder(name):
    spec, recipe = load("simcnn_k3_cifar", None, [f"spec.name={json.dumps(name)}", f"recipe.name={json.dumps(name)}"])
    path = default_workdir(spec.value.name, recipe.value.name)
    assert path.parent == Path("runs") and Path(os.path.normpath(path)) == path
    assert len(path.name) < 200  # of 255 that a file's name may have


def test_a_schema_with_names_holds_no_end_of_line():
    pattern = ModelSpec.model_json_schema()["properties"]["name"]["pattern"]
    assert pattern == "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
    assert re.match(pattern, "a\n")  # so of Python's `re`; that of pydantic ends at the end, see above


@pytest.mark.parametrize(
    "dataset",
    ["tfds:../../x", "tfds:mnist/..", "tfds:mnist/.", "tfds:mnist/../../x", "tfds:/etc", "tfds:mnist\n", "tfds:a:b", "tfds:m*",
     "tfds:huggingface:mnist", "tfds:mnist/a/b", "tfds:mnist\0", "../digits", "digits\n", "digits/..", "folder:\0", "npz:\0",
     "npz:/dev/zero", "folder:/dev/zero", "tfds:"],
)  # fmt: skip
def test_names_of_data_do_not_lead_anywhere(dataset, call, tmp_path):
    for name in ("../x", "x", "t/x", "t/mnist", "t/mnist/a/b"):  # what the name would lead to
        (tmp_path / name / "1.0.0").mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "1.0.0/dataset_info.json").write_text("{}")
    Path("r.yaml").write_text(json.dumps({"name": "r", "data": {"dataset": dataset, "data_dir": "t"}, "training": {"epochs": 1}}))
    code, out, err = call("plan s.yaml -r r.yaml")
    assert_clear(code, out, err, ("r.yaml:1:", "data.dataset"))
    assert "dataset_info" not in err and "image classification set" not in err


@pytest.mark.parametrize("key", ["data_dir", "start_from"])
def test_a_path_that_is_none_is_an_error(key, call):
    data = {"dataset": "mnist", **({"data_dir": "a\0b"} if key == "data_dir" else {})}
    recipe = {"name": "r", "data": data, "training": {"epochs": 1}, **({"start_from": "a\0b"} if key == "start_from" else {})}
    Path("r.yaml").write_text(json.dumps(recipe))
    assert_clear(*call("plan s.yaml -r r.yaml"), ("not a usable path",))


HUGE = "9" * 299
NUMBERS = [
    "blocks.0.padding", "blocks.0.conv", "blocks.0.stride", "blocks.0.kernel_size", "blocks.0.groups", "classes",
    "nominal.classes", "auxiliary_head.hidden_layers", "auxiliary_head.width", "auxiliary_head.pool_to",
    "block_defaults.batch_norm_epsilon",
    "training.epochs", "training.batch_size", "training.optimizer.learning_rate", "data.image_size", "data.validation",
    "data.train_examples", "data.augment.pad_crop", "seed", "checkpoint_minutes", "cache.memory_gb", "training.label_smoothing",
]  # fmt: skip


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("value", [HUGE, f"-{HUGE}", "1e308", "1e-320", ".nan", "-.inf", "{}", "[[[]]]", "''", "null"])
def test_numbers_without_bounds_are_used_or_refused(key, value, call):
    code, out, err = call(f'plan s.yaml -r r.yaml -s "{key}={value}"')
    if code:
        assert_clear(code, out, err, ())


@pytest.mark.parametrize("key", ["training.optimizer.name", "training.schedule.name", "training.solver.name"])
@pytest.mark.parametrize("value", ["{}", "[x]", "1", "true", "../x"])
def test_names_of_choices_are_words(key, value, call):
    assert_clear(*call(f"plan s.yaml -r r.yaml -s {key}={value}"), (f"--set {key}={value}",))


def test_keys_of_overrides_are_keys_only():
    assert parse_override("blocks.0.__class__=1").keys == ("blocks", "0", "__class__")
    with pytest.raises(SpecError, match="__class__: unknown key"):
        load("simcnn_k3_cifar", None, ["blocks.0.__class__=1"])


def test_control_characters_are_spelled_out():
    assert printable("a\x1b[2J\r\nb\t\x00\udc80é") == "a\\x1b[2J\\r\nb\\t\\x00\\udc80é"


def test_no_code_of_the_package_can_run_what_it_reads():
    """Whoever adds one of these has to look at what it reads first."""
    found: dict[str, list[str]] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        for line in file.read_text().splitlines():
            for found_call in re.findall(
                r"\bnp\.load\(.*|\bload_model\b|\bpickle\.|\bmarshal\.|\beval\(|\bexec\(|\byaml\.(?:unsafe_|full_)?load\b|\bextractall\b|"
                r"\bimport_module\(.*|\b__import__\(|\bos\.system\b|\bsubprocess\.(?:run|Popen|call)\b|\bsaved_model\.load\b|\bshell=",
                line,
            ):
                found.setdefault(str(file.relative_to(PACKAGE)), []).append(found_call)
    assert found == {
        "__init__.py": ["import_module(_HOMES[name]), name)"],
        "analysis/analysis.py": ["np.load(file, allow_pickle=False) as archive:"],
        "cli/workers.py": ["subprocess.Popen"] * 4,  # this very command
        "export/checking.py": ["import_module(name)"],  # packages that the code itself names
        "data/npz.py": ["np.load(file, allow_pickle=False) as archive:"],
        "export/formats.py": ["load_model"],  # of the file just written, safe mode on
        "export/portable.py": ["load_model"],  # in a sentence
        "spec/doors.py": ["import_module(module), attribute)"],  # what was added to a door, and what does an action
        "spec/plugins.py": ["import_module(named)"],  # --plugin
        "export/predicting.py": ["saved_model.load"],  # a program, as docs/export.md says
        "export/verify.py": ["saved_model.load"],  # of the folder just written
        "runs/environment.py": ["subprocess.run"],
        "runs/start_sources.py": ["saved_model.load", "load_model"],  # safe mode on; a program, as docs/transfer.md says
    }


def test_the_checkout_that_a_run_starts_in_runs_nothing(tmp_path):
    """`git status` would ask the file monitor that a checkout's own settings name, and run its hooks."""

    def git(*arguments: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True, capture_output=True)

    git("init")
    Path("file").write_text("1")
    git("add", "file")
    git("commit", "-m", "first")
    marker = tmp_path / "MARKER"
    git("config", "core.fsmonitor", f"touch {marker}; false")
    hook = Path(".git/hooks/post-index-change")
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {marker}\n")
    hook.chmod(0o755)
    os.utime("file", (0, 0))
    assert environment()["git"]["clean"] is True
    Path("file").write_text("2")
    assert environment()["git"]["clean"] is False
    assert not marker.exists()
    git("status")
    assert marker.exists()  # so it would have
    marker.unlink()
    for name in ("core.fsmonitor", "core.hooksPath"):
        git("config", name, "")
    git("config", "filter.x.clean", f"touch {marker}; cat")
    Path(".gitattributes").write_text("* filter=x")
    os.utime("file", (1, 1))
    state = environment()["git"]
    assert state["clean"] is None and len(state["commit"]) == 40
    assert not marker.exists()
    git("status")
    assert marker.exists()
    marker.unlink()
