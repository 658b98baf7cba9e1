"""A SavedModel that other programs call, fine-tune and serve: the object that is saved."""

from pathlib import Path
from typing import Any

import tensorflow as tf

from kerasgreedy.export.endpoints import Endpoints, as_declared, pooled
from kerasgreedy.files import plain_path


def saved_object(endpoints: Endpoints, features_depth: int, weight_decay: float, assets: list[Path]) -> tf.train.Checkpoint:
    """The object behind a SavedModel, by TF-Hub's convention for reusable models ("Reusable SavedModels").

    Calling it gives a feature vector: images (n, height, width, channels) float32 of 0..1 to (n, channels) float32, the mean
    over all places of the output of a block. `training=True` takes batch statistics, moves the moving ones, and drops out.

    Args:
        features_depth: of that block (1 is the first).
        weight_decay: of the recipe; each trained weight of the blocks gets the loss weight_decay / 2 * |w|^2.
        assets: files that are copied into the SavedModel's `assets/`, by their own names.

    Returns:
        An object with `__call__`, `variables`, `trainable_variables`, `regularization_losses`.
    """
    network = endpoints.network
    blocks = network.architecture.blocks[:features_depth]
    shape = endpoints.image_shape

    def call(inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = endpoints.normalized(_checked(inputs, endpoints) * 255.0)
        for block in blocks:
            x = endpoints.run(block.name, x, training)
        return pooled(x)

    function = tf.function(call)
    for training in (False, True):
        function.get_concrete_function(tf.TensorSpec(shape, tf.float32, name="inputs"), training=training)
    used = [variable for block in blocks for variable in network.component(block.name).variables]
    arch = network.architecture
    asked = [*arch.blocks[: network.facts.depths[-1]], *(arch.heads[depth - 1] for depth in network.facts.depths)]
    others = [variable for component in asked for variable in network.component(component.name).variables]
    trained = [variable.value for variable in used if variable.trainable]
    # Checkpoint is TensorFlow's public class of plain trackable objects; tf.Module has properties of these names.
    result = tf.train.Checkpoint()
    result.__call__ = function
    result.variables = [variable.value for variable in used]
    result.trainable_variables = trained
    result.regularization_losses = [_decay(variable, weight_decay) for variable in trained] if weight_decay else []
    result.other_variables = [variable.value for variable in others]
    result.assets = [tf.saved_model.Asset(str(path)) for path in assets]
    return result


def save(result: tf.train.Checkpoint, endpoints: Endpoints, folder: Path) -> dict[str, dict[str, Any]]:
    """Writes the SavedModel.

    Returns:
        signature -> {`inputs`, `outputs`}: name -> [shape, dtype name].
    """
    functions = {name: function.get_concrete_function() for name, function in endpoints.signatures().items()}
    with plain_path(folder) as place:
        tf.saved_model.save(result, str(place), signatures=functions)
    return {name: _description(function) for name, function in functions.items()}


def _checked(inputs: tf.Tensor, endpoints: Endpoints) -> tf.Tensor:
    """Images of 0..1; resampling and augmentation may pass the bounds a little, but 0..255 are another thing."""
    inputs = as_declared(inputs)
    message = "images must be float32 of 0..1, without NaN"
    checks = [
        tf.debugging.assert_positive(tf.shape(inputs)[0], "no images"),
        tf.debugging.assert_less_equal(tf.reduce_max(tf.abs(inputs - 0.5)), 1.5, message),
    ]
    if endpoints.free:
        checks += endpoints.free.checks(inputs)
    with tf.control_dependencies(checks):
        return tf.identity(inputs)


def _decay(variable: tf.Variable, weight_decay: float) -> tf.types.experimental.PolymorphicFunction:
    return tf.function(lambda: 0.5 * weight_decay * tf.reduce_sum(tf.square(variable)), input_signature=[])


def _description(function: Any) -> dict[str, Any]:
    def text(spec: tf.TensorSpec) -> list[Any]:
        return [spec.shape.as_list(), spec.dtype.name]

    inputs = {spec.name: text(spec) for spec in tf.nest.flatten(function.structured_input_signature)}
    outputs = {name: text(spec) for name, spec in function.structured_outputs.items()}
    return {"inputs": inputs, "outputs": outputs}
