"""`kerasgreedy probe`: separability by depth (greedy paper, Figures 3 and 5)."""

import functools
import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from kerasgreedy.analysis.analysis import Analysis, Desk, Table
from kerasgreedy.analysis.separability import answers, cnn_head, features, fit, linear_separability
from kerasgreedy.analysis.subject import Sample, Subject
from kerasgreedy.plan.preparation import Job
from kerasgreedy.reports.figures import counted
from kerasgreedy.reports.separability_plot import draw_separability
from kerasgreedy.reports.tables import percent
from kerasgreedy.spec.analyses_of_layers import Separability


def _but_for_the_seed(job: Job) -> str:
    """The same for runs whose spec and recipe say the same, seed aside."""
    recipe = job.recipe.model_copy(update={"seed": 0})
    return hashlib.sha256(f"{job.spec.model_dump_json()}{recipe.model_dump_json()}".encode()).hexdigest()[:16]


class ProbeAnalysis(Analysis[Separability]):
    """Linear and CNN-p separability at each depth of each run."""

    subjects: ClassVar[tuple[int, int | None]] = (1, None)

    def measure(self, subjects: Sequence[Subject], desk: Desk) -> dict[str, Any]:
        """Accuracies of classifiers that are fitted on training images, on both sides."""
        settings = self.settings
        depths = [range(0, subject.parts.depth + 1) for subject in subjects]
        countdown = desk.countdown("probes", len(settings.kinds) * sum(map(len, depths)))
        runs = []
        for number, (subject, own) in enumerate(zip(subjects, depths, strict=True)):
            train = subject.sample("train", settings.examples)
            test = subject.sample("test", settings.test_examples or 10**9)
            flat = functools.cache(partial(self._flat, subject, own, train, test))
            rows = []
            for depth in own:
                row: dict[str, Any] = {"depth": depth}
                for kind in settings.kinds:
                    if kind == "linear":
                        fitted = partial(self._linear, flat, depth, train, test)
                    else:
                        fitted = partial(self._cnn, subject, depth, int(kind[-1]), train, test)
                    row[kind] = desk.measured(f"{number}/{depth}/{kind}", countdown, fitted)
                rows.append(row)
            job = subject.parts.job
            entry = {
                "name": subject.name,
                **subject.facts,
                "spec": job.spec.name,
                "recipe": job.recipe.name,
                "group": _but_for_the_seed(job),
            }
            runs.append({**entry, "seed": job.recipe.seed, "train": len(train.labels), "test": len(test.labels), "depths": rows})
        return {"kinds": list(settings.kinds), "pool": settings.pool, "runs": runs}

    def tables(self, found: dict[str, Any]) -> list[Table]:
        """Test accuracy; a column for each depth."""
        deepest = max(len(run["depths"]) for run in found["runs"])
        rows = []
        for run in found["runs"]:
            for kind in found["kinds"]:
                cells = [percent(row[kind]["test"]) for row in run["depths"]]
                late = "" if all(row[kind].get("converged", True) for row in run["depths"]) else "no"
                rows.append([run["name"], kind, *cells, *[""] * (deepest - len(cells)), late])
        train, test = (counted(found["runs"], part) for part in ("train", "test"))
        title = f"test accuracy in %, fitted on {train} training images, {test} test images; depth 0: the images"
        return [Table("probe", ["run", "classifier", *map(str, range(deepest)), "converged"], rows, title)]

    def figures(self, found: dict[str, Any]) -> dict[str, Callable[[], Any]]:
        """Accuracy against depth."""
        return {"probe": lambda: draw_separability(found)}

    def _flat(self, subject: Subject, depths: Sequence[int], train: Sample, test: Sample) -> dict[str, Any]:
        network, pool = subject.parts.network, self.settings.pool
        return {side: features(network, depths, s.images, pool) for side, s in (("train", train), ("test", test))}

    def _linear(self, flat: Callable[[], dict[str, Any]], depth: int, train: Sample, test: Sample) -> dict[str, Any]:
        sides = flat()
        return linear_separability((sides["train"][depth], train.labels), (sides["test"][depth], test.labels), self.settings.c)

    def _cnn(self, subject: Subject, depth: int, layers: int, train: Sample, test: Sample) -> dict[str, Any]:
        settings, network = self.settings, subject.parts.network

        def frozen(x: Any) -> Any:
            for block in network.blocks[:depth]:
                x = block(x, training=False)
            return x

        shape = network.architecture.blocks[depth - 1].output_shape if depth else network.architecture.input_shape
        head = cnn_head(shape, network.architecture.classes, layers, settings.width, settings.seed)
        fit(head, (train.images, train.labels), settings.epochs, settings.learning_rate, settings.seed, frozen)
        return {
            side: float(np.mean(answers(head, sample.images, frozen) == sample.labels))
            for side, sample in (("train", train), ("test", test))
        }
