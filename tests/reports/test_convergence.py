"""Convergence: curves of runs, iterations to a reference's loss, groups of seeds, the figure. Runs are written by hand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run_cli
from conftest import ROOT

from kerasgreedy.errors import InputError
from kerasgreedy.reports import plots
from kerasgreedy.reports.convergence import comparison, read_groups
from kerasgreedy.reports.convergence_plot import _draw
from kerasgreedy.reports.training_curves import Series, iterations_to, mean_series, read_course, refreshes, series, value_at

STEPS = 10
SGD, FASTER = (2.0, 1.0, 0.8, 0.5), (1.5, 0.7, 0.3, 0.2)


def record(split, epoch, loss=None, accuracy=0.5, phase=0, name="all", head="head_2", step=None, **more):
    place = {"phase": phase, "phase_name": name, "epoch": epoch, "split": split}
    scores = {} if split == "refresh" else {"head": head, "loss": loss, "accuracy": accuracy}
    return {**place, **scores, "step": STEPS * epoch if step is None else step, "time": 0.0, **more}


def write_run(path, records, seed=0, finished=True, images=64, recipe="training: {epochs: 4}", spec="blocks: [{conv: 4}]"):
    path.mkdir(parents=True)
    (path / "spec.yaml").write_text(f"name: {path.name}\n{spec}\n")
    (path / "recipe.yaml").write_text(f"name: {path.name}\n{recipe}\nseed: {seed}\n")
    (path / "run.json").write_text(json.dumps({"seed": seed, "data": {"dataset": "digits", "train_images": images}}))
    (path / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    if finished:
        (path / "results.json").write_text("{}")
    return path


def write_simple(path, losses, seed=0, **more):
    """A run of one phase with a record of training and one of validation for each epoch; its last error is 0.25."""
    pairs = [(record("train", e, loss), record("validation", e, loss, 0.75)) for e, loss in enumerate(losses, start=1)]
    return write_run(path, [each for pair in pairs for each in pair], seed, **more)


def masked_records():
    """An epoch of plain SGD, then three under masks that are estimated before the second and the fourth."""
    exact, own = (1.2, 0.9, 0.7, 0.6), (1.3, 0.5, 0.4, 0.8)
    records = [record("train_exact", 0, 2.0, 0.1)]
    for epoch in range(1, 5):
        masks = {"masks": True} if epoch > 1 else {}
        records += [record("train", epoch, own[epoch - 1], **masks), record("train_exact", epoch, exact[epoch - 1], 0.8)]
        records += [record("validation", epoch, 1.0, 0.5 + epoch / 10)]
        records += [record("refresh", epoch)] if epoch in (1, 3) else []
    return records


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: run_cli(monkeypatch, capsys, "convergence", *arguments)


def curve(iterations, losses, phases=None):
    count = len(iterations)
    return Series(tuple(iterations), tuple(losses), (0.5,) * count, tuple(phases or [0] * count), (False,) * count)


def test_iterations_are_interpolated_between_records():
    falling = curve([0, 10, 20], [2.0, 1.0, 0.6])
    assert iterations_to(falling, 1.0) == 10.0
    assert iterations_to(falling, 1.5) == pytest.approx(5.0)
    assert iterations_to(falling, 0.7) == pytest.approx(10 + 10 * 0.3 / 0.4)
    assert iterations_to(falling, 0.59) is None
    assert iterations_to(falling, 3.0) == 0.0
    jumping = curve([10, 20, 30], [1.0, 3.0, 0.5])
    assert iterations_to(jumping, 1.0) == 10.0
    assert iterations_to(jumping, 0.75) == pytest.approx(20 + 10 * 2.25 / 2.5)


def test_nothing_is_interpolated_from_one_phase_to_the_next():
    assert iterations_to(curve([10, 20, 30], [3.0, 2.0, 1.0], [0, 0, 1]), 1.5) == 30.0


def test_values_between_records_and_means_where_all_have_a_point():
    one, two = curve([0, 10, 20], [2.0, 1.0, 0.0]), curve([10, 20, 30], [3.0, 5.0, 7.0])
    assert [value_at(one, "losses", at) for at in (0, 5, 20, 21)] == [2.0, 1.5, 0.0, None]
    assert value_at(two, "losses", 9) is None
    mean = mean_series([one, two])
    assert (mean.iterations, mean.losses) == ((10, 20), (2.0, 2.5))
    assert len(mean_series([one, curve([5], [1.0])])) == 0


def test_a_curve_follows_the_deepest_head_of_each_phase_or_one_phase(tmp_path):
    heads = [record("train", e, loss, head=head) for e in (1, 2) for head, loss in (("head_9", 3.0 - e), ("head_10", 2.0 - e))]
    later = [record("train", e, 0.5, 0.9, 1, "block_2", "head_2", 20 + 5 * e) for e in (1, 2)]
    start = record("train_exact", 0, 0.7, 0.9, 1, "block_2", "head_2", 20)
    course = read_course(
        write_run(tmp_path / "run", [*heads, start, *later, record("refresh", 1, phase=1, name="block_2", step=25)])
    )
    both = series(course, "train")
    assert both.iterations == (10, 20, 25, 30) and both.losses == (1.0, 0.0, 0.5, 0.5) and both.phases == (0, 0, 1, 1)
    assert both.errors == pytest.approx((0.5, 0.5, 0.1, 0.1))
    assert series(course, "train", head="head_9").losses == (2.0, 1.0)
    assert series(course, "train", phase="block_2").iterations == (5, 10)
    assert series(course, "train_exact", phase="block_2").iterations == (0,)
    assert refreshes(course) == [25] and refreshes(course, "block_2") == [5]


def test_comparison_of_two_runs_by_hand(tmp_path):
    groups = read_groups([str(write_simple(tmp_path / "sgd", SGD)), f"alternation={write_simple(tmp_path / 'b', FASTER)}"])
    result = comparison(groups)
    assert {key: result[key] for key in ("reference", "split", "head", "phase", "notes")} == {
        "reference": "sgd", "split": "train", "head": None, "phase": None, "notes": [],
    }  # fmt: skip
    one, two = result["groups"]
    assert one["runs"][0] == {
        "workdir": str(tmp_path / "sgd"), "seed": 0, "finished": True, "reference": str(tmp_path / "sgd"), "target_loss": 0.5,
        "iterations_to_target": 40.0, "ratio": 1.0, "fewer": 0.0, "iterations": 40, "final_loss": 0.5, "final_error": 0.25,
        "refreshes": [],
    }  # fmt: skip
    # 0.7 after 20 and 0.3 after 30 iterations: 0.5 lies in the middle
    assert two["label"] == "alternation" and two["reached"] == 1
    run = two["runs"][0]
    assert (run["iterations_to_target"], run["ratio"], run["fewer"]) == pytest.approx((25.0, 0.625, 0.375))
    assert run["final_loss"] == 0.2 and run["target_loss"] == 0.5 and run["reference"] == str(tmp_path / "sgd")
    assert two["ratio"] == pytest.approx({"mean": 0.625, "low": 0.625, "high": 0.625})
    back = comparison(groups, "alternation")["groups"][0]
    assert back["reached"] == 0 and back["iterations_to_target"] is back["ratio"] is back["fewer"] is None
    assert back["final_loss"]["mean"] == 0.5


def test_each_seed_is_compared_with_the_reference_of_its_seed(tmp_path):
    write_simple(tmp_path / "sgd_0", SGD, 0)
    write_simple(tmp_path / "sgd_1", (2.0, 1.0, 0.6, 0.4), 1)
    write_simple(tmp_path / "alt_1", FASTER, 1)  # 0.4: 20 + 10 * 0.3 / 0.4 = 27.5
    write_simple(tmp_path / "alt_0", FASTER, 0)  # 0.5: 25
    names = [f"{label}={tmp_path / label}_{seed}" for label, seed in (("sgd", 0), ("sgd", 1), ("alt", 1), ("alt", 0))]
    group = comparison(read_groups(names))["groups"][1]
    assert [run["target_loss"] for run in group["runs"]] == [0.4, 0.5]
    assert [run["iterations_to_target"] for run in group["runs"]] == pytest.approx([27.5, 25.0])
    assert group["iterations_to_target"] == pytest.approx({"mean": 26.25, "low": 25.0, "high": 27.5})
    assert group["fewer"] == pytest.approx({"mean": 1 - 26.25 / 40, "low": 1 - 27.5 / 40, "high": 0.375})


def test_a_run_that_does_not_get_there_says_so_and_is_in_no_mean(command, tmp_path):
    write_simple(tmp_path / "sgd", SGD)
    write_simple(tmp_path / "a", FASTER, 1)
    write_simple(tmp_path / "b", (2.0, 1.9, 1.8), 2)
    code, out, _ = command("sgd", "alt=a", "alt=b")
    assert code == 0 and "b: not reached in 30 iterations" in out and "25, 1 of 2" in out
    assert "note: seeds differ: all are compared with sgd, seed 0" in out
    group = json.loads(command("sgd", "alt=a", "alt=b", "--json")[1].splitlines()[-1])["groups"][1]
    assert group["reached"] == 1 and group["iterations_to_target"]["mean"] == pytest.approx(25.0)
    assert group["runs"][1]["iterations_to_target"] is None and group["iterations"] == {"mean": 35.0, "low": 30, "high": 40}
    assert group["final_loss"] == pytest.approx({"mean": 1.0, "low": 0.2, "high": 1.8})


def test_losses_of_the_masked_network_are_compared_only_where_there_is_nothing_better(tmp_path):
    masked = write_run(tmp_path / "masked", masked_records())
    exact = [record("train_exact", e, loss) for e, loss in enumerate(SGD, start=1)]
    both = write_run(tmp_path / "sgd", [*exact, *(record("train", e, loss) for e, loss in enumerate(SGD, start=1))])
    result = comparison(read_groups([str(both), str(masked)]))
    assert result["split"] == "train_exact" and result["notes"] == []
    assert result["groups"][1]["runs"][0]["iterations_to_target"] is None  # 0.6 at the end; the masked network had 0.5
    assert result["groups"][1]["runs"][0]["refreshes"] == [10, 30]
    plain = write_simple(tmp_path / "plain", SGD)
    result = comparison(read_groups([str(plain), str(masked)]))
    assert result["split"] == "train" and "masked network" in result["notes"][0]
    assert result["groups"][1]["runs"][0]["iterations_to_target"] == 20.0
    assert comparison(read_groups([str(plain)]), split="train")["notes"] == []


def test_what_a_reader_should_know_is_noted(tmp_path):
    early = write_simple(tmp_path / "early", (1.0, 0.25, 0.5), finished=False)
    other = write_run(tmp_path / "other", [record("train", e, 1 / e, step=7 * e) for e in (1, 2)], images=32)
    notes = comparison(read_groups([str(early), str(other)]))["notes"]
    assert notes[0] == f"{early} is not finished: the target is its loss so far, after 30 iterations"
    assert notes[1] == f"{early} ends at a loss that it first had after 17 of 30 iterations"  # 10 + 10 * 0.5 / 0.75
    assert notes[2].endswith("32 images of digits, 64 images of digits") and notes[3].startswith("an epoch is not the same")
    assert len(notes) == 4


def test_settings_that_differ_are_named(tmp_path):
    own = "training: {epochs: %d, optimizer: {name: sgd, learning_rate: %s}, solver: {name: %s%s}}"
    write_simple(tmp_path / "sgd", SGD, 0, recipe=own % (4, "0.1", "sgd", ""))
    write_simple(tmp_path / "a", FASTER, 0, recipe=own % (4, "0.2", "alternation", ", refresh: 3"))
    write_simple(tmp_path / "b", FASTER, 1, recipe=own % (9, "0.2", "alternation", ", refresh: 5"), spec="blocks: [{conv: 5}]")
    notes = comparison(read_groups([str(tmp_path / "sgd"), f"alt={tmp_path / 'a'}", f"alt={tmp_path / 'b'}"]))["notes"]
    assert notes[1:] == [
        "the runs of alt differ in spec.blocks, recipe.training.epochs, recipe.training.solver.refresh",
        "sgd, alt differ in recipe.training.optimizer.learning_rate, recipe.training.solver",
    ]


def test_a_reference_that_never_improved_gives_no_ratio(tmp_path):
    flat = write_run(tmp_path / "flat", [record("train_exact", 0, 1.0), record("train", 1, 1.0), record("train_exact", 1, 1.0)])
    run = comparison(read_groups([str(flat)]))["groups"][0]["runs"][0]
    assert run["iterations_to_target"] == 0.0 and run["ratio"] is None and run["final_error"] is None


def test_labels_of_runs_without_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in ("a/run", "b/run", "c", "d/sgd", "x=y"):
        write_simple(tmp_path / place, SGD)
    groups = read_groups(["a/run", "b/run", "sgd=c", "d/sgd", "x=y"])
    assert [group.label for group in groups] == ["a/run", "b/run", "sgd", "d/sgd", "x=y"]


BAD = {
    "label": (["a", "b", "--reference", "c"], "--reference: received 'c'; allowed: a, b"),
    "near": (["sgd=a", "b", "--reference", "sdg"], "did you mean 'sgd'?"),
    "split": (["a", "--split", "tests"], "--split: received 'tests'; allowed: train_exact, train, validation"),
    "no_split": (["a", "--split", "train_exact"], "a: nothing of the split train_exact was logged; there is: train, validation"),
    "phase": (["a", "--phase", "al"], "--phase: received 'al'; a has all; did you mean 'all'?"),
    "head": (["a", "--head", "head_3"], "--head: received 'head_3'; a has head_2; did you mean 'head_2'?"),
    "twice": (["a", "x=./a"], "a: given twice"),
    "same_seed": (["x=a", "x=b"], "x: a and b both have seed 0"),
    "seed": (["x=a", "x=s1", "y=s2"], "s2: has seed 2; the reference x has seeds 0, 1"),
    "no_label": (["=a"], "received '=a'; allowed: RUN or LABEL=RUN"),
    "no_run": (["x="], "received 'x='; allowed: RUN or LABEL=RUN"),
    "missing": (["x=nothing"], "nothing: no such run folder"),
    "no_folder": (["empty"], "empty: not a run folder (run.json is missing)"),
    "no_metrics": (["young"], "young: metrics.jsonl holds no losses"),
    "recipe": (["yaml"], "yaml/recipe.yaml:1:1: received 5; allowed: a mapping"),
    "damaged": (["torn"], "torn/metrics.jsonl:2: damaged (loss: received None"),
    "not_an_object": (["list"], "list/metrics.jsonl:1: damaged (not a JSON object)"),
    "no_seed": (["seedless"], "seedless/run.json: damaged (seed is missing)"),
    "plot": (["a", "--plot", "empty"], "empty: is a folder; allowed: a PNG file"),
}


@pytest.mark.parametrize("arguments, expected", BAD.values(), ids=BAD)
def test_bad_input_is_one_clear_error(command, tmp_path, arguments, expected):
    for name, seed in (("a", 0), ("b", 0), ("s1", 1), ("s2", 2)):
        write_simple(tmp_path / name, SGD, seed)
    (tmp_path / "empty").mkdir()
    write_run(tmp_path / "young", [record("refresh", 0)])
    write_run(tmp_path / "torn", [record("train", 1, 1.0), {**record("train", 2, 1.0), "loss": None}])
    write_run(tmp_path / "list", [[1], record("train", 1, 1.0)])
    (write_simple(tmp_path / "seedless", SGD) / "run.json").write_text('{"data": {}}')
    (write_simple(tmp_path / "yaml", SGD) / "recipe.yaml").write_text("5")
    code, out, err = command(*arguments)
    assert (code, out) == (2, "") and err.startswith("error: ") and expected in err and len(err.splitlines()) == 1


def test_no_runs_at_all(command):
    assert command()[0] == 2
    with pytest.raises(InputError, match="no runs given"):
        read_groups([])


def test_the_figure_shows_what_was_logged(tmp_path):
    masked, sgd = write_run(tmp_path / "masked", masked_records()), write_run(tmp_path / "sgd", masked_records()[:1] + [
        record("train_exact", e, loss) for e, loss in enumerate(SGD, start=1)
    ])  # fmt: skip
    groups = read_groups([str(sgd), str(masked)])
    figure = _draw(groups, comparison(groups))
    losses, errors = figure.axes
    lines = [(line.get_linestyle(), line.get_marker(), list(line.get_xdata()), list(line.get_ydata())) for line in losses.lines]
    assert ("-", "None", [0, 10, 20, 30, 40], [2.0, 1.2, 0.9, 0.7, 0.6]) in lines
    assert ("None", "D", [10, 30], [1.2, 0.7]) in lines  # where masks were estimated, on the curve
    assert ("None", "o", [40.0], [0.5]) in lines  # the reference reaches its own end; the other one does not
    dashed = [line for line in losses.lines if line.get_linestyle() == "--"]
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in dashed] == [([10, 20, 30, 40], [1.3, 0.5, 0.4, 0.8])]
    assert losses.get_yscale() == "log"
    marks = next(line for line in errors.lines if line.get_marker() == "D")
    assert list(marks.get_ydata()) == pytest.approx([40.0, 20.0])
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["sgd", "masked", "masks estimated", "training loss under masks", "where sgd ends", "reached"]


def test_a_curve_ends_with_its_phase_and_changes_its_style_where_masks_begin(tmp_path):
    records = [record("train", 1, 3.0), record("train", 2, 2.0), record("train", 3, 1.0, masks=True)]
    records += [record("train", 1, 0.0, phase=1, name="more", step=40), record("train", 2, 0.5, phase=1, name="more", step=50)]
    groups = read_groups([str(write_run(tmp_path / "run", records))])
    losses, errors = _draw(groups, comparison(groups)).axes
    drawn = [(line.get_linestyle(), list(line.get_xdata())) for line in losses.lines if len(line.get_xdata()) > 1]
    assert [line for line in drawn if line[0] != ":"] == [("-", [10, 20]), ("--", [20, 30]), ("-", [40, 50])]
    assert [list(line.get_xdata()) for line in errors.lines] == [[10, 20, 30], [40, 50]]
    assert losses.get_yscale() == "symlog"  # a loss of 0 has no place on a log scale
    assert errors.get_yscale() == "log" and errors.get_ylabel() == "training error, %"


def test_the_figure_is_written(command, tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / f"alt_{seed}", masked_records(), seed)
        write_simple(tmp_path / f"sgd_{seed}", SGD, seed)
    for arguments in (
        ["sgd=sgd_0", "sgd=sgd_1", "alt=alt_0", "alt=alt_1"],
        ["alt=alt_0", "alt=alt_1"],
        ["alt_0", "--split", "validation"],
    ):
        code, out, _ = command(*arguments, "--plot", "new/figure.png", "--json")
        assert code == 0 and json.loads(out.splitlines()[-1])["plot"] == "new/figure.png"
        picture = Path("new/figure.png")
        assert picture.read_bytes().startswith(b"\x89PNG")
        picture.unlink()


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path):
    path = write_simple(tmp_path / "run", SGD, finished=False)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"phase": 0, "spl')
    course = read_course(path)
    assert not course.finished and series(course, "train").iterations == (10, 20, 30, 40)


def test_other_readers_are_not_disturbed_by_refreshes(finished, monkeypatch, capsys, tmp_path):
    """A mark in every phase of a real run, before its first epoch and after its last."""
    records = [json.loads(line) for line in (finished.workdir / "metrics.jsonl").read_text().splitlines()]
    for phase, name in {r["phase"]: r["phase_name"] for r in records}.items():
        records += [record("refresh", epoch, phase=phase, name=name) for epoch in (0, 1, 2)]
    path = write_run(tmp_path / "run", records)
    results = finished.results
    (path / "results.json").write_text(json.dumps(results))
    plots.plot_run(path, results)
    assert (path / "plots/loss.png").read_bytes().startswith(b"\x89PNG")
    figure = plots._draw_losses(records, "a run")
    upper = figure.axes[0]
    # three phases of two epochs, so a mark at each epoch of the axis, and twice where a phase begins
    assert sorted(line.get_xdata()[0] for line in upper.lines if line.get_color() == "0.5") == [0, 1, 2, 2, 3, 4, 4, 5, 6]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["head_1", "head_2", "head_3", "masks estimated", "training", "validation"]
    assert all(float(tick).is_integer() for tick in upper.get_xticks())
    code, out, _ = run_cli(monkeypatch, capsys, "compare", path)
    assert code == 0 and "top-1 % at depth 3" in out


def test_a_real_run_is_read(finished, command):
    code, out, _ = command(finished.workdir, "--phase", "block_3", "--json")
    run = json.loads(out.splitlines()[-1])["groups"][0]["runs"][0]
    assert code == 0 and run["iterations"] == 8 and run["ratio"] == 1.0  # two epochs of 128 images, 32 at a time
    last = [r for r in read_course(finished.workdir).metrics if r["split"] == "validation"][-1]
    assert run["final_error"] == pytest.approx(1 - last["accuracy"])


def test_the_table_does_not_load_tensorflow_or_numpy(tmp_path):
    path = write_simple(tmp_path / "run", SGD)
    program = (
        "import sys, atexit\n"
        "heavy = ('tensorflow', 'keras', 'numpy', 'matplotlib')\n"
        "atexit.register(lambda: print('HEAVY', [m for m in heavy if m in sys.modules]))\n"
        f"sys.argv = ['kerasgreedy', 'convergence', {str(path)!r}]\n"
        "from kerasgreedy.cli.main import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0 and done.stdout.strip().endswith("HEAVY []"), done.stderr
