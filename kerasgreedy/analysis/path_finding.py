"""Paths of low loss between two points in the space of weights."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from kerasgreedy.analysis.analysis import Desk, Ledger
from kerasgreedy.errors import Diverged
from kerasgreedy.network.points import Points
from kerasgreedy.strict_json import finite

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOMENTUM = 0.9
# A bead that is at the level itself would have pieces beside it that rise above it again.
MARGIN = 0.1
# How often the bend of a curve is kept on the way.
KEPT = 20


class Memory:
    """What was found of a path before: losses in the ledger of a desk, points in its files.

    Args:
        desk: None: nothing is kept.
    """

    def __init__(self, desk: Desk | None = None):
        self._desk = desk or Desk(Ledger(), tf.distribute.get_strategy())
        self._ledger = self._desk.ledger

    def of(self, key: str, found: Callable[[], Any]) -> Any:
        """Losses; what is not finite is infinite."""
        if key not in self._ledger:
            value = found()
            self._ledger.put({key: [finite(v) for v in value] if isinstance(value, list) else finite(value)})
        value = self._ledger[key]
        return [_read(v) for v in value] if isinstance(value, list) else _read(value)

    def point(self, name: str, found: Callable[[], tuple["NDArray[Any]", float]]) -> tuple["NDArray[Any]", float]:
        """A point and its loss."""
        stored = self._desk.stored(name)
        if stored is not None:
            return stored["theta"], _read(self._ledger[name])
        theta, loss = found()
        self._desk.keep(name, {"theta": theta})
        self._ledger.put({name: finite(loss)})
        return theta, loss

    def bend(self) -> tuple["NDArray[Any]", "NDArray[Any]", int] | None:
        """Bend, velocity and steps done."""
        stored = self._desk.stored("bend")
        if stored is None:
            return None
        return stored["theta"], stored["velocity"], int(stored["step"])

    def keep_bend(self, theta: "NDArray[Any]", velocity: "NDArray[Any]", step: int) -> None:
        """Replaces it."""
        self._desk.keep("bend", {"theta": theta, "velocity": velocity, "step": np.array(step)})
        if "bend" not in self._ledger:
            self._ledger.put({"bend": None})


def _read(value: float | None) -> float:
    return math.inf if value is None else value


@dataclass(frozen=True)
class Sight:
    """How the loss is seen on a path.

    Attributes:
        points: the model and the sample.
        fitted: batch norm is re-estimated on this sample at each point; None: as it is in the model.
        count: places on each piece at which it is measured, ends included.
    """

    points: Points
    fitted: Points | None
    count: int

    def loss(self, theta: "NDArray[Any]") -> float:
        """At a point; infinite where it is not finite."""
        statistics = [self.fitted.statistics(theta)] if self.fitted else None
        value = self.points.evaluate([theta], statistics)[0][0]
        return value if math.isfinite(value) else math.inf

    def along(self, start: "NDArray[Any]", end: "NDArray[Any]") -> list[float]:
        """On the straight piece between two points, evenly."""
        shares = np.linspace(0, 1, self.count)
        return self.at([_between(start, end, share) for share in shares])

    def at(self, places: Sequence["NDArray[Any]"]) -> list[float]:
        """At some points."""
        return [self.loss(theta) for theta in places]

    def gradient(self, theta: "NDArray[Any]", batches: slice = slice(None)) -> tuple[float, "NDArray[Any]"]:
        """Loss and gradient; where batch norm is re-estimated, by the statistics of each batch."""
        return self.points.gradient(theta, batches, by_batch=self.fitted is not None)


def _between(start: "NDArray[Any]", end: "NDArray[Any]", share: float) -> "NDArray[Any]":
    return np.asarray((1 - share) * start + share * end, start.dtype)


@dataclass
class Path:
    """Beads, one after the other, and the losses on the straight pieces between them.

    Attributes:
        beads: (size,) each, the two ends among them.
        losses: of each piece, at even places.
        level: that the path was to stay under.
        connected: whether it does, at the places that were looked at.
    """

    beads: list["NDArray[Any]"]
    losses: list[list[float]]
    level: float
    connected: bool

    @property
    def height(self) -> float:
        """The largest loss that was measured on it."""
        return max(max(piece) for piece in self.losses)


def string(
    sight: Sight,
    start: "NDArray[Any]",
    end: "NDArray[Any]",
    level: float,
    beads: int = 20,
    steps: int = 200,
    rate: float = 0.01,
    memory: Memory | None = None,
    did: Callable[[str], None] = lambda line: None,
) -> Path:
    """Dynamic string sampling (Freeman and Bruna 2017, Algorithm 1), the highest piece first.

    Where the straight piece between two neighbours rises above the level, its highest point descends under it, by a tenth if it
    can, and becomes a bead between them; both new pieces are looked at likewise. Ends where all pieces stay under the level,
    where there are as many beads as allowed, or where a point cannot be brought under it.

    Args:
        level: a loss.
        beads: at most, ends included.
        steps: of gradient descent with momentum 0.9 on all of the sample, for each bead at most.
        rate: its step size.
        memory: what was found before is taken from there.
        did: told of each bead.
    """
    memory = memory or Memory()
    places = {0: start, 1: end}  # by the number of the bead in the order in which they were found
    order = [0, 1]

    def piece(i: int) -> list[float]:
        one, two = order[i], order[i + 1]
        return list(memory.of(f"piece/{one}/{two}", lambda: sight.along(places[one], places[two])))

    losses = [piece(0)]
    while True:
        high = [i for i, values in enumerate(losses) if max(values) > level]
        stuck = bool(high) and len(order) >= beads
        if not high or stuck:
            return Path([places[number] for number in order], losses, level, not high)
        worst = max(high, key=lambda i: max(losses[i]))
        inner = losses[worst][1:-1]
        share = (1 + int(np.argmax(inner))) / (sight.count - 1)
        point = _between(places[order[worst]], places[order[worst + 1]], share)
        number = len(order)
        target = level - MARGIN * abs(level)
        bead, loss = memory.point(f"bead_{number}", partial(descend, sight, point, target, steps, rate))
        did(f"bead {number - 1}: its piece rises to {max(inner):.4g}, the point descends to {loss:.4g} (level {level:.4g})")
        if loss > level:
            return Path([places[number] for number in order], losses, level, False)
        places[number] = bead
        order.insert(worst + 1, number)
        losses[worst : worst + 1] = [piece(worst), piece(worst + 1)]


def descend(sight: Sight, theta: "NDArray[Any]", level: float, steps: int, rate: float) -> tuple["NDArray[Any]", float]:
    """Gradient descent until the loss is at most the level; the best point of the way, and its loss."""
    velocity = np.zeros_like(theta)
    best, lowest = theta, sight.loss(theta)
    for _ in range(steps):
        if lowest <= level:
            break
        try:
            _, gradient = sight.gradient(theta)
        except Diverged:
            break
        velocity = MOMENTUM * velocity - np.asarray(rate * gradient, theta.dtype)
        theta = theta + velocity
        loss = sight.loss(theta)
        if loss < lowest:
            best, lowest = theta, loss
    return best, lowest


def bezier(
    sight: Sight,
    start: "NDArray[Any]",
    end: "NDArray[Any]",
    level: float,
    steps: int = 200,
    rate: float = 0.01,
    seed: int = 0,
    memory: Memory | None = None,
    did: Callable[[int], None] = lambda step: None,
    known: Callable[[int], None] = lambda steps: None,
) -> Path:
    """A quadratic Bezier curve (Garipov et al. 2018, section 3): (1 - t)^2 start + 2 t (1 - t) bend + t^2 end.

    The bend starts half way and follows the gradient of the loss at a random t of each step, on one batch after the other.

    Args:
        level: that the curve is judged by.
        steps: of descent with momentum 0.9.
        rate: its step size.
        seed: of the t.
        memory: the bend is kept there from time to time.
        did, known: told of each step, and of how many were there.

    Returns:
        the two ends and, between them, as many places of the curve as the sight has less two.
    """
    memory = memory or Memory()
    bend, velocity, first = memory.bend() or (_between(start, end, 0.5), np.zeros_like(start), 0)

    def place(t: float) -> "NDArray[Any]":
        return np.asarray((1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end, start.dtype)

    known(first)
    every = max(1, steps // KEPT)
    for step in range(first, steps):
        t = float(np.random.default_rng((seed, step)).random())
        batch = step % sight.points.batches
        _, gradient = sight.gradient(place(t), slice(batch, batch + 1))
        velocity = MOMENTUM * velocity - np.asarray(rate * 2 * t * (1 - t) * gradient, start.dtype)
        bend = bend + velocity
        if (step + 1) % every == 0 or step + 1 == steps:
            memory.keep_bend(bend, velocity, step + 1)
        did(step + 1)
    beads = [place(t) for t in np.linspace(0, 1, sight.count)]
    values = [memory.of(f"place/{i}", partial(sight.loss, bead)) for i, bead in enumerate(beads)]
    losses = [[one, two] for one, two in pairwise(values)]
    return Path(beads, losses, level, max(values) <= level)
