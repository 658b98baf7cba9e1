"""`train`, `evaluate` and `compare`: a run made, measured, and put beside others."""

from pathlib import Path
from typing import Annotated

import typer

from kerasgreedy.cli import output
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
from kerasgreedy.errors import InputError, did_you_mean, tell

WorkdirArgument = Annotated[Path, typer.Argument(metavar="WORKDIR", help="Run folder.")]


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
