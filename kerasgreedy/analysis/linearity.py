"""U and v of a network whose supports are held, and what Theorem 1 says of them (support paper, sections 3.2 and 3.3).

With the supports M^(l) of an example held, the network is a product of matrices, and its output is U v, where U depends on the
example and its supports only and v on the weights only:

    U^(1) = x^T (x) M^(1)                        v^(1) = vec(W^(1))                         (eq. 14)
    U^(l+1) = vec(U^(l))^T (x) M^(l+1)           v^(l+1) = v^(l) (x) vec(W^(l+1))           (eq. 17, 18)

vec puts columns below one another and (x) is the Kronecker product. The transposes are missing in the paper's print: as printed,
U^(1) has one column for each row of W and not for each entry. The order of the factors is the paper's.

Two things are added, and where they are absent nothing changes:

- Weight sharing. vec(W) = T k with the entries k of the kernel and T of zeros and ones; U (T (x) ... (x) T) has a column for each
  product of entries of kernels. k is the kernel as Keras stores it, flattened; of a dense layer that is vec(W).
- Biases. q = W z + S b gives v^(l+1) = [v^(l) (x) k ; b] and U^(l+1) = M^(l+1) [vec(U^(l))^T (x) I, S]: the homogeneous form, a
  constant 1 appended to the input of each layer, without its columns that are zero for every input. The paper's U are the first
  columns, of products of all layers' weights; those of the biases follow. Batch norm appends a column with a 1 in v.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kerasgreedy.analysis.linearity_bounds import bounds
from kerasgreedy.analysis.linearity_chain import chain_of, check_chain, components_at
from kerasgreedy.analysis.linearity_steps import Array, Gate, Scaled, Step, Weights
from kerasgreedy.errors import InputError, did_you_mean
from kerasgreedy.graph.architecture import Component
from kerasgreedy.network.build import Network
from kerasgreedy.spec import layers as L

FORMS = ("kernel", "matrix")
# Entries of the largest array: 400 MB.
LIMIT = 50_000_000


def linearity(
    network: Network, x: Array, depth: int | None = None, weights: str = "kernel", limit: int = LIMIT, seed: int = 0
) -> dict[str, Any]:
    """Builds U and v of some examples, checks U v against the network, and gives the bounds of Theorem 1.

    Args:
        network: in float32; it is read only.
        x: (examples, height, width, channels), normalised images.
        depth: of the head, from 1; default: the last trained one.
        weights: `kernel`: v holds products of the entries of kernels; `matrix`: of the entries of the matrices W, as in print.
        limit: entries that the largest array may have.
        seed: of the numbers that the check of linearity draws.

    Returns:
        what `docs/linearity.md` lists, ready for JSON.

    Raises:
        InputError: a layer or an argument cannot be used, or U would be larger than the limit.
    """
    depth = depth_of(network, depth)
    components = components_at(network.architecture, depth)
    check_chain(components)
    if weights not in FORMS:
        raise InputError(f"weights: received '{weights}'; allowed: {', '.join(FORMS)}{did_you_mean(weights, FORMS)}")
    size = size_of(components, len(x), weights)
    if size["largest"] > limit:
        raise InputError(too_large(size, len(x), weights, limit))
    arrays = {key: value for component in components for key, value in network.arrays(component.name).items()}
    steps = chain_of(components, network.architecture, arrays)
    flat = np.asarray(x, np.float64).reshape(len(x), -1)
    outputs, supports = forward(steps, flat)
    formed = [step.full() if weights == "matrix" and isinstance(step, Weights) else step for step in steps]
    u, v = product(formed, flat, supports)
    keras_outputs = np.asarray(network.logits(np.asarray(x, np.float32), [depth])[0], np.float64)
    reached = reachable(formed, flat.shape[1])
    products = math.prod(step.free.size for step in formed if isinstance(step, Weights))
    found: dict[str, Any] = {
        "spec": network.architecture.name,
        "depth": depth,
        "examples": len(x),
        "outputs": outputs.size,
        "weights": weights,
        "layers": [_layer(step) for step in formed if isinstance(step, Weights)],
        "supports": [
            {"layer": step.name, "share": float(support.mean())}
            for step, support in zip(steps, supports, strict=True)
            if isinstance(step, Gate) and support is not None
        ],
        "columns": products,
        "bias_columns": v.size - products,
        "entries": u.size,
        "bytes": u.nbytes,
        "product": _difference(u @ v, outputs.ravel()),
        "keras": _difference(keras_outputs, outputs),
        "bounds": bounds(u[:, :products], int(reached[:products].sum())),
        "bounds_with_biases": bounds(u, int(reached.sum())) if v.size > products else None,
        "linear_in": linear_in(steps, flat, supports, np.random.default_rng(seed)),
    }
    return found


def depth_of(network: Network, depth: int | None) -> int:
    """The depth that is meant.

    Raises:
        InputError: there is no trained head.
    """
    depth = max(network.facts.depths) if depth is None else depth
    if depth not in network.facts.depths:
        raise InputError(f"depth: received {depth}; allowed: {', '.join(map(str, network.facts.depths))}")
    return depth


def size_of(components: Sequence[Component], examples: int, weights: str) -> dict[str, int]:
    """Columns of U, its entries, and those of the largest array on the way to it; nothing is built."""
    columns, largest = 1, 0
    for node in (node for component in components for node in component.nodes):
        height = math.prod(node.output_shape)
        if isinstance(node.layer, L.Conv | L.Dense):
            biases = bool(node.layer.use_bias) * (height if weights == "matrix" else node.output_shape[-1])
            kernel = node.parameters - bool(node.layer.use_bias) * node.output_shape[-1]
            columns = columns * (math.prod(node.input_shape) * height if weights == "matrix" else kernel) + biases
        elif isinstance(node.layer, L.BatchNorm) and columns > 1:
            columns += 1
        largest = max(largest, columns * height)
    entries = columns * examples * components[-1].output_shape[0]
    return {"columns": columns, "entries": entries, "largest": max(largest, entries)}


def too_large(size: dict[str, int], examples: int, weights: str, limit: int) -> str:
    """What is said of a U that is not built."""
    columns, entries, largest = (size[key] for key in ("columns", "entries", "largest"))
    way = f", and an array on the way to it {_count(largest)}" if largest > entries else ""
    fewer = "fewer examples, " if largest == entries and entries // examples <= limit else ""
    kernel = "weights kernel, " if weights == "matrix" else ""
    has = f"{_count(columns)} columns and {_count(entries)} entries ({_count(8 * entries)} bytes)"
    return (
        f"U of {examples:,} examples has {has}{way}; "
        f"allowed: {limit:,} entries ({8 * limit:,} bytes); take {kernel}{fewer}a lower depth, a smaller spec, or a higher limit"
    )


def _count(number: int) -> str:
    digits = len(str(number))
    return f"{number:,}" if digits <= 15 else f"over 10^{digits - 1}"


def forward(steps: Sequence[Step], x: Array) -> tuple[Array, list[Array | None]]:
    """Outputs (n, classes) of examples (n, d), and the support that each map held for each of them."""
    supports = []
    for step in steps:
        supports.append(step.support(x))
        x = step.apply(x, supports[-1])
    return x, supports


def held(steps: Sequence[Step], x: Array, supports: Sequence[Array | None]) -> Array:
    """Outputs (n, classes) of examples (n, d) with supports held."""
    for step, support in zip(steps, supports, strict=True):
        x = step.apply(x, support)
    return x


def product(steps: Sequence[Step], x: Array, supports: Sequence[Array | None]) -> tuple[Array, Array]:
    """U (examples * classes, columns) of eq. 23 and v (columns,), float64; U v are the outputs one after the other.

    Args:
        x: (examples, d).
        supports: as `forward` gives them, or others of the same shapes.
    """
    v = np.ones(1)
    for step in steps:
        if isinstance(step, Weights):
            v = np.concatenate([np.kron(v, step.free), np.zeros(0) if step.biases is None else step.biases])
        elif isinstance(step, Scaled) and v.size > 1:
            v = np.append(v, 1.0)
    blocks = None
    for n, example in enumerate(x):
        u = example[None]  # transposed: a row for each product
        begun = False
        for step, support in zip(steps, supports, strict=True):
            begun = begun or isinstance(step, Weights)
            # What stands before all weights belongs to the data.
            u = (step.lift if begun else step.apply)(u, None if support is None else support[n : n + 1])
        if blocks is None:
            blocks = np.empty((len(x), u.shape[1], len(u)))
        blocks[n] = u.T
    assert blocks is not None
    return blocks.reshape(-1, v.size), v


def reachable(steps: Sequence[Step], width: int) -> Array:
    """Which columns of U (columns,) can be other than zero for some input and supports: products along a path of units."""
    u = np.ones((1, width))
    begun = False
    for step in steps:
        begun = begun or isinstance(step, Weights)
        if begun or not isinstance(step, Scaled):
            u = np.minimum(step.reach(u), 1.0)
    return np.asarray(u.any(1))


def linear_in(
    steps: Sequence[Step], x: Array, supports: Sequence[Array | None], rng: np.random.Generator
) -> list[dict[str, Any]]:
    """With supports held: F(sum a_i p_i) - F(0) against sum a_i (F(p_i) - F(0)), p the input or the weights of one layer.

    F(0) is zero where there are no biases and no batch norm. A layer's bias counts as weights of that layer.

    Returns:
        `of` (`input` or a layer), `error` (largest difference), `relative` (to the largest value), for two random p.
    """
    a = (0.7, -1.3)
    spread = float(x.std()) or 1.0
    results = []

    def check(of: str, run: Any, points: Sequence[Any], mixed: Any, zero: Any) -> None:
        origin = run(zero)
        expected = sum(factor * (run(point) - origin) for factor, point in zip(a, points, strict=True))
        error = _difference(run(mixed) - origin, expected)
        results.append({"of": of, **error})

    images = [rng.normal(0, spread, x.shape) for _ in a]
    mixed = sum(factor * image for factor, image in zip(a, images, strict=True))
    check("input", lambda image: held(steps, image, supports), images, mixed, np.zeros_like(x))
    for index, step in enumerate(steps):
        if isinstance(step, Weights):

            def run(layer: Weights, index: int = index) -> Array:
                return held([*steps[:index], layer, *steps[index + 1 :]], x, supports)

            drawn = [_drawn(step, rng) for _ in a]
            check(step.name, run, drawn, _sum(a, drawn), _sum((0.0, 0.0), drawn))
    return results


def _drawn(step: Weights, rng: np.random.Generator) -> Weights:
    scale = float(step.free.std()) or 1.0
    biases = None if step.biases is None else scale * rng.standard_normal(step.biases.size)
    return replace(step, free=scale * rng.standard_normal(step.free.size), biases=biases)


def _sum(factors: Sequence[float], layers: Sequence[Weights]) -> Weights:
    free = np.tensordot(factors, [layer.free for layer in layers], 1)
    biases = [layer.biases for layer in layers if layer.biases is not None]
    return replace(layers[0], free=free, biases=np.tensordot(factors, biases, 1) if biases else None)


def _layer(step: Weights) -> dict[str, Any]:
    return {
        "layer": step.name,
        "rows": step.height,
        "columns": step.width,
        "weights": step.free.size,
        "biases": 0 if step.biases is None else step.biases.size,
    }


def _difference(one: Array, two: Array) -> dict[str, float]:
    """Largest absolute difference, and the same over the largest absolute value of the second."""
    error = float(np.abs(one - two).max())
    largest = float(np.abs(two).max())
    return {"error": error, "relative": error / largest if largest else error}
