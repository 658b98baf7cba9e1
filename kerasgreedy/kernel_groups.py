"""Nested groups of a kernel's places, and what is left of it when the first groups are zero. Imports no TensorFlow and no NumPy.

Groups grow from the outside in (structured sparsity, section 3.3 and Fig. 2). Half-rings: G_1 is the outermost column-row pair at
the top left, G_2 adds the outermost pair at the bottom right of what is left, and so on in turns; rings: G_n is the n outermost
rings. The last group is the whole kernel. A group holds all input channels at its places.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

Groups: TypeAlias = Literal["kernel", "half_rings", "rings"]


def group_count(side: int, groups: Groups) -> int:
    """How many groups a kernel of `side` x `side` has."""
    return {"kernel": 1, "half_rings": side, "rings": -(-side // 2)}[groups]


def cut(side: int, gone: int, groups: Groups) -> tuple[int, int]:
    """Rows, and columns, that are zero at the top left and at the bottom right when the first `gone` groups are."""
    if gone >= group_count(side, groups):
        return side, 0
    return (-(-gone // 2), gone // 2) if groups == "half_rings" else (gone, gone)


def side_left(side: int, gone: int, groups: Groups) -> int:
    """The side of the square that is left of a kernel: 0 when nothing is."""
    return side - sum(cut(side, gone, groups))


def levels(side: int, groups: Groups) -> list[list[int]]:
    """The first group, counted from 1, that each place is in."""
    count = group_count(side, groups)
    result = [[count] * side for _ in range(side)]
    for gone in reversed(range(1, count)):
        before, after = cut(side, gone, groups)
        inside = range(before, side - after)
        for row in range(side):
            for column in range(side):
                if row not in inside or column not in inside:
                    result[row][column] = gone
    return result


def group_places(side: int, groups: Groups) -> list[int]:
    """How many places each group has: half-rings of 5x5 have 9, 16, 21, 24, 25."""
    flat = [level for row in levels(side, groups) for level in row]
    return [sum(level <= number for level in flat) for number in range(1, group_count(side, groups) + 1)]


def gone_of(norms: Sequence[float], tau: float) -> int:
    """How many groups are zeroed: all up to the last whose norm is at most `tau` (eq. 15, 23)."""
    return max((number for number, norm in enumerate(norms, start=1) if norm <= tau), default=0)
