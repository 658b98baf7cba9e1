"""What an exported network answers to: TensorFlow functions over its blocks and heads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import tensorflow as tf

from kerasgreedy.export.free_size import FreeSize
from kerasgreedy.export.image_bytes import Preprocessing
from kerasgreedy.network.build import Network
from kerasgreedy.nn.ensemble import Ensemble

# A depth whose head decides, or the vote of all heads.
Answer: TypeAlias = int | Literal["ensemble"]
Outputs: TypeAlias = dict[str, tf.Tensor]
EXPORT_TOP_K = 5


@dataclass(frozen=True)
class Endpoints:
    """The functions of an export. Images are uint8 of 0..255 (n, height, width, channels) with n of at least 1.

    Attributes:
        network: with `depths` that are trained; computes in float32.
        answer: whose prediction `serve` gives.
        class_names: in the order of the labels.
        preprocessing: of `serve_encoded`.
        top_k: classes that `serve` lists.
        free: the network at images of any size; None: the size of the spec only.
    """

    network: Network
    answer: Answer
    class_names: Sequence[str]
    preprocessing: Preprocessing
    top_k: int = EXPORT_TOP_K
    free: FreeSize | None = None
    _blocks: list[Callable[[tf.Tensor], tf.Tensor]] = field(init=False)
    _heads: list[Callable[[tf.Tensor], tf.Tensor]] = field(init=False)

    def __post_init__(self) -> None:
        arch = self.network.architecture
        # Functions of their own: every endpoint calls them, so that the file holds each block once.
        for name, components in (("_blocks", arch.blocks), ("_heads", arch.heads)):
            object.__setattr__(self, name, [tf.function(self._inference(component.name)) for component in components])

    def _inference(self, name: str) -> Callable[[tf.Tensor], tf.Tensor]:
        return lambda x: self.run(name, x, training=False)

    def run(self, name: str, x: tf.Tensor, training: bool) -> tf.Tensor:
        """The output of a block or head."""
        if self.free:
            return self.network.run(name, x, training, self.free)
        return self.network.component(name)(x, training=training)

    def signatures(self) -> dict[str, tf.types.experimental.PolymorphicFunction]:
        """Name -> function, each with one input signature."""
        images = tf.TensorSpec(self.image_shape, tf.uint8, name="images")
        files = tf.TensorSpec((None,), tf.string, name="image_bytes")
        threshold = tf.TensorSpec((), tf.float32, name="threshold")
        found: dict[str, tuple[Callable[..., Outputs], tuple[tf.TensorSpec, ...]]] = {
            "serving_default": (self.serving_default, (images,)),
            "serve": (self.serve, (images,)),
            "serve_encoded": (self.serve_encoded, (files,)),
            "logits": (self.logits, (images,)),
            "ensemble": (self.ensemble, (images,)),
            "features": (self.features, (images,)),
            "anytime": (self.anytime, (images, threshold)),
        }
        for depth in self.network.facts.depths:
            found[f"depth_{depth}"] = (self._depth(depth), (images,))
        return {name: tf.function(function, input_signature=spec) for name, (function, spec) in found.items()}

    @property
    def image_shape(self) -> tuple[int | None, ...]:
        """(n, height, width, channels), None where any number will do."""
        height, width, channels = self.network.architecture.input_shape
        return (None, None, None, channels) if self.free else (None, height, width, channels)

    def serving_default(self, images: tf.Tensor) -> Outputs:
        """`probabilities` (n, classes), `top_ids` (n, k) int32 and `top_probabilities` (n, k), best first. No strings."""
        return self._prediction(self._checked(images))

    def serve(self, images: tf.Tensor) -> Outputs:
        """As `serving_default`, and `top_names` (n, k)."""
        return self._named(self._prediction(self._checked(images)))

    def serve_encoded(self, image_bytes: tf.Tensor) -> Outputs:
        """As `serve`, of JPEG, PNG or BMP files of any size."""
        image_bytes = as_declared(image_bytes)
        with tf.control_dependencies([tf.debugging.assert_positive(tf.size(image_bytes), "no images")]):
            image_bytes = tf.identity(image_bytes)
        return self._named(self._prediction(self.preprocessing(image_bytes)))

    def logits(self, images: tf.Tensor) -> Outputs:
        """`logits` (n, classes) of the prediction."""
        return {"logits": self._answer(self._checked(images))}

    def ensemble(self, images: tf.Tensor) -> Outputs:
        """`logits` and `probabilities` (n, classes) of the vote of all heads."""
        return _with_probabilities(self._vote(self._checked(images)))

    def _depth(self, depth: int) -> Callable[[tf.Tensor], Outputs]:
        return lambda images: _with_probabilities(self._logits(self._checked(images), [depth])[0])

    def features(self, images: tf.Tensor) -> Outputs:
        """For each block `<name>_map`, its output, and `<name>_pooled` (n, channels), the mean of it over all places."""
        x = self.normalized(self._checked(images))
        result = {}
        for block, run in zip(self._used_blocks, self._blocks, strict=False):
            x = run(x)
            if x.shape.rank == 4:
                result[f"{block.name}_map"] = x
            result[f"{block.name}_pooled"] = pooled(x)
        return result

    def anytime(self, images: tf.Tensor, threshold: tf.Tensor) -> Outputs:
        """Leaves at the first head whose largest probability is at least the threshold; the last one always answers.

        Only the images that have not left go on to deeper blocks; blocks that no image needs are not run.

        Returns:
            `probabilities` (n, classes) of the head that answered, `confidence` (n,) its largest, and `depth` (n,) int32.
        """
        threshold = as_declared(threshold)
        with tf.control_dependencies([tf.debugging.assert_non_negative(threshold, "threshold must be 0 or more, not NaN")]):
            x = self.normalized(self._checked(images))
        probabilities, depth = self._stage(0, 0, x, threshold)
        return {"probabilities": probabilities, "confidence": tf.reduce_max(probabilities, -1), "depth": depth}

    def _stage(self, index: int, first: int, x: tf.Tensor, threshold: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The answers of the images whose output of the first blocks is x, from the trained depth with that index on."""
        depths = self.network.facts.depths
        for block in self._blocks[first : depths[index]]:
            x = block(x)
        probabilities = tf.nn.softmax(self._heads[depths[index] - 1](x))
        depth = tf.fill(tf.shape(probabilities)[:1], depths[index])
        if index == len(depths) - 1:
            return probabilities, depth
        stay = tf.where(tf.reduce_max(probabilities, -1) < threshold)

        def go_on() -> tuple[tf.Tensor, tf.Tensor]:
            later = self._stage(index + 1, depths[index], tf.gather_nd(x, stay), threshold)
            return (
                tf.tensor_scatter_nd_update(probabilities, stay, later[0]),
                tf.tensor_scatter_nd_update(depth, stay, later[1]),
            )

        return tf.cond(tf.size(stay) > 0, go_on, lambda: (probabilities, depth))

    def normalized(self, images: tf.Tensor) -> tf.Tensor:
        """Images of 0..255 as the first block takes them, float32."""
        images = tf.cast(images, tf.float32)
        if self.network.facts.normalization is None:
            return images
        mean, deviation = (np.asarray(part, np.float32) for part in self.network.facts.normalization)
        return (images - mean) / deviation

    def _checked(self, images: tf.Tensor) -> tf.Tensor:
        """The images, if there are any and of a size that the network can take."""
        images = as_declared(images)
        checks = [tf.debugging.assert_positive(tf.shape(images)[0], "no images")]
        if self.free:
            checks += self.free.checks(images)
        with tf.control_dependencies(checks):
            return tf.identity(images)

    def _logits(self, images: tf.Tensor, depths: Sequence[int]) -> list[tf.Tensor]:
        x = self.normalized(images)
        result = []
        for depth in range(1, max(depths) + 1):
            x = self._blocks[depth - 1](x)
            if depth in depths:
                result.append(self._heads[depth - 1](x))
        return result

    def _vote(self, images: tf.Tensor) -> tf.Tensor:
        depths = self.network.facts.depths
        return Ensemble(depths, self.network.facts.ensemble_on)(self._logits(images, depths))

    def _answer(self, images: tf.Tensor) -> tf.Tensor:
        return self._vote(images) if self.answer == "ensemble" else self._logits(images, [self.answer])[0]

    def _prediction(self, images: tf.Tensor) -> Outputs:
        probabilities = tf.nn.softmax(self._answer(images))
        top = tf.math.top_k(probabilities, min(self.top_k, len(self.class_names)))
        return {"probabilities": probabilities, "top_ids": top.indices, "top_probabilities": top.values}

    def _named(self, prediction: Outputs) -> Outputs:
        return {**prediction, "top_names": tf.gather(tf.constant(list(self.class_names)), prediction["top_ids"])}

    @property
    def _used_blocks(self) -> Sequence[Any]:
        return self.network.architecture.blocks[: max(self.network.facts.depths)]


def pooled(x: tf.Tensor) -> tf.Tensor:
    """(n, channels): the mean over all places of a map; a vector as it is."""
    return tf.reduce_mean(x, [1, 2]) if x.shape.rank == 4 else x


def as_declared(x: tf.Tensor) -> tf.Tensor:
    """An argument, if its shape is the one that the signature states.

    A loaded signature takes any shape, and TensorFlow's convolution ends the whole process on one of another rank.
    """
    return tf.raw_ops.EnsureShape(input=x, shape=x.shape)


def _with_probabilities(logits: tf.Tensor) -> Outputs:
    return {"logits": logits, "probabilities": tf.nn.softmax(logits)}
