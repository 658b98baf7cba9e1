"""Costs of a network before and after, for tables and in words.

A side is a dict: `parameters`, `multiply_adds` (of one image), `weights_bytes`, and where it was measured `latency`: batch size
as text -> `median_ms`, `low_ms`, `high_ms`, and on the second side `ratio` (before over after) with `ratio_low`, `ratio_high`.
"""

import math
from collections.abc import Mapping
from typing import Any

Costs = Mapping[str, Any]
SIDE_KEYS = ("parameters", "multiply_adds", "weights_bytes")
TIME_KEYS = ("median_ms", "low_ms", "high_ms")
RATIO_KEYS = ("ratio", "ratio_low", "ratio_high")
FASTER = 1.1  # below this, measured gains are not told from noise, nor worth a network of their own


def count(value: float) -> str:
    """138357544 as `138.4M`."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f}{unit}" if value < 100 * size else f"{value / size:.0f}{unit}"
    return str(int(value))


def bytes_text(value: float | None) -> str:
    """138357544 as `138.4MB`; `-` where it is not known."""
    return "-" if value is None else f"{count(value)}B"


def milliseconds(value: float) -> str:
    """Three figures or so: `0.213`, `4.31`, `1,204`."""
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}"


def latency_text(entry: Mapping[str, Any]) -> str:
    """Median and quartiles: `4.31 (4.20-4.55)`."""
    median, low, high = (milliseconds(entry[key]) for key in TIME_KEYS)
    return f"{median} ({low}-{high})"


def ratio_text(entry: Mapping[str, Any]) -> str:
    """`1.52x, 1.45-1.60`: how many times as fast, and its quartiles."""
    text = f"{entry['ratio']:.2f}x"
    return f"{text}, {entry['ratio_low']:.2f}-{entry['ratio_high']:.2f}" if {"ratio_low", "ratio_high"} <= entry.keys() else text


def batches_of(*sides: Costs) -> list[str]:
    """The batch sizes, ascending, that every side was measured with."""
    measured = [side.get("latency", {}) for side in sides]
    return sorted(set.intersection(*map(set, measured)), key=int)


def cost_ratios(before: Costs, after: Costs) -> dict[str, float]:
    """Before over after, of what is counted."""
    return {key: before[key] / after[key] for key in SIDE_KEYS}


def cost_rows(before: Costs, after: Costs) -> list[list[str]]:
    """[what, before, after, before over after], counted costs first, then measured ones."""
    ratios = cost_ratios(before, after)
    rows = [
        ["parameters", f"{before['parameters']:,}", f"{after['parameters']:,}"],
        ["multiply-adds", count(before["multiply_adds"]), count(after["multiply_adds"])],
        ["weights, float32", bytes_text(before["weights_bytes"]), bytes_text(after["weights_bytes"])],
    ]
    rows = [[*row, f"{ratios[key]:.2f}x"] for row, key in zip(rows, SIDE_KEYS, strict=True)]
    for batch in batches_of(before, after):
        one, two = before["latency"][batch], after["latency"][batch]
        ratio = ratio_text(two) if "ratio" in two else "-"
        rows.append([f"ms at batch {batch}", latency_text(one), latency_text(two), ratio])
    return rows


def not_faster(entry: Mapping[str, Any], where: str = "") -> str | None:
    """`not faster at batch 1 (0.98x, 0.95-1.01)` where the measured ratio is below 1.1, else None.

    `not surely faster ...` where it is higher, but a quarter of the rounds or more showed no gain at all.

    Args:
        where: ` at batch 1`.
    """
    ratio = entry.get("ratio", math.inf)
    if ratio >= FASTER:
        return f"not surely faster{where} ({ratio_text(entry)})" if entry.get("ratio_low", ratio) <= 1 else None
    slower = " but slower" if entry.get("ratio_high", ratio) < 1 / FASTER else ""
    return f"not faster{where}{slower} ({ratio_text(entry)})"


def speed_notes(after: Costs) -> list[str]:
    """A sentence for each batch size at which the second network is not faster."""
    notes = [not_faster(after["latency"][batch], f" at batch {batch}") for batch in batches_of(after)]
    return [note for note in notes if note]


def change_text(pruned: Mapping[str, Costs], batch: str) -> str:
    """`4.31 -> 2.80 (1.52x, 1.45-1.60)`, in words where it is not faster; `-` where it was not measured."""
    if batch not in batches_of(pruned["before"], pruned["after"]):
        return "-"
    one, two = (pruned[side]["latency"][batch] for side in ("before", "after"))
    text = f"{milliseconds(one['median_ms'])} -> {milliseconds(two['median_ms'])}"
    return f"{text}, {not_faster(two)}" if not_faster(two) else f"{text} ({ratio_text(two)})" if "ratio" in two else text
