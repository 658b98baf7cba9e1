"""The `kerasgreedy` command. TensorFlow is imported only inside the commands that need it."""

import json
import sys
from pathlib import Path
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
from kerasgreedy.cli.options import (
    CheckData,
    DevicesOption,
    Json,
    NewWorkdir,
    Overwrite,
    Quiet,
    RecipeOption,
    Sets,
    quiet_tensorflow,
)
from kerasgreedy.cli.own_data import with_data
from kerasgreedy.cli.prune_command import prune
from kerasgreedy.cli.report_command import report
from kerasgreedy.cli.sensitivity_command import sensitivity
from kerasgreedy.cli.specs_command import specs
from kerasgreedy.cli.sweep_command import sweep
from kerasgreedy.cli.threshold_command import threshold
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
WorkdirArgument = Annotated[Path, typer.Argument(metavar="WORKDIR", help="Run folder.")]


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
def train(
    spec: Annotated[
        str | None, typer.Argument(metavar="SPEC", help="Model spec: a YAML file, or the name of a shipped one.")
    ] = None,
    recipe: RecipeOption = None,
    sets: Sets = None,
    workdir: NewWorkdir = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="WORKDIR", help="Go on with a run instead of starting one.")
    ] = None,
    devices: DevicesOption = None,
    distribute: Annotated[
        str | None,
        typer.Option("--distribute", metavar="none|mirrored|multi_worker", help="Instead of what the recipe says."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Start so many worker processes on this machine, to try things out.")
    ] = None,
    check_data: CheckData = False,
    data_at: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="PLACE",
            help="The data set: a path, or as in a recipe. With --resume: where the run's data are now.",
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a spec by a recipe, or go on with a run."""
    _one_of("--distribute", distribute, ("none", "mirrored", "multi_worker"))
    if resume is not None:
        stray = [name for name, value in (("SPEC", spec), ("--recipe", recipe), ("--workdir", workdir)) if value]
        if stray:
            raise InputError(f"--resume takes spec and recipe from the run folder and cannot stand beside {', '.join(stray)}")
    elif check_data:
        raise InputError("--check-data compares the data with what a run began with; give it with --resume WORKDIR")
    elif spec is None:
        raise InputError("train needs a SPEC, or --resume WORKDIR")
    named, overrides, said = recipe, list(sets or []), ""
    if resume is None:
        named, overrides, said = with_data(data_at, recipe, overrides)
    if workers:
        from kerasgreedy.cli.workers import launch

        raise typer.Exit(launch(workers, spec, named, overrides, resume, workdir, distribute))
    if spec is not None and recipe is None and not quiet:
        own_data = any(text.startswith(("data", "recipe.data")) for text in overrides)
        about = "" if own_data else ": 1,797 embedded images of digits, minutes on two cores"
        tell(said or f"no --recipe given: taking quickstart{about}")
    quiet_tensorflow()
    from kerasgreedy.train import entry_points as run

    if resume:
        chosen = {"devices": devices, "distribute": distribute, "check_data": check_data, "overrides": overrides}
        chosen |= {"data_at": data_at}
        done = run.resume_run(resume, quiet=quiet, **chosen)  # type: ignore[arg-type]
    else:
        overrides += [f"recipe.distribute={distribute}"] if distribute else []
        done = run.train_spec(str(spec), named, overrides, workdir, quiet=quiet, devices=devices)
    if as_json:
        output.put_json({"workdir": str(done.workdir), **done.results})
    else:
        output.put_scores(done.results, f"{done.results['spec']} on test data")
        if "pruned" in done.results:
            output.put_costs(done.results)
        output.put(f"run folder: {done.workdir}")


@app.command()
def evaluate(
    workdir: WorkdirArgument,
    part: Annotated[str, typer.Option("--part", help="test, validation or train.")] = "test",
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, max=1_000_000, help="Default: the recipe's.")] = None,
    masks: Annotated[
        str | None,
        typer.Option("--masks", help="Under masks instead of activations (after solver alternation): held, instance or batch."),
    ] = None,
    rule: Annotated[str | None, typer.Option("--rule", help="With --masks: positive or energy. Default: the run's.")] = None,
    beta: Annotated[float | None, typer.Option("--beta", min=0, help="With --masks: per example. Default: the run's.")] = None,
    devices: DevicesOption = None,
    check_data: CheckData = False,
    data_at: Annotated[
        str | None,
        typer.Option(
            "--data", metavar="PLACE", help="Where the run's data are now; or other images of the same classes to measure on."
        ),
    ] = None,
    details: Annotated[
        bool, typer.Option("--details", help="Also accuracy by class, what is taken for what, and the surest mistakes.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder for --details. Default: WORKDIR/evaluation/PART.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print top-1 and top-5 of every trained depth and of the ensemble."""
    _one_of("--part", part, ("test", "validation", "train"))
    _one_of("--masks", masks, ("held", "instance", "batch"))
    _one_of("--rule", rule, ("positive", "energy"))
    if masks is None and (rule, beta) != (None, None):
        raise InputError("--rule and --beta are about masks; give --masks too")
    if out is not None and not details:
        raise InputError("--out is the folder for --details; give that too")
    quiet_tensorflow()
    from kerasgreedy.train.evaluating import evaluate_run

    where = out or details
    chosen = {"masks": masks, "rule": rule, "beta": beta, "check_data": check_data, "data_at": data_at, "details": where}
    scores = evaluate_run(workdir, part, batch_size=batch_size, devices=devices, **chosen)  # type: ignore[arg-type]
    if as_json:
        output.put_json({"workdir": str(workdir), **scores})
        return
    under = f", {masks} masks" if masks else ""
    images = f"images of {scores['data']}" if "data" in scores else f"{part} images"
    output.put_scores(scores, f"{workdir}: {scores['examples']:,} {images}{under}")
    if details:
        from kerasgreedy.reports.answers_table import class_rows

        header, *rows = class_rows(scores)
        output.put_table(header, [list(map(str, row)) for row in rows], f"depth {scores['depths'][-1]['depth']}, class by class")
        output.put(f"tables and pictures: {scores['details']}")


def _one_of(option: str, received: str | None, allowed: tuple[str, ...]) -> None:
    if received is not None and received not in allowed:
        raise InputError(f"{option}: received '{received}'; allowed: {', '.join(allowed)}{did_you_mean(received, allowed)}")


@app.command()
def compare(
    workdirs: Annotated[list[Path], typer.Argument(metavar="WORKDIR...", help="Run folders.")],
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE.png", help="Also draw accuracy by depth.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Put finished runs side by side."""
    from kerasgreedy.pictures import picture_path
    from kerasgreedy.reports.run_files import read_run
    from kerasgreedy.reports.tables import compare_rows

    target = picture_path(plot, overwrite) if plot is not None else None
    runs = [read_run(path) for path in workdirs]
    if target is not None:
        from kerasgreedy.reports.plots import plot_comparison

        plot_comparison(runs, target, overwrite)
    if as_json:
        output.put_json({"runs": [{"workdir": str(run.path), **run.results} for run in runs]})
    else:
        output.put_table(*compare_rows(runs))


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
