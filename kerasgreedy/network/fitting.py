"""What a layer learns of the training images before anything trains: the images as they reach it."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

from kerasgreedy.graph.architecture import Component
from kerasgreedy.graph.tree import Node
from kerasgreedy.network.build import Network


@dataclass(frozen=True)
class Fitting:
    """A layer that is to be fitted, and what reaches it.

    Attributes:
        network: in float32, all that stands before the layer as it will be.
        component, node: where the layer stands.
        batches: of (image, label, weight), of all training images or so many, drawn by the seed; weight 0: fillers.
        images: for training.
        seed: of the run.
        tell: what is being done, images done, images in all; what it raises ends it.
    """

    network: Network
    component: Component
    node: Node
    batches: Callable[[int | None], tf.data.Dataset]
    images: int
    seed: int
    tell: Callable[[int, int], None] = field(default=lambda done, total: None)

    @property
    def layer(self) -> keras.layers.Layer:
        """The layer itself."""
        return self.network.component(self.component.name).get_layer(self.node.name)

    @property
    def place(self) -> str:
        """`component/layer`."""
        return f"{self.component.name}/{self.node.name}"

    def generator(self) -> np.random.Generator:
        """Of what is drawn for the layer; follows from the seed and the layer's place."""
        return np.random.default_rng((self.seed, zlib.crc32(self.place.encode())))

    def inputs(self, most: int | None = None) -> Iterator[tf.Tensor]:
        """The training images, or so many of them, in a fixed order as they reach the layer: batches (b, ...) float32."""
        arch = self.network.architecture
        model = self.network.component(self.component.name)
        inside = keras.Model(model.input, self.layer.input)
        is_block = self.component in arch.blocks
        depth = arch.blocks.index(self.component) if is_block else arch.heads.index(self.component) + 1

        @tf.function(autograph=False)
        def run(x: tf.Tensor) -> tf.Tensor:
            for block in self.network.blocks[:depth]:
                x = block(x, training=False)
            return inside(x, training=False)

        done = 0
        for images, _, weights in self.batches(most):
            real = int(np.count_nonzero(weights))
            done += real
            yield run(images)[:real]
            self.tell(done, min(most or self.images, self.images))
