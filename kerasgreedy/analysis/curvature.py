"""The Hessian of the loss in all weights, by its products with vectors: ends of the spectrum, trace, convexity around."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from kerasgreedy.analysis.analysis import Analysis, Desk, Table
from kerasgreedy.analysis.directions import filter_normalized
from kerasgreedy.analysis.lanczos import Extremes, Product, hutchinson, lanczos
from kerasgreedy.analysis.landscape import plain
from kerasgreedy.analysis.replay import Through, at_once
from kerasgreedy.analysis.subject import Subject
from kerasgreedy.errors import Diverged
from kerasgreedy.network.points import Points, usual_batch
from kerasgreedy.reports.countdown import Countdown
from kerasgreedy.reports.curvature_plot import draw_convexity, draw_eigenvalues
from kerasgreedy.spec.analyses_of_loss import Curvature

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _product(points: Points, theta: "NDArray[Any]", batches: slice, through: Through) -> Product:
    return lambda vector: through(lambda: points.hessian_product(theta, vector, batches))


def eigenvalues(
    points: Points,
    theta: "NDArray[Any]",
    steps: int = 40,
    tolerance: float = 0.01,
    seed: int = 0,
    batches: slice = slice(None),
    through: Through = at_once,
) -> Extremes:
    """The largest and the smallest eigenvalue of the Hessian of the mean loss at theta.

    Args:
        points: the model and the sample; batch norm is in inference mode.
        theta: (size,).
        steps, tolerance, seed: see `lanczos`.
        batches: of the sample, those that the loss is over.
        through: takes every product, such as `Replay`.
    """
    product = _product(points, theta, batches, through)
    return lanczos(product, points.parameters.size, steps, seed, tolerance, points.parameters.dtype)


def trace(
    points: Points,
    theta: "NDArray[Any]",
    draws: int = 10,
    seed: int = 0,
    batches: slice = slice(None),
    through: Through = at_once,
) -> tuple[float, float]:
    """The Hessian's trace at theta and its standard error, see `hutchinson`; arguments as of `eigenvalues`."""
    return hutchinson(_product(points, theta, batches, through), points.parameters.size, draws, seed)


# A Ritz value is never below the smallest eigenvalue: one that is negative beyond rounding proves that this one is.
ROUNDING = 1e-5


