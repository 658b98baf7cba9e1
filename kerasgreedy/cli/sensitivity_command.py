"""`kerasgreedy sensitivity`: which components can lose filters, and which cannot."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kerasgreedy.cli import output
from kerasgreedy.cli.options import CheckData, DataAt, DevicesOption, Json, Overwrite, quiet_tensorflow
from kerasgreedy.errors import InputError, tell

Names = list[str] | None


def sensitivity(
    workdir: Annotated[Path, typer.Argument(metavar="WORKDIR", help="Run folder.")],
    importance: Annotated[
        Names,
        typer.Option("--importance", metavar="NAMES", help="Criteria, with commas or repeated. Default: taylor_activation."),
    ] = None,
    shares: Annotated[
        Names, typer.Option("--shares", metavar="NUMBERS", help="Of the filters that go, with commas. Default: 0.1 to 0.9.")
    ] = None,
    part: Annotated[str, typer.Option("--part", help="Measure accuracy on validation, test or train.")] = "validation",
    examples: Annotated[int | None, typer.Option("--examples", help="On so many images of the part. Default: all.")] = None,
    images: Annotated[int | None, typer.Option("--images", help="Training images for importance. Default: all.")] = None,
    components: Annotated[
        Names, typer.Option("--components", metavar="NAMES", help="Blocks, the last head, all. Default: each, and all together.")
    ] = None,
    ranking: Annotated[str, typer.Option("--ranking", help="layer or global.")] = "layer",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder for the files. Default: the run folder.")
    ] = None,
    devices: DevicesOption = None,
    overwrite: Overwrite = False,
    check_data: CheckData = False,
    data_at: DataAt = None,
    as_json: Json = False,
) -> None:
    """Measure accuracy against removed filters, block by block, without fine-tuning."""
    numbers = [_number(text) for text in _listed(shares)]
    from kerasgreedy.reports.sensitivity_plot import sensitivity_files, write_sensitivity

    place = workdir if out is None else out
    sensitivity_files(place, overwrite)
    quiet_tensorflow()
    from kerasgreedy.analysis.sensitivity import SHARES, sensitivity_of

    result = sensitivity_of(
        workdir,
        _listed(importance) if importance is not None else ("taylor_activation",),
        numbers if shares is not None else SHARES,
        part,  # type: ignore[arg-type]
        images,
        _listed(components) if components is not None else None,
        ranking,
        examples=examples,
        say=tell,
        devices=devices,
        check_data=check_data,
        data_at=data_at,
    )
    data, picture = write_sensitivity(place, result, overwrite)
    if as_json:
        output.put_json({**result, "files": [str(data), str(picture)]})
        return
    _put(result)
    output.put(f"files: {data}, {picture}")


def _listed(values: Names) -> list[str]:
    """`a,b` and repeated options alike."""
    return [name.strip() for value in values or [] for name in value.split(",") if name.strip()]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--shares: received '{text}'; allowed: numbers above 0 and below 1") from None


def _put(result: dict[str, Any]) -> None:
    """A table for each criterion: component x share, the component that loses most first, `all` last."""
    from kerasgreedy.reports.tables import percent

    whole = percent(result["baseline"]["top1"])
    for criterion in dict.fromkeys(curve["criterion"] for curve in result["curves"]):
        curves = [curve for curve in result["curves"] if curve["criterion"] == criterion]
        curves.sort(key=lambda curve: (curve["component"] == "all", sum(point["top1"] for point in curve["points"])))
        shares = [f"-{100 * point['share']:g} %" for point in curves[0]["points"]]
        rows = [
            [
                curve["component"],
                f"{curve['points'][0]['filters']:,}",
                whole,
                *(percent(point["top1"]) for point in curve["points"]),
            ]
            for curve in curves
        ]
        where = f"depth {result['depth']} on {result['examples']:,} {result['part']} images"
        title = f"{result['spec']}, {criterion}: top-1 % at {where} without a share of the filters"
        output.put_table(["component", "filters", "whole", *shares], rows, title)
    for entry in result["skipped"]:
        output.put(f"not alone: {entry['reason']}")
