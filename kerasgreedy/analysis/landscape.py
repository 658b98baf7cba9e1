"""The loss on lines and planes in the space of weights (Li et al. 2018)."""

import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from kerasgreedy.analysis.analysis import Analysis, Desk, Ledger, Table
from kerasgreedy.analysis.directions import filter_normalized, principal
from kerasgreedy.analysis.pairs import pair
from kerasgreedy.analysis.subject import Subject, kept_points
from kerasgreedy.data.pipeline import Part
from kerasgreedy.errors import InputError
from kerasgreedy.network.parameters import Parameters
from kerasgreedy.network.points import Points
from kerasgreedy.reports.figures import NORM_WORDS
from kerasgreedy.reports.landscape_plot import draw_lines, draw_planes, draw_surfaces
from kerasgreedy.spec.analyses_of_loss import Landscape
from kerasgreedy.strict_json import finite

if TYPE_CHECKING:
    from numpy.typing import NDArray


def surface(
    points: Points,
    theta: "NDArray[Any]",
    directions: Sequence["NDArray[Any]"],
    axes: Sequence[Sequence[float]],
    fitted: Points | None = None,
    ledger: Ledger | None = None,
    key: str = "",
    did: Callable[[int], None] = lambda count: None,
    known: Callable[[int], None] = lambda count: None,
) -> tuple["NDArray[np.float64]", "NDArray[np.float64]"]:
    """Mean loss and accuracy at theta + sum over i of a_i d_i, for all a of a grid.

    Args:
        points: the model and the sample.
        theta: (size,).
        directions: one or more, each (size,).
        axes: for each direction the values of a_i.
        fitted: batch norm is re-estimated at each point, on this sample; None: as it is in the model.
        ledger, key: results that are there are taken, new ones are added, under keys that begin so.
        did, known: told of so many points that were measured, or were there.

    Returns:
        losses and accuracies, shaped as the axes; both are nan where the loss is not finite.

    Raises:
        InputError: theta or a direction is not (size,).
    """
    points.parameters.check(theta, *directions)
    ledger = Ledger() if ledger is None else ledger
    shape = tuple(len(axis) for axis in axes)
    names = {index: f"{key}/{'/'.join(map(str, index))}" for index in np.ndindex(shape)}
    open_ = [index for index, name in names.items() if name not in ledger]
    known(len(names) - len(open_))
    for some in _groups(open_, points.devices):
        at = [theta + sum(axes[i][j] * directions[i] for i, j in enumerate(index)) for index in some]
        values = points.evaluate(at, [fitted.statistics(point) for point in at] if fitted else None)
        # Where logits are not finite, the first class has the largest: no accuracy.
        both = [[finite(loss), right if math.isfinite(loss) else None] for loss, right in values]
        ledger.put({names[index]: each for index, each in zip(some, both, strict=True)})
        did(len(some))
    found = np.array([[math.nan if value is None else value for value in ledger[name]] for name in names.values()])
    return found[:, 0].reshape(shape), found[:, 1].reshape(shape)


