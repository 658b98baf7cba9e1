"""Which training images a recipe uses, and which of them validate. Imports NumPy and no TensorFlow."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def divide_at_random(order: "NDArray[np.int64]", limit: int, validation: int) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """The first of a random order.

    Args:
        order: all examples, in random order.
        limit: how many of them are used.
        validation: how many of those validate.

    Returns:
        (limit - validation,) examples for training and (validation,) for validation, each sorted.
    """
    used = order[:limit]
    return np.sort(used[validation:]), np.sort(used[:validation])


def divide_by_class(
    order: "NDArray[np.int64]", labels: "NDArray[np.int32]", limit: int, validation: int
) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """As `divide_at_random`, but each class gives its share of both, by largest remainder.

    It keeps a training image if that can be.

    Args:
        labels: (examples,) of all examples.
    """
    counts = np.bincount(labels)
    used = _shares(counts, limit, np.minimum(counts, 1), counts)
    held = _shares(used, validation, np.zeros_like(used), np.maximum(used - 1, 0))
    of = labels[order]
    # How many of the same class come before each example.
    grouped = np.argsort(of, kind="stable")
    rank = np.empty(len(of), np.int64)
    rank[grouped] = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(order[(held[of] <= rank) & (rank < used[of])]), np.sort(order[rank < held[of]])


def _shares(
    counts: "NDArray[np.int64]", total: int, least: "NDArray[np.int64]", most: "NDArray[np.int64]"
) -> "NDArray[np.int64]":
    """`total` shared out in proportion to `counts`, within bounds where that can be, and never above `counts`."""
    if least.sum() > total:
        least = np.zeros_like(counts)
    if most.sum() < total:
        most = counts
    whole = max(int(counts.sum()), 1)
    exact = counts * total  # in parts of `whole`
    shares = np.clip(exact // whole, least, most)
    while missing := total - int(shares.sum()):
        step = 1 if missing > 0 else -1
        free = np.flatnonzero(shares < most if step > 0 else shares > least)
        lacking = step * (exact[free] - shares[free] * whole)
        shares[free[np.argsort(-lacking, kind="stable")[: abs(missing)]]] += step
    return shares
