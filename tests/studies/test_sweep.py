"""A sweep: what it goes through, its runs, its figures by hand, and the same after it was stopped."""

import itertools
import json

import pytest
from conftest import stop_at

from kerasgreedy.errors import InputError, KerasgreedyError, Stopped, WorkdirError
from kerasgreedy.reports.run_files import read_run
from kerasgreedy.reports.sweep_plot import draw_sweep
from kerasgreedy.studies import sweep_table
from kerasgreedy.studies.study_folder import StudyFolder
from kerasgreedy.studies.sweep import sweep
from kerasgreedy.studies.sweep_range import Sweep, over_of, run_folder, short_names
from kerasgreedy.train.entry_points import resume_run, train_spec

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
        (["a=1", "a=2"], "'a' stands there twice"),
        (["a=1:2:log1"], "0 < first < last and N from 2"),
        (["a=2:1:log3"], "0 < first < last"),
        (["a=[1"], "--over a=[1"),
        (["a=.inf"], "not a finite number"),
        (["seed=1,2"], "write --seeds 1,2"),
        ([], "nothing to sweep"),
    ],
)
def test_bad_ranges(texts, message):
    with pytest.raises(InputError) as error:
        over_of(texts)
    assert message in str(error.value)


def test_every_combination_has_a_folder_of_its_own():
    values = (1, 1.0, "1", True, "true", None, "null", [1], [1, 2], "a/b", "a_b", "a b", 0.1, 1e-7, -1, "x" * 99, "x" * 98)
    over = {"training.a": values, "blocks.0.conv": values, "blocks.1.conv": (3,)}
    assert short_names(list(over)) == {"training.a": "a", "blocks.0.conv": "blocks.0.conv", "blocks.1.conv": "blocks.1.conv"}
    points = Sweep("s", "r", over).points
    assert points == tuple(itertools.product(values, values, (3,))) and points[1][:2] == (1, 1.0)
    folders = {run_folder(list(over), point, seed) for point in points for seed in (0, 1)}
    assert len(folders) == 2 * len(values) ** 2
    assert all(len(name) < 100 and name.replace(".", "").replace("_", "").replace("-", "").isalnum() for name in folders)
    assert run_folder([RATE], (0.1,), 2) == "learning_rate_0.1_seed_2"


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
    assert table["best"] == 0 and "parameters" not in table["points"][1]
    assert told[1] == "learning_rate_1e+30_seed_0" and "diverged, and is left out" in told[2]
    assert json.loads((tmp_path / "F/sweep.json").read_text()) == table and (tmp_path / "F/sweep.png").is_file()

    assert sweep(asked, tmp_path / "F", told.append, quiet=True) == table
    assert told[3:] == ["learning_rate_1e+30_seed_0 diverged before, and is left out; without its folder it is tried again"]
    resume_run(tmp_path / "F/learning_rate_1e+30_seed_0", overrides=[f"{RATE}=0.05"], quiet=True)  # it ends well: as another run
    with pytest.raises(WorkdirError, match=r"optimizer.learning_rate 0.05, and this study asks for 1e\+30 \(changed by hand"):
        sweep(asked, tmp_path / "F", quiet=True)


@pytest.mark.slow
def test_more_values_and_seeds_and_the_same_after_stops(study, tmp_path, monkeypatch):
    over = {RATE: (0.1, 0.02), "blocks.0.conv": (2, 3)}
    whole = sweep(study(over, (0, 1)), tmp_path / "whole", quiet=True)
    assert len(whole["runs"]) == 8 and [point["parameters"] for point in whole["points"][:2]] == [2 * 10 + 30, 3 * 10 + 40]
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


def points(*rows):
    return [
        {"values": {"radius": value}, "seeds": seeds, "diverged": lost, "validation_top1": mean and [mean, mean, mean]}
        for value, seeds, lost, mean in rows
    ]


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        ([(1, [0, 1], [], 0.8), (2, [0, 1], [], 0.9), (3, [0], [], 0.99), (4, [0, 1], [2], 0.95)], 1),
        ([(1, [0], [], None), (2, [0], [], None)], None),  # no validation data
        ([(1, [], [0], None)], None),
        ([], None),
    ],
)
def test_the_best_is_chosen_by_validation_among_those_with_all_seeds(rows, best):
    assert sweep_table._best(points(*rows)) == best


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
        ({RATE: (0.1, -1)}, f"--set {RATE}=-1"),
        ({"blocks.0.kernel_size": (3, 99), "blocks.0.padding": ("valid",)}, "kernel"),
    ):
        with pytest.raises(KerasgreedyError) as error:
            sweep(study(over), tmp_path / "F", quiet=True)
        assert message in str(error.value) and not (tmp_path / "F").exists()


def test_folders_of_others(study, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("mine")
    own = study({RATE: (0.1,)})

    def asked(**other):
        return {"kind": "sweep", "spec": own.spec, "recipe": own.recipe, "overrides": [], "keys": [RATE], **other}

    with pytest.raises(WorkdirError, match="holds no study"):
        StudyFolder(tmp_path / "other", print).claim(asked(), ())
    runs = StudyFolder(tmp_path / "F", print)
    first = asked()
    assert runs.claim(first, ("keys",)) == {}
    runs.note(first)
    assert runs.claim(asked(), ("keys",)) == first
    for other, message in (
        (asked(kind="frontier"), "other kind sweep, received frontier"),
        (asked(keys=["a"]), f"other keys \\['{RATE}'\\]"),
        (asked(overrides=["training.epochs=2"]), "other contents of spec and recipe"),
    ):
        with pytest.raises(WorkdirError, match=message):
            runs.claim(other, ("keys",))
