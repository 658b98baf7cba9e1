"""Two networks that are the same function of their weights, so that there is something between them."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kerasgreedy.analysis.subject import Subject
from kerasgreedy.errors import InputError
from kerasgreedy.network.parameters import Parameters

if TYPE_CHECKING:
    from numpy.typing import NDArray


# What has to be the same for weights to mean the same.
FUNCTION = ("layers", "objective", "data set", "depth")
# How far normalisations may lie apart, as a share of the deviation: two seeds hold out other images for validation.
NEAR = 0.05


def pair(subjects: Sequence[Subject]) -> tuple[Subject, "NDArray[Any]", "NDArray[Any]"]:
    """The first of two networks, and the weights of both.

    Raises:
        InputError: there are not two, or they have not the same weights.
    """
    if len(subjects) != 2:
        raise InputError(f"a line between networks needs two, the first at 0 and the second at 1; received {len(subjects)}")
    for what, one, two in zip(FUNCTION, *(_function(subject) for subject in subjects), strict=True):
        if one != two:
            raise InputError(
                f"{subjects[0].name} and {subjects[1].name} differ in their {what}: the same weights would be other functions; "
                "allowed: runs of the same spec on the same data, with the same objective, at the same depth"
            )
    own, others = (Parameters(subject.model) for subject in subjects)
    _check_fixed(subjects)
    shapes, other_shapes = ([tensor.shape for tensor in each.tensors] for each in (own, others))
    if shapes != other_shapes:
        raise InputError(
            f"{subjects[0].name} and {subjects[1].name} have other weights ({own.size:,} in {len(shapes)} tensors, "
            f"{others.size:,} in {len(other_shapes)}): there is no line between them; allowed: runs of the same spec, at the "
            "same depth"
        )
    return subjects[0], own.read(), others.read()


def _function(subject: Subject) -> tuple[Any, ...]:
    if subject.run is None:
        return (None,) * len(FUNCTION)
    run = subject.run
    arch = run.network.architecture
    components = [*arch.blocks[: run.depth], arch.heads[run.depth - 1]]
    layers = [(component.input_shape, component.output_shape, component.nodes) for component in components]
    objective = run.network.objective(components[-1].name)
    data = run.job.data
    return layers, (objective.words, objective.settings), (data.dataset, data.fingerprint, data.class_names), run.depth


def _check_fixed(subjects: Sequence[Subject]) -> None:
    """Refuses networks that are other functions of the same weights by what is in them and never trained.

    Raises:
        InputError: fixed weights differ (gates, random features, statistics of the data), or how images are normalised, by more
            than what other training images of the same data set make of it.
    """
    one, two = (_fixed(subject.model) for subject in subjects)
    same = [v.shape for v in one] == [v.shape for v in two] and all(map(partial(np.allclose, rtol=1e-5), one, two))
    scales = [(s.run.pipeline.mean, s.run.pipeline.deviation) for s in subjects if s.run is not None]
    if len(scales) == 2:
        (mean, deviation), others = scales
        near = all(np.all(np.abs(a - b) <= NEAR * np.abs(deviation)) for a, b in zip((mean, deviation), others, strict=True))
    else:
        near = True
    if not (same and near):
        what = "what their images are normalised by" if same else "weights that are fixed, such as gates"
        raise InputError(
            f"{subjects[0].name} and {subjects[1].name} differ in {what}: the same weights would be other functions; "
            "allowed: runs of the same spec on the same data, and where the spec has fixed weights, of the same seed"
        )


def _fixed(model: keras.Model) -> list["NDArray[Any]"]:
    """Weights that do not train, but for moving statistics of batch norm and the state of what is drawn at random."""
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    moving = {id(variable) for layer in norms for variable in (layer.moving_mean, layer.moving_variance)}
    fixed = [v for v in model.non_trainable_variables if id(v) not in moving and "seed_generator" not in v.path]
    return [keras.ops.convert_to_numpy(variable) for variable in fixed]
