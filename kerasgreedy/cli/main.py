"""The `kerasgreedy` command. TensorFlow is imported only inside the commands that need it."""

import json
import sys
from typing import Annotated, Any

import typer

from kerasgreedy import __version__
from kerasgreedy.cli import outermost, output
from kerasgreedy.cli.analyses import add_analyses
from kerasgreedy.cli.analyze_command import analyze_app
from kerasgreedy.cli.anytime_command import anytime
from kerasgreedy.cli.convergence_command import convergence
from kerasgreedy.cli.data_command import data_app
from kerasgreedy.cli.doctor_command import doctor
from kerasgreedy.cli.export_command import export, predict
from kerasgreedy.cli.finish_command import finish
from kerasgreedy.cli.frontier_command import frontier
from kerasgreedy.cli.init_command import init
from kerasgreedy.cli.options import Json, RecipeOption, Sets, quiet_tensorflow
from kerasgreedy.cli.own_data import with_data
from kerasgreedy.cli.prune_command import prune
from kerasgreedy.cli.report_command import report
from kerasgreedy.cli.sensitivity_command import sensitivity
from kerasgreedy.cli.specs_command import specs
from kerasgreedy.cli.sweep_command import sweep
from kerasgreedy.cli.threshold_command import threshold
from kerasgreedy.cli.train_command import compare, evaluate, train
from kerasgreedy.cli.transfer_command import transfer_learn
from kerasgreedy.errors import InputError, did_you_mean, tell

app = typer.Typer(
    name="kerasgreedy",
    help="Train networks block by block from YAML model specs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app)
app.add_typer(analyze_app)
for command in (
    train,
    evaluate,
    compare,
    prune,
    threshold,
    transfer_learn,
    frontier,
    sweep,
    sensitivity,
    finish,
    export,
    predict,
    anytime,
    convergence,
    report,
    specs,
    init,
    doctor,
):
    app.command()(command)
add_analyses(app)

Spec = Annotated[str, typer.Argument(metavar="SPEC", help="Model spec: a YAML file, or the name of a shipped one.")]
SpecOrRun = Annotated[
    str, typer.Argument(metavar="SPEC", help="Model spec: a YAML file, the name of a shipped one, or a run folder.")
]


def _version(asked: bool) -> None:
    if asked:
        output.put(f"kerasgreedy {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    plugins: Annotated[
        list[str] | None,
        typer.Option(
            "--plugin", metavar="MODULE|FILE.py", help="Import a plug-in first; stands before the command. May be repeated."
        ),
    ] = None,
) -> None:
    """Train networks block by block from YAML model specs."""
    if plugins:
        from kerasgreedy.spec.plugins import load_plugin

        for named in plugins:
            load_plugin(named)


@app.command()
def plan(
    spec: Spec,
    recipe: RecipeOption = None,
    sets: Sets = None,
    place: Annotated[str | None, typer.Option("--data", metavar="PLACE", help="The data set: a path, or as in a recipe.")] = None,
    timed: Annotated[
        bool, typer.Option("--time", help="Also estimate how long it takes here, from a few timed steps; takes a minute.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the phases that a recipe compiles to, before anything runs."""
    recipe, sets, said = with_data(place, recipe, sets or [])
    if said:
        tell(said)
    from kerasgreedy.plan.preparation import prepare
    from kerasgreedy.spec.load import load

    job = prepare(*load(spec, recipe, sets))
    if job.recipe.start_from:
        from kerasgreedy.runs.start_sources import start_of

        job = start_of(job).check()  # as `train` does
    timings = []
    if timed:
        quiet_tensorflow()
        from kerasgreedy.analysis.run_time import time_plan

        timings = time_plan(job)
    if as_json:
        output.put_json(output.plan_json(job) | ({"timings": [vars(timing) for timing in timings]} if timed else {}))
        return
    output.put_plan(job)
    if timed:
        output.put_timings(timings)


@app.command()
def summary(
    spec: SpecOrRun,
    other: Annotated[
        str | None, typer.Argument(metavar="OTHER", help="A second one: both are put side by side, as before and after.")
    ] = None,
    sets: Sets = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also build the network and time it at batch 1 and 32; takes seconds.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print shapes, parameters and multiply-adds of a spec, or of two side by side."""
    from kerasgreedy.cli import summaries

    found = summaries.sides(spec, other, sets or [])
    latency = summaries.measured(found) if measure else None
    if as_json:
        output.put_json(summaries.as_json(found, latency))
    else:
        summaries.put(found, latency)


@app.command()
def validate(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Model specs and recipes, in any order.")],
    as_json: Json = False,
) -> None:
    """Check model specs and recipes, and report every error of each."""
    from kerasgreedy.cli.validation import validate_files

    kinds = validate_files(files)
    if as_json:
        output.put_json({"files": [{"file": str(file), "kind": kind} for file, kind in kinds.items()]})
    else:
        for file, kind in kinds.items():
            output.put(f"{file}: a valid {kind}")


@app.command()
def schema(kind: Annotated[str, typer.Argument(metavar="model|recipe", help="Which document.")] = "model") -> None:
    """Print the JSON Schema of model specs or recipes, for editors."""
    from kerasgreedy.spec.model import ModelSpec
    from kerasgreedy.spec.recipe import Recipe

    choices: dict[str, Any] = {"model": ModelSpec, "recipe": Recipe}
    if kind not in choices:
        raise InputError(f"schema: received '{kind}'; allowed: {', '.join(choices)}{did_you_mean(kind, choices)}")
    output.put(json.dumps(choices[kind].model_json_schema(), indent=1))


def main() -> None:
    """Runs the command line and exits with a code of `errors`."""
    outermost.open_streams()
    # The flag is taken anywhere on the line.
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    sys.exit(outermost.run(lambda: app(args=arguments, standalone_mode=False), "--debug" in sys.argv))
