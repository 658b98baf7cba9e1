"""`threshold`: a finished run's network without what a structured penalty has made small."""

from pathlib import Path
from typing import Annotated

import typer

from kerasgreedy.cli.options import CheckData, DataAt, DevicesOption, Json, Quiet, Sets, quiet_tensorflow
from kerasgreedy.cli.prune_command import number, put_smaller
from kerasgreedy.errors import InputError


def threshold(
    workdir: Annotated[Path, typer.Argument(metavar="WORKDIR", help="A finished run; it stays as it is.")],
    out: Annotated[
        Path | None, typer.Option("--workdir", "-w", metavar="DIR", help="New run folder. Default: WORKDIR-thresholded.")
    ] = None,
    tau: Annotated[float | None, typer.Option("--tau", help="The largest norm that goes; 0: what is zero exactly.")] = None,
    accuracy_drop: Annotated[
        float | None, typer.Option("--accuracy-drop", help="The largest tau that costs at most this on validation data.")
    ] = None,
    multiply_adds: Annotated[
        str | None, typer.Option("--multiply-adds", metavar="SHARE|N", help="The smallest tau that leaves at most so many.")
    ] = None,
    of: Annotated[
        list[str] | None,
        typer.Option("--of", metavar="PATTERN", help="Layers, such as 'block_1/*', may be repeated; or hidden, blocks."),
    ] = None,
    groups: Annotated[
        str | None, typer.Option("--groups", help="kernel, half_rings or rings. Default: as the regularizer of the run.")
    ] = None,
    norm: Annotated[str | None, typer.Option("--norm", help="l2, normalized, scaled or linf. Default: likewise.")] = None,
    on: Annotated[str | None, typer.Option("--on", help="kernel, scaled_kernel or scale. Default: likewise.")] = None,
    round_to: Annotated[int, typer.Option("--round-to", help="Filters stay in multiples of this many.")] = 1,
    sizes: Annotated[
        str | None, typer.Option("--sizes", help="Kernels of different sides in a layer: measured, branches or padded.")
    ] = None,
    sums: Annotated[
        str, typer.Option("--sums", help="Filters missing in sums: placed (the others are put in place) or zeros (faster).")
    ] = "placed",
    epochs: Annotated[int, typer.Option("--epochs", help="Fine-tuning afterwards, without regularizers; 0: none.")] = 3,
    fine_tune: Annotated[str, typer.Option("--fine-tune", help="What it trains: all or head.")] = "all",
    sets: Sets = None,
    devices: DevicesOption = None,
    check_data: CheckData = False,
    data_at: DataAt = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Remove kernels, sides of kernels and residual bodies that a structured penalty has made small, and fine-tune."""
    budget = number("--multiply-adds", multiply_adds)
    words = [each for each in of or [] if each in ("all", "blocks", "heads", "hidden")]
    if words and len(of or []) > 1:
        raise InputError(f"--of: received '{words[0]}' beside others; allowed: one of all, blocks, heads, hidden, or patterns")
    quiet_tensorflow()
    from kerasgreedy.train.prune_run import threshold_run

    done = threshold_run(
        workdir,
        tau=tau,
        accuracy_drop=accuracy_drop,
        multiply_adds=budget,
        of=words[0] if words else of,
        groups=groups,
        norm=norm,
        on=on,
        round_to=round_to,
        sizes=sizes,
        sums=sums,
        epochs=epochs,
        fine_tune=fine_tune,
        overrides=sets or [],
        out=out,
        quiet=quiet,
        devices=devices,
        check_data=check_data,
        data_at=data_at,
    )
    put_smaller(done, "without what is small", as_json)
