"""Two runs that share a line or a path, and what captions and tables say where runs differ."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from kerasgreedy.analysis.explain import ExplainAnalysis
from kerasgreedy.analysis.landscape import LandscapeAnalysis
from kerasgreedy.analysis.pairs import pair
from kerasgreedy.analysis.running import analyse
from kerasgreedy.analysis.subject import run_subject
from kerasgreedy.errors import InputError
from kerasgreedy.reports.curvature_plot import draw_convexity, draw_eigenvalues
from kerasgreedy.reports.figures import counted, short
from kerasgreedy.reports.landscape_plot import caption, draw_lines
from kerasgreedy.reports.path_loss_plot import draw_path_loss
from kerasgreedy.reports.separability_plot import draw_transfer
from kerasgreedy.spec.analyses_of_layers import Explain, WeightSizes
from kerasgreedy.spec.analyses_of_loss import Connect, Landscape
from kerasgreedy.train.entry_points import train_spec

GATES = "name: g\nblocks: [{conv: 3}]\nfinal_head: {layers: [{gated_conv: 4, kernel_size: 3, class_separable: true}]}\n"
DENSE = "name: m\nblocks: [[{flatten: true}, {dense: 5}], {dense: 4}]\nfinal_head: {}\n"
FEW = """
name: r
data: {dataset: digits, train_examples: 60, validation: 20, test_examples: 30}
strategy: end_to_end
training: {epochs: 1, batch_size: 20, optimizer: {name: sgd, learning_rate: 0.1}}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("same")
    for name, text in (("gates", GATES), ("dense", DENSE), ("few", FEW)):
        (folder / f"{name}.yaml").write_text(text)

    def train(spec, name, *sets):
        if not (folder / name).exists():
            train_spec(folder / f"{spec}.yaml", folder / "few.yaml", sets, folder / name, quiet=True)
        return folder / name

    return train


def test_fixed_weights_are_part_of_the_function(trained, tmp_path):
    """Gates are drawn by the seed: under those of the first run the second one's filters are another network."""
    one, two = trained("gates", "gates_0"), trained("gates", "gates_1", "recipe.seed=1")
    for settings in (Landscape(along="between", points=3, examples=20), Connect(points=3, examples=20)):
        with pytest.raises(InputError, match="differ in weights that are fixed, such as gates"):
            analyse(settings, [one, two], tmp_path / "out", quiet=True)
    first, theta, other = pair([run_subject(one), run_subject(one)])
    assert np.array_equal(theta, other) and first.name == "gates_0"


def test_normalisation_is_part_of_the_function(trained, tmp_path):
    """Another one is refused; that of other validation images is near enough, and the end's loss says so."""
    one, unit = trained("dense", "dense_0"), trained("dense", "dense_unit", "data.normalize=unit")
    with pytest.raises(InputError, match="differ in what their images are normalised by"):
        analyse(Connect(points=3, examples=20), [one, unit], tmp_path / "out", quiet=True)
    many = ("data.train_examples=1200", "data.validation=100", "data.test_examples=null")
    one, two = (trained("dense", f"dense_many_{seed}", *many, f"recipe.seed={seed}") for seed in (0, 1))
    subjects = [run_subject(run) for run in (one, two)]
    assert not np.array_equal(subjects[0].run.pipeline.mean, subjects[1].run.pipeline.mean)
    found = analyse(Landscape(along="between", points=5, examples=1000), [one, two], tmp_path / "line", quiet=True)
    (line,) = found.figures["runs"]
    own = json.loads((two / "results.json").read_text())["depths"][-1]["loss"]
    assert line["test"]["losses"][line["axes"][0].index(1.0)] == pytest.approx(own, rel=0.02)
    assert found.figures["statistics"] == "none" and "no batch norm" in caption(found.figures)


def test_a_line_has_a_point_between_its_ends(trained):
    subjects = [run_subject(trained("dense", "dense_0"))] * 2
    from kerasgreedy.analysis.landscape import _between

    assert _between(subjects, Landscape(along="between", points=3)).axes == [[0.0, 0.5, 1.0]]


