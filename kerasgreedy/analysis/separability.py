"""How well classes can be told apart by a layer's output: linear classifiers and small CNNs on top of it."""

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from kerasgreedy.network.build import Network

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH, DECAY = 128, 5e-4
# Iterations that scikit-learn may take for a linear classifier.
ITERATIONS = 1000


def features(network: Network, depths: Sequence[int], images: "NDArray[Any]", pool: int) -> dict[int, "NDArray[np.float32]"]:
    """Each block's output, in inference mode, averaged over space to at most `pool` x `pool` and flattened.

    Args:
        depths: ascending; 0 is the images themselves.
        images: (n, height, width, channels) as the network takes them.

    Returns:
        depth -> (n, places * channels).
    """

    @tf.function(autograph=False)
    def run(x: tf.Tensor) -> list[tf.Tensor]:
        found = []
        for depth in range(max(depths) + 1):
            x = network.blocks[depth - 1](x, training=False) if depth else x
            if depth in depths:
                found.append(_flat(averaged(x, pool)))
        return found

    rows = range(0, len(images), BATCH)
    parts = [[value.numpy() for value in run(tf.constant(images[i : i + BATCH]))] for i in rows]
    return {depth: np.concatenate([part[i] for part in parts]) for i, depth in enumerate(depths)}


def averaged(x: Any, pool: int) -> Any:
    """Maps (n, height, width, channels) averaged to at most `pool` x `pool`; what is flat stays."""
    if len(x.shape) != 4:
        return x
    return keras.layers.AdaptiveAveragePooling2D((min(pool, x.shape[1]), min(pool, x.shape[2])))(x)


def _flat(x: tf.Tensor) -> tf.Tensor:
    return tf.reshape(x, [tf.shape(x)[0], -1])


def linear_separability(
    train: tuple["NDArray[Any]", "NDArray[Any]"], test: tuple["NDArray[Any]", "NDArray[Any]"], c: float = 1.0
) -> dict[str, Any]:
    """Accuracy of one-versus-rest logistic regression (greedy paper, section 4.2).

    Features are brought to mean 0 and deviation 1, as they are on the training side.

    Args:
        train, test: features (n, d) and labels (n,).
        c: scikit-learn's `C`, the inverse of the weight of the l2 penalty.

    Returns:
        `train` and `test` (fractions), and `converged`.
    """
    scaler = StandardScaler().fit(train[0])
    classifier = OneVsRestClassifier(LogisticRegression(C=c, max_iter=ITERATIONS))
    converged = _fitted(classifier, scaler.transform(train[0]), train[1])
    scores = {name: float(classifier.score(scaler.transform(x), y)) for name, (x, y) in (("train", train), ("test", test))}
    return {**scores, "converged": converged}


def _fitted(classifier: Any, x: "NDArray[Any]", y: "NDArray[Any]") -> bool:
    """Fits a classifier of scikit-learn; whether it says that it has converged."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", ConvergenceWarning)
        classifier.fit(x, y)
    return not any(issubclass(each.category, ConvergenceWarning) for each in heard)


def few_shot(
    train: tuple["NDArray[Any]", "NDArray[Any]"],
    test: tuple["NDArray[Any]", "NDArray[Any]"],
    components: int = 500,
    seed: int = 0,
) -> dict[str, Any]:
    """Mean over the classes of the accuracy of multinomial logistic regression by SAGA on principal components.

    Greedy paper, section C.3: scikit-learn's penalty, the components fitted on the training side. Features are centred and
    divided by one common deviation before, so that the penalty means the same at every depth.

    Args:
        train, test: features (n, d) and labels (n,).
        components: at most; never more than there are examples or features.
        seed: of SAGA.

    Returns:
        `accuracy` (a fraction), `components` and `converged`.
    """
    mean = train[0].mean(0, np.float64)
    scale = float(np.sqrt(np.square(train[0] - mean).mean())) or 1.0
    x, z = ((np.asarray(side[0], np.float32) - mean.astype(np.float32)) / np.float32(scale) for side in (train, test))
    pca = PCA(min(components, *x.shape), random_state=seed).fit(x)
    classifier = LogisticRegression(solver="saga", max_iter=ITERATIONS, tol=1e-3, random_state=seed)
    converged = _fitted(classifier, pca.transform(x), train[1])
    accuracy = per_class(classifier.predict(pca.transform(z)), test[1])
    return {"accuracy": accuracy, "components": int(pca.n_components_), "converged": converged}


def per_class(answers: "NDArray[Any]", labels: "NDArray[Any]") -> float:
    """Mean over the classes that are there of the share of right answers."""
    return float(np.mean([(answers[labels == label] == label).mean() for label in np.unique(labels)]))


def cnn_head(shape: Sequence[int], classes: int, layers: int, width: int, seed: int) -> keras.Model:
    """A p-layer CNN: p convolutions 3x3 with relu, averages to 2x2, a linear layer; of flat features the linear layer alone."""
    x = images = keras.Input(tuple(shape))
    if len(shape) == 3:
        for number in range(layers):
            start = keras.initializers.HeNormal(seed=seed + number)
            x = keras.layers.Conv2D(width, 3, padding="same", activation="relu", kernel_initializer=start)(x)
        x = keras.layers.Flatten()(averaged(x, 2))
    return keras.Model(
        images, keras.layers.Dense(classes, kernel_initializer=keras.initializers.GlorotUniform(seed=seed + 99))(x)
    )


def fit(
    model: keras.Model,
    train: tuple["NDArray[Any]", "NDArray[Any]"],
    epochs: int,
    rate: float,
    seed: int,
    frozen: Callable[[tf.Tensor], tf.Tensor] = lambda x: x,
) -> None:
    """Trains a model for cross entropy: SGD, momentum 0.9, weight decay 5e-4, batches of 128, a cosine to 0.

    Args:
        frozen: what images pass before they come to the model; it stays.
    """
    images, labels = train
    batch = min(BATCH, len(labels))
    steps = len(labels) // batch
    schedule = keras.optimizers.schedules.CosineDecay(rate, epochs * steps)
    optimizer = keras.optimizers.SGD(schedule, momentum=0.9)
    variables = model.trainable_variables
    optimizer.build(variables)

    @tf.function(autograph=False)
    def step(x: tf.Tensor, y: tf.Tensor) -> None:
        inputs = frozen(x)
        with tf.GradientTape() as tape:
            logits = model(inputs, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits))
            loss += DECAY / 2 * tf.add_n([tf.reduce_sum(tf.square(v.value)) for v in variables if len(v.shape) > 1])
        optimizer.apply(tape.gradient(loss, variables), variables)

    for epoch in range(epochs):
        order = np.random.default_rng((seed, epoch)).permutation(len(labels))[: steps * batch].reshape(steps, batch)
        for rows in order:
            step(tf.constant(images[rows]), tf.constant(labels[rows]))


def answers(
    model: keras.Model, images: "NDArray[Any]", frozen: Callable[[tf.Tensor], tf.Tensor] = lambda x: x
) -> "NDArray[np.int64]":
    """The class of each image, (n,)."""
    run = tf.function(lambda x: tf.argmax(model(frozen(x), training=False), axis=-1), autograph=False)
    return np.concatenate([run(tf.constant(images[i : i + BATCH])).numpy() for i in range(0, len(images), BATCH)])
