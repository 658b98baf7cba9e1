"""`kerasgreedy analyze`: what theory says of a network, checked with numbers; what its filters look for."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kerasgreedy.cli import output
from kerasgreedy.cli.options import Json, Overwrite, Sets, quiet_tensorflow
from kerasgreedy.errors import InputError
from kerasgreedy.files import user_path

analyze_app = typer.Typer(
    name="analyze",
    help="Check what theory says of a network; look at its filters.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@analyze_app.command("linearity")
def linearity(
    place: Annotated[
        str, typer.Argument(metavar="SPEC|RUN", help="Model spec: a YAML file, the name of a shipped one, or a run folder.")
    ],
    examples: Annotated[int, typer.Option("--examples", help="Images, each with its supports.")] = 8,
    depth: Annotated[int | None, typer.Option("--depth", help="Of the head, from 1. Default: the last trained one.")] = None,
    weights: Annotated[
        str, typer.Option("--weights", metavar="kernel|matrix", help="Products of entries of kernels, or of whole matrices.")
    ] = "kernel",
    limit: Annotated[int | None, typer.Option("--limit", help="Entries that U may have. Default: 50,000,000.")] = None,
    part: Annotated[str | None, typer.Option("--part", help="Run: images of validation (default), test or train.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Spec: of weights and images. Default: 0.")] = None,
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Write a small network with held supports as U v, and print the bounds of Theorem 1."""
    is_run = user_path(place).is_dir()
    stray = [("--seed", seed), ("--set", sets)] if is_run else [("--part", part)]
    for option, value in stray:
        if value is not None and value != []:
            kind = "a run folder, which has its own weights and images" if is_run else "a spec: its images are random"
            raise InputError(f"{option} cannot stand beside {kind}")
    quiet_tensorflow()
    from kerasgreedy.analysis.linearity import LIMIT
    from kerasgreedy.analysis.linearity_source import linearity_of_run, linearity_of_spec

    size = LIMIT if limit is None else limit
    if is_run:
        found = linearity_of_run(place, part or "validation", examples, depth, weights, size)  # type: ignore[arg-type]
    else:
        found = linearity_of_spec(place, sets or [], examples, depth, weights, size, seed or 0)
    if as_json:
        output.put_json(found)
    else:
        _put(found)


@analyze_app.command("filters")
def filters(
    workdir: Annotated[Path, typer.Argument(metavar="WORKDIR", help="Run folder of a network with a head of gated_conv.")],
    depth: Annotated[int | None, typer.Option("--depth", help="Of the head, from 1. Default: the last trained one.")] = None,
    class_: Annotated[str | None, typer.Option("--class", help="Name or number of the class that is shown. Default: 0.")] = None,
    count: Annotated[int, typer.Option("--count", help="Filters that are shown, those of largest norm.")] = 64,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="The picture. Default: WORKDIR/plots/filters.png.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Show the filters of a class, and how much blue and red those of each class look for."""
    from kerasgreedy.pictures import picture_path

    picture = picture_path(user_path(workdir) / "plots" / "filters.png" if plot is None else plot, overwrite)
    quiet_tensorflow()
    from kerasgreedy.analysis.class_filters import class_filters_of
    from kerasgreedy.reports.filters_plot import plot_filters

    found, shown = class_filters_of(workdir, depth, class_, count)
    plot_filters(found, shown, picture, overwrite)
    if as_json:
        output.put_json({**found, "plot": str(picture)})
        return
    rows = [
        [each["name"], f"{each['used']:,}", f"{each['norms']:.4g}",
         "-" if each["blue_minus_red"] is None else f"{each['blue_minus_red']:+.4f}"]
        for each in found["classes"]
    ]  # fmt: skip
    output.put_table(["class", "filters", "sum of norms", "blue minus red"], rows, f"{found['spec']}, {found['head']}")
    output.put(f"picture: {picture}")


def _put(found: dict[str, Any]) -> None:
    """Layers, then the checks, then the bounds."""
    images = "random images" if found["images"] == "random" else f"{found['images']} images"
    title = f"{found['spec']}, depth {found['depth']}, {found['examples']} {images}"
    rows = [[*(f"{layer[key]:,}" for key in ("rows", "columns", "weights", "biases"))] for layer in found["layers"]]
    names = [layer["layer"] for layer in found["layers"]]
    output.put_table(
        ["layer", "rows of W", "columns", "weights", "biases"], [[n, *r] for n, r in zip(names, rows, strict=True)], title
    )
    for support in found["supports"]:
        output.put(f"support of {support['layer']}: {100 * support['share']:.1f} % of the units pass")
    biases = f" and {found['bias_columns']:,} of biases" if found["bias_columns"] else ""
    output.put(
        f"U: {found['outputs']:,} outputs (examples x classes); {found['columns']:,} columns, products of {found['weights']} "
        f"entries{biases}; {found['entries']:,} entries, {found['bytes']:,} bytes"
    )
    for what, key in (
        ("U v against the network in float64", "product"),
        ("the network in Keras float32 against float64", "keras"),
    ):
        output.put(f"{what}: largest difference {found[key]['error']:.2g}, relative {found[key]['relative']:.2g}")
    worst = max(found["linear_in"], key=lambda entry: entry["relative"])
    where = ", ".join(entry["of"] for entry in found["linear_in"])
    output.put(f"linear in {where} with supports held: largest relative difference {worst['relative']:.2g} ({worst['of']})")
    _put_bounds(found)


def _put_bounds(found: dict[str, Any]) -> None:
    kinds = {"weights": found["bounds"], "weights and biases": found["bounds_with_biases"]}
    keys = ("rank", "zero_columns", "no_path_columns", "lambda2_min", "lambda2_min_nonzero", "lambda2_max", "ratio")
    rows = [[kind, *(_number(bounds[key]) for key in keys)] for kind, bounds in kinds.items() if bounds]
    head = ["columns of U", "rank", "zero", "on no path", "lambda_min^2", "smallest above 0", "lambda_max^2", "max / min"]
    lower, upper = (found["bounds"][key] for key in ("lower", "upper"))
    output.put_table(
        head, rows, f"Theorem 1 (eq. 29): {lower:.6g} + eps m <= lambda^2 <= {upper:.6g} - eps m, m = {found['outputs']:,}"
    )
    for kind, bounds in kinds.items():
        if bounds:
            output.put(f"{kind}: {bounds['verdict']}")
    if len(found["layers"]) != 2:
        output.put(f"the paper proves Theorem 1 for two layers of weights; here are {len(found['layers'])}")


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
