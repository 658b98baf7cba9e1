"""Quantisation and clustering of a trained network with TensorFlow Model Optimization (TFMOT), on its tf_keras twin."""

import gzip
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from kerasgreedy.data.pipeline import Pipeline
from kerasgreedy.errors import Diverged, InputError
from kerasgreedy.export.checking import check_finite
from kerasgreedy.export.lite import open_tflite
from kerasgreedy.export.tfmot.twin import check_twin, copy_back, make_twin
from kerasgreedy.network.build import Network
from kerasgreedy.spec.training import Adam, AdamW, OptimizerSettings, RmsProp, Sgd

# Batches of training images from which the first ranges of the activations are taken.
CALIBRATION_BATCHES = 8
# TFMOT's default adds up the gradients of all weights of a cluster: with thousands of them and few clusters the centroids are
# thrown about until kernels hold a single value. The enum that this is a member of is a string, and not public.
MEAN_GRADIENT = "GradientAggregation.AVG"


@dataclass(frozen=True)
class FineTuning:
    """How a twin is trained.

    Attributes:
        epochs: passes over the training part, augmented as the recipe says.
        learning_rate: constant.
        optimizer: the recipe's; its learning rate and weight decay are not used.
        batch_size: images of one step.
        phase: number under which `Pipeline.training` draws order and augmentation.
        seed: of dropout.
        say: takes one line of progress for each epoch.
    """

    epochs: int
    learning_rate: float
    optimizer: OptimizerSettings
    batch_size: int
    phase: int
    seed: int
    say: Callable[[str], None]


def quantize(network: Network, depth: int, pipeline: Pipeline, tuning: FineTuning) -> bytes:
    """Quantisation-aware training (Jacob et al. 2018) of the blocks up to a depth and its head, as an int8 TFLite file.

    The file takes one raw image (1, height, width, channels) float32 of 0..255 and gives logits (1, classes) float32. It
    normalises in float32; from there to the logits it computes in int8 (kernels by output channel, biases int32).

    Raises:
        InputError: TFMOT or TFLite cannot do that to the network; found before training.
        Diverged: the loss or the weights are no longer finite, or so large that TFLite cannot take them.
    """
    import tensorflow_model_optimization as tfmot

    twin = make_twin(network, depth, "quantize", tuning.seed)
    normalization = network.facts.normalization or ([0.0], [1.0])
    try:
        model = tfmot.quantization.keras.quantize_model(twin)
        to_tflite(model, normalization)  # before any training: what cannot be converted shows now
    except Exception as error:  # TFMOT raises ValueError and RuntimeError, the converter a class of its own
        raise InputError(f"TFMOT cannot quantise this network, nothing was trained; cluster may work ({error})") from error
    _set_ranges(model, twin, pipeline, tuning.batch_size)
    _fine_tune(model, pipeline, tuning)
    try:
        content = to_tflite(model, normalization)
        open_tflite(content)
    except Exception as error:  # it could before
        why = "TFLite cannot take what the fine-tuning made of the weights; nothing was written. A smaller learning rate helps"
        raise Diverged(f"{why} ({error})") from error
    return content


def cluster(network: Network, depth: int, clusters: int, pipeline: Pipeline, tuning: FineTuning) -> None:
    """Weight clustering: every kernel of the blocks up to a depth and of its head gets at most n distinct values.

    Centroids start by k-means++ on each kernel and are trained by the mean of their weights' gradients; biases and batch norm
    are trained but not clustered, thresholds of activations stay as they are. The result is copied into `network`. A kernel of no
    more than n weights is only trained.

    Raises:
        InputError: the twin is not the network, or TFMOT returned no clustered layer.
        Diverged: the loss is no longer finite.
    """
    import tensorflow_model_optimization as tfmot
    import tf_keras

    def clustered(layer: Any) -> Any:
        if not isinstance(layer, tf_keras.layers.Conv2D | tf_keras.layers.Dense) or math.prod(layer.kernel.shape) <= clusters:
            return layer
        wrapped = tfmot.clustering.keras.cluster_weights(
            layer, number_of_clusters=clusters, cluster_gradient_aggregation=MEAN_GRADIENT
        )
        # For layers of another Keras it returns None, or the layer as it was, without a word.
        if not isinstance(wrapped, tf_keras.layers.Wrapper):
            raise InputError(f"{layer.name}: TFMOT did not cluster this layer; nothing was trained")
        return wrapped

    model = tf_keras.models.clone_model(make_twin(network, depth, "cluster", tuning.seed), clone_function=clustered)
    _fine_tune(model, pipeline, tuning)
    stripped = tfmot.clustering.keras.strip_clustering(model)
    copy_back(stripped, network, depth)
    check_twin(stripped, network, depth, tuning.seed)


