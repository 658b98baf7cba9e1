"""`kerasgreedy visualize`: filters, what they look for, what they see, and what the network confuses."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import keras
import numpy as np

from kerasgreedy.analysis.analysis import Analysis, Desk, Table
from kerasgreedy.analysis.ascent import maximize
from kerasgreedy.analysis.attribution import CONVOLUTIONS, output_of
from kerasgreedy.analysis.subject import Subject
from kerasgreedy.errors import InputError, did_you_mean
from kerasgreedy.network.answers import count_answers, surest_mistakes
from kerasgreedy.network.outputs import logits_of
from kerasgreedy.network.taps import noting, tapped
from kerasgreedy.reports.pictures_plot import draw_confusion, draw_sheet
from kerasgreedy.reports.tables import percent
from kerasgreedy.spec.analyses_of_layers import Visualize

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH = 250


class VisualizeAnalysis(Analysis[Visualize]):
    """One kind of picture, and the figures behind it."""

    subjects: ClassVar[tuple[int, int | None]] = (1, 1)

    def measure(self, subjects: Sequence[Subject], desk: Desk) -> dict[str, Any]:
        """What is drawn, in numbers; arrays go into `pictures.npz`."""
        subject = subjects[0]
        made = {
            "filters": self._filters,
            "maximize": self._maximize,
            "classes": self._classes,
            "activations": self._activations,
            "confusion": self._answers,
        }[self.settings.what]
        self._pictures: NDArray[Any] | None = None
        found = made(subject)
        if self._pictures is not None:
            desk.keep("pictures", {"pictures": self._pictures})
        return {"what": self.settings.what, "name": subject.name, **subject.facts, **found}

    def tables(self, found: dict[str, Any]) -> list[Table]:
        """Classes and what they are taken for; or what was drawn."""
        if "confusion" in found:
            names, counts = found["classes"], np.array(found["confusion"])
            own = np.diag(counts) / np.maximum(counts.sum(1), 1)
            rows = [
                [name, f"{counts[i].sum():,}", percent(own[i]), *map(str, counts[i].tolist())] for i, name in enumerate(names)
            ]
            title = f"{found['name']}: {found['examples']:,} {found['part']} images, rows are labels, columns answers"
            return [Table("confusion", ["class", "images", "right, %", *names], rows, title)]
        rows = [
            [label, *[f"{value:.4g}" for value in values]] for label, values in zip(found["labels"], found["values"], strict=True)
        ]
        return [Table("visualize", ["", *found["columns"]], rows, found["title"])]

    def figures(self, found: dict[str, Any]) -> dict[str, Callable[[], Any]]:
        """The picture."""
        drawn: dict[str, Callable[[], Any]] = {}
        if "confusion" in found:
            drawn["confusion"] = lambda: draw_confusion(found)
        if self._pictures is not None and len(self._pictures):
            name = "mistakes" if "confusion" in found else self.settings.what
            drawn[name] = partial(draw_sheet, self._pictures, found["labels"], found["title"])
        return drawn

    def _filters(self, subject: Subject) -> dict[str, Any]:
        """Kernels of a convolution, those of largest norm first; more than three input channels by their mean."""
        place, layer = self._layer(subject)
        kernel = keras.ops.convert_to_numpy(layer.kernel)
        kernel = kernel.reshape(*kernel.shape[:2], -1, kernel.shape[-1])
        norms = np.sqrt(np.square(kernel, dtype=np.float64).sum((0, 1, 2)))
        order = np.argsort(-norms, kind="stable")[: self.settings.most]
        shown = np.moveaxis(kernel[..., order], -1, 0)
        shown = shown if shown.shape[-1] == 3 else shown.mean(-1, keepdims=True)
        largest = np.abs(shown).max((1, 2, 3), keepdims=True)
        self._pictures = 0.5 + 0.5 * shown / np.where(largest > 0, largest, 1)
        title = f"{subject.name}, {place}: {len(order)} of {len(norms)} kernels by norm, each by its own scale, 0 is grey"
        return _sheet(title, [f"{number}" for number in order], {"norm": norms[order]})

    def _maximize(self, subject: Subject) -> dict[str, Any]:
        """Images that the filters of a layer answer to most (convex paper, eq. 4)."""
        place, layer = self._layer(subject)
        units = int(layer.output.shape[-1])
        chosen = list(range(min(self.settings.most, units)))
        images, heights = self._climbed(subject, chosen, layer)
        title = f"{subject.name}, {place}: images that maximise the mean of a channel, within the range of pixels"
        return _sheet(title, [str(unit) for unit in chosen], {"mean of the channel": heights}) | {"pixels": _range(images)}

    def _classes(self, subject: Subject) -> dict[str, Any]:
        """Images that the logit of each class answers to most."""
        chosen = list(range(min(self.settings.most, len(subject.classes))))
        images, heights = self._climbed(subject, chosen, None)
        title = f"{subject.name}, head {subject.parts.depth}: images that maximise the logit of a class"
        return _sheet(title, [subject.classes[c] for c in chosen], {"logit": heights}) | {"pixels": _range(images)}

    def _climbed(
        self, subject: Subject, chosen: Sequence[int], layer: keras.layers.Layer | None
    ) -> tuple["NDArray[Any]", "NDArray[np.float64]"]:
        settings, pipeline = self.settings, subject.parts.pipeline
        low, high = ((edge - pipeline.mean) / pipeline.deviation for edge in (0.0, 255.0))
        shape = subject.parts.network.architecture.input_shape
        images, heights = maximize(
            subject.model, shape, chosen, low, high, layer, settings.steps, settings.rate, settings.jitter, settings.smoothing,
            settings.seed,
        )  # fmt: skip
        self._pictures = subject.pixels(images)
        return images, heights

    def _activations(self, subject: Subject) -> dict[str, Any]:
        """Channels of a layer for one image."""
        place, layer = self._layer(subject)
        sample = subject.image(self.settings.part, self.settings.image)
        seen: list[Any] = []
        with tapped({layer: noting(seen)}):
            subject.model(sample.images, training=False)
        maps = np.asarray(output_of(layer, seen))[0]
        strength = np.abs(maps).mean((0, 1))
        order = np.argsort(-strength, kind="stable")[: self.settings.most]
        shown = np.moveaxis(maps[..., order], -1, 0)[..., None]
        low, high = shown.min((1, 2, 3), keepdims=True), shown.max((1, 2, 3), keepdims=True)
        self._pictures = (shown - low) / np.where(high > low, high - low, 1)
        label = subject.classes[int(sample.labels[0])]
        title = f"{subject.name}, {place}: channels for a {label}, the strongest first, each from its least to its most"
        return _sheet(title, [str(number) for number in order], {"mean size": strength[order]})

    def _answers(self, subject: Subject) -> dict[str, Any]:
        """What is taken for what, and the surest mistakes."""
        sample = subject.sample(self.settings.part, self.settings.examples)
        batches = [sample.images[i : i + BATCH] for i in range(0, len(sample.labels), BATCH)]
        logits = np.concatenate([np.asarray(logits_of(subject.model(batch, training=False)), np.float64) for batch in batches])
        sure = np.exp(logits - logits.max(1, keepdims=True))
        sure /= sure.sum(1, keepdims=True)
        given, labels, names = sure.argmax(1), sample.labels, list(subject.classes)
        worst = surest_mistakes(sure, labels, self.settings.most)
        self._pictures = subject.pixels(sample.images[worst])
        wrong = int((given != labels).sum())
        texts = [f"{names[given[i]]} {100 * sure[i, given[i]]:.0f} %\nis {names[labels[i]]}" for i in worst]
        return {
            "part": sample.part,
            "examples": len(labels),
            "accuracy": float((given == labels).mean()),
            "classes": names,
            "confusion": count_answers(labels, given, len(names)).tolist(),
            "labels": texts,
            "title": f"{subject.name}, head {subject.parts.depth}: surest of {wrong:,} mistakes ({sample.part} images)",
        }

    def _layer(self, subject: Subject) -> tuple[str, keras.layers.Layer]:
        """`component/layer` and the convolution that is meant; default: the first of the network."""
        network, depth = subject.parts.network, subject.parts.depth
        arch = network.architecture
        components = [*(block.name for block in arch.blocks[:depth]), arch.heads[depth - 1].name]
        layers = {
            f"{name}/{layer.name}": layer
            for name in components
            for layer in network.component(name).layers
            if isinstance(layer, CONVOLUTIONS)
        }
        if not layers:
            raise InputError(f"{subject.name}: holds no convolution up to depth {depth}")
        place = self.settings.layer or next(iter(layers))
        if place not in layers:
            hint = did_you_mean(place, layers) or f"; allowed: {', '.join(list(layers)[:30])}"
            raise InputError(f"--layer: received '{place}'{hint}")
        return place, layers[place]


def _sheet(title: str, labels: list[str], columns: dict[str, "NDArray[Any]"]) -> dict[str, Any]:
    values = np.stack([np.asarray(column, np.float64) for column in columns.values()], axis=1)
    return {"title": title, "labels": labels, "columns": list(columns), "values": values.tolist()}


def _range(images: "NDArray[Any]") -> list[float]:
    return [float(images.min()), float(images.max())]
