"""Which training images a recipe uses, which of them validate, and which a worker keeps. Imports NumPy and no TensorFlow."""

import math
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


def sharded_rows(count: int, batch_size: int, shards: int) -> "NDArray[np.int64]":
    """Rows 0 to count - 1 in full batches, of which the s-th of `shards` equal parts holds rows s, s + shards, ... only.

    Returns:
        (batches * batch_size,), -1 where a place is to be filled up.
    """
    share = batch_size // shards
    batches = math.ceil(math.ceil(count / shards) / share)
    own = np.full((shards, batches * share), -1, np.int64)
    for shard in range(shards):
        rows = np.arange(shard, count, shards)
        own[shard, : len(rows)] = rows
    return own.reshape(shards, batches, share).transpose(1, 0, 2).ravel()
