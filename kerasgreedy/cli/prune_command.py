"""`prune`: a smaller network out of a finished run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kerasgreedy.cli import output
from kerasgreedy.cli.options import CheckData, DataAt, DevicesOption, Json, Quiet, Sets, quiet_tensorflow
from kerasgreedy.errors import InputError

if TYPE_CHECKING:
    from kerasgreedy.train.entry_points import Run


def prune(
    workdir: Annotated[Path, typer.Argument(metavar="WORKDIR", help="A finished run; it stays as it is.")],
    out: Annotated[
        Path | None, typer.Option("--workdir", "-w", metavar="DIR", help="New run folder. Default: WORKDIR-pruned.")
    ] = None,
    keep: Annotated[
        str | None, typer.Option("--keep", metavar="SHARE|N", help="Share (0.5) or number (64) of filters that each layer keeps.")
    ] = None,
    multiply_adds: Annotated[
        str | None, typer.Option("--multiply-adds", metavar="SHARE|N", help="Share or number of multiply-adds of an image.")
    ] = None,
    accuracy_drop: Annotated[
        float | None, typer.Option("--accuracy-drop", help="Most accuracy on validation data that it may cost (0.01: a point).")
    ] = None,
    zeros: Annotated[bool, typer.Option("--zeros", help="What has importance 0, exactly, such as after group_lasso.")] = False,
    rounds: Annotated[int, typer.Option("--rounds", help="Remove and fine-tune so many times.")] = 1,
    importance: Annotated[str, typer.Option("--importance", help="Which filters are weak.")] = "taylor_activation",
    ranking: Annotated[
        str, typer.Option("--ranking", help="layer: each loses the same share; global: the weakest of all.")
    ] = "layer",
    components: Annotated[
        list[str] | None,
        typer.Option("--component", "-c", help="Block or head that loses filters; may be repeated. Default: all."),
    ] = None,
    images: Annotated[int | None, typer.Option("--images", help="Training images for importance. Default: all.")] = None,
    heads: Annotated[str | None, typer.Option("--heads", help="Heads with a loss: last or all. Default: those trained.")] = None,
    epochs: Annotated[int, typer.Option("--epochs", help="Fine-tuning after each round; 0: none.")] = 3,
    fine_tune: Annotated[str, typer.Option("--fine-tune", help="What it trains: all or head.")] = "all",
    sets: Sets = None,
    devices: DevicesOption = None,
    check_data: CheckData = False,
    data_at: DataAt = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Remove the least important filters of a finished run's network, and fine-tune what is left."""
    kept, budget = number("--keep", keep), number("--multiply-adds", multiply_adds)
    quiet_tensorflow()
    from kerasgreedy.train.prune_run import prune_run

    done = prune_run(
        workdir,
        keep=kept,
        multiply_adds=budget,
        accuracy_drop=accuracy_drop,
        zeros=zeros,
        rounds=rounds,
        importance=importance,
        ranking=ranking,
        components=components,
        images=images,
        heads=heads,
        epochs=epochs,
        fine_tune=fine_tune,
        overrides=sets or [],
        out=out,
        quiet=quiet,
        devices=devices,
        check_data=check_data,
        data_at=data_at,
    )
    put_smaller(done, "after pruning", as_json)


def put_smaller(done: "Run", how: str, as_json: bool) -> None:
    """Says what the run of a smaller network came to."""
    if as_json:
        output.put_json({"workdir": str(done.workdir), **done.results})
    else:
        output.put_scores(done.results, f"{done.results['spec']} {how}, on test data")
        output.put_costs(done.results)
        output.put(f"run folder: {done.workdir}")


def number(option: str, text: str | None) -> float | None:
    """A whole number stays one: 1 is a filter, 1.0 is a share."""
    if text is None:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise InputError(f"{option}: received '{text}'; allowed: a share such as 0.5, or a whole number")
