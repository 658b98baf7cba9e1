"""docs/performance.md and docs/results.md: their commands, and figures that follow from the architecture alone."""

import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from documents import command_lines
from stand_ins import narrow, stand_in_folder

sys.path.insert(0, str(ROOT))  # the benchmarks are run from the checkout and not installed

from benchmarks.alternation import room
from benchmarks.costs import END_TO_END, Work
from benchmarks.specs import architecture_of, deep_spec, open_spec


def benchmark(page, line, *more):
    """A benchmark in this process; with `more` behind the line: its options only, if that is None."""
    words = shlex.split(line)
    assert words[:2] == ["python", "-m"], line
    module = importlib.import_module(words[2])
    page.patch.setattr(sys, "argv", [words[2], *words[3:], *(word for word in more if word)])
    return module._options() if more == (None,) else module.main()


def options_of(page, start):
    """The options of a block that is not run."""
    return [benchmark(page, line, None) for line in command_lines(page.not_run(start).text)]


@pytest.mark.slow
def test_page_performance(page):
    stand_in_folder(Path("cifar10"))
    options_of(page, "python -m benchmarks.throughput --check")
    options_of(page, "python -m benchmarks.throughput --spec")
    options_of(page, "python -m benchmarks.throughput --spec simcnn_k1_cifar --width 64")
    options_of(page, 'python -m benchmarks.throughput --spec simcnn_k3_cifar --contenders "ours float32" --before')
    (line,) = command_lines(page.take("python -m benchmarks.input").text)
    benchmark(page, line, "--width", "4", "--batch", "16", "--rounds", "1", "--steps", "1")
    memory = options_of(page, "python -m benchmarks.memory")
    (depth,) = options_of(page, "python -m benchmarks.depth")
    counted(page, memory, depth)
    for line, ways in zip(
        command_lines(page.take("python -m benchmarks.alternation").text), ("shared", "stored", "stored-pools"), strict=True
    ):
        options = benchmark(page, line, None)
        small = open_spec(options.spec)
        Path("small.yaml").write_text(yaml.safe_dump({**small, "blocks": narrow(small["blocks"][:1], 4)}))
        benchmark(
            page, line, "--spec", "small.yaml", "--ways", ways, "--batch", "2", "--stored", "8", "--rounds", "1", "--steps", "1"
        )
    rooms(page)
    options_of(page, "python -m benchmarks.convex")
    options_of(page, "python -m benchmarks.landscape")
    page.commands("kerasgreedy train simcnn_k3_cifar")
    options_of(page, "python -m benchmarks.end_to_accuracy")
    options_of(page, "python -m benchmarks.whole_runs")
    options_of(page, "python -m benchmarks.parity")


def counted(page, memory, depth):
    """The columns 'counted MiB an image' of the two tables of memory and of the one of depth."""

    def mib(arch, phase):
        return f"{Work.of(arch, phase).stored_bytes('float32') / 2**20:.2f}"

    for name, title in (
        ("simcnn_k1_cifar", "k = 1, J = 5, M = 256, float32:"),
        ("simcnn_k3_cifar", "k = 3, J = 4, M = 128, float32:"),
    ):
        table = page.text.split(title)[1].split("\n\n")[1]
        (options, *_) = [each for each in memory if each.spec == name and each.accumulation == 1]
        arch = architecture_of(open_spec(name))
        expected = [(str(phase), mib(arch, phase)) for phase in options.phases] + [("end to end", mib(arch, END_TO_END))]
        shown = re.findall(r"^\| ours \| (.*?) \|.* ([\d.]+) \|$", table, re.M)
        assert shown == expected, name
    arch = architecture_of(deep_spec(depth.layers, depth.width, depth.size, depth.k))
    assert {mib(arch, phase) for phase in depth.phases} == {"1.00"} and mib(arch, END_TO_END) == "8.01"
    page.says("| end to end, 16 blocks | | 2.020 | 892 | 1309 | 8.69 | 8.01 |")


def rooms(page):
    """The table of stored masks."""
    rows = re.findall(
        r"^\| (allcnn_c|nin_cifar10) \| (stored\S*) \| (\d+) \| ([\d,]+) \| ([\d,]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$",
        page.text,
        re.M,
    )
    assert len(rows) == 3
    for name, way, layers, units, one, total, floats, ratio in rows:
        own = room(open_spec(name), 50_000)[way]
        assert (layers, units, one) == (str(own["layers"]), f"{own['units']:,}", f"{own['bytes_an_image']:,}")
        assert (total, floats) == (f"{own['bytes'] / 1e9:.2f}", f"{own['float32_bytes'] / 1e9:.1f}")
        assert float(ratio) == pytest.approx(own["ratio"], abs=0.006)


@pytest.mark.slow  # four trainings more; what else is said on this page are measured figures
def test_page_results(page):
    stand_in_folder(Path("cifar10"))
    *_, compared = page.commands("kerasgreedy train simcnn_k1_cifar")
    assert "k1" in compared.out
    whole = ["--set", "precision=float32"]  # bfloat16 takes a minute to trace; README.md has a run of it
    *_, compared = page.commands("kerasgreedy train simcnn_k3_compress", dict.fromkeys(range(3), whole))
    assert "->" in compared.out  # costs before and after pruning
