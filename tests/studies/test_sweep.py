"""A sweep: what it goes through, its runs, its figures by hand, and the same after it was stopped."""

import itertools
import json
import os
import shutil
import signal

import pytest
from conftest import stop_at

from kerasgreedy.errors import InputError, KerasgreedyError, Stopped, WorkdirError
from kerasgreedy.reports.run_files import read_run
from kerasgreedy.reports.sweep_plot import draw_sweep
from kerasgreedy.runs.holding import held
from kerasgreedy.studies import study_folder, sweep_table
from kerasgreedy.studies.study_folder import StudyFolder
from kerasgreedy.studies.sweep import sweep
from kerasgreedy.studies.sweep_range import Sweep, over_of, run_folder, short_names
from kerasgreedy.train.entry_points import resume_run, train_spec
from kerasgreedy.train.signals import StopRequest

SPEC = "name: s\nblocks: [{conv: 3, kernel_size: 3}]\nfinal_head: {layers: [{global_avg_pool: true}]}\n"
RECIPE = """
name: r
data: {dataset: digits, train_examples: 96, test_examples: 40, validation: 32}
strategy: end_to_end
training: {epochs: 1, batch_size: 32, optimizer: {name: sgd, learning_rate: 0.1}}
"""
RATE = "training.optimizer.learning_rate"


@pytest.fixture
def study(tmp_path):
    (tmp_path / "s.yaml").write_text(SPEC)
    (tmp_path / "r.yaml").write_text(RECIPE)

    def make(over, seeds=(0,), overrides=()):
        return Sweep(str(tmp_path / "s.yaml"), str(tmp_path / "r.yaml"), over, seeds, overrides)

    return make


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a.rate=1e-3,0.1", (1e-3, 0.1)),
        ("a.rate=1e-4:1e-1:log4", (1e-4, 1e-3, 1e-2, 1e-1)),
        ("a.rate=1.23456:2.34567:log2", (1.23456, 2.34567)),
        ("a.batch=8:32:log3", (8, 16, 32)),
        ("a.rate=1e-300:1e300:log3", (1e-300, 1, 1e300)),
        ("a=1.0,-0.0,0.5", (1, 0, 0.5)),
        ("a=\U0001f600", ("\U0001f600",)),
        ("a=[32, 32],[64, 64]", ([32, 32], [64, 64])),
        ("a={name: sgd, learning_rate: 1},null,adam", ({"name": "sgd", "learning_rate": 1}, None, "adam")),
        ("a=folder:x,b", ("folder:x", "b")),
        ("a = true , 2", (True, 2)),
    ],
)
def test_values(text, values):
    ((_, found),) = over_of([text]).items()
    assert found == pytest.approx(values) if "log" in text else found == values


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a"], "--over a: allowed: key.key=value,value"),
        (["a="], "allowed: key.key=value,value"),
        (["a=1,1"], "1 stands there twice"),
        (["a=1,1.0"], "1 stands there twice"),
        (["a=1:1.0001:log3"], "they differ in the first four digits"),
        (['a="\\ud83d"'], "half of a pair"),
        (["a=1", "a=2"], "'a' stands there twice"),
        (["a=1:2:log1"], "0 < first < last and N from 2"),
        (["a=2:1:log3"], "0 < first < last"),
        (["a=[1"], "--over a=[1"),
        (["a=.inf"], "not a finite number"),
        ([], "nothing to sweep"),
    ],
)
def test_bad_ranges(texts, message):
    with pytest.raises(InputError) as error:
        over_of(texts)
    assert message in str(error.value)


def test_every_combination_has_a_folder_of_its_own():
    values = (1, "1", True, "true", None, "null", [1], [1, 2], "a/b", "a_b", "a b", 0.1, 1e-7, -1, "x" * 99, "x" * 98)
    study = Sweep("s", "r", {"training.a": values, "blocks.0.conv": values, "blocks.1.conv": (3,)})
    assert study.keys == ("recipe.training.a", "spec.blocks.0.conv", "spec.blocks.1.conv")
    assert list(short_names(study.keys).values()) == ["a", "spec.blocks.0.conv", "spec.blocks.1.conv"]
    points = study.points
    assert points == tuple(itertools.product(values, values, (3,))) and points[1][:2] == (1, "1")
    folders = {run_folder(study.keys, point, seed) for point in points for seed in (0, 1)}
    assert len(folders) == 2 * len(values) ** 2
    two = ("recipe.a", "recipe.b")
    assert run_folder(two, ("x_b_y", "z"), 0) != run_folder(two, ("x", "y_b_z"), 0)
    assert all(len(name) < 100 and name.replace(".", "").replace("_", "").replace("-", "").isalnum() for name in folders)
    assert run_folder([RATE], (0.1,), 2) == "learning_rate_0.1_seed_2"
    assert run_folder(["data.dataset"], ("mnist_basic",), 0) == "dataset_mnist_basic_seed_0"


