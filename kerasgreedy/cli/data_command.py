"""`kerasgreedy data`: what data sets there are, what they look like, and how to have them."""

from pathlib import Path
from typing import Annotated

import typer

from kerasgreedy.cli import output
from kerasgreedy.cli.options import Json, Overwrite, Sets, quiet_tensorflow
from kerasgreedy.errors import tell

data_app = typer.Typer(
    name="data",
    help="List, show and prepare data sets.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DataDir = Annotated[
    str | None,
    typer.Option("--data-dir", metavar="DIR", help="Where idx files and TFDS copies lie. Default: the usual places."),
]


@data_app.command("list")
def list_(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Print every named data set and whether it is here."""
    from kerasgreedy.data.listing import list_sets
    from kerasgreedy.data.named import FORMS

    sets = list_sets(data_dir)
    if as_json:
        output.put_json({"sets": sets, "forms": FORMS})
        return
    rows = [
        [entry["name"], f"{entry['train']:,} + {entry['test']:,}", output.size_text(entry["image_shape"]), str(entry["classes"]),
         entry["here"] or "no", entry["about"], entry["licence"]]
        for entry in sets
    ]  # fmt: skip
    output.put_table(["name", "images", "size", "classes", "here", "what", "licence"], rows)
    for form, about in FORMS.items():
        output.put(f"{form}: {about}")
    output.put("`kerasgreedy data prepare NAME` fetches what is not here.")


@data_app.command()
def show(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A name, folder:PATH, npz:PATH or tfds:NAME.")],
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", "-r", metavar="RECIPE", help="Look through this recipe's data section. Default: no changes."),
    ] = None,
    sets: Sets = None,
    target: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.png", help="Contact sheet. Default: <dataset>.png.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Print counts and figures of a data set and draw a sheet of its images."""
    from kerasgreedy.data.info import skipped_notice

    quiet_tensorflow()
    from kerasgreedy.data.overview import overview, recipe_for
    from kerasgreedy.data.sheet import sheet_path, write_sheet

    chosen = recipe_for(dataset, recipe, sets or [])
    path = sheet_path(dataset, target, overwrite)
    seen = overview(chosen)
    write_sheet(seen, path, overwrite)
    if seen.info.skipped:
        tell(skipped_notice(seen.info.skipped))
    if seen.info.passed_over.count:
        tell(seen.info.passed_over.words)
    if chosen.data.augment.mixup:
        tell("augment.mixup is not shown: each image would be mixed with another one of its batch")
    if as_json:
        output.put_json({**seen.as_dict(), "output": str(path)})
    else:
        output.put_overview(seen.as_dict())
        output.put(f"contact sheet: {path}")


@data_app.command()
def prepare(
    dataset: Annotated[str, typer.Argument(metavar="NAME", help="A name of `data list`, or tfds:NAME.")],
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Download and prepare a data set with TFDS, or say where it is."""
    quiet_tensorflow()
    from kerasgreedy.data.fetch import prepare_set

    done = prepare_set(dataset, data_dir)
    if as_json:
        facts = {"image_shape": list(done.info.image_shape), "classes": done.info.classes}
        counts = {"train": done.info.train_examples, "test": done.info.test_examples}
        output.put_json({"dataset": dataset, "place": done.place, "fetched": done.fetched, **facts, **counts})
    else:
        what = "prepared" if done.fetched else "nothing needs to be done: it is"
        counts_text = f"{done.info.train_examples:,} training and {done.info.test_examples:,} test images"
        output.put(f"{dataset}: {what} {done.place if done.place.startswith('in ') else f'in {done.place}'} ({counts_text})")