def test_test_losses_of_a_path_are_measured_where_its_own_are(two_runs, tmp_path):
    """Not at its ends alone: a straight line of one piece has all of its places."""
    for form in ("string", "bezier"):
        settings = Connect(form=form, examples=60, points=3, steps=2, level=50.0, part="test")
        figures = analyse(settings, two_runs, tmp_path / form, quiet=True).figures
        assert figures["test"] == figures["losses"], form  # the part is the test data itself
        lines = {line.get_label(): line for line in draw_path_loss(figures).axes[0].lines}
        (drawn,) = (line for label, line in lines.items() if label.endswith(", test images") and line.get_linestyle() == "-.")
        assert len(drawn.get_xdata()) == sum(map(len, figures["losses"]))


def test_a_level_below_the_ends_cannot_be_kept(two_runs, tmp_path):
    with pytest.raises(InputError, match=r"--level: received 0.0001; allowed: .* or more, the loss of the higher end"):
        analyse(Connect(examples=20, points=3, level=1e-4), two_runs, tmp_path / "out", quiet=True)


def test_only_what_was_written_here_is_replaced(two_runs, tmp_path):
    out = tmp_path / "out"
    analyse(WeightSizes(), two_runs[:1], out, quiet=True)
    ours = {path.name for path in out.iterdir()}
    for name in ("notes.csv", "paper.png", "data.npz", "mine.json"):
        (out / name).write_text("mine")
    analyse(WeightSizes(bins=7), two_runs[:1], out, overwrite=True, quiet=True)
    assert {path.name for path in out.iterdir()} == ours | {"notes.csv", "paper.png", "data.npz", "mine.json"}
    assert {"weights.json", "weights.csv", "weights.png"} <= set(json.loads((out / "analysis.json").read_text())["files"])


def test_names_of_runs_in_folders_of_one_name(trained, tmp_path):
    one = trained("dense", "dense_0")
    places = [tmp_path / "a/run", tmp_path / "b/run"]
    for place in places:
        place.parent.mkdir()
        place.symlink_to(one)
    found = analyse(Landscape(along="line", points=3, examples=20), places, tmp_path / "out", quiet=True).figures
    assert [run["name"] for run in found["runs"]] == ["a/run", "b/run"]


def test_captions_say_how_many_images_each_had():
    runs = [{"train": {"examples": n}, "test": {"examples": 30}, "name": "r", "axes": [[0.0]]} for n in (1000, 90)]
    found = {"runs": runs, "parts": ["train", "test"], "statistics": "moving", "along": "line", "seed": 3}
    assert caption(found) == "90 to 1,000 training images and 30 test images; batch norm: moving averages of training; seed 3"
    assert counted([{"examples": 5}, {"examples": 5}]) == "5"
    assert short("x" * 33) == "x" * 14 + "..." + "x" * 14 and short("x" * 32) == "x" * 32


def test_long_names_stay_inside_the_picture():
    side = {"examples": 9, "losses": [1.0, 2.0, 3.0], "accuracies": [0.1, 0.2, 0.3]}
    run = {"name": "n" * 90, "to": "m" * 90, "axes": [[0.0, 0.5, 1.0]], "train": side, "test": side}
    found = {"runs": [run], "parts": ["train", "test"], "statistics": "none", "along": "between", "seed": 0}
    figure = draw_lines(found)
    figure.savefig(io.BytesIO())  # which lays it out
    width = figure.get_figwidth() * figure.dpi
    assert all(axes.get_position().width > 0.7 for axes in figure.axes)
    for text in [figure.axes[1].xaxis.label, *figure.legends[0].texts]:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= width


