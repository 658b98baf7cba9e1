"""Line charts as SVG inside a page, in the page's colours."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kerasgreedy.reports.page import escape

WIDTH, HEIGHT = 440, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 10, 12, 40
_COLOURS = 6
MOST_POINTS, LARGEST = 400, 1e30
_DASHES = ("", "6 4", "2 3", "9 3 2 3")


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        name: in the legend.
        points: (x, y), in order of x; what is not finite is a gap.
        colour: number of a colour; dash: number of a pattern, so that lines differ in print too.
        marks: a dot at every point.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    dash: int = 0
    marks: bool = False


def line_chart(
    title: str, x_name: str, y_name: str, lines: Sequence[Line], breaks: Sequence[float] = (), whole: bool = False
) -> str:
    """A figure with a caption and a legend; empty where there are no finite points.

    Args:
        breaks: values of x with a thin vertical line, where one phase ends.
        whole: only whole numbers on the x axis.
    """
    lines = [replace(line, points=_thinned(line.points)) for line in lines]
    finite = [(x, y) for line in lines for x, y in line.points if math.isfinite(x) and math.isfinite(y)]
    if not finite:
        return ""
    xs, ys = zip(*finite, strict=True)
    x_ticks, y_ticks = ticks(min(xs), max(xs), whole=whole), ticks(min(ys), max(ys))
    x_range = (min(xs), max(xs)) if whole else (min(min(xs), x_ticks[0]), max(max(xs), x_ticks[-1]))
    y_range = (min(min(ys), y_ticks[0]), max(max(ys), y_ticks[-1]))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_range[0]) / ((x_range[1] - x_range[0]) or 1)
        up = (y - y_range[0]) / ((y_range[1] - y_range[0]) or 1)
        return _LEFT + across * (WIDTH - _LEFT - _RIGHT), HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM)

    parts = [f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{escape(title)}'>"]
    for tick in y_ticks:
        _, y = place(x_range[0], tick)
        parts.append(f"<line class='grid' x1='{_LEFT}' x2='{WIDTH - _RIGHT}' y1='{y:.1f}' y2='{y:.1f}'/>")
        parts.append(f"<text x='{_LEFT - 6}' y='{y + 4:.1f}' text-anchor='end'>{_shown(tick, y_ticks)}</text>")
    for tick in x_ticks:
        x, _ = place(tick, y_range[0])
        parts.append(f"<text x='{x:.1f}' y='{HEIGHT - _BOTTOM + 16}' text-anchor='middle'>{_shown(tick, x_ticks)}</text>")
    for value in breaks:
        x, _ = place(value, y_range[0])
        parts.append(f"<line class='grid' stroke-dasharray='2 3' x1='{x:.1f}' x2='{x:.1f}' y1='{_TOP}' y2='{HEIGHT - _BOTTOM}'/>")
    parts.append(f"<line class='axis' x1='{_LEFT}' x2='{WIDTH - _RIGHT}' y1='{HEIGHT - _BOTTOM}' y2='{HEIGHT - _BOTTOM}'/>")
    parts.append(f"<text x='{(WIDTH + _LEFT) / 2}' y='{HEIGHT - 6}' text-anchor='middle'>{escape(x_name)}</text>")
    middle = (HEIGHT - _BOTTOM + _TOP) / 2
    parts.append(f"<text transform='translate(13 {middle}) rotate(-90)' text-anchor='middle'>{escape(y_name)}</text>")
    for line in lines:
        style = (
            f"stroke='var(--c{line.colour % _COLOURS})' stroke-width='2' fill='none' stroke-dasharray='{_DASHES[line.dash % 4]}'"
        )
        for run in _runs(line.points):
            corners = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in run)
            parts.append(f"<polyline {style} points='{corners}'/>")
            if line.marks or len(run) == 1:
                dots = (place(x, y) for x, y in run)
                parts += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3.5' fill='var(--c{line.colour % _COLOURS})'/>" for x, y in dots]
    return f"<figure>{''.join(parts)}</svg><figcaption>{escape(title)}{_legend(lines)}</figcaption></figure>"


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most some `MOST_POINTS` of them, the last among them; what no axis can show is a gap."""
    step = -(-len(points) // MOST_POINTS) if points else 1
    kept = [*points[::step], *(points[-1:] if (len(points) - 1) % step else [])]
    return [(x, y) if abs(y) < LARGEST else (x, math.nan) for x, y in kept]


def ticks(low: float, high: float, most: int = 5, whole: bool = False) -> list[float]:
    """Round numbers that cover a range, at most `most` steps apart."""
    if high <= low:
        high = low + (1 if whole else abs(low) * 0.1 or 1)
    raw = (high - low) / most
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    if whole:
        step = max(1, math.ceil(step))
        return [float(value) for value in range(math.ceil(low), math.floor(high) + 1, step)]
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _shown(value: float, among: Sequence[float]) -> str:
    step = min((b - a for a, b in itertools.pairwise(among)), default=1.0)
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    scaled = step * 10**digits
    return f"{value:.{min(digits + (abs(scaled - round(scaled)) > 1e-6), 8)}f}"


def _runs(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Stretches without a gap."""
    found: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if math.isfinite(x) and math.isfinite(y):
            found[-1].append((x, y))
        elif found[-1]:
            found.append([])
    return [run for run in found if run]


def _legend(lines: Sequence[Line]) -> str:
    if len(lines) < 2:
        return ""
    entries = []
    for line in lines:
        stroke = f"stroke='var(--c{line.colour % _COLOURS})' stroke-width='3' stroke-dasharray='{_DASHES[line.dash % 4]}'"
        sample = f"<svg style='width:28px;height:10px' viewBox='0 0 28 10'><line x1='0' x2='28' y1='5' y2='5' {stroke}/></svg>"
        entries.append(f"<span style='white-space:nowrap;margin-left:.9em'>{sample} {escape(line.name)}</span>")
    return "<br>" + " ".join(entries)
