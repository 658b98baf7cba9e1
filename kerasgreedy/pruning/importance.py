"""How much the filters of a network matter: a number for every item of a group, larger = more important.

Notation: z is the FEATURE MAP of a filter, (height, width) of one example: its channel after the batch norm and the activation
that follow its layer directly (of a dense layer: one place). w are the entries of its kernel, C_n is the loss of example n:
the sum over the chosen heads of the softmax cross entropy. Means over examples count each one once, by its weight.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kerasgreedy.errors import Diverged, InputError
from kerasgreedy.graph.coupling import Group, Place
from kerasgreedy.network.build import Network
from kerasgreedy.pruning.measurement import ForwardPass, Measurement, Scores, Values, over_space
from kerasgreedy.spec.pruning_settings import IMPORTANCES


def importance(
    network: Network,
    groups: Sequence[Group],
    criterion: str,
    batches: tf.data.Dataset | None,
    losses: Sequence[str],
    strategy: tf.distribute.Strategy,
    seed: int = 0,
    seen: Callable[[int], None] | None = None,
) -> Scores:
    """Scores every item of the groups.

    The network runs in inference mode from block 1 to the deepest of the heads in `losses`, with the gradient of every loss
    going all the way back. Components that run are set to float32 where the criterion runs them (`Network.compute_in`: those
    that computed in another type are built anew). Of an item, only the filters in components that run count, whether the
    criterion looks at data or at weights: blocks beyond the deepest loss are not trained yet.

    Args:
        network: built under the strategy's scope.
        groups: what to score.
        criterion: a name in `CRITERIA`.
        batches: of (image float32, label int32, weight float32), as `Pipeline.evaluation` gives them: full, filled up with
            examples of weight 0. The scores do not depend on the batch size. None where the criterion needs no data.
        losses: names of heads.
        strategy: its replicas share each batch.
        seed: of `random`.
        seen: told after each batch how many examples have been seen.

    Returns:
        group name -> (items,) float64.

    Raises:
        InputError: the criterion or a head is unknown; an item has no filter that is run; a filter has no batch norm
            (`batch_norm_scale`).
        Diverged: a score is not finite.
        ValueError: no losses; no batches, or no examples, where the criterion needs them.
    """
    if not IMPORTANCES.known(criterion):
        raise InputError(f"importance: {IMPORTANCES.refused(criterion)}")
    scores: Scores = IMPORTANCES.load(criterion)(Measurement(network, groups, batches, losses, strategy, seed, seen))
    for name, values in scores.items():
        if not np.isfinite(values).all():
            raise Diverged(f"group '{name}': '{criterion}' is not finite; activations or weights are too large")
    return scores


def normalized(scores: Mapping[str, Values]) -> Scores:
    """Each group's scores divided by their l2 norm, so that groups compare (Molchanov et al. 2016, section 2.2).

    Scores that are all zero stay zero.
    """
    return {name: values / (np.linalg.norm(values) or 1.0) for name, values in scores.items()}


def taylor_activation(measured: Measurement) -> Scores:
    """mean_n | sum over filters of mean_space(z * dC_n / dz) |: the first-order effect of removing them together.

    Molchanov et al. 2016 (arXiv:1611.06440), eq. 8, for one filter. The absolute value is of each example: averaged first,
    signs would cancel.
    """
    return measured.stream(_first_order, tf.abs)


def taylor_weight(measured: Measurement) -> Scores:
    """(sum over kernel and bias entries of g * w)^2, with g the gradient of mean_n C_n.

    Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning", eq. 8, the joint form over a group of weights.
    The paper squares the sum of each minibatch and averages; here the gradient of all examples is squared, once, so that the
    batch size does not matter.
    """
    return {name: np.square(values) for name, values in measured.stream(_weight_products).items()}


def magnitude_l1(measured: Measurement) -> Scores:
    """sum |w| over the kernels, without biases (Li et al. 2017, "Pruning Filters for Efficient ConvNets", section 3.1)."""
    return measured.by_filter(lambda place: _sum_by_filter(np.abs(measured.kernel(place))))


def magnitude_l2(measured: Measurement) -> Scores:
    """sqrt(sum w^2) over the kernels, without biases (He et al. 2018, "Soft Filter Pruning", eq. 2 with p = 2)."""
    squares = measured.by_filter(lambda place: _sum_by_filter(np.square(measured.kernel(place))))
    return {name: np.sqrt(values) for name, values in squares.items()}


def batch_norm_scale(measured: Measurement) -> Scores:
    """sum over filters of |gamma| of the batch norm that follows directly (Liu et al. 2017, "Network Slimming", section 3)."""
    return measured.by_filter(lambda place: np.abs(measured.gamma(place)))


def mean_activation(measured: Measurement) -> Scores:
    """sum over filters of mean_n mean_space(|z|) (Molchanov et al. 2016, section 2.2, there of z after a ReLU)."""
    return measured.stream(lambda run: {place: run.share(tf.abs(z)) for place, z in run.maps.items()})


def apoz(measured: Measurement) -> Scores:
    """1 - the share of exact zeros in z, over examples and space, averaged over the filters.

    Hu et al. 2016 (arXiv:1607.03250), eq. 1, turned round. Where no ReLU ends the feature map hardly anything is zero: every
    score is about 1, and says nothing.
    """
    sums = measured.stream(lambda run: {place: run.share(tf.cast(z != 0, tf.float32)) for place, z in run.maps.items()})
    counts = measured.by_filter(lambda place: np.ones(measured.kernel(place).shape[-1]))
    return {name: values / counts[name] for name, values in sums.items()}


def random(measured: Measurement) -> Scores:
    """Uniform in [0, 1), from the seed and the group's name."""
    return {
        group.name: np.random.default_rng((measured.seed, zlib.crc32(group.name.encode()))).random(len(group.items))
        for group in measured.groups
    }


def _first_order(run: ForwardPass) -> dict[Place, tf.Tensor]:
    gradients = run.tape.gradient(run.loss, run.maps)
    return {place: over_space(z * gradients[place]) for place, z in run.maps.items()}


def _weight_products(run: ForwardPass) -> dict[Place, tf.Tensor]:
    """Linear in the gradient, so that batches add up before the square."""
    fixed = next(("/".join(place) for place in run.variables if place in run.fixed), None)
    if fixed:
        raise InputError(
            f"'taylor_weight' is about trained weights, and {fixed} has none; use 'taylor_activation' or 'magnitude_l2'"
        )
    gradients = run.tape.gradient(run.loss, run.variables)
    return {
        place: tf.add_n([_product(w, g) for w, g in zip(variables, gradients[place], strict=True)])
        for place, variables in run.variables.items()
    }


def _product(weight: Any, gradient: tf.Tensor) -> tf.Tensor:
    product = tf.cast(tf.convert_to_tensor(weight), tf.float64) * tf.cast(gradient, tf.float64)
    return tf.reduce_sum(tf.reshape(product, [-1, product.shape[-1]]), axis=0, keepdims=True)


def _sum_by_filter(values: Values) -> Values:
    return values.reshape(-1, values.shape[-1]).sum(axis=0)
