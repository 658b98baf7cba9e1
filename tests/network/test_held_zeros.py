"""Zeros that cannot be taken out are said to stay: in groups, and where a cropped kernel would not fit its map."""

import pytest
from conftest import spec_of

from kerasgreedy.graph.architecture import architecture
from kerasgreedy.graph.shrink_steps import held, steps
from kerasgreedy.graph.thresholding import pattern

HEAD = "final_head: {layers: [{global_avg_pool: true}]}\n"


def filters(*zeros):
    """Norms of five half-rings of 5x5 kernels; so many of them are 0 from the outermost in."""
    return [[0.0] * zero + [1.0] * (5 - zero) for zero in zeros]


def cropped(blocks, shape, norms):
    spec = spec_of(f"name: h\nblocks:\n{blocks}{HEAD}").value.model_copy(update={"input_shape": list(shape), "classes": 10})
    arch = architecture(spec)
    touches = list(arch.components)
    found = pattern(arch, norms, 0.0, touches, 1)
    done = steps(spec, found, "half_rings", touches, [])
    left = architecture(done[-1].after) if done else arch
    return held(spec, found, "half_rings", touches), left.node("block_1/conv_2").layer


@pytest.mark.parametrize(("groups", "stays"), [(4, True), (2, True), (1, False)])
def test_kernels_in_groups_keep_their_zeros(groups, stays):
    blocks = f"  - [{{conv: 4, kernel_size: 1}}, {{conv: 4, kernel_size: 5, groups: {groups}}}, {{conv: 3, kernel_size: 1}}]\n"
    place = ("block_1", "conv_2")
    found, layer = cropped(blocks, (12, 12, 1), {place: filters(2, 1, 1, 3)})
    assert found == ({place: 4} if stays else {})
    assert layer.kernel_size == (5 if stays else 4) and layer.conv == 4


@pytest.mark.parametrize(("shape", "stays"), [((28, 28, 1), False), ((28, 27, 1), True)])
def test_kernels_whose_margins_would_differ_keep_their_zeros(shape, stays):
    """Stride 2, 5x5 to 3x3: on a side of 28 the margins are 1 and 2, on one of 27 2 and 2, and half-rings go at one end first."""
    place = ("block_1", "conv_2")
    found, layer = cropped(
        "  - [{conv: 2, kernel_size: 1}, {conv: 3, kernel_size: 5, stride: 2}]\n", shape, {place: filters(2, 2, 5)}
    )
    assert found == ({place: 2} if stays else {})
    assert layer.kernel_size == (5 if stays else 3) and layer.conv == 2


def test_nothing_stays_where_nothing_is_zero():
    blocks = "  - [{conv: 4, kernel_size: 1}, {conv: 4, kernel_size: 5, groups: 4}]\n"
    assert cropped(blocks, (12, 12, 1), {("block_1", "conv_2"): filters(0, 0, 0, 0)})[0] == {}
