"""Nested groups of a kernel's places: sizes and shapes by hand (structured sparsity, Fig. 2)."""

import numpy as np
import pytest

from kerasgreedy.kernel_groups import cut, gone_of, group_count, group_places, levels, side_left


@pytest.mark.parametrize(
    ("side", "groups", "places"),
    [
        (5, "half_rings", [9, 16, 21, 24, 25]), (3, "half_rings", [5, 8, 9]), (2, "half_rings", [3, 4]), (1, "half_rings", [1]),
        (5, "rings", [16, 24, 25]), (3, "rings", [8, 9]), (4, "rings", [12, 16]), (1, "rings", [1]),
        (7, "kernel", [49]),
    ],
)  # fmt: skip
def test_places_of_groups(side, groups, places):
    assert group_places(side, groups) == places
    assert group_count(side, groups) == len(places)


def test_shapes_by_hand():
    assert levels(3, "half_rings") == [[1, 1, 1], [1, 3, 2], [1, 2, 2]]
    assert levels(5, "half_rings") == [
        [1, 1, 1, 1, 1],
        [1, 3, 3, 3, 2],
        [1, 3, 5, 4, 2],
        [1, 3, 4, 4, 2],
        [1, 2, 2, 2, 2],
    ]
    assert levels(5, "rings") == [[1] * 5, [1, 2, 2, 2, 1], [1, 2, 3, 2, 1], [1, 2, 2, 2, 1], [1] * 5]


@pytest.mark.parametrize("groups", ["kernel", "half_rings", "rings"])
@pytest.mark.parametrize("side", range(1, 8))
def test_what_is_left_is_a_square_of_the_places_of_later_groups(side, groups):
    table = np.array(levels(side, groups))
    for gone in range(group_count(side, groups) + 1):
        before, after = cut(side, gone, groups)
        left = table > gone
        assert left.sum() == side_left(side, gone, groups) ** 2
        assert left[before : side - after, before : side - after].all()
    assert side_left(side, 0, groups) == side and side_left(side, group_count(side, groups), groups) == 0


@pytest.mark.parametrize(
    ("norms", "tau", "gone"),
    [([1, 2, 3], 0.5, 0), ([1, 2, 3], 1, 1), ([1, 2, 3], 3, 3), ([0, 0, 2], 0, 2), ([2, 1, 3], 1, 2), ([0.0], 0, 1)],
)
def test_all_up_to_the_last_group_at_or_below_tau_go(norms, tau, gone):
    """Norms by (25) do not grow with the group; eq. 23 zeroes every place of every group that is at most tau."""
    assert gone_of(norms, tau) == gone