@pytest.mark.parametrize(
    ("over", "overrides", "message"),
    [
        ({"training.epochs": (1,), "recipe.training.epochs": (2,)}, (), "holds 'recipe.training.epochs', which is swept too"),
        ({"training.optimizer": ("sgd",), RATE: (1,)}, (), f"holds '{RATE}', which is swept too"),
        ({"recipe . seed": (1,)}, (), "write --seeds"),
        ({"seed": (1,)}, (), "write --seeds"),
        ({"blocks.-1.conv": (1,)}, (), "counted from its start"),
        ({"trainin.epochs": (1,)}, (), "--over trainin.epochs: unknown key 'trainin'"),
        ({RATE: (1,)}, (f"recipe.{RATE}=2",), f"--over {RATE} takes its place"),
        ({"training.optimizer": ("sgd",)}, (f"{RATE}=2",), "--over training.optimizer takes its place"),
        ({RATE: (1,)}, ("seed=7",), "are those of --seeds"),
        ({RATE: tuple(range(101)), "training.epochs": tuple(range(100))}, (), "more than 10,000"),
    ],
)
def test_no_setting_is_said_twice(over, overrides, message):
    with pytest.raises(InputError) as error:
        Sweep("s", "r", over, overrides=overrides)
    assert message in str(error.value)
    Sweep(
        "s", "r", {RATE: (1,)}, overrides=("training.optimizer={name: sgd, learning_rate: 3}",)
    )  # the swept one is laid upon it


def test_figures_are_those_of_its_runs_and_one_that_diverges_is_left_out(study, tmp_path):
    told: list[str] = []
    asked = study({RATE: (0.1, 1e30)})
    table = sweep(asked, tmp_path / "F", told.append, quiet=True)
    alone = train_spec(asked.spec, asked.recipe, [f"{RATE}=0.1"], tmp_path / "alone", quiet=True)
    (run,) = table["runs"]
    assert run["top1"] == alone.results["depths"][-1]["top1"] and run["loss"] == alone.results["depths"][-1]["loss"]
    assert run["validation_top1"] == alone.results["phases"][-1]["validation"]["top1"]
    (last,) = [record for record in read_run(tmp_path / "alone").metrics if record["split"] == "train"]
    assert (run["train_accuracy"], run["train_loss"]) == (last["accuracy"], last["loss"])
    assert [(point["values"], point["seeds"], point["diverged"]) for point in table["points"]] == [
        ({"learning_rate": 0.1}, [0], []),
        ({"learning_rate": 1e30}, [], [0]),
    ]
    assert table["best"] == 0 and table["points"][1]["parameters"] is None
    assert told[1] == "learning_rate_1e+30_seed_0" and "diverged, and is left out" in told[2]
    assert json.loads((tmp_path / "F/sweep.json").read_text()) == table and (tmp_path / "F/sweep.png").is_file()

    assert sweep(asked, tmp_path / "F", told.append, quiet=True) == table
    assert told[3:] == ["learning_rate_1e+30_seed_0 diverged before, and is left out; without its folder it is tried again"]
    resume_run(tmp_path / "F/learning_rate_1e+30_seed_0", overrides=[f"{RATE}=0.05"], quiet=True)  # it ends well: as another run
    for some in ((0.1, 1e30), (0.1,)):  # asked for now, or before
        with pytest.raises(WorkdirError, match=r"optimizer.learning_rate 0.05, and this study asks for 1e\+30 \(changed by hand"):
            sweep(study({RATE: some}), tmp_path / "F", quiet=True)


