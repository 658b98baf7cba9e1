"""The frontier: its runs, what it says of them, and the same after it was stopped."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import stop_at

from kerasgreedy.errors import InputError, KerasgreedyError, Stopped, WorkdirError
from kerasgreedy.graph.architecture import architecture
from kerasgreedy.network.correlation import mean_correlation
from kerasgreedy.reports import frontier_plot
from kerasgreedy.spec.load import load_spec
from kerasgreedy.studies import frontier_table
from kerasgreedy.studies.frontier import frontier
from kerasgreedy.studies.frontier_range import Frontier, alphas_of
from kerasgreedy.train.entry_points import load_network

SPEC = """
name: s
blocks:
  - {conv: 6}
  - {residual: [{conv: 6}, {conv: 6, activation: linear}]}
final_head: {layers: [{global_avg_pool: true}]}
"""
RECIPE = """
name: r
data: {dataset: digits, train_examples: 160, test_examples: 40, validation: 64}
strategy: end_to_end
training:
  {epochs: 2, batch_size: 16, optimizer: {name: sgd, learning_rate: 0.1},
   regularizers: [{name: nested_group_lasso, weight: 1, groups: rings}]}
threshold: {tau: 0, sizes: padded, fine_tune: {epochs: 1}}
"""


@pytest.fixture
def study(tmp_path):
    (tmp_path / "s.yaml").write_text(SPEC)
    (tmp_path / "r.yaml").write_text(RECIPE)
    return lambda **more: Frontier(**{
        "spec": str(tmp_path / "s.yaml"), "recipe": str(tmp_path / "r.yaml"), "alphas": (0.01, 0.3), "warm_epochs": 1,
        "narrower": (0.5,), "references": ("square_mnist",), **more,
    })  # fmt: skip


def without_times(table):
    """What two runs of a study have in common."""
    return [{key: value for key, value in net.items() if key != "latency"} for net in [*table["nets"], *table["plain"]]]


@pytest.mark.slow
def test_runs_and_figures_and_the_same_after_three_stops(study, tmp_path, monkeypatch):
    table = frontier(study(), tmp_path / "whole", quiet=True)
    one, two = table["nets"]
    assert (one["epochs"], two["epochs"], table["plain"][0]["epochs"]) == (3, 4, 4)
    whole = architecture(load_spec(tmp_path / "whole/alpha_0.01_seed_0/trained/spec.yaml").value)
    assert two["multiply_adds"] < one["multiply_adds"] == one["whole_multiply_adds"] == whole.multiply_adds
    recipe = (tmp_path / "whole/alpha_0.3_seed_0/trained/recipe.yaml").read_text()
    assert "weight: 0.3" in recipe and "alpha_0.01_seed_0/trained" in recipe and "epochs: 1" in recipe
    kept = architecture(load_spec(tmp_path / "whole" / two["run"] / "pruned_spec.yaml").value)
    assert kept.multiply_adds == two["multiply_adds"] and kept.parameters == two["parameters"]
    assert [net["name"] for net in table["plain"]] == ["narrower 0.5", "square_mnist"]
    assert table["plain"][1]["multiply_adds"] == architecture(load_spec("square_mnist").value, (8, 8, 1), 10).multiply_adds
    narrow = architecture(load_spec(tmp_path / "whole/narrower_0.5_seed_0/spec.yaml").value)
    assert narrow.blocks[0].widths == [3] and narrow.blocks[1].widths == [3, 3]
    assert load_network(tmp_path / "whole" / two["run"]).architecture == kept

    for at in (7, 5, 8):
        stop_at(monkeypatch, at)
        with pytest.raises(Stopped):
            frontier(study(), tmp_path / "stopped", quiet=True)
        monkeypatch.undo()
    again = frontier(study(), tmp_path / "stopped", quiet=True)
    assert without_times(again) == without_times(table)
    written = json.loads((tmp_path / "stopped/frontier.json").read_text())
    assert written == again and {path.name for path in (tmp_path / "stopped").glob("*.png")} == {
        "frontier.png", "widths.png", "sides.png", "correlations.png", "groups.png",
    }  # fmt: skip


def test_pictures_hold_the_figures():
    nets = [
        {"alpha": 0.1, "seed": 0, "multiply_adds": 400, "top1": 0.9, "validation": 0.8, "filters": {"a/b": [4, 4], "a/c": [6, 6]},
         "sides": {"a/b": {"3": 4}, "a/c": {"3": 6}}, "correlations": [0.5, 0.3]},
        {"alpha": 1.0, "seed": 0, "multiply_adds": 200, "top1": 0.7, "validation": 0.85,
         "filters": {"a/b": [4, 2], "a/c": [6, 5]}, "sides": {"a/b": {"3": 1, "1": 1}, "a/c": {"1": 5}},
         "correlations": [None, 0.1]},
    ]  # fmt: skip
    assert [net["alpha"] for net in frontier_plot.envelope(nets)] == [1.0]  # by validation data
    drawn = frontier_plot.draw_frontier(nets, [{"name": "narrower 0.5", "multiply_adds": 100, "top1": 0.6}]).axes[0]
    assert [list(line.get_ydata()) for line in drawn.lines] == [[90.0, 70.0], [70.0], [60.0]]
    sides = frontier_plot.draw_sides(nets).axes
    assert [list(line.get_ydata()) for line in sides[1].lines] == [[0, 0], [1, 5]]
    heights = frontier_plot.draw_correlations(nets).axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(heights, [0.5, 0.3, np.nan, 0.1])
    bands = frontier_plot.draw_widths(nets).axes[0].collections
    assert bands[1].get_paths()[0].vertices[:, 1].max() == 2.5
    titles = [axis.get_title() for axis in frontier_plot.draw_groups(5).axes]
    assert [title for title in titles if title] == ["G1: 9", "G2: 16", "G3: 21", "G4: 24", "G5: 25", "G1: 16", "G2: 24", "G3: 25"]


def test_kernels_are_drawn_by_their_strength_and_zeros_are_masked():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 4))
    kernel[..., 1] = 0
    kernel[0, :, :, 2] = 0
    kernel[..., 3] *= 9
    figure = frontier_plot.draw_kernels({"a/b": kernel, "a/c": kernel[..., :2]}, "t")
    shown = [[axes.images[0].get_array() for axes in figure.axes[row : row + 4] if axes.images] for row in (0, 4)]
    assert [len(each) for each in shown] == [4, 2]
    np.testing.assert_allclose(shown[0][0], kernel[..., 3].mean(-1))
    assert sorted(int(each.mask.sum()) for each in shown[0]) == [0, 0, 3, 9] and shown[0][3].mask.all()
    assert figure.axes[0].get_ylabel() == "a/b\n3 of 4" and figure.axes[4].get_ylabel() == "a/c\n1 of 2"


def test_mean_correlation_by_numpy():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 5))
    kernel[..., 2] = 0
    pairs = np.abs(np.corrcoef(kernel.reshape(18, 5)[:, [0, 1, 3, 4]].T))
    assert mean_correlation(kernel) == pytest.approx((pairs.sum() - 4) / 12)
    assert mean_correlation(np.ones((1, 1, 1, 3))) is None


@pytest.mark.parametrize(("text", "alphas"), [("1e-5:1e-3:log3", (1e-5, 1e-4, 1e-3)), ("0.5,2", (0.5, 2.0)), ("0.1", (0.1,))])
def test_alphas(text, alphas):
    assert alphas_of(text) == pytest.approx(alphas)


@pytest.mark.parametrize("text", ["", "1:0.5:log3", "0:1:log3", "1:2:3", "1:2:log1", "2,1", "1,1", "-1", "nan", "1:inf:log3"])
def test_bad_alphas(text):
    with pytest.raises(InputError, match="allowed: first:last:logN"):
        alphas_of(text)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"overrides": ("training.regularizers=[]",)}, "no penalty whose weight could be alpha"),
        ({"overrides": ("threshold=null",)}, "the recipe has no 'threshold'"),
        ({"overrides": ("strategy=greedy",)}, "received strategy 'greedy'"),
        ({"spec": "resnet20_cifr"}, "resnet20_cifar"),
        ({"overrides": ("phases={end_to_end: {regularizers: []}}",)}, "'phases' have regularizers"),
    ],
)
def test_bad_input(study, tmp_path, more, message):
    with pytest.raises(KerasgreedyError) as error:
        frontier(study(**more), tmp_path / "F", quiet=True)
    assert message in str(error.value) and not Path(tmp_path / "F").exists()


def test_folders_of_others(study, tmp_path):
    (tmp_path / "F").mkdir()
    (tmp_path / "F/notes.txt").write_text("mine")
    with pytest.raises(WorkdirError, match="holds no study"):
        frontier(study(), tmp_path / "F", quiet=True)
    (tmp_path / "F/study.json").write_text(json.dumps({"spec": "another"}))
    with pytest.raises(WorkdirError, match="holds a study with other warm_epochs None"):
        frontier(study(), tmp_path / "F", quiet=True)


@pytest.mark.slow
def test_nothing_of_another_study_is_taken(study, tmp_path):
    """Other documents, alphas that do not go on behind the last, plain nets of another length; more alphas behind are welcome."""
    first = study(alphas=(0.01,), narrower=(), references=())
    one = frontier(first, tmp_path / "F", quiet=True)["nets"]
    assert [net["epochs"] for net in one] == [3]
    for alphas in ((0.005, 0.01), (0.02,)):
        with pytest.raises(WorkdirError, match="larger ones behind them"):
            frontier(study(alphas=alphas, narrower=(), references=()), tmp_path / "F", quiet=True)
    two = frontier(study(narrower=(0.5,), references=(), plain_epochs=1), tmp_path / "F", quiet=True)
    assert [net["epochs"] for net in two["nets"]] == [3, 4] and two["plain"][0]["epochs"] == 1
    assert two["nets"][0] == one[0]
    with pytest.raises(WorkdirError, match="say --plain-epochs 1"):
        frontier(study(alphas=(0.01, 0.3, 0.5), references=()), tmp_path / "F", quiet=True)
    assert not (tmp_path / "F/alpha_0.5_seed_0").exists()  # before it trains anything
    asked = study(narrower=(0.5,), references=(), plain_epochs=1)
    (tmp_path / "F").rename(tmp_path / "moved")
    assert frontier(asked, tmp_path / "moved", quiet=True) == two
    (tmp_path / "moved").rename(tmp_path / "F")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(recipe.read_text().replace("learning_rate: 0.1", "learning_rate: 0.2"))
    with pytest.raises(WorkdirError, match="contents of spec and recipe"):
        frontier(study(references=(), plain_epochs=1), tmp_path / "F", quiet=True)


def test_epochs_in_all(tmp_path):
    """Of runs of this study wherever it is, and of runs of another one that are called the same."""

    def run(study, alpha, epochs, start):
        own = tmp_path / study / f"alpha_{alpha}_seed_0/trained"
        own.mkdir(parents=True)
        (own / "results.json").write_text(json.dumps({"epochs": epochs}))
        (own / "recipe.yaml").write_text(RECIPE + (f"start_from: {start}\n" if start else ""))
        return own

    outside = run("other", 0.2, 100, None)
    one = run("now", 0.1, 10, outside)
    two = run("now", 0.2, 7, tmp_path / "was/alpha_0.1_seed_0/trained")
    three = run("now", 0.3, 5, tmp_path / "was/alpha_0.2_seed_0/trained")
    assert [frontier_table._epochs(each, [one, two, three][:i]) for i, each in enumerate((one, two, three))] == [110, 117, 122]


def test_an_alpha_that_diverges_is_left_out(study, tmp_path):
    told = []
    fast = ("training.optimizer.learning_rate=1e30",)
    table = frontier(study(overrides=fast, narrower=(), references=()), tmp_path / "F", told.append, quiet=True)
    assert table["nets"] == []
    for alpha in (0.01, 0.3):
        assert any(f"alpha_{alpha}_seed_0/trained diverged, and is left out" in line for line in told)
