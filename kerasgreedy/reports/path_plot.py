"""A regularisation path as a picture: accuracy and loss at the end of each of its problems, from the files of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kerasgreedy.reports.figures import new_figure, plain_numbers
from kerasgreedy.reports.run_files import REFRESH


@dataclass(frozen=True)
class PathPoint:
    """Where a problem of a path was left.

    Attributes:
        factor: of its penalties, or of its ball.
        loss, accuracy: split -> mean over the heads, at the end of its last epoch.
    """

    factor: float
    loss: dict[str, float]
    accuracy: dict[str, float]


def path_problems(stages: Sequence[dict[str, Any]], metrics: Sequence[dict[str, Any]]) -> dict[str, list[PathPoint]]:
    """Phase -> its problems; only phases that followed a path."""
    found = {}
    for entry in stages:
        path = (entry.get("fista") or {}).get("path") or []
        own = [r for r in metrics if r.get("phase_name") == entry["phase"] and r["split"] != REFRESH]
        problems = [_problem(solved, [r for r in own if r["epoch"] == solved["epoch"]]) for solved in path]
        if len(problems) > 1:
            found[entry["phase"]] = problems
    return found


def _problem(solved: dict[str, Any], records: Sequence[dict[str, Any]]) -> PathPoint:
    splits = {split: [r for r in records if r["split"] == split] for split in dict.fromkeys(r["split"] for r in records)}
    loss, accuracy = (
        {split: sum(r[key] for r in own) / len(own) for split, own in splits.items()} for key in ("loss", "accuracy")
    )
    return PathPoint(solved["factor"], loss, accuracy)


def draw_path(phases: dict[str, list[PathPoint]]) -> Any:
    """Accuracy above, loss below, against the factor; full lines: training images, dashed: validation."""
    figure = new_figure(7, 6)
    axes = figure.subplots(2, 1, sharex=True)
    for index, (phase, problems) in enumerate(phases.items()):
        factors = [problem.factor for problem in problems]
        for split, style in (("train", "o-"), ("validation", "s--")):
            if all(split in problem.loss for problem in problems):
                words = f"{phase}, {'training' if split == 'train' else split}"
                shared: dict[str, Any] = {"color": f"C{index % 10}", "label": words}
                axes[0].plot(factors, [100 * problem.accuracy[split] for problem in problems], style, **shared)
                axes[1].plot(factors, [problem.loss[split] for problem in problems], style, **shared)
    for axis, name in zip(axes, ("accuracy, %", "loss"), strict=True):
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    axes[1].set_xscale("log")
    plain_numbers(axes[1].xaxis)
    axes[1].set_xlabel("factor of the penalties, or of the ball's radius")
    return figure