def _groups(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


@dataclass(frozen=True)
class Way:
    """Where the loss of a network is measured: at theta + sum over i of a_i d_i.

    Attributes:
        directions: each (size,).
        axes: for each direction the values of a_i.
        facts: for the record.
    """

    subject: Subject
    theta: "NDArray[Any]"
    directions: list["NDArray[Any]"]
    axes: list[list[float]]
    facts: dict[str, Any]

    @functools.cached_property
    def digest(self) -> str:
        """Of the points: a loss that was measured at others is not taken for one of these."""
        digest = hashlib.sha256(str(self.axes).encode())
        for vector in (self.theta, *self.directions):
            digest.update(np.ascontiguousarray(vector).tobytes())
        return digest.hexdigest()[:16]


class LandscapeAnalysis(Analysis[Landscape]):
    """`kerasgreedy landscape`."""

    subjects: ClassVar[tuple[int, int | None]] = (1, None)

    def measure(self, subjects: Sequence[Subject], desk: Desk) -> dict[str, Any]:
        """Losses and accuracies on the line or plane of each network."""
        settings = self.settings
        _check_one_scale(subjects)
        ways = [_between(subjects, settings)] if settings.along == "between" else [self._way(each) for each in subjects]
        for number, way in enumerate(ways):
            desk.keep(f"directions_{number}", {"theta": way.theta, **{f"d{i}": d for i, d in enumerate(way.directions, start=1)}})
        # Curves are drawn of both sides of the data; of a surface one is enough.
        parts: list[Part] = [settings.part] if len(ways[0].axes) == 2 or settings.part == "test" else [settings.part, "test"]
        countdown = desk.countdown("points", len(parts) * sum(math.prod(map(len, way.axes)) for way in ways))
        runs, normed = [], False
        for number, way in enumerate(ways):
            fitted = self._points(way, "train", desk) if settings.statistics == "reestimated" else None
            sides: dict[str, Any] = {}
            for part in parts:
                points = fitted if fitted and part == "train" else self._points(way, part, desk)
                normed = normed or points.has_batch_norm
                place = f"{number}/{way.digest}/{part}"
                losses, right = surface(
                    points, way.theta, way.directions, way.axes, fitted, desk.ledger, place, countdown.did, countdown.known
                )
                sides[part] = {
                    "examples": points.examples,
                    "losses": plain(losses),
                    "accuracies": plain(right),
                    "not_finite": int(np.isnan(losses).sum()),
                }
            record: dict[str, Any] = {"name": way.subject.name, **way.subject.facts, **way.facts, "axes": way.axes}
            runs.append(record | sides)
        statistics = settings.statistics if normed else "none"
        return {"along": settings.along, "statistics": statistics, "parts": parts, "seed": settings.seed, "runs": runs}

    def tables(self, found: dict[str, Any]) -> list[Table]:
        """Each network's centre or ends, and the largest loss."""
        rows = []
        for run in found["runs"]:
            for part in found["parts"]:
                side = run[part]
                losses = np.array(side["losses"], float)
                ends = "" if found["along"] != "between" else _at(run, losses, 1.0)
                start = _at(run, losses, 0.0)
                largest = f"{np.nanmax(losses):.4g}" if np.isfinite(losses).any() else "-"
                rows.append([run["name"], part, f"{side['examples']:,}", start, ends, largest, str(side["not_finite"])])
        header = ["network", "images", "number", "loss at 0", "at 1", "largest", "not finite"]
        return [Table("landscape", header, rows, f"loss along {found['along']}; {NORM_WORDS[found['statistics']]}")]

    def figures(self, found: dict[str, Any]) -> dict[str, Callable[[], Any]]:
        """Contours and surfaces, or curves."""
        if len(found["runs"][0]["axes"]) == 1:
            return {"landscape": lambda: draw_lines(found)}
        return {"landscape": lambda: draw_planes(found), "surface": lambda: draw_surfaces(found)}

    def _points(self, way: Way, part: Part, desk: Desk) -> Points:
        sample = way.subject.sample(part, self.settings.examples)
        desk.keep(f"images_{way.subject.name.replace('/', '_')}_{part}", {"rows": sample.rows})
        return Points(way.subject.model, sample.images, sample.labels, way.subject.losses, strategy=desk.strategy)

    def _way(self, subject: Subject) -> Way:
        settings = self.settings
        parameters = Parameters(subject.model)
        theta = parameters.read()
        if settings.along == "path":
            return _path(subject, parameters, settings)
        count = 2 if settings.along == "plane" else 1
        directions = [filter_normalized(parameters, theta, settings.seed, number) for number in range(count)]
        axis = np.linspace(-settings.reach, settings.reach, settings.points).tolist()
        return Way(subject, theta, directions, [axis] * count, {"directions": "random, filter-normalised"})


def _check_one_scale(subjects: Sequence[Subject]) -> None:
    """Refuses losses of several kinds, which no scale fits."""
    words = {}
    for subject in subjects:
        if subject.run is not None:
            head = subject.run.network.architecture.heads[subject.run.depth - 1].name
            words[subject.run.network.objective(head).words] = subject.name
    if len(words) > 1:
        kinds = " and ".join(f"{name} in {kind}" for kind, name in words.items())
        raise InputError(f"the losses are of several kinds ({kinds}) and share no scale; look at each by itself")


def _between(subjects: Sequence[Subject], settings: Landscape) -> Way:
    first, theta, other = pair(subjects)
    reach = settings.reach
    # Three even pieces, so that both ends are points of the line; one at least between them.
    inner = max(2, round((settings.points - 1) / (1 + 2 * reach)))
    outer = settings.points - 1 - inner
    before = np.linspace(-reach, 0, outer // 2 + 1)[:-1]
    behind = np.linspace(1, 1 + reach, outer - outer // 2 + 1)[1:]
    parts = [before, np.linspace(0, 1, inner + 1), behind]
    axis = np.concatenate(parts).tolist()
    return Way(first, theta, [other - theta], [axis], {"to": subjects[1].name})


def _path(subject: Subject, parameters: Parameters, settings: Landscape) -> Way:
    """The plane of most of a run's kept checkpoints, and where they are on it."""
    taken = kept_points(subject, parameters)
    directions, places, shares = principal([theta for _, theta in taken])
    axes = []
    for coordinates in places.T:
        low, high = float(coordinates.min()), float(coordinates.max())
        margin = settings.reach * ((high - low) or 1.0)
        axis = np.linspace(low - margin, high + margin, settings.points)
        axis[np.argmin(np.abs(axis))] = 0.0  # the network itself is one of the points
        axes.append(axis.tolist())
    facts = {
        "directions": "principal, of the training path",
        "variance": shares,
        "path": [[epoch, *map(float, place)] for (epoch, _), place in zip(taken, places, strict=True)],
    }
    return Way(subject, taken[-1][1], [d.astype(parameters.dtype) for d in directions], axes, facts)


def _at(run: dict[str, Any], losses: "NDArray[np.float64]", place: float) -> str:
    """The loss at a place of all axes, if it was measured there."""
    index = tuple(int(np.argmin(np.abs(np.array(axis) - place))) for axis in run["axes"])
    near = all(abs(axis[i] - place) < 1e-9 for axis, i in zip(run["axes"], index, strict=True))
    return f"{losses[index]:.4f}" if near and np.isfinite(losses[index]) else "-"


def plain(values: "NDArray[np.float64]") -> Any:
    """Nested lists, None for what is not finite."""
    if values.ndim:
        return [plain(row) for row in values]
    return finite(float(values))
