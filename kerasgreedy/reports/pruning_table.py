"""What pruning did to a network while it was trained: table and plot, from the stages in `results.json`."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from kerasgreedy.reports.costs import count
from kerasgreedy.reports.figures import legend_below, new_figure

Entries = Sequence[dict[str, Any]]


def prune_rows(stages: Entries) -> tuple[list[str], list[list[str]]]:
    """One row for each removal: filters and costs before and after, and validation accuracy around it."""
    header = ["removal", "filters", "parameters", "multiply-adds", "accuracy before", "after", "after fine-tuning"]
    rows = []
    for index, entry in enumerate(stages):
        if not _removes(entry):
            continue
        looked = entry["validation"]
        filters = [sum(sizes[side] for sizes in entry["filters"].values()) for side in (0, 1)]
        rows.append(
            [
                entry["phase"],
                f"{filters[0]} -> {filters[1]}",
                " -> ".join(map(count, entry["parameters"])),
                " -> ".join(map(count, entry["multiply_adds"])),
                *([_percent(looked[side]) for side in ("before", "after")] if looked else ["-", "-"]),
                _percent(_fine_tuned(stages, index)),
            ]
        )
    return header, rows


# A stage that was looked at: its entry, what it did (`trained`, `filters removed`, `fine-tuned`), and its accuracy.
Point: TypeAlias = tuple[dict[str, Any], str, float]


def pruning_points(stages: Entries) -> list[Point]:
    """The stages that were looked at; empty where nothing was pruned."""
    points = [(entry, _kind(stages, i), seen) for i, entry in enumerate(stages) if (seen := _seen(entry)) is not None]
    return points if any(_removes(entry) for entry, _, _ in points) else []


def draw_pruning(points: Sequence[Point], title: str) -> Any:
    """Validation accuracy after every stage: trained, pruned, fine-tuned."""
    figure = new_figure(max(6.0, 0.75 * len(points) + 2), 4.2)
    axes = figure.subplots()
    places = range(len(points))
    heights = [100 * seen for _, _, seen in points]
    axes.plot(places, heights, "-", color="0.75", zorder=1)
    kinds = [("o", "C0", "trained"), ("v", "C3", "filters removed"), ("s", "C2", "fine-tuned")]
    for marker, colour, label in kinds:
        chosen = [place for place, (_, kind, _) in zip(places, points, strict=True) if kind == label]
        if chosen:
            axes.plot(chosen, [heights[i] for i in chosen], marker, color=colour, label=label, zorder=2)
    for place, (_, kind, _), height in zip(places, points, heights, strict=True):
        away = (0, -12) if kind == "filters removed" else (0, 6)  # from the line, which has its lowest places there
        axes.annotate(f"{height:.1f}", (place, height), textcoords="offset points", xytext=away, ha="center", fontsize=7)
    axes.set_xticks(list(places), [entry["phase"] for entry, _, _ in points], rotation=30, ha="right", fontsize=8)
    axes.set_ylabel("validation accuracy, %")
    axes.set_title(title, fontsize=10)
    axes.margins(y=0.12)
    axes.grid(alpha=0.3)
    legend_below(figure, axes)
    return figure


def _removes(entry: dict[str, Any]) -> bool:
    return entry.get("action") in ("prune", "threshold")


def _kind(stages: Entries, index: int) -> str:
    if _removes(stages[index]):
        return "filters removed"
    return "fine-tuned" if index and _fine_tuning(stages, index - 1) else "trained"


def _fine_tuning(stages: Entries, index: int) -> dict[str, Any] | None:
    """The entry of the fine-tuning that belongs to a removal, if there is one: the next stage, with the removal's own name."""
    entry, after = stages[index], stages[index + 1 : index + 2]
    own = "fine_tune" + entry["phase"].removeprefix(entry.get("action", ""))
    return after[0] if _removes(entry) and after and after[0]["phase"] == own else None


def _seen(entry: dict[str, Any]) -> float | None:
    looked = entry.get("validation")
    if looked is None:
        return None
    return float((looked["after"] if _removes(entry) else looked)["top1"])


def _fine_tuned(stages: Entries, index: int) -> dict[str, float] | None:
    tuned = _fine_tuning(stages, index)
    return tuned.get("validation") if tuned else None


def _percent(scores: dict[str, float] | None) -> str:
    return "-" if scores is None else f"{100 * scores['top1']:.2f}"
