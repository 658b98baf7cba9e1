"""What a step does beside the optimiser: to gradients before it, to variables after it. The step applies them in order."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from kerasgreedy.graph.penalised import entering, penalised, scale_layers
from kerasgreedy.network.build import Network
from kerasgreedy.nn.gated import SeparableScores, trained_kernel
from kerasgreedy.nn.penalties import Penalty
from kerasgreedy.nn.structured import Entering, RelaxedCost
from kerasgreedy.plan.stages import Phase
from kerasgreedy.runs.state import Extra
from kerasgreedy.spec.regularizers import L1, PENALTIES, GroupLasso, Limit, NestedGroupLasso

Gradients: TypeAlias = list[tf.Tensor]


@dataclass(frozen=True)
class Setting:
    """Where updates act.

    Attributes:
        network: in the precision of the phase.
        phase: what trains, and how.
        optimizer: scales the loss, and gradients with it, in float16.
        strategy: its replicas share each batch; the optimiser adds their gradients up.
    """

    network: Network
    phase: Phase
    optimizer: keras.optimizers.Optimizer
    strategy: tf.distribute.Strategy

    @property
    def replicas(self) -> int:
        """Copies of the network."""
        return int(self.strategy.num_replicas_in_sync)

    def kernels(self, limit: Limit) -> dict[str, keras.Variable]:
        """`component/layer` -> what a regularizer is of, among what trains: kernels, or the scales of the batch norm behind."""
        keys = penalised(self.network.architecture, limit, self.phase.trains)
        if limit.acts_on == "scale":
            return self.scales(keys)
        found = {key: trained_kernel(self._layer(key)) for key in keys}
        return {key: kernel for key, kernel in found.items() if kernel is not None}

    def scales(self, keys: Collection[str]) -> dict[str, keras.Variable]:
        """`component/layer` -> the scale of the batch norm right after it."""
        norms = scale_layers(self.network.architecture, self.phase.trains)
        return {key: self._layer(norms[key]).gamma for key in keys}

    def _layer(self, key: str) -> Any:
        component, _, layer = key.partition("/")
        return self.network.component(component).get_layer(layer)


class Update:
    """One thing that a step does beside the optimiser.

    Attributes:
        extras: name -> state that it keeps from step to step.
        reads: `component/layer` of trained components, whose inputs it is given by `on_inputs`.
    """

    extras: Mapping[str, Extra] = {}
    reads: tuple[str, ...] = ()

    def before(self, number: int) -> None:
        """Told of each step, counted from 0 in the phase, before it is run; not in a graph."""

    def on_inputs(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """What it adds to the loss of a batch, summed over images; on the tape.

        Args:
            inputs: of the layers that it `reads`.
        """
        return tf.zeros([])

    def on_gradients(self, gradients: Gradients, variables: Sequence[keras.Variable]) -> Gradients:
        """Replaces gradients, within a replica: what the replicas give is added up, and a scaled loss has scaled them."""
        return gradients

    def on_variables(self, rate: tf.Tensor) -> None:
        """Changes variables after the optimiser, outside of the replicas.

        Args:
            rate: the learning rate of the step; 0 where the optimiser has left it out.
        """

    def finish(self) -> None:
        """Told when the last step of an epoch is done, before anything looks at the weights; not in a graph."""

    def value(self) -> float | None:
        """What it adds to what is minimised, with the weights of now; None: nothing."""
        return None


class Decay(Update):
    """decay * w, the gradient of decay / 2 * |w|^2, of all that trains."""

    def __init__(self, setting: Setting):
        # The optimiser sums over replicas, so each contributes its share. A scaled loss scales it too.
        self._share = setting.phase.training.optimizer.coupled_decay / setting.replicas
        self._optimizer = setting.optimizer

    def on_gradients(self, gradients: Gradients, variables: Sequence[keras.Variable]) -> Gradients:
        decay = self._optimizer.scale_loss(self._share)
        return [g + decay * tf.convert_to_tensor(v.value) for g, v in zip(gradients, variables, strict=True)]


class Regularized(Update):
    """A penalty on kernels: its subgradient before the optimiser, or its proximal map after it.

    Momentum adds up gradients to 1 / (1 - momentum) of one, and the map comes after that: it is taken at so many times the
    learning rate. So a point at rest is one where the gradient of the loss and a subgradient of weight * penalty cancel, as
    without momentum.
    """

    def __init__(self, penalty: Penalty, setting: Setting, kernels: Mapping[str, keras.Variable]):
        self._penalty, self._setting, self._kernels = penalty, setting, kernels
        self._gain = 1.0 / (1.0 - getattr(setting.phase.training.optimizer, "momentum", 0.0))
        # What is penalised is a kernel times these, filter by filter.
        self._scales = setting.scales(kernels) if penalty.settings.acts_on == "scaled_kernel" else {}
        with setting.strategy.scope():
            self._due = tf.Variable(True, trainable=False)  # of a map that is taken after some steps only

    @property
    def reach(self) -> int:
        """How much of a kernel one term of the penalty is of, from entries up."""
        kinds = (L1, NestedGroupLasso, GroupLasso)
        return next((place for place, kind in enumerate(kinds) if isinstance(self._penalty.settings, kind)), len(kinds))

    def on_gradients(self, gradients: Gradients, variables: Sequence[keras.Variable]) -> Gradients:
        if self._penalty.is_proximal:
            return gradients
        scale = self._setting.optimizer.scale_loss(1.0 / self._setting.replicas)
        values = {key: tf.convert_to_tensor(kernel.value) for key, kernel in self._kernels.items()}
        scales = {key: tf.convert_to_tensor(gamma.value) for key, gamma in self._scales.items()}
        own = self._penalty.gradients({key: value * scales.get(key, 1.0) for key, value in values.items()})
        added = {id(kernel): scale * own[key] * scales.get(key, 1.0) for key, kernel in self._kernels.items()}
        for key, gamma in self._scales.items():
            inside = list(range(len(values[key].shape) - 1))
            added[id(gamma)] = scale * tf.reduce_sum(own[key] * values[key], axis=inside)
        return [g + added[id(v)] if id(v) in added else g for g, v in zip(gradients, variables, strict=True)]

    def on_variables(self, rate: tf.Tensor) -> None:
        if self._penalty.is_proximal:
            for kernel in self._kernels.values():
                self._setting.strategy.extended.update(kernel.value, self._shrink, args=(rate * self._gain,))

    def _shrink(self, kernel: Any, rate: tf.Tensor) -> Any:
        value, every = tf.convert_to_tensor(kernel), self._penalty.every
        if every == 1:
            return kernel.assign(self._penalty.proximal(value, rate))
        return kernel.assign(tf.cond(self._due, lambda: self._penalty.proximal(value, rate), lambda: value))

    def before(self, number: int) -> None:
        if self._penalty.every > 1:
            self._due.assign((number + 1) % self._penalty.every == 0)

    def finish(self) -> None:
        if self._penalty.every > 1:
            for kernel in self._kernels.values():
                value = tf.constant(keras.ops.convert_to_numpy(kernel))
                kernel.assign(self._penalty.proximal(value, tf.constant(0.0)))

    def value(self) -> float:
        kernels = {key: keras.ops.convert_to_numpy(kernel) for key, kernel in self._kernels.items()}
        scales = {key: keras.ops.convert_to_numpy(gamma) for key, gamma in self._scales.items()}
        return float(self._penalty.value({key: tf.constant(kernel * scales.get(key, 1)) for key, kernel in kernels.items()}))


class OnSides(Update):
    """Filters behind fixed gates are kept on their side, see `nn.penalties.SidePenalty`."""

    def __init__(self, settings: Limit, setting: Setting):
        self._penalty = PENALTIES.load(settings.name)(settings)
        # Gated layer -> the kernel of its filters, its own or that of the layer behind it.
        self._filters: dict[str, tuple[Any, keras.Variable]] = {}
        for key, kernel in setting.kernels(settings).items():
            name, _, own = key.partition("/")
            nodes = [node.name for node in setting.network.architecture.components[name].nodes]
            component, gated = setting.network.component(name), own
            if isinstance(component.get_layer(own), SeparableScores):
                gated = nodes[nodes.index(own) - 1]
            self._filters[f"{name}/{gated}"] = component.get_layer(gated), kernel
        self.reads = tuple(self._filters)

    def on_inputs(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return tf.add_n([self._of(key, x) for key, x in inputs.items() if key in self._filters])

    def _of(self, key: str, x: tf.Tensor) -> tf.Tensor:
        layer, kernel = self._filters[key]
        patches = tf.stop_gradient(layer.patches(x))
        gates = tf.reshape(tf.cast(layer.fixed, x.dtype), [patches.shape[2], -1])
        filters = tf.reshape(tf.cast(kernel.value, x.dtype), [*gates.shape, -1])
        return self._penalty.of_patches(patches, gates, filters)


class Clip(Update):
    """The gradient of the global batch, scaled down to a length; one share of it for each replica.

    A loss that is scaled scales the norm as well. A norm that is not finite makes every gradient NaN.
    """

    def __init__(self, setting: Setting, norm: float):
        self._setting, self._norm = setting, norm

    def on_gradients(self, gradients: Gradients, variables: Sequence[keras.Variable]) -> Gradients:
        replicas = self._setting.replicas
        if replicas > 1:
            gradients = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        clipped, _ = tf.clip_by_global_norm(gradients, self._setting.optimizer.scale_loss(tf.constant(self._norm, tf.float32)))
        return [gradient / replicas for gradient in clipped] if replicas > 1 else clipped


class Agreed(Update):
    """Not finite on one replica: on none. Keras's loss scaling looks at its own replica's gradients only."""

    def on_gradients(self, gradients: Gradients, variables: Sequence[keras.Variable]) -> Gradients:
        odd = tf.add_n([tf.reduce_sum(tf.cast(~tf.math.is_finite(g), tf.float32)) for g in gradients])
        anywhere = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, odd)
        return [tf.where(anywhere > 0, tf.fill(tf.shape(g), float("nan")), g) for g in gradients]


def penalties_of(setting: Setting) -> list[tuple[Penalty, dict[str, keras.Variable]]]:
    """Each penalty that acts in the phase, and `component/layer` -> kernel that it is of."""
    result = []
    for settings in setting.phase.training.regularizers:
        kernels = setting.kernels(settings)
        if kernels and not settings.of_batches:
            penalty = PENALTIES.load(settings.name)(settings)
            if isinstance(penalty, RelaxedCost):
                penalty.entering = {k: Entering(*facts) for k, facts in entering(setting.network.architecture, kernels).items()}
            result.append((penalty, kernels))
    return result


def updates_of(setting: Setting, *others: Update | None) -> list[Update]:
    """What the settings of a phase ask for, in the order in which it is applied, and after it what a solver adds."""
    training = setting.phase.training
    updates: list[Update] = []
    if training.optimizer.coupled_decay:
        updates.append(Decay(setting))
    # Maps of several penalties on a kernel are that of their sum in this order: entries, nested groups, whole filters.
    regularized = [Regularized(penalty, setting, kernels) for penalty, kernels in penalties_of(setting)]
    regularized.sort(key=lambda each: each.reach)
    updates += regularized
    updates += [OnSides(settings, setting) for settings in training.regularizers if settings.of_batches]
    if training.clip_norm:
        updates.append(Clip(setting, training.clip_norm))
    if isinstance(setting.optimizer, keras.optimizers.LossScaleOptimizer) and setting.replicas > 1:
        updates.append(Agreed())
    return [*updates, *(other for other in others if other is not None)]
