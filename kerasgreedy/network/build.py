"""Spec -> Network. The only place where YAML words become Keras layers."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kerasgreedy.nn.backend import check_backend

check_backend()  # Keras reads its settings when it is imported

import keras
import numpy as np
import tensorflow as tf

from kerasgreedy.errors import CheckpointError
from kerasgreedy.graph.architecture import Architecture, Component, architecture
from kerasgreedy.network.layer_builders import FLOAT32, Builder
from kerasgreedy.network.walk import IMAGES, Instead, StartPoint, Walk
from kerasgreedy.nn.ensemble import Ensemble
from kerasgreedy.nn.objectives import CrossEntropyLoss, Objective
from kerasgreedy.spec.model import ModelSpec


@dataclass(frozen=True)
class NetworkFacts:
    """What is known of a network beside its layers and weights.

    Attributes:
        depths: of the heads that `Network.model` gives and lets vote; those that were trained, for the network of a run.
        normalization: (mean, deviation) by channel that `Network.model` applies to raw images of 0..255, or None.
        ensemble_on: what the heads vote with, `logits` or `probabilities`.
        objectives: of the heads that have another one than cross entropy, or all of them; evaluation and importance take these.
    """

    depths: list[int]
    normalization: tuple[list[float], list[float]] | None = None
    ensemble_on: str = "logits"
    objectives: Mapping[str, Objective] = field(default_factory=dict)


class Network:
    """Blocks and heads as Keras models. Weights are float32; `compute_in` chooses what they are computed in.

    Attributes:
        architecture: shapes and costs; `architecture.blocks[i]` describes `blocks[i]`.
        facts: what else is known of it.

    Args:
        synchronized: on several devices, batch norm takes the statistics of the global batch, and not each device its own.
    """

    def __init__(self, arch: Architecture, seed: int = 0, synchronized: bool = True):
        self.architecture = arch
        self.seed = seed
        self.synchronized = synchronized
        self.facts = NetworkFacts(list(range(1, len(arch.blocks) + 1)))
        self._models = {name: self._built(name, FLOAT32) for name in arch.components}
        self._precisions = dict.fromkeys(self._models, FLOAT32)

    def _built(self, name: str, precision: str) -> keras.Model:
        return build_component(self.architecture.components[name], self.architecture, self.seed, precision, self.synchronized)

    def objective(self, head: str) -> Objective:
        """What a head loses on an example."""
        return self.facts.objectives.get(head) or CrossEntropyLoss()

    @property
    def names(self) -> list[str]:
        """Names of all components, blocks first."""
        return list(self._models)

    @property
    def blocks(self) -> list[keras.Model]:
        """Block i maps the output of block i - 1 (block 0: normalised images) to its own."""
        return [self._models[block.name] for block in self.architecture.blocks]

    @property
    def heads(self) -> list[keras.Model]:
        """Head i maps the output of block i to logits (batch, classes), float32."""
        return [self._models[head.name] for head in self.architecture.heads]

    def component(self, name: str) -> keras.Model:
        """The block or head of that name."""
        return self._models[name]

    def precision(self, name: str) -> str:
        """What a component computes in, see `compute_in`."""
        return self._precisions[name]

    def compute_in(self, precision: str, names: Iterable[str] | None = None) -> None:
        """Lets components (default: all) compute in `float32`, `mixed_bfloat16` or `mixed_float16`; their weights stay.

        A component that changes is built anew: call this under the strategy's scope, before its variables are used elsewhere.
        """
        for name in self.names if names is None else names:
            if self._precisions[name] != precision:
                arrays = self.arrays(name)
                self._models[name] = self._built(name, precision)
                self._precisions[name] = precision
                self.load_arrays(name, arrays)

    def logits(
        self,
        x: Any,
        depths: Sequence[int] | None = None,
        start: StartPoint = IMAGES,
        instead: Instead | None = None,
        given: list[Any] | None = None,
    ) -> list[Any]:
        """Logits of the heads at the given depths (1 is the first block; default: all), in inference mode.

        Args:
            x: normalised images (batch, height, width, channels), or what has been made of them by `start`.
            instead: see `run`.
            given: filled with what each of these heads is given; None where `start` is inside it.
        """
        instead = start.passing(instead)

        wanted = set(range(1, len(self.blocks) + 1) if depths is None else depths)
        result = []
        for depth in range(max(start.block, 1), max(wanted) + 1):
            if depth > start.block:
                x = self.run(self.architecture.blocks[depth - 1].name, x, False, instead)
            if depth in wanted:
                if given is not None:
                    given.append(None if start.is_inside_head(depth) else x)
                result.append(self.run(self.architecture.heads[depth - 1].name, x, False, instead))
        return result

    def run(self, name: str, x: Any, training: bool, instead: Instead | None = None) -> Any:
        """The output of a component, some of whose layers may do something else.

        Args:
            x: of another type than the component computes in where features are kept in a shorter one: its layers take what
                they need of it.
            training: as of `component(name)(x, training=...)`.
            instead: given `component/layer`, the Keras layer and its input, what stands for its output; None: the layer's own.
        """
        model = self._models[name]
        given, own = tf.as_dtype(x.dtype), tf.as_dtype(model.inputs[0].dtype)
        if instead is None and not (given.is_floating and given.size < own.size):
            return model(x, training=training)
        instead = instead or (lambda key, layer, x: None)
        return Walk(model, name, training, instead).sequence(self.architecture.components[name].nodes, x)

    def begin(self, start: StartPoint, x: Any, first: int = 0, after_block: Callable[[Any], Any] = lambda x: x) -> Any:
        """What `start` stands for, of what block `first` is given, in inference mode.

        Args:
            after_block: applied to the output of each block; not to that of the last one where layers of a head follow.
        """
        for depth, block in enumerate(self.blocks[first : start.block], start=first + 1):
            x = block(x, training=False)
            x = x if start.is_inside_head(depth) else after_block(x)
        if start.layers:
            head = self.architecture.heads[start.block - 1]
            nodes = [self.architecture.node(key) for key in start.layers]
            x = Walk(self._models[head.name], head.name, False, lambda *_: None).sequence(nodes, x)
        return x

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """All variables of a component (moving statistics and random state too), by name."""
        return {key: _as_array(variable) for key, variable in self.variables(name).items()}

    def variables(self, name: str) -> dict[str, keras.Variable]:
        """`block_1/conv_1/kernel` -> variable, for one component."""
        return {
            f"{name}/{layer.name}/{variable.name}": variable
            for layer in self.component(name).layers
            for variable in layer.variables
        }

    def weight_norm(self, names: Iterable[str]) -> float:
        """The l2 norm of all trainable weights of some components."""
        values = [variable.value for name in names for variable in self.component(name).trainable_variables]
        return float(tf.linalg.global_norm([tf.convert_to_tensor(value) for value in values])) if values else 0.0

    def load_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Sets the variables of a component.

        Raises:
            CheckpointError: a name or a shape differs.
        """
        variables = self.variables(name)
        if set(variables) != set(arrays):
            odd = sorted(set(variables) ^ set(arrays))[0]
            raise CheckpointError(f"{name}: stored weights belong to another network ('{odd}' is in only one of them)")
        for key, variable in variables.items():
            if tuple(variable.shape) != arrays[key].shape:
                raise CheckpointError(f"{key}: stored shape {arrays[key].shape}, the network has {tuple(variable.shape)}")
            if arrays[key].dtype.kind not in "fiub":
                raise CheckpointError(f"{key}: stored as {arrays[key].dtype}; allowed: numbers")
            variable.assign(arrays[key])

    @contextmanager
    def holding(self, weights: Mapping[str, Mapping[str, np.ndarray]]) -> Iterator[None]:
        """Inside, components hold these arrays (name -> as of `arrays`); afterwards what they held before, whatever happened."""
        before = {name: self.arrays(name) for name in weights}
        try:
            for name, arrays in weights.items():
                self.load_arrays(name, arrays)
            yield
        finally:
            for name, arrays in before.items():
                self.load_arrays(name, arrays)

    def model(self, depths: Sequence[int] | None = None) -> keras.Model:
        """One Keras model in float32: raw images of 0..255 to a dict of logits, `depth_1` ... and `ensemble`.

        It shares the weights of this network, all of them trainable. Normalisation is part of it.

        Args:
            depths: default: those of its facts.
        """
        arch = self.architecture
        wanted = self.facts.depths if depths is None else list(depths)
        self.compute_in(FLOAT32)
        for component in (*self.blocks, *self.heads):
            component.trainable = True
        images = keras.Input(arch.input_shape, name="images", dtype="float32")
        x = images
        if self.facts.normalization:
            mean, deviation = self.facts.normalization
            x = keras.layers.Normalization(mean=mean, variance=np.square(deviation), name="normalize")(x)
        outputs = {}
        for depth in range(1, max(wanted) + 1):
            x = self.blocks[depth - 1](x)
            if depth in wanted:
                outputs[f"depth_{depth}"] = self.heads[depth - 1](x)
        outputs["ensemble"] = Ensemble(wanted, self.facts.ensemble_on, name="ensemble")(list(outputs.values()))
        return keras.Model(images, outputs, name=_keras_name(arch.name))