def test_curvature_that_has_not_converged_looks_like_it():
    def run(name, converged, error):
        part = {"converged": converged, "largest_error": error, "smallest_error": error}
        return {"name": name, "examples": 9, "largest": [2.0, 0.0], "smallest": [-1.0, 0.0], "parts": [part]}

    found = {"runs": [run("sure", True, 0.01), run("late", False, 0.4)], "part": "train", "seed": 0}
    figure = draw_eigenvalues(found)
    faces = [container.lines[0].get_markerfacecolor() for container in figure.axes[0].containers]
    assert faces == ["C0", "white", "C1", "white"] and "hollow: not converged" in figure.get_suptitle()
    bars = [container.lines[2][0].get_segments()[0] for container in figure.axes[0].containers]
    np.testing.assert_allclose([bar[1][0] - bar[0][0] for bar in bars], [0.02, 0.8, 0.02, 0.8])
    values = {"largest": [[1.0] * 3] * 3, "smallest": [[-2.0] * 3] * 3}
    plane = {"axis": [-1.0, 0.0, 1.0], **values, "negative_share": 1.0, "converged": 6, "not_finite": 1}
    figure = draw_convexity({"runs": [{"name": "n", "examples": 9, "plane": plane}], "part": "train", "seed": 0})
    axes, bar = figure.axes
    assert axes.get_title() == "n\nnegative on 100 % of 9 points; 2 not converged; 1 not finite"
    assert axes.get_xlim() == (-1, 1) and axes.get_xlabel() == "first direction" and "at most 1" in bar.get_ylabel()


def test_a_single_split_has_no_deviation():
    from kerasgreedy.analysis.transfer import TransferAnalysis
    from kerasgreedy.spec.analyses_of_layers import Transfer

    run = {"name": "r", "depths": [{"depth": 1, "trained": [0.5, 0.1, True], "untrained": [0.3, 0.1, True]}]}
    run |= {"scratch": [0.4, 0.0], "tuned": [0.6, 0.0]}
    found = {"dataset": "d", "leave_out": [], "classes": 10, "per_class": 3, "tested": 50, "splits": 2, "tuned_blocks": 1}
    found |= {"runs": [run], "pixels": [0.2, 0.05, True], "settings": {"tuned_splits": 1}}
    (table,) = TransferAnalysis(Transfer(data="digits")).tables(found)
    assert table.title.endswith("2 splits")
    assert [row[1:3] for row in table.rows[2:]] == [
        ["trained from scratch (1 split)", "40.00"],
        ["last block tuned (1 split)", "60.00"],
    ]
    assert table.rows[0][2] == "20.00 ± 5.00"
    labels = draw_transfer(found).axes[0].get_legend_handles_labels()[1]
    assert "r, last block tuned (1 split)" in labels


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Explain(methods=["occlusion"], stride=5, examples=1), r"--stride: received 5; allowed: 1 to the size of squares \(2\)"),
        (Explain(examples=1), "--methods: no block gives maps for grad_cam; allowed: integrated_gradients,occlusion"),
        (Explain(methods=["grad_cam"], block=1, examples=1), "--block: received 1; allowed: other --methods"),
    ],
)
def test_explain_refuses_what_it_cannot_show(trained, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        analyse(settings, [trained("dense", "dense_0")], tmp_path / "out", quiet=True)


@pytest.mark.slow
def test_explain_goes_on_where_it_was(two_runs, tmp_path, monkeypatch):
    """A method that is done is not done again, and maps of other contents of an image file are not taken for it."""
    file = tmp_path / "image.png"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 3).save(file)
    settings = Explain(images=[str(file)], methods=["grad_cam", "occlusion"])
    whole = analyse(settings, two_runs[:1], tmp_path / "whole", quiet=True).figures
    done, original = [], ExplainAnalysis._method

    def method(self, name, *rest):
        done.append(name)
        if len(done) == stops:
            raise KeyboardInterrupt
        return original(self, name, *rest)

    monkeypatch.setattr(ExplainAnalysis, "_method", method)
    stops = 2
    with pytest.raises(KeyboardInterrupt):
        analyse(settings, two_runs[:1], tmp_path / "out", quiet=True)
    stops = 0
    assert analyse(settings, two_runs[:1], tmp_path / "out", quiet=True).figures == whole
    assert done == ["grad_cam", "occlusion", "occlusion"]
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save(file)
    other = analyse(settings, two_runs[:1], tmp_path / "out", quiet=True).figures
    assert len(done) == 5 and other["methods"]["occlusion"] != whole["methods"]["occlusion"]


def test_nothing_is_drawn_by_weights():
    with pytest.raises(ValueError, match="seed"):
        WeightSizes(seed=5)


def test_a_path_is_re_estimated_unless_said_otherwise():
    assert (
        Landscape(along="path").statistics == "reestimated"
        and Landscape(along="path", batch_norm="moving").statistics == "moving"
    )
    assert LandscapeAnalysis.subjects == (1, None)
