"""Pages about runs: what is on them, that they stand alone, and how they are written."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from kerasgreedy.errors import InputError, WorkdirError
from kerasgreedy.network.answers import count_answers, surest_mistakes
from kerasgreedy.reports.answers_table import class_rows
from kerasgreedy.reports.charts import Line, line_chart, ticks
from kerasgreedy.reports.page import page, table
from kerasgreedy.reports.page_file import write_page
from kerasgreedy.reports.run_files import read_run
from kerasgreedy.reports.run_page import runs_page
from kerasgreedy.train.entry_points import train_spec

SPEC = "name: s\nblocks: [{conv: 4}, {conv: 4}]\nauxiliary_head: {pool_to: 2}\n"
RECIPE = "name: r\ndata: {dataset: digits, train_examples: 200, test_examples: 60}\ntraining: {epochs: 2, batch_size: 20}\n"
VOID = {"meta", "img", "br", "line", "circle", "polyline"}


class Tree(HTMLParser):
    """Every tag that is opened is closed; collects what is linked and shown."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.texts = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.links += [value for key, value in attributes if key in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    (folder / "s.yaml").write_text(SPEC)
    (folder / "r.yaml").write_text(RECIPE)
    return train_spec(folder / "s.yaml", folder / "r.yaml", workdir=folder / "a<b>&run", quiet=True)


def test_a_training_ends_with_a_page_that_stands_alone(run):
    text = (run.workdir / "report.html").read_text()
    tree = Tree(text)
    assert len(text) < 200_000 and all(link.startswith("data:image/jpeg;base64,") for link in tree.links)
    assert "<script" not in text and not re.search(r"url\(|@import|https?://", text)
    shown = "".join(tree.texts)
    assert "a<b>&run" in shown and "a<b>" not in text  # names of folders are no tags
    for entry in run.results["depths"]:
        assert f"{100 * entry['top1']:.2f}" in shown
    for word in ("Accuracy by depth", "Training", "block_2", "The surest mistakes", "kerasgreedy train", "spec.yaml", "conv: 4"):
        assert word in shown, word


def test_its_figures_are_those_of_the_run(run):
    details = json.loads((run.workdir / "evaluation/test/details.json").read_text())
    counts = np.array(details["confusion"])
    assert counts.sum() == details["examples"] == 60 and details["accuracy"] == pytest.approx(run.results["depths"][-1]["top1"])
    assert counts.sum(1).tolist() == [entry["images"] for entry in details["classes"]]
    assert len(details["samples"]) == 12 and [entry["place"] for entry in details["samples"]] == list(range(12))
    off = sorted((counts - np.diag(np.diag(counts))).ravel(), reverse=True)
    assert [pair["images"] for pair in details["confused"]] == [value for value in off if value][:20]
    records = [r for r in read_run(run.workdir).metrics if r["split"] == "train"]
    spent = [record["elapsed_seconds"] for record in records]
    assert spent == sorted(spent) and all(record["peak_memory_bytes"] > 1e7 for record in records)


def test_the_command_writes_several_on_one_page(run, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").symlink_to(run.workdir)
    code, out, err = call(f"report '{run.workdir}' --out {tmp_path}/one.html --json")
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["bytes"] == (tmp_path / "one.html").stat().st_size
    both = runs_page([read_run(run.workdir), read_run(run.workdir)])
    Tree(both)
    assert both.count("The surest mistakes") == 2
    (tmp_path / "mine.html").write_text("mine")
    for line, words in (
        (f"report '{run.workdir}' --out mine.html", "was not made by kerasgreedy"),
        (f"report '{run.workdir}' --out mine.txt", "ends in .html"), (f"report {tmp_path}", "no results.json"),
    ):  # fmt: skip
        code, _, err = call(line)
        assert code == 2 and words in err
    assert (tmp_path / "mine.html").read_text() == "mine"


def test_damaged_details_are_said(run):
    file = run.workdir / "evaluation/test/details.json"
    before = file.read_text()
    try:
        file.write_text('{"depth": 1}')
        with pytest.raises(WorkdirError, match="details.json: damaged .classes is missing"):
            runs_page([read_run(run.workdir)])
        file.unlink()
        assert "surest" not in runs_page([read_run(run.workdir)])  # older runs have none
    finally:
        file.write_text(before)


def test_too_large_a_page_is_refused(tmp_path):
    with pytest.raises(InputError, match="1,000,"):
        write_page(tmp_path / "a.html", page("t", ["x" * 1_000_001]))
    write_page(tmp_path / "a.html", page("t", ["x"]))
    write_page(tmp_path / "a.html", page("t", ["y"]))
    assert list(tmp_path.iterdir()) == [tmp_path / "a.html"]


@pytest.mark.parametrize(
    ("low", "high", "whole", "expected"),
    [
        (0, 1, False, [0, 0.2, 0.4, 0.6, 0.8, 1]), (25, 42, False, [25, 30, 35, 40, 45]), (1, 5, True, [1, 2, 3, 4, 5]),
        (0, 30, True, [0, 10, 20, 30]), (3, 3, True, [3, 4]), (0.5, 0.5, False, [0.5, 0.51, 0.52, 0.53, 0.54, 0.55]),
        (-0.02, 0.02, False, [-0.02, -0.01, 0, 0.01, 0.02]),
    ],
)  # fmt: skip
def test_ticks_are_round_and_cover_the_range(low, high, whole, expected):
    assert ticks(low, high, whole=whole) == pytest.approx(expected)


def test_points_of_a_chart_are_where_they_belong():
    """Two points at the corners of the plot, a gap in between: two single dots and no line between them."""
    drawn = line_chart("t", "x", "y", [Line("a", [(0, 0.0), (1, float("nan")), (2, 1.0)])])
    Tree(drawn)
    dots = [tuple(map(float, found)) for found in re.findall(r"<circle cx='([\d.]+)' cy='([\d.]+)'", drawn)]
    assert dots == [(58, 220), (430, 12)]
    assert line_chart("t", "x", "y", [Line("a", [(0, float("inf"))])]) == ""


def test_cells_are_text():
    assert "&lt;b&gt;" in table(["<b>"], [["<i>"]]) and "<i>" not in table(["a"], [["<i>"]])


def test_answers_by_hand():
    """Labels 0 0 1 2, answers 0 1 0 2; the two mistakes, 0.9 sure and 0.6 sure."""
    sure = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.9, 0.05, 0.05], [0.1, 0.1, 0.8]])
    labels = np.array([0, 0, 1, 2])
    assert count_answers(labels, sure.argmax(1), 3).tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert surest_mistakes(sure, labels, 5).tolist() == [2, 1] and surest_mistakes(sure, labels, 1).tolist() == [2]
    details = {
        "classes": [{"name": n, "images": i, "right": r} for n, i, r in (("a", 2, 1), ("b", 1, 0), ("c", 1, 1))],
        "confusion": [[1, 1, 0], [1, 0, 0], [0, 0, 1]],
    }
    assert class_rows(details)[1:] == [
        ["a", 2, 1, "50.0", 1, "b (1)"],
        ["b", 1, 0, "0.0", 1, "a (1)"],
        ["c", 1, 1, "100.0", 0, ""],
    ]


def test_pictures_keep_their_shape(tmp_path):
    from kerasgreedy.data.thumbnails import thumbnail

    content = thumbnail(np.zeros((400, 200, 3), np.uint8))
    (tmp_path / "a.jpg").write_bytes(content)
    assert Image.open(tmp_path / "a.jpg").size == (48, 96)
