"""`summary`: one spec, or two side by side; counted without TensorFlow, measured with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from kerasgreedy.cli import output
from kerasgreedy.cli.options import quiet_tensorflow
from kerasgreedy.errors import InputError, ShapeError, tell
from kerasgreedy.files import user_path
from kerasgreedy.graph.architecture import Architecture, Component, architecture
from kerasgreedy.reports.costs import bytes_text, cost_ratios, cost_rows, latency_text, speed_notes
from kerasgreedy.spec import load

SPEC, PRUNED_SPEC, MODEL = "spec.yaml", "pruned_spec.yaml", "model.keras"
ROLES = ("before", "after")
Latencies = dict[str, dict[str, Any]]  # role -> batch size -> figures


@dataclass(frozen=True)
class Side:
    """A spec that is summarised.

    Attributes:
        place: file or shipped name that it was read from.
        model_file: the `model.keras` of the run folder whose network this is.
    """

    place: str
    architecture: Architecture
    model_file: Path | None

    def as_json(self) -> dict[str, Any]:
        """What `summary --json` says of it without options, and the size of the run's model file if there is one."""
        size = {"model_file_bytes": self.model_file.stat().st_size} if self.model_file else {}
        return {**output.architecture_json(self.architecture), **size}


def sides(spec: str, other: str | None, overrides: Sequence[str]) -> list[Side]:
    """One spec or two: those that were named, or before and after of a run folder with a `pruned_spec.yaml`.

    Args:
        spec, other: file, shipped name or run folder; beside another, a run folder stands for its network as it is now.
        overrides: `key=value`, for both.

    Raises:
        InputError: no spec, not a run folder, a layer that does not fit, or no input size.
    """
    places = [_places(place) for place in (spec, other) if place is not None]
    chosen = places[0] if other is None else [names[-1] for names in places]
    return [_side(place, overrides) for place in chosen]


def measured(found: Sequence[Side]) -> Latencies:
    """Latencies of the networks, with fresh weights, at batch 1 and 32."""
    quiet_tensorflow()
    from kerasgreedy.network.build import Network
    from kerasgreedy.network.latency import measure_latency

    tell("measuring: the network that is deployed, fresh weights, float32, batch 1 and 32")
    return measure_latency({role: Network(side.architecture) for role, side in zip(ROLES, found, strict=False)})


def as_json(found: Sequence[Side], latency: Latencies | None) -> dict[str, Any]:
    """`summary --json`."""
    if len(found) == 1:
        more = {"weights_bytes": found[0].architecture.weights_bytes, "latency": latency["before"]} if latency else {}
        return {**found[0].as_json(), **more}
    result: dict[str, Any] = {}
    for role, side, costs in zip(ROLES, found, _costs(found, latency), strict=True):
        result[role] = {"place": side.place, **side.as_json(), **costs}
        parts = (*side.architecture.blocks, side.architecture.heads[-1])
        result[role]["widths"] = {part.name: part.widths for part in parts}
    return {**result, "ratio": cost_ratios(result["before"], result["after"])}


def put(found: Sequence[Side], latency: Latencies | None) -> None:
    """`summary` for people."""
    if len(found) == 1:
        output.put_architecture(found[0].architecture)
        if latency:
            output.put(f"weights: {bytes_text(found[0].architecture.weights_bytes)} in float32 (blocks and final head)")
        for batch, entry in latency["before"].items() if latency else ():
            output.put(f"latency at batch {batch}: {latency_text(entry)} ms, median and quartiles of {entry['rounds']} rounds")
    else:
        before, after = _costs(found, latency)
        title = ", ".join(f"{role}: {side.place}" for role, side in zip(ROLES, found, strict=True))
        rows = [*_width_rows(*(side.architecture for side in found)), *cost_rows(before, after)]
        output.put_table(["", *ROLES, "before / after"], rows, title)
        output.put("of blocks and final head; widths are filters of convolutions and units of dense layers")
        if latency:
            rounds = ", ".join(f"{entry['rounds']} at batch {batch}" for batch, entry in latency["before"].items())
            output.put(f"milliseconds: median and quartiles of interleaved rounds ({rounds})")
        for note in speed_notes(after):
            output.put(note)
    for model in dict.fromkeys(side.model_file for side in found if side.model_file):
        output.put(f"{model}: {bytes_text(model.stat().st_size)}, with every trained head")


def _places(place: str) -> list[str]:
    """The spec files that an argument stands for: first and last are before and after of a pruned run."""
    folder = user_path(place)
    if not folder.is_dir():
        return [place]
    if not (folder / SPEC).is_file():
        raise InputError(f"{place}: a folder, but not a run folder (no {SPEC}); allowed: a spec or a run folder")
    return [str(folder / name) for name in (SPEC, PRUNED_SPEC) if (folder / name).is_file()]


def _side(place: str, overrides: Sequence[str]) -> Side:
    document = load.load_spec(place, overrides)
    try:
        arch = architecture(document.value)
    except ShapeError as error:
        raise document.shape_problem(error) from None
    # The model file of a run is of its network as it is now.
    path = user_path(place)
    old = path.name == SPEC and path.with_name(PRUNED_SPEC).is_file()
    model = path.with_name(MODEL)
    in_run = path.name in (SPEC, PRUNED_SPEC) and not old and model.is_file()
    return Side(place, arch, model if in_run else None)


def _costs(found: Sequence[Side], latency: Latencies | None) -> list[dict[str, Any]]:
    """What `reports.costs` calls a side."""
    return [
        {
            "parameters": side.architecture.parameters,
            "multiply_adds": side.architecture.multiply_adds,
            "weights_bytes": side.architecture.weights_bytes,
            **({"latency": latency[role]} if latency else {}),
        }
        for role, side in zip(ROLES, found, strict=True)
    ]


def _width_rows(before: Architecture, after: Architecture) -> list[list[str]]:
    """A row for each block, in order, and for the final head."""
    rows = []
    for one, two in zip_longest(before.blocks, after.blocks):
        names = list(dict.fromkeys(block.name for block in (one, two) if block))
        rows.append([" / ".join(names), _widths(one), _widths(two), ""])
    return [*rows, ["final head", _widths(before.heads[-1]), _widths(after.heads[-1]), ""]]


def _widths(part: Component | None) -> str:
    return ", ".join(map(str, part.widths)) or "no weights" if part else "-"
