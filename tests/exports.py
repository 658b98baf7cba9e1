"""What the tests of exports share: runs of several kinds, and exported ones."""

import numpy as np

import kerasgreedy as kg

BRANCHED = """
name: branched
block_defaults: {batch_norm: true}
blocks:
  - [{conv: 6, activation: elu}, {max_pool: 3, stride: 2, padding: 1}]
  - {branches: [[{conv: 3, kernel_size: 1}], [{avg_pool: 3, stride: 1, padding: same}, {conv: 4}]]}
auxiliary_head: {layers: [], class_maps: relu}
"""
THRESHOLDED = """
name: thresholded
block_defaults: {activation: positive_hard_threshold, threshold: {learn: surrogate, per: channel, beta: 0.1}}
blocks:
  - {conv: 5}
  - {conv: 6, downsample: max}
auxiliary_head: {pool_to: 1}
"""
RECIPE = """
name: short
data: {dataset: digits, train_examples: 160, test_examples: 50, validation: 32}
training: {epochs: 1, batch_size: 32, optimizer: {name: sgd, learning_rate: 0.05, weight_decay: 5e-4}}
"""


def trained(folder, spec, *overrides):
    """A finished run of a spec given as text."""
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text(spec)
    (folder / "recipe.yaml").write_text(RECIPE)
    return kg.train_spec(folder / "spec.yaml", folder / "recipe.yaml", list(overrides), folder / "run", quiet=True)


def noise(network, count=3):
    """Images uint8 of the network's size."""
    return np.random.default_rng(1).integers(0, 256, (count, *network.architecture.input_shape)).astype(np.uint8)


def softmax64(logits):
    z = np.asarray(logits, np.float64)
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def picture(height, width, channels=3, seed=0):
    """A random image uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels)).astype(np.uint8)


def tree(folder):
    """Contents of all files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
