"""`frontier`: accuracy against multiply-adds along the weight of a structured penalty."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kerasgreedy.cli import output
from kerasgreedy.cli.options import Json, Sets, quiet_tensorflow, whole_numbers
from kerasgreedy.errors import InputError
from kerasgreedy.reports.costs import count
from kerasgreedy.reports.tables import percent


def frontier(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="Model spec: a path, or the name of a shipped one.")],
    alpha: Annotated[
        str, typer.Option("--alpha", metavar="A:B:logN|A,B,...", help="Weights of the recipe's first regularizer, rising.")
    ],
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="With regularizers and a threshold; a path or a name.")],
    folder: Annotated[Path, typer.Option("--workdir", "-w", metavar="DIR", help="Of the study. Goes on with one that is there.")],
    seeds: Annotated[str, typer.Option("--seeds", metavar="N,N,...", help="One sequence of runs for each.")] = "0",
    warm_epochs: Annotated[
        int | None, typer.Option("--warm-epochs", help="Of all alphas but the first. Default: as the recipe says.")
    ] = None,
    narrower: Annotated[
        str, typer.Option("--narrower", metavar="SHARE,...", help="Also train nets with these shares of the filters, plainly.")
    ] = "",
    references: Annotated[
        list[str] | None, typer.Option("--reference", metavar="SPEC", help="Also train this one, plainly; may be repeated.")
    ] = None,
    plain_epochs: Annotated[
        int | None, typer.Option("--plain-epochs", help="Of these. Default: as many as the last net of the sweep has had in all.")
    ] = None,
    sets: Sets = None,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress of the runs.")] = False,
) -> None:
    """Sweep a penalty's weight, threshold each network, and draw accuracy against multiply-adds."""
    shares = _numbers("--narrower", narrower, lambda value: 0 < value < 1, "shares between 0 and 1")
    chosen = whole_numbers("--seeds", seeds)
    for option, epochs in (("--warm-epochs", warm_epochs), ("--plain-epochs", plain_epochs)):
        if epochs is not None and epochs < 1:
            raise InputError(f"{option}: received {epochs}; allowed: 1 or more")
    quiet_tensorflow()
    from kerasgreedy.studies.frontier import frontier as run
    from kerasgreedy.studies.frontier_range import Frontier, alphas_of

    study = Frontier(
        spec=spec,
        recipe=recipe,
        alphas=alphas_of(alpha),
        seeds=chosen,
        warm_epochs=warm_epochs,
        narrower=tuple(shares),
        references=tuple(references or ()),
        plain_epochs=plain_epochs,
        overrides=tuple(sets or ()),
    )
    table = run(study, folder, lambda line: typer.echo(line, err=True), quiet)
    if as_json:
        output.put_json({"folder": str(folder), **table})
        return
    header = ["", "seed", "epochs", "multiply-adds", "parameters", "top-1 %", "whole net's", "kernels", "batch 1", "batch 32"]
    output.put_table(header, [_row(net) for net in [*table["nets"], *table["plain"]]])
    output.put(f"pictures and frontier.json are in {folder}")


def _row(net: dict[str, Any]) -> list[str]:
    name = f"alpha {net['alpha']:g}" if "alpha" in net else net["name"]
    kernels = sum(after for _, after in net["filters"].values()) if "filters" in net else None
    ratios = [f"{net['latency'][batch]['ratio']:.2f}x" if batch in net.get("latency", {}) else "-" for batch in ("1", "32")]
    whole = percent(net["whole_top1"]) if "whole_top1" in net else "-"
    return [
        name, str(net["seed"]), str(net["epochs"]), count(net["multiply_adds"]), f"{net['parameters']:,}", percent(net["top1"]),
        whole, "-" if kernels is None else f"{kernels:,}", *ratios,
    ]  # fmt: skip


def _numbers(option: str, text: str, fits: Any, allowed: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",") if part]
        if not all(fits(value) for value in found) or len(set(found)) < len(found):
            raise ValueError
    except ValueError:
        raise InputError(f"{option}: received '{text}'; allowed: different {allowed}, with commas between them") from None
    return found
