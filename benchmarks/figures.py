"""Medians, spreads and lines; tables, pictures and the JSON object at the end."""

import argparse
import datetime
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("kerasgreedy", "tensorflow", "keras", "torch", "numpy")
QUIET = 0.1  # cores that others may use


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, 10th and 90th percentile."""
    low, middle, high = np.percentile(values, [10, 50, 90])
    return {"median": float(middle), "p10": float(low), "p90": float(high)}


def harmonic_mean(values: Sequence[float]) -> float:
    """Of speeds: the speed of doing as much at each of them."""
    return len(values) / sum(1 / value for value in values)


def line_fit(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """Least squares y = slope * x + constant; needs two different x."""
    slope, constant = np.polyfit(x, y, 1)
    return {"slope": float(slope), "constant": float(constant)}


def spread_text(values: dict[str, float] | None) -> str:
    """`1.12 (1.08-1.15)`, or a dash where there is nothing to compare with."""
    return "-" if values is None else f"{values['median']:.2f} ({values['p10']:.2f}-{values['p90']:.2f})"


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def put_table(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A Markdown table, so that it can be carried into the documents as it is."""
    lines = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in lines) for column in range(len(header))]
    shown = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in lines]
    shown.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    print("\n".join(["", f"**{title}**", "", *shown]))


class Machine:
    """What the figures were measured on, and how much of it others used from here on.

    OpenMP, PyTorch's threads, waits for the slowest thread at every barrier and so suffers more from company than
    TensorFlow's pool does: on a busy machine a ratio says little.
    """

    def __init__(self) -> None:
        self._before = (time.monotonic(), _busy_seconds(), _own_seconds())
        self.time = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

    def facts(self) -> dict[str, Any]:
        """For the result; call it when all workers have ended, for only then their time is known to be ours."""
        since, busy, own = self._before
        others = (_busy_seconds() - busy) - (_own_seconds() - own)
        versions = {}
        for name in PACKAGES:
            try:
                versions[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                versions[name] = None
        info = Path("/proc/cpuinfo").read_text()
        models = [line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")]
        return {
            "cpu": models[0] if models else platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "cores_used_by_others": max(0.0, round(others / (time.monotonic() - since), 3)),
            "time": self.time,
            "python": platform.python_version(),
            **versions,
        }


def _busy_seconds() -> float:
    """Seconds that all cores together have worked since the start of the machine (proc(5), stat; idle and iowait left out)."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    return sum(os.times()[:4])


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that every script has."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", action="store_true", help="end standard output with one JSON object")
    options.add_argument("--plot", type=Path, metavar="FILE.png", help="also draw the figures")
    return options


def numbers(text: str) -> list[int]:
    """`1,2,4` for argparse."""
    values = [int(part) for part in text.split(",")]
    if not values or min(values) < 1:
        raise ValueError(text)
    return values


def conclude(options: argparse.Namespace, result: dict[str, Any], figure: Any = None) -> None:
    """Writes the picture and the JSON object where they were asked for; warns when the machine was not quiet."""
    others = result.get("machine", {}).get("cores_used_by_others", 0.0)
    if others > QUIET:
        say(f"warning: others used {others:.2f} cores meanwhile; measure again on a quiet machine")
    if options.plot and figure is not None:
        options.plot.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(options.plot)
    if options.json:
        print(json.dumps(result))


def new_figure(width: float = 7.5, height: float = 4.2) -> Any:
    """A matplotlib figure that needs no display."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=130, layout="constrained")


def grouped_bars(axes: Any, groups: Sequence[str], series: dict[str, Sequence[float]]) -> None:
    """Bars side by side: one group a place on the x axis, one colour a series."""
    width = 0.8 / len(series)
    for index, (name, heights) in enumerate(series.items()):
        places = np.arange(len(groups)) + (index - (len(series) - 1) / 2) * width
        axes.bar(places, heights, width, label=name)
    axes.set_xticks(np.arange(len(groups)), groups)
    if len(series) > 1:
        axes.legend(fontsize=7)
