"""`sweep`: one spec under several values of its settings, with several seeds."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kerasgreedy.cli import output
from kerasgreedy.cli.options import Json, RecipeOption, Sets, quiet_tensorflow, whole_numbers
from kerasgreedy.errors import tell
from kerasgreedy.reports.tables import percent
from kerasgreedy.strict_json import value_text


def sweep(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="Model spec: a path, or the name of a shipped one.")],
    over: Annotated[
        list[str],
        typer.Option(
            "--over",
            metavar="KEY=V,V,...",
            help="A setting, as of --set, and its values, or first:last:logN. Repeated: every combination.",
        ),
    ],
    folder: Annotated[Path, typer.Option("--workdir", "-w", metavar="DIR", help="Of the study. Goes on with one that is there.")],
    recipe: RecipeOption = None,
    seeds: Annotated[str, typer.Option("--seeds", metavar="N,N,...", help="Every combination is trained with each.")] = "0",
    sets: Sets = None,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress of the runs.")] = False,
) -> None:
    """Train a spec under several values of a setting, with several seeds, and put them side by side."""
    from kerasgreedy.studies.sweep_range import Sweep, over_of

    study = Sweep(spec, recipe, over_of(over), whole_numbers("--seeds", seeds), tuple(sets or ()))
    quiet_tensorflow()
    from kerasgreedy.studies.sweep import sweep as run

    table = run(study, folder, tell, quiet)
    if as_json:
        output.put_json({"folder": str(folder), **table})
        return
    names = list(table["keys"].values())
    header = [*names, "seeds", "training %", "validation %", "top-1 %", "lowest-highest", "loss", "parameters", ""]
    output.put_table(header, [_row(point, index == table["best"]) for index, point in enumerate(table["points"])])
    output.put("means over seeds; training: of the last epoch")
    output.put(f"sweep.json and sweep.png are in {folder}")


def _row(point: dict[str, Any], best: bool) -> list[str]:
    def mean(key: str, form: Any = percent) -> str:
        return form(point[key][0]) if point.get(key) else "-"

    lost = f", {len(point['diverged'])} diverged" if point["diverged"] else ""
    spread = "-".join(percent(value) for value in point["top1"][1:]) if len(point["seeds"]) > 1 else ""
    return [
        *map(value_text, point["values"].values()),
        f"{len(point['seeds'])}{lost}",
        *(mean(key) for key in ("train_accuracy", "validation_top1", "top1")),
        spread,
        mean("loss", "{:.4f}".format),
        mean("parameters", "{:,.0f}".format),
        "best on validation data" if best else "",
    ]
