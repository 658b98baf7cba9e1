"""`kerasgreedy weights`: their norm over training, and how they are distributed at its end (landscape slides, Figure 2)."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from kerasgreedy.analysis.analysis import Analysis, Desk, Table
from kerasgreedy.analysis.subject import Subject
from kerasgreedy.network.parameters import Parameters
from kerasgreedy.reports.run_files import read_metrics
from kerasgreedy.reports.weights_plot import draw_weights
from kerasgreedy.spec.analyses_of_layers import WeightSizes

# Shares of weights are given below the first and above the others of these sizes.
SMALL, LARGE = 0.001, (0.1, 0.5)


class WeightsAnalysis(Analysis[WeightSizes]):
    """Norms by epoch from `metrics.jsonl`, histograms of the weights that have filters: no biases, no batch norm."""

    subjects: ClassVar[tuple[int, int | None]] = (1, None)

    def measure(self, subjects: Sequence[Subject], desk: Desk) -> dict[str, Any]:
        """All histograms have the same bins."""
        weights = [_kernels(subject) for subject in subjects]
        reach = self.settings.reach or float(max(np.quantile(np.abs(each), 0.999) for each in weights)) or 1.0
        edges = np.linspace(-reach, reach, self.settings.bins + 1)
        runs = []
        for subject, own in zip(subjects, weights, strict=True):
            counts, _ = np.histogram(own, edges)
            sizes = np.abs(own)
            runs.append(
                {
                    "name": subject.name,
                    **subject.facts,
                    "weights": int(own.size),
                    "norm": float(np.sqrt(np.square(own, dtype=np.float64).sum())),
                    "deviation": float(own.std(dtype=np.float64)),
                    "below": float((sizes < SMALL).mean()),
                    "above": {str(size): float((sizes > size).mean()) for size in LARGE},
                    "histogram": counts.tolist(),
                    "outside": int(own.size - counts.sum()),
                    "norms": _norms(subject),
                }
            )
        return {"edges": edges.tolist(), "runs": runs}

    def tables(self, found: dict[str, Any]) -> list[Table]:
        """A row for each run."""
        header = [
            "run",
            "weights",
            "norm",
            "deviation",
            f"share below {SMALL}",
            *(f"above {size}" for size in LARGE),
            "norm of all, first",
            "last",
        ]
        rows = []
        for run in found["runs"]:
            ends = [f"{run['norms'][i]['norm']:.4g}" if run["norms"] else "-" for i in (0, -1)]
            shares = [f"{run['below']:.4f}", *(f"{share:.2e}" for share in run["above"].values())]
            rows.append([run["name"], f"{run['weights']:,}", f"{run['norm']:.4g}", f"{run['deviation']:.4g}", *shares, *ends])
        return [Table("weights", header, rows, "weights of convolutions and dense layers; norms of all trained weights by epoch")]

    def figures(self, found: dict[str, Any]) -> dict[str, Callable[[], Any]]:
        """Norms and histograms."""
        return {"weights": lambda: draw_weights(found)}


def _kernels(subject: Subject) -> Any:
    parameters = Parameters(subject.model)
    theta = parameters.read()
    return np.concatenate([theta[tensor.start : tensor.stop] for tensor in parameters.tensors if tensor.filters])


def _norms(subject: Subject) -> list[dict[str, Any]]:
    """Epochs done over all phases, and the norm of what the phase trained; none of runs of older versions."""
    heads = [head.name for head in subject.parts.network.architecture.heads[: subject.parts.depth]]
    found: dict[tuple[int, int], float] = {}
    for record in read_metrics(subject.parts.folder.path):
        if record["split"] == "train" and "weight_norm" in record and record.get("head") in heads:
            found[record["phase"], record["epoch"]] = record["weight_norm"]
    return [{"phase": phase, "epoch": epoch, "norm": norm} for (phase, epoch), norm in sorted(found.items())]
