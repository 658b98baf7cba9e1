"""`kerasgreedy init`: a spec and a recipe for a folder of images."""

from pathlib import Path
from typing import Annotated

import typer

from kerasgreedy.cli import output
from kerasgreedy.cli.options import Json
from kerasgreedy.errors import WorkdirError, tell
from kerasgreedy.files import user_path, write_atomically


def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of images, a folder a class.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the two files go. Default: here.")] = Path(),
    name: Annotated[str | None, typer.Option("--name", help="Of the spec. Default: the folder's.")] = None,
    as_json: Json = False,
) -> None:
    """Look at a folder of images and write a spec and a recipe for it, with comments."""
    from kerasgreedy.data.folders import TEST_SHARE
    from kerasgreedy.data.survey import survey
    from kerasgreedy.spec.starter import recipe_text, spec_text, starter

    place = user_path(out)
    if not place.is_dir():
        raise WorkdirError(f"--out: {place}: no such folder")
    seen = survey(str(folder))
    chosen = starter(
        name or user_path(folder).resolve().name,
        f"folder:{folder if place.resolve() == Path.cwd() else user_path(folder).resolve()}",
        None if seen.divided else TEST_SHARE,
        seen.train_counts,
        min(seen.height, seen.width),
        seen.grey,
    )
    files = {place / f"{chosen.name}.yaml": spec_text(chosen), place / f"{chosen.name}_recipe.yaml": recipe_text(chosen)}
    for file in files:
        if file.exists():
            raise WorkdirError(f"{file}: already exists; give another --name or --out")
    for file, text in files.items():
        write_atomically(file, text.encode())
    spec, recipe = map(str, files)
    if as_json:
        facts = {"classes": seen.train_counts, "train": seen.train_images, "test": seen.test_images}
        size = {"height": seen.height, "width": seen.width, "grey": seen.grey, "passed_over": seen.passed_over.counts}
        output.put_json({"spec": spec, "recipe": recipe, **facts, **size, "notes": list(chosen.notes)})
        return
    rows = [[each, f"{count:,}"] for each, count in seen.train_counts.items()]
    output.put_table(["class", "training images"], rows[:30])
    if len(rows) > 30:
        output.put(f"and {len(rows) - 30:,} classes more")
    each = "all" if seen.same_size else "the median one"
    kind = "grey" if seen.grey else "colour"
    output.put(f"{seen.train_images:,} training, {seen.test_images:,} test images, {each} {seen.height}x{seen.width}, {kind}")
    if seen.broken[0]:
        tell(f"{seen.broken[0]:,} of the images looked at cannot be read; the first is {seen.broken[1]}")
    if seen.passed_over.count:
        tell(seen.passed_over.words)
    for note in chosen.notes:
        output.put(note)
    output.put(f"written: {spec} and {recipe}; both are meant to be changed")
    output.put(f"next: kerasgreedy train {spec} --recipe {recipe}")
