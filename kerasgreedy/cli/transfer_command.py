"""`transfer-learn`: new classes on the blocks of a trained network."""

from typing import Annotated

import typer

from kerasgreedy.cli import output
from kerasgreedy.cli.options import DevicesOption, Json, NewWorkdir, Quiet, RecipeOption, Sets, quiet_tensorflow
from kerasgreedy.cli.own_data import with_data
from kerasgreedy.errors import tell

RECIPE = "transfer"


def transfer_learn(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="Run folder, exported version, Keras model (.keras, .h5), or keras.applications:NAME."
        ),
    ],
    place: Annotated[
        str, typer.Option("--data", metavar="PLACE", help="The new data set: a folder with a folder a class, or as in a recipe.")
    ],
    spec: Annotated[
        str | None, typer.Option("--spec", metavar="SPEC", help="Of a Keras model: the spec whose first blocks are its layers.")
    ] = None,
    blocks: Annotated[
        int | None, typer.Option("--blocks", min=1, help="Take only the first so many blocks. Default: all that there are.")
    ] = None,
    recipe: RecipeOption = None,
    sets: Sets = None,
    workdir: NewWorkdir = None,
    devices: DevicesOption = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a linear head for new classes on the blocks of a trained network, which stay as they are."""
    named, overrides, said = with_data(place, recipe, sets or [], RECIPE)
    if named is None:  # a set by its name: it has no files to be left out
        named, overrides = RECIPE, ["data.corrupt=error", *overrides]
    if said and not quiet:
        tell(said)
    quiet_tensorflow()
    from kerasgreedy.train.transfer_run import transfer_learn as run

    done = run(source, spec, named, blocks, overrides, workdir, quiet, devices)
    if as_json:
        output.put_json({"workdir": str(done.workdir), **done.results})
        return
    output.put_scores(done.results, f"{done.results['spec']} on test data")
    output.put(f"run folder: {done.workdir}")