def _set_ranges(model: Any, twin: Any, pipeline: Pipeline, batch_size: int) -> None:
    """Starts the range of every quantised activation at what the float network shows on training images.

    TFMOT starts each at -6..6 and moves it by a thousandth of the way in a step, so that after a short training larger values,
    logits above all, would still be cut off.
    """
    import tf_keras

    ranges: dict[str, dict[str, Any]] = {}
    for layer in model.layers:
        for variable in layer.weights:
            what, _, end = variable.name.rsplit("/", 1)[-1].split(":")[0].rpartition("_")
            of_images = layer.name.startswith("quantize_layer")  # numbered in later models of a process, and its variables too
            if end in ("min", "max") and (of_images or what in ("output", "post_activation")):
                source = twin.layers[0].name if of_images else layer.name.removeprefix("quant_")
                ranges.setdefault(source, {})[end] = variable
    if twin.layers[0].name not in ranges or len(ranges) < 2:
        raise InputError(f"TFMOT named its ranges otherwise than expected: {[v.name for v in model.layers[1].weights]}")
    shown = tf_keras.Model(twin.input, [twin.get_layer(name).output for name in ranges])

    # Not as a graph: of that TensorFlow makes operations that it has no kernel for (see nn/activations.py).
    def extremes(images: tf.Tensor) -> tf.Tensor:
        outputs = tf.nest.flatten(shown(images, training=False))
        return tf.stack([[tf.minimum(tf.reduce_min(y), 0.0), tf.maximum(tf.reduce_max(y), 0.0)] for y in outputs])

    batches = pipeline.view("train", None, batch_size).take(CALIBRATION_BATCHES)
    seen = np.mean([extremes(images).numpy() for _, images, _ in batches], axis=0)
    for variables, (low, high) in zip(ranges.values(), seen, strict=True):
        variables["min"].assign(low)
        variables["max"].assign(high)


def _fine_tune(model: Any, pipeline: Pipeline, tuning: FineTuning) -> None:
    import tf_keras

    settings = tuning.optimizer
    if isinstance(settings, Adam | AdamW):
        optimizer = tf_keras.optimizers.Adam(tuning.learning_rate, settings.beta_1, settings.beta_2, settings.epsilon)
    elif isinstance(settings, RmsProp):
        more = settings.rho, settings.momentum, settings.epsilon, settings.centered
        optimizer = tf_keras.optimizers.RMSprop(tuning.learning_rate, *more)
    else:
        assert isinstance(settings, Sgd)
        optimizer = tf_keras.optimizers.SGD(tuning.learning_rate, settings.momentum, settings.nesterov)
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    for epoch in range(tuning.epochs):
        figures = model.fit(pipeline.training(tuning.phase, epoch, tuning.batch_size), verbose=0).history
        if not np.isfinite(figures["loss"][-1]):
            raise Diverged("the loss is no longer finite; nothing was written. A smaller learning rate helps")
        check_finite("what the fine-tuning made of the weights", *model.get_weights())
        about = f"loss {figures['loss'][-1]:.4f}, accuracy {figures['accuracy'][-1]:.4f}"
        tuning.say(f"epoch {epoch + 1}/{tuning.epochs}: {about}")


def to_tflite(model: Any, normalization: tuple[list[float], list[float]]) -> bytes:
    """A quantisation-aware tf_keras model as a TFLite file that takes one raw image of 0..255 float32."""
    mean, deviation = (np.asarray(part, np.float32) for part in normalization)

    @tf.function(input_signature=[tf.TensorSpec((1, *model.input_shape[1:]), tf.float32, name="images")])
    def logits(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"logits": model((images - mean) / deviation, training=False)}

    converter = tf.lite.TFLiteConverter.from_concrete_functions([logits.get_concrete_function()], model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return converter.convert()


def weights_of(network: Network, depth: int) -> dict[str, np.ndarray]:
    """All float weights, moving statistics included, of the blocks up to a depth and its head, by name."""
    arch = network.architecture
    names = [component.name for component in (*arch.blocks[:depth], arch.heads[depth - 1])]
    arrays = {key: value for name in names for key, value in network.arrays(name).items()}
    return {key: value for key, value in arrays.items() if value.dtype == np.float32}


def gzip_bytes(arrays: Mapping[str, np.ndarray]) -> int:
    """Bytes of the weights, one after the other, after gzip at its strongest."""
    return len(gzip.compress(b"".join(array.tobytes() for array in arrays.values()), mtime=0))


def distinct_values(arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
    """How many different numbers each kernel holds."""
    return {key: len(np.unique(array)) for key, array in arrays.items() if key.endswith("/kernel")}