@pytest.mark.slow
def test_more_values_and_seeds_and_the_same_after_stops(study, tmp_path, monkeypatch):
    over = {RATE: (0.1, 0.02), "blocks.0.conv": (2, 3)}
    whole = sweep(study(over, (0, 1)), tmp_path / "whole", quiet=True)
    assert len(whole["runs"]) == 8 and [point["parameters"][0] for point in whole["points"][:2]] == [50, 70]
    for at in (2, 5, 4):
        stop_at(monkeypatch, at)
        with pytest.raises(Stopped):
            sweep(study(over, (0, 1)), tmp_path / "F", quiet=True)
        monkeypatch.undo()
    sweep(study({RATE: (0.1,), "blocks.0.conv": (3,)}, (1,)), tmp_path / "F", quiet=True)  # some of what is there
    again = sweep(study({RATE: (0.1, 0.02), "blocks.0.conv": (3, 2)}, (1, 0)), tmp_path / "F", quiet=True)

    def bare(table):
        times = ("training_seconds", "peak_memory_bytes")
        runs = [{key: value for key, value in run.items() if key not in times} for run in table["runs"]]
        return sorted(runs, key=lambda run: run["run"])

    assert bare(again) == bare(whole)
    by_hand = [run["top1"] for run in whole["runs"] if run["values"] == {"learning_rate": 0.02, "conv": 3}]
    (point,) = [point for point in whole["points"] if point["values"] == {"learning_rate": 0.02, "conv": 3}]
    assert point["top1"] == [pytest.approx(sum(by_hand) / 2), min(by_hand), max(by_hand)] and point["seeds"] == [0, 1]


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        ([(1, {0: 0.8, 1: 0.8}, []), (2, {0: 0.9, 1: 0.9}, []), (3, {0: 0.99, 1: 0.99}, [2])], 1),  # the last one diverged once
        ([(1, {0: 0.8, 1: 0.95}, []), (2, {0: 0.9, 1: 0.1}, []), (3, {0: 0.85}, [])], 1),  # by the seed that all have
        ([(1, {0: 0.9}, []), (2, {1: 0.8}, [])], None),
        ([(True, {0: 0.9}, []), (1, {0: 0.8}, [])], 0),
        ([(1, {0: 0.9}, []), (2, {0: 0.9}, [])], 1),  # the loss falls along these rows
        ([(1, {0: None}, []), (2, {0: None}, [])], None),  # no validation data
        ([(1, {}, [0])], None),
        ([], None),
    ],
)
def test_the_best_is_chosen_by_validation(rows, best):
    points = [{"values": {"a": value}, "seeds": list(own), "diverged": lost} for value, own, lost in rows]
    runs = [
        {"values": {"a": value}, "seed": seed, "validation_top1": top1, "validation_loss": 5 - index}
        for index, (value, own, _) in enumerate(rows)
        for seed, top1 in own.items()
    ]
    assert sweep_table._best(points, runs) == best


def test_different_images_have_no_best(study, tmp_path):
    runs = StudyFolder(tmp_path, print)
    for key, best in (("data.dataset", None), ("data.validation", None), (RATE, 0)):
        folder = tmp_path / run_folder((f"recipe.{key}",), ("a",), 0)
        shutil.copytree(finished(study, tmp_path), folder)
        assert sweep_table.write_table(study({key: ("a",)}), runs)["best"] == best


def finished(study, tmp_path):
    """A run that has ended."""
    if not (tmp_path / "one").exists():
        train_spec(study({}).spec, study({}).recipe, (), tmp_path / "one", quiet=True)
    return tmp_path / "one"


def test_the_same_run_in_other_words_is_refused(study, tmp_path):
    asked = study(
        {"training.optimizer": ("sgd", {"name": "sgd"}), "training.epochs": (1,)}, overrides=("training.batch_size=16",)
    )
    with pytest.raises(InputError, match='sgd, 1 and {"name": "sgd"}, 1 are the same run'):
        sweep(asked, tmp_path / "F", quiet=True)


def test_a_signal_between_runs_and_a_second_process(study, tmp_path, monkeypatch):
    begun: list[str] = []

    def train(*_, **__):
        begun.append("run")
        with StopRequest():  # that of the run, which is past its last look
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(study_folder, "train_spec", train)
    with pytest.raises(Stopped, match="stopped by SIGTERM between two runs; the same command goes on"):
        sweep(study({RATE: (0.1, 0.2)}), tmp_path / "F", quiet=True)
    assert begun == ["run"]
    with held(tmp_path / "F"), pytest.raises(WorkdirError, match="another process runs the study in this folder"):
        sweep(study({RATE: (0.1, 0.2)}), tmp_path / "F", quiet=True)
    written = json.loads((tmp_path / "F/study.json").read_text())
    for damage in ({"values": []}, {"values": "x"}, {"seeds": ["a"]}, {"seeds": []}, {"values": [3]}):
        (tmp_path / "F/study.json").write_text(json.dumps(written | damage))
        with pytest.raises(WorkdirError, match="damaged"):
            sweep(study({RATE: (0.1, 0.2)}), tmp_path / "F", quiet=True)


