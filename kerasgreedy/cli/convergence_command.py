"""`kerasgreedy convergence`: how many iterations runs need for a training loss."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from kerasgreedy.cli import output
from kerasgreedy.cli.options import Json, Overwrite
from kerasgreedy.reports.tables import percent

# key of a run and of its group -> name of the column and how its figures are written
COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "target_loss": ("target loss", "{:.4g}".format),
    "iterations_to_target": ("iterations to it", "{:,.0f}".format),
    "ratio": ("ratio", "{:.2f}".format),
    "fewer": ("fewer %", lambda share: f"{100 * share:.1f}"),
    "iterations": ("trained for", "{:,.0f}".format),
    "final_loss": ("final loss", "{:.4g}".format),
    "final_error": ("validation error %", percent),
}
PLAIN = ("target_loss", "iterations")  # a group shows their mean without a range
REACHED = list(COLUMNS).index("iterations_to_target")


def convergence(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="[LABEL=]RUN...", help="Run folders, finished or not. Runs of one label are seeds of one curve."),
    ],
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Also draw loss and error against iterations.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option("--reference", metavar="LABEL", help="Whose last loss is to be reached. Default: the first.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split", help="Loss of train_exact, train or validation. Default: train_exact if all have it, else train."
        ),
    ] = None,
    head: Annotated[str | None, typer.Option("--head", help="Follow this head. Default: in each phase the deepest.")] = None,
    phase: Annotated[
        str | None, typer.Option("--phase", metavar="NAME", help="Only this phase, from its own start. Default: all.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Compare how many iterations runs need for the training loss at which a reference run ends."""
    from kerasgreedy.pictures import picture_path
    from kerasgreedy.reports.convergence import comparison, read_groups

    target = picture_path(plot, overwrite) if plot is not None else None
    groups = read_groups(runs)
    result = comparison(groups, reference, split, head, phase)
    if target is not None:
        from kerasgreedy.reports.convergence_plot import plot_convergence

        plot_convergence(groups, result, target, overwrite)
    if as_json:
        output.put_json({**result, "plot": str(target) if target else None})
        return
    _put(result)
    if target is not None:
        output.put(f"figure: {target}")


def _put(result: dict[str, Any]) -> None:
    """A row for each group, and under one of several seeds a row for each; then what the reader should know."""
    rows: list[list[str]] = []
    for group in result["groups"]:
        rows.append([group["label"], *_group_cells(group)])
        if len(group["runs"]) > 1:
            rows += [[f"  seed {run['seed']}", *_run_cells(run)] for run in group["runs"]]
    where = f", phase {result['phase']}" if result["phase"] else ""
    title = f"iterations until the loss at which {result['reference']} ends (split {result['split']}{where})"
    header = ["", *(name for name, _ in COLUMNS.values()), "masks estimated"]
    if all(row[-1] == "0" for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    output.put_table(header, rows, title)
    if any(len(group["runs"]) > 1 for group in result["groups"]):
        output.put(
            "of several seeds: mean (lowest to highest); iterations to the target, ratio and fewer of those that reached it"
        )
    for group in result["groups"]:
        for run in group["runs"]:
            if run["iterations_to_target"] is None:
                output.put(f"{run['workdir']}: not reached in {run['iterations']:,} iterations")
    for note in result["notes"]:
        output.put(f"note: {note}")


def _run_cells(run: dict[str, Any]) -> list[str]:
    cells = ["-" if run[key] is None else write(run[key]) for key, (_, write) in COLUMNS.items()]
    if run["iterations_to_target"] is None:
        cells[REACHED] = "not reached"
    return [*cells, str(len(run["refreshes"]))]


def _group_cells(group: dict[str, Any]) -> list[str]:
    runs = group["runs"]
    if len(runs) == 1:
        return _run_cells(runs[0])
    cells = ["-" if group[key] is None else _spread(group[key], write, key not in PLAIN) for key, (_, write) in COLUMNS.items()]
    if group["reached"] < len(runs):
        cells[REACHED] = f"{cells[REACHED]}, {group['reached']} of {len(runs)}" if group["reached"] else "not reached"
    counts = [len(run["refreshes"]) for run in runs]
    return [*cells, str(counts[0]) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"]


def _spread(figure: dict[str, float], write: Callable[[float], str], ranged: bool) -> str:
    mean, low, high = (write(figure[key]) for key in ("mean", "low", "high"))
    return mean if low == high or not ranged else f"{mean} ({low} to {high})"
