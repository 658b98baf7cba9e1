"""What a new run takes its weights from, beside another run: an exported version, or any Keras model."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasgreedy.errors import InputError, WorkdirError
from kerasgreedy.files import plain_path, user_path
from kerasgreedy.graph.architecture import Architecture, architecture
from kerasgreedy.plan.preparation import Job
from kerasgreedy.plan.starts import APPLICATION, start_kind
from kerasgreedy.runs.checkpoint import Arrays
from kerasgreedy.runs.exported import check_files, features_depth, read_card, version_at
from kerasgreedy.runs.open_run import normalization
from kerasgreedy.runs.start_from import check_start_run, differing, run_weights
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.spec.load import load_spec

if TYPE_CHECKING:
    from kerasgreedy.network.borrowed import Borrowed

Fitted = tuple[list[float], list[float]]
# What nets of keras.applications take, where they do not scale their images themselves.
KNOWN_PIXELS = {"VGG16": "caffe", "VGG19": "caffe", "ResNet50": "caffe", "ResNet101": "caffe", "ResNet152": "caffe"}


class StartSource(ABC):
    """Where the first weights come from.

    Attributes:
        takes_pixels: whether `start_pixels` may say how its images are scaled.

    Args:
        job: whose recipe says `start_from`.
    """

    takes_pixels = False

    def __init__(self, job: Job):
        self.job = job
        assert job.recipe.start_from
        self.place = job.recipe.start_from

    def check(self) -> Job:
        """Refuses what cannot be started from, as far as that is told without TensorFlow; returns the job.

        Raises:
            KerasgreedyError: says what is wrong.
        """
        if self.job.recipe.start_pixels and not self.takes_pixels:
            raise InputError("start_pixels: is for a Keras model whose first layers do not scale its images; leave it out")
        return self.job

    @abstractmethod
    def fitted(self) -> Fitted:
        """Mean and deviation by channel of images of 0..255, as the weights were trained."""

    @abstractmethod
    def arrays(self) -> Mapping[str, Arrays]:
        """Component -> its variables."""


class StartRun(StartSource):
    """Another run."""

    def check(self) -> Job:
        super().check()
        return check_start_run(self.job)

    def fitted(self) -> Fitted:
        return normalization(Workdir.open(self.place), self.job.architecture.input_shape[-1])

    def arrays(self) -> Mapping[str, Arrays]:
        return run_weights(self.job)


class _Blocks(StartSource):
    """Gives blocks, and no heads."""

    def check(self) -> Job:
        super().check()
        self.count  # noqa: B018 (raises)
        return self.job

    @property
    def count(self) -> int:
        count = self.job.recipe.start_blocks
        if count is None:
            raise InputError(
                f"start_from: {self.place} gives blocks, and no heads; say start_blocks, how many of them are taken. They stay "
                "as they are; a run that starts from that run trains them on"
            )
        return count


class StartExport(_Blocks):
    """An exported version: the blocks up to the one whose features it gives."""

    @cached_property
    def _version(self) -> Any:
        return version_at(self.place)

    @cached_property
    def _theirs(self) -> Architecture:
        return architecture(load_spec(self._version / "assets" / "spec.yaml").value)

    @cached_property
    def _card(self) -> dict[str, Any]:
        return read_card(self._version)

    def check(self) -> Job:
        super().check()
        check_files(self._version)
        depth = features_depth(self._version, len(self._theirs.blocks))
        if self.count > depth:
            raise InputError(f"start_blocks: received {self.count}; {self.place} gives the features of block {depth}")
        odd = differing(self.job.architecture, self._theirs, self.count)
        if odd:
            raise InputError(f"start_from: {odd} {self._version} and this spec; see its assets/spec.yaml")
        return self.job

    def fitted(self) -> Fitted:
        found, channels = self._card["input"].get("normalization"), self.job.architecture.input_shape[-1]
        if not found:
            return [0.0] * channels, [1.0] * channels
        return found["mean"], found["deviation"]

    def arrays(self) -> Mapping[str, Arrays]:
        from kerasgreedy.network.build import Network

        depth = features_depth(self._version, len(self._theirs.blocks))
        network = Network(self._theirs)
        variables = [v for block in network.blocks[:depth] for v in block.variables]
        with _readable(self.place):
            import tensorflow as tf

            with plain_path(self._version) as path:
                loaded = tf.saved_model.load(str(path))
            values = [np.asarray(value) for value in loaded.variables]
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
            shape = self._theirs.input_shape
            images = np.random.default_rng(0).random((2, *shape)).astype(np.float32)
            mean, deviation = (np.array(part, np.float32) for part in self.fitted())
            x: Any = (images * 255 - mean) / deviation
            for block in network.blocks[:depth]:
                x = block(x, training=False)
            x = np.asarray(x)
            ours = x.mean(axis=tuple(range(1, x.ndim - 1)))
            gap = np.abs(ours - np.asarray(loaded(tf.constant(images)))).max() / max(1.0, np.abs(ours).max())
        if not gap < 1e-4:
            raise WorkdirError(f"{self._version}: its weights, put into the network of its spec, give other features ({gap:.2g})")
        return {block.name: network.arrays(block.name) for block in self._theirs.blocks[: self.count]}


class StartKeras(_Blocks):
    """Any Keras model: of a file, or one of keras.applications with its weights of ImageNet."""

    takes_pixels = True

    @cached_property
    def _borrowed(self) -> "Borrowed":
        import keras

        from kerasgreedy.network.borrowed import PIXELS, borrow, own_shape, scaled_inside

        ours = self.job.architecture
        pixels: str | None = self.job.recipe.start_pixels
        with _readable(self.place):
            if start_kind(self.place) == "application":
                name = self.place.removeprefix(APPLICATION)
                pixels = pixels or KNOWN_PIXELS.get(name)
                model = _application(name, ours.input_shape)
            else:
                model = keras.models.load_model(user_path(self.place), compile=False)
        height, width, channels = own_shape(model)
        if channels != ours.input_shape[-1]:
            raise InputError(
                f"start_from: {self.place} takes images of {channels} channel(s), and this run's have {ours.input_shape[-1]}; "
                f"say input_shape, such as {[*ours.input_shape[:2], channels]}"
            )
        if pixels and len(PIXELS[pixels].mean) not in (1, channels):
            raise InputError(f"start_pixels: '{pixels}' is of images of 3 channels; {self.place} takes {channels}")
        shape = (height, width, channels) if height and width else ours.input_shape
        if self.job.recipe.start_pixels and scaled_inside(model, channels):
            raise InputError(f"start_pixels: {self.place} scales its images itself; leave it out")
        there = ours if shape == ours.input_shape else architecture(self.job.spec, shape, self.job.data.classes)
        return borrow(model, there, self.count, PIXELS[pixels] if pixels else None, self.job.recipe.seed)

    def fitted(self) -> Fitted:
        channels = self.job.architecture.input_shape[-1]
        pixels = self._borrowed.pixels
        mean, deviation = (np.broadcast_to(part, channels).tolist() for part in (pixels.mean, pixels.deviation))
        return mean, deviation

    def arrays(self) -> Mapping[str, Arrays]:
        return self._borrowed.arrays


def start_of(job: Job) -> StartSource:
    """What the recipe of a job starts from."""
    kinds: dict[str, type[StartRun | StartExport | StartKeras]]
    kinds = {"run": StartRun, "export": StartExport, "keras": StartKeras, "application": StartKeras}
    kind = start_kind(str(job.recipe.start_from))
    if kind is None:
        raise InputError(f"start_from: {job.recipe.start_from}: is not there any more")
    return kinds[kind](job)


def take_weights(job: Job, network: Any) -> None:
    """Gives a network the weights that the recipe starts from.

    Raises:
        InputError: they are of images that are normalised otherwise than those of the run.
    """
    start = start_of(job)
    arrays = start.arrays()
    ours = network.facts.normalization
    if ours and not all(np.allclose(one, other, rtol=1e-6) for one, other in zip(ours, start.fitted(), strict=True)):
        raise InputError(f"start_from: {start.place} changed since this run began: its images are normalised otherwise")
    for name, values in arrays.items():
        network.load_arrays(name, values)


def _application(name: str, shape: tuple[int, ...]) -> Any:
    import keras

    from kerasgreedy.errors import did_you_mean

    makers = {key: value for key, value in vars(keras.applications).items() if key[0].isupper() and callable(value)}
    if name not in makers:
        raise InputError(f"start_from: keras.applications has no '{name}'{did_you_mean(name, list(makers))}")
    return makers[name](weights="imagenet", include_top=False, input_shape=shape)


@contextlib.contextmanager
def _readable(place: str) -> Iterator[None]:
    """Turns what loading raises, and that is much, into one error."""
    try:
        yield
    except (InputError, WorkdirError):
        raise
    except Exception as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(f"start_from: {place}: cannot be loaded ({first[:300]})") from None
