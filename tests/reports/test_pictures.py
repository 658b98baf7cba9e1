"""Pictures: only our own are written over, names show as what they are, and settings that lie about have no effect."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from matplotlib import rc_context
from matplotlib.text import Text
from PIL import Image, PngImagePlugin
from typer.testing import CliRunner

from kerasgreedy.cli.main import app
from kerasgreedy.errors import InputError
from kerasgreedy.pictures import picture_path, write_picture
from kerasgreedy.reports.figures import new_figure, plain_numbers, write_figure
from kerasgreedy.reports.sensitivity_plot import sensitivity_files, write_sensitivity

MINE = b"a file of mine"
FOREIGN = "already exists, and was not made by kerasgreedy; give another name, or --overwrite"


def figure_with(*texts):
    """Texts at every kind of place: title, label, legend, annotation, names at ticks."""
    figure = new_figure(4, 3)
    axes = figure.subplots()
    for index, text in enumerate(texts):
        axes.plot([0, 1], [index, 1], label=text)
        axes.annotate(text, (0.5, 0.5))
    axes.set_title(texts[0])
    axes.set_xticks([0, 1], [texts[0], texts[-1]], rotation=30)
    axes.legend()
    figure.suptitle(texts[-1])
    return figure


def test_only_pictures_of_our_own_are_replaced(tmp_path):
    target = tmp_path / "a.png"
    write_figure(target, lambda: figure_with("one"))
    assert Image.open(target).info["Software"] == "kerasgreedy"
    first = target.read_bytes()
    write_figure(target, lambda: figure_with("two"))
    assert target.read_bytes() != first
    foreign = {
        "text.png": lambda path: path.write_bytes(MINE),
        "other.png": Image.fromarray(np.zeros((2, 2), np.uint8)).save,
        "software.png": lambda path: Image.new("L", (2, 2)).save(path, pnginfo=_about("GIMP")),
        "cut.png": lambda path: path.write_bytes(first[:40]),
        "link.png": lambda path: path.symlink_to(target),
        "nowhere.png": lambda path: path.symlink_to("nothing"),
    }
    for name, make in foreign.items():
        path = tmp_path / name
        make(path)
        before = path.readlink() if path.is_symlink() else path.read_bytes()
        with pytest.raises(InputError, match=FOREIGN):
            write_figure(path, lambda: figure_with("x"))
        assert before == (path.readlink() if path.is_symlink() else path.read_bytes())
        write_figure(path, lambda: figure_with("x"), overwrite=True)
        assert not path.is_symlink() and picture_path(path) == path
    assert Image.open(target).info["Software"] == "kerasgreedy" and len(list(tmp_path.iterdir())) == 1 + len(foreign)


def _about(software):
    about = PngImagePlugin.PngInfo()
    about.add_text("Software", software)
    return about


def test_what_lies_in_the_plots_of_a_run_is_ours(tmp_path):
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots/loss.png").write_bytes(MINE)
    with pytest.raises(InputError, match=FOREIGN):
        picture_path(tmp_path / "plots/loss.png")
    (tmp_path / "run.json").write_text("{}")
    write_picture(tmp_path / "plots/loss.png", b"new")
    assert (tmp_path / "plots/loss.png").read_bytes() == b"new"
    (tmp_path / "mine.png").write_bytes(MINE)
    with pytest.raises(InputError, match=FOREIGN):
        write_picture(tmp_path / "mine.png", b"new")


RESULT = {
    "spec": "s", "depth": 1, "part": "test", "examples": 9, "ranking": "layer", "baseline": {"top1": 0.5},
    "curves": [{"component": "block_1", "criterion": "random", "points": [{"share": 0.5, "top1": 0.25}]}],
}  # fmt: skip


def test_the_json_beside_a_picture_is_replaced_if_it_is_of_an_analysis(tmp_path):
    write_sensitivity(tmp_path, RESULT)
    data, _ = write_sensitivity(tmp_path, {**RESULT, "spec": "other"})
    assert '"other"' in data.read_text()
    for content in (b"{}", MINE):
        data.write_bytes(content)
        with pytest.raises(InputError, match=FOREIGN):
            sensitivity_files(tmp_path)
        with pytest.raises(InputError, match=FOREIGN):
            write_sensitivity(tmp_path, RESULT)
        assert data.read_bytes() == content
    write_sensitivity(tmp_path, RESULT, overwrite=True)
    data.write_bytes(MINE)
    (tmp_path / "run.json").write_text("{}")
    write_sensitivity(tmp_path, RESULT)
    assert data.read_text().startswith("{")


# Before anything is loaded or measured: the run is not even there.
COMMANDS = {
    "compare": ["compare", "run", "--plot", "mine.png"],
    "convergence": ["convergence", "run", "--plot", "mine.png"],
    "anytime": ["anytime", "run", "--plot", "mine.png"],
    "sensitivity": ["sensitivity", "run", "--out", "."],
    "data": ["data", "show", "digits", "--output", "mine.png"],
}


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_every_option_that_names_a_file_asks_first(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mine.png", "sensitivity.json"):
        (tmp_path / name).write_bytes(MINE)
    refused = CliRunner().invoke(app, arguments)
    assert isinstance(refused.exception, InputError) and FOREIGN in str(refused.exception)
    told = CliRunner().invoke(app, [*arguments, "--overwrite"])
    assert FOREIGN not in str(told.exception)
    assert (tmp_path / "sensitivity.json").read_bytes() == MINE
    if "data" in arguments:
        assert told.exit_code == 0 and Image.open("mine.png").info["Software"] == "kerasgreedy"


ODD = ["$a_b$", "100 $", "$\\frac{$", "a\\b^{", "x\udc80y", "tab\there", "\x1b[31m", "\u202eabc", "日本", "a\nb"]


def test_names_show_as_what_they_are(tmp_path):
    shown = []
    figure = None

    def draw():
        nonlocal figure
        figure = figure_with(*ODD)
        return figure

    write_figure(tmp_path / "a.png", draw)
    figure.canvas.draw()
    shown = [text.get_text() for text in figure.findobj(Text)]
    for text in ("$a_b$", "100 $", "$\\frac{$", "a\\b^{", "x\\udc80y", "tab\\there", "\\x1b[31m", "\\u202eabc", "日本", "a\nb"):
        assert shown.count(text) >= 2, text
    assert not any(text.get_parse_math() for text in figure.findobj(Text))


def test_numbers_at_logarithmic_ticks_are_no_formulas(tmp_path):
    figures = []

    def draw():
        figure = new_figure(4, 3)
        axes = figure.subplots()
        axes.plot([1, 2], [0.001, 10])
        axes.set_yscale("log")
        plain_numbers(axes.yaxis)
        figures.append(figure)
        return figure

    write_figure(tmp_path / "a.png", draw)
    labels = [label.get_text() for label in figures[0].axes[0].get_yticklabels()]
    assert {"0.001", "0.01", "0.1", "1", "10"} <= set(labels) and not any("$" in label for label in labels)


def test_the_callers_settings_do_not_matter_and_stay(tmp_path):
    write_figure(tmp_path / "a.png", lambda: figure_with("x"))
    with rc_context({"axes.facecolor": "red", "font.size": 40, "text.usetex": True}) as _:
        from matplotlib import rcParams

        write_figure(tmp_path / "b.png", lambda: figure_with("x"))
        assert rcParams["axes.facecolor"] == "red" and rcParams["text.usetex"] is True
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("content", [b"\xff\xfe not text", b"backend: nonsense\n", b"axes.facecolor: red\nfigure.dpi: x\n"])
def test_a_matplotlibrc_in_the_current_folder_has_no_effect(content, tmp_path):
    (tmp_path / "matplotlibrc").write_bytes(content)
    program = (
        "from pathlib import Path\n"
        "from kerasgreedy.reports.figures import new_figure, write_figure\n"
        "def draw():\n    figure = new_figure(2, 2)\n    figure.subplots().plot([0, 1])\n    return figure\n"
        "write_figure(Path('a.png'), draw)\n"
        "import os, matplotlib\n"
        "assert os.path.exists('matplotlibrc') and matplotlib.rcParams['axes.facecolor'] == 'white'\n"
    )
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin", "MPLCONFIGDIR": str(tmp_path / "config")}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def draw():
        figure = new_figure(2, 2)
        figure.subplots().plot([0, 1])
        return figure

    write_figure(tmp_path / "b.png", draw)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