def test_a_run_whose_folder_was_taken_away_has_not_diverged(tmp_path):
    runs = StudyFolder(tmp_path, print)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text("{}")
    (tmp_path / "diverged.json").write_text('{"run": "nan"}')
    assert runs.diverged == {"run": "nan"}
    shutil.rmtree(tmp_path / "run")

    def begin(place):
        place.mkdir()
        (place / "run.json").write_text("{}")
        raise Stopped("stopped; to go on: kerasgreedy train --resume run")

    with pytest.raises(Stopped, match="run: stopped; the same command goes on"):
        runs.run("run", begin)
    assert runs.diverged == {}
    (tmp_path / "diverged.json").write_text('{"run": "nan"}')
    (tmp_path / "run/results.json").write_text("{}")
    assert runs.diverged == {}


@pytest.mark.parametrize(
    ("values", "scale", "places"),
    [
        ((1, 10, 100), "log", [1, 10, 100]),
        ((0, 1, 100), "symlog", [0, 1, 100]),
        ((1, 2), "linear", [1, 2]),
        (("relu", "square"), "linear", [0, 1]),
    ],
)
def test_the_picture_holds_the_figures(values, scale, places):
    runs, entries = [], []
    for value, seed in itertools.product(values, (0, 1)):
        runs.append({"values": {"a": value}, "seed": seed, "top1": 0.5 + 0.1 * seed, "loss": 2.0})
    for value in values:
        means = {"top1": [0.55, 0.5, 0.6], "loss": [2.0] * 3, "validation_top1": [0.7] * 3, "validation_loss": [1.0] * 3}
        entries.append({"values": {"a": value}, "seeds": [0, 1], **means, "train_accuracy": None, "train_loss": None})
    figure = draw_sweep({"spec": "s", "keys": {"x.a": "a"}, "points": entries, "runs": runs, "best": 0})
    left, right = figure.axes
    assert left.get_xscale() == scale
    _, looked, tested, *dots, best = left.lines
    assert list(looked.get_ydata()) == pytest.approx([70] * len(values)) and list(tested.get_xdata()) == places
    assert [list(dot.get_ydata()) for dot in dots] == [pytest.approx([50, 60])] * len(values)
    assert best.get_xdata()[0] == places[0] and list(right.lines[2].get_ydata()) == [2.0] * len(values)


def test_bad_input_before_the_first_run(study, tmp_path):
    for over, message in (
        ({"training.optimizer.learning_rte": (0.1,)}, "learning_rate"),
        ({"start_from": ("nowhere",)}, "no run folder"),
        ({RATE: (0.1, -1)}, f"--over {RATE}=-1"),
        ({"blocks.0.kernel_size": (3, 99), "blocks.0.padding": ("valid",)}, "kernel"),
    ):
        with pytest.raises(KerasgreedyError) as error:
            sweep(study(over), tmp_path / "F", quiet=True)
        assert message in str(error.value) and not (tmp_path / "F").exists()
    with pytest.raises(InputError, match=r"^--set training.batch_size=0: "):
        sweep(study({RATE: (0.1, 0.2)}, overrides=("training.batch_size=0",)), tmp_path / "F")


def test_folders_of_others(study, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("mine")
    own = study({RATE: (0.1,)})

    def asked(**other):
        return {"kind": "sweep", "spec": own.spec, "recipe": own.recipe, "overrides": [], "keys": [RATE], **other}

    job, longer = (study_folder.job_of(own.spec, own.recipe, sets) for sets in ([], ["training.epochs=2"]))
    with pytest.raises(WorkdirError, match="holds no study"):
        StudyFolder(tmp_path / "other", print).claim(asked(), (), job)
    runs = StudyFolder(tmp_path / "F", print)
    first = asked()
    with runs.opened():
        (tmp_path / "F/.kerasgreedy-00ff.tmp").write_text("of a write that was killed")
        assert runs.claim(first, ("keys",), job) == {}
        runs.note(first)
    assert runs.claim(asked(spec="by another way"), ("keys",), job) == first
    for other, of, message in (
        (asked(kind="frontier"), job, "other kind sweep, received frontier"),
        (asked(keys=["a"]), job, f"other keys \\['{RATE}'\\]"),
        (asked(), longer, "other contents of spec and recipe"),
    ):
        with pytest.raises(WorkdirError, match=message):
            runs.claim(other, ("keys",), of)
    (tmp_path / "file").write_text("x")
    with pytest.raises(KerasgreedyError, match="file"), StudyFolder(tmp_path / "file", print).opened():
        pass
