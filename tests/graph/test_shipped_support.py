"""The networks of Huang, Kong and Lucey (section 4): counts from the layer tables of the papers that brought them."""

import numpy as np
import pytest

from kerasgreedy.graph.architecture import Architecture, architecture
from kerasgreedy.network.build import build_network
from kerasgreedy.spec import layers as L
from kerasgreedy.spec.load import load_recipe, load_spec

# (kernel, filters, stride, padding in all) of every convolution, and pools as (3, None, 2, "ceil").
POOL = (3, None, 2, "ceil")
LAST = [(3, 192, 1, 0), (1, 192, 1, 0), (1, 10, 1, 0)]
TABLES = {  # Springenberg et al. 2015, Tables 1 and 2; Lin et al. 2014
    "allcnn_a": [(5, 96, 1, 4), (3, 96, 2, 2), (5, 192, 1, 4), (3, 192, 2, 2), *LAST],
    "allcnn_b": [
        *((5, 96, 1, 4), (1, 96, 1, 0), (3, 96, 2, 2)),
        *((5, 192, 1, 4), (1, 192, 1, 0), (3, 192, 2, 2), *LAST),
    ],
    "allcnn_c": [*[(3, 96, 1, 2)] * 2, (3, 96, 2, 2), *[(3, 192, 1, 2)] * 2, (3, 192, 2, 2), *LAST],
    "nin_cifar10": [
        *((5, 192, 1, 4), (1, 160, 1, 0), (1, 96, 1, 0), POOL),
        *((5, 192, 1, 4), (1, 192, 1, 0), (1, 192, 1, 0), POOL),
        *((3, 192, 1, 2), (1, 192, 1, 0), (1, 10, 1, 0)),
    ],
    "nin_mnist": [
        *((5, 96, 1, 4), (1, 64, 1, 0), (1, 48, 1, 0), POOL),
        *((5, 128, 1, 4), (1, 96, 1, 0), (1, 48, 1, 0), POOL),
        *((5, 128, 1, 4), (1, 96, 1, 0), (1, 10, 1, 0)),
    ],
}
# Parameters; Huang, Kong and Lucey, Tables 2 and 3: 1.28M, 1.35M, 1.40M, 1M.
COUNTS = {"allcnn_a": 1_254_250, "allcnn_b": 1_300_618, "allcnn_c": 1_369_738, "nin_cifar10": 966_986, "nin_mnist": 349_674}
SIDES = {"allcnn_a": 6, "allcnn_b": 6, "allcnn_c": 6, "nin_cifar10": 8, "nin_mnist": 7}


def shipped(name: str) -> Architecture:
    return architecture(load_spec(name).value)


