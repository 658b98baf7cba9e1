"""`kerasgreedy identities`: whether layers that a penalty would remove turn into identities (structured sparsity, eq. 24)."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from kerasgreedy.analysis.analysis import Analysis, Desk, Table
from kerasgreedy.analysis.subject import Subject
from kerasgreedy.errors import InputError
from kerasgreedy.network.parameters import Parameters
from kerasgreedy.reports.identities_plot import draw_identities
from kerasgreedy.spec.analyses_of_layers import Identities

if TYPE_CHECKING:
    from numpy.typing import NDArray


class IdentitiesAnalysis(Analysis[Identities]):
    """For each convolution: how near its kernels are to (24), beside random kernels of the same shape."""

    subjects: ClassVar[tuple[int, int | None]] = (1, None)

    def measure(self, subjects: Sequence[Subject], desk: Desk) -> dict[str, Any]:
        """One entry for each run and layer."""
        return {"runs": [{"name": subject.name, **subject.facts, "layers": self._layers(subject)} for subject in subjects]}

    def _layers(self, subject: Subject) -> list[dict[str, Any]]:
        parameters = Parameters(subject.model)
        theta = parameters.read()
        rng = np.random.default_rng(self.settings.seed)
        found = []
        for tensor in parameters.tensors:
            if len(tensor.shape) != 4 or tensor.filters != (3,):
                continue
            kernel = tensor.of(theta).astype(np.float64)
            shares, channels = identity_shares(kernel)
            alive = np.isfinite(shares)
            random, _ = identity_shares(rng.standard_normal((*tensor.shape[:3], self.settings.draws)))
            near = shares > 0.5
            found.append(
                {
                    "layer": tensor.path.removesuffix("/kernel"),
                    "side": tensor.shape[0],
                    "channels": tensor.shape[2],
                    "filters": tensor.shape[3],
                    "alive": int(alive.sum()),
                    "share": float(shares[alive].mean()) if alive.any() else None,
                    "near": int(near.sum()),
                    "passed_on": len(set(channels[near].tolist())),
                    "random": float(random.mean()),
                }
            )
        if not found:
            raise InputError(f"{subject.name}: has no convolution whose filters see all channels")
        return found

    def tables(self, found: dict[str, Any]) -> list[Table]:
        """A row for each layer."""
        header = ["run", "layer", "kernel", "alive", "identity share", "random kernels", "over a half", "channels passed on"]
        rows = [
            [
                run["name"],
                layer["layer"],
                f"{layer['side']}x{layer['side']}x{layer['channels']}",
                f"{layer['alive']} of {layer['filters']}",
                "-" if layer["share"] is None else f"{layer['share']:.3f}",
                f"{layer['random']:.3f}",
                str(layer["near"]),
                f"{layer['passed_on']} of {layer['channels']}",
            ]
            for run in found["runs"]
            for layer in run["layers"]
        ]
        title = "identity share: of a kernel's squares, what stands at its centre in the one channel where it is largest"
        return [Table("identities", header, rows, title)]

    def figures(self, found: dict[str, Any]) -> dict[str, Callable[[], Any]]:
        """Shares by layer."""
        return {"identities": lambda: draw_identities(found)}


def identity_shares(kernel: "NDArray[np.float64]") -> "tuple[NDArray[np.float64], NDArray[np.int64]]":
    """How much of each filter is the kernel I_r' of (24), whatever its factor.

    The largest positive k[centre, r'], squared, over the sum of all squares.

    Of even sides the centre is the place that `same` padding leaves where it is.

    Args:
        kernel: (height, width, channels, filters).

    Returns:
        (filters,) shares from 0 to 1, not a number for filters that are zero; (filters,) the channels r'.
    """
    centre = np.maximum(kernel[(kernel.shape[0] - 1) // 2, (kernel.shape[1] - 1) // 2], 0)
    squares = np.square(kernel).sum((0, 1, 2))
    top = np.square(centre.max(0))
    return np.divide(top, squares, out=np.full(len(top), np.nan), where=squares > 0), centre.argmax(0)
