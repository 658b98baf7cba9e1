"""`kerasgreedy connect`: how high the loss has to rise on the way from one trained network to another."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from kerasgreedy.analysis.analysis import Analysis, Desk, Table
from kerasgreedy.analysis.pairs import pair
from kerasgreedy.analysis.path_finding import Memory, Path, Sight, bezier, string
from kerasgreedy.analysis.subject import Subject
from kerasgreedy.errors import InputError
from kerasgreedy.network.points import Points
from kerasgreedy.reports.path_loss_plot import draw_path_loss
from kerasgreedy.spec.analyses_of_loss import Connect
from kerasgreedy.strict_json import finite


class ConnectAnalysis(Analysis[Connect]):
    """A string of beads, or a curve with one bend."""

    subjects: ClassVar[tuple[int, int | None]] = (2, 2)

    def measure(self, subjects: Sequence[Subject], desk: Desk) -> dict[str, Any]:
        """The straight line, the path, and losses on both; on test images too, which decide nothing."""
        settings = self.settings
        first, start, end = pair(subjects)
        sample = first.sample(settings.part, settings.examples)
        desk.keep("images", {"rows": sample.rows})
        points = Points(first.model, sample.images, sample.labels, first.losses)
        fitted = points if points.has_batch_norm else None
        sight = Sight(points, fitted, settings.points)
        memory = Memory(desk)
        straight = memory.of("piece/0/1", lambda: sight.along(start, end))
        higher = max(straight[0], straight[-1])
        level = settings.level if settings.level is not None else 2 * higher
        if level < higher:
            raise InputError(f"--level: received {level:g}; allowed: {higher:.4g} or more, the loss of the higher end")
        if settings.form == "string":
            path = string(sight, start, end, level, settings.beads, settings.steps, settings.learning_rate, memory, desk.say)
        else:
            countdown = desk.countdown("steps", settings.steps)
            path = bezier(
                sight, start, end, level, settings.steps, settings.learning_rate, settings.seed, memory,
                lambda step: countdown.did(), countdown.known,
            )  # fmt: skip
        aside = first.sample("test", settings.examples)
        test = Sight(Points(first.model, aside.images, aside.labels, first.losses), fitted, settings.points)
        length = _lengths(path)
        return {
            "form": settings.form,
            "from": {"name": subjects[0].name, **subjects[0].facts},
            "to": {"name": subjects[1].name, **subjects[1].facts},
            "part": settings.part,
            "examples": points.examples,
            "statistics": "reestimated" if fitted else "none",
            "level": level,
            "ends": [straight[0], straight[-1]],
            "straight": [finite(loss) for loss in straight],
            "straight_height": finite(max(straight)),
            "connected": path.connected,
            "height": finite(path.height),
            "beads": len(path.beads),
            "length": length[-1] / float(np.linalg.norm(np.asarray(end, np.float64) - start) or 1.0),
            "places": [place / (length[-1] or 1.0) for place in length],
            "losses": [[finite(loss) for loss in piece] for piece in path.losses],
            "test": [[finite(loss) for loss in memory.of(*piece)] for piece in _pieces(settings.form, path, test)],
        }

    def tables(self, found: dict[str, Any]) -> list[Table]:
        """One row."""
        header = ["path", "ends", "straight line's height", "height", "level", "under it", "beads", "length / straight"]
        ends = " and ".join(f"{value:.4g}" for value in found["ends"])
        heights = [_text(found["straight_height"]), _text(found["height"]), f"{found['level']:.4g}"]
        connected = "yes" if found["connected"] else "no"
        row = [found["form"], ends, *heights, connected, str(found["beads"]), f"{found['length']:.3f}"]
        title = f"{found['from']['name']} to {found['to']['name']}: loss on {found['examples']:,} {found['part']} images"
        return [Table("connect", header, [row], title)]

    def figures(self, found: dict[str, Any]) -> dict[str, Callable[[], Any]]:
        """Losses along the path."""
        return {"connect": lambda: draw_path_loss(found)}


def _pieces(form: str, path: Path, sight: Sight) -> Iterator[tuple[str, Callable[[], list[float]]]]:
    """Where losses of other images are kept, and how they are measured: at the places at which those of the path were."""
    for number, (one, two) in enumerate(pairwise(path.beads)):
        name = f"tested/{len(path.beads)}/{number}"
        if form == "string":
            yield name, partial(sight.along, one, two)
        else:  # beads are places of the curve, and nothing was measured between them
            yield name, partial(sight.at, [one, two])


def _lengths(path: Path) -> list[float]:
    """Of the way up to each bead."""
    steps = [
        float(np.linalg.norm(np.asarray(two, np.float64) - one)) for one, two in zip(path.beads, path.beads[1:], strict=False)
    ]
    return [0.0, *np.cumsum(steps).tolist()]


def _text(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"
