"""Counts of parameters and multiply-adds: against the papers, by hand, and against what Keras builds."""

import math

import pytest
from conftest import ROOT, TYPICAL_SPECS, some, spec_of

from kerasgreedy.errors import ShapeError
from kerasgreedy.graph.architecture import architecture
from kerasgreedy.network.build import build_component
from kerasgreedy.spec.load import load_spec

SPECS = sorted(path.stem for path in (ROOT / "model_specs").glob("*.yaml"))
# Greedy, Table 7, and the papers of the nets themselves; in millions as printed there.
PUBLISHED = {
    "simcnn_k3_mf512_imagenet": (46, 0),
    "simcnn_k3_imagenet": (102, 0),
    "simcnn_k2_imagenet": (64, 0),
    "vgg16": (138, 0),
    "vgg19": (144, 0),
    "vgg13": (133, 0),
    "alexnet": (61, 0),
    "googlenet": (7.0, 1),
    "resnet20_cifar": (0.27, 2),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_published_ones(name):
    millions, digits = PUBLISHED[name]
    assert round(architecture(load_spec(name).value).parameters / 1e6, digits) == millions


def test_vgg16_exactly():
    arch = architecture(load_spec("vgg16").value)
    assert arch.parameters == 138_357_544
    assert arch.multiply_adds == 15_470_264_320


def test_simcnn_k1_imagenet_follows_its_table_of_widths_and_not_the_96_million():
    arch = architecture(load_spec("simcnn_k1_imagenet").value)
    by_hand = (
        9 * (12 * 256 + 256 * 256 + 1024 * 512 + 2048 * 1024 + 4096 * 2048 + 2048 * 2048) + 256 + 256 + 512 + 1024 + 2048 + 2048
    )
    assert sum(block.parameters for block in arch.blocks[:6]) == by_hand
    assert round((by_hand + arch.heads[5].parameters) / 1e6, 1) == 145.7


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("simcnn_k3_imagenet", [(112, 128), (112, 128), (56, 256), (56, 256), (28, 512), (28, 512), (14, 1024), (14, 1024)]),
        ("simcnn_k1_imagenet", [(112, 256), (112, 256), (56, 512), (28, 1024), (14, 2048), (14, 2048), (7, 4096), (7, 4096)]),
        ("simcnn_k1_cifar", [(32, 256), (32, 256), (16, 512), (8, 1024), (8, 1024)]),
        ("simcnn_k3_cifar", [(32, 128), (32, 128), (16, 256), (16, 256)]),
        ("vgg11_k3", [(224, 64), (112, 128), (56, 256), (56, 256), (28, 512), (28, 512), (14, 512), (14, 512)]),
    ],
)
def test_block_sizes_are_those_of_tables_4_and_5(name, sizes):
    arch = architecture(load_spec(name).value)
    assert [block.output_shape for block in arch.blocks] == [(side, side, width) for side, width in sizes]


def test_costs_by_hand():
    arch = architecture(
        spec_of(
            "name: s\ninput_shape: [8, 8, 3]\nclasses: 10\nblock_defaults: {batch_norm: true}\nblocks:\n"
            "  - {conv: 4, downsample: invertible}\n"
            "  - {branches: [[{conv: 2, kernel_size: 1}], [{max_pool: 3, stride: 1, padding: 1}, {conv: 6, groups: 2}]]}\n"
            "  - {residual: [{conv: 16, stride: 2, activation: linear}], shortcut: projection}\n"
        ).value
    )
    assert [block.output_shape for block in arch.blocks] == [(4, 4, 4), (4, 4, 8), (2, 2, 16)]
    assert [block.parameters for block in arch.blocks] == [
        9 * 12 * 4 + 2 * 4,
        4 * 2 + 2 * 2 + 9 * 2 * 6 + 2 * 6,
        9 * 8 * 16 + 2 * 16 + 8 * 16 + 2 * 16,
    ]
    assert [block.multiply_adds for block in arch.blocks] == [
        16 * 9 * 12 * 4,
        16 * (4 * 2 + 9 * 2 * 6),
        4 * (9 * 8 * 16 + 8 * 16),
    ]


@pytest.mark.parametrize("name", some(*TYPICAL_SPECS, slow=sorted(set(SPECS) - set(TYPICAL_SPECS))))
def test_keras_builds_what_was_counted(name):
    """One component at a time, and none over 40M weights (200 MB with its initial draw): the largest spec has 600M."""
    arch = architecture(load_spec(name).value)
    built = 0
    for component in arch.components.values():
        if component.parameters > 40e6:
            continue
        model = build_component(component, arch, seed=0)
        assert sum(math.prod(variable.shape) for variable in model.trainable_variables) == component.parameters, component.name
        assert tuple(model.output.shape[1:]) == component.output_shape, component.name
        built += 1
    assert built >= len(arch.components) - 5


def test_a_negative_padding_leaves_something():
    """Of a side of 1 nothing would be left to be padded; of 2 one place is, and one window fits it with two of padding."""
    text = "name: n\ninput_shape: [{0}, {0}, 1]\nclasses: 2\nblocks: [{{conv: 2, kernel_size: 3, padding: [-1, 2]}}]\n"
    assert architecture(spec_of(text.format(2)).value).blocks[0].output_shape == (1, 1, 2)
    with pytest.raises(ShapeError, match=r"padding \(-1, 2\) cuts off all of a side of 1|padding \[-1, 2\] cuts off all"):
        architecture(spec_of(text.format(1).replace("kernel_size: 3", "kernel_size: 2")).value)
