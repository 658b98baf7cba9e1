"""`kerasgreedy explain`: which pixels answers rest on, and whether the maps mean something."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import keras
import numpy as np

from kerasgreedy.analysis.analysis import Analysis, Desk, Table
from kerasgreedy.analysis.attribution import (
    curve,
    grad_cam,
    integrated_gradients,
    occlusion,
    probabilities,
    random_maps,
    randomized,
    rank_correlation,
    scores,
)
from kerasgreedy.analysis.subject import Subject, class_index, model_at
from kerasgreedy.data.augment import whole_image
from kerasgreedy.data.decode import read_image
from kerasgreedy.errors import InputError
from kerasgreedy.network.build import Network
from kerasgreedy.network.outputs import logits_of
from kerasgreedy.reports.attribution_plot import draw_maps, draw_removal
from kerasgreedy.reports.countdown import Countdown
from kerasgreedy.reports.tables import percent
from kerasgreedy.spec.analyses_of_layers import Explain

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORDS = {
    "grad_cam": "Grad-CAM",
    "integrated_gradients": "integrated gradients",
    "occlusion": "occlusion",
    "random": "random maps",
}


# A network, and the block of it that Grad-CAM reads.
Looked: TypeAlias = tuple[keras.Model, keras.layers.Layer]
# Integrated gradients: what sums may miss of the rise of a logit, and steps at most.
COMPLETE, MOST_STEPS = 1e-3, 4096


class ExplainAnalysis(Analysis[Explain]):
    """Maps of some images by each method, with deletion, insertion, and the check by weights in another order."""

    subjects: ClassVar[tuple[int, int | None]] = (1, 1)

    def measure(self, subjects: Sequence[Subject], desk: Desk) -> dict[str, Any]:
        """Figures of each map; the maps themselves go into `maps.npz`."""
        settings, subject = self.settings, subjects[0]
        block = self._block(subject)
        images, labels, names = self._images(subject)
        answers = np.argmax(np.asarray(logits_of(subject.model(images, training=False))), axis=1)
        classes = (
            answers if settings.class_ is None else np.full(len(images), class_index(subject.classes, settings.class_, "--class"))
        )
        sure = probabilities(subject.model, images, classes)
        shuffled, blocks = _shuffled(subject, settings.seed)
        maps: dict[str, NDArray[Any]] = {}
        found: dict[str, Any] = {}
        self._square = self._covered(min(images.shape[1:3]))
        trained = subject.model, subject.parts.network.blocks[block - 1]
        digest = hashlib.sha256(images.tobytes() + classes.tobytes()).hexdigest()[:16]  # files may have changed meanwhile
        countdown = desk.countdown("methods", len(settings.methods))
        for method in settings.methods:
            made = partial(self._method, method, trained, (shuffled, blocks[block - 1]), images, classes)
            maps[method], found[method] = _kept(desk, countdown, f"map_{method}_{digest}", made)
        found["random"] = self._checked(subject.model, images, classes, random_maps(images, settings.seed))
        self._pixels = subject.pixels(images)
        self._shown = maps
        desk.keep("maps", {"images": images, "classes": classes, **maps})
        about = [
            {"name": name, "label": _name(subject, label), "class": _name(subject, of), "probability": float(p)}
            for name, label, of, p in zip(names, labels, classes, sure, strict=True)
        ]
        return {"name": subject.name, **subject.facts, "block": block, "images": about, "methods": found}

    def tables(self, found: dict[str, Any]) -> list[Table]:
        """Images and what is said of them; methods and their checks."""
        images = [[each["name"], each["label"] or "-", each["class"], percent(each["probability"])] for each in found["images"]]
        rows = []
        for method, checks in found["methods"].items():
            same = f"{checks['shuffled']:.2f}" if "shuffled" in checks else "-"
            gap = f"{checks['completeness_gap']:.2g}" if "completeness_gap" in checks else "-"
            rows.append([WORDS[method], f"{np.mean(checks['deletion']):.3f}", f"{np.mean(checks['insertion']):.3f}", same, gap])
        header = ["map", "area of deletion", "of insertion", "correlation with shuffled weights", "gap to completeness"]
        title = "probability of the class while important pixels go (small is good) and come (large is good)"
        return [
            Table("images", ["image", "label", "class of the maps", "probability, %"], images, found["name"]),
            Table("explain", header, rows, title),
        ]

    def figures(self, found: dict[str, Any]) -> dict[str, Callable[[], Any]]:
        """Images with their maps, and the two curves."""
        return {
            "explain": lambda: draw_maps(found, self._pixels, {WORDS[key]: value for key, value in self._shown.items()}),
            "removal": lambda: draw_removal(found, WORDS),
        }

    def _block(self, subject: Subject) -> int:
        """Whose maps Grad-CAM reads: the one that was asked for, or the deepest that gives maps."""
        depth, asked = subject.parts.depth, self.settings.block
        blocks = subject.parts.network.architecture.blocks[:depth]
        fits = [number for number, block in enumerate(blocks, start=1) if len(block.output_shape) == 3]
        if asked is not None and asked not in fits:
            there = f"one that gives maps ({', '.join(map(str, fits))})" if fits else "other --methods, since no block gives maps"
            raise InputError(f"--block: received {asked}; allowed: {there}")
        if not fits and "grad_cam" in self.settings.methods:
            raise InputError("--methods: no block gives maps for grad_cam; allowed: integrated_gradients,occlusion")
        return asked or (fits[-1] if fits else depth)

    def _covered(self, side: int) -> tuple[int, int]:
        """Size and stride of occluding squares, on images of that side."""
        size = self.settings.size or max(1, side // 4)
        stride = self.settings.stride or max(1, size // 2)
        if size > side:
            raise InputError(f"--size: received {size}; allowed: 1 to {side}, the side of the images")
        if stride > size:
            message = f"1 to the size of squares ({size}), or pixels between them are never covered"
            raise InputError(f"--stride: received {stride}; allowed: {message}")
        return size, stride

    def _images(self, subject: Subject) -> tuple["NDArray[np.float32]", list[int | None], list[str]]:
        """Images as the network takes them, their labels where they are known, and what they are called."""
        settings = self.settings
        if not settings.images:
            sample = subject.sample(settings.part, settings.examples)
            names = [f"{settings.part} {row}" for row in sample.rows]
            return sample.images, [int(label) for label in sample.labels], names
        height, width, channels = subject.parts.network.architecture.input_shape
        pixels = [whole_image(read_image(str(Path(file)), channels)[None], (height, width)) for file in settings.images]
        images = np.concatenate([np.asarray(each, np.float32) for each in pixels])
        pipeline = subject.parts.pipeline
        return (images - pipeline.mean) / pipeline.deviation, [None] * len(images), [Path(file).name for file in settings.images]

    def _method(
        self, method: str, trained: Looked, shuffled: Looked, images: "NDArray[Any]", classes: "NDArray[Any]"
    ) -> tuple["NDArray[np.float64]", dict[str, Any]]:
        """Maps, and the checks of them."""
        maps, facts = self._maps(method, trained, images, classes)
        again, _ = self._maps(method, shuffled, images, classes)
        return maps, {**self._checked(trained[0], images, classes, maps), "shuffled": rank_correlation(maps, again), **facts}

    def _maps(
        self, method: str, looked: Looked, images: "NDArray[Any]", classes: "NDArray[Any]"
    ) -> tuple["NDArray[np.float64]", dict[str, Any]]:
        model, block = looked
        if method == "grad_cam":
            return grad_cam(model, images, classes, block), {}
        if method == "integrated_gradients":
            return self._integrated(model, images, classes)
        return occlusion(model, images, classes, *self._square), {}

    def _integrated(
        self, model: keras.Model, images: "NDArray[Any]", classes: "NDArray[Any]"
    ) -> tuple["NDArray[np.float64]", dict[str, Any]]:
        """Sizes by pixel; steps are doubled until the sums are the rise of the logit to 1e-3 of the largest rise, or too many."""
        rise = scores(model, images, classes) - scores(model, np.zeros_like(images), classes)
        steps = self.settings.steps
        while True:
            signed = integrated_gradients(model, images, classes, steps)
            gap = float(np.abs(signed.sum((1, 2, 3)) - rise).max() / max(float(np.abs(rise).max()), 1e-12))
            if gap <= COMPLETE or 2 * steps > MOST_STEPS:
                break
            steps *= 2
        return np.abs(signed).sum(-1), {"completeness_gap": gap, "steps": steps}

    def _checked(
        self, model: keras.Model, images: "NDArray[Any]", classes: "NDArray[Any]", maps: "NDArray[np.float64]"
    ) -> dict[str, Any]:
        """Areas of each image, and the mean curves."""
        found: dict[str, Any] = {}
        for kind in ("deletion", "insertion"):
            each = curve(model, images, classes, maps, kind)
            found[kind], found[f"{kind}_curve"] = each.mean(1).tolist(), each.mean(0).tolist()
        return found


def _kept(
    desk: Desk, countdown: Countdown, name: str, make: Callable[[], tuple["NDArray[np.float64]", dict[str, Any]]]
) -> tuple["NDArray[np.float64]", dict[str, Any]]:
    """Maps and figures that are there of these images, or that are made now and kept, as `<name>.npz` and in the ledger."""
    stored = desk.stored(name)
    if stored is not None:
        countdown.known(1)
        return stored["maps"], desk.ledger[name]
    maps, figures = make()
    desk.keep(name, {"maps": maps})
    desk.ledger.put({name: figures})
    countdown.did()
    return maps, figures


def _shuffled(subject: Subject, seed: int) -> tuple[keras.Model, list[keras.Model]]:
    """The same network with every weight tensor's entries in another order, and its blocks."""
    network, depth = subject.parts.network, subject.parts.depth
    other = Network(network.architecture, 0)
    model = model_at(other, depth)
    for variable, value in zip(model.variables, randomized(subject.model, seed), strict=True):
        variable.assign(value)
    return model, other.blocks


def _name(subject: Subject, label: int | None) -> str | None:
    return None if label is None else subject.classes[int(label)]