def build_network(
    spec: ModelSpec, input_shape: Sequence[int] | None = None, classes: int | None = None, seed: int = 0
) -> Network:
    """Builds the network of a spec with fresh weights.

    Args:
        spec: the model spec.
        input_shape, classes: where the spec leaves them open.
        seed: the same seed gives the same weights, whatever else is built.

    Raises:
        ShapeError: a layer does not fit.
    """
    return Network(architecture(spec, input_shape, classes), seed)


def build_component(
    component: Component, arch: Architecture, seed: int, precision: str = FLOAT32, synchronized: bool = True
) -> keras.Model:
    """One block or head as a Keras model; its weights depend on the seed and their place only.

    Args:
        precision: `float32`, `mixed_bfloat16` or `mixed_float16`: what it takes, computes in and, but for logits, gives.
        synchronized: see `Network`.
    """
    # Its own type: a float32 input would be a detour of two casts between blocks of lower precision.
    x = keras.Input(component.input_shape, name="input", dtype=keras.DTypePolicy(precision).compute_dtype)
    output = Builder(component, arch, seed, precision, synchronized).sequence(component.nodes, x)
    return keras.Model(x, output, name=_keras_name(component.name))


def _as_array(variable: keras.Variable) -> np.ndarray:
    """A copy. Read by TensorFlow's own operation where the variable is on one device: Keras's way takes seven times as long."""
    value = variable.value
    if isinstance(value, tf.distribute.DistributedValues):
        return keras.ops.convert_to_numpy(variable)
    return tf.raw_ops.ReadVariableOp(resource=value.handle, dtype=value.dtype).numpy()


def _keras_name(name: str) -> str:
    return name.replace("/", "_")
