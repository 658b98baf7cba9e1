"""The filters of a head of `gated_conv`, class by class, as pictures and in numbers."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kerasgreedy.analysis.subject import class_index
from kerasgreedy.errors import InputError
from kerasgreedy.network.build import Network
from kerasgreedy.nn.gated import GatedPatches, RectifiedMean
from kerasgreedy.runs.open_run import open_job, trained_network
from kerasgreedy.runs.workdir import Workdir

if TYPE_CHECKING:
    from numpy.typing import NDArray


def class_filters_of(
    workdir: str | Path, depth: int | None = None, class_: str | None = None, count: int = 64
) -> tuple[dict[str, Any], "NDArray[np.float64]"]:
    """Measures the filters of a run's head and takes those of largest norm of one class.

    The filters that count for class c are v_ic of fixed gates, with the sign of a pair, and u_i w_ic of the twin. Of patches with
    three colours, `blue_minus_red` is the sum over filters of (mean blue - mean red) / sum over filters of |filter|: whether the
    class looks for blue (Chang and Lee, Figure 3).

    Args:
        depth: of the head, from 1; default: the deepest trained one.
        class_: name or number of the class whose filters are wanted; default: the first.
        count: how many of them.

    Returns:
        head, kernel_size, channels, filters, norm_share (of the filters that are given, of all norms of the class) and, for each
        class, its name, used (filters that are not zero), norms (their sum) and blue_minus_red (or None);
        and these filters (count, size, size, channels).

    Raises:
        WorkdirError, CheckpointError, DataError: the run folder cannot be used, or nothing is trained yet.
        InputError: the head has no such filters, or there is no such class.
    """
    if count < 1:
        raise InputError(f"count: received {count}; allowed: 1 or more")
    folder = Workdir.open(workdir)
    job, network = trained_network(folder, open_job(folder, None))
    depths = network.facts.depths
    depth = depths[-1] if depth is None else depth
    if depth not in depths:
        raise InputError(f"depth: received {depth}; allowed: a trained one ({', '.join(map(str, depths))})")
    head = network.architecture.heads[depth - 1].name
    filters = effective_filters(network, head)
    names = list(job.data.class_names)
    index = 0 if class_ is None else class_index(names, class_)
    size, channels = filters.shape[0], filters.shape[2]
    norms = np.sqrt(np.square(filters).sum((0, 1, 2)))
    order = np.argsort(-norms[:, index], kind="stable")[:count]
    classes = []
    for number, name in enumerate(names):
        total = float(norms[:, number].sum())
        colours = filters[..., number].mean((0, 1)).sum(1)
        blue = float(colours[2] - colours[0]) / total if channels == 3 and total else None
        classes.append({"name": name, "used": int((norms[:, number] > 0).sum()), "norms": total, "blue_minus_red": blue})
    found = {
        "spec": job.spec.name,
        "head": head,
        "kernel_size": size,
        "channels": channels,
        "filters": int(filters.shape[3]),
        "class": names[index],
        "shown": len(order),
        "norm_share": float(norms[order, index].sum() / (norms[:, index].sum() or 1.0)),
        "classes": classes,
    }
    return found, np.moveaxis(filters[..., order, index], -1, 0)


def effective_filters(network: Network, head: str) -> "NDArray[np.float64]":
    """(size, size, channels, filters, classes) of a head that ends in gated patches, or in their twin.

    Raises:
        InputError: it does not.
    """
    *_, first, last = network.component(head).layers
    weights = keras.ops.convert_to_numpy(last.kernel).astype(np.float64)
    if isinstance(first, GatedPatches):
        signs = keras.ops.convert_to_numpy(first.signs).astype(np.float64)[:, None] if first.paired else 1.0
        return (weights * signs).reshape(first.kernel_size, first.kernel_size, -1, *weights.shape[1:])
    if isinstance(first, RectifiedMean):
        return keras.ops.convert_to_numpy(first.kernel).astype(np.float64)[..., None] * weights
    raise InputError(f"{head} does not end in gated_conv with class_separable: true, whose filters this is about")