def count(table: list[tuple], side: int, channels: int) -> tuple[int, int, int]:
    """Parameters with biases, multiply-adds, and the side of the last map."""
    parameters = multiply_adds = 0
    for kernel, filters, stride, padding in table:
        if padding == "ceil":
            side = -(-(side - kernel) // stride) + 1
            continue
        side = (side + padding - kernel) // stride + 1
        weights = kernel * kernel * channels * filters
        parameters, multiply_adds, channels = parameters + weights + filters, multiply_adds + weights * side**2, filters
    return parameters, multiply_adds, side


@pytest.mark.parametrize("name", TABLES)
def test_all_cnn_and_nin_are_the_papers_tables(name):
    arch = shipped(name)
    side, channels = (28, 1) if name == "nin_mnist" else (32, 3)
    parameters, multiply_adds, last = count(TABLES[name], side, channels)
    assert (arch.parameters, arch.multiply_adds) == (parameters, multiply_adds)
    assert (parameters, last) == (COUNTS[name], SIDES[name])
    assert arch.blocks[-1].output_shape[:2] == (last, last)


@pytest.mark.parametrize("name", TABLES)
def test_their_class_maps_are_rectified_and_averaged_and_their_dropout_is_the_papers(name):
    arch = shipped(name)
    maps, activation, mean = arch.heads[-1].nodes
    assert isinstance(maps.layer, L.Conv) and (maps.layer.conv, maps.layer.kernel_size) == (10, 1)
    assert isinstance(activation.layer, L.Activation) and activation.layer.activation == "relu"
    assert isinstance(mean.layer, L.GlobalAvgPool)
    # The first layers of blocks, or none.
    rates = [block.nodes[0].layer.dropout if isinstance(block.nodes[0].layer, L.Dropout) else None for block in arch.blocks]
    assert rates == [0.2 if name.startswith("allcnn") else None, 0.5, 0.5]
    assert sum(isinstance(node.layer, L.Dropout) for block in arch.blocks for node in block.nodes) == len(rates) - rates.count(
        None
    )
    layers = [node.layer for block in arch.blocks for node in block.nodes]
    convs = sum(isinstance(layer, L.Conv) for layer in layers)
    assert convs == sum(isinstance(layer, L.Activation) and layer.activation == "relu" for layer in layers)


def test_published_all_cnn_counts_are_a_little_above_the_tables():
    for name, published in (("allcnn_a", 1.28e6), ("allcnn_b", 1.35e6), ("allcnn_c", 1.40e6)):
        assert 0 < published / COUNTS[name] - 1 < 0.04


def test_resnet18_is_he_et_al_s_table_1():
    """Convolutions without biases, each with batch norm (two numbers a filter)."""
    stem = 49 * 3 * 64 + 2 * 64
    expected, multiply_adds, channels = stem, 49 * 3 * 64 * 112**2, 64
    for width, side in ((64, 56), (128, 28), (256, 14), (512, 7)):
        for unit in range(2):
            enters = channels if unit == 0 else width
            weights = 9 * enters * width + 9 * width * width
            expected += weights + 2 * 2 * width
            if enters != width:
                weights += enters * width
                expected += enters * width + 2 * width
            multiply_adds += weights * side**2
        channels = width
    arch = shipped("resnet18")
    assert arch.parameters == expected + 512 * 1000 + 1000 == 11_689_512
    assert arch.multiply_adds == multiply_adds + 512 * 1000 == 1_814_073_344
    sizes = [(56, 64)] * 3 + [(28, 128)] * 2 + [(14, 256)] * 2 + [(7, 512)] * 2
    assert [block.output_shape for block in arch.blocks] == [(side, side, width) for side, width in sizes]


def test_googlenet_with_its_own_classifiers_is_googlenet():
    """Szegedy et al. 2015, Table 1: the modules' widths; section 5: the classifiers on 4a (512 channels) and 4d (528)."""
    modules = [
        (192, 64, 96, 128, 16, 32, 32),
        (256, 128, 128, 192, 32, 96, 64),
        (480, 192, 96, 208, 16, 48, 64),
        (512, 160, 112, 224, 24, 64, 64),
        (512, 128, 128, 256, 24, 64, 64),
        (512, 112, 144, 288, 32, 64, 64),
        (528, 256, 160, 320, 32, 128, 128),
        (832, 256, 160, 320, 32, 128, 128),
        (832, 384, 192, 384, 48, 128, 128),
    ]
    parameters = 49 * 3 * 64 + 64 * 64 + 9 * 64 * 192 + 2 * (64 + 64 + 192)
    for c, one, reduce3, three, reduce5, five, pool in modules:
        weights = c * (one + reduce3 + reduce5 + pool) + 9 * reduce3 * three + 25 * reduce5 * five
        parameters += weights + 2 * (one + reduce3 + three + reduce5 + five + pool)
    arch, whole = shipped("googlenet_aux"), shipped("googlenet")
    assert arch.parameters == parameters + 1024 * 1000 + 1000 == whole.parameters == 7_005_832
    assert arch.multiply_adds == whole.multiply_adds
    assert [block.output_shape for block in arch.blocks] == [(14, 14, 512), (14, 14, 528), (7, 7, 1024)]
    for head, channels in zip(arch.heads, (512, 528), strict=False):
        own = channels * 128 + 2 * 128 + (4 * 4 * 128 + 1) * 1024 + (1024 + 1) * 1000
        assert head.parameters == own
        assert [node.layer.dropout for node in head.nodes if isinstance(node.layer, L.Dropout)] == [0.7]


def test_the_all_cnn_recipe_has_the_papers_settings():
    training = load_recipe("allcnn_cifar10").value.training
    optimizer, schedule = training.optimizer, training.schedule
    assert (optimizer.momentum, optimizer.weight_decay, training.epochs) == (0.9, 0.001, 350)
    assert optimizer.learning_rate in (0.25, 0.1, 0.05, 0.01)
    assert (schedule.factor, schedule.at) == (0.1, [200, 250, 300])


@pytest.mark.parametrize("name", TABLES)
def test_rectified_class_maps_start_where_a_few_steps_cannot_kill_them(name):
    """A step moves a map by about rate * |h|^2. With he_normal |h|^2 is over 100: at 0.05 all maps were dead after an epoch."""
    network = build_network(load_spec(name).value, classes=10)
    x = np.random.default_rng(0).normal(size=(2, *network.architecture.input_shape)).astype(np.float32)
    for block in network.blocks:
        x = block(x, training=False)
    assert 0.1 < np.square(x).sum(-1).mean() < 10