class CurvatureAnalysis(Analysis[Curvature]):
    """`kerasgreedy curvature`."""

    subjects: ClassVar[tuple[int, int | None]] = (1, None)

    def measure(self, subjects: Sequence[Subject], desk: Desk) -> dict[str, Any]:
        """Eigenvalues and trace of each network on each part of the images; on a plane if asked for."""
        settings = self.settings
        each = settings.batches + settings.surface**2
        countdown = desk.countdown("spectra", len(subjects) * each)
        runs = []
        for number, subject in enumerate(subjects):
            points, slices = self._points(subject)
            theta = points.parameters.read()
            parts = []
            for part, rows in enumerate(slices):
                key = f"{number}/part/{part}"
                parts.append(desk.measured(key, countdown, partial(self._at, points, theta, rows, desk, key)))
            entry = {"name": subject.name, **subject.facts, "examples": points.examples, "parts": parts, **_summary(parts)}
            if settings.surface:
                entry |= self._surface(points, theta, desk, f"{number}/plane", countdown)
            runs.append(entry)
        return {"part": settings.part, "seed": settings.seed, "runs": runs}

    def tables(self, found: dict[str, Any]) -> list[Table]:
        """A row for each network."""
        header = ["network", "images", "largest", "smallest", "its error", "trace", "products", "converged"]
        rows = []
        for run in found["runs"]:
            row = [run["name"], f"{run['examples']:,}", *(_spread(run[key]) for key in ("largest", "smallest"))]
            row += [f"{max(part['smallest_error'] for part in run['parts']):.2g}"]
            row += [_spread(run["trace"]) if "trace" in run else "-", str(sum(part["steps"] for part in run["parts"]))]
            rows.append([*row, "yes" if all(part["converged"] for part in run["parts"]) else "no"])
        title = f"eigenvalues of the Hessian of the loss, {found['part']} images, batch norm as in inference"
        found_tables = [Table("curvature", header, rows, title)]
        planes = [run for run in found["runs"] if "plane" in run]
        if planes:
            shares = []
            for run in planes:
                plane = run["plane"]
                figures = [f"{plane['negative_share']:.3f}", f"{plane['mean_ratio']:.3g}"]
                shares.append([run["name"], str(len(plane["axis"]) ** 2), str(plane["converged"]), *figures])
            words = "how convex the loss is on a filter-normalised plane"
            found_tables.append(
                Table(
                    "convexity",
                    ["network", "points", "converged", "share with a negative eigenvalue", "mean |smallest| / largest"],
                    shares,
                    words,
                )
            )
        return found_tables

    def figures(self, found: dict[str, Any]) -> dict[str, Callable[[], Any]]:
        """Eigenvalues, and the map of their ratio."""
        drawn: dict[str, Callable[[], Any]] = {"curvature": lambda: draw_eigenvalues(found)}
        if any("plane" in run for run in found["runs"]):
            drawn["convexity"] = lambda: draw_convexity(found)
        return drawn

    def _points(self, subject: Subject) -> tuple[Points, list[slice]]:
        """The sample, and which of its batches each part has: all parts are equal."""
        sample = subject.sample(self.settings.part, self.settings.examples)
        parts = min(self.settings.batches, len(sample.labels))
        share = len(sample.labels) // parts
        count = math.ceil(share / usual_batch(sample.images))
        batch = share // count
        used = parts * count * batch
        points = Points(subject.model, sample.images[:used], sample.labels[:used], subject.losses, batch)
        return points, [slice(part * count, (part + 1) * count) for part in range(parts)]

    def _at(self, points: Points, theta: "NDArray[Any]", rows: slice, desk: Desk, key: str) -> dict[str, Any]:
        settings = self.settings
        through = desk.replayed(key, points.parameters.size, points.parameters.dtype)
        ends = eigenvalues(points, theta, settings.steps, settings.tolerance, settings.seed, rows, through)
        found = {
            key: getattr(ends, key) for key in ("largest", "smallest", "largest_error", "smallest_error", "steps", "converged")
        }
        if settings.draws:
            found["trace"], found["trace_error"] = trace(points, theta, settings.draws, settings.seed, rows, through)
            if settings.draws == 1:
                found["trace_error"] = None
        return found

    def _ends(self, points: Points, theta: "NDArray[Any]", desk: Desk, key: str) -> list[Any] | None:
        """[largest, smallest, converged] at a point; None where the loss or a product is not finite."""
        settings = self.settings
        through = desk.replayed(key, points.parameters.size, points.parameters.dtype)
        try:
            ends = eigenvalues(points, theta, settings.steps, settings.tolerance, settings.seed, through=through)
        except Diverged:
            return None
        return [ends.largest, ends.smallest, ends.converged]

    def _surface(self, points: Points, theta: "NDArray[Any]", desk: Desk, place: str, countdown: Countdown) -> dict[str, Any]:
        settings = self.settings
        directions = [filter_normalized(points.parameters, theta, settings.seed, number) for number in range(2)]
        axis = np.linspace(-settings.span, settings.span, settings.surface)
        shape = (settings.surface, settings.surface)
        largest, smallest = np.zeros(shape), np.zeros(shape)
        converged = np.zeros(shape, bool)
        for i, j in np.ndindex(shape):
            point = theta + (axis[i] * directions[0] + axis[j] * directions[1]).astype(theta.dtype)
            key = f"{place}/{i}/{j}"
            found = desk.measured(key, countdown, partial(self._ends, points, point, desk, key))
            largest[i, j], smallest[i, j], converged[i, j] = found or (np.nan, np.nan, False)
        known_points = np.isfinite(smallest)
        if not known_points.any():
            raise Diverged("the curvature is finite nowhere on the plane; --span less")
        ratio = np.abs(np.minimum(smallest, 0)) / np.maximum(np.abs(largest), 1e-30)
        plane = {
            "axis": axis.tolist(),
            "largest": plain(largest),
            "smallest": plain(smallest),
            "negative_share": float(np.mean(smallest[known_points] < -ROUNDING * np.abs(largest[known_points]))),
            "mean_ratio": float(ratio[known_points].mean()),
            "converged": int(converged.sum()),
            "not_finite": int((~known_points).sum()),
        }
        return {"plane": plane}


def _summary(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """(mean, standard deviation) over the parts."""
    keys = [key for key in ("largest", "smallest", "trace") if key in parts[0]]
    return {key: [float(np.mean([p[key] for p in parts])), float(np.std([p[key] for p in parts]))] for key in keys}


def _spread(values: Sequence[float]) -> str:
    return f"{values[0]:.4g} ± {values[1]:.2g}" if values[1] else f"{values[0]:.4g}"
